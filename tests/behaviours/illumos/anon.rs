//! Anons and swap: 38 to 45.

use crate::{Scene, available, reserved, scene};
use page_db::{Identity, PutFlags, RefMod, VnodeError, errno};
use std::sync::Arc;
use swapfs::{AnonNumber, MemDevice};

#[test]
fn b38_a_large_map_has_only_the_chunks_that_were_touched() {
    for pages in [513, 5_000_000] {
        let mut s = Scene::new();
        s.run(&format!(
            "map 0 0 {pages} rw priv fixed anon noreserve; write 0 0 0+1 1; write 0 512 0+1 2"
        ));
        let maps = s.machine().anon().maps();
        let cx = s.machine().cx();
        let (map, first) = (&maps[0], seg_drivers::seg_vn::FIRST_SLOT);
        assert_eq!(map.chunks(cx).len(), 2, "of {pages} slots");
        let slots: Vec<_> = map.slots(cx, first..first + pages).map(|(at, _)| at - first).collect();
        assert_eq!(slots, [0, 512]);
        drop(maps);
        s.end();
    }
}

/// The anon of a page, as swapfs names it.
fn number(s: &Scene, page: u64) -> AnonNumber {
    AnonNumber::from_raw(s.anon(0, page).expect("stored to").number).expect("not 0")
}

/// Free places of the first swap area.
fn places(s: &Scene) -> u64 {
    s.machine().swap().swapinfo().0[0].free
}

#[test]
fn b39_an_area_takes_over_promises_and_gives_them_back() {
    let mut s = Scene::on("machine memory=512 swap=mem:8");
    s.run("map 0 0 40 rw priv fixed anon; write 0 0 40 65");
    let (before, memory) = (s.machine().swap().info(), available(&s));
    assert_eq!((before.phys_resv, before.mem_resv), (8, 32));
    s.run("swapadd mem 100; expect ok n=2");
    let after = s.machine().swap().info();
    assert_eq!((after.max, after.phys_resv, after.mem_resv), (before.max + 100, 40, 0));
    assert_eq!(available(&s), memory + 32, "availrmem rises by what left it");
    s.run("sync 0 0 40 sync");
    let on_it = |s: &Scene| (0..40).filter(|p| s.anon(0, *p).is_some_and(|a| a.on_swap)).count();
    assert_eq!(on_it(&s), 40);
    s.run("swapdel 2; expect ok");
    assert_eq!((s.machine().swap().info().max, on_it(&s)), (before.max, 8));
    let dirty = |p: &u64| {
        let anon = s.anon(0, *p).expect("lives");
        let page = s.machine().db().page(s.page(anon.frame.expect("brought in")));
        anon.on_swap || page.ref_mod().contains(RefMod::MOD)
    };
    assert!((0..40).all(|p| dirty(&p)), "what was brought in is modified");
    // More is promised than memory alone can hold: the area stays.
    s.run("swapadd mem 1000; map 0 64 900 rw priv fixed anon; expect ok; swapdel 3; expect ENOMEM");
    s.end();
}

#[test]
fn b40_areas_do_not_overlap() {
    // That the same range during a removal calls it off: swapfs ctl, `an_add_of_the_same_range_calls_a_removal_off`.
    let s = Scene::new();
    let (swap, cx) = (s.machine().swap(), s.machine().cx());
    let device = Arc::new(MemDevice::new("disk", 100));
    let add =
        |from, pages| swap.add(cx, Arc::clone(&device) as _, from, pages, 0).map_err(|e| e.errno());
    let area = add(0, 50).expect("room");
    assert_eq!(add(49, 10), Err(errno::EEXIST));
    assert_eq!(add(60, 0), Err(errno::EINVAL));
    assert!(add(50, 50).is_ok(), "beside it");
    swap.remove(cx, area).expect("nothing is on it");
    assert!(add(0, 50).is_ok());
    s.end();
}

#[test]
fn b41_each_push_takes_a_new_place() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let place = |s: &Scene| s.machine().swap().slot(s.machine().cx(), number(s, 0));
    let push = "sync 0 0 1 sync+inval; expect ok; expect counter anonpgout +1";
    s.run(push);
    let (first, anon) = (place(&s).expect("pushed"), s.anon(0, 0).expect("lives"));
    assert_eq!(anon.frame, None, "its page was destroyed");
    s.run("read 0 0 0+1; expect ok b=41; expect counter anonpgin +1");
    assert_eq!(place(&s), None, "given up at once");
    assert!(crate::page(&s, 0, 0).ref_mod().contains(RefMod::MOD), "the only copy is in memory");
    s.run(push);
    assert_ne!(place(&s).expect("pushed"), first, "as a log");
    s.end();
}

#[test]
fn b42_without_a_place_nothing_is_lost() {
    let mut s = Scene::on("machine memory=512 swap=mem:1");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65; sync 0 0 1 sync+inval");
    assert_eq!(places(&s), 0);
    // The one place holds the only copy of page 0; a place behind a page in memory would be taken over (uvm 33).
    let (swap, cx, n) = (s.machine().swap(), s.machine().cx(), number(&s, 1));
    let queued = swap.put_page(cx, n, PutFlags::ASYNC | PutFlags::FREE);
    let pushed = queued.and_then(|()| swap.flush_pushes(cx));
    assert!(matches!(pushed, Err(VnodeError::NoSpace { .. })), "page-out is told, and goes on");
    assert_eq!(swap.put_page(cx, n, PutFlags::empty()), Ok(()));
    let anon = s.anon(0, 1).expect("lives");
    let page = s.machine().db().page(s.page(anon.frame.expect("resident")));
    assert!(page.ref_mod().contains(RefMod::MOD) && !anon.on_swap);
    s.run("pageout *; read 0 1 0+1; expect ok b=41; expect counter pgin +0");
    s.end();
}

#[test]
fn b43_disk_is_promised_first_and_memory_returned_first() {
    let mut s = Scene::on("machine memory=512 swap=mem:10");
    let books = |s: &Scene| {
        let i = s.machine().swap().info();
        (i.max, i.phys_resv, i.mem_resv)
    };
    s.run("map 0 0 8 rw priv fixed anon");
    let memory = available(&s);
    assert_eq!(books(&s), (10, 8, 0));
    s.run("map 0 16 5 rw priv fixed anon");
    assert_eq!((books(&s), available(&s)), ((10, 10, 3), memory - 3));
    s.run("unmap 0 16 4");
    assert_eq!((books(&s), available(&s)), ((10, 9, 0), memory));
    assert_eq!(reserved(&s), 9);
    s.end();
}

#[test]
fn b44_the_last_reference_frees_page_and_place() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; fork 0 1; sync 0 0 1 sync");
    let (all, free, live) = (places(&s), s.machine().db().freemem(), s.machine().swap().live());
    assert!(s.anon(0, 0).is_some_and(|a| a.on_swap && a.refs == 2));
    s.run("unmap 1 0 1");
    assert_eq!(s.anon(0, 0).map(|a| a.refs), Some(1), "only the count");
    assert_eq!((places(&s), s.machine().swap().live()), (all, live));
    let info = s.machine().swap().info().free;
    s.run("unmap 0 0 1");
    assert_eq!((places(&s), s.machine().swap().live()), (all + 1, live - 1));
    assert_eq!(
        s.machine().swap().info().free,
        info - 1 + 1 + 1,
        "ani_free: a promise less, a name more"
    );
    assert!(s.machine().db().freemem() > free, "its page is free");
    s.end();
}

#[test]
fn b45_an_anon_has_its_name_alone() {
    let mut s = scene("map 0 0 40 rw priv fixed anon; write 0 0 40 65");
    let swap = Arc::clone(s.machine().swap());
    let named: Vec<(AnonNumber, Identity)> =
        (0..40).map(|p| number(&s, p)).map(|n| (n, swap.identity(n))).collect();
    let names: std::collections::HashSet<_> = named.iter().map(|(_, id)| *id).collect();
    assert_eq!(names.len(), 40, "two anons never share a name");
    assert!(named.iter().all(|(n, id)| swap.number_of(*id) == Some(*n) && swap.is_live(*n)));
    s.run("unmap 0 0 40");
    assert!(named.iter().all(|(n, _)| !swap.is_live(*n)), "nothing afterwards");
    drop(swap);
    s.end();
}
