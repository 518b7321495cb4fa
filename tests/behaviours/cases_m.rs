//! M: containers and the MMU.

use crate::{Scene, scene, shape};

scripts! {
    m13_the_same_access_again_after_a_change: "machine cpus=2; map 0 0 1 rw priv fixed anon; write 0 0 1 1 cpu=1; protect 0 0 1 r; write 0 0 0+1 2 cpu=1
        expect SEGV at=0 code=accerr; protect 0 0 1 rw; write 0 0 0+1 2 cpu=1; expect ok; unmap 0 0 1; read 0 0 0+1 cpu=1; expect SEGV at=0 code=maperr";
    m14_two_pages_across_a_border: "map 0 0x7ffffff000 2 rw priv fixed anon; write 0 0x7ffffff000 2 65; expect ok
        read 0 0x7ffffffffe 0+4; expect ok b=3f404142; unmap 0 0x7ffffff000 1; read 0 0x8000000000 0+1; expect ok b=41";
}

#[test]
fn m01_filled_changed_grown_shrunk() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; map 0 2 1 rw priv fixed anon");
    for (does, segs, pages) in [
        ("map 0 1 1 rw priv fixed anon", 1, 3),
        ("protect 0 1 1 r", 1, 3),
        ("map 0 3 2 rw priv fixed anon", 1, 5),
        ("unmap 0 4 1", 1, 4),
        ("unmap 0 0 1", 1, 3),
    ] {
        s.run(does);
        // Rights are kept by page: a change in the middle splits nothing.
        assert_eq!(shape(&s, 0), (segs, pages), "after {does}");
    }
    s.end();
}

#[test]
fn m02_a_new_range_beside_every_kind_of_neighbour() {
    for (before, after) in
        [("-", "-"), ("rw", "-"), ("-", "rw"), ("rw", "rw"), ("r", "rw"), ("rw", "r"), ("r", "r")]
    {
        let mut s = Scene::new();
        for (rights, at) in [(before, 0), (after, 2)] {
            if rights != "-" {
                s.run(&format!("map 0 {at} 1 {rights} priv fixed anon"));
            }
        }
        s.run("map 0 1 1 rw priv fixed anon");
        let kinds = [before, "rw", after];
        let there: Vec<_> = kinds.into_iter().filter(|k| *k != "-").collect();
        let runs = 1 + there.windows(2).filter(|w| w[0] != w[1]).count();
        assert_eq!(shape(&s, 0), (runs, there.len() as u64), "{before} {after}");
        s.end();
    }
}

#[test]
fn m05_neighbours_with_different_anons() {
    let mut s = scene(
        "map 0 0 1 rw priv fixed anon; write 0 0 1 65; map 0 2 1 rw priv fixed anon; write 0 2 1 67; map 0 1 1 rw priv fixed anon",
    );
    assert_eq!(shape(&s, 0), (2, 3), "joined with one side only");
    s.run("write 0 1 1 66; read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=42; read 0 2 0+1; expect ok b=43");
    s.end();
}

#[test]
fn m07_random_maps_are_those_of_a_plain_array() {
    let (mut s, mut plain, mut seed) = (Scene::new(), [0u8; 64], 99u64);
    let rights = ["r", "rw", "rx"];
    for _ in 0..120 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (at, len, kind) = ((seed >> 33) % 60, 1 + (seed >> 45) % 4, (seed >> 60) % 4);
        match kind {
            0 => s.run(&format!("unmap 0 {at} {len}")),
            k => s.run(&format!("map 0 {at} {len} {} priv fixed anon", rights[k as usize - 1])),
        };
        plain[at as usize..(at + len) as usize].fill(kind as u8);
    }
    for (page, kind) in plain.into_iter().enumerate() {
        let (load, store) = match kind {
            0 => ("SEGV at=0 code=maperr", "SEGV at=0 code=maperr"),
            2 => ("ok", "ok"),
            _ => ("ok", "SEGV at=0 code=accerr"),
        };
        s.run(&format!("read 0 {page} 0+1; expect {load}; write 0 {page} 0+1 1; expect {store}"));
    }
    s.end();
}

#[test]
fn m10_borders_of_tables() {
    // 2 MiB borders: 512 pages; the arena begins at one.
    let mut s =
        scene("map 0 510 4 rw priv fixed anon; write 0 510 4 65; protect 0 511 2 r; expect ok");
    assert_eq!([510, 511, 512, 513].map(|p| s.rights(0, p)), ["rw-", "r--", "r--", "rw-"]);
    s.run("protect 0 510 4 rw; map 0 1022 4 rw priv fixed anon; protect 0 1022 4 r; expect ok; read 0 1024 1; expect ok; unmap 0 511 2; read 0 513 0+1; expect ok b=41");
    s.end();
}
