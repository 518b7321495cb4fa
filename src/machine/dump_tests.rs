//! What the dump shows, and what it must not.

use crate::Machine;
use crate::machine::{ForkPolicy, MapFlags, MapRequest, Process};
use page_db::PAGE_SIZE;

const AT: u64 = 0x1000_0000_0000;

fn mapped(p: &Process, at: u64, pages: u64) {
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let len = pages * PAGE_SIZE;
    let request = MapRequest { addr: at, len, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&request).unwrap();
}

fn world(fork: ForkPolicy) -> (Machine, Process, Process) {
    let m = Machine::builder().frames(256).fork(fork).build().unwrap();
    let p = m.spawn("p").unwrap();
    mapped(&p, AT, 4);
    p.store(AT, b"one").unwrap();
    p.store(AT + PAGE_SIZE, &[0]).unwrap();
    let child = p.fork().unwrap();
    (m, p, child)
}

#[test]
fn page_out_and_the_fork_policy_do_not_show() {
    let worlds = [ForkPolicy::Eager, ForkPolicy::Lazy].map(world);
    let dumps = worlds.each_ref().map(|(m, ..)| m.dump());
    assert_eq!(dumps[0].visible(), dumps[1].visible());
    assert_ne!(dumps[0].hidden(), dumps[1].hidden());
    for ((m, p, _), before) in worlds.iter().zip(&dumps) {
        m.pageout_all();
        assert_eq!(before.visible(), m.dump().visible());
        assert_ne!(before.hidden(), m.dump().hidden());
        let out = m.dump();
        assert_eq!(out, m.dump(), "looking changes nothing");
        p.load_u8(AT).unwrap();
        assert_eq!(before.visible(), m.dump().visible());
        m.verify().unwrap();
    }
}

#[test]
fn numbers_that_were_used_up_do_not_show() {
    let (m, p, _child) = world(ForkPolicy::Eager);
    let before = m.dump();
    mapped(&p, AT + 64 * PAGE_SIZE, 4);
    p.store(AT + 64 * PAGE_SIZE, b"x").unwrap();
    assert_ne!(before.visible(), m.dump().visible());
    p.munmap(AT + 64 * PAGE_SIZE, 4 * PAGE_SIZE).unwrap();
    assert_eq!(before.visible(), m.dump().visible());
}

/// One line of each kind, read by eye.
#[test]
fn a_world_as_text() {
    let (m, p, _child) = world(ForkPolicy::Eager);
    p.mlock(AT, PAGE_SIZE).unwrap();
    p.mprotect(AT + 3 * PAGE_SIZE, PAGE_SIZE, 1).unwrap();
    let mut settings = insta::Settings::clone_current();
    settings.set_description(
        "page 1 was stored to, zeros: it looks untouched; page 0 is shared with the child",
    );
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(m.dump().visible().join("\n")));
}
