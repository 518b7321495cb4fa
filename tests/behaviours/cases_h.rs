//! H: break and stack.

use crate::Scene;
use page_db::PAGE_SIZE;
use segvm::machine::{Limit, STACK_GUARD, STACK_GUARD_LEAST, STACK_LIMIT, STACK_TOP};

scripts! {
    h02_rights_within_the_break: "brk 0 1; brk 0 3; expect ok; protect 0 b:2 1 r; expect ok; brk 0 5; expect ok; write 0 b:4 1 1; expect ok
        write 0 b:2 0+1 1; expect SEGV at=0 code=accerr; brk 0 0; expect ok; read 0 b:0 0+1; expect SEGV at=0 code=maperr";
    h05_the_limit_of_data: "setrlimit 0 data 8192; brk 0 2; expect ok; brk 0 2+1; expect ENOMEM; brk 0 1; expect ok; brk 0 2; expect ok
        brk 0 3; expect ENOMEM; setrlimit 0 data 4096; brk 0 1+9; expect ok; brk 0 1+10; expect ENOMEM
        personality 0 linux; brk 0 1+8; expect ENOMEM; brk 0 1; expect ok";
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

/// The guard lies below the limit the stack was made with. When the limit is raised the stack grows into it, until the least is left.
#[test]
fn h10_growing_into_the_guard() {
    let mut s = Scene::on("machine memory=512 swap=mem:32768");
    let touch = |s: &mut Scene, below: u64, answer: &str| {
        s.run(&format!("grow 0 {:#x}; expect {answer}", STACK_TOP - below));
    };
    touch(&mut s, PAGE_SIZE, "ok");
    let guard = |s: &Scene| s.process(0).stack_guard().map(|g| (g.start().get(), g.end()));
    let top = STACK_TOP - STACK_LIMIT;
    assert_eq!(guard(&s), Some((top - STACK_GUARD, top)));
    // It looks unmapped, and is given to nobody.
    s.run(&format!("read 0 {:#x} 0+1; expect SEGV at=0 code=maperr", top - PAGE_SIZE));
    s.run(&format!("protect 0 {:#x} 1 r; expect ENOMEM", top - PAGE_SIZE));
    s.run(&format!("map 0 {:#x} 1 rw priv noreplace anon; expect EEXIST", top - PAGE_SIZE));
    s.run(&format!("unmap 0 {:#x} 1; expect EINVAL", top - 2 * PAGE_SIZE));
    // A fixed mapping there meets what the unmap before it has left.
    s.run(&format!("map 0 {:#x} 1 rw priv fixed anon; expect ENOMEM", top - 2 * PAGE_SIZE));
    for how in ["share", "copy", "none", "zero"] {
        s.run(&format!("inherit 0 {:#x} 1 {how}; expect ENOMEM", top - PAGE_SIZE));
    }
    for how in ["inherit_zero", "inherit_copy", "dontfork"] {
        s.run(&format!("advise 0 {:#x} 1 {how}; expect ENOMEM", top - PAGE_SIZE));
    }
    s.run(&format!("memcntl 0 {:#x} 1 inherit_zero 0 all; expect ENOMEM", top - PAGE_SIZE));
    s.run(&format!("meminfo 0 {:#x} physical; expect ok n=0", top - PAGE_SIZE));
    let free = s.process(0).map_anon(PAGE_SIZE).expect("room");
    assert!(free < top - STACK_GUARD);
    touch(&mut s, STACK_LIMIT + PAGE_SIZE, "ENOMEM"); // over the limit
    let most = STACK_LIMIT + STACK_GUARD - STACK_GUARD_LEAST;
    s.process(0).set_limit(Limit::Stack, most + 2 * PAGE_SIZE);
    touch(&mut s, STACK_LIMIT + PAGE_SIZE, "ok");
    assert_eq!(guard(&s), Some((top - STACK_GUARD, top - PAGE_SIZE)));
    touch(&mut s, most + PAGE_SIZE, "ENOMEM");
    assert_eq!(s.process(0).stack().map(|r| r.len()), Some(STACK_LIMIT + PAGE_SIZE), "as it was");
    touch(&mut s, most, "ok");
    assert_eq!(guard(&s).map(|(start, end)| end - start), Some(STACK_GUARD_LEAST));
    s.run(&format!("write 0 {:#x} 0+1 1; expect SEGV at=0 code=maperr", STACK_TOP - most - 1));
    // A child has the same.
    s.run("fork 0 1");
    assert_eq!(s.process(1).stack_guard(), s.process(0).stack_guard());
    s.run(&format!("grow 1 {:#x}; expect ENOMEM", STACK_TOP - most - PAGE_SIZE));
    s.end();
}

/// What is mapped where the guard would be is left alone, and no stack grows over it; a stack that cannot grow leaves its guard as it was.
#[test]
fn a_stack_beside_a_mapping_and_without_swap() {
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    let top = STACK_TOP - STACK_LIMIT;
    s.run(&format!("map 0 {:#x} 1 r priv fixed anon noreserve", top - PAGE_SIZE));
    s.run(&format!("grow 0 {:#x}; expect ok", STACK_TOP - PAGE_SIZE));
    assert_eq!(s.process(0).stack_guard(), None);
    s.process(0).set_limit(Limit::Stack, 2 * STACK_LIMIT);
    s.run(&format!("grow 0 {:#x}; expect ENOMEM", top - PAGE_SIZE));
    s.end();
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run(&format!("grow 0 {:#x}; expect ok", STACK_TOP - PAGE_SIZE));
    let before = (s.process(0).stack_guard(), s.process(0).space().state().size());
    s.process(0).set_limit(Limit::Stack, 2 * STACK_LIMIT);
    s.run(&format!("grow 0 {:#x}; expect EAGAIN", top - PAGE_SIZE));
    assert_eq!((s.process(0).stack_guard(), s.process(0).space().state().size()), before);
    s.end();
}
