//! Page-out, the hat, and the sweep over everything: 55 to 61.

use crate::{Scene, page, scene, space};
use addr_space::UnloadFlags;
use page_db::pageout::{Checked, Hand};
use page_db::{Pageout, PageoutConfig, RefMod, Thresholds, VirtRange};
use segvm::script::{RunOptions, parse};

/// A clock of the machine's pages, looked at by hand.
fn clock(s: &Scene, config: PageoutConfig) -> Pageout {
    Pageout::new(s.machine().db(), config)
}

fn look(s: &Scene, clock: &Pageout, at: u64, hand: Hand) -> Checked {
    let id = s.page(s.frame(0, at).expect("mapped"));
    clock.check_page(s.machine().cx(), s.machine().db(), id, hand)
}

#[test]
fn b55_thresholds_and_rate_follow_from_the_size_of_memory() {
    // The rate for a million pages: `pageout::config`, `the_rate_is_linear_between_slowscan_and_fastscan`.
    let t = Thresholds::for_memory(1 << 20);
    assert_eq!((t.lotsfree, t.desfree, t.minfree), (16384, 8192, 6144));
    assert_eq!((t.throttlefree, t.pageout_reserve), (6144, 4608));
    let mut s = scene("squeeze 0");
    let at = |s: &Scene| s.machine().pageout_state();
    let p = at(&s);
    assert!(p.freemem >= p.thresholds.lotsfree);
    assert_eq!(p.desscan, p.slowscan / 4, "nothing is wanted");
    s.run("squeeze 10000");
    let p = at(&s);
    let (have, lots) = (p.freemem.saturating_sub(p.needfree), p.thresholds.lotsfree);
    let linear = (p.slowscan * have + p.fastscan * (lots - have)) / lots / 4;
    assert_eq!(p.desscan, linear);
    s.run("release");
    s.end();
}

#[test]
fn b56_a_page_must_be_used_between_the_hands_to_stay() {
    let mut s = scene("file 0 12288; map 0 0 3 rw shared fixed file 0 0; advise 0 0 3 random");
    s.run("read 0 0 0+1; read 0 1 0+1");
    let p = clock(&s, PageoutConfig::default());
    assert_eq!([0, 1].map(|n| look(&s, &p, n, Hand::Front)), [Checked::Examined; 2]);
    // Stale translations are used without a walk; a switch forgets them, so that the load is seen.
    s.run("protect 0 1 1 r; read 0 1 0+1");
    let gone = s.file_frame(0, 0).expect("cached");
    assert_eq!(look(&s, &p, 0, Hand::Back), Checked::Freed);
    assert!(s.machine().db().page(s.page(gone)).is_free() && s.frame(0, 0).is_none());
    assert_eq!(look(&s, &p, 1, Hand::Back), Checked::Examined, "touched again");
    s.run("write 0 2 0+1 9");
    assert_eq!(look(&s, &p, 2, Hand::Front), Checked::Examined);
    assert_eq!(look(&s, &p, 2, Hand::Back), Checked::Freed, "queued");
    assert!(s.frame(0, 2).is_some(), "and mapped until it is pushed");
    assert_eq!(p.queued(s.machine().cx()), 1);
    s.run("lock 0 1 1");
    assert_eq!(look(&s, &p, 1, Hand::Front), Checked::Skipped, "claimed");
    let table = s
        .machine()
        .db()
        .pages()
        .ids()
        .find(|id| s.machine().db().page(*id).state().contains(page_db::PageState::KERNEL));
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let kernel = table.map(|id| p.check_page(cx, db, id, Hand::Back));
    assert_eq!(kernel, Some(Checked::Skipped), "the kernel's");
    s.end();
}

#[test]
fn b57_a_full_queue_leaves_the_page() {
    // Page-out's own allocations take the reserve: `create::each_reserve_leaves_what_it_must`.
    let s = scene("file 0 12288; map 0 0 3 rw shared fixed file 0 0; write 0 0 3 1");
    let p = clock(&s, PageoutConfig { queue: Some(2), ..PageoutConfig::default() });
    let _ = [0, 1, 2].map(|n| look(&s, &p, n, Hand::Front));
    let first = [0, 1].map(|n| look(&s, &p, n, Hand::Back));
    let held = s.file_holders(0);
    let third = look(&s, &p, 2, Hand::Back);
    assert_eq!((first, third), ([Checked::Freed; 2], Checked::Examined));
    assert_eq!(s.file_holders(0), held, "its file is not held for it");
    assert!(s.frame(0, 2).is_some() && page(&s, 0, 2).ref_mod().contains(RefMod::MOD));
    assert_eq!(p.queued(s.machine().cx()), 2);
    s.end();
}

#[test]
fn b58_one_mapping_is_embedded_and_a_list_of_one_stays_a_list() {
    let mut s = scene("file 0 4096; map 0 0 1 r shared fixed file 0 0; fork 0 1; read 0 0 1");
    let frame = s.file_frame(0, 0).expect("read");
    let shape = |s: &Scene| {
        let (db, id) = (s.machine().db(), s.page(frame));
        let m = db.page(id).mapping();
        (m.is_embedded(), m.share(), db.share_count(s.machine().cx(), id))
    };
    assert_eq!(shape(&s), (true, 0, 1));
    s.run("read 1 0 1");
    assert_eq!(shape(&s), (false, 2, 2));
    s.run("unmap 1 0 1");
    assert_eq!(shape(&s), (false, 1, 1), "not embedded again");
    s.run("unmap 0 0 1");
    assert_eq!(shape(&s).2, 0);
    s.run("map 0 0 1 r shared fixed file 0 0; read 0 0 1");
    assert_eq!(shape(&s), (true, 0, 1), "the next one embeds");
    s.end();
}

#[test]
fn b59_the_last_entry_takes_its_tables_along() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; map 0 262144 1 rw priv fixed anon");
    let tables = |s: &Scene| {
        let hat = space(s, 0).hat().id();
        let tree = s.machine().hat().dump_tables(s.machine().cx(), hat).expect("it lives");
        tree.tables.iter().map(|t| (t.level, t.valid)).collect::<Vec<_>>()
    };
    assert_eq!(tables(&s), [(3, 0)]);
    s.run("write 0 0 2 1; write 0 262144 1 1");
    let full = tables(&s);
    assert_eq!(full.iter().filter(|t| t.0 == 0).map(|t| t.1).collect::<Vec<_>>(), [2, 1]);
    s.run("unmap 0 262144 1");
    assert_eq!(tables(&s).iter().filter(|t| t.0 == 0).count(), 1, "and those above it alone");
    // Taken away, a table's marks are on the pages.
    let file = page(&s, 0, 1).ref_mod();
    let frame = s.frame(0, 1).expect("mapped");
    let taken = s.machine().hat().steal_tables(s.machine().cx(), 1);
    assert!(taken >= 1 && s.frame(0, 1).is_none());
    let bits = s.machine().db().page(s.page(frame)).ref_mod();
    assert!(bits.contains(file | RefMod::MOD));
    s.run("read 0 1 0+1; expect ok; unmap 0 0 2");
    assert_eq!(tables(&s), [(3, 0)], "up to the top");
    s.end();
}

#[test]
fn b60_loads_marks_and_stale_translations() {
    // A load over another frame, and NOSYNC: `loads`. A lost shootdown is found: `shootdown::a_lost_shootdown_is_used_and_is_named`.
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 1");
    let frame = s.frame(0, 0).expect("mapped");
    s.run("write 0 0 0+1 2; expect counter pte_writes +0; expect counter as_fault +0");
    let db = s.machine().db();
    db.page(s.page(frame)).clear_ref_mod(RefMod::REF | RefMod::MOD);
    space(&s, 0).hat().unload(s.machine().cx(), crate::range(0, 1), UnloadFlags::empty());
    let bits = db.page(s.page(frame)).ref_mod();
    assert_eq!(bits, RefMod::REF | RefMod::MOD, "an unload brings them in");
    assert_eq!(
        s.machine().host_mmu().expect("simulated").stale_entries(s.machine().cx()),
        [],
        "nothing is left of it"
    );
    s.end();
}

#[test]
fn b61_the_sweep_holds_after_each_step_of_random_worlds() {
    // The sweep is `verify()`, after each statement; that each of its checks can fail: `laws::damage`, and for page tables one by one `hat_x86::tests::damage`. More worlds: `sim`.
    let trace = include_str!("../../traces/mix.vmt");
    let parsed = parse(trace).expect("a trace");
    let world = segvm::machine::MachineWorld::new(&parsed.machine()).expect("a machine");
    let options = RunOptions { verify_each: true, ..RunOptions::default() };
    let mut runner = segvm::script::Runner::new(world, options);
    let mut text = String::new();
    let printed = &mut segvm::script::PlainText(&mut text);
    runner.run_statements(&parsed.statements, printed).expect("sound at each step");
    let (machine, cx) = (runner.world().machine(), runner.world().machine().cx());
    machine.verify().expect("sound");
    for (pid, space) in machine.spaces() {
        // (f) and (g), counted here once more.
        let segs = space.segs(cx);
        let ranges: Vec<VirtRange> = segs.iter().map(|seg| seg.range()).collect();
        assert!(ranges.windows(2).all(|w| w[0].end() <= w[1].start().get()), "{pid:?}");
        let sum: u64 = ranges.iter().map(|r| r.len()).sum();
        assert_eq!(space.state().size(), sum);
    }
}
