//! The ends of the address space, threads against each other, random histories, and damage that must be named.

use crate::avl::Invariant;
use crate::error::AsError;
use crate::testing::*;
use crate::{FaultKind, TestDamage, USER_RANGE};
use page_db::{Access, Prot, VirtRange};
use std::collections::BTreeMap;

#[test]
fn the_first_and_the_last_page_of_the_user_range_can_be_used() {
    let w = World::new();
    for start in [USER_RANGE.start().get(), USER_RANGE.end() - P] {
        w.map(start, P);
        w.space.fault_at(&w.cx, at(start), FaultKind::Invalid, Access::Write).expect("mapped");
    }
    w.space.unmap(&w.cx, USER_RANGE).expect("nothing is pinned");
    assert_eq!(w.shape(), []);
    let all = w.toy();
    w.map_as(USER_RANGE.start().get(), USER_RANGE.len(), &all);
    let full = w.space.find_gap(&w.cx, &crate::GapRequest::new(P));
    assert_eq!(full, Err(AsError::NoGap { len: P }));
    w.space.unmap(&w.cx, range(0x4000_0000, P)).expect("nothing is pinned");
    assert_eq!(w.shape().len(), 2);
    w.check();
}

#[test]
fn the_last_pages_below_2_to_the_64_belong_to_the_kernel() {
    let top = VirtRange::exact(0xffff_ffff_ff00_0000, 0xff_f000).expect("all but the last page");
    let w = World::with_limits(top);
    w.map(top.end() - P, P);
    w.map(top.start().get(), P);
    w.space.unmap(&w.cx, top).expect("nothing is pinned");
    w.check();
    assert_eq!(w.shape(), []);
}

#[test]
fn each_kind_of_damage_is_named() {
    let cases = Invariant::ALL.into_iter().map(|i| (TestDamage::Tree(i), "V01"));
    let others = [(TestDamage::Size, "I13"), (TestDamage::Resv, "I13"), (TestDamage::Driver, "G4")];
    for (damage, invariant) in cases.chain(others) {
        let w = World::new();
        for i in 0..3 {
            w.map(0x10000 + i * 2 * P, P);
        }
        assert!(w.space.damage_for_test(&w.cx, damage), "{damage:?} can be done to three segments");
        let found = w.space.verify(&w.cx).expect_err("damage is found");
        assert_eq!(found.invariant, invariant, "{damage:?}: {found}");
    }
}

#[test]
fn translations_outside_segments_or_beyond_their_rights_are_found() {
    let w = World::new();
    w.map_as(0x10000, 2 * P, &w.toy().prot(Prot::READ));
    w.map_as(0x20000, P, &w.toy().prot(Prot::empty()));
    for (addr, prot) in
        [(0x10000, Prot::RW), (0x20000, Prot::READ), (0x15000, Prot::READ), (0x30000, Prot::READ)]
    {
        w.hat.plant(addr, prot);
        let found = w.space.verify(&w.cx).expect_err("a translation nobody allowed");
        assert_eq!(found.invariant, "V05");
        assert!(found.what.starts_with(&format!("{addr:#x}")), "{found}");
        crate::Hat::unload(&*w.hat, &w.cx, range(addr, P), crate::UnloadFlags::empty());
        w.check();
    }
}

/// A generator whose every sequence follows from its seed (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// What is mapped, page by page: the naive answer.
#[derive(Default)]
struct Naive(BTreeMap<u64, Prot>);

impl Naive {
    fn all(&self, range: VirtRange) -> bool {
        range.iter_pages().all(|p| self.0.contains_key(&p.get()))
    }
    fn any(&self, range: VirtRange) -> bool {
        range.iter_pages().any(|p| self.0.contains_key(&p.get()))
    }
}

#[test]
fn random_histories_agree_with_a_map_of_pages() {
    for seed in 0..6 {
        let (w, mut rng, mut naive) = (World::new(), Rng(seed), Naive::default());
        for step in 0..500 {
            one_step(&w, &mut rng, &mut naive);
            let mapped: u64 = w.shape().iter().map(|(start, end)| end - start).sum();
            assert_eq!(mapped, naive.0.len() as u64 * P, "seed {seed} step {step}");
            w.check();
        }
        w.space.free(&w.cx);
        w.check();
    }
}

fn one_step(w: &World, rng: &mut Rng, naive: &mut Naive) {
    let asked = range(0x10000 + rng.below(64) * P, (1 + rng.below(8)) * P);
    match rng.below(5) {
        0 | 1 => {
            let args = w.toy().tag(rng.below(3) as u32);
            let got = w.space.map(&w.cx, asked, &args);
            assert_eq!(got.is_ok(), !naive.any(asked));
            if got.is_ok() {
                naive.0.extend(asked.iter_pages().map(|p| (p.get(), Prot::RW)));
            }
        }
        2 => {
            w.space.unmap(&w.cx, asked).expect("nothing is pinned");
            naive.0.retain(|addr, _| !asked.contains(at(*addr)));
        }
        3 => {
            let prot = [Prot::READ, Prot::RW, Prot::empty()][rng.below(3) as usize];
            let got = w.space.set_prot(&w.cx, asked, prot);
            assert_eq!(got.is_ok(), naive.all(asked));
            for page in asked
                .iter_pages()
                .map_while(|p| naive.0.get_mut(&p.get()).map(|_| p))
                .collect::<Vec<_>>()
            {
                naive.0.insert(page.get(), prot);
            }
        }
        _ => {
            let page = asked.start();
            let got = w.space.fault_at(&w.cx, page, FaultKind::Invalid, Access::Write);
            let allowed = naive.0.get(&page.get()).is_some_and(|p| p.contains(Prot::WRITE));
            assert_eq!(got.is_ok(), allowed);
        }
    }
}

#[test]
fn faults_and_edits_of_two_threads_leave_a_sound_space() {
    let w = World::new();
    w.map(0x10000, 16 * P);
    std::thread::scope(|s| {
        for n in 0..2 {
            let (space, counters, args) = (&w.space, &w.counters, w.toy().tag(1));
            s.spawn(move || {
                let cx = cx_on(counters, n);
                let own = 0x100_0000 * (u64::from(n) + 1);
                for i in 0..400 {
                    space
                        .fault_at(&cx, at(0x10000 + i % 16 * P), FaultKind::Invalid, Access::Write)
                        .expect("the shared segment stays");
                    let mine = range(own + i % 8 * 2 * P, 2 * P);
                    space.map(&cx, mine, &args).expect("nobody else is here");
                    space.fault(&cx, mine, FaultKind::Invalid, Access::Write).expect("mapped");
                    space.unmap(&cx, mine).expect("nothing is pinned");
                }
                assert!(cx.held().is_empty());
            });
        }
    });
    assert_eq!(w.shape(), [(0x10000, 0x20000)]);
    w.check();
}
