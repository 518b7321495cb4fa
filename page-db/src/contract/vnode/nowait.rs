//! A put that may not wait: it does its work, passes over a page that somebody holds, and says so.
//!
//! Whether it waits is seen from the other side. A second thread holds the page until the put has ended, or until a thread has gone to sleep that was
//! not asleep before: then the put waits for just this thread, and would for ever.

use super::{BACK, Bench};
use crate::contract::Breach;
use crate::units::FileOffset;
use crate::vnode::PutFlags;

const NOWAIT: &str = "NOWAIT: what nobody holds is put, held pages beside it or not";

/// A put that may not wait, while nobody is there to be waited for.
pub(super) fn unheld(b: &Bench<'_>) -> Result<(), Breach> {
    let all = |flags| {
        let done = b.put(FileOffset(0), 0, flags);
        b.judge.same(
            NOWAIT,
            format_args!("put_page, {flags:?}, of what nobody holds"),
            done,
            Ok(()),
        )?;
        b.judge.holds_nothing(b.c.cx, "put_page")?;
        b.unlocked("put_page")?;
        Ok(b.dirty())
    };
    b.store_all(8)?;
    let dirty = all(PutFlags::NOWAIT)?;
    let clean = dirty.iter().all(|d| *d == Some(false));
    b.judge.require(NOWAIT, clean, format_args!("all were put: dirty are {dirty:?}"))?;
    b.store_all(9)?;
    let dirty = all(PutFlags::NOWAIT | PutFlags::INVAL)?;
    let gone = dirty.iter().all(Option::is_none);
    b.judge.require(NOWAIT, gone, format_args!("all were to go: dirty are {dirty:?}"))?;
    b.all_hold(BACK, 9)
}

#[cfg(all(feature = "std", not(shuttle)))]
pub(super) use beside::held;

#[cfg(all(feature = "std", not(shuttle)))]
mod beside {
    use super::{Bench, Breach, FileOffset, NOWAIT, PutFlags};
    use crate::cx::Cx;
    use crate::error::VnodeError;
    use crate::page::PageId;
    use crate::selock::LockedPage as _;
    use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::{thread, time::Duration};

    const NOT_WAITED: &str = "NOWAIT: nobody who holds a page is waited for";
    const HELD: &str = "NOWAIT: a page that somebody holds stays as it was, and Deadlock says so";

    /// How another thread holds a page.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Hold {
        Shared,
        Alone,
        /// Shared, for a transfer.
        InTransit,
    }

    /// A put of all pages that may not wait, while another thread holds one of them.
    pub(in crate::contract::vnode) fn held(b: &Bench<'_>) -> Result<(), Breach> {
        let (stays, goes) = (PutFlags::NOWAIT, PutFlags::NOWAIT | PutFlags::INVAL);
        let scenes = [
            (Hold::Shared, goes),
            (Hold::Alone, goes),
            (Hold::Alone, stays),
            (Hold::InTransit, stays),
        ];
        let at = b.c.places[1];
        for (round, (hold, flags)) in (10..).zip(scenes) {
            b.store_all(round)?;
            let Some(page) = b.resident(at) else { continue }; // put away already
            let (done, waited) = b.put_beside(page, hold, flags)?;
            let what = format_args!("{flags:?} of a page held {hold:?} answered {done:?}");
            b.judge.require(NOT_WAITED, !waited, what)?;
            let said = matches!(done, Err(VnodeError::Deadlock { offset, .. }) if offset == at);
            b.judge.require(HELD, said, what)?;
            b.judge.same(HELD, format_args!("the page held"), b.resident(at), Some(page))?;
            b.judge.same(HELD, format_args!("whether it is dirty"), b.is_dirty(at), Some(true))?;
            let due = (flags == stays).then_some(false);
            let mut beside = b.dirty();
            beside.remove(1);
            let put = beside.iter().all(|d| *d == due);
            b.judge.require(NOWAIT, put, format_args!("beside it: dirty are {beside:?}"))?;
            b.judge.holds_nothing(b.c.cx, "put_page of a page that is held")?;
            b.unlocked("put_page of a page that is held")?;
            b.all_hold(HELD, round)?;
        }
        b.empties()
    }

    impl Bench<'_> {
        /// Puts all pages while another thread holds `page`: until the put has ended, or is asleep and will not end before. Says whether it was.
        fn put_beside(
            &self,
            page: PageId,
            hold: Hold,
            flags: PutFlags,
        ) -> Result<(Result<(), VnodeError>, bool), Breach> {
            let db = self.c.db;
            let (has, ended) = (&AtomicBool::new(false), &AtomicBool::new(false));
            let asleep = db.waits().sleepers();
            // What sleeps elsewhere than the library lets threads sleep is given up on in the end.
            let wait = || {
                has.store(true, SeqCst);
                let until_it_sleeps = |_: &u32| {
                    thread::sleep(Duration::from_millis(1));
                    ended.load(SeqCst) || db.waits().sleepers() > asleep
                };
                (0..20_000).find(until_it_sleeps);
                !ended.load(SeqCst)
            };
            thread::scope(|s| {
                let holder = s.spawn(move || {
                    let id = crate::ThreadId(1 << 24);
                    let hooks = alloc::sync::Arc::new(crate::SpinHooks);
                    let cx = &Cx::new(db.counters(), crate::CpuId(0), id, hooks);
                    if hold == Hold::Alone {
                        let _page = db.lock_excl(cx, page);
                        return wait();
                    }
                    let page = db.lock_shared(cx, page);
                    if hold == Hold::InTransit {
                        cx.blocking(|| db.io_lock(cx, &page));
                    }
                    let waited = wait();
                    if hold == Hold::InTransit {
                        db.io_unlock(page.id());
                    }
                    waited
                });
                while !has.load(SeqCst) && !holder.is_finished() {
                    thread::yield_now();
                }
                let done = self.put(FileOffset(0), 0, flags);
                ended.store(true, SeqCst);
                Ok((done, self.judge.ended(holder.join())?))
            })
        }
    }
}
