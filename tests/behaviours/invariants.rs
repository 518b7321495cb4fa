//! V01 to V30: the scenario that attacks each invariant. That `verify()` would see it broken is shown by damage (`laws::damage`).

use crate::{Scene, addr, available, page, range, reserved, scene, shape, space};
use addr_space::FaultKind;
use page_db::{Access, CpuId, PAGE_SIZE, RefMod, errno};
use segvm::machine::STACK_TOP;

scripts! {
    v03_failure_is_nothing_or_the_prefix: "map 0 0 2 rw priv fixed anon; write 0 0 2 65; map 0 3 1 rw priv fixed anon
        lock 0 0 4; expect ENOMEM; advise 0 0 2 dontneed; expect ok
        protect 0 0 4 r; expect ENOMEM; write 0 1 0+1 1; expect SEGV at=0 code=accerr; write 0 3 0+1 1; expect ok
        map 0 1 2 rw priv noreplace anon; expect EEXIST; read 0 2 0+1; expect SEGV at=0 code=maperr";
    v04_nothing_wraps: "map 0 @top 1 rw priv fixed anon; expect ok; write 0 @top 1 65; expect ok; map 0 @top 3 rw priv fixed anon; expect ENOMEM
        unmap 0 @top @wrap; expect EINVAL; protect 0 @top @max r; expect ENOMEM; lock 0 @top @maxpg; expect ENOMEM; read 0 @top 0+1; expect ok b=41";
    v11_a_name_has_one_page: "file 0 8192; map 0 0 2 r shared fixed file 0 0; read 0 0 2; unmap 0 0 2
        map 0 4 2 r priv fixed file 0 0; read 0 4 2; expect counter pgin +0; expect counter pgrec +2
        fork 0 1; map 1 8 2 rw shared fixed file 0 0; write 1 8 0+1 65; expect counter pgin +0; read 0 4 0+1; expect ok b=41";
    v20_locks_end: "map 0 0 1 rw priv fixed anon; lock 0 0 1; lock 0 0 1; unlock 0 0 1; advise 0 0 1 dontneed; expect ok
        lock 0 0 1; fork 0 1; write 1 0 1 1; advise 1 0 1 dontneed; expect ok; advise 0 0 1 dontneed; expect EBUSY
        unmap 0 0 1; map 0 0 1 rw priv fixed anon; write 0 0 1 1; advise 0 0 1 dontneed; expect ok";
    v21_the_kernels_access_is_the_users: "file 0 4096; file 1 8192; map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1
        fread 1 0 0 0 0+1; expect ok; read 0 0 0+1; expect ok b=41; protect 0 0 1 r; fread 0 0 0 0 0+1; expect EFAULT
        protect 0 0 1 -; fwrite 0 1 0 0 0+1; expect EFAULT; fwrite 0 1 0 9 0+1; expect EFAULT
        map 0 4 2 r shared fixed file 0 0; fwrite 0 1 0 5 0+1; expect EFAULT";
    v22_two_files_crosswise: "file 0 4096; file 1 4096; pwrite 0 0 2 65; pwrite 1 0 2 97; fork 0 1
        map 0 0 1 rw shared fixed file 0 0; map 1 0 1 rw shared fixed file 1 0
        fread 0 1 0 0 0+2; expect ok; fread 1 0 0 0 0+1; expect ok; fread 0 0 0 0 1; expect ok n=4096; fwrite 1 1 0 0 1; expect ok n=4096
        read 0 0 0+2; expect ok b=6162; read 1 0 0+2; expect ok b=6162";
    v24_what_changed_meanwhile_is_looked_at_again: "file 0 8192; map 0 0 1 rw priv fixed file 0 0; read 0 0 1; write 0 0 0+1 65; unmap 0 0 1
        map 0 0 1 r shared fixed file 0 1; read 0 0 0+1; expect ok b=00; write 0 0 0+1 1; expect SEGV at=0 code=accerr
        truncate 0 4096; read 0 0 0+1; expect BUS at=0; truncate 0 8192; read 0 0 0+1; expect ok b=00";
    v28_no_way_makes_it_writable: "file 0 4096 ro; map 0 0 1 r shared fixed file 0 0; protect 0 0 1 rw; expect EACCES; fork 0 1
        protect 1 0 1 rw; expect EACCES; protect 1 0 1 -; protect 1 0 1 r; expect ok; protect 1 0 1 rwx; expect EACCES
        write 1 0 0+1 1; expect SEGV at=0 code=accerr; fread 1 0 0 0 0+1; expect EFAULT";
}

#[test]
fn v01_segments_are_those_of_a_plain_array() {
    // Eight thousand steps on the tree itself: `as::avl::tests::random`.
    let (mut s, mut plain, mut seed) = (Scene::new(), [false; 64], 12345u64);
    for _ in 0..150 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, len) = ((seed >> 33) % 60, 1 + (seed >> 50) % 4);
        let map = seed >> 62 != 0;
        let does = if map { "map 0 A L rw priv fixed anon" } else { "unmap 0 A L" };
        s.run(&does.replace('A', &at.to_string()).replace('L', &len.to_string()));
        plain[at as usize..(at + len) as usize].fill(map);
        assert_eq!(shape(&s, 0).1, plain.iter().filter(|p| **p).count() as u64);
        let (space, cx) = (space(&s, 0), s.machine().cx());
        let segs = space.segs(cx);
        assert!((0..64).all(|p| segs.seg_at(cx, addr(p)).is_some() == plain[p as usize]));
    }
    s.end();
}

#[test]
fn v02_splitting_and_joining_keep_every_page() {
    let mut s = scene(
        "map 0 0 5 rw priv fixed anon; write 0 0 5 65; protect 0 1 1 r; protect 0 3 1 r; lock 0 2 2",
    );
    let pages = |s: &Scene| {
        let bits = s.process(0).mincore(addr(0).get(), 5 * PAGE_SIZE).expect("mapped");
        let anons: Vec<_> = (0..5).map(|p| s.anon(0, p).map(|a| (a.number, a.frame))).collect();
        (anons, bits.iter().map(|b| b & 2).collect::<Vec<_>>())
    };
    let before = pages(&s);
    s.run("protect 0 1 4 rw; expect ok");
    assert_eq!(pages(&s), before);
    s.run("advise 0 4 1 inherit_zero; unmap 0 1 2; map 0 1 2 rw priv fixed anon");
    let after = pages(&s);
    for p in [0, 3, 4] {
        assert_eq!((after.0[p], after.1[p]), (before.0[p], before.1[p]), "page {p}");
    }
    s.run("fork 0 1; read 1 4 0+1; expect ok b=00; read 1 3 0+1; expect ok b=41; read 1 1 0+1; expect ok b=00");
    s.end();
}

#[test]
fn v05_every_translation_is_of_the_page_it_should_be() {
    let mut s = scene(
        "file 0 8192; map 0 0 2 rw priv fixed file 0 0; map 0 4 2 rw shared fixed anon; fork 0 1",
    );
    s.run("read 0 0 2; write 1 0 1 1; write 0 4 1 2; read 1 4 2; truncate 0 4096; protect 1 4 1 r; unmap 0 5 1; exit 0");
    assert_eq!([0, 1, 5].map(|p| s.rights(1, p)), ["rw-", "-", "rw-"].map(str::to_owned));
    s.end();
}

#[test]
fn v06_writable_means_alone() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1");
    s.run("exit 1; write 0 0 1 66; expect counter cow_fault +0; fork 0 1");
    let (space, cx) = (space(&s, 0), s.machine().cx());
    // A pin for stores takes the page out of sharing first.
    space.fault(cx, range(0, 1), FaultKind::SoftLock, Access::Write).expect("mapped");
    assert_eq!(s.anon(0, 0).map(|a| a.refs), Some(1));
    assert_ne!(s.anon(0, 0).map(|a| a.number), s.anon(1, 0).map(|a| a.number));
    space.fault(cx, range(0, 1), FaultKind::SoftUnlock, Access::Write).expect("it was locked");
    drop(space);
    s.end();
}

#[test]
fn v07_no_store_passes_a_fork() {
    let mut s = Scene::on("machine memory=512 cpus=2");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 0");
    let (at, stop) = (addr(0).get(), &std::sync::atomic::AtomicBool::new(false));
    let writer = s.process(0).another_thread(CpuId(1));
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let mut n = 0u8;
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                n = n.wrapping_add(1);
                writer.store(at, &[n]).expect("stored");
            }
        });
        for _ in 0..30 {
            let child = s.process(0).fork().expect("a child");
            let first = child.load_u8(at);
            std::thread::yield_now();
            assert_eq!(child.load_u8(at), first, "what the parent stores later is not seen");
            child.exit();
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    s.run("verify");
    s.end();
}

#[test]
fn v08_a_tree_of_clones_counts_its_pages() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 2 65");
    for (does, pages) in [
        ("fork 0 1", 2),
        ("fork 1 2", 2),
        ("write 1 0 0+1 1", 3),
        ("fork 1 3", 3),
        ("exit 1", 3),
        ("write 3 0 0+1 1", 3),
        ("write 2 0 0+1 1; write 2 1 0+1 1", 5),
        ("exit 0", 4),
        ("exit 2", 2),
        ("unmap 3 1 1", 1),
    ] {
        s.run(does);
        assert_eq!(s.machine().swap().live(), pages, "after {does}");
    }
    s.end();
}

/// V09: P1 forks P2, which forks P3 sharing its private memory. A store by either is seen by both and not by P1, and whoever exits, nobody goes on
/// reading a frame that is somebody else's.
#[test]
fn v09_a_replaced_slot_vanishes_for_all_sharers() {
    let anon = "map 0 0 2 rw priv fixed anon; advise 0 0 2 random";
    let file =
        "file 0 8192; pwrite 0 0 8192 97; map 0 0 2 rw priv fixed file 0 0; advise 0 0 2 random";
    let mut variants = 0;
    for (memory, touched) in [(anon, true), (anon, false), (file, true), (file, false)] {
        for (storer, other) in [(1, 2), (2, 1)] {
            for locked in ["", "lock 1 0 2;", "lock 0 0 2;"] {
                for first_to_go in [0, 1, 2] {
                    let mut s = scene(memory);
                    if touched {
                        s.run("write 0 0 0+1 65; write 0 1 0+1 66");
                    }
                    s.run(&format!("fork 0 1; {locked}"));
                    s.run("inherit 1 0 2 share");
                    s.run("fork 1 2; read 0 0 0+1; read 1 0 0+1; read 2 0 0+1");
                    s.run(&format!("write {storer} 0 0+1 67; read {other} 0 0+1; expect ok b=43"));
                    s.run(&format!("write {other} 1 0+1 68; read {storer} 1 0+1; expect ok b=44"));
                    assert_eq!(s.anon(1, 0), s.anon(2, 0), "one slot");
                    assert_ne!(s.frame(1, 0), s.frame(0, 0), "the first process kept its own");
                    let own = match (touched, memory == anon) {
                        (true, _) => "41",
                        (false, true) => "00",
                        (false, false) => "61",
                    };
                    s.run(&format!("read 0 0 0+1; expect ok b={own}; exit {first_to_go}"));
                    let busy = (first_to_go + 1) % 3; // takes the frames that are free now
                    s.run(&format!(
                        "map {busy} 16 8 rw priv fixed anon; advise {busy} 16 8 populate_write"
                    ));
                    for left in (0..3).filter(|p| *p != first_to_go) {
                        let want = if left == 0 { own } else { "43" };
                        s.run(&format!("read {left} 0 0+1; expect ok b={want}"));
                    }
                    s.end();
                    variants += 1;
                }
            }
        }
    }
    assert_eq!(variants, 72);
}

#[test]
fn v10_a_frame_is_reused_when_no_processor_knows_it() {
    let mut s = Scene::on("machine memory=512 cpus=2");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65 cpu=0; write 0 0 0+1 66 cpu=1; map 0 4 1 rw priv fixed anon");
    s.run("unmap 0 0 1; write 0 4 0+1 70 cpu=0");
    assert_eq!(s.machine().host_mmu().expect("simulated").stale_entries(s.machine().cx()), []);
    s.run("write 0 0 0+1 1 cpu=1; expect SEGV at=0 code=maperr; read 0 4 0+1; expect ok b=46");
    s.end();
}

#[test]
fn v12_frames_are_conserved() {
    let mut s = Scene::new();
    s.run("fork 0 1; exit 1");
    let before = s.machine().db().freemem();
    s.run("fork 0 1; map 1 0 40 rw priv fixed anon; write 1 0 40 1; fork 1 2; write 2 0 40 2; file 0 16384");
    s.run("map 2 64 4 rw shared fixed file 0 0; write 2 64 4 3; exit 1; exit 2; truncate 0 0");
    assert_eq!(s.machine().db().freemem(), before);
    s.end();
}

#[test]
fn v13_no_page_is_left_locked() {
    // Order and holders are checked at each lock of a debug build; here the pages after operations that fail in their middle.
    let mut s =
        scene("file 0 4096; map 0 0 2 rw shared fixed file 0 0; map 0 4 1 rw priv fixed anon");
    s.file(0).fail_read(s.machine().cx(), 1, errno::EIO);
    s.run("read 0 0 0+1; expect BUS at=0; read 0 1 0+1; expect BUS at=0; lock 0 4 3; expect ENOMEM; fread 0 0 0 4 3; expect ok");
    let (db, mut all) = (s.machine().db(), s.machine().db().pages().ids());
    assert!(all.all(|p| db.lock_state(p).shared == 0 && !db.lock_state(p).excl));
    s.end();
}

#[test]
fn v14_dirty_is_never_lost() {
    let mut s =
        scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 0+1 65; sync 0 0 1 sync");
    s.run("write 0 0 0+1 66; expect ok; sync 0 0 1 sync; expect counter pgpgout +1");
    s.file(0).fail_write(s.machine().cx(), 1, errno::EIO);
    s.run("write 0 0 0+1 67; sync 0 0 1 sync; expect EIO; unmap 0 0 1; pageout *");
    s.run("map 0 0 1 r shared fixed file 0 0; sync 0 0 1 inval; read 0 0 0+1; expect ok b=43");
    s.end();
}

#[test]
fn v15_nothing_is_mapped_past_the_end() {
    let mut s = scene(
        "file 0 12288; map 0 0 3 rw shared fixed file 0 0; fork 0 1; write 0 0 3 1; write 1 0 3 2",
    );
    s.run("truncate 0 5000");
    for p in [0, 1] {
        assert_eq!(s.rights(p, 2), "-", "gone from every space");
        s.run(&format!("read {p} 2 0+1; expect BUS at=0; read {p} 1+904 0+2; expect ok b=0000"));
    }
    s.end();
}

#[test]
fn v16_a_new_page_shows_nothing_of_the_past() {
    let mut s = Scene::on("machine memory=128");
    s.run("fork 0 1; map 1 0 60 rw priv fixed anon; write 1 0 60 65; exit 1; map 0 0 60 rw priv fixed anon; file 0 100");
    for p in 0..60 {
        s.run(&format!("read 0 {p} 0+4; expect ok b=00000000"));
    }
    s.run("map 0 64 1 r shared fixed file 0 0; read 0 64 0+4; expect ok b=00000000");
    s.end();
}

#[test]
fn v17_three_places_on_swap() {
    let mut s = Scene::on("machine memory=256 swap=mem:3");
    s.run("map 0 0 6 rw priv fixed anon; write 0 0 6 65; pageout *");
    let on_swap = |s: &Scene| (0..6).filter(|p| s.anon(0, *p).is_some_and(|a| a.on_swap)).count();
    assert_eq!(on_swap(&s), 3, "the others stay, dirty");
    s.run("write 0 0 6 66; pageout *; write 0 0 6 67; read 0 5 0+1; expect ok b=43; unmap 0 0 6");
    assert_eq!(s.machine().swap().swapinfo().0[0].free, 3);
    s.end();
}

#[test]
fn v18_toggled_rights_promise_no_page_twice() {
    let mut s = scene("file 0 32768; map 0 0 8 r priv fixed file 0 0");
    for n in 0..250u64 {
        let (at, len) = (n * 7 % 8, 1 + n % 3);
        let len = len.min(8 - at);
        s.run(&format!("protect 0 {at} {len} rw; write 0 {at} 0+1 1; protect 0 {at} {len} r"));
        assert!(reserved(&s) <= 8, "{}", reserved(&s));
    }
    s.run("unmap 0 0 8");
    assert_eq!(reserved(&s), 0);
    s.end();
}

#[test]
fn v19_claims_are_what_is_locked() {
    for order in
        ["fork 0 1; write 0 0 1 66; unlock 0 0 1", "fork 0 1; unlock 0 0 1; write 0 0 1 66"]
    {
        let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
        let before = available(&s);
        s.run("lock 0 0 1; pageout *; read 0 0 0+1; expect counter as_fault +0");
        s.run(order);
        assert_eq!((available(&s), s.machine().db().claimed_pages()), (before, 0), "{order}");
        s.run("file 0 4096; map 0 4 1 rw shared fixed file 0 0; lock 0 4 1; truncate 0 0; unlock 0 4 1");
        assert_eq!(available(&s), before);
        s.end();
    }
}

#[test]
fn v23_page_out_gets_on_where_all_is_dirty() {
    let mut s = Scene::on("machine memory=64 swap=mem:256");
    s.run("map 0 0 150 rw priv fixed anon");
    for n in 0..2 {
        s.run(&format!("write 0 0 150 {}; expect ok", 65 + n));
    }
    s.run("read 0 0 0+1; expect ok b=42; read 0 149 0+1; expect ok b=42");
    s.end();
}

#[test]
fn v25_a_failed_read_is_told_and_tried_again() {
    // Of swap, a page that was lost stays lost (uvm 36).
    let mut s =
        scene("file 0 8192; map 0 0 2 rw shared fixed file 0 0; map 0 4 2 rw priv fixed file 0 0");
    for (does, again) in [("read 0 0 0+1", "read 0 0 0+1"), ("write 0 5 0+1 1", "write 0 5 0+1 1")]
    {
        s.file(0).fail_read(s.machine().cx(), 1, errno::EIO);
        s.run(&format!("{does}; expect BUS at=0"));
        assert_eq!(
            s.file_frame(0, 0).filter(|_| does.starts_with("read")),
            None,
            "no page is left"
        );
        s.run(&format!("{again}; expect ok"));
    }
    s.end();
}

#[test]
fn v26_pinned_pages_stay_with_their_owner() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65");
    let pin = |s: &Scene, kind| {
        space(s, 0).fault(s.machine().cx(), range(0, 1), kind, Access::Write).expect("mapped");
    };
    pin(&s, FaultKind::SoftLock);
    let frame = s.frame(0, 0);
    let refused = space(&s, 0).try_unmap(s.machine().cx(), range(0, 1)).map_err(|e| e.errno());
    assert_eq!(refused, Err(errno::EAGAIN));
    let refused = space(&s, 0).try_set_prot(s.machine().cx(), range(0, 1), page_db::Prot::READ);
    assert_eq!(refused.map_err(|e| e.errno()), Err(errno::EAGAIN));
    s.run("sync 0 0 1 inval; expect EAGAIN; pageout *; fork 0 1; write 1 0 0+1 66; read 0 0 0+1; expect ok b=41");
    assert_eq!(s.frame(0, 0), frame, "pages under i/o do not move");
    pin(&s, FaultKind::SoftUnlock);
    s.end();
}

#[test]
fn v27_an_exit_beside_faults_and_page_out_frees_once() {
    for _ in 0..10 {
        let mut s = Scene::on("machine memory=512 cpus=2");
        s.run("fork 0 1; map 1 0 32 rw priv fixed anon; write 1 0 32 65");
        let (at, beside) = (addr(0).get(), s.process(1).another_thread(CpuId(1)));
        std::thread::scope(|threads| {
            threads.spawn(move || {
                let stores = (0..32).map(|n| beside.store(at + n * PAGE_SIZE, &[1]).is_ok());
                let _ = stores.filter(|done| *done).count();
                beside.machine().pageout_all();
            });
            s.process(1).exit();
        });
        s.process(1).exit();
        assert_eq!((s.machine().swap().live(), reserved(&s)), (0, 0));
        s.machine().verify().expect("sound");
    }
}

#[test]
fn v29_growth_meets_limit_and_neighbour() {
    let mut s = scene(
        "brk 0 1; setrlimit 0 data 8192; brk 0 3; expect ENOMEM; brk 0 2; expect ok; setrlimit 0 stack 16384",
    );
    s.run(&format!("grow 0 {:#x}; expect ok", STACK_TOP - PAGE_SIZE));
    s.run(&format!("map 0 {:#x} 1 rw priv fixed anon; expect ok", STACK_TOP - 3 * PAGE_SIZE));
    s.run(&format!("grow 0 {:#x}; expect ENOMEM", STACK_TOP - 4 * PAGE_SIZE));
    s.run(&format!(
        "unmap 0 {:#x} 1; grow 0 {:#x}; expect ENOMEM",
        STACK_TOP - 3 * PAGE_SIZE,
        STACK_TOP - 5 * PAGE_SIZE
    ));
    assert_eq!(s.process(0).stack().map(|r| r.pages().get()), Some(1));
    s.run("map 0 b:2 1 rw priv fixed anon; setrlimit 0 data none; brk 0 4; expect ENOMEM; write 0 b:0 2 1; expect ok");
    s.end();
}

#[test]
fn v30_what_must_be_invisible_is() {
    // A trace, and the same with a page-out after each operation, on few frames, with the other hash, copying late.
    const FEW: &str = "machine memory=40 swap=mem:1024";
    let trace = include_str!("../traces/cow.vmt");
    let result = |settings: &str, step: &str| {
        let mut lines = trace.lines();
        let header: Vec<_> = lines
            .by_ref()
            .take_while(|l| {
                l.starts_with("vmtrace") || l.starts_with("arena") || l.starts_with('#')
            })
            .collect();
        let skip = header.len();
        let body: Vec<_> = trace
            .lines()
            .skip(skip)
            .map(|l| {
                if l.is_empty() || step.is_empty() { l.to_owned() } else { format!("{l}; {step}") }
            })
            .collect();
        let text = format!("{}\n{settings}\n{}", header.join("\n"), body.join("\n"));
        let parsed = segvm::script::parse(&text).expect("a trace");
        let world = segvm::machine::MachineWorld::new(&parsed.machine()).expect("a machine");
        let mut runner = segvm::script::Runner::new(world, segvm::script::RunOptions::default());
        let mut out = String::new();
        runner
            .run_statements(&parsed.statements, &mut segvm::script::PlainText(&mut out))
            .expect("runs");
        let pushed = runner.world().machine().counters().get(page_db::Counter::PgPgOut);
        let answers = out
            .lines()
            .filter(|l| !l.contains(" pageout "))
            .map(|l| l.split_once(" -> ").map_or(String::new(), |(_, a)| a.to_owned()));
        (answers.collect::<Vec<_>>(), pushed)
    };
    let (plain, _) = result("machine memory=1024", "");
    for settings in [
        "machine memory=1024 hash=dashmap",
        "machine memory=1024 fork=lazy",
        "machine memory=1024 cpus=4 colours=8",
    ] {
        assert_eq!(result(settings, "").0, plain, "{settings}");
    }
    let (answers, pushed) = result("machine memory=1024", "pageout *");
    assert_eq!(answers, plain, "page-out after each operation");
    assert!(pushed > 30, "{pushed} pages pushed");
    let (answers, pushed) = result(FEW, "");
    assert_eq!(answers, plain, "few frames");
    assert!(pushed > 20, "{pushed} pages pushed");
}

#[test]
fn marks_come_in_with_the_unload() {
    let mut s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1");
    page(&s, 0, 0).clear_ref_mod(RefMod::MOD);
    s.forget_translations();
    let frame = s.file_frame(0, 0).expect("cached");
    assert!(s.machine().db().page(s.page(frame)).ref_mod().contains(RefMod::MOD));
    s.end();
}
