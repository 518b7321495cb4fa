//! The whole world as text, so that two moments can be compared.
//!
//! # The difficulty
//!
//! An operation that fails must leave the state from before it, one that succeeds the state after it, whatever failed on the way. Telling needs a
//! text that is equal when the states are: without numbers that a vain attempt uses up, and without what may change at any time because memory is reclaimed. But
//! what reclaim may change is still worth comparing elsewhere.
//!
//! # The rule
//!
//! ```text
//!   visible   rights, ceilings, advice, inheritance, locks, promises, pins; segments; bytes; who shares which page; sizes; limits; the ledger; areas
//!   hidden    residency, places on swap, referenced and modified, translations, references and maps as they are stored, free memory
//! ```
//!
//! - Y1: nothing depends on numbers that were handed out: anons and anon maps are named in the order in which a walk over processes and
//!   addresses meets them, processes by their place.
//! - Y2: looking changes nothing: no fault, no transfer that is counted, no page brought in.
//! - Y3: the visible part is equal before and after page-out, and equal for both fork policies. A page of nothing but zeros with nothing below looks as if it had never been
//!   touched, and an anon's sharers are the pages of segments that lead to it, not the references that maps keep.
//!
//! Everything is read when nothing runs.

use super::laws::as_vn;
use super::process::Process;
use super::{Limit, Machine};
use crate::script::outcome::page_hash;
use addr_space::{AddrSpace, Inherit, Seg, SegCx};
use page_db::{HostMem, Identity, Pfn, PhysMem as _, Vnode as _};
use seg_drivers::AnonMap;
use seg_drivers::seg_vn::{SegVn, VPage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use swapfs::{AnonNumber, Place};

/// The state of a machine at one moment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorldDump {
    visible: Vec<String>,
    hidden: Vec<String>,
}

impl WorldDump {
    /// What operations and page-out must leave alone unless it is theirs to change, a line a fact.
    pub fn visible(&self) -> &[String] {
        &self.visible
    }
    /// The rest, a line a fact.
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }
    /// The visible lines that are in one only: `-` here, `+` in `then`.
    pub fn difference(&self, then: &Self) -> String {
        let only = |sign, a: &Self, b: &Self| {
            let lines = a.visible.iter().filter(|l| !b.visible.contains(l));
            lines.map(|l| format!("  {sign} {l}\n")).collect::<String>()
        };
        only('-', self, then) + &only('+', then, self)
    }
}

impl fmt::Display for WorldDump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visible.iter().chain(&self.hidden).try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Machine {
    /// The state of the whole machine now.
    pub fn dump(&self) -> WorldDump {
        let mut walk = Walk::new(self);
        for (place, process) in self.processes().iter().enumerate() {
            walk.process(place, process);
        }
        walk.files();
        walk.books();
        WorldDump { visible: walk.visible, hidden: walk.hidden }
    }
}

/// A walk, and the names it has given (Y1).
struct Walk<'m> {
    m: &'m Machine,
    visible: Vec<String>,
    hidden: Vec<String>,
    /// How many pages of segments lead to each anon.
    sharers: BTreeMap<AnonNumber, u32>,
    anons: BTreeMap<AnonNumber, usize>,
    /// By number: the name, and the slot that counts as the first.
    maps: BTreeMap<u32, (usize, u64)>,
    /// A frame to read slots of swap into.
    scratch: Option<HostMem>,
}

impl<'m> Walk<'m> {
    fn new(m: &'m Machine) -> Self {
        let mut sharers = BTreeMap::new();
        for (_, space) in m.spaces() {
            for seg in space.segs(m.cx()).iter() {
                let held = as_vn(seg).and_then(|vn| Some((vn, vn.amap()?)));
                for (_, n) in held.into_iter().flat_map(|(vn, map)| slots(m, seg, vn, map)) {
                    *sharers.entry(n).or_default() += 1;
                }
            }
        }
        Self {
            m,
            visible: Vec::new(),
            hidden: Vec::new(),
            sharers,
            anons: BTreeMap::new(),
            maps: BTreeMap::new(),
            scratch: HostMem::new(Pfn(0), 1).ok(),
        }
    }
    fn process(&mut self, place: usize, p: &Process) {
        let space = p.space();
        let st = space.state();
        let limits = [Limit::Stack, Limit::Data, Limit::Vmem, Limit::Memlock].map(|l| p.limit(l));
        self.visible.push(format!(
            "process {place} {:?} size {:#x} resv {:#x} locked {:#x} future {} heap {:x?} stack {:?} limits {limits:x?}",
            p.name(),
            st.size(),
            st.resv_size(),
            st.locked(),
            st.lock_future(),
            p.heap(),
            p.stack(),
        ));
        for w in space.watches() {
            self.visible
                .push(format!("process {place} watches {} {:#x} {:?}", w.start, w.len, w.flags));
        }
        let segs = space.segs(p.cx());
        for seg in segs.iter() {
            self.segment(place, p, &space, seg);
        }
    }
    fn segment(&mut self, place: usize, p: &Process, space: &AddrSpace, seg: Seg<'_>) {
        let scx = space.seg_cx(p.cx(), seg.range());
        let d = seg.ops().detail(&scx);
        let vn = as_vn(seg);
        let who = format!("process {place} {}", seg.range());
        self.visible.push(format!(
            "{who} {} {:?} max {} `{}` {:#x} swresv {:#x} softlocks {}",
            seg.driver(),
            seg.ops().kind(),
            d.max_prot,
            d.name,
            d.offset.0,
            d.swresv,
            d.softlocks
        ));
        scx.hat.walk(scx.cx, scx.seg, &mut |at, t| {
            self.hidden.push(format!("process {place} {at} maps {} {:?}", t.prot, t.ref_mod));
        });
        for run in space.segs(p.cx()).left_out(seg.range()) {
            self.visible.push(format!("{who} {run} not forked"));
        }
        if let Some(vn) = vn {
            self.pages(&who, &scx, vn);
            if let Some(map) = vn.amap() {
                self.anon_map(&who, seg, vn, map);
            }
        }
    }
    /// State by page, equal neighbours together.
    fn pages(&mut self, who: &str, scx: &SegCx<'_>, vn: &SegVn) {
        let mut runs: Vec<(u64, u64, VPage)> = Vec::new();
        for (range, state) in vn.page_states(scx) {
            let (first, end) = (range.start().get(), range.end());
            match runs.last_mut() {
                Some((_, last, had)) if *last == first && *had == state => *last = end,
                _ => runs.push((first, end, state)),
            }
        }
        for (first, end, v) in runs {
            let prot = v.prot.map(|p| p.to_string()).unwrap_or_default();
            let advice = v.advice.unwrap_or_default();
            let marks = [
                (v.is_locked(), " locked"),
                (v.reserved, " promised"),
                (v.inherit == Some(Inherit::Zero), " zero in a child"),
                (v.inherit == Some(Inherit::Share), " shared with a child"),
                (v.inherit == Some(Inherit::Copy), " a copy in a child"),
            ];
            let marks: String = marks.iter().filter(|(on, _)| *on).map(|(_, s)| *s).collect();
            self.visible.push(format!("{who} {first:#x}-{end:#x} {prot} {advice:?}{marks}"));
        }
    }
    fn anon_map(&mut self, who: &str, seg: Seg<'_>, vn: &SegVn, map: &AnonMap) {
        let (cx, first) = (self.m.cx(), vn.amp_index());
        let fresh = self.maps.len() + 1;
        let (name, origin) = *self.maps.entry(map.id().0).or_insert((fresh, first));
        let index = first.wrapping_sub(origin) as i64;
        let refs = map.slot_refs(cx, vn.slots_of(seg.range(), seg.range()));
        let refs: Vec<_> =
            refs.into_iter().map(|(r, n)| (r.start.wrapping_sub(first), n)).collect();
        self.hidden.push(format!(
            "{who} anon map {name} at {index} refs {} {refs:?} to copy {}",
            map.refs(),
            vn.needs_copy()
        ));
        if map.swresv() != 0 {
            self.visible.push(format!("{who} shares a promise of {:#x}", map.swresv()));
        }
        for (at, n) in slots(self.m, seg, vn, map) {
            self.anon(&format!("{who} page {at}"), vn, n);
        }
    }
    fn anon(&mut self, who: &str, vn: &SegVn, n: AnonNumber) {
        let (m, sharers) = (self.m, self.sharers.get(&n).copied().unwrap_or(0));
        let (db, id) = (m.db(), m.swap().identity(n));
        let bytes = self.bytes_of(n, id);
        // Y3: zeros above nothing are what is there without them.
        if vn.backing_vnode().is_some() || bytes != zeros() {
            let fresh = self.anons.len() + 1;
            let name = *self.anons.entry(n).or_insert(fresh);
            self.visible.push(format!("{who} anon {name} of {sharers} holds {bytes}"));
        }
        let page = db.exists(m.cx(), id).map(|p| db.page(p));
        let place = match m.swap().place(n) {
            Place::At(slot) => format!("slot of area {}", slot.area),
            Place::Borrowed(_) => "loan".into(),
            other => format!("{other:?}"),
        };
        self.hidden.push(format!(
            "{who} refs {} on {place} in memory {:?}",
            m.anon().anons().refs(n),
            page.map(|p| (p.ref_mod(), p.lckcnt(), p.cowcnt()))
        ));
    }
    /// The hash of an anon's bytes, wherever they are (Y2).
    fn bytes_of(&self, n: AnonNumber, id: Identity) -> String {
        let (m, mut bytes) = (self.m, [0; page_db::PAGE_SIZE as usize]);
        let (db, place) = (m.db(), m.swap().place(n));
        match (db.exists(m.cx(), id), place, &self.scratch) {
            (Some(page), ..) => db.mem().read(db.pages().pfn(page), 0, &mut bytes),
            (None, Place::At(slot), Some(scratch)) => {
                match m.swap().look(m.cx(), slot, Pfn(0), scratch) {
                    Ok(()) => scratch.read(Pfn(0), 0, &mut bytes),
                    Err(e) => return e.to_string(),
                }
            }
            (None, Place::Borrowed(lender), _) => db.mem().read(db.pfn(lender), 0, &mut bytes),
            (None, Place::Bad(_), _) => return "nothing: lost".into(),
            (None, ..) => {}
        }
        format!("{:016x}", page_hash(&bytes))
    }
    fn files(&mut self) {
        let (cx, db) = (self.m.cx(), self.m.db());
        for (i, f) in self.m.files().iter().enumerate() {
            let (size, mapped) = (f.size(), f.mapped_pages());
            self.visible.push(format!("file {i} `{}` size {size:#x} mapped {mapped}", f.name()));
            for index in 0..size.div_ceil(page_db::PAGE_SIZE) {
                let bytes = match f.look(cx, db, index * page_db::PAGE_SIZE) {
                    Ok(bytes) => format!("{:016x}", page_hash(&bytes)),
                    Err(errno) => format!("nothing: errno {errno}"),
                };
                if bytes != zeros() {
                    self.visible.push(format!("file {i} page {index} holds {bytes}"));
                }
            }
            let mut inside = BTreeSet::new();
            for p in db.vnode_pages(cx, f.id()) {
                let (page, free) = (db.page(p), db.page(p).is_free());
                let at = page.identity().map(|id| id.offset.0);
                inside.insert((at, page.ref_mod().bits(), page.lckcnt(), page.cowcnt(), free));
            }
            self.hidden.push(format!("file {i} in memory {inside:x?}"));
        }
    }
    fn books(&mut self) {
        let (m, info) = (self.m, self.m.swap().info());
        self.visible.push(format!(
            "swap promised {} of {} on disk, locked {}, squeezed {}",
            info.reserved(),
            info.max,
            info.locked_swap,
            m.squeezed()
        ));
        for a in m.swap().list() {
            let (removing, bad) = (a.removing, a.bad);
            self.visible.push(format!(
                "area {} `{}` {}+{} priority {} removing {removing} bad {bad}",
                a.id, a.name, a.start, a.pages, a.priority
            ));
            self.hidden.push(format!("area {} uses {} slots", a.id, a.pages - a.free - bad));
        }
        let lent = m.db().pages().ids().map(|p| m.db().page(p)).filter(|p| p.is_lent());
        let mut lent: Vec<_> = lent.map(|p| (p.is_orphan(), p.loans())).collect();
        lent.sort_unstable();
        if !lent.is_empty() {
            self.visible.push(format!("pages lent, orphans and loans of each: {lent:?}"));
        }
        let tables: u64 = m.hat().hats(m.cx()).iter().map(|h| h.tables).sum();
        let mem = m.db().free_mem();
        self.hidden.push(format!(
            "anons {} maps {} tables {tables} free {} availrmem {} from memory {}",
            m.swap().live(),
            m.anon().maps().len(),
            m.db().freemem(),
            mem.availrmem(),
            info.mem_resv
        ));
    }
}

fn zeros() -> String {
    format!("{:016x}", page_hash(&[0; page_db::PAGE_SIZE as usize]))
}

/// The occupied slots that a segment covers, by page of the segment.
fn slots(m: &Machine, seg: Seg<'_>, vn: &SegVn, map: &AnonMap) -> Vec<(u64, AnonNumber)> {
    let range = vn.slots_of(seg.range(), seg.range());
    let first = range.start;
    map.slots(m.cx(), range).map(|(slot, n)| (slot.wrapping_sub(first), n)).collect()
}

#[cfg(test)]
#[path = "dump_tests.rs"]
mod tests;
