//! Anon maps that are objects of their own: shared memory that has a name, which segments come to by the map.
//!
//! A map is sparse and knows no end. Who maps one by name brings a length along, and nothing else says that the object is as long: slots past its end are
//! covered by nobody else, and no swap is promised for them. So a map notes how many slots it was made for, and whether all its segments still cover them:
//!
//! ```text
//!   made for 4 slots         0 1 2 3      any length up to 4
//!   the last is given up     0 1 2 -      up to 3, as the references slot by slot say
//!   one segment is left      ? ? ? -      none: without references slot by slot it is not known what it covers
//! ```
//!
//! - M5: a segment that comes by the map covers slots of the object which some segment covers already.
//!
//! illumos keeps the size in the map, and panics where a segment is longer.
//!
//! Sources: [SI §9.6]; illumos.md 5.1.

use super::AnonMap;
use super::promised::Promised;
use core::ops::Range;
use page_db::Cx;
use page_db::heap::NoHeap;

impl AnonMap {
    /// One segment more, covering `part` of the object that the map was made for. Says no, and nothing has changed, where that does not reach as far, or nobody
    /// covers one of the slots any more (M5).
    ///
    /// # Errors
    /// As [`AnonMap::gain`]'s.
    pub(crate) fn gain_object(&self, cx: &Cx, part: Range<u64>) -> Result<bool, NoHeap> {
        let mut grow = self.grow.lock(cx);
        let covered = match &*grow {
            Some(pp) => !pp.any(part.clone(), |n| n == 0),
            None => self.refs() != 0 && !self.promised.has(Promised::UNEVEN),
        };
        let reaches = part.end <= u64::from(self.size) && covered;
        if reaches {
            self.count_segment(&mut grow, 0..self.size.into(), part)?;
        }
        Ok(reaches)
    }
}
