//! `::walk`: the way from a process and an address to the page, one step a line.
//!
//! ```text
//!   1 proc ─▶ 2 as, tree ─▶ 3 seg ─▶ 4 segvn_data ─▶ 5 amp ─▶ 6 slot ─▶ 7 anon ─▶ 8 hash ─▶ 9 page ─▶ 10 mappings
//!                                          └────────────── no anon: <vnode, offset> ───────▲
//! ```
//!
//! The steps are those a person takes in the debugger, in the same order. It ends where there is nothing further down: in a hole, at a map that was
//! never made, at a page that is not in memory.
//!
//! Sources: illumos.md 11.5; [SI §9.6, §14].

use crate::machine::{Machine, Process};
use addr_space::{AddrSpace, Seg, SegKind};
use hat_x86::X86Pte;
use page_db::{Cx, Identity, PageId, Prot, RefMod, VirtAddr, VirtRange};
use seg_drivers::{AnonMap, SegVn};
use serde::Serialize;
use std::any::Any;
use std::fmt;
use swapfs::AnonNumber;

/// One step.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Step {
    /// Its number.
    pub n: u32,
    /// The structure looked at.
    pub at: &'static str,
    /// What is seen there.
    pub seen: String,
}

/// The way, as far as it goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Walk {
    /// The address asked for.
    pub addr: u64,
    /// The steps.
    pub steps: Vec<Step>,
    /// The frame it led to.
    pub pfn: Option<u64>,
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.steps.iter().try_for_each(|s| writeln!(f, "{:>2} {:<10} {}", s.n, s.at, s.seen))
    }
}

impl Walk {
    /// Walks from `process` and `addr` down to the page, and from the page up to everybody who maps it.
    pub fn of(process: &Process, addr: VirtAddr) -> Self {
        let mut walk = Self { addr: addr.get(), steps: Vec::new(), pfn: None };
        let space = process.space();
        let (machine, cx) = (process.machine(), process.cx());
        let (pid, name, id) = (process.pid(), process.name(), space.id().0);
        walk.step("proc_t", format!("pid {pid} `{name}` p_as {id}"));
        if let Some(name) = walk.through_space(machine, cx, &space, addr) {
            walk.down_to_page(machine, cx, name);
        }
        walk
    }
    fn step(&mut self, at: &'static str, seen: String) {
        let n = self.steps.len() as u32 + 1;
        self.steps.push(Step { n, at, seen });
    }
    /// Steps 2 to 4; the name of the page, if one can be named.
    fn through_space(
        &mut self,
        machine: &Machine,
        cx: &Cx,
        space: &AddrSpace,
        addr: VirtAddr,
    ) -> Option<Identity> {
        let segs = space.segs(cx);
        let count = segs.len();
        let Some(seg) = segs.seg_at(cx, addr) else {
            self.step("a_segtree", format!("{count} segments, none holds {addr}"));
            return None;
        };
        let (range, driver) = (seg.range(), seg.driver());
        let found = format!(
            "{count} segments; {addr} lies in {range} (size {}k), s_ops {driver}",
            range.len() / 1024
        );
        self.step("a_segtree", found);
        match (seg.ops() as &dyn Any).downcast_ref::<SegVn>() {
            Some(vn) => self.through_seg_vn(machine, cx, space, seg, vn, addr),
            None => {
                self.step("s_data", format!("{driver} keeps no anon map"));
                self.translation(machine, cx, space, addr);
                None
            }
        }
    }
    fn through_seg_vn(
        &mut self,
        machine: &Machine,
        cx: &Cx,
        space: &AddrSpace,
        seg: Seg<'_>,
        vn: &SegVn,
        addr: VirtAddr,
    ) -> Option<Identity> {
        let scx = space.seg_cx(cx, seg.range());
        let d = seg.ops().detail(&scx);
        let kind =
            if seg.ops().kind().contains(SegKind::SHARED) { "MAP_SHARED" } else { "MAP_PRIVATE" };
        let below = seg.ops().vnode(&scx, addr);
        let vp = match &below {
            Some(v) => format!("vp {} `{}` offset {:#x}", v.id(), v.name(), d.offset.0),
            None => "vp NULL".to_owned(),
        };
        let amp = d.amp.map_or_else(|| "amp NULL".to_owned(), |a| format!("amp {a}"));
        let (prot, max, swresv) = (d.prot, d.max_prot, d.swresv / 1024);
        self.step(
            "segvn_data",
            format!("{kind} {vp} {amp} prot {prot} maxprot {max} swresv {swresv}k"),
        );
        let file = below.map(|v| Identity::new(v.id(), seg.ops().offset(&scx, addr)));
        let Some(map) = vn.amap() else {
            let rest =
                if file.is_some() { "the page is the file's" } else { "nothing was touched yet" };
            self.step("anon_map", format!("none: {rest}"));
            return file;
        };
        self.through_map(machine, cx, map, vn.slot_of(seg.range(), addr), seg.range(), addr)
            .or(file)
    }
    /// Steps 5 to 7.
    fn through_map(
        &mut self,
        machine: &Machine,
        cx: &Cx,
        map: &AnonMap,
        slot: u64,
        seg: VirtRange,
        addr: VirtAddr,
    ) -> Option<Identity> {
        let (id, refs, swresv, chunks) =
            (map.id().0, map.refs(), map.swresv() / 1024, map.chunks(cx).len());
        self.step("anon_map", format!("amp {id} refcnt {refs} swresv {swresv}k chunks {chunks}"));
        let index = seg.page_index(addr);
        let held = map.slots(cx, slot..slot.wrapping_add(1)).next().map(|(_, n)| n);
        let Some(n) = held else {
            self.step(
                "anon_hdr",
                format!("page {index} of the segment: slot empty, never stored to"),
            );
            return None;
        };
        self.step("anon_hdr", format!("page {index} of the segment: slot holds anon {n}"));
        Some(self.through_anon(machine, cx, n))
    }
    fn through_anon(&mut self, machine: &Machine, cx: &Cx, n: AnonNumber) -> Identity {
        let name = machine.swap().identity(n);
        let refs = machine.anon().anons().refs(n);
        let lender = machine.swap().place(n).lender();
        let place = match (machine.swap().slot(cx, n), lender) {
            (Some(slot), _) => format!("an_pvp/an_poff swap {slot}"),
            (None, Some(page)) => format!("borrowed page {page}"),
            (None, None) => "an_pvp NULL".to_owned(),
        };
        self.step("anon", format!("anon {n} an_refcnt {refs} an_vp/an_off {name} {place}"));
        lender.and_then(|page| machine.db().page(page).identity()).unwrap_or(name)
    }
    /// Steps 8 to 10.
    fn down_to_page(&mut self, machine: &Machine, cx: &Cx, name: Identity) {
        let db = machine.db();
        let Some(page) = db.exists(cx, name) else {
            let on_list = db.vnode_page_count(cx, name.vnode);
            self.step(
                "page_hash",
                format!("{name} not found ({on_list} pages on v_pages): not in memory"),
            );
            return;
        };
        let listed = db.vnode_pages(cx, name.vnode).contains(&page);
        let listed = if listed { "and on v_pages" } else { "but NOT on v_pages" };
        self.step("page_hash", format!("{name} finds page {page}, {listed}"));
        self.page(machine, page);
        let mappings = machine.hat().mappings_of(cx, page);
        if mappings.is_empty() {
            self.step("p_mapping", "none".to_owned());
        }
        for (hat, va, pte) in mappings {
            self.step("p_mapping", format!("hat {hat} at {va}: {}", rights(pte)));
        }
    }
    fn page(&mut self, machine: &Machine, id: PageId) {
        let db = machine.db();
        let (p, lock) = (db.page(id), db.lock_state(id));
        let held = match (lock.excl, lock.shared) {
            (true, _) => "exclusive".to_owned(),
            (false, 0) => "-".to_owned(),
            (false, n) => format!("shared {n}"),
        };
        let free = if p.is_free() { " on the cache list" } else { "" };
        let pfn = db.pfn(id);
        self.pfn = Some(pfn.0);
        self.step(
            "page_t",
            format!(
                "p_pagenum {pfn} (physical {:#x}) p_selock {held} lck {} cow {} state {:#04x} nrm {}{free}",
                pfn.addr().0,
                p.lckcnt(),
                p.cowcnt(),
                p.state().bits(),
                marks(p.ref_mod()),
            ),
        );
    }
    /// What the tables say, for drivers without pages of their own.
    fn translation(&mut self, machine: &Machine, cx: &Cx, space: &AddrSpace, addr: VirtAddr) {
        let seen = match space.hat().probe(cx, addr) {
            Some(t) => {
                self.pfn = Some(t.pfn.0);
                let owner =
                    machine.db().page_of(t.pfn).and_then(|p| machine.db().page(p).identity());
                let owner =
                    owner.map_or_else(|| "no page structure".to_owned(), |id| format!("page {id}"));
                format!("mapped to pfn {} {}, {owner}", t.pfn, t.prot)
            }
            None => "not mapped".to_owned(),
        };
        self.step("hat", seen);
    }
}

/// Referenced and modified as letters.
fn marks(bits: RefMod) -> String {
    let letter = |bit, c| if bits.contains(bit) { c } else { '-' };
    [letter(RefMod::REF, 'r'), letter(RefMod::MOD, 'm')].iter().collect()
}

/// An entry's own rights and marks.
fn rights(pte: X86Pte) -> String {
    let prot = pte.prot().difference(Prot::USER);
    format!("{prot} {}", marks(pte.ref_mod()))
}
