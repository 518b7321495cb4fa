//! The address space: 1 to 19.

use crate::{Scene, addr, available, range, reserved, scene, shape, space};
use addr_space::{
    AddrRequest, AddrSpace, AsCallback, AsError, Deleted, Events, FaultError, FaultKind,
    GapRequest, PinnedPages,
};
use page_db::{Access, Clock as _, CpuId, Cx, PAGE_SIZE, Prot, VirtAddr, errno};
use seg_drivers::SegVnArgs;
use segvm::machine::Limit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn b01_an_overlapping_segment_is_refused() {
    let mut s = scene("map 0 0 4 rw priv fixed anon");
    let before = s.run("::segtree 0");
    let args = SegVnArgs::zfod(s.machine().vn(), Prot::RW);
    let refused = space(&s, 0).map(s.machine().cx(), range(2, 1), &args);
    assert!(matches!(refused, Err(AsError::Overlap { .. })), "{refused:?}");
    assert_eq!((s.run("::segtree 0"), shape(&s, 0)), (before, (1, 4)));
    s.end();
}

#[test]
fn b02_a_lookup_finds_the_segment_or_the_next_one() {
    let s = scene("map 0 4 4 rw priv fixed anon; map 0 12 2 r priv fixed anon");
    let (space, cx) = (space(&s, 0), s.machine().cx());
    let segs = space.segs(cx);
    let at = |byte: u64| VirtAddr::new(addr(0).get() + byte).expect("canonical");
    let found = |byte| segs.seg_at(cx, at(byte)).map(|seg| seg.base());
    let next = |byte| segs.seg_at_or_above(cx, at(byte)).map(|seg| seg.base());
    let (first, last) = (4 * PAGE_SIZE, 8 * PAGE_SIZE - 1);
    assert_eq!([first, last].map(found), [Some(addr(4)); 2]);
    assert_eq!([first - 1, last + 1].map(found), [None; 2]);
    assert_eq!([first - 1, last + 1].map(next), [Some(addr(4)), Some(addr(12))]);
    assert_eq!(next(14 * PAGE_SIZE), None);
    assert_eq!(segs.last().map(|seg| seg.base()), Some(addr(12)), "the tail");
    // a_seglast is a hint of each processor here: the answer is the same right after any other.
    assert_eq!(found(first), Some(addr(4)));
    drop(segs);
    s.end();
}

#[test]
fn b03_unmapping_holes_succeeds() {
    let mut s = scene("unmap 0 0 16; expect ok");
    s.run("map 0 0 4 rw priv fixed anon; map 0 8 4 rw priv fixed anon; unmap 0 2 8; expect ok");
    assert_eq!(shape(&s, 0), (2, 4));
    s.run(
        "read 0 1 1; expect ok; read 0 10 2; expect ok; read 0 9 1; expect SEGV at=0 code=maperr",
    );
    s.end();
}

#[test]
fn b04_a_misaligned_or_empty_unmap_is_refused() {
    let mut s = scene("map 0 0 4 rw priv fixed anon; write 0 0 4 1");
    s.run("unmap 0 0+1 1; expect EINVAL; unmap 0 0 0; expect EINVAL");
    assert_eq!(shape(&s, 0), (1, 4));
    s.run("read 0 0 0+1; expect ok b=01");
    s.end();
}

#[test]
fn b05_protecting_over_a_hole_changes_what_lies_below_it() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; map 0 4 2 rw priv fixed anon");
    s.run("protect 0 0 6 r; expect ENOMEM");
    s.run(
        "write 0 0 1 1; expect SEGV at=0 code=accerr; write 0 1 1 1; expect SEGV at=0 code=accerr",
    );
    s.run("write 0 4 2 1; expect ok");
    s.end();
}

#[test]
fn b06_a_ceiling_in_the_second_segment_leaves_the_first_changed() {
    let mut s = scene("file 0 4096 ro; map 0 0 1 r priv fixed anon");
    s.run("map 0 1 1 r shared fixed file 0 0; protect 0 0 2 rw; expect EACCES");
    s.run("write 0 0 0+1 1; expect ok; write 0 1 0+1 1; expect SEGV at=0 code=accerr");
    s.end();
}

#[test]
fn b07_a_soft_lock_that_fails_is_undone() {
    // A is anonymous, B begins past the end of its file.
    let mut s =
        scene("map 0 0 2 rw priv fixed anon; file 0 4096; map 0 2 1 rw shared fixed file 0 1");
    let (space, cx) = (space(&s, 0), s.machine().cx());
    let failed = space.fault(cx, range(0, 3), FaultKind::SoftLock, Access::Write);
    assert_eq!(failed, Err(FaultError::Object { addr: addr(2), errno: errno::EFAULT }));
    for at in 0..2 {
        let page = s.page(s.frame(0, at).expect("faulted in"));
        assert_eq!(s.machine().db().lock_state(page).shared, 0, "softunlocked");
    }
    // Nothing is pinned: this does not wait.
    s.run("unmap 0 0 3; expect ok");
    s.end();
}

#[test]
fn b08_each_refusal_of_a_fault_has_its_code() {
    let s = scene(
        "map 0 0 1 - priv fixed anon; map 0 1 1 r priv fixed anon
         file 0 4096; map 0 2 1 rw shared fixed file 0 1",
    );
    let (space, cx) = (space(&s, 0), s.machine().cx());
    let fault = |at, access| {
        let e = space.fault_at(cx, addr(at), FaultKind::Invalid, access).expect_err("refused");
        (e.code() & 0xff, e.errno())
    };
    // FC_OBJERR 3, FC_PROT 4, FC_NOMAP 5.
    assert_eq!(fault(7, Access::Read).0, 5);
    assert_eq!(fault(0, Access::Read).0, 4);
    assert_eq!(fault(1, Access::Write).0, 4);
    assert_eq!(fault(2, Access::Read), (3, errno::EFAULT));
    drop(space);
    s.end();
}

#[test]
fn b09_a_lock_inversion_is_tried_again_a_tick_later() {
    let mut s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0");
    let before = s.machine().clock().now();
    s.file(0).fail_read(s.machine().cx(), 1, errno::EDEADLK);
    s.run("read 0 0 1; expect ok; expect counter as_fault +1");
    assert_eq!(s.machine().clock().now(), before + 1);
    s.end();
}

#[test]
fn b10_a_gap_is_found_on_the_side_that_was_asked_for() {
    // A window of 256 pages with 16 mapped in its middle.
    let s = scene("map 0 120 16 rw priv fixed anon");
    let (space, cx, window) = (space(&s, 0), s.machine().cx(), range(0, 256));
    let ask = GapRequest::new(16 * PAGE_SIZE).within(window);
    let hole = |r: &GapRequest| space.find_gap(cx, r).map(|g| g.hole).ok();
    assert_eq!(hole(&ask), Some(range(136, 120)), "AH_HI: the whole upper hole");
    assert_eq!(hole(&ask.lowest()), Some(range(0, 120)), "AH_LO: the whole lower hole");
    assert_eq!(hole(&ask.around(addr(125))), None, "AH_CONTAIN of a mapped address");
    assert_eq!(hole(&GapRequest::new(121 * PAGE_SIZE).within(window)), None);
    let request = AddrRequest { window: Some(window), ..AddrRequest::new(16 * PAGE_SIZE) };
    let place = space.claim_range(cx).expect("not held").choose_addr(&request);
    assert_eq!(place, Ok(range(240, 16)), "the top of the upper hole");
    drop(space);
    s.end();
}

#[test]
fn b11_equal_neighbours_are_one_segment() {
    let mut s = scene("map 0 0 4 rw priv fixed anon; map 0 4 4 rw priv fixed anon");
    assert_eq!(shape(&s, 0), (1, 8), "extend_prev");
    s.run("map 0 8 4 r priv fixed anon");
    assert_eq!(shape(&s, 0), (2, 12), "other rights: another segment");
    s.end();
}

#[test]
fn b12_unmapping_the_middle_page_frees_its_anon_alone() {
    let mut s = scene("map 0 0 3 rw priv fixed anon; write 0 0 3 65");
    let [first, middle, last] = [0, 1, 2].map(|p| s.anon(0, p).expect("stored to"));
    let free = s.machine().db().freemem();
    s.run("unmap 0 1 1");
    assert_eq!((shape(&s, 0), s.machine().db().freemem()), ((2, 2), free + 1));
    assert_eq!((s.anon(0, 0), s.anon(0, 2)), (Some(first), Some(last)));
    let gone = s.page(middle.frame.expect("was resident"));
    assert_eq!(s.machine().db().page(gone).identity(), None, "its page was destroyed");
    s.end();
}

/// Unmaps page 0 from another thread while it is pinned; says whether the pin was gone when the unmap returned.
fn unmap_beside(s: &Scene, pinned: PinnedPages) -> bool {
    let (space, let_go) = (space(s, 0), &AtomicBool::new(false));
    let other = s.process(0).another_thread(CpuId(1));
    std::thread::scope(|threads| {
        let unmap = threads.spawn(move || {
            other.munmap(addr(0).get(), PAGE_SIZE).expect("in the end");
            let_go.load(Ordering::SeqCst)
        });
        while s.machine().db().waits().sleepers() == 0 {
            assert!(!unmap.is_finished(), "it waits");
            std::thread::yield_now();
        }
        let_go.store(true, Ordering::SeqCst);
        space.unlock_pages(s.machine().cx(), pinned).expect("pinned here");
        unmap.join().expect("no panic")
    })
}

/// Gives pins up when it is told.
#[derive(Debug)]
struct Pinner {
    pins: Mutex<Option<PinnedPages>>,
    deleted: Mutex<Option<Deleted>>,
}

impl AsCallback for Pinner {
    fn call(&self, cx: &Cx, space: &AddrSpace, event: Events) {
        assert_eq!(event, Events::UNMAP);
        let pins = self.pins.lock().expect("quiet").take().expect("called once");
        space.unlock_pages(cx, pins).expect("pinned here");
        *self.deleted.lock().expect("quiet") = Some(space.delete_callback(cx, 7));
    }
}

#[test]
fn b13_unmap_waits_for_soft_locks() {
    // By a shadow list, by soft locks, in shared memory.
    for (map, access) in [
        ("map 0 0 1 rw priv fixed anon", Access::Write),
        ("file 0 4096; map 0 0 1 rw priv fixed file 0 0", Access::Read),
        ("map 0 0 1 rw shared fixed anon", Access::Write),
        ("file 0 4096; map 0 0 1 rw shared fixed file 0 0", Access::Write),
    ] {
        let mut s = Scene::on("machine memory=512 cpus=2");
        s.run(&format!("{map}; write 0 0 1 1"));
        let pin = |s: &Scene| space(s, 0).lock_pages(s.machine().cx(), range(0, 1), access);
        let pinned = pin(&s).expect("mapped");
        assert!(unmap_beside(&s, pinned), "unmapped under a pin: {map}");
        assert_eq!(shape(&s, 0), (0, 0));
        // With a callback, it runs first; only then is the unmap complete.
        s.run(&map.replace("file 0 4096; ", ""));
        let pins = Mutex::new(Some(pin(&s).expect("mapped")));
        let pinner = Arc::new(Pinner { pins, deleted: Mutex::new(None) });
        let told: Arc<dyn AsCallback> = Arc::<Pinner>::clone(&pinner);
        let cx = s.machine().cx();
        space(&s, 0).add_callback(cx, told, 7, Events::UNMAP, Some(range(0, 1))).expect("a user's");
        s.run("unmap 0 0 1; expect ok");
        assert_eq!(*pinner.deleted.lock().expect("quiet"), Some(Deleted::Deferred));
        s.end();
    }
}

#[test]
fn pinned_pages_are_charged_to_the_memory_that_may_be_locked() {
    // B1 holds while a shadow list is held, too.
    let mut s = scene("map 0 0 4 rw priv fixed anon; write 0 0 4 1");
    let before = available(&s);
    let pins = space(&s, 0).lock_pages(s.machine().cx(), range(0, 3), Access::Write);
    let pins = pins.expect("in memory");
    assert_eq!((available(&s), s.machine().vn().pinned_pages()), (before - 3, 3));
    s.run("verify; lock 0 0 4; expect ok; verify; unlock 0 0 4");
    space(&s, 0).unlock_pages(s.machine().cx(), pins).expect("pinned here");
    assert_eq!((available(&s), s.machine().vn().pinned_pages()), (before, 0));
    s.end();
}

#[test]
fn b14_deleting_a_callback_says_what_became_of_it() {
    #[derive(Debug, Default)]
    struct Deletes(Mutex<Vec<Deleted>>);
    impl AsCallback for Deletes {
        fn call(&self, cx: &Cx, space: &AddrSpace, _: Events) {
            self.0.lock().expect("quiet").push(space.delete_callback(cx, 1));
        }
    }
    let mut s = Scene::on("machine memory=512 cpus=2");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 1");
    let (space, heard) = (space(&s, 0), Arc::new(Deletes::default()));
    let add = |token| {
        let told: Arc<dyn AsCallback> = Arc::<Deletes>::clone(&heard);
        space.add_callback(s.machine().cx(), told, token, Events::UNMAP, None).expect("a user's");
    };
    let delete = |token| space.delete_callback(s.machine().cx(), token);
    assert_eq!(delete(1), Deleted::NotFound);
    add(2);
    assert_eq!([delete(2), delete(2)], [Deleted::Deleted, Deleted::NotFound], "never called");
    add(1);
    let pins = space.lock_pages(s.machine().cx(), range(0, 1), Access::Read).expect("mapped");
    // The callback keeps the pins, so the unmap goes on waiting until they go.
    assert!(unmap_beside(&s, pins));
    assert_eq!(*heard.0.lock().expect("quiet"), [Deleted::Deferred], "from inside");
    assert_eq!(delete(1), Deleted::NotFound, "the executor unlinked it");
    drop(space);
    s.run("verify");
    s.end();
}

#[test]
fn b15_a_mapping_that_cannot_be_locked_is_not_made() {
    let mut s = scene("lockall 0 future; expect ok; map 0 0 2 rw priv fixed anon; expect ok");
    assert_eq!(space(&s, 0).state().locked(), 2 * PAGE_SIZE);
    s.process(0).set_limit(Limit::Memlock, 4 * PAGE_SIZE);
    s.run(
        "map 0 8 4 rw priv fixed anon; expect EAGAIN; read 0 8 0+1; expect SEGV at=0 code=maperr",
    );
    assert_eq!((shape(&s, 0), reserved(&s)), ((1, 2), 2));
    s.end();
}

#[test]
fn b16_a_lock_that_fails_undoes_exactly_what_it_locked() {
    let mut s = scene("map 0 0 4 rw priv fixed anon; lock 0 1 1; expect ok");
    let locked = |s: &Scene| {
        let bits = s.process(0).mincore(addr(0).get(), 4 * PAGE_SIZE).expect("mapped");
        bits.iter().map(|b| b & 2 != 0).collect::<Vec<_>>()
    };
    s.run("lock 0 0 6; expect ENOMEM");
    assert_eq!(locked(&s), [false, true, false, false], "a hole: the earlier lock stays");
    s.process(0).set_limit(Limit::Memlock, 2 * PAGE_SIZE);
    s.run("lock 0 0 4; expect EAGAIN");
    assert_eq!(locked(&s), [false, true, false, false], "a limit met half way");
    assert_eq!(space(&s, 0).state().locked(), PAGE_SIZE);
    s.end();
}

#[test]
fn b17_locks_do_not_nest() {
    for map in ["map 0 0 2 rw priv fixed anon", "map 0 0 2 rw shared fixed anon"] {
        let mut s = scene(map);
        s.run("write 0 0 2 1");
        let before = available(&s);
        let claims = |s: &Scene| {
            let page = crate::page(s, 0, 0);
            (page.lckcnt(), page.cowcnt())
        };
        s.run("lock 0 0 2; expect ok; lock 0 0 2; expect ok");
        let once = if map.contains("priv") { (0, 1) } else { (1, 0) };
        assert_eq!((claims(&s), available(&s)), (once, before - 2));
        s.run("unlock 0 0 2; expect ok");
        assert_eq!((claims(&s), available(&s)), ((0, 0), before));
        assert_eq!(space(&s, 0).state().locked(), 0);
        s.end();
    }
}

#[test]
fn b18_mincore_tells_of_what_lies_before_a_hole() {
    let s = scene("map 0 0 2 rw priv fixed anon; write 0 1 1 1");
    let mut bytes = [9; 4];
    let cx = s.machine().cx();
    let (told, done) = space(&s, 0).incore(cx, range(0, 4), &mut bytes);
    assert_eq!((told.get(), bytes), (2, [0, 0x21, 9, 9]));
    assert_eq!(done, Err(AsError::Unmapped { addr: addr(2) }));
    // The system call leaves them with its caller too, and answers ENOMEM.
    let mut out = vec![9; 9];
    let done = s.process(0).mincore_into(addr(0).get(), 4 * PAGE_SIZE, &mut out);
    assert_eq!((done.map_err(|e| e.errno), out), (Err(errno::ENOMEM), vec![0, 0x21]));
    s.end();
}

#[test]
fn b19_a_fork_that_fails_leaves_the_parent_alone() {
    // The third segment cannot be promised to a child.
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65; map 0 4 2 r priv fixed anon");
    let room = s.machine().swap().info();
    let rest = room.max + room.avail_mem - room.reserved();
    s.run(&format!("map 0 8 {} rw priv fixed anon; expect ok", rest * 3 / 4));
    let (before, size, promised) = (s.state(2), shape(&s, 0), reserved(&s));
    s.run("fork 0 1; expect ENOMEM");
    assert_eq!((shape(&s, 0), reserved(&s)), (size, promised), "the child's promises are back");
    assert_eq!(s.machine().processes().len(), 1);
    s.run("write 0 0 2 66; expect counter cow_fault +0");
    assert_eq!(s.state(2), before);
    s.end();
}
