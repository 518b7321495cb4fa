//! K: memory and swap under pressure.

use crate::{Scene, range, reserved, space};
use addr_space::FaultKind;
use page_db::{Access, Reserve};

#[test]
fn k01_more_than_free_swap() {
    let mut s = Scene::on("machine memory=256 swap=mem:8");
    s.run("map 0 0 256m rw priv fixed anon; expect EAGAIN; map 0 0 256m rw priv fixed anon noreserve; expect ok");
    s.end();
}

/// Stores to pages of an unpromised mapping until one fails; how many went.
fn fill(s: &mut Scene) -> u64 {
    s.run("map 0 0 4096 rw priv fixed anon noreserve");
    (0..4096).find(|p| !s.run(&format!("write 0 {p} 0+1 1")).contains("-> ok")).expect("it ends")
}

#[test]
fn k02_none_left_at_the_fault() {
    let mut s = Scene::on("machine memory=128 swap=mem:8");
    let n = fill(&mut s);
    let before = (reserved(&s), s.machine().swap().live());
    s.run(&format!("write 0 {n} 0+1 1; expect BUS at=0"));
    assert_eq!((reserved(&s), s.machine().swap().live()), before, "nothing leaks");
    s.run("unmap 0 0 4096");
    assert_eq!(reserved(&s), 0);
    s.end();
}

#[test]
fn k04_a_fork_without_swap_for_the_child() {
    // illumos's fork makes ENOMEM of the EAGAIN that segvn_dup gives.
    let mut s = Scene::on("machine memory=128 swap=mem:8");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65");
    let n = {
        let info = s.machine().swap().info();
        info.max + info.avail_mem
    };
    let mut pages = n;
    while !s.run(&format!("map 0 8 {pages} rw priv fixed anon")).contains("-> ok") {
        pages -= 1;
    }
    let before = (s.state(2), reserved(&s));
    s.run("fork 0 1; expect ENOMEM; write 0 0 2 66; expect counter cow_fault +0");
    assert_eq!((s.state(2), reserved(&s)), before);
    s.end();
}

#[test]
fn k05_after_the_end_nothing_is_promised() {
    let mut s = Scene::new();
    s.run("map 0 0 64 rw priv fixed anon; write 0 0 32 1; fork 0 1; write 1 0 64 2; map 1 100 9 rw shared fixed anon; exit 0; exit 1");
    assert_eq!((reserved(&s), s.machine().swap().live()), (0, 0));
    s.machine().verify().expect("sound");
}

#[test]
fn k07_no_place_for_a_dirty_page() {
    let mut s = Scene::on("machine memory=256 swap=mem:1");
    s.run("map 0 0 4 rw priv fixed anon; write 0 0 4 65; pageout *; verify");
    let resident =
        (0..4).filter(|p| s.anon(0, *p).is_some_and(|a| a.frame.is_some() && !a.on_swap));
    assert!(resident.count() >= 3, "dirty, unlocked, in memory");
    s.run("read 0 3 0+1; expect ok b=41; write 0 3 1 66; expect ok");
    s.end();
}

#[test]
fn k08_page_out_waits_for_nobody() {
    // Pages held by others, and all memory taken: it comes back, and has skipped them.
    let mut s = Scene::new();
    s.run("map 0 0 8 rw priv fixed anon; write 0 0 8 65");
    let pin = |s: &Scene, kind| {
        space(s, 0).fault(s.machine().cx(), range(0, 4), kind, Access::Write).expect("mapped");
    };
    pin(&s, FaultKind::SoftLock);
    s.run("squeeze 10000; pageout *; release");
    assert!((0..4).all(|p| s.anon(0, p).is_some_and(|a| a.frame.is_some() && !a.on_swap)));
    pin(&s, FaultKind::SoftUnlock);
    s.end();
}

#[test]
fn k10_below_the_reserve_page_out_alone_gets_pages() {
    let mut s = Scene::new();
    s.run("squeeze 10000");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let free = db.freemem();
    assert!(free > 0 && db.alloc(cx, 0, Reserve::Spare).is_err());
    assert!(db.throttle(cx, free, Reserve::Normal).is_err());
    let page = cx.freeing_memory(|| db.alloc(cx, 0, Reserve::Normal)).expect("its reserve");
    db.free(cx, page, false);
    s.run("release");
    s.end();
}

#[test]
fn k11_together_larger_than_memory() {
    let mut s = Scene::on("machine memory=128 swap=mem:512");
    s.run("fork 0 1; fork 0 2; fork 0 3");
    for p in 0..4 {
        s.run(&format!("map {p} 0 80 rw priv fixed anon; write {p} 0 80 {}", 65 + p));
    }
    for p in 0..4 {
        let first = s.run(&format!("read {p} 0 1"));
        let hash =
            first.split("h=").nth(1).and_then(|t| t.split(' ').next()).expect("a hash").to_owned();
        for page in 1..80 {
            s.run(&format!("read {p} {page} 1; expect ok h={hash}"));
        }
    }
    s.end();
}

#[test]
fn k13_slightly_more_than_memory_is_no_storm() {
    // More than memory, most of it in use all the time: what is missing goes and comes, and what is in use stays.
    let mut s = Scene::on("machine memory=256 swap=mem:512");
    let (hot, cold, rounds) = (160, 100, 12);
    s.run("map 0 0 260 rw priv fixed anon; write 0 0 260 65");
    let start = (s.count("pgpgout"), s.count("anonpgin"));
    for n in 0..rounds {
        let before = s.count("anonpgin");
        s.run(&format!("write 0 0 {hot} {}; read 0 {} 10", 66 + n, hot + n * 10 % cold));
        let read = s.count("anonpgin") - before;
        assert!(read <= 10, "round {n}: {read} pages were read, and 10 asked for that may be out");
    }
    let (out, read) = (s.count("pgpgout") - start.0, s.count("anonpgin") - start.1);
    assert!(read > 0 && out <= cold + read, "what came back goes again: {out} out, {read} in");
    s.end();
}

#[test]
fn k14_beyond_all_is_refused_and_the_system_lives() {
    let mut s = Scene::on("machine memory=128 swap=mem:8");
    let n = fill(&mut s);
    s.run(&format!(
        "lock 0 0 {n}; map 0 5000 1 rw priv fixed anon; expect EAGAIN; fork 0 1; expect ENOMEM"
    ));
    s.run("read 0 0 0+1; expect ok b=01; unmap 0 0 4096; map 0 5000 1 rw priv fixed anon; expect ok; write 0 5000 1 1; expect ok");
    s.end();
}

#[test]
fn k16_free_gives_the_place_up() {
    let mut s = Scene::new();
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 1 65; sync 0 0 1 sync");
    assert!(s.anon(0, 0).is_some_and(|a| a.on_swap));
    s.run("advise 0 0 1 free; expect counter MADV_FREE_hit +1");
    assert!(s.anon(0, 0).is_some_and(|a| !a.on_swap));
    // Until the frame is needed the old bytes are there.
    s.run("read 0 0 0+1; expect ok b=41");
    s.end();
    // Then the page is zeros.
    let mut s = Scene::on("machine memory=128");
    s.run("map 0 0 40 rw priv fixed anon; write 0 0 40 65; advise 0 0 40 free; expect counter MADV_FREE_hit +40");
    s.run("map 0 100 85 rw priv fixed anon; write 0 100 85 1");
    let zeros = (0..40).filter(|p| s.run(&format!("read 0 {p} 0+1")).contains("b=00")).count();
    assert!(zeros >= 30, "only {zeros} of 40 frames were taken");
    s.end();
}

#[test]
fn k17_what_is_locked_is_left_alone() {
    let mut s = Scene::new();
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65; lock 0 0 1; pageout *");
    assert_eq!((s.rights(0, 0), s.rights(0, 1)), ("rw-".to_owned(), "-".to_owned()));
    s.run("read 0 0 0+1; expect counter as_fault +0; read 0 1 0+1; expect ok b=41; expect counter pgrec +1");
    s.end();
}
