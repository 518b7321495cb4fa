//! The pins of a script, by number: devices that have user memory.
//!
//! A script is one thread, and an unmap that meets pins waits for them: nobody would be left to let go. So each pin asks to be told ([`AsCallback`]), as a
//! driver for i/o does, and ends when whoever waits tells it.

use super::lend::whole_pages;
use super::words::errno;
use super::{Machine, Process, SysError};
use crate::script::outcome::{Errno, FNV_OFFSET, FirstBytes, Outcome, PAGE_BYTES, PageBytes, fnv};
use addr_space::{AddrSpace, AsCallback, Events, PinnedPages};
use page_db::sync::Mutex;
use page_db::{Access, Cx, Pfn, Rank, VnodeId};
use std::sync::{Arc, Weak};

/// What a device has.
#[derive(Debug)]
struct Pin {
    space: Arc<AddrSpace>,
    pinned: PinnedPages,
    /// Where its bytes are, page by page; unknown where a watch keeps a translation away.
    frames: Option<Vec<Pfn>>,
}

impl Pin {
    fn let_go(self, cx: &Cx) -> Outcome {
        match self.space.unlock_pages(cx, self.pinned) {
            Ok(()) => Outcome::OK,
            Err((e, pinned)) => {
                pinned.abandon();
                errno(e.errno())
            }
        }
    }
}

/// All that were made; those that have ended leave a gap.
#[derive(Debug)]
pub(super) struct Pins(Arc<Mutex<Vec<Option<Pin>>>>);

impl Default for Pins {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Rank::Turn, Vec::new())))
    }
}

/// The machine ends, or its script does: what is still pinned is pinned for good.
impl Drop for Pins {
    fn drop(&mut self) {
        for pin in self.0.lock_host().drain(..).flatten() {
            pin.pinned.abandon();
        }
    }
}

/// Lets go of a pin when somebody waits for it.
#[derive(Debug)]
struct Told {
    pins: Weak<Mutex<Vec<Option<Pin>>>>,
    place: usize,
}

impl AsCallback for Told {
    fn call(&self, cx: &Cx, space: &AddrSpace, _: Events) {
        let pin = self.pins.upgrade().and_then(|pins| pins.lock_host().get_mut(self.place)?.take());
        if let Some(pin) = pin {
            pin.let_go(cx);
        }
        space.delete_callback(cx, self.place as u64);
    }
}

impl Pins {
    /// Pins the pages of `len` bytes at `addr` of a process, and answers the pin's number.
    ///
    /// # Errors
    /// `EINVAL` for what is no user range of whole pages, and as [`AddrSpace::lock_pages`] and [`AddrSpace::add_callback`]; nothing is pinned.
    pub(super) fn add(
        &self,
        p: &Process,
        addr: u64,
        len: u64,
        access: Access,
    ) -> Result<Outcome, SysError> {
        const CALL: &str = "pin";
        let range = whole_pages(CALL, addr, len)?;
        let (space, cx) = (p.space(), p.cx());
        let pinned = space.lock_pages(cx, range, access).map_err(|e| SysError::of(CALL, e))?;
        let frames = match pinned.pages() {
            Some(pages) => Some(pages.map(|page| p.machine().db().pfn(page)).collect()),
            // Soft-locked: a translation stands behind each address until they are let go.
            None => {
                let there = range.iter_pages().map(|at| space.hat().probe(cx, at));
                there.map(|there| there.map(|there| there.pfn)).collect()
            }
        };
        let place = self.0.lock_host().len();
        let told = Arc::new(Told { pins: Arc::downgrade(&self.0), place });
        let added = space.add_callback(cx, told, place as u64, Events::all(), Some(range));
        let pin = Pin { space, pinned, frames };
        if let Err(e) = added {
            pin.let_go(cx);
            return Err(SysError::arg(CALL, e.errno(), "the pin's owner cannot be told"));
        }
        self.0.lock_host().push(Some(pin));
        Ok(Outcome::count(place as u64 + 1))
    }
    /// Reads what is pinned, as the device does.
    pub(super) fn read(&self, m: &Machine, pin: u64) -> Outcome {
        let pins = self.0.lock_host();
        let Some(pin) = place_of(pin).and_then(|i| pins.get(i)?.as_ref()) else {
            return Errno::EINVAL.into();
        };
        let (mut hash, mut first) = (FNV_OFFSET, FirstBytes::default());
        let mut buf: PageBytes = [0; PAGE_BYTES as usize];
        let Some(frames) = &pin.frames else { return Errno::ENOTSUP.into() };
        for frame in frames {
            m.db().mem().read(*frame, 0, &mut buf);
            hash = fnv(hash, &buf);
            first.extend(&buf);
        }
        Outcome::bytes(hash, first)
    }
    /// Ends a pin.
    pub(super) fn end(&self, m: &Machine, pin: u64) -> Outcome {
        let place = place_of(pin);
        let taken = place.and_then(|i| self.0.lock_host().get_mut(i)?.take().zip(Some(i)));
        let Some((pin, place)) = taken else { return Errno::EINVAL.into() };
        pin.space.delete_callback(m.cx(), place as u64);
        pin.let_go(m.cx())
    }
    /// Ends all pins that have a page of this file.
    pub(super) fn end_those_of(&self, m: &Machine, file: VnodeId) {
        let db = m.db();
        let of_file = |frame: &Pfn| {
            let page = db.page_of(*frame).and_then(|page| db.page(page).identity());
            page.is_some_and(|name| name.vnode == file)
        };
        // What is not known may be any file's.
        let has_one = |pin: &Pin| pin.frames.as_ref().is_none_or(|all| all.iter().any(of_file));
        let places: Vec<usize> = {
            let pins = self.0.lock_host();
            (0..pins.len()).filter(|i| pins[*i].as_ref().is_some_and(has_one)).collect()
        };
        places.into_iter().for_each(|place| _ = self.end(m, place as u64 + 1));
    }
}

/// Where the pin with this number is kept; they are counted from 1.
fn place_of(pin: u64) -> Option<usize> {
    usize::try_from(pin).ok()?.checked_sub(1)
}
