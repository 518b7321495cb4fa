//! Bringing pages in ahead of use, sixteen at a time.
//!
//! ```text
//!   part of a chunk    empty slots ─▶ numbers ─▶ frames, named in one run ─▶ zeroed ─▶ slots filled ─▶ translations, one table     (anonymous memory)
//!   what is left       one fault after the other: files, copies, pages on swap, slots that another thread works on
//! ```
//!
//! - A1: a part that runs out of numbers, records or frames keeps the pages it got, whole: filled, in their slots, mapped if the table could be had.
//!   The fault on the first page without says what was lacking.
//!
//! Where reservation is by touch, pages have state of their own, or the map has other users, a fault knows what to do and is asked. A load over a file maps neighbours
//! along ([`super::ahead`]), so that only one page in sixteen is faulted on.
//!
//! Sources: illumos.md 4.5 (`anon_zero`); uvm.md 3.2 (2B).

use super::SegVn;
use super::fault::fault_at;
use super::lower::fill_with_zeros;
use crate::anon::array::CHUNK;
use crate::anon::slot::Started;
use addr_space::{FaultError, FaultKind, LoadFlags, RunPage, SegCx, Stamp};
use alloc::vec::Vec;
use page_db::sync::atomic::Ordering;
use page_db::{Access, LockedPage, PageDb, Reserve, VirtAddr, VirtRange};
use swapfs::AnonNumber;

/// Pages worked on together.
const PART: usize = 16;

#[doc(alias = "MADV_POPULATE_WRITE")]
pub(super) fn populate(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    access: Access,
) -> Result<(), FaultError> {
    let mut done = 0;
    while done < range.pages().get() {
        let at = range.page_at(done);
        let room = CHUNK - seg.slot_of(scx.seg, at) % CHUNK;
        let n = room.min(PART as u64).min(range.pages().get() - done);
        if seg.backing.is_none() && !seg.noreserve() {
            zero_part(seg, scx, at, n as usize, access);
        }
        for addr in (done..done + n).map(|i| range.page_at(i)) {
            let have = scx.hat.probe(scx.cx, addr);
            if !have.is_some_and(|t| t.prot.allows(access)) {
                fault_at(seg, scx, addr, FaultKind::Invalid, access)?;
            }
        }
        done += n;
    }
    Ok(())
}

/// An anon that waits for its page.
struct Fresh<'a> {
    /// Its place in the part.
    at: usize,
    n: AnonNumber,
    record: Started<'a>,
}

/// Makes pages of zeros for the empty slots of `n` pages, which lie in one chunk, and maps them. What it may not or cannot do is left to faults,
/// which know how to wait and whom to blame.
fn zero_part(seg: &SegVn, scx: &SegCx<'_>, start: VirtAddr, n: usize, access: Access) {
    let (cx, db, layer) = (scx.cx, scx.db, &seg.driver.layer);
    let map = seg.amap_or_make(scx);
    let stamp = Stamp::take(&seg.seq);
    let prot = seg.prot();
    let plain = seg.vpaged.load(Ordering::SeqCst) == 0 && prot.allows(access);
    if !plain || map.refs() != 1 || seg.needs_copy() {
        return;
    }
    let first = seg.slot_of(scx.seg, start);
    let slots = first..first.wrapping_add(n as u64);
    let Ok(Some(run)) = map.try_enter_run_or_make(cx, slots) else { return };
    // held: as (reader), slots
    let (mut fresh, mut names) = (Vec::new(), Vec::new());
    if fresh.try_reserve_exact(n).is_err() || names.try_reserve_exact(n).is_err() {
        return;
    }
    for at in 0..n {
        let slot = first.wrapping_add(at as u64);
        if !run.holds(slot) || run.get(slot).is_some() {
            continue;
        }
        let Ok((number, name)) = layer.swap().alloc_named(cx) else { break };
        let Some(record) = layer.start(cx, number) else { break };
        names.push(name);
        fresh.push(Fresh { at, n: number, record });
    }
    let mut made = Vec::new();
    // Short of frames, or a name has a leftover of a free in progress: those made so far are good.
    let _ = db.create_run(cx, &names, PageDb::colour_for(start), Reserve::Normal, &mut made);
    // held: as (reader), slots, pages (exclusive)
    let mut pages = [None; PART];
    for (page, f) in made.iter().zip(&fresh) {
        fill_with_zeros(scx, page);
        f.record.set_hint(page.id());
        run.fill(first.wrapping_add(f.at as u64), f.n);
        pages[f.at] = Some(RunPage::new(page, prot));
    }
    let _ = scx.hat.memload_run(cx, start, &pages[..n], LoadFlags::REMAP, Some(stamp));
    let got = made.len();
    drop(made);
    drop(run);
    // held: as (reader)
    fresh[got..].iter().for_each(|f: &Fresh<'_>| layer.unref(cx, f.n));
}
