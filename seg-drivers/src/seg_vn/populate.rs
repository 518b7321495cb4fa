//! Bringing pages in ahead of use, sixteen at a time.
//!
//! ```text
//!   part of a chunk    empty slots ─▶ numbers ─▶ frames, named in one run ─▶ zeroed ─▶ slots filled ─▶ translations, one table     (anonymous memory)
//!   what is left       one fault after the other: files, copies, pages on swap, slots that another thread works on
//! ```
//!
//! - A1: a part that runs out of numbers, records or frames keeps the pages it got, whole: filled, in their slots, mapped if the table could be had.
//!   The error names the first page without.
//!
//! Where reservation is by touch, or pages have state of their own, a fault knows what to do and is asked. A load over a file maps neighbours
//! along ([`super::ahead`]), so that only one page in sixteen is faulted on.
//!
//! Sources: illumos.md 4.5 (`anon_zero`); uvm.md 3.2 (2B).

use super::SegVn;
use super::fault::fault_at;
use crate::anon::array::CHUNK;
use crate::anon::slot::Started;
use addr_space::{FaultError, FaultKind, HatError, LoadFlags, RunPage, SegCx, Stamp};
use alloc::vec::Vec;
use page_db::sync::atomic::Ordering;
use page_db::{
    Access, Counter, ExclPage, Identity, LockedPage, PAGE_SIZE, PageDb, PageError, Prot, RefMod,
    Reserve, VirtAddr, VirtRange,
};
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
            zero_part(seg, scx, at, n as usize, access)?;
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

/// Makes pages of zeros for the empty slots of `n` pages, which lie in one chunk, and maps them. What it may not or cannot do is left to faults.
fn zero_part(
    seg: &SegVn,
    scx: &SegCx<'_>,
    start: VirtAddr,
    n: usize,
    access: Access,
) -> Result<(), FaultError> {
    let (cx, db, layer) = (scx.cx, scx.db, &seg.driver.layer);
    let map = seg.amap_or_make(scx);
    let stamp = Stamp::take(&seg.seq);
    let prot = seg.prot();
    if seg.vpaged.load(Ordering::SeqCst) != 0 || !prot.allows(access) {
        return Ok(());
    }
    let no_memory = |i: usize| FaultError::NoMemory { addr: page_after(start, i) };
    let first = seg.slot_of(scx.seg, start);
    let slots = first..first.wrapping_add(n as u64);
    let Some(run) = map.try_enter_run_or_make(cx, slots).map_err(|_| no_memory(0))? else {
        return Ok(());
    };
    // held: as (reader), slots
    let mut fresh: Vec<Fresh<'_>> = Vec::new();
    let mut names: Vec<Identity> = Vec::new();
    if fresh.try_reserve_exact(n).is_err() || names.try_reserve_exact(n).is_err() {
        return Err(no_memory(0));
    }
    for at in 0..n {
        let slot = first.wrapping_add(at as u64);
        if !run.holds(slot) || run.get(slot).is_some() {
            continue;
        }
        let Ok((number, name)) = layer.swap().alloc_named(cx) else { break };
        let Some(record) = layer.anons.start(number) else {
            layer.swap().free(cx, number);
            break;
        };
        names.push(name);
        fresh.push(Fresh { at, n: number, record });
    }
    let mut made = Vec::new();
    let colour = PageDb::colour_for(start);
    let end = db.create_run(cx, &names, colour, Reserve::Normal, &mut made);
    // A name that has a page is a leftover of a free in progress: a fault looks again.
    let short = matches!(end, Err(PageError::NoMemory { .. }));
    // held: as (reader), slots, pages (exclusive)
    for (page, f) in made.iter().zip(&fresh) {
        zero(scx, page);
        f.record.set_hint(page.id());
        run.fill(first.wrapping_add(f.at as u64), f.n);
    }
    let loaded = load(scx, start, n, &made, &fresh, prot, stamp);
    let got = made.len();
    drop(made);
    drop(run);
    // held: as (reader)
    fresh[got..].iter().for_each(|f| layer.unref(cx, f.n));
    match loaded {
        Err(i) => Err(no_memory(i)),
        Ok(()) if short => Err(no_memory(fresh[got].at)),
        Ok(()) => Ok(()),
    }
}

fn page_after(start: VirtAddr, pages: usize) -> VirtAddr {
    start.checked_add(pages as u64 * PAGE_SIZE).unwrap_or(start)
}

/// What a fault does with a page it made for zeros.
fn zero(scx: &SegCx<'_>, page: &ExclPage<'_>) {
    scx.cx.count(Counter::Case2B);
    scx.cx.count(Counter::Zfod);
    scx.db.mem().zero(page.pfn());
    scx.cx.count_n(Counter::BytesZeroed, PAGE_SIZE);
    page.page().set_ref_mod(RefMod::REF | RefMod::MOD);
    page.end_io();
}

/// Maps new pages where they belong. What is not mapped for another reason than memory is left to faults.
///
/// # Errors
/// The place for whose table there is no memory.
fn load(
    scx: &SegCx<'_>,
    start: VirtAddr,
    n: usize,
    made: &[ExclPage<'_>],
    fresh: &[Fresh<'_>],
    prot: Prot,
    stamp: Stamp<'_>,
) -> Result<(), usize> {
    let mut pages = [None; PART];
    for (page, f) in made.iter().zip(fresh) {
        pages[f.at] = Some(RunPage::new(page, prot));
    }
    let run = scx.hat.memload_run(scx.cx, start, &pages[..n], LoadFlags::REMAP, Some(stamp));
    match run.end {
        Err(HatError::NoMemory { .. }) => Err(run.passed),
        _ => Ok(()),
    }
}
