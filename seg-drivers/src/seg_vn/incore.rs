//! mincore: what is resident, page by page. A hint that never blocks.
//!
//! Sources: illumos.md 4.8 (incore), 2.4.

use super::{SegVn, sync, vpns};
use addr_space::{InCore, Residency, SegCx};
use page_db::{Identity, PageId, Prot, VirtAddr, VirtRange};

#[doc(alias = "segvn_incore")]
pub(super) fn incore(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
    let pages = (range.pages().get().min(out.len() as u64)) as usize;
    let locks = seg.lock.lock(scx.cx).vpage.iter(vpns(range));
    for (i, byte) in out[..pages].iter_mut().enumerate() {
        *byte = page_bits(seg, scx, range.page_at(i as u64)).bits();
    }
    let first = range.start().vpn();
    for (run, _) in locks.into_iter().filter(|(_, v)| v.locked) {
        for vpn in run {
            if let Some(byte) = out[..pages].get_mut((vpn - first) as usize) {
                *byte |= InCore::LOCKED.bits();
            }
        }
    }
    pages
}

fn resident(scx: &SegCx<'_>, id: Identity) -> Option<PageId> {
    scx.db.exists(scx.cx, id)
}

fn claims(scx: &SegCx<'_>, page: PageId) -> InCore {
    let p = scx.db.page(page);
    let mut bits = InCore::empty();
    bits.set(InCore::SOFTLOCK, p.lckcnt() != 0);
    bits.set(InCore::HASCOW, p.cowcnt() != 0);
    bits
}

fn page_bits(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> InCore {
    let mut bits = InCore::empty();
    bits.set(InCore::VNODEBACKED, seg.backing.is_some());
    if let Some(n) = seg.amap().and_then(|m| m.peek(seg.slot_of(scx.seg, addr))) {
        if let Some(page) = resident(scx, seg.driver.layer.swap().identity(n)) {
            bits |= InCore::INCORE | claims(scx, page);
        }
        if scx.hat.probe(scx.cx, addr).is_some_and(|t| t.prot.contains(Prot::WRITE)) {
            bits |= InCore::ANON;
        }
    }
    if let (Some(b), Some(offset)) = (&seg.backing, seg.file_offset(scx.seg, addr))
        && let Some(page) = resident(scx, Identity::new(b.vnode.id(), offset))
    {
        bits |= InCore::INCORE | InCore::VNODE | claims(scx, page);
    }
    bits
}

/// Resident pages, private copies mapped writable, and locked pages of `range`; absent pages are not visited.
pub(super) fn residency(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Residency {
    let mut r = Residency::default();
    let _ = sync::each_page(seg, scx, range, &mut |addr, _| {
        let bits = page_bits(seg, scx, addr);
        r.rss += u64::from(bits.contains(InCore::INCORE));
        r.anon += u64::from(bits.contains(InCore::ANON));
        Ok(())
    });
    r.locked = seg.lock.lock(scx.cx).vpage.count(vpns(range), |v| v.locked);
    r
}
