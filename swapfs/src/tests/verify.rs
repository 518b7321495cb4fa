//! Planted damage, found and named.

use super::World;
use crate::{AreaId, PhysSlot, Plant};

/// Each kind of damage is found, under its own name.
#[test]
fn verify_names_what_is_broken() {
    let case = |plant: fn(&World) -> Plant, name: &str| {
        let w = World::new(32);
        w.add("d", 8, 0);
        let (a, _b) = (w.anon(1), w.anon(2));
        w.evict(a);
        w.fs.verify(&w.cx).expect("whole");
        w.fs.plant(&w.cx, plant(&w));
        let found = w.fs.verify(&w.cx).expect_err(name);
        assert_eq!(found.invariant, name, "{found}");
    };
    case(|_| Plant::FlipSlot(PhysSlot { area: AreaId(1), index: 3 }), "G2");
    case(|w| Plant::FlipSlot(w.fs.slot(&w.cx, first(w)).expect("stored")), "W2");
    case(|w| Plant::ShareSlot { owner: first(w), thief: second(w) }, "W2");
    case(|w| Plant::ForgeSlot(second(w), PhysSlot { area: AreaId(1), index: 7 }), "W2");
    case(|w| Plant::ForgeSlot(second(w), PhysSlot { area: AreaId(7), index: 0 }), "W2");
    case(|w| Plant::Kill(second(w)), "Q2");
    case(|w| Plant::Borrow(second(w), w.page_of(second(w))), "R1 (I3)");
    case(|w| Plant::Borrow(w.alloc(), w.page_of(second(w))), "R2");
    case(|w| Plant::Misremember(w.fs.slot(&w.cx, first(w)).expect("stored"), second(w)), "K1");
    case(|_| Plant::Owe, "V4");
    case(|_| Plant::OverPromise, "V1");
    case(|_| Plant::FreeMemory, "V2");
}

fn first(w: &World) -> crate::AnonNumber {
    w.fs.live_numbers().next().expect("two")
}
fn second(w: &World) -> crate::AnonNumber {
    w.fs.live_numbers().nth(1).expect("two")
}

#[test]
fn a_page_of_a_dead_name_and_a_lost_slot_are_found() {
    let w = World::new(32);
    w.add("d", 8, 0);
    let n = w.anon(1);
    w.fs.free(&w.cx, n); // the page was not destroyed first
    let found = w.fs.verify(&w.cx).expect_err("a page stays");
    assert_eq!(found.invariant, "W4", "{found}");

    let w = World::new(32);
    w.add("d", 8, 0);
    let n = w.anon(1);
    w.evict(n);
    w.fs.names().change(n, w.fs.place(n), crate::Place::Nowhere);
    let found = w.fs.verify(&w.cx).expect_err("a slot nobody owns");
    assert_eq!(found.invariant, "W2 (I9)", "{found}");

    let w = World::new(32);
    let (_, id) = w.add("d", 8, 0);
    w.fs.space().areas().get(id).expect("just added").slots.lock(&w.cx).lose();
    let found = w.fs.verify(&w.cx).expect_err("a slot lost that was not bad");
    assert_eq!(found.invariant, "G3", "{found}");
}

#[test]
fn an_area_that_fails_and_is_full_is_found() {
    let w = World::new(32);
    let (_, id) = w.add("d", 2, 0);
    let fails = |yes: bool| {
        let areas = w.fs.space().areas();
        areas.get(id).expect("just added").note_write(!yes)
    };
    w.evict(w.anon(1));
    assert!(fails(true));
    w.check();
    assert!(fails(false));
    w.evict(w.anon(2));
    assert!(fails(true) && !fails(true));
    let found = w.fs.verify(&w.cx).expect_err("no slot has come back");
    assert_eq!(found.invariant, "G4", "{found}");
}
