//! Faults, soft locks, protections: what is walked, undone, done over.

use crate::error::{AsError, SegError};
use crate::fault::{FaultError, FaultKind, Signal};
use crate::hat::Hat;
use crate::seg::Advice;
use crate::testing::*;
use core::sync::atomic::Ordering;
use page_db::{Access, Clock, Counter, Prot, errno};

fn object(addr: u64, errno: i32) -> Fail {
    Fail::Fault(FaultError::Object { addr: at(addr), errno })
}

/// Two adjacent segments that do not merge, at 0x10000 and 0x12000, two pages each.
fn two_segments() -> World {
    let w = World::new();
    w.map(0x10000, 2 * P);
    w.map(0x12000, 2 * P);
    w.plan.take_all();
    w
}

#[test]
fn a_soft_lock_that_fails_in_the_second_segment_leaves_no_pin_in_the_first() {
    let w = two_segments();
    w.plan.fail("fault", 0x13000, 1, object(0x13000, errno::EIO));
    let got = w.space.fault(&w.cx, range(0x10000, 4 * P), FaultKind::SoftLock, Access::Write);
    assert_eq!(got, Err(FaultError::Object { addr: at(0x13000), errno: errno::EIO }));
    let undone = w.plan.take("softunlock");
    assert_eq!(undone.iter().map(|c| (c.start, c.end)).collect::<Vec<_>>(), [(0x10000, 0x12000)]);
    w.space.try_unmap(&w.cx, range(0x10000, 4 * P)).expect("nothing is pinned");
    w.check();
}

#[test]
fn a_soft_lock_into_a_hole_is_undone_up_to_it() {
    let w = two_segments();
    let got = w.space.fault(&w.cx, range(0x10000, 5 * P), FaultKind::SoftLock, Access::Read);
    assert_eq!(got, Err(FaultError::NoMap { addr: at(0x14000) }));
    assert_eq!(w.plan.take("softunlock").len(), 2);
    w.space.try_unmap(&w.cx, range(0x10000, 4 * P)).expect("nothing is pinned");
}

#[test]
fn each_refusal_has_its_fault_code() {
    let w = two_segments();
    w.map_as(0x20000, P, &w.toy().prot(Prot::empty()));
    w.map_as(0x30000, P, &w.toy().prot(Prot::READ));
    let fault = |addr, access| w.space.fault_at(&w.cx, at(addr), FaultKind::Invalid, access);
    assert_eq!(fault(0x5000, Access::Read), Err(FaultError::NoMap { addr: at(0x5000) }));
    let prot = |addr, access| Err(FaultError::Prot { addr: at(addr), access });
    assert_eq!(fault(0x20000, Access::Read), prot(0x20000, Access::Read));
    assert_eq!(fault(0x30fff, Access::Write), prot(0x30000, Access::Write));
    w.plan.fail("fault", 0x10000, 1, object(0x10000, errno::EFAULT));
    let beyond = fault(0x10000, Access::Read).expect_err("as ordered");
    assert_eq!((beyond.code() & 0xff, beyond.code() >> 8), (3, errno::EFAULT));
    w.check();
}

#[test]
fn a_lock_inversion_is_tried_again_a_tick_later() {
    let w = two_segments();
    w.plan.fail("fault", 0x10000, 3, object(0x10000, errno::EDEADLK));
    w.space.fault_at(&w.cx, at(0x10000), FaultKind::Invalid, Access::Write).expect("in the end");
    assert_eq!(w.clock.now(), 3);
    assert_eq!(w.count(Counter::AsFault), 1, "one fault, however often it starts over");
    w.plan.fail("faulta", 0x11000, 1, object(0x11000, errno::EDEADLK));
    w.space.faulta(&w.cx, range(0x10000, 2 * P)).expect("in the end");
    assert_eq!(w.plan.take("faulta").len(), 4, "from the start");
}

/// A page may be pinned by the one who asks for a pin, through another mapping: a soft lock does not wait for ever. Another fault does.
#[test]
fn a_soft_lock_waits_for_a_page_that_is_held_but_not_for_ever() {
    let w = two_segments();
    let soft = |kind| w.space.fault_at(&w.cx, at(0x10000), kind, Access::Write);
    w.plan.fail("fault", 0x10000, 30, object(0x10000, errno::EDEADLK));
    soft(FaultKind::SoftLock).expect("let go of in time");
    assert_eq!(w.plan.take("softlock").len(), 31);
    soft(FaultKind::SoftUnlock).expect("locked");
    w.plan.take_all();
    w.plan.fail("fault", 0x10000, 1000, object(0x10000, errno::EDEADLK));
    let refused = Err(FaultError::Object { addr: at(0x10000), errno: errno::EAGAIN });
    assert_eq!(soft(FaultKind::SoftLock), refused);
    assert_eq!(
        w.plan.take("softlock").len(),
        101,
        "once for each of a hundred waits, and the first"
    );
    w.space.try_unmap(&w.cx, range(0x10000, P)).expect("nothing is pinned");
    w.map(0x10000, P);
    w.plan.take_all();
    soft(FaultKind::Invalid).expect("in the end");
    assert_eq!(w.plan.take("fault").len(), 1000 - 101 + 1);
    w.check();
}

#[test]
fn a_stale_decision_starts_over_at_once() {
    let w = two_segments();
    w.plan.fail("fault", 0x11000, 2, Fail::Fault(FaultError::Retry { addr: at(0x11000) }));
    w.space.fault_at(&w.cx, at(0x11000), FaultKind::Invalid, Access::Read).expect("in the end");
    assert_eq!((w.clock.now(), w.wait.waits.load(Ordering::SeqCst)), (0, 0));
    assert_eq!(w.plan.take("fault").len(), 3);
}

#[test]
fn what_an_operation_still_has_to_pass_is_made_its_own_with_the_first() {
    let w = two_segments();
    w.map(0x20000, P);
    w.map(0x30000, P);
    let advise = || w.space.advise(&w.cx, range(0x10000, 0x10000 + P), Advice::Random);
    let not_own = |addr| Fail::Fault(FaultError::NotOwn { addr: at(addr) });
    w.plan.fail("advise", 0x12000, 1, not_own(0x12000));
    assert_eq!(advise(), Err(AsError::Unmapped { addr: at(0x14000) }));
    let made = |w: &World| w.plan.take("make_own").iter().map(|c| c.start).collect::<Vec<_>>();
    assert_eq!(made(&w), [0x12000, 0x20000], "not below, and not behind the range");
    // One that comes later and finds no memory is left for the pass that meets it.
    let short = |addr| Fail::Seg(SegError::NoMemory { range: range(addr, P) });
    w.plan.fail("advise", 0x10000, 1, not_own(0x10000));
    w.plan.fail("make_own", 0x12000, 1, short(0x12000));
    w.plan.fail("advise", 0x12000, 1, not_own(0x12000));
    assert_eq!(advise(), Err(AsError::Unmapped { addr: at(0x14000) }));
    assert_eq!(made(&w), [0x10000, 0x12000, 0x12000, 0x20000]);
    // Every operation that walks says how far; a fault of one page goes no further, nor does a fork.
    w.map(0x14000, 2 * P);
    let three = range(0x10000, 5 * P);
    let pin = |kind| w.space.fault(&w.cx, three, kind, Access::Read);
    w.plan.fail("fault", 0x10000, 1, not_own(0x10000));
    pin(FaultKind::SoftLock).expect("mapped");
    assert_eq!(made(&w), [0x10000, 0x12000, 0x14000]);
    pin(FaultKind::SoftUnlock).expect("locked");
    w.plan.fail("faulta", 0x10000, 1, not_own(0x10000));
    w.space.faulta(&w.cx, three).expect("mapped");
    assert_eq!(made(&w), [0x10000, 0x12000, 0x14000]);
    w.map(0x16000, P);
    w.plan.fail("fault", 0x15000, 1, not_own(0x15000));
    w.space.fault_at(&w.cx, at(0x15000), FaultKind::Invalid, Access::Read).expect("mapped");
    assert_eq!(made(&w), [0x14000]);
    w.plan.fail("dup", 0x10000, 1, not_own(0x10000));
    w.space.dup(&w.cx, &w.child()).expect("in the end");
    assert_eq!(made(&w), [0x10000]);
    assert_eq!(w.wait.waits.load(Ordering::SeqCst), 0);
    w.check();
}

#[test]
fn a_segment_that_must_be_its_own_first_is_made_so_by_a_writer() {
    let w = two_segments();
    let shared = Fail::Fault(FaultError::NotOwn { addr: at(0x11000) });
    w.plan.fail("fault", 0x11000, 1, shared);
    w.space.fault_at(&w.cx, at(0x11000), FaultKind::Invalid, Access::Read).expect("in the end");
    assert_eq!(w.plan.take("fault").len(), 2);
    let made = w.plan.take("make_own");
    assert!(made.len() == 1 && made[0].start == 0x10000 && made[0].writer, "{made:?}");
    // Without memory for that the fault waits as for a page, with nothing held, and starts over.
    w.plan.fail("fault", 0x10000, 1, shared);
    w.plan.fail("make_own", 0x10000, 1, Fail::Seg(SegError::NoMemory { range: range(0x10000, P) }));
    w.wait.left.store(1, Ordering::SeqCst);
    w.space.fault_at(&w.cx, at(0x10000), FaultKind::Invalid, Access::Read).expect("in the end");
    assert_eq!((w.plan.take("fault").len(), w.plan.take("make_own").len()), (2, 1));
    // A thread that reads the list of segments cannot become its writer, and is told so.
    let shared = Fail::Fault(FaultError::NotOwn { addr: at(0x13000) });
    w.plan.fail("fault", 0x13000, 1, shared);
    let segs = w.space.segs(&w.cx);
    let got = w.space.fault_at(&w.cx, at(0x13000), FaultKind::Invalid, Access::Read);
    assert_eq!(got, Err(FaultError::Object { addr: at(0x13000), errno: errno::EBUSY }));
    drop(segs);
    w.check();
}

#[test]
fn a_fault_short_of_memory_waits_with_nothing_held_and_gives_up_with_enomem() {
    let w = two_segments();
    let short = Fail::Fault(FaultError::NoMemory { addr: at(0x13000) });
    w.wait.left.store(1, Ordering::SeqCst);
    w.plan.fail("fault", 0x13000, 1, short);
    let all = range(0x10000, 4 * P);
    w.space.fault(&w.cx, all, FaultKind::SoftLock, Access::Read).expect("the second time");
    w.space.fault(&w.cx, all, FaultKind::SoftUnlock, Access::Read).expect("as it was locked");
    w.plan.fail("fault", 0x13000, 1, short);
    let got = w.space.fault(&w.cx, all, FaultKind::SoftLock, Access::Read);
    assert_eq!(got, Err(FaultError::Object { addr: at(0x13000), errno: errno::ENOMEM }));
    w.space.try_unmap(&w.cx, all).expect("nothing is pinned");
    w.check();
}

#[test]
fn memory_that_never_suffices_ends_in_enomem_too() {
    let w = two_segments();
    w.wait.left.store(u64::MAX, Ordering::SeqCst);
    w.plan.fail(
        "fault",
        0x10000,
        u32::MAX,
        Fail::Fault(FaultError::NoMemory { addr: at(0x10000) }),
    );
    let got = w.space.fault_at(&w.cx, at(0x10000), FaultKind::Invalid, Access::Read);
    assert_eq!(got, Err(FaultError::Object { addr: at(0x10000), errno: errno::ENOMEM }));
}

#[test]
fn a_fault_that_the_entry_allows_by_now_does_not_reach_the_driver() {
    let w = two_segments();
    let write = |kind| w.space.fault_at(&w.cx, at(0x10000), kind, Access::Write);
    write(FaultKind::Invalid).expect("mapped");
    write(FaultKind::Prot).expect("another CPU was first");
    assert_eq!(w.plan.take("fault").len(), 1);
    assert_eq!(w.count(Counter::SpuriousFault), 1);
    w.hat.clear_write(&w.cx, range(0x10000, P));
    write(FaultKind::Prot).expect("the driver gives the right back");
    assert_eq!(w.plan.take("fault").len(), 1);
    assert_eq!((w.count(Counter::AsFault), w.count(Counter::ProtFault)), (3, 2));
    // A soft lock must reach the driver whatever is mapped.
    write(FaultKind::SoftLock).expect("mapped");
    assert_eq!((w.plan.take("softlock").len(), w.count(Counter::SoftLock)), (1, 1));
    assert_eq!(w.count(Counter::AsFault), 4, "of every kind");
    write(FaultKind::SoftUnlock).expect("locked");
}

#[test]
fn faults_of_the_kernel_are_counted_as_such() {
    let w = World::with_limits(range(0xffff_8000_0000_0000, 16 * P));
    w.map(0xffff_8000_0000_0000, P);
    w.space
        .fault_at(&w.cx, at(0xffff_8000_0000_0000), FaultKind::Invalid, Access::Read)
        .expect("mapped");
    assert_eq!(w.count(Counter::KernelAsFault), 1);
}

#[test]
fn protecting_across_a_hole_changes_what_lies_below_it() {
    let w = World::new();
    w.map(0x10000, P);
    w.map(0x12000, P);
    let got = w.space.set_prot(&w.cx, range(0x10000, 3 * P), Prot::READ);
    assert_eq!(got, Err(AsError::Unmapped { addr: at(0x11000) }));
    assert_eq!(got.map_err(|e| e.errno()), Err(errno::ENOMEM));
    assert!(w.space.check_prot(&w.cx, range(0x10000, P), Prot::WRITE).is_err(), "A is changed");
    assert!(w.space.check_prot(&w.cx, range(0x12000, P), Prot::WRITE).is_ok(), "B is not");
}

#[test]
fn protecting_beyond_a_ceiling_changes_the_segments_before() {
    let w = World::new();
    w.map(0x10000, P);
    w.map_as(0x11000, P, &w.toy().prot(Prot::READ).max_prot(Prot::READ));
    let got = w.space.set_prot(&w.cx, range(0x10000, 2 * P), Prot::RWX);
    assert_eq!(got.map_err(|e| e.errno()), Err(errno::EACCES));
    assert!(w.space.check_prot(&w.cx, range(0x10000, P), Prot::RWX).is_ok());
    assert!(w.space.check_prot(&w.cx, range(0x11000, P), Prot::RWX).is_err());
}

#[test]
fn a_driver_may_ask_to_be_protected_as_writer() {
    let w = two_segments();
    w.plan.fail("set_prot", 0x12000, 1, Fail::Seg(SegError::Retry { range: range(0x12000, P) }));
    w.space.set_prot(&w.cx, range(0x10000, 4 * P), Prot::READ).expect("as writer");
    let calls = w.plan.take("set_prot");
    assert_eq!(calls.iter().map(|c| c.writer).collect::<Vec<_>>(), [false, false, true, true]);
    w.check();
}

#[test]
fn protecting_pinned_pages_tries_as_writer_then_waits() {
    let w = two_segments();
    let page = range(0x12000, P);
    w.space.fault(&w.cx, page, FaultKind::SoftLock, Access::Read).expect("mapped");
    let got = w.space.try_set_prot(&w.cx, page, Prot::READ);
    assert!(matches!(got, Err(AsError::Seg(SegError::Pinned { .. }))));
    let writers: Vec<_> = w.plan.take("set_prot").iter().map(|c| c.writer).collect();
    assert_eq!(writers, [false, true]);
    std::thread::scope(|s| {
        let (space, counters) = (&w.space, &w.counters);
        let protector = s.spawn(move || space.set_prot(&cx_on(counters, 1), page, Prot::READ));
        while w.plan.take("set_prot").iter().all(|c| !c.writer) {
            std::thread::yield_now();
        }
        assert!(!protector.is_finished());
        w.space.fault(&w.cx, page, FaultKind::SoftUnlock, Access::Read).expect("locked");
        protector.join().expect("no panic").expect("the pin is gone");
    });
    w.check();
}

#[test]
fn rights_are_reported_in_runs_and_stop_at_a_hole() {
    let w = two_segments();
    w.space.set_prot(&w.cx, range(0x11000, 2 * P), Prot::READ).expect("below the ceiling");
    let mut runs = Vec::new();
    let got = w.space.prots(&w.cx, range(0x10000, 5 * P), &mut |run, prot| {
        runs.push((run.start().get(), run.end(), prot));
    });
    assert_eq!(got, Err(AsError::Unmapped { addr: at(0x14000) }));
    let expected = [
        (0x10000, 0x11000, Prot::RW),
        (0x11000, 0x12000, Prot::READ),
        (0x12000, 0x13000, Prot::READ),
        (0x13000, 0x14000, Prot::RW),
    ];
    assert_eq!(runs, expected);
}

#[test]
fn advice_and_sync_end_at_the_first_error() {
    let w = two_segments();
    let all = range(0x10000, 5 * P);
    let advice = crate::Advice::Sequential;
    assert_eq!(w.space.advise(&w.cx, all, advice), Err(AsError::Unmapped { addr: at(0x14000) }));
    w.plan.take_all();
    w.plan.fail("advise", 0x12000, 1, Fail::Seg(SegError::Retry { range: range(0x12000, P) }));
    w.space.advise(&w.cx, range(0x10000, 4 * P), advice).expect("as writer");
    assert!(w.plan.take("advise").last().is_some_and(|c| c.writer));
    let locked = SegError::Locked { addr: at(0x10000) };
    w.plan.fail("sync", 0x10000, 1, Fail::Seg(locked));
    let got = w.space.dont_need(&w.cx, range(0x10000, 4 * P));
    assert_eq!(got, Err(locked.into()));
    assert_eq!(w.plan.take("sync").len(), 1, "the second segment is not asked");
    w.space.will_need(&w.cx, range(0x10000, 4 * P)).expect("mapped");
    assert_eq!(w.space.will_need(&w.cx, all), Err(AsError::Unmapped { addr: at(0x14000) }));
    let unsupported = w.space.inherit_zero(&w.cx, range(0x10000, P)).map_err(|e| e.errno());
    assert_eq!(unsupported, Err(errno::ENOTSUP));
    let page_size = w.space.set_page_size(&w.cx, range(0x10000, P), 1).map_err(|e| e.errno());
    assert_eq!(page_size, Err(errno::EINVAL));
}

#[test]
fn populating_goes_on_from_the_page_that_failed() {
    let w = two_segments();
    w.plan.fail("fault", 0x11000, 1, Fail::Fault(FaultError::Retry { addr: at(0x11000) }));
    w.space.populate(&w.cx, range(0x10000, 4 * P), Access::Write).expect("the second time");
    let starts = |w: &World| w.plan.take("fault").iter().map(|c| c.start).collect::<Vec<_>>();
    assert_eq!(starts(&w), [0x10000, 0x11000, 0x11000, 0x12000, 0x13000]);
    let got = w.space.populate(&w.cx, range(0x12000, 3 * P), Access::Write);
    assert_eq!(got, Err(FaultError::NoMap { addr: at(0x14000) }));
    assert_eq!(starts(&w), [0x12000, 0x13000], "what lies below the hole is in place");
    w.check();
}

/// G10: a driver that names a page of somebody else's, mapped or not, neither keeps it going for ever nor has it believe that all is done.
#[test]
fn populating_does_not_believe_a_page_of_somebody_elses() {
    for lie in [0x10000, 0x40000] {
        let w = World::new();
        w.map(0x10000, P);
        w.map(0x11000, 3 * P);
        w.map(0x40000, P);
        w.plan.take_all();
        w.plan.fail("populate", 0x11000, 50, Fail::Fault(FaultError::Retry { addr: at(lie) }));
        w.space.populate(&w.cx, range(0x11000, 3 * P), Access::Write).expect("in the end");
        let asked: Vec<_> = w.plan.take("populate").iter().map(|c| c.start).collect();
        assert_eq!(asked, [0x11000, 0x12000], "what it failed at is its own first page");
        for page in range(0x11000, 3 * P).iter_pages() {
            assert!(w.space.hat().allows(&w.cx, page, Access::Write), "{page} after {lie:#x}");
        }
        w.check();
    }
}

#[test]
fn a_refusal_has_the_code_the_errno_and_the_signal_of_its_class() {
    let addr = at(0x4000);
    let told = |e: FaultError| (e.code(), e.errno(), e.signal());
    let prot = FaultError::Prot { addr, access: Access::Write };
    assert_eq!(told(prot), (4, errno::EACCES, Signal::SegvAccErr));
    assert_eq!(told(FaultError::NoMap { addr }), (5, errno::EFAULT, Signal::SegvMapErr));
    let object = FaultError::Object { addr, errno: errno::EIO };
    assert_eq!(told(object), (errno::EIO << 8 | 3, errno::EIO, Signal::BusObjErr(errno::EIO)));
}
