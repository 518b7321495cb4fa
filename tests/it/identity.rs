//! What memory is called by whoever keys a wait on it.

use crate::Scene;
use crate::harness::addr;
use addr_space::MemId;

fn id(s: &Scene, proc: u32, page: u64) -> MemId {
    s.process(proc).space().mem_id(s.machine().cx(), addr(page)).expect("mapped")
}

/// A slot gets another anon when a copy of it is given away; the memory is the same, for all who share it, wherever it is moved to.
#[test]
fn the_identity_of_shared_memory_is_not_that_of_its_pages() {
    let mut s = Scene::new();
    s.run("map 0 0 2 rw shared fixed anon; write 0 0 0+1 65; fork 0 1");
    let ids = [id(&s, 0, 0), id(&s, 0, 1)];
    assert_ne!(ids[0], ids[1]);
    let number = |s: &Scene| s.anon(0, 0).map(|a| a.number);
    let before = number(&s);
    s.run("inherit 0 0 1 copy; fork 0 2; write 0 0 0+1 66; read 2 0 0+1; expect ok b=41");
    assert_ne!(number(&s), before, "the slot has another anon");
    assert_eq!([id(&s, 0, 0), id(&s, 1, 0)], [ids[0]; 2]);
    assert_ne!(id(&s, 2, 0), ids[0], "a copy is other memory");
    s.run("remap 0 0 2 4 may+fixed 10; expect ok; protect 0 11 1 r; expect ok");
    assert_eq!([id(&s, 0, 10), id(&s, 0, 11)], ids, "moved, grown and cut");
    s.run("protect 0 11 1 rw; expect ok; share 0 10 2 1 20; expect ok");
    assert_eq!([id(&s, 0, 11), id(&s, 1, 20)], [ids[1], ids[0]], "joined again, and shown twice");
    s.end();
}

/// Private memory that several show for good is one memory: over nothing and over a file, stored to or not.
#[test]
fn private_memory_that_several_show_for_good_has_one_identity() {
    for what in ["anon", "file 0 0"] {
        let mut s = Scene::new();
        s.run(&format!("file 0 8192 rw; map 0 0 2 rw priv fixed {what}"));
        s.run("inherit 0 0 1 share; fork 0 1; share 0 0 1 0 8; expect ok");
        let one = id(&s, 0, 0);
        assert_eq!([id(&s, 1, 0), id(&s, 0, 8)], [one; 2], "{what}");
        assert_ne!(id(&s, 0, 1), id(&s, 1, 1), "{what}: a copy is other memory");
        s.run("write 1 0 0+1 65; read 0 8 0+1; expect ok b=41");
        assert_eq!([id(&s, 0, 0), id(&s, 1, 0), id(&s, 0, 8)], [one; 3], "{what}");
        s.end();
    }
}
