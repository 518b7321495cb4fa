//! Taking a page back from the cache list: the same bytes under the same name, without i/o.

use super::PageDb;
use crate::counters::Counter;
use crate::cx::Cx;
use crate::mappings::RefMod;
use crate::page::PageState;
use crate::selock::{ExclPage, LockedPage};

impl PageDb {
    /// Takes a free, named page off its cache list and makes it in use, referenced. Counts `pgrec` and `pgfrec`.
    ///
    /// freemem falls by one; no threshold is asked, since no other frame is consumed.
    ///
    /// # Panics
    /// When the page is not a cached one (C1), or another database's (K5).
    #[doc(alias = "page_reclaim")]
    pub fn reclaim(&self, cx: &Cx, page: &ExclPage<'_>) {
        self.assert_own(page);
        self.uncache(cx, page);
        page.page().set_ref_mod(RefMod::REF);
        cx.count(Counter::PgRec);
        cx.count(Counter::PgFrec);
    }
    /// Takes a cached page off its list, for whatever purpose.
    pub(crate) fn uncache(&self, cx: &Cx, page: &ExclPage<'_>) {
        assert!(
            page.page().is_free() && page.identity().is_some(),
            "C1: page {} is not on the cache list",
            page.id()
        );
        self.cache_list().remove(cx, self.pages(), page.id());
        page.page().set_state(PageState::empty(), PageState::FREE);
    }
}
