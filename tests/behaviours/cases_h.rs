//! H: break and stack.

use crate::Scene;
use page_db::PAGE_SIZE;
use segvm::machine::{Limit, STACK_TOP};

scripts! {
    h02_rights_within_the_break: "brk 0 1; brk 0 3; expect ok; protect 0 b:2 1 r; expect ok; brk 0 5; expect ok; write 0 b:4 1 1; expect ok
        write 0 b:2 0+1 1; expect SEGV at=0 code=accerr; brk 0 0; expect ok; read 0 b:0 0+1; expect SEGV at=0 code=maperr";
    h05_the_limit_of_data: "setrlimit 0 data 8192; brk 0 2; expect ok; brk 0 2+1; expect ENOMEM; brk 0 1; expect ok; brk 0 2; expect ok
        brk 0 3; expect ENOMEM";
    h07_what_comes_back_is_zeros: "brk 0 2; write 0 b:0 2 65; brk 0 1; brk 0 2; read 0 b:1 0+2; expect ok b=0000; read 0 b:0 0+1; expect ok b=41";
    h13_a_hole_in_the_childs_break: "brk 0 3; write 0 b:0 3 65; advise 0 b:1 1 dontfork; fork 0 1; brk 1 4; brk 1 1; expect ok; brk 1 0; expect ok
        read 0 b:2 0+1; expect ok b=41";
}

#[test]
fn h01_up_and_down_thirty_three_times() {
    let mut s = Scene::new();
    let (base, _) = s.process(0).heap();
    let mut at = 0;
    for round in 0..33u64 {
        at = match round % 3 {
            0 => at + 2 * PAGE_SIZE - 1,
            1 => at,
            _ => at - (2 * PAGE_SIZE - 1),
        };
        s.run(&format!("brk 0 0+{at}; expect ok"));
        assert_eq!(s.process(0).heap().1, base + at, "round {round}");
        if at != 0 {
            s.run(&format!("write 0 b:0+{} 0+1 7; expect ok", at - 1));
        }
    }
    s.end();
}

#[test]
fn h04_a_sum_that_overflows() {
    let s = Scene::new();
    let before = s.process(0).heap();
    assert_eq!(s.process(0).brk(u64::MAX).map_err(|e| e.errno), Err(page_db::errno::ENOMEM));
    assert_eq!(s.process(0).heap(), before);
    s.end();
}

#[test]
fn h08_the_stack_grows_to_a_touch_below() {
    let mut s = Scene::new();
    s.run(&format!("grow 0 {:#x}; expect ok", STACK_TOP - PAGE_SIZE));
    s.run(&format!("write 0 {:#x} 0+1 1; expect ok", STACK_TOP - 5 * PAGE_SIZE));
    assert_eq!(s.process(0).stack().map(|r| r.pages().get()), Some(5));
    s.process(0).set_limit(Limit::Stack, 6 * PAGE_SIZE);
    s.run(&format!("write 0 {:#x} 0+1 1; expect SEGV at=0 code=maperr", STACK_TOP - 7 * PAGE_SIZE));
    s.end();
}

#[test]
fn h11_without_swap_the_stack_stays_as_it_was() {
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run(&format!("grow 0 {:#x}; expect ok; write 0 {0:#x} 0+1 65", STACK_TOP - PAGE_SIZE));
    let info = s.machine().swap().info();
    let left = info.max + info.avail_mem - info.reserved();
    let mut pages = left;
    while !s.run(&format!("map 0 0 {pages} rw priv fixed anon")).contains("-> ok") {
        pages -= 1;
    }
    let room = left - pages + 2;
    s.run(&format!("write 0 {:#x} 0+1 1; expect SEGV at=0", STACK_TOP - (room + 1) * PAGE_SIZE));
    assert_eq!(s.process(0).stack().map(|r| r.pages().get()), Some(1));
    s.run(&format!("read 0 {:#x} 0+1; expect ok b=41", STACK_TOP - PAGE_SIZE));
    s.end();
}
