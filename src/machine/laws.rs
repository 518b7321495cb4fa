//! The laws that no crate can check alone.
//!
//! Each crate's `verify` answers for its own structures. What lies between them is checked here, from both sides:
//!
//! ```text
//!   segments            ◀─ I6 ─▶  references of anon maps, as a whole and slot by slot
//!   slots of anon maps  ◀─ I1 ─▶  references of anons  ◀─ I3 ─▶  numbers that swapfs has handed out
//!   segments' rights    ◀─ V05 ─▶ translations          ◀─ I2, I5, I10, I14 ─▶ the page that slot-then-vnode leads to
//!   segments' swresv    ◀─ I12 ─▶ the reservation ledger
//!   locked pages of mappings ◀─ V19 ─▶ claims on pages, bytes charged to the process
//!   availrmem           ◀─ B1 ─▶ promises from memory, claims, loans, pins, frames taken away
//!   frames              ◀─ I8, I11 ─▶ lists, names, page tables; nothing locked or in transit
//!   pages of a file     ◀─ V15 ─▶ its size
//! ```
//!
//! What private segments share for good is marked on the map (J1); I7 looks at the others, and is checked both ways: who shares an anon map lazily may not store through it, and who need not copy it shares it with nobody. I4, I9, I13 and law 5 are the crates' own.
//!
//! Everything is read when nothing runs.

use super::Machine;
use super::verify::Violation;
use addr_space::{AddrSpace, Seg, SegCx};
use page_db::db::{Claim, Era};
use page_db::{Identity, PageId, PageState, Prot, VirtAddr, Vnode as _};
use seg_drivers::AnonMap;
use seg_drivers::anon::array::CHUNK;
use seg_drivers::seg_vn::SegVn;
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use swapfs::AnonNumber;

type Checked = Result<(), Violation>;

fn broken(invariant: &str, what: String) -> Checked {
    Err(Violation { invariant: invariant.into(), what })
}

pub(super) fn as_vn(seg: Seg<'_>) -> Option<&SegVn> {
    let ops: &dyn Any = seg.ops();
    ops.downcast_ref()
}

/// Checks all of them and names the first that is broken.
pub(super) fn check(m: &Machine) -> Checked {
    let maps: Vec<_> = m.anon().maps().into_iter().map(|map| occupied(m, map)).collect();
    references(m, &maps)?;
    sharers(m, &maps)?;
    reservations(m)?;
    conservation(m)?;
    ends(m)?;
    let mut claims = Marks::new();
    for (pid, space) in m.spaces() {
        let who = pid.map_or_else(|| "kas".to_string(), |p| format!("process {}", p.0));
        locked_bytes(m, &who, &space)?;
        let segs = space.segs(m.cx());
        for seg in segs.iter() {
            let scx = space.seg_cx(m.cx(), seg.range());
            let Some(vn) = as_vn(seg) else { continue };
            if vn.needs_copy() && vn.amap().is_none() {
                return broken("I7", format!("{who}: {} is to copy no anon map", seg.range()));
            }
            translations(m, &who, &scx, vn)?;
            for (addr, kind, era) in vn.locked_pages(&scx) {
                let marks: &mut Vec<_> = claims.entry(shown(m, &scx, vn, addr)).or_default();
                marks.push((kind, era));
            }
        }
    }
    claims_match(m, &claims)
}

/// I3: what a slot holds is a name that was handed out. I1: `refs` of an anon is the number of slots that hold it.
fn references(m: &Machine, maps: &[Occupied]) -> Checked {
    let mut held: BTreeMap<u32, u32> = BTreeMap::new();
    for (_, n) in maps.iter().flat_map(|(_, slots)| slots) {
        *held.entry(n.get()).or_default() += 1;
    }
    if let Some((n, slots)) = held.iter().find(|(n, _)| !is_live(m, **n)) {
        let what = format!("{slots} slots hold anon {n}, which swapfs has not handed out");
        return broken("I3", what);
    }
    for n in m.swap().live_numbers() {
        let (slots, refs) = (held.get(&n.get()).copied().unwrap_or(0), m.anon().anons().refs(n));
        if slots != refs {
            return broken("I1", format!("anon {n} has {refs} references, {slots} slots hold it"));
        }
    }
    Ok(())
}

/// What a segment has of an anon map.
struct User {
    slots: Range<u64>,
    private: bool,
    needs_copy: bool,
}

/// The segments that use each anon map, by its number.
fn users(m: &Machine) -> BTreeMap<u32, Vec<User>> {
    let mut users: BTreeMap<u32, Vec<User>> = BTreeMap::new();
    for (_, space) in m.spaces() {
        for seg in space.segs(m.cx()).iter() {
            if let Some((vn, map)) = as_vn(seg).and_then(|vn| Some((vn, vn.amap()?))) {
                users.entry(map.id().0).or_default().push(User {
                    slots: vn.slots_of(seg.range(), seg.range()),
                    private: vn.is_private(),
                    needs_copy: vn.needs_copy(),
                });
            }
        }
    }
    users
}

/// I6: a map has a reference for each segment that uses it, and an occupied slot one for each segment that covers it. I7: a slot that several
/// segments cover is shared for good by all of them, or lazily by all of them.
fn sharers(m: &Machine, maps: &[Occupied]) -> Checked {
    let mut users = users(m);
    for (map, slots) in maps {
        let segs = users.remove(&map.id().0).unwrap_or_default();
        let (refs, id) = (map.refs(), map.id().0);
        let loans = u64::from(map.is_loan());
        if segs.len() as u64 + loans != u64::from(refs) {
            let what = format!(
                "{} segments and {loans} loans use anon map {id}, which has {refs} references",
                segs.len()
            );
            return broken("I6", what);
        }
        if segs.iter().any(|s| s.needs_copy && !s.private) {
            let what = format!("a shared mapping is to get a copy of anon map {id}");
            return broken("I7", what);
        }
        for (slot, _) in slots {
            let mut covering = segs.iter().filter(|s| s.slots.contains(slot));
            let refs = map.slot_refs(m.cx(), *slot..slot + 1).first().map_or(0, |(_, n)| *n);
            let n = covering.clone().count() as u64;
            if n + loans != u64::from(refs) {
                let what = format!(
                    "{n} segments cover slot {slot} of anon map {id}, which has {refs} references"
                );
                return broken("I6", what);
            }
            if n > 1 && !map.is_joint() && covering.any(|s| s.private && !s.needs_copy) {
                let what = format!(
                    "{n} segments cover slot {slot} of anon map {id}, and one thinks it is alone"
                );
                return broken("I7", what);
            }
        }
    }
    Ok(())
}

/// An anon map and its occupied slots.
type Occupied = (Arc<AnonMap>, Vec<(u64, AnonNumber)>);

fn occupied(m: &Machine, map: Arc<AnonMap>) -> Occupied {
    let chunks = map.chunks(m.cx()).into_iter();
    let slots =
        chunks.flat_map(|(first, _)| map.slots(m.cx(), first..first.wrapping_add(CHUNK))).collect();
    (map, slots)
}

fn is_live(m: &Machine, n: u32) -> bool {
    AnonNumber::from_raw(n).is_some_and(|n| m.swap().is_live(n))
}

/// I12: what segments and shared maps have reserved is what the ledger has promised.
fn reservations(m: &Machine) -> Checked {
    let mut bytes: u64 = m.anon().maps().iter().map(|map| map.swresv()).sum();
    for (_, space) in m.spaces() {
        bytes += space.segs(m.cx()).iter().map(|s| s.ops().reserved()).sum::<u64>();
    }
    let (own, promised) = (bytes / page_db::PAGE_SIZE, m.swap().info().reserved());
    if own != promised {
        return broken(
            "I12",
            format!("segments and maps have reserved {own} pages, the ledger says {promised}"),
        );
    }
    if m.swap().live() > promised {
        return broken(
            "I12",
            format!("{} anons live on {promised} reserved pages", m.swap().live()),
        );
    }
    Ok(())
}

/// I8: every frame is free, cached, in use under a name, a page table, taken away, or out of service. I11: none is in anybody's hands.
fn conservation(m: &Machine) -> Checked {
    let db = m.db();
    let c =
        db.verify(m.cx()).map_err(|d| Violation { invariant: d.invariant.into(), what: d.what })?;
    let tables: u64 = m.hat().hats(m.cx()).iter().map(|h| h.tables).sum();
    if c.total() != db.pages().len() || c.kernel != tables + m.squeezed() || c.unnamed != 0 {
        let (frames, squeezed) = (db.pages().len(), m.squeezed());
        let what = format!("{c:?} of {frames} frames, {tables} page tables, {squeezed} squeezed");
        return broken("I8", what);
    }
    for p in db.pages().ids() {
        if db.lock_state(p).excl || db.is_io_locked(p) {
            let id = db.page(p).identity();
            return broken("I11", format!("page {p} {id:?} is exclusively locked or in transit"));
        }
    }
    charges(m)
}

/// B1: what availrmem lacks is promised from memory, claimed, pinned, taken away, or out of service.
fn charges(m: &Machine) -> Checked {
    let (db, mem) = (m.db(), m.db().free_mem());
    let claim = |p| u64::from(db.page(p).lckcnt() != 0) + u64::from(db.page(p).cowcnt());
    let claimed: u64 = db.pages().ids().map(claim).sum();
    let charged = mem.total().saturating_sub(mem.availrmem());
    let (promised, squeezed) = (m.swap().info().mem_resv, m.squeezed());
    let (retired, lent, pinned) = (db.retired_pages(), db.lent_pages(), m.vn().pinned_pages());
    if charged != promised + claimed + lent + pinned + squeezed + retired {
        let what = format!(
            "{charged} pages are charged; {promised} promised, {claimed} claimed, {lent} lent, {pinned} pinned, {squeezed} squeezed, {retired} retired"
        );
        return broken("B1", what);
    }
    Ok(())
}

/// V15: no page lies past the end of its file.
fn ends(m: &Machine) -> Checked {
    for file in m.files() {
        for p in m.db().vnode_pages(m.cx(), file.id()) {
            let id = m.db().page(p).identity();
            if id.is_some_and(|id| id.offset.0 >= file.size()) {
                let size = file.size();
                return broken("V15", format!("page {p} is {id:?}, its file has {size:#x} bytes"));
            }
        }
    }
    Ok(())
}

/// V19: bytes charged to a process as locked are the pages its mappings have locked.
fn locked_bytes(m: &Machine, who: &str, space: &AddrSpace) -> Checked {
    let segs = space.segs(m.cx());
    let locked = |s: Seg<'_>| {
        let scx = space.seg_cx(m.cx(), s.range());
        s.ops().residency(&scx, s.range()).locked
    };
    let pages = segs.iter().map(locked).fold(0, u64::saturating_add);
    let charged = space.state().locked();
    if !space.state().is_kernel() && charged != pages.saturating_mul(page_db::PAGE_SIZE) {
        let what = format!("{who} is charged {charged:#x} locked bytes for {pages} locked pages");
        return broken("V19", what);
    }
    Ok(())
}

/// The name of the page that `addr` shows: the slot's anon's, or that of the page it has borrowed, else the file's.
fn shown(m: &Machine, scx: &SegCx<'_>, vn: &SegVn, addr: VirtAddr) -> Option<Identity> {
    let slot = vn.amap().and_then(|map| map.peek(vn.slot_of(scx.seg, addr)));
    match slot {
        Some(n) => match m.swap().place(n).lender() {
            Some(lender) => m.db().page(lender).identity(),
            None => Some(m.swap().identity(n)),
        },
        None => vn
            .backing_vnode()
            .map(|v| Identity::new(v.id(), addr_space::SegOps::offset(vn, scx, addr))),
    }
}

/// V05, I5: each translation leads to the page its address shows, with no more rights than the page may have. I2: an anon with several
/// references is mapped writable by nobody. I14: nor is a file's page. I10: nor is a page that is lent.
fn translations(m: &Machine, who: &str, scx: &SegCx<'_>, vn: &SegVn) -> Checked {
    let mut result = Ok(());
    scx.hat.walk(scx.cx, scx.seg, &mut |addr, t| {
        if result.is_err() {
            return;
        }
        let page = m.db().page_of(t.pfn);
        let have = page.and_then(|p| m.db().page(p).identity());
        let want = shown(m, scx, vn, addr);
        if have.is_none() || have != want {
            result = broken("I5", format!("{who}: {addr} is mapped to {have:?}, shows {want:?}"));
            return;
        }
        if t.prot.contains(Prot::WRITE) && page.is_some_and(|p| m.db().page(p).is_lent()) {
            result = broken("I10", format!("{who}: {addr} may store into {have:?}, which is lent"));
            return;
        }
        let below = !vn.is_private() && vn.backing_vnode().is_some();
        if !t.prot.contains(Prot::WRITE) || below {
            return;
        }
        let anon = have.and_then(|id| m.swap().number_of(id));
        result = match anon.map(|n| (n, m.anon().anons().refs(n))) {
            None => broken(
                "I14",
                format!("{who}: {addr} may store into page {have:?} of a file mapped privately"),
            ),
            Some(_) if vn.needs_copy() => broken(
                "I7",
                format!("{who}: {addr} may store into a page of an anon map that is to be copied"),
            ),
            Some((_, 1)) => Ok(()),
            Some((n, refs)) => broken(
                "I2",
                format!("{who}: {addr} may store into anon {n}, which has {refs} references"),
            ),
        };
    });
    result
}

/// What mappings have noted of the pages they have locked in memory, by the page's name.
type Marks = BTreeMap<Option<Identity>, Vec<(Claim, Era)>>;

/// V19: claims on pages are those of the mappings that locked them, since the page is there. (Truncation drops the claims with the page. A page of the file
/// that grows again has none of theirs, while mappings go on being locked.)
fn claims_match(m: &Machine, marks: &Marks) -> Checked {
    let db = m.db();
    let count = |p: PageId| (usize::from(db.page(p).lckcnt()), usize::from(db.page(p).cowcnt()));
    for p in db.pages().ids() {
        let page = db.page(p);
        let id = page.identity();
        let kernel = page.state().contains(PageState::KERNEL)
            || id.is_some_and(|i| db.vnodes().kind(i.vnode) == page_db::VnodeKind::Kernel);
        // An anon's page does not end while a mapping shows it, and its claim is hardly ever lost.
        let anon = page.state().contains(PageState::SWAP) && db.lost_claims() == 0;
        let of = |kind| {
            let marks = marks.get(&id).into_iter().flatten();
            let holds = |era| anon || page.claim_era() == Some(era);
            marks.filter(|(k, era)| *k == kind && holds(*era)).count()
        };
        let (have, want) = (count(p), (of(Claim::Lck), of(Claim::Cow)));
        if !kernel && id.is_some() && have != want {
            return broken(
                "V19",
                format!("page {p} {id:?} has claims {have:?}, mappings account for {want:?}"),
            );
        }
    }
    Ok(())
}
