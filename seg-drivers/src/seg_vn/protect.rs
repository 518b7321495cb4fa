//! Changing rights, with the reservation and the claims that follow them.
//!
//! Order: check, reserve, move claims, publish the new rights (S1), change translations. Everything that can fail comes before the first
//! effect that shows. A page that gains the right to write gets no writable translation here: its translation goes, and the
//! next store faults and decides (copy or not).
//!
//! A change looks at the pages of its range and at nothing else of the segment, however many pages of it have rights of their own (U4).
//!
//! Sources: illumos.md 4.7; uvm.md 5.4.

use super::vpage::VPages;
use super::{SegVn, VPage, run_range, vpns};
use addr_space::{SegCx, SegError, UnloadFlags};
use page_db::db::Claim;
use page_db::sync::atomic::Ordering;
use page_db::sync::{Mutation, mutated};
use page_db::{PAGE_SIZE, Prot, VirtRange};
use swapfs::Reservation;

#[doc(alias = "segvn_setprot")]
pub(super) fn set_prot(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    prot: Prot,
) -> Result<(), SegError> {
    let prot = prot.difference(Prot::USER);
    if !seg.max_prot.contains(prot) {
        return Err(SegError::Access { range });
    }
    let mut inner = seg.lock.lock(scx.cx);
    let whole = range == scx.seg;
    let page_prot = inner.vpage.any_prot();
    if !page_prot && prot == seg.prot() {
        return Ok(());
    }
    if seg.softlocks.load(Ordering::Acquire) != 0 {
        return Err(SegError::Pinned { range });
    }
    let no_room = |_| SegError::NoMemory { range };
    inner.vpage.make_room(vpns(range)).map_err(no_room)?;
    let mut give_back = 0;
    let mut gain = None;
    if !seg.shared() && !seg.noreserve() {
        if prot.contains(Prot::WRITE) {
            gain = Some(Gain::plan(seg, scx, &inner.vpage, range)?);
        } else if whole && seg.backing.is_some() && seg.amap().is_none() && !page_prot {
            let own = seg.swresv.load(Ordering::Acquire);
            if own != 0 && inner.vpage.reserved() == 0 {
                if !scx.is_writer() {
                    return Err(SegError::Retry { range }); // no fault may be making the first copy meanwhile
                }
                give_back = own;
            }
        }
    }
    if !seg.shared() {
        move_claims(seg, scx, &inner.vpage, range, prot)?;
    }
    // Nothing fails from here on.
    if let Some(gain) = gain {
        gain.commit(seg, scx, &mut inner.vpage, range);
    }
    if mutated(Mutation::RightsPublishedLate) {
        scx.hat.chg_prot(scx.cx, range, prot);
    }
    seg.publish(|| {
        if whole {
            inner.vpage.update(vpns(range), |v| VPage { prot: None, ..v });
            seg.prot.store(prot.bits(), Ordering::SeqCst);
        } else {
            let base = seg.prot();
            inner
                .vpage
                .update(vpns(range), |v| VPage { prot: (prot != base).then_some(prot), ..v });
        }
        seg.note_pages(&inner.vpage);
    });
    inner.vpage.trim();
    if give_back != 0 {
        seg.swresv.fetch_sub(give_back, Ordering::AcqRel);
        seg.driver.layer.swap().unreserve(give_back / PAGE_SIZE);
    }
    // held: as, segment. Translations are changed after the rights are published.
    if mutated(Mutation::RightsPublishedLate) {
        return Ok(());
    }
    // A store may have to copy first (a page of several owners, or one that is lent): a fault knows.
    if prot.contains(Prot::WRITE) || !prot.intersects(Prot::RWX) {
        scx.hat.unload(scx.cx, range, UnloadFlags::empty());
    } else {
        scx.hat.chg_prot(scx.cx, range, prot);
    }
    Ok(())
}

/// What `range` needs reserved before it may be stored to; given back again unless it is committed.
pub(super) struct Gain<'a> {
    held: Reservation<'a>,
    /// The segment is reserved as one, rather than page by page.
    whole: bool,
}

impl<'a> Gain<'a> {
    /// Reserves the whole segment, or the pages that are not reserved yet.
    pub(super) fn plan(
        seg: &'a SegVn,
        scx: &SegCx<'_>,
        vpage: &VPages,
        range: VirtRange,
    ) -> Result<Self, SegError> {
        let own = seg.swresv.load(Ordering::Acquire);
        let whole = Self::is_whole(seg, scx, vpage, range);
        let pages = if whole {
            (scx.seg.len() - own) / PAGE_SIZE
        } else {
            vpage.count(vpns(range), |v| !v.reserved)
        };
        let held = seg.driver.layer.swap().take(pages);
        let held = held.map_err(|_| SegError::NoSwap { range, bytes: pages * PAGE_SIZE })?;
        Ok(Self { held, whole })
    }
    fn is_whole(seg: &SegVn, scx: &SegCx<'_>, vpage: &VPages, range: VirtRange) -> bool {
        let own = seg.swresv.load(Ordering::Acquire);
        vpage.reserved() == 0 && (range == scx.seg || own == scx.seg.len())
    }
    pub(super) fn commit(self, seg: &SegVn, scx: &SegCx<'_>, vpage: &mut VPages, range: VirtRange) {
        let whole = self.whole;
        Self::grant(self.keep(), whole, seg, scx, vpage, range);
    }
    /// A page of the range has contents of its own from now on: what is reserved for it is the segment's, whatever becomes of the rest. There is room.
    pub(super) fn commit_page(&mut self, seg: &SegVn, scx: &SegCx<'_>, page: VirtRange) {
        let mut inner = seg.lock.lock(scx.cx);
        // Else it has been reserved before.
        if !inner.vpage.get(page.start().vpn()).reserved && self.held.keep_some(1) != 0 {
            Self::grant(PAGE_SIZE, false, seg, scx, &mut inner.vpage, page);
        }
    }
    /// Keeps what is reserved for somebody else to hold, who gives it back or to [`Gain::take_over`]; says how many bytes there are.
    pub(super) fn keep(self) -> u64 {
        self.held.keep() * PAGE_SIZE
    }
    /// Commits the `bytes` that were planned for `range` when nothing of the segment was otherwise, but that other ranges of it may have been committed.
    pub(super) fn take_over(
        bytes: u64,
        seg: &SegVn,
        scx: &SegCx<'_>,
        vpage: &mut VPages,
        range: VirtRange,
    ) {
        Self::grant(bytes, Self::is_whole(seg, scx, vpage, range), seg, scx, vpage, range);
    }
    fn grant(
        bytes: u64,
        whole: bool,
        seg: &SegVn,
        scx: &SegCx<'_>,
        vpage: &mut VPages,
        range: VirtRange,
    ) {
        seg.swresv.fetch_add(bytes, Ordering::AcqRel);
        if whole {
            return;
        }
        vpage.update(vpns(range), |v| VPage { reserved: true, ..v });
        if vpage.reserved() == scx.seg.pages().get() {
            vpage.update(vpns(scx.seg), |v| VPage { reserved: false, ..v }); // whole again
        }
    }
}

/// Moves the claims of locked pages whose right to write changes between `p_lckcnt` and `p_cowcnt`; all of them or none.
fn move_claims(
    seg: &SegVn,
    scx: &SegCx<'_>,
    vpage: &VPages,
    range: VirtRange,
    prot: Prot,
) -> Result<(), SegError> {
    let to = if prot.contains(Prot::WRITE) { Claim::Cow } else { Claim::Lck };
    let from = if to == Claim::Cow { Claim::Lck } else { Claim::Cow };
    if !vpage.any(vpns(range), VPage::is_locked) {
        return Ok(());
    }
    seg.hold_claims(); // `vpaged` stays as it is: a locked page is state of its own
    // The pages whose claims move, from the lowest on: those moved before one that cannot be are met again in the same order.
    let whole = scx.seg;
    let moves = move |v: VPage| {
        let had = v.prot.unwrap_or_else(|| seg.prot()).contains(Prot::WRITE);
        v.claim.filter(|_| had != prot.contains(Prot::WRITE))
    };
    let pages = move || {
        let runs = vpage.iter(vpns(range)).filter_map(move |(run, v)| Some((run, moves(v)?)));
        runs.flat_map(move |(run, era)| {
            run_range(whole, &run).iter_pages().map(move |addr| (addr, era))
        })
    };
    for (addr, era) in pages() {
        let Some(page) = seg.claimed_page(scx, addr) else { continue };
        if scx.db.move_claim(&page, to, era).is_ok() {
            continue;
        }
        drop(page);
        for (addr, era) in pages().take_while(|(moved, _)| *moved != addr) {
            if let Some(page) = seg.claimed_page(scx, addr) {
                let _ = scx.db.move_claim(&page, from, era); // the charge it needs was just given up
            }
        }
        return Err(SegError::LockLimit { range });
    }
    Ok(())
}

pub(super) fn prots(
    seg: &SegVn,
    scx: &SegCx<'_>,
    range: VirtRange,
    f: &mut dyn FnMut(VirtRange, Prot),
) {
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return f(range, seg.prot());
    }
    let mut pending: Option<(core::ops::Range<u64>, Prot)> = None;
    let mut rest = vpns(range);
    while !rest.is_empty() {
        // Not held while the caller is told, who may ask the segment for more.
        let (run, v) = seg.lock.lock(scx.cx).vpage.first_of(rest.clone());
        rest.start = run.end;
        let prot = v.prot.unwrap_or_else(|| seg.prot());
        pending = match pending {
            Some((p, have)) if have == prot => Some((p.start..run.end, prot)),
            Some((p, have)) => {
                f(run_range(scx.seg, &p), have);
                Some((run, prot))
            }
            None => Some((run, prot)),
        };
    }
    if let Some((p, have)) = pending {
        f(run_range(scx.seg, &p), have);
    }
}

impl SegVn {
    pub(super) fn has_page_prot(&self, scx: &SegCx<'_>) -> bool {
        self.vpaged.load(Ordering::Acquire) != 0 && self.lock.lock(scx.cx).vpage.any_prot()
    }
}
