//! What a child does not get, what moves, and what is shown twice.

use super::{TWO, scene};
use crate::addr;
use page_db::PAGE_SIZE;
use segvm::machine::ARENA;

#[test]
fn u40_nothing_zeros_moved_and_shown_twice() {
    nothing_and_zeros();
    moved();
    shown_twice();
}

/// What is left out, and what becomes zeros.
fn nothing_and_zeros() {
    let mut s = scene(TWO);
    s.run("inherit 0 0 1 none; inherit 0 1 1 zero");
    s.story(
        2,
        "
        write 0 0 0+1 65; write 0 1 0+1 66                | 0[a:1/rw- b:1/rw-]            | f2 2B2 zf2
    ",
    );
    s.run("fork 0 1; read 1 0 0+1; expect SEGV at=0 code=maperr; read 1 1 0+1; expect ok b=00");
    s.run("read 0 1 0+1; expect ok b=42");
    assert_eq!((s.anon(0, 0).map(|a| a.refs), s.anon(0, 1).map(|a| a.refs)), (Some(1), Some(1)));
    // What is unmapped is forgotten.
    s.run("unmap 0 0 1; map 0 0 1 rw priv fixed anon; write 0 0 0+1 67; fork 0 2");
    s.run("read 2 0 0+1; expect ok b=43");
    s.end();
}

/// Pages stored to, moved: frames and references stay, nothing is copied, the old place is empty.
fn moved() {
    let mut s = scene(TWO);
    s.run("write 0 0 0+1 65; write 0 1 0+1 66; fork 0 1; write 1 1 0+1 67");
    let (anons, frames) = ([s.anon(0, 0), s.anon(0, 1)], [s.frame(0, 0), s.frame(0, 1)]);
    s.run("remap 0 0 2 2 may+fixed 8; expect ok; expect counter cow_fault +0; expect counter frame_allocs +0");
    assert_eq!([s.anon(0, 8), s.anon(0, 9)], anons);
    assert_eq!(
        [s.rights(0, 0), s.rights(0, 8)],
        ["-", "-"],
        "no translation is left, and none made"
    );
    s.run("read 0 0 0+1; expect SEGV at=0 code=maperr; read 0 1 0+1; expect SEGV at=0 code=maperr");
    s.run("read 0 8 0+1; expect ok b=41; read 0 9 0+1; expect ok b=42; expect counter cow_fault +0; expect counter pgin +0");
    assert_eq!([s.frame(0, 8), s.frame(0, 9)], frames);
    // The child's copy of what moved is where it was, and its own.
    s.run("write 0 8 0+1 90; read 1 0 0+1; expect ok b=41; read 1 1 0+1; expect ok b=43");
    s.end();
}

/// Two mappings of one map: what is stored through either is seen through both.
fn shown_twice() {
    let mut s = scene(TWO);
    s.run("write 0 0 0+1 65; fork 0 1");
    for into in [0, 1] {
        let shared = s.process(0).share_range(addr(0).get(), 2 * PAGE_SIZE, s.process(into));
        let at = shared.expect("there is room");
        let page = (at - ARENA) / PAGE_SIZE;
        assert_eq!(s.map_of(0, 0), s.map_of(into, page), "one map");
        assert!(s.map_of(0, 0).ends_with(":2"), "{}", s.map_of(0, 0));
        let copies = s.count("cow_fault");
        s.run(&format!("verify; write {into} {at:#x} 0+1 {}; read 0 0 0+1", 70 + into));
        s.run(&format!("read 0 0 0+1; expect ok b={:x}; write 0 1 0+1 80", 70 + into));
        s.run(&format!("read {into} {:#x} 0+1; expect ok b=50", at + PAGE_SIZE));
        assert_eq!(
            s.count("cow_fault") - copies,
            u64::from(into == 0),
            "the first alone meets a fork"
        );
        s.run(&format!("unmap {into} {at:#x} 2; expect ok"));
        assert!(s.map_of(0, 0).ends_with(":1"), "alone again: {}", s.map_of(0, 0));
        s.run("read 0 1 0+1; expect ok b=50; read 1 0 0+1; expect ok b=41");
    }
    s.end();
}
