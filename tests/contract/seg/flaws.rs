//! The flaws of drivers, and the clause that catches each: one table for each part of the suite.

mod cut;
mod dup;
mod fail;
mod fault;
mod life;
mod moves;
mod object;
mod pin;

use super::desk::Desk;
use super::flawed::{AS_IT_IS, Does, FlawedArgs};
use super::seg_mirror::SegMirror;
use crate::{caught, caught_some_time};
use addr_space::{LoadFlags, SegCx, SegKind, Translation};
use page_db::{PAGE_SIZE, Prot, VirtAddr, VirtRange};
use segvm::contract::{Breach, SegCan, SegCase, check_seg_ops};
use segvm::machine::ForkPolicy;
use std::sync::Arc;

/// What the driver under the layer maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Over {
    Private,
    Shared,
    PrivateFile,
    SharedFile,
    /// Private memory that may not be executed.
    NotExecuted,
    /// Private memory that is not to be lent.
    NotLent,
    /// A private file of which it is said to be a shared one.
    SaidShared,
    /// The other way round.
    SaidPrivate,
    /// A driver that can do little.
    Mirror,
}

/// A flaw, and how the clause begins that catches it.
pub(crate) struct Flaw {
    name: &'static str,
    clause: &'static str,
    over: Over,
    does: Does,
}

const fn flaw(over: Over, name: &'static str, clause: &'static str, does: Does) -> Flaw {
    Flaw { name, clause, over, does }
}

fn page(addr: VirtAddr) -> VirtRange {
    VirtRange::page_of(addr)
}

/// The last page of a range less.
fn less(range: VirtRange) -> Option<VirtRange> {
    range.until(range.end() - PAGE_SIZE)
}

fn zero(scx: &SegCx<'_>, addr: VirtAddr) {
    if let Some(there) = scx.hat.probe(scx.cx, addr) {
        scx.db.mem().zero(there.pfn);
    }
}

/// Stores something into a page of zeros.
fn write_if_zeros(scx: &SegCx<'_>, addr: VirtAddr, at: usize) {
    let Some(there) = scx.hat.probe(scx.cx, addr) else { return };
    let mut bytes = [0; PAGE_SIZE as usize];
    scx.db.mem().read(there.pfn, 0, &mut bytes);
    if bytes.iter().all(|byte| *byte == 0) {
        scx.db.mem().write(there.pfn, at, b"somebody");
    }
}

fn translations(scx: &SegCx<'_>, range: VirtRange) -> Vec<(VirtAddr, Translation)> {
    let mut there = Vec::new();
    scx.hat.walk(scx.cx, range, &mut |addr, t| there.push((addr, t)));
    there
}

/// Puts translations back, behind everybody's back.
fn load(scx: &SegCx<'_>, there: &[(VirtAddr, Translation)]) {
    for (addr, t) in there {
        let _ = scx.hat.devload(scx.cx, page(*addr), t.pfn, t.prot, LoadFlags::NOCONSIST);
    }
}

/// Judges what a layer makes of a driver.
fn judged(does: &'static Does, over: Over) -> Result<(), Breach> {
    let desk = Desk::new(ForkPolicy::Eager);
    let behind = |n| desk.page_of_file(n);
    if over == Over::Mirror {
        let (mirror, behind) = (SegMirror(Arc::clone(&desk.file) as _), |_| behind(0));
        let can = SegCan::FAULT | SegCan::BYTES | SegCan::SPLIT | SegCan::DUP;
        return desk.check("flawed", &FlawedArgs { inner: &mirror, does }, can, Some(&behind));
    }
    let file =
        matches!(over, Over::PrivateFile | Over::SharedFile | Over::SaidShared | Over::SaidPrivate);
    let shared = matches!(over, Over::Shared | Over::SharedFile | Over::SaidPrivate);
    let kind = if shared { SegKind::SHARED } else { SegKind::empty() };
    let mut inner = if file { desk.file(kind) } else { desk.memory(kind) };
    if over == Over::NotExecuted {
        inner.max_prot = Prot::RW;
    }
    let mut can = if file { Desk::FILE } else { Desk::ANON };
    let said = shared != matches!(over, Over::SaidShared | Over::SaidPrivate);
    can.set(SegCan::SHARE, said);
    can.set(SegCan::LEND, over != Over::NotLent);
    let behind = file.then_some(&behind as &dyn Fn(u64) -> Vec<u8>);
    desk.check("flawed", &FlawedArgs { inner: &inner, does }, can, behind)
}

#[track_caller]
fn all_caught(flaws: &'static [Flaw]) {
    for flaw in flaws {
        caught(flaw.name, judged(&flaw.does, flaw.over), flaw.clause);
    }
}

#[test]
fn a_layer_without_a_flaw_keeps_the_contract() {
    for over in [Over::Private, Over::Shared, Over::PrivateFile, Over::SharedFile, Over::Mirror] {
        Breach::raise(judged(&AS_IT_IS, over));
    }
}

#[test]
fn flaws_of_life_are_caught() {
    all_caught(life::FLAWS);
}

#[test]
fn flaws_of_faults_and_rights_are_caught() {
    all_caught(fault::FLAWS);
}

#[test]
fn flaws_of_cuts_are_caught() {
    all_caught(cut::FLAWS);
}

#[test]
fn flaws_of_fork_are_caught() {
    all_caught(dup::FLAWS);
}

#[test]
fn flaws_of_pins_and_locks_are_caught() {
    all_caught(pin::FLAWS);
}

#[test]
fn flaws_of_moves_and_loans_are_caught() {
    all_caught(moves::FLAWS);
}

#[test]
fn flaws_about_the_object_and_of_refusals_are_caught() {
    all_caught(object::FLAWS);
}

#[test]
fn flaws_of_failures_are_caught() {
    all_caught(fail::FLAWS);
}

#[test]
fn flaws_of_two_threads_are_caught_when_they_meet() {
    for flaw in fail::MEETINGS {
        caught_some_time(flaw.name, || judged(&flaw.does, flaw.over), flaw.clause);
    }
}

#[test]
fn a_driver_that_mixes_up_its_threads_is_caught() {
    static MIXED_UP: Flaw = fail::MIXED_UP;
    let clauses = [MIXED_UP.clause, "faults and changes", "when a change of rights returns"];
    let breach = judged(&MIXED_UP.does, MIXED_UP.over).expect_err("noticed");
    assert!(clauses.iter().any(|c| breach.clause.starts_with(c)), "{breach}");
}

/// Where there is no address space nothing is judged.
#[test]
fn a_case_without_room_is_caught() {
    let desk = Desk::new(ForkPolicy::Eager);
    let args = desk.memory(SegKind::empty());
    let at = VirtAddr::new(0x40_0000).expect("canonical");
    let checked = check_seg_ops(&SegCase {
        cx: desk.m.cx(),
        db: desk.m.db(),
        name: "nowhere",
        space: &|| Err(addr_space::AsError::NoGap { len: PAGE_SIZE }),
        make: Some(&args),
        at,
        can: Desk::ANON,
        behind: None,
        counts: &Vec::new,
    });
    caught("NoGap", checked, ROOM);
}

const ROOM: &str = "an address space, and eight free pages";

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    let tables = [
        life::FLAWS,
        fault::FLAWS,
        cut::FLAWS,
        dup::FLAWS,
        pin::FLAWS,
        moves::FLAWS,
        object::FLAWS,
        fail::FLAWS,
        fail::MEETINGS,
        &[fail::MIXED_UP],
    ];
    let all = tables.into_iter().flatten().map(|flaw| flaw.clause);
    all.chain([ROOM]).collect()
}
