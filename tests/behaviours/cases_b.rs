//! B: protection.

use crate::{Scene, page, reserved, scene, shape};

scripts! {
    b01_no_access: "map 0 0 1 - priv fixed anon; read 0 0 0+1; expect SEGV at=0 code=accerr
        write 0 0 0+1 1; expect SEGV at=0 code=accerr";
    b02_no_stores: "map 0 0 1 r priv fixed anon; write 0 0 0+1 1; expect SEGV at=0 code=accerr";
    b04_from_none_to_all: "map 0 0 1 - priv fixed anon; protect 0 0 1 rw; expect ok; write 0 0 1 1; expect ok";
    b05_a_translation_that_was_there: "map 0 0 1 rw priv fixed anon; write 0 0 1 1; protect 0 0 1 r; expect ok
        write 0 0 0+1 2; expect SEGV at=0 code=accerr; read 0 0 0+1; expect ok b=01";
    b07_nothing_there: "read 0 0 0+1; expect SEGV at=0 code=maperr";
    b08_not_on_a_page: "map 0 0 1 rw priv fixed anon; protect 0 0+1 1 r; expect EINVAL; write 0 0 1 1; expect ok";
    b10_of_nothing: "protect 0 0 1 r; expect ENOMEM";
    b11_above_the_descriptor: "file 0 4096 ro; map 0 0 1 r shared fixed file 0 0; protect 0 0 1 rw; expect EACCES
        write 0 0 0+1 1; expect SEGV at=0 code=accerr";
    b13_an_unknown_right: "file 0 4096; map 0 0 1 rw priv fixed anon; protect 0 0 1 bad; expect ENOTSUP
        map 0 1 1 bad priv fixed anon; expect ENOTSUP; map 0 1 1 bad priv hint file 0 0; expect EACCES";
    b16_over_a_hole: "map 0 0 1 rw priv fixed anon; map 0 2 1 rw priv fixed anon; protect 0 0 3 r; expect ENOMEM
        write 0 0 0+1 1; expect SEGV at=0 code=accerr; write 0 2 0+1 1; expect ok";
    b17_of_no_length: "map 0 0 1 rw priv fixed anon; protect 0 0 0 r; expect EINVAL";
    b22_contents_are_there: "file 0 4096; pwrite 0 0 4 65; map 0 0 1 r priv fixed file 0 0
        map 0 1 1 x priv fixed file 0 0; read 0 0 0+4; expect ok b=41424344; fetch 0 1; expect ok b=41424344";
    b23_the_page_after_the_range: "map 0 0 3 rw priv fixed anon; write 0 0 3 1; protect 0 0 1+1 r; expect ok
        write 0 2 0+1 9; expect ok; write 0 1 0+1 9; expect SEGV at=0 code=accerr";
}

#[test]
fn b14_three_changes_leave_one_right() {
    let mut s = scene("map 0 0 5 rw priv fixed anon; write 0 0 5 65; protect 0 0 5 r");
    s.run("protect 0 1 1 x; expect ok; protect 0 3 1 w; expect ok; protect 0 1 4 r; expect ok");
    for page in 0..5 {
        s.run(&format!("write 0 {page} 0+1 1; expect SEGV at=0 code=accerr"));
        s.run(&format!("fetch 0 {page}; expect SEGV; read 0 {page} 0+1; expect ok b=41"));
    }
    assert_eq!(shape(&s, 0), (1, 5));
    s.end();
}

#[test]
fn b19_the_claim_of_a_locked_page_follows_its_rights() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65; lock 0 0 1");
    let claims = |s: &Scene| {
        let frame = s.anon(0, 0).and_then(|a| a.frame).expect("locked in memory");
        let page = s.machine().db().page(s.page(frame));
        (page.lckcnt(), page.cowcnt())
    };
    assert_eq!(claims(&s), (0, 1));
    s.run("protect 0 0 1 r; expect ok");
    assert_eq!(claims(&s), (1, 0));
    s.run("protect 0 0 1 rw; expect ok; write 0 0 1 66");
    assert_eq!((claims(&s), page(&s, 0, 0).is_claimed()), ((0, 1), true));
    s.end();
}

#[test]
fn b20_without_swap_rights_stay_as_they_are() {
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run("file 0 0x10000000; map 0 0 0x10000000 r priv fixed file 0 0");
    s.run(
        "protect 0 0 0x10000000 rw; expect EAGAIN; write 0 0 0+1 1; expect SEGV at=0 code=accerr",
    );
    assert_eq!(reserved(&s), 0);
    s.end();
}
