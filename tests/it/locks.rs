//! What is locked in memory where answers differ from illumos's, or illumos has none.

use crate::Scene;
use crate::harness::addr;
use page_db::PAGE_SIZE;

/// For each of the `pages` from `first` on, whether the mapping has it locked.
fn locked(s: &Scene, first: u64, pages: u64) -> Vec<u8> {
    let one = |page| s.process(0).mincore(addr(page).get(), PAGE_SIZE).map_or(0, |b| b[0] >> 1 & 1);
    (first..first + pages).map(one).collect()
}

/// The file is cut to a page; private copies above its end stay, with gaps between them.
#[test]
fn a_lock_goes_on_past_the_end_of_a_file() {
    let mut s = Scene::new();
    s.run("file 0 20480; map 0 0 5 rw priv fixed file 0 0; write 0 1 1 65; write 0 3 1 66");
    s.run("truncate 0 4096; lock 0 0 5; expect ok");
    assert_eq!(locked(&s, 0, 5), [1, 1, 0, 1, 0]);
    s.end();
}

/// The place that a mapping has left, and what came to lie there, is mapped anew: nothing of it is locked, whatever future memory is to be.
#[test]
fn what_a_move_leaves_behind_is_not_locked() {
    let mut s = Scene::new();
    s.run("lockall 0 future; map 0 0 2 rw priv fixed anon; expect ok");
    assert_eq!(locked(&s, 0, 2), [1, 1]);
    s.run("remap 0 0 2 2 may+fixed+dontunmap 10; expect ok");
    assert_eq!((locked(&s, 0, 2), locked(&s, 10, 2)), (vec![0, 0], vec![1, 1]));
    s.end();
}

/// The file is cut below a page that is locked, and grows again when another shows the page as well: what truncation has left nothing of is not locked any
/// more, since whoever stores there first may be the other. What there is to lock stays locked.
#[test]
fn a_lock_that_truncation_ended_is_not_handed_on_to_sharers() {
    let share = |to: &str| match to {
        "shown twice" => ("share 0 0 2 0 8; expect ok", 0, 9),
        _ => ("inherit 0 0 2 share; fork 0 1", 1, 1),
    };
    for to in ["shown twice", "inherited"] {
        let (share, who, page) = share(to);
        let mut s = Scene::new();
        s.run(
            "file 0 8192 rw; map 0 0 2 rw priv fixed file 0 0; lock 0 0 2; truncate 0 4096; verify",
        );
        assert_eq!(locked(&s, 0, 2), [1, 1], "{to}");
        s.run(&format!("{share}; verify"));
        assert_eq!(locked(&s, 0, 2), [1, 0], "{to}");
        s.run(&format!("truncate 0 8192; verify; write {who} {page} 0+1 62; verify"));
        s.run("read 0 1 0+1; expect ok b=3e; lock 0 0 2; expect ok; verify");
        assert_eq!(locked(&s, 0, 2), [1, 1], "{to}");
        s.run("unlock 0 0 2; expect ok");
        s.end();
    }
}
