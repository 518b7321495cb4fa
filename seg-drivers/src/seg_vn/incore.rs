//! mincore: what is resident, page by page. A hint that never blocks.
//!
//! ```text
//!   per chunk of 32 slots      the slots, read once; per slot: record ─▶ page id kept there ─▶ does the page carry the name?
//!   per run of the file        pages of the file under the same places, by name
//!   for the whole range        which translations are writable, by one walk over the tables
//! ```
//!
//! The page an anon's record names is believed when it carries the anon's name *now*: at most one page does (I4), and the answer may be out of date
//! before it is read in any case. Only a record that is out of date costs a look into the page hash. So a page costs three lines, slot, record and page
//! structure, in order of address, none of them waiting for another page's; and nothing is written.
//!
//! A page that is mapped is in memory: unless pages are locked somewhere in the machine, which their structures tell, nothing more is looked at.
//!
//! The other road is the textbook's, a probe of the page hash and of the tables for each page: 67 ns a page.
//!
//! Sources: illumos.md 4.8 (incore), 2.4.

use super::{SegVn, run_range, sync, vpns};
use crate::anon::AnonMap;
use crate::anon::array::CHUNK;
use crate::anon::free::NameRun;
use crate::anon::slot::CountRun;
use addr_space::{InCore, Residency, SegCx};
use page_db::sync::atomic::Ordering;
use page_db::{Identity, PAGE_SIZE, Page, Prot, VirtAddr, VirtRange};
use swapfs::AnonNumber;

/// Pages of the upper layer answered for at a time: what one table translates, and sixteen chunks of slots.
const PART: usize = 512;

#[doc(alias = "segvn_incore")]
pub(super) fn incore(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) -> usize {
    let pages = (range.pages().get().min(out.len() as u64)) as usize;
    let out = &mut out[..pages];
    out.fill(if seg.backing.is_some() { InCore::VNODEBACKED.bits() } else { 0 });
    if let Some(map) = seg.amap() {
        Upper::new(seg, scx, map).answer(range, out);
    }
    file_bits(seg, scx, range, out);
    if seg.vpaged.load(Ordering::SeqCst) != 0 {
        let first = range.start().vpn();
        let inner = seg.lock.lock(scx.cx);
        let locks = inner.vpage.iter(first..first + pages as u64);
        for (run, _) in locks.filter(|(_, v)| v.is_locked()) {
            let run = (run.start - first) as usize..(run.end - first) as usize;
            out[run].iter_mut().for_each(|byte| *byte |= InCore::LOCKED.bits());
        }
    }
    pages
}

/// The upper layer, asked for runs of its slots.
struct Upper<'a> {
    seg: &'a SegVn,
    scx: &'a SegCx<'a>,
    map: &'a AnonMap,
    names: NameRun<'a>,
    records: CountRun<'a>,
    /// Whether any page of the machine is locked in memory; if none is, a page that is mapped need not be looked at.
    claims: bool,
}

impl<'a> Upper<'a> {
    fn new(seg: &'a SegVn, scx: &'a SegCx<'a>, map: &'a AnonMap) -> Self {
        let layer = &seg.driver.layer;
        let (names, records) = (NameRun::new(layer.swap()), layer.anons.run());
        Self { seg, scx, map, names, records, claims: scx.db.claimed_pages() != 0 }
    }
    /// Adds what the upper layer says of the pages from `range`'s first on.
    fn answer(&mut self, range: VirtRange, out: &mut [u8]) {
        let (seg, scx) = (self.seg, self.scx);
        if let [only] = out {
            let Some(n) = self.map.peek(seg.slot_of(scx.seg, range.start())) else { return };
            let rights = scx.hat.probe(scx.cx, range.start()).map_or(Prot::empty(), |t| t.prot);
            *only |= self.bits(n, rights);
            return;
        }
        let mut done = 0;
        while done < out.len() {
            let at = range.page_at(done as u64);
            let room = PART - (at.vpn() % PART as u64) as usize;
            let end = out.len().min(done + room);
            self.part(at, &mut out[done..end]);
            done = end;
        }
    }
    /// Answers for pages that one table translates.
    fn part(&mut self, at: VirtAddr, out: &mut [u8]) {
        let mut rights = [Prot::empty(); PART];
        let rights = &mut rights[..out.len()];
        let bytes = out.len() as u64 * PAGE_SIZE;
        let Ok(range) = VirtRange::exact(at.get(), bytes) else { return };
        self.scx.hat.rights(self.scx.cx, range, rights);
        let first = self.seg.slot_of(self.scx.seg, at);
        let mut i = 0;
        while i < out.len() {
            let slot = first.wrapping_add(i as u64);
            let lead = (slot % CHUNK) as usize;
            let end = out.len().min(i + CHUNK as usize - lead);
            if let Some(held) = self.map.peek_chunk(slot) {
                let places = out[i..end].iter_mut().zip(&held[lead..]).zip(&rights[i..end]);
                for ((byte, n), rights) in places {
                    if let Some(n) = AnonNumber::from_raw(*n) {
                        *byte |= self.bits(n, *rights);
                    }
                }
            }
            i = end;
        }
    }
    /// What is to be said of one anon that is mapped with `rights`.
    #[inline]
    fn bits(&mut self, n: AnonNumber, rights: Prot) -> u8 {
        if !self.claims && rights.intersects(Prot::RWX) {
            // Mapped, so in memory; and nothing else is to be said of it.
            let own = if rights.contains(Prot::WRITE) { InCore::ANON } else { InCore::empty() };
            return (InCore::INCORE | own).bits();
        }
        let id = self.names.identity(n);
        let page = self.records.hint(n).map(|p| self.scx.db.page(p)).filter(|p| p.is(id));
        let mut bits = page.map_or_else(|| self.unhinted_bits(n, id), resident_bits);
        if rights.contains(Prot::WRITE) {
            bits |= InCore::ANON.bits();
        }
        bits
    }
}

impl Upper<'_> {
    /// What is to be said of an anon whose page is not where it was last. One without a page may have borrowed another's, which is in memory.
    #[cold]
    fn unhinted_bits(&self, n: AnonNumber, id: Identity) -> u8 {
        let borrowed = || {
            let lender = self.seg.driver.layer.swap().place(n).lender();
            lender.map_or(0, |_| InCore::INCORE.bits())
        };
        named_bits(self.scx, id).unwrap_or_else(borrowed)
    }
}

/// The lower layer's answer, independently of the upper one's (the textbook's quirk).
fn file_bits(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange, out: &mut [u8]) {
    let Some(b) = &seg.backing else { return };
    for (byte, addr) in out.iter_mut().zip(range.iter_pages()) {
        let Some(offset) = seg.file_offset(scx.seg, addr) else { return };
        if let Some(bits) = named_bits(scx, Identity::new(b.vnode.id(), offset)) {
            *byte |= bits | InCore::VNODE.bits();
        }
    }
}

fn named_bits(scx: &SegCx<'_>, id: Identity) -> Option<u8> {
    scx.db.exists(scx.cx, id).map(|page| resident_bits(scx.db.page(page)))
}

fn resident_bits(page: &Page) -> u8 {
    let mut bits = InCore::INCORE;
    bits.set(InCore::SOFTLOCK, page.lckcnt() != 0);
    bits.set(InCore::HASCOW, page.cowcnt() != 0);
    bits.bits()
}

fn page_bits(seg: &SegVn, scx: &SegCx<'_>, addr: VirtAddr) -> InCore {
    let mut byte = [0];
    incore(seg, scx, VirtRange::page_of(addr), &mut byte);
    InCore::from_bits_truncate(byte[0])
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
    r.locked = seg.lock.lock(scx.cx).vpage.count(vpns(range), |v| v.is_locked());
    r
}

/// The first run of `range` that is locked, which the runs of the segment tell.
pub(super) fn first_locked(seg: &SegVn, scx: &SegCx<'_>, range: VirtRange) -> Option<VirtRange> {
    if seg.vpaged.load(Ordering::SeqCst) == 0 {
        return None;
    }
    let inner = seg.lock.lock(scx.cx);
    let run = inner.vpage.iter(vpns(range)).find(|(_, v)| v.is_locked());
    run.map(|(run, _)| run_range(scx.seg, &run))
}
