//! A program that runs while flushes do.

use super::{Bench, FLUSH, pages, va};
use crate::mmu::SpaceId;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use page_db::contract::Breach;
use page_db::{Cx, PageId, Prot, SpinHooks, ThreadId};

/// A program on the last of the processors tried.
struct Program {
    stop: AtomicBool,
    /// Stores that were tried.
    tries: AtomicU32,
    /// The space that it enters before each store; 0 for none, it stays where it is then.
    enters: AtomicU32,
}

impl Program {
    const fn new() -> Self {
        Self { stop: AtomicBool::new(false), tries: AtomicU32::new(0), enters: AtomicU32::new(0) }
    }
    fn run(
        &self,
        b: &Bench<'_>,
        rounds: impl FnOnce(&Self) -> Result<(), Breach>,
    ) -> Result<(), Breach> {
        let cpu = b.cpus[b.cpus.len() - 1];
        let (counters, user, mmu) = (b.c.db.counters(), b.c.user, &*b.c.mmu);
        let (ended, program) = std::thread::scope(|s| {
            let program = s.spawn(move || {
                let cx = Cx::new(counters, cpu, ThreadId(u32::MAX - 1), Arc::new(SpinHooks));
                while !self.stop.load(SeqCst) {
                    let id = self.enters.load(SeqCst);
                    if id != 0 {
                        mmu.activate(&cx, cpu, None);
                        mmu.activate(&cx, cpu, Some(SpaceId(id)));
                    }
                    let _ = user.store(&cx, cpu, va(0), &[1]); // a fault, most of the time
                    self.tries.fetch_add(1, SeqCst);
                }
            });
            let ended = rounds(self);
            self.stop.store(true, SeqCst);
            (ended, program.join())
        });
        b.judge.ended(program)?;
        ended
    }
    /// Waits until the program has tried a store that began after this, if it comes to that soon.
    fn wait_for_a_store(&self) {
        let now = self.tries.load(SeqCst);
        for _ in 0..10_000 {
            if self.tries.load(SeqCst).wrapping_sub(now) > 1 {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Nothing is stored to an unloaded page while `meanwhile` lasts.
fn is_untouched(
    b: &Bench<'_>,
    page: PageId,
    round: u32,
    meanwhile: impl FnOnce(),
) -> Result<(), Breach> {
    let (pfn, mut byte) = (b.c.db.pfn(page), [0]);
    b.c.db.mem().zero(pfn);
    meanwhile();
    b.c.db.mem().read(pfn, 0, &mut byte);
    b.judge.same(FLUSH, format_args!("a store after it, round {round}"), byte, [0])
}

/// A program stores all the time; once a flush has returned, nothing of it comes to the frame any more.
pub(super) fn under_way(b: &Bench<'_>) -> Result<(), Breach> {
    let (hat, page) = (b.hat()?, b.page(0)?);
    b.run(b.cpus[b.cpus.len() - 1], Some(&*hat));
    Program::new().run(b, |_| {
        for round in 0..300 {
            b.map(&*hat, va(0), page, Prot::RW)?;
            std::thread::yield_now();
            b.unload(&*hat, pages(0, 1));
            is_untouched(b, page, round, std::thread::yield_now)?;
        }
        Ok(())
    })?;
    b.end(&*hat);
    b.give_back(page);
    b.is_quiet()
}

/// The same with a program that enters a space for the first time while the flush is going on: it is among those told, or walks what is there by then.
pub(super) fn entering(b: &Bench<'_>) -> Result<(), Breach> {
    let page = b.page(0)?;
    Program::new().run(b, |program| {
        for round in 0..40 {
            let hat = b.hat()?;
            b.map(&*hat, va(0), page, Prot::RW)?;
            program.enters.store(hat.id(), SeqCst);
            (0..round % 8).for_each(|_| std::thread::yield_now());
            b.unload(&*hat, pages(0, 1));
            is_untouched(b, page, round, || program.wait_for_a_store())?;
            b.end(&*hat);
        }
        Ok(())
    })?;
    b.give_back(page);
    b.is_quiet()
}
