//! Watchpoints beside i/o, devices, and other threads.

use super::*;
use addr_space::{FaultKind, Moved, Signal, WatchFlags};
use page_db::errno::*;
use page_db::{Access, PAGE_SIZE, VirtAddr, VirtRange};

const P: u64 = PAGE_SIZE;

fn machine() -> (Machine, Process, u64) {
    let m = Machine::builder().frames(512).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(4 * P).expect("mapped");
    p.store(at, &[7; 4 * P as usize]).expect("stored");
    (m, p, at)
}

fn pages(at: u64, n: u64) -> VirtRange {
    VirtRange::exact(at, n * P).expect("a range")
}

#[test]
fn pinned_pages_keep_the_watches_they_have() {
    let (m, p, at) = machine();
    p.watch(at + 3 * P, 1, WatchFlags::READ).expect("nothing is pinned");
    let pinned = p.space().lock_pages(p.cx(), pages(at, 4), Access::Write).expect("pinned");
    let errno = |r: Result<(), SysError>| r.expect_err("pinned").errno;
    assert_eq!(errno(p.watch(at, 8, WatchFlags::WRITE)), EAGAIN);
    assert_eq!(errno(p.unwatch(at + 3 * P, 1)), EAGAIN);
    p.space().unlock_pages(p.cx(), pinned).expect("pinned here");
    m.verify().expect("sound");
    // Pinned by software, a page of which nothing may be mapped: it stays, and is counted once.
    p.space()
        .fault(p.cx(), pages(at + 3 * P, 1), FaultKind::SoftLock, Access::Read)
        .expect("locked");
    assert!(p.space().hat().probe(p.cx(), pages(at + 3 * P, 1).start()).is_none());
    p.space()
        .fault(p.cx(), pages(at + 3 * P, 1), FaultKind::SoftUnlock, Access::Read)
        .expect("unlocked");
    p.watch(at, 8, WatchFlags::WRITE).expect("nothing is pinned");
    p.exit();
    m.verify().expect("sound");
}

#[test]
fn an_access_made_for_a_thread_is_one_of_its_own() {
    let (m, p, at) = machine();
    p.watch(at, P, WatchFlags::READ | WatchFlags::WRITE | WatchFlags::EXEC).expect("watched");
    let (space, cx) = (p.space(), p.cx());
    let va = |a| VirtAddr::new(a).expect("an address");
    let (mut got, mut crossing) = ([0; 4], [0; 8]);
    let seen = |a, access| space.watch_hit(va(a), 4, access);
    let (stored, loaded) = (seen(at + 8, Access::Write), seen(at + 8, Access::Read));
    space.access_watched(cx, va(at + 8), Moved::Store(b"abcd"), stored).expect("stored");
    space.access_watched(cx, va(at + 8), Moved::Load(&mut got), loaded).expect("loaded");
    assert_eq!(&got, b"abcd");
    let e = space
        .access_watched(cx, va(at + P - 4), Moved::Load(&mut crossing), None)
        .expect_err("two pages");
    assert_eq!(e.signal(), Signal::BusAdrAln);
    let e = space
        .access_watched(cx, va(at + 8), Moved::Fetch(&mut got), seen(at + 8, Access::Exec))
        .expect_err("no right");
    assert_eq!(e.signal(), Signal::SegvAccErr);
    let e = space
        .access_watched(cx, va(0x1000), Moved::Load(&mut got), None)
        .expect_err("nothing there");
    assert_eq!(e.signal(), Signal::SegvMapErr);
    {
        let _looking = space.segs(cx);
        let e = space
            .access_watched(cx, va(at), Moved::Load(&mut got), None)
            .expect_err("would wait for itself");
        assert_eq!(e.errno(), EBUSY);
    }
    // The page is marked as a thread's own store would have it: it is not lost to page-out.
    m.pageout_all();
    space.access_watched(cx, va(at + 8), Moved::Load(&mut got), loaded).expect("read back");
    assert_eq!(&got, b"abcd");
    m.verify().expect("sound");
}

#[test]
fn a_watched_stack_grows() {
    let (m, p, _) = machine();
    p.grow_stack(STACK_TOP - P).expect("a stack");
    p.watch(STACK_TOP - 4 * P, 8, WatchFlags::WRITE).expect("watched before it is there");
    p.store(STACK_TOP - 4 * P + 8, b"deep").expect("the stack grows to it");
    let e = p.store(STACK_TOP - 4 * P - 2, b"deep").expect_err("watched");
    let signal = Signal::TrapWatch { access: Access::Write, after: false };
    assert_eq!((e.signal, e.done, e.addr), (signal, 2, STACK_TOP - 4 * P));
    m.verify().expect("sound");
}

#[test]
fn no_store_of_another_thread_slips_past_a_watch() {
    // One thread stores beside the watched bytes, which lets it through each time; another tries the watched ones all the while.
    let (m, p, at) = machine();
    p.watch(at, 8, WatchFlags::WRITE).expect("watched");
    let rounds = 300;
    std::thread::scope(|s| {
        let beside = p.another_thread(CpuId(0));
        s.spawn(move || {
            for i in 0..rounds {
                beside.store(at + 64, &u64::to_le_bytes(i)).expect("not watched");
            }
        });
        let at_it = p.another_thread(CpuId(1));
        s.spawn(move || {
            for _ in 0..rounds {
                let e = at_it.store(at, b"slipped!").expect_err("watched");
                assert!(matches!(e.signal, Signal::TrapWatch { .. }));
            }
        });
        let protects = p.another_thread(CpuId(1));
        s.spawn(move || {
            for _ in 0..rounds / 4 {
                protects.mprotect(at + P, P, 1).expect("mapped");
                protects.mprotect(at + P, P, 3).expect("mapped");
            }
        });
    });
    let mut seen = [0; 72];
    p.load(at, &mut seen).expect("loads are not watched");
    assert_eq!((&seen[..8], &seen[64..]), (&[7; 8][..], &u64::to_le_bytes(rounds - 1)[..]));
    m.verify().expect("sound");
}

#[test]
fn the_kernels_space_is_not_watched() {
    let (m, _, _) = machine();
    let area =
        addr_space::WatchArea { start: m.kas().limits().start(), len: P, flags: WatchFlags::WRITE };
    assert_eq!(m.kas().watch(m.cx(), area).expect_err("refused").errno(), EINVAL);
    assert!(!m.kas().is_watched());
}

#[test]
fn a_watch_ends_with_its_program_and_its_process() {
    let (m, p, at) = machine();
    p.watch(at, 8, WatchFlags::WRITE).expect("watched");
    let child = p.fork().expect("a child");
    assert!(p.space().is_watched() && !child.space().is_watched());
    child.store(at, b"ours").expect("not watched");
    assert_eq!(p.space().watches().len(), 1);
    p.unwatch(at, 8).expect("there is one");
    assert!(!p.space().is_watched(), "W3");
    let none = p.space().watches();
    assert!(none.is_empty());
    p.watch(at, 8, WatchFlags::WRITE).expect("watched");
    let path = std::env::current_exe().expect("a path");
    let file = m.open_host_file(&path, false).expect("readable");
    match p.exec(&file) {
        Ok(_) => assert!(!p.space().is_watched()),
        Err(e) => assert_eq!(e.errno, ENOMEM, "this binary may not fit"),
    }
    p.exit();
    let e = p.watch(at, 8, WatchFlags::WRITE).expect_err("gone");
    assert_eq!(e.errno, ESRCH);
    m.verify().expect("sound");
}

/// A watch that comes to be between the look at the watches and the move stops the move, as does one that goes.
#[test]
fn no_byte_moves_past_a_watch_that_was_not_seen() {
    let (m, p, at) = machine();
    let (space, cx) = (p.space(), p.cx());
    let va = VirtAddr::new(at).expect("an address");
    let move_there = |seen| {
        let done = space.access_watched(cx, va, Moved::Store(b"abcd"), seen);
        done.map_err(|e| (e.signal(), e.errno()))
    };
    let again = Err((Signal::None, EINTR));
    p.watch(at + P - 8, 8, WatchFlags::WRITE).expect("watched");
    assert_eq!(space.watch_hit(va, 4, Access::Write), None);
    p.watch(at, 4, WatchFlags::WRITE | WatchFlags::AFTER).expect("watched");
    assert_eq!(move_there(None), again);
    assert_eq!(p.load_u8(at).expect("may be loaded"), 7, "nothing has moved");
    let hit = space.watch_hit(va, 4, Access::Write);
    assert_eq!(move_there(hit), Ok(()));
    p.unwatch(at, 4).expect("it was watched");
    assert_eq!(move_there(hit), again, "the trap would be for nothing");
    assert_eq!(p.load_u8(at).expect("may be loaded"), b'a');
    p.exit();
    m.verify().expect("sound");
}

/// A page whose frame is to be retired when it can be is as good as any other until then.
#[test]
fn a_page_that_is_to_be_retired_is_reached_beside_a_watch() {
    let (m, p, at) = machine();
    let frame = p.space().hat().probe(p.cx(), pages(at, 1).start()).expect("it is mapped").pfn;
    let pending = Err(page_db::db::RetireError::Pending(frame));
    assert_eq!(m.db().retire(p.cx(), frame), pending, "it is dirty");
    p.watch(at + 64, 4, WatchFlags::READ | WatchFlags::WRITE).expect("watched");
    p.store(at, &[9]).expect("beside the watch");
    assert_eq!(p.load_u8(at).expect("beside the watch"), 9);
    assert_eq!(m.db().retire_check(frame), pending, "it is still the same frame");
    p.exit();
    m.verify().expect("sound");
}
