//! Watchpoints: bytes whose touching is told of, and what goes on beside them.

use crate::harness::addr;
use crate::{Scene, run_ok};
use addr_space::WatchFlags;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

#[test]
fn a_store_stops_at_the_first_watched_byte_and_goes_on_beside_it() {
    let mut s =
        scene("map 0 0 2 rw priv fixed anon; write 0 0 2 1; watch 0 0+100 0+8 w; expect ok");
    assert_eq!(s.rights(0, 0), "r--", "the right is the translation's to lack");
    assert_eq!(s.rights(0, 1), "rw-");
    s.run(
        "read 0 0+100 0+8; expect ok b=65666768
         write 0 0+92 0+8 200; expect ok
         write 0 0+108 0+8 200; expect ok
         write 0 0+107 0+1 9; expect TRAP at=0 code=wwatch
         write 0 0+90 0+20 50; expect TRAP at=10 code=wwatch
         read 0 0+90 0+12; expect ok b=32333435363738393a3b6566
         write 0 0+4090 0+20 7; expect ok
         unwatch 0 0+100 0+8; expect ok
         write 0 0+100 0+8 9; expect ok",
    );
    assert_eq!(s.rights(0, 0), "rw-", "the next fault gives it back");
    s.end();
}

#[test]
fn a_load_or_a_fetch_is_told_of_where_nothing_is_mapped_any_more() {
    let mut s =
        scene("map 0 0 2 rwx priv fixed anon; write 0 0 2 1; watch 0 0+8 0+1 r; watch 0 1+8 0+1 x");
    assert_eq!((s.rights(0, 0), s.rights(0, 1)), ("-".into(), "-".into()));
    s.run(
        "read 0 0+0 0+8; expect ok b=0102030405060708
         read 0 0+0 0+9; expect TRAP at=8 code=rwatch
         read 0 0+9 0+2; expect ok b=0a0b
         write 0 0+8 0+1 77; expect ok
         read 0 1+0 0+16; expect ok
         fetch 0 1+8; expect TRAP at=0 code=xwatch
         write 0 1+8 0+1 78; expect ok
         unwatch 0 0+8 0+1; unwatch 0 1+8 0+1; read 0 0+8 0+1; expect ok b=4d; read 0 1+8 0+1; expect ok b=4e",
    );
    s.end();
}

#[test]
fn a_trap_after_the_access_finds_it_made() {
    run_ok(
        "map 0 0 1 rw priv fixed anon; watch 0 0+4 0+4 w+after
         write 0 0 0+12 1; expect TRAP at=8 code=wwatch
         read 0 0 0+12; expect ok b=010203040506070800000000",
    );
}

#[test]
fn what_the_mapping_does_not_allow_is_a_fault_whatever_is_watched() {
    run_ok(
        "map 0 0 1 r priv fixed anon; watch 0 0 4 rw; expect ok
         write 0 0+4 0+1 1; expect SEGV at=0 code=accerr
         read 0 2 0+1; expect SEGV at=0 code=maperr
         read 0 0 0+1; expect TRAP at=0 code=rwatch
         file 0 100; map 0 3 1 rw shared fixed file 0 0; truncate 0 0; read 0 3 0+1; expect TRAP at=0 code=rwatch
         unwatch 0 0 4; read 0 3 0+1; expect BUS at=0 code=objerr",
    );
}

#[test]
fn the_kernels_copies_stop_there_too() {
    run_ok(
        "file 0 8192; pwrite 0 0 8192 1; map 0 0 2 rw priv fixed anon; watch 0 0+50 0+1 w
         fread 0 0 0 0 0+40; expect ok n=40
         fread 0 0 0 0 0+60; expect EFAULT
         read 0 0+48 0+3; expect ok b=313200
         fwrite 0 0 0 0 0+60; expect ok n=60
         watch 0 1 1 r; fwrite 0 0 0 0+4000 0+200; expect EFAULT",
    );
}

#[test]
fn a_watch_is_on_addresses_and_the_rights_of_pages_are_their_own() {
    // The segments know nothing of it: rights change, memory comes and goes, the watch stays.
    let mut s = scene(
        "watch 0 1 1 w; expect ok; map 0 0 3 rw priv fixed anon; write 0 0 1 1; write 0 2 1 1",
    );
    s.run("write 0 1 1 1; expect TRAP at=0; protect 0 0 3 r; write 0 1 1 1; expect SEGV code=accerr; protect 0 0 3 rw");
    assert!(
        s.run("::pmap 0").contains("rw---"),
        "one segment of three pages, with the rights it was given"
    );
    assert_eq!(s.run("::seg 0").matches("seg_vn").count(), 1);
    s.run(
        "write 0 1 0+1 1; expect TRAP at=0; unmap 0 1 1; write 0 1 0+1 1; expect SEGV code=maperr",
    );
    s.run("map 0 1 1 rw shared fixed anon; write 0 1 0+1 1; expect TRAP at=0; read 0 1 0+1; expect ok b=00");
    s.run(
        "lock 0 0 3; expect ok; unlock 0 0 3; expect ok; unwatch 0 1 1; write 0 1 0+1 1; expect ok",
    );
    s.end();
}

#[test]
fn a_store_beside_watched_bytes_breaks_copy_on_write() {
    let mut s =
        scene("map 0 0 1 rw priv fixed anon; write 0 0 0+16 65; watch 0 0+8 0+1 w; fork 0 1");
    // The fault before the move makes the copy, the move finds it.
    s.story(
        1,
        "
        write 0 0+8 0+1 97; expect TRAP at=0 | 0[a:2/r--] 1[a:2/-] |
        write 0 0+0 0+1 97; expect ok        | 0[b:1/r--] 1[a:1/-] | f1 1A1 1B1 cp1
    ",
    );
    s.run("read 1 0 0+3; expect ok b=414243; read 0 0 0+3; expect ok b=614243; write 1 0+8 0+1 98; expect ok; read 0 0+8 0+1; expect ok b=49");
    s.end();
}

#[test]
fn a_child_and_a_program_are_not_watched() {
    run_ok(
        "map 0 0 1 rw priv fixed anon; write 0 0 1 1; watch 0 0 1 rw; fork 0 1
         write 1 0 0+4 5; expect ok; write 0 0 0+4 5; expect TRAP; exit 1; write 0 0 0+4 5; expect TRAP",
    );
}

#[test]
fn pages_come_and_go_under_a_watch() {
    let mut s = Scene::on("machine memory=512 swap=mem:64");
    s.run("map 0 0 8 rw priv fixed anon; write 0 0 8 1; watch 0 0+10 8 w; pageout *; write 0 4+20 0+4 1; expect TRAP at=0");
    s.run("read 0 4+20 0+4; expect ok b=15161718; pageout *; write 0 8+11 0+1 1; expect SEGV code=maperr; write 0 0+2 0+8 9; expect ok");
    s.run("pageout *; read 0 0+2 0+8; expect ok b=090a0b0c0d0e0f10");
    s.end();
}

#[test]
fn what_cannot_be_watched() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; watch 0 0+10 0+10 w; expect ok
         watch 0 0+10 0 w; expect EINVAL
         watch 0 0+19 0+1 w; expect EINVAL
         watch 0 0+1 0+10 w; expect EINVAL
         watch 0 0+10 0+10 rx; expect ok
         watch 0 0 @max w; expect EINVAL
         watch 0 0 @wrap w; expect EINVAL
         watch 0 @kern 1 w; expect EINVAL
         watch 0 0x8000_0000_0000 1 w; expect EINVAL
         unwatch 0 0+10 0+9; expect ESRCH
         unwatch 0 0+11 0+9; expect ESRCH
         unwatch 0 1 0; expect EINVAL
         unwatch 0 0+10 0+10; expect ok
         unwatch 0 0+10 0+10; expect ESRCH",
    );
}

#[test]
fn a_watched_terabyte_costs_what_a_byte_does() {
    let s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 1");
    let costs =
        || -> u64 { ["tree_nodes", "pte_reads", "pte_writes"].map(|c| s.count(c)).iter().sum() };
    let (p, at) = (s.process(0), addr(0).get());
    let of = |len: u64| {
        let before = costs();
        p.watch(at, len, WatchFlags::WRITE).expect("a range of the user's");
        p.store(at, &[1]).expect_err("watched");
        p.unwatch(at, len).expect("it is there");
        p.store(at, &[1]).expect("not any more");
        costs() - before
    };
    let [byte, one, sixteen] = [1, 1 << 40, 16 << 40].map(of);
    // The tables above the one page are looked through once when it is set and once when it is taken back, and the page is mapped anew.
    assert!(byte < 16 && one < 32 + 2 * 512 && sixteen < one + 64, "{byte} {one} {sixteen}");
    s.end();
}
