//! seg_vn: 20 to 37.

use crate::{Scene, addr, device, page, range, reserved, run_ok, scene, space};
use addr_space::{FaultKind, Signal};
use page_db::{Access, PAGE_SIZE, RefMod};

fn anon_maps(s: &Scene) -> usize {
    s.machine().anon().maps().len()
}

#[test]
fn b20_anonymous_memory_is_promised_when_mapped_and_made_when_touched() {
    let mut s = Scene::new();
    let before = reserved(&s);
    s.run("map 0 0 4 rw priv fixed anon");
    assert_eq!(reserved(&s), before + 4);
    assert_eq!((anon_maps(&s), s.machine().swap().live()), (0, 0));
    s.story(
        2,
        "
        read 0 0 0+1; expect ok b=00 | 0[a:1/rw- .] | f1 2B1 zf1
    ",
    );
    assert_eq!((anon_maps(&s), s.machine().swap().live()), (1, 1));
    assert_eq!(reserved(&s), before + 4, "touching promises nothing more");
    s.end();
}

#[test]
fn b21_memory_without_reservation_is_promised_page_by_page() {
    let mut s = Scene::new();
    let before = reserved(&s);
    let resv_pages = |s: &Scene| space(s, 0).state().resv_size() / PAGE_SIZE;
    s.run("map 0 0 1g rw priv fixed anon noreserve");
    assert_eq!((reserved(&s), resv_pages(&s)), (before, 0));
    s.run("write 0 7 0+1 1; write 0 100000 0+1 1; read 0 200000 0+1");
    assert_eq!((reserved(&s), resv_pages(&s)), (before + 3, 3));
    s.run("unmap 0 0 1g");
    assert_eq!((reserved(&s), resv_pages(&s)), (before, 0));
    s.end();
    // Nothing left to promise: the touch is refused.
    let mut s = Scene::on("machine memory=128 swap=mem:8");
    s.run("map 0 0 4096 rw priv fixed anon noreserve");
    let store = |s: &Scene, n| s.process(0).store(addr(n).get(), &[1]).map_err(|e| e.signal);
    let refused = (0..4096).find_map(|n| store(&s, n).err());
    assert_eq!(refused, Some(Signal::BusObjErr(page_db::errno::ENOMEM)));
    s.end();
}

#[test]
fn b22_a_private_file_mapping_is_promised_when_it_may_be_stored_to() {
    let mut s = scene("file 0 16384; map 0 0 4 r priv fixed file 0 0");
    assert_eq!(reserved(&s), 0);
    s.run("protect 0 0 4 rw; expect ok");
    assert_eq!(reserved(&s), 4);
    s.run("protect 0 0 4 r; expect ok");
    assert_eq!(reserved(&s), 0, "returned: no page was copied");
    s.run("protect 0 0 4 rw; write 0 0 0+1 1; protect 0 0 4 r");
    assert_eq!(reserved(&s), 4, "kept: there is an anon map now");
    s.end();
}

#[test]
fn b23_a_mapping_that_cannot_be_promised_is_not_made() {
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run("map 0 0 256m rw priv fixed anon; expect EAGAIN; read 0 0 0+1; expect SEGV at=0 code=maperr");
    assert_eq!(reserved(&s), 0);
    assert_eq!(s.process(0).space().state().size(), 0);
    s.run("map 0 0 256m rw priv fixed anon noreserve; expect ok");
    s.end();
}

#[test]
fn b24_a_private_store_leaves_the_files_page_as_it_was() {
    let mut s = scene(
        "file 0 4096; fork 0 1; map 0 0 1 rw priv fixed file 0 0; map 1 0 1 r shared fixed file 0 0; read 1 0 1",
    );
    s.run("read 0 0 1");
    let file = s.file_frame(0, 0).expect("cached");
    assert_eq!((s.rights(0, 0), s.mappers(file)), ("r--".into(), vec![(0, 0), (1, 0)]));
    s.run("write 0 0 0+1 65; expect counter cow_fault +1");
    let page = s.machine().db().page(s.page(file));
    assert!(
        !page.is_free() && !page.ref_mod().contains(page_db::RefMod::MOD),
        "resident, not modified"
    );
    assert_eq!(s.mappers(file), vec![(1, 0)], "its share count fell by one");
    s.run("write 0 0 0+1 66; expect counter cow_fault +0; read 1 0 0+1; expect ok b=00");
    s.end();
}

#[test]
fn b25_the_last_holder_of_an_anon_steals_it() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; write 0 1 0+1 66");
    s.story(
        2,
        "
        fork 0 1        | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]   |
        write 1 1 0+1 1 | 0[a:2/r-- b:1/r--] 1[a:2/- c:1/rw-] | f1 1B1 cp1
        write 0 1 0+1 2 | 0[a:2/r-- b:1/rw-] 1[a:2/- c:1/rw-] | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn b26_shared_memory_is_one_map_for_both_processes() {
    let mut s =
        scene("map 0 0 1 rw shared fixed anon; write 0 0 0+1 65; fork 0 1; write 1 0 0+1 66");
    s.run("read 0 0 0+1; expect ok b=42");
    let maps = s.machine().anon().maps();
    assert_eq!((maps.len(), maps[0].refs()), (1, 2));
    drop(maps);
    let bits = s.process(0).mincore(addr(0).get(), PAGE_SIZE).expect("mapped");
    assert_eq!(bits[0] & 0x21, 0x21, "in memory, and anonymous although shared: {:#x}", bits[0]);
    s.end();
}

#[test]
fn b27_a_page_under_io_stays_with_its_owner() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65");
    let parents = s.translation(0, 0);
    let pin =
        |s: &Scene, kind| space(s, 0).fault(s.machine().cx(), range(0, 1), kind, Access::Write);
    pin(&s, FaultKind::SoftLock).expect("mapped");
    s.story(
        1,
        "
        fork 0 1                     | 0[a:1/rw-] 1[b:1/-]   |
        read 1 0 0+1; expect ok b=41 | 0[a:1/rw-] 1[b:1/rw-] | f1 1A1
        write 0 0 0+1 66             | 0[a:1/rw-] 1[b:1/rw-] |
    ",
    );
    assert_eq!(s.translation(0, 0), parents, "the parent's translation stays");
    assert_ne!(s.frame(1, 0), s.frame(0, 0), "the child has another page");
    pin(&s, FaultKind::SoftUnlock).expect("it was locked");
    s.end();
}

#[test]
fn b28_pages_to_be_zeros_are_absent_in_the_child() {
    // Here they are absent in the child and made at its first touch; illumos makes them at the fork.
    let mut s = scene("map 0 0 3 rw priv fixed anon; write 0 0 3 65; advise 0 0 3 random");
    s.story(
        3,
        "
        advise 0 1 1 inherit_zero; expect ok | 0[a:1/rw- b:1/rw- c:1/rw-] |
        fork 0 1                             | 0[a:2/r-- b:1/r-- c:2/r--] 1[a:2/- . c:2/-] |
        read 1 1 0+1; expect ok b=00         | 0[a:2/r-- b:1/r-- c:2/r--] 1[a:2/- d:1/rw- c:2/-] | f1 2B1 zf1
        read 1 2 0+1; expect ok b=41         | 0[a:2/r-- b:1/r-- c:2/r--] 1[a:2/- d:1/rw- c:2/r--] | f1 1A1
    ",
    );
    s.run("map 0 8 1 rw shared fixed anon; advise 0 8 1 inherit_zero; expect EINVAL");
    s.run(
        "file 0 4096; map 0 9 1 rw priv fixed file 0 0; advise 0 9 1 inherit_zero; expect EINVAL",
    );
    device(&mut s, 12);
    s.run("advise 0 12 1 inherit_zero; expect ENOTSUP");
    s.end();
}

#[test]
fn b29_a_soft_lock_for_reading_breaks_copy_on_write() {
    // Only where the mapping may be stored to: a read-only one has promised nothing for copies.
    for (rights, access, copied) in
        [("rw", Access::Read, true), ("rw", Access::ReadNoCow, false), ("r", Access::Read, false)]
    {
        let s = scene(&format!("file 0 4096; map 0 0 1 {rights} priv fixed file 0 0"));
        let (space, cx) = (space(&s, 0), s.machine().cx());
        space.fault(cx, range(0, 1), FaultKind::SoftLock, access).expect("mapped");
        assert_eq!(s.anon(0, 0).is_some(), copied, "{rights} {access:?}");
        space.fault(cx, range(0, 1), FaultKind::SoftUnlock, access).expect("it was locked");
        s.end();
    }
}

#[test]
fn b30_a_soft_unlock_says_what_the_io_did() {
    let both = RefMod::REF | RefMod::MOD;
    for (access, left) in [(Access::Write, both), (Access::Other, RefMod::empty())] {
        let s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0");
        let (space, cx) = (space(&s, 0), s.machine().cx());
        space.fault(cx, range(0, 1), FaultKind::SoftLock, Access::Read).expect("mapped");
        page(&s, 0, 0).clear_ref_mod(both);
        space.fault(cx, range(0, 1), FaultKind::SoftUnlock, access).expect("it was locked");
        assert_eq!(page(&s, 0, 0).ref_mod(), left, "{access:?}");
        // What nobody locked is left alone, where illumos panics.
        let free = s.machine().db().freemem();
        let done = space.fault(cx, range(0, 1), FaultKind::SoftUnlock, Access::Write);
        assert_eq!((done, page(&s, 0, 0).ref_mod()), (Ok(()), left));
        assert_eq!(s.machine().db().freemem(), free);
        s.end();
    }
}

#[test]
fn b31_rights_are_kept_by_page() {
    let mut s =
        scene("map 0 0 3 rw priv fixed anon; write 0 0 1 65; write 0 1 1 66; write 0 2 1 67");
    s.run(
        "
        protect 0 1 1 -
        read 0 1 0+1; expect SEGV at=0 code=accerr
        read 0 0 0+1; expect ok b=41
        write 0 2 0+1 68; expect ok
    ",
    );
    assert_eq!([0, 1, 2].map(|p| s.rights(0, p)), ["rw-", "-", "rw-"]);
    let space = std::sync::Arc::clone(&s.process(0).space());
    let segs = space.segs(s.machine().cx());
    assert_eq!(segs.len(), 1);
    let seg = segs.iter().next().expect("one");
    let scx = space.seg_cx(s.machine().cx(), seg.range());
    let mut prots = Vec::new();
    seg.ops().prots(&scx, seg.range(), &mut |r, p| prots.push((r.pages().get(), p.to_string())));
    assert_eq!(prots, [(1, "rw-".into()), (1, "---".into()), (1, "rw-".into())]);
    drop(segs);
    s.run("protect 0 1 1 rw; read 0 1 0+1; expect ok b=42");
    s.end();
}

#[test]
fn b32_pages_behind_a_sequential_reader_are_reused_first() {
    let mut s =
        scene("file 0 400k; map 0 0 100 r shared fixed file 0 0; advise 0 0 100 sequential");
    let offered = |s: &Scene| {
        let free = |p: &u64| {
            s.file_frame(0, *p).is_some_and(|f| s.machine().db().page(s.page(f)).is_free())
        };
        (0..100).filter(free).collect::<Vec<_>>()
    };
    for page in 0..40 {
        s.run(&format!("read 0 {page} 0+1"));
    }
    let behind = offered(&s);
    assert_eq!(behind, (0..39).collect::<Vec<_>>(), "all but the page that is read");
    // The walk backwards stops at the first absent page.
    s.run("read 0 80 0+1");
    assert_eq!(offered(&s), behind, "page 79 is absent: nothing behind it is looked at");
    s.end();
    // However many there are, and up to a page that is advised otherwise.
    let mut s = scene("file 0 400k; map 0 0 100 r shared fixed file 0 0; read 0 0 98");
    s.run("advise 0 0 100 sequential; advise 0 4 1 normal; read 0 99 0+1");
    assert!(offered(&s).is_empty(), "page 98 is absent");
    s.run("read 0 98 0+1");
    assert_eq!(offered(&s), (5..98).collect::<Vec<_>>());
    s.end();
}

#[test]
fn b33_what_is_not_needed_goes_to_swap_and_what_is_free_may_go() {
    let mut s = scene("map 0 0 3 rw priv fixed anon; write 0 0 3 65");
    s.run("advise 0 0 1 dontneed; expect ok");
    let pushed = s.anon(0, 0).expect("the anon lives");
    assert!(pushed.on_swap && s.rights(0, 0) == "-", "{pushed:?}");
    s.run("read 0 0 0+1; expect ok b=41");
    // Free: on the cache list, clean, with nothing behind it; the anon lives.
    let anon = s.anon(0, 1).expect("stored to");
    s.run("advise 0 1 1 free; expect ok; expect counter MADV_FREE_hit +1");
    let page = s.machine().db().page(s.page(anon.frame.expect("resident")));
    assert!(page.is_free() && page.is_named() && page.ref_mod().is_empty());
    assert_eq!(s.anon(0, 1), Some(anon));
    s.run("read 0 1 0+1; expect ok b=41; expect counter pgrec +1");
    // Locked: untouched.
    s.run("lock 0 2 1; advise 0 2 1 free; expect ok; expect counter MADV_FREE_hit +0");
    s.run("advise 0 2 1 dontneed; expect EBUSY; read 0 2 0+1; expect counter as_fault +0");
    // Shared memory is nobody's alone to give up.
    s.run("map 0 12 1 rw shared fixed anon; write 0 12 1 65; advise 0 12 1 free; expect ok; expect counter MADV_FREE_hit +0");
    // The length is rounded down: nobody asks for the page that it ends in, but of less than a page for the page it is in.
    s.run("map 0 8 1 rw priv fixed anon; write 0 8 1 65");
    s.run("advise 0 8 1+1 free; expect ok; expect counter MADV_FREE_hit +1");
    s.run("advise 0 8 0+1 free; expect ok; advise 0 9 0+1 free; expect ENOMEM");
    s.end();
}

#[test]
fn b34_sync_writes_what_is_dirty_and_refuses_what_is_locked() {
    let mut s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0; read 0 0 1");
    s.run("sync 0 0 1 sync; expect ok; expect counter pgpgout +0");
    s.run("lock 0 0 1; sync 0 0 1 sync+inval; expect EBUSY; unlock 0 0 1");
    // The first error stops: what lies below the locked page is written and dropped, what lies above it stays.
    s.run("file 1 20480; map 0 8 5 rw shared fixed file 1 0; write 0 8 5 65; lock 0 10 1");
    s.run("sync 0 8 5 sync+inval; expect EBUSY; expect counter pgpgout +2");
    let bits = s.process(0).mincore(addr(8).get(), 5 * PAGE_SIZE).expect("mapped");
    assert_eq!(bits.iter().map(|b| b & 1).collect::<Vec<_>>(), [0, 0, 1, 1, 1]);
    s.run("unlock 0 10 1; sync 0 8 5 sync+inval; expect ok; expect counter pgpgout +3");
    s.run("map 0 16 3 rw priv fixed anon; write 0 16 3 66; lock 0 18 1");
    s.run("advise 0 16 3 dontneed; expect EBUSY; expect counter anonpgout +2; unlock 0 18 1");
    s.run("map 0 4 1 rw priv fixed anon; write 0 4 1 65");
    s.run("sync 0 4 1 sync; expect ok; expect counter anonpgout +1");
    let anon = s.anon(0, 4).expect("stored to");
    assert!(anon.on_swap, "an_pvp is set");
    let page = s.machine().db().page(s.page(anon.frame.expect("still resident")));
    assert!(!page.is_free() && !page.ref_mod().contains(RefMod::MOD), "clean");
    s.run("read 0 4 0+1; expect ok b=41; expect counter pgin +0");
    s.end();
}

#[test]
fn b35_mincore_has_a_bit_for_each_thing() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let byte = |s: &Scene, proc, page| {
        s.process(proc).mincore(addr(page).get(), PAGE_SIZE).expect("mapped")[0]
    };
    assert_eq!(byte(&s, 0, 0), 0x21, "an anon in memory, mapped writable");
    s.run("fork 0 1");
    assert_eq!(byte(&s, 1, 0), 0x01, "the child has not touched it");
    s.run("exit 1; write 0 0 1 66; lock 0 0 1; expect ok");
    assert_eq!(byte(&s, 0, 0), 0x27, "locked, by a private writable mapping");
    s.run("unlock 0 0 1; file 0 4096; map 0 4 1 r shared fixed file 0 0; read 0 4 1");
    assert_eq!(byte(&s, 0, 4), 0x51, "a file's page");
    s.run("lock 0 4 1");
    assert_eq!(byte(&s, 0, 4), 0x5b, "locked, not for copies");
    s.end();
}

#[test]
fn b36_two_processes_that_map_one_file_have_one_page() {
    let mut s =
        scene("file 0 4096; map 0 0 1 rw priv fixed file 0 0; fork 0 1; read 0 0 1; read 1 0 1");
    let file = s.file_frame(0, 0).expect("cached");
    let share = |s: &Scene| s.machine().db().share_count(s.machine().cx(), s.page(file));
    assert_eq!(share(&s), 2);
    s.run("write 0 0 0+1 1");
    assert_eq!(share(&s), 1);
    assert_ne!(s.frame(0, 0), Some(file));
    s.end();
}

#[test]
fn b37_an_unmapped_files_pages_wait_on_the_cache_list() {
    run_ok(
        "
        machine memory=256
        file 0 16384
        map 0 0 4 r shared fixed file 0 0; advise 0 0 4 random
        read 0 0 4; expect counter pgpgin +4
        unmap 0 0 4
        ::page 0
        map 0 8 4 r shared fixed file 0 0; advise 0 8 4 random
        read 0 8 4
        expect counter pgpgin +0
        expect counter pgrec +4
        expect counter pgfrec +4
        expect counter maj_fault +0
    ",
    );
}
