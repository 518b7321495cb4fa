//! The page lock's word: every step it can take, and the order each step gives to what is around it.
//!
//! All steps are read-modify-writes of the one word, so they stand in one order whatever their memory order is; what they still need is that
//! a holder sees what the holders before it did. Taking is an acquire, leaving a release. A release may be plain about sleepers, too:
//!
//! ```text
//!   sleeper    place.waiters += 1;  word |= WAITERS (only while blocked)  ──▶ sleeps
//!   unlocker   word := free, sees WAITERS there  ──▶  looks at place.waiters, wakes
//! ```
//!
//! - W1: the bit is set by a release of the thread that is counted, and the unlocker that sees it acquires: it sees the count.
//! - W2: a sleeper that finds the bit set already adds none. So whoever takes the bit away on the way to the wake-up (the last reader does, in
//!   a second step) must be sequentially consistent with the sleeper's announcement: one of the two sees the other.
//!
//! The steps are written over [`Word`], so that the models of `sync/models.rs` run this code and no copy of it.

use super::{COUNT, EWANTED, EXCL, FULL, MARKS, SeState, WAITERS};
use crate::sync::{Mutation, Slip, Word, mutated};
use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release, SeqCst};

pub(crate) fn state<W: Word>(word: &W) -> SeState {
    let w = word.load(SeqCst);
    SeState { shared: w & COUNT, excl: w & EXCL != 0, wanted: w & EWANTED != 0 }
}

/// Replaces the word by what `next` makes of it, unless that is nothing; the word before.
#[inline]
fn step<W: Word>(word: &W, order: Ordering, next: impl Fn(u32) -> Option<u32>) -> Option<u32> {
    let mut w = word.load(Relaxed);
    while let Some(new) = next(w) {
        match word.compare_exchange(w, new, order, Relaxed) {
            Ok(_) => return Some(w),
            Err(now) => w = now,
        }
    }
    None
}
/// Bits in `refused` refuse; those who wait pass `EXCL | EWANTED` only. Too many holders refuse whoever comes (K6).
#[inline]
pub(crate) fn try_shared<W: Word>(word: &W, refused: u32) -> bool {
    let free = |w: u32| (w & (refused | FULL) == 0).then_some(w + 1);
    step(word, W::unless(Slip::TakeRelaxed, Acquire), free).is_some()
}
/// Bits in `refused` refuse. Whoever announced itself owns the EWANTED bit, does not mind it, and clears it.
#[inline]
pub(crate) fn try_excl<W: Word>(word: &W, refused: u32) -> bool {
    step(word, W::unless(Slip::TakeRelaxed, Acquire), |w| {
        (w & (EXCL | COUNT | refused) == 0).then_some((w & (WAITERS | MARKS)) | EXCL)
    })
    .is_some()
}
/// The only reader becomes the exclusive holder.
#[inline]
pub(crate) fn try_upgrade<W: Word>(word: &W) -> bool {
    step(word, Acquire, |w| {
        let alone = w & (COUNT | EWANTED) == 1 || mutated(Mutation::UpgradeBesideReaders);
        alone.then_some((w & (WAITERS | MARKS)) | EXCL)
    })
    .is_some()
}
/// The exclusive holder becomes a reader, and wakes the sleepers.
#[inline]
pub(crate) fn downgrade<W: Word>(word: &W, wake: impl FnOnce()) {
    let order = W::unless(Slip::ExclLeavesAlone, SeqCst);
    let old = step(word, order, |w| Some((w & (EWANTED | MARKS)) | 1)).unwrap_or(0);
    let silent = mutated(Mutation::DowngradeWakesNobody) || W::slips(Slip::DowngradeWakesNobody);
    if old & WAITERS != 0 && !silent {
        wake();
    }
}
/// A reader leaves. The word before; with `WAITERS` in it, [`left_shared`] is to be called.
#[inline]
pub(crate) fn unlock_shared<W: Word>(word: &W) -> u32 {
    word.fetch_sub(1, W::unless(Slip::LeaveRelaxed, Release))
}
/// A reader has left and found sleepers marked in the word, `old`: the last one wakes them (W2).
pub(crate) fn left_shared<W: Word>(word: &W, old: u32, wake: impl FnOnce()) {
    if old & WAITERS != 0 && old & COUNT == 1 {
        word.fetch_and(!WAITERS, SeqCst);
        wake();
    }
}
/// The exclusive holder leaves. The word before; with `WAITERS` in it, all are to be woken.
#[inline]
pub(crate) fn unlock_excl<W: Word>(word: &W) -> u32 {
    word.fetch_and(!(EXCL | WAITERS), W::unless(Slip::ExclLeavesAlone, SeqCst))
}

/// The exclusive holder stays and wakes the sleepers, for what they wait for is gone. Who comes later sees by the word, which is changed in any case, what was
/// done before.
pub(crate) fn rouse<W: Word>(word: &W, wake: impl FnOnce()) {
    if word.fetch_and(!WAITERS, SeqCst) & WAITERS != 0 {
        wake();
    }
}

/// Waits for a shared lock. `sleep` sleeps while what it is given says so.
#[cold]
pub(crate) fn wait_shared<W: Word>(word: &W, sleep: impl FnMut(&mut dyn FnMut() -> bool)) {
    wait_shared_while(word, || true, sleep);
}
/// Waits for a shared lock for as long as it is `wanted`; says whether it is had. Who makes an end of that does so as exclusive holder, before he leaves or
/// calls [`rouse`].
#[cold]
pub(crate) fn wait_shared_while<W: Word>(
    word: &W,
    wanted: impl Fn() -> bool,
    mut sleep: impl FnMut(&mut dyn FnMut() -> bool),
) -> bool {
    loop {
        // The word first: who sees that a later holder has it sees what the holders before have done.
        sleep(&mut || must_wait(word, EXCL | EWANTED, WAITERS) && wanted());
        if try_shared(word, EXCL | EWANTED) {
            return true;
        }
        if !wanted() {
            return false;
        }
        assert!(
            word.load(Relaxed) & FULL == 0,
            "K6: too many holders of a page: guards are forgotten"
        );
    }
}
/// As [`wait_shared_while`] for the exclusive lock, not announced.
#[cold]
pub(crate) fn wait_excl_while<W: Word>(
    word: &W,
    wanted: impl Fn() -> bool,
    mut sleep: impl FnMut(&mut dyn FnMut() -> bool),
) -> bool {
    loop {
        sleep(&mut || must_wait(word, EXCL | COUNT | EWANTED, WAITERS) && wanted());
        if try_excl(word, EWANTED) {
            return true;
        }
        if !wanted() {
            return false;
        }
    }
}
/// Waits for the exclusive lock. Announced, from the first sleep on the bit that keeps new readers out is this thread's as much as anybody's; not announced,
/// it waits like a reader for those who are.
#[cold]
pub(crate) fn wait_excl<W: Word>(
    word: &W,
    announced: bool,
    mut sleep: impl FnMut(&mut dyn FnMut() -> bool),
) {
    let (others, bits) = if announced { (0, WAITERS | EWANTED) } else { (EWANTED, WAITERS) };
    loop {
        sleep(&mut || must_wait(word, EXCL | COUNT | others, bits));
        if try_excl(word, others) {
            return;
        }
    }
}
/// Whether a waiter must go on sleeping; sets the bits that make the unlocker call (K2). The caller is counted at its place already.
fn must_wait<W: Word>(word: &W, blocked_by: u32, bits: u32) -> bool {
    loop {
        let w = word.load(SeqCst);
        if w & blocked_by == 0 {
            return false;
        }
        if w & bits == bits || word.compare_exchange(w, w | bits, SeqCst, SeqCst).is_ok() {
            return true;
        }
    }
}
