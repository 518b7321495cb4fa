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
