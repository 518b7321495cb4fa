//! M: containers and the MMU.

use crate::{Scene, device, range, scene, shape, space};
use page_db::{PAGE_SIZE, Prot, VirtRange};
use segvm::machine::{MapFlags, MapRequest};

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

#[test]
fn m04_a_neighbour_with_an_end_of_its_own_is_never_taken_over() {
    // A driver that does not merge stays a segment, and the new one grows on its other side.
    let mut s = scene("map 0 0 1 rw shared fixed anon");
    device(&mut s, 1);
    s.run("map 0 2 1 rw priv fixed anon; map 0 3 1 rw priv fixed anon");
    assert_eq!(shape(&s, 0), (3, 4), "2 and 3 are one");
    let driver = |page| {
        let (space, cx) = (space(&s, 0), s.machine().cx());
        let segs = space.segs(cx);
        segs.seg_at(cx, crate::addr(page)).map(|seg| (seg.driver(), seg.range()))
    };
    assert_eq!(driver(1), Some(("seg_dev", range(1, 1))));
    s.run("unmap 0 2 2; map 0 2 1 rw priv fixed anon; unmap 0 0 1; map 0 0 1 rw priv fixed anon");
    assert_eq!(shape(&s, 0), (3, 3));
    // A file is told of each page that is mapped no more, once, however its segments were merged and cut.
    s.run("file 0 65536; map 0 8 2 r shared fixed file 0 0; map 0 10 2 r shared fixed file 0 2");
    assert_eq!((shape(&s, 0), s.file(0).mapped_pages()), ((4, 7), 4));
    for (cut, left) in [("9 1", 3), ("11 1", 2), ("8 4", 0)] {
        s.run(&format!("unmap 0 {cut}"));
        assert_eq!(s.file(0).mapped_pages(), left);
    }
    s.run("unmap 0 1 1");
    s.end();
}

/// What a program of this host (CPython 3, three threads, without its site packages) asked for above its heap, as `strace` saw it: `m` maps, `u` unmaps,
/// `p` protects; page, pages, rights.
const RECORDED: &str = include_str!("recorded.txt");

#[test]
fn m08_what_a_real_program_does_leaves_what_a_plain_array_has() {
    let s = Scene::on("machine memory=1024");
    let base = 0x7e00_0000_0000;
    let (p, mut plain, mut most) = (s.process(0), vec![None; 40_000], 0);
    for line in RECORDED.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let number = |i: usize| words[i].parse::<u64>().expect("a number");
        let (first, pages) = (number(1), number(2));
        let rights = words.get(3).copied().unwrap_or_default();
        let has = |letter, bit| if rights.contains(letter) { bit } else { Prot::empty() };
        let prot = has('r', Prot::READ) | has('w', Prot::WRITE) | has('x', Prot::EXEC);
        let (addr, len) = (base + first * PAGE_SIZE, pages * PAGE_SIZE);
        let now = match words[0] {
            "m" => {
                let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
                let prot = u32::from(prot.bits());
                let request = MapRequest { addr, len, prot, flags, file: None, offset: 0 };
                assert_eq!(p.mmap(&request).map_err(|e| e.errno), Ok(addr), "{line}");
                Some(prot)
            }
            "p" => {
                p.mprotect(addr, len, u32::from(prot.bits())).expect("mapped");
                Some(u32::from(prot.bits()))
            }
            _ => {
                p.munmap(addr, len).expect("a range");
                None
            }
        };
        plain[first as usize..(first + pages) as usize].fill(now);
        let (space, cx) = (space(&s, 0), s.machine().cx());
        let (segs, mut seen) = (space.segs(cx), vec![None; plain.len()]);
        most = most.max(segs.len());
        for seg in segs.iter() {
            let scx = space.seg_cx(cx, seg.range());
            seg.ops().prots(&scx, seg.range(), &mut |run: VirtRange, prot| {
                let from = ((run.start().get() - base) / PAGE_SIZE) as usize;
                seen[from..from + run.pages().get() as usize].fill(Some(u32::from(prot.bits())));
            });
        }
        assert!(seen == plain, "after {line}");
        drop(segs);
        s.machine().verify().expect("sound");
    }
    assert!(most >= 10, "{most} segments at most");
    s.end();
}

#[test]
fn m11_no_page_is_large() {
    use addr_space::{AsError, SegError};
    let mut s = scene(
        "map 0 0 1024 rw priv fixed anon; write 0 0 2 65; file 0 4096; map 0 2000 1 r shared fixed file 0 0",
    );
    for (page, pages) in [(0, 1024), (2000, 1)] {
        let prefer = |code| space(&s, 0).set_page_size(s.machine().cx(), range(page, pages), code);
        assert_eq!(prefer(0), Ok(()), "the one size");
        for code in [1, 2, u8::MAX] {
            let refused = prefer(code).expect_err("no other");
            assert_eq!(refused.errno(), page_db::errno::EINVAL);
            let driver = "seg_vn";
            assert!(
                matches!(&refused, AsError::Seg(SegError::Invalid { driver: d, .. }) if *d == driver),
                "{refused}"
            );
        }
    }
    s.run("read 0 0 0+1; expect ok b=41");
    assert_eq!(shape(&s, 0), (2, 1025), "nothing was cut");
    s.end();
}
