//! Full swap: slots of pages that are in memory, and whether there are any.
//!
//! # The difficulty
//!
//! When every slot is taken, some may belong to pages that are in memory (pushed, and found again before their frame was taken). They can do
//! without: their slots are taken and the pages are modified from then on (uvm.md 6.5, the swap shortage). But which are they? Few of the
//! names have a slot when memory is many times swap, and of those few perhaps none has its page in memory. A walk over the names for every
//! page that finds no place makes reclaim quadratic, and pages are locked all the while.
//!
//! # The rule
//!
//! ```text
//!   area 1   slot    0   1   2   3 ..        the slots are asked, not the names:
//!            owner  17   4  99   - ..        each remembers the number that took it last (SwapArea::owner)
//!                        ▲
//!                        at: the next sweep goes on here, through every area and round again
//! ```
//!
//! A sweep looks at no more than `LOOKS` slots for each page that wants one. After a whole turn without a stored page in memory there is
//! nothing to be had, and the next sweep looks at nothing, until some name gets a slot. [`SwapFs::is_full`] asks the same
//! question without a bound, and the two share the answer.
//!
//! An area that is being removed gives no slot to anybody, so a slot taken there is of use to nobody, and its page would be written for nothing: the
//! area is passed over whole, until it goes or the removal is called off. Nor is an area swept whose last write failed. It has free slots (G4), gets
//! pages as the last resort without a sweep, and is likely to fail them: a slot taken there each time would leave none to its pages in memory. It is passed over
//! until a write succeeds.
//!
//! # Invariants
//!
//! - K1: while a name's word says slot s, s remembers that name. (Written before the word, and the slot is nobody else's until it is freed, W2.)
//!   Not the reverse: a free slot remembers who had it. So whoever reads the number asks the name's word.
//! - K2: `passed` slots before `at` belonged to no page in memory, or to an area on its way out or failing, when they were passed, and `taken` was `since`
//!   before the first. What was so then is so now unless a name has got a slot meanwhile, an area stays after all, or its failure has ended, which `taken`
//!   counts: the page of a stored name comes into memory by being read, and gives its slot up by that. A slot that a name gets in a failing area counts when the
//!   failure ends: else each push to a dead device would have everything looked at again.
//!
//! The road not taken: counting the stored pages in memory. They come and go with every reclaim from the cache list and every eviction, in
//! the page layer, which knows nothing of slots; faults would pay for what hardly ever happens.
//!
//! Sources: uvm.md 6.5.

use crate::area::{AreaId, PhysSlot, SwapArea};
use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use page_db::selock::LockedPage as _;
use page_db::sync::Mutex;
use page_db::sync::atomic::{AtomicU64, Ordering};
use page_db::{Counter, Cx, Rank, RefMod};

/// Slots that a sweep looks at for each page that wants one; bounded, because it runs with pages locked.
const LOOKS: u64 = 256;

/// How far the turn has come (K2).
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: PhysSlot,
    passed: u64,
    since: u64,
}

/// Where sweeps go on, and what they have found so far.
#[derive(Debug)]
pub(crate) struct Sweep {
    turn: Mutex<Turn>,
    /// Grows whenever names have got slots.
    taken: AtomicU64,
}

impl Sweep {
    pub(crate) fn new() -> Self {
        let start = PhysSlot { area: AreaId(0), index: 0 };
        let turn = Turn { at: start, passed: 0, since: 0 };
        Self { turn: Mutex::new(Rank::SwapArea, turn), taken: AtomicU64::new(0) }
    }
    /// What was looked at before may be otherwise now: names have got slots, as their words say already, or there are other areas, or one is no
    /// longer on its way out, or failing, as its slots, or its mark, say already.
    pub(crate) fn forget(&self) {
        self.taken.fetch_add(1, Ordering::SeqCst);
    }
    /// The turn as far as it still holds.
    fn turn(&self, cx: &Cx) -> Turn {
        let mut turn = *self.turn.lock_leaf(&**cx.hooks());
        let taken = self.taken.load(Ordering::SeqCst); // before any word is looked at
        if turn.since != taken {
            turn = Turn { passed: 0, since: taken, ..turn };
        }
        turn
    }
}

/// What a slot's look came to.
enum Look {
    /// No page in memory has it.
    Absent,
    /// A page in memory has it and keeps it: locked, or cached.
    Kept,
    /// A page in memory had it.
    Freed,
}

impl SwapFs {
    /// Takes slots from pages that are in memory, `want` of them if that many are found soon; the pages are modified then (W3).
    ///
    /// Pages on the cache list keep theirs: the slot is where their bytes are once the frame is taken.
    pub(crate) fn sweep(&self, cx: &Cx, want: u64) {
        let mut turn = self.sweeps.turn(cx); // before the areas it is about
        let areas = self.space().areas();
        let all: u64 = areas.by_id.iter().map(|a| u64::from(a.pages())).sum();
        let (mut looks, mut freed, mut gone) = (0, 0, 0); // `gone`: slots passed by this sweep, a turn at most
        while turn.passed < all && gone < all && looks < want.saturating_mul(LOOKS) && freed < want
        {
            // The area where the turn is, or the next by id, or the first. One on its way out, or failing, has nothing to offer.
            let i = areas.by_id.partition_point(|a| a.id() < turn.at.area) % areas.by_id.len();
            let area = &areas.by_id[i];
            let from = if area.id() == turn.at.area { turn.at.index } else { 0 };
            let Some(index) = area.next_taken(cx, from) else {
                let rest = u64::from(area.pages() - from.min(area.pages()));
                (turn.passed, gone) = (turn.passed + rest, gone + rest);
                turn.at = PhysSlot { area: AreaId(area.id().0 + 1), index: 0 };
                continue;
            };
            let step = u64::from(index - from) + 1;
            (turn.passed, gone) = (turn.passed + step, gone + step);
            turn.at = PhysSlot { area: area.id(), index: index + 1 };
            looks += 1;
            match self.look_at(cx, area, index) {
                Look::Absent => {}
                Look::Kept => turn.passed = 0,
                Look::Freed => {
                    turn.passed = 0;
                    freed += 1;
                }
            }
        }
        cx.count_n(Counter::SweepLooks, looks);
        *self.sweeps.turn.lock_leaf(&**cx.hooks()) = turn;
    }
    fn look_at(&self, cx: &Cx, area: &SwapArea, index: u32) -> Look {
        let Some((n, place)) = self.stored_in(area, index) else { return Look::Absent };
        let id = self.identity(n);
        if self.db().exists(cx, id).is_none() {
            return Look::Absent;
        }
        let Some(page) = self.db().try_lookup_excl(cx, id) else { return Look::Kept };
        if !self.names().change(n, place, Place::Nowhere) {
            return Look::Kept;
        }
        page.page().set_ref_mod(RefMod::MOD);
        area.free(cx, index);
        Look::Freed
    }
    /// The name whose word says this slot, if there is one (K1). A slot just taken has none yet.
    fn stored_in(&self, area: &SwapArea, index: u32) -> Option<(AnonNumber, Place)> {
        let n = area.owner(index)?;
        let place = Place::At(PhysSlot { area: area.id(), index });
        (self.names().place(n) == place).then_some((n, place))
    }
    /// Whether swap can take no more: no slot is free, and none belongs to a page that is in memory and could do without (uvm.md 6.5).
    /// The free slots of an area that fails are room: it is asked, though last, and what is the matter may pass.
    #[doc(alias = "uvm_swapisfull")]
    pub fn is_full(&self, cx: &Cx) -> bool {
        let turn = self.sweeps.turn(cx); // before the areas it is about
        let areas = self.space().areas();
        let open = |area: &SwapArea| {
            let slots = area.slots.lock(cx);
            slots.removal.is_none() && slots.free_count() != 0
        };
        if areas.by_id.iter().any(|a| open(a)) {
            return false;
        }
        let all: u64 = areas.by_id.iter().map(|a| u64::from(a.pages())).sum();
        if turn.passed >= all {
            return true;
        }
        for area in &areas.by_id {
            let mut next = 0;
            while let Some(index) = area.next_taken(cx, next) {
                next = index + 1;
                cx.count_n(Counter::SweepLooks, 1);
                let stored = self.stored_in(area, index);
                if stored.is_some_and(|(n, _)| self.db().exists(cx, self.identity(n)).is_some()) {
                    return false;
                }
            }
        }
        *self.sweeps.turn.lock_leaf(&**cx.hooks()) = Turn { passed: all, ..turn };
        true
    }
}
