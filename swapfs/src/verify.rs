//! Checking swap against itself, when nothing runs: W2, W4, W5, Q2, G1, G2, G3, G4, K1, V1, V2, V4 and R1.
//!
//! The walk goes over every word and every area and names the first disagreement. [`SwapFs::plant`] breaks one thing at a
//! time, so that tests can see each check fail.

use crate::area::{AreaId, PhysSlot, SwapArea};
use crate::fs::SwapFs;
use crate::name::{AnonNumber, Place};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use page_db::{Cx, PageId, VnodeId};

/// A broken invariant of swap.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct SwapDamage {
    /// The invariant's short name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

/// How names and slots are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct SwapCensus {
    /// Names in use.
    pub live: u64,
    /// Names with a slot.
    pub stored: u64,
    /// Names whose bytes are lost.
    pub lost: u64,
    /// Names whose bytes are in another's page.
    pub borrowed: u64,
    /// Slots of all areas.
    pub slots: u64,
    /// Slots free.
    pub free_slots: u64,
    /// Slots gone bad.
    pub bad_slots: u64,
    /// Pushes held back.
    pub queued: u64,
}

/// A thing to break, for tests of [`SwapFs::verify`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum Plant {
    /// A free slot counts as taken, or the reverse.
    FlipSlot(PhysSlot),
    /// Two names own one slot.
    ShareSlot {
        /// Who owns it.
        owner: AnonNumber,
        /// Who owns it, too, from now on.
        thief: AnonNumber,
    },
    /// A slot is owned that was never allocated.
    ForgeSlot(AnonNumber, PhysSlot),
    /// A name forgets the slot it owns.
    LoseSlot(AnonNumber),
    /// A slot remembers another than its owner.
    Misremember(PhysSlot, AnonNumber),
    /// A lost slot is owed that could be paid for.
    Owe,
    /// A name says that it borrows a page.
    Borrow(AnonNumber, PageId),
    /// A name dies without being freed.
    Kill(AnonNumber),
    /// More is promised than there is.
    OverPromise,
    /// Memory is promised that was not charged.
    FreeMemory,
}

fn broken(invariant: &'static str, what: impl Into<String>) -> SwapDamage {
    SwapDamage { invariant, what: what.into() }
}

impl SwapFs {
    /// Checks every invariant of swap. Call when quiet: pushes under way look like damage.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, cx: &Cx) -> Result<SwapCensus, SwapDamage> {
        let mut census =
            SwapCensus { queued: self.pushes.lock(cx).len() as u64, ..Default::default() };
        self.verify_names(cx, &mut census)?;
        self.verify_slots(cx, &mut census)?;
        self.verify_borrowed(cx, &mut census)?;
        self.verify_pages(cx)?;
        self.verify_books()?;
        Ok(census)
    }
    fn verify_names(&self, cx: &Cx, census: &mut SwapCensus) -> Result<(), SwapDamage> {
        census.live = self.names().walk(0).count() as u64;
        if census.live != self.live() {
            let what = format!("{} words live, {} names handed out", census.live, self.live());
            return Err(broken("Q2", what));
        }
        let mut unused = self.names().unused(cx);
        unused.sort_unstable();
        if let Some(twice) = unused.windows(2).find(|w| w[0] == w[1]) {
            return Err(broken("Q2", format!("number {} is free twice", twice[0])));
        }
        let living = |n: &&u32| AnonNumber::from_raw(**n).is_none_or(|n| self.is_live(n));
        if let Some(n) = unused.iter().find(living) {
            return Err(broken("W4", format!("number {n} is live and free")));
        }
        let (made, free) = (self.names().made_numbers(cx), unused.len() as u64);
        if free + census.live != made {
            let what = format!("{made} numbers made, {free} free, {} live", census.live);
            return Err(broken("Q2", what));
        }
        Ok(())
    }
    fn verify_slots(&self, cx: &Cx, census: &mut SwapCensus) -> Result<(), SwapDamage> {
        let areas = self.space().areas();
        let mut owners: BTreeMap<PhysSlot, AnonNumber> = BTreeMap::new();
        let mut owned: BTreeMap<AreaId, u32> = BTreeMap::new();
        let mut lost: BTreeMap<AreaId, u32> = BTreeMap::new();
        for (n, place) in self.names().walk(0) {
            if let Place::Bad(slot) = place {
                census.lost += 1;
                *lost.entry(slot.area).or_default() += 1;
            }
            let Some(slot) = place.slot() else { continue };
            if let Some(other) = owners.insert(slot, n) {
                return Err(broken("W2", format!("slot {slot} belongs to anons {other} and {n}")));
            }
            let taken = areas.get(slot.area).is_some_and(|a| a.slots.lock(cx).is_taken(slot.index));
            if !taken {
                let what = format!("anon {n} owns slot {slot}, which is free or does not exist");
                return Err(broken("W2", what));
            }
            *owned.entry(slot.area).or_default() += 1;
        }
        census.stored = owners.len() as u64;
        let mut strays = owners.iter().filter(|(slot, n)| {
            areas.get(slot.area).is_some_and(|a| a.owner(slot.index) != Some(**n))
        });
        for area in &areas.by_id {
            let slots = area.slots.lock(cx);
            let (free, bad, taken) = (slots.free_count(), slots.bad_count(), slots.taken());
            if free + taken != area.pages() {
                let what = format!("area {}: {taken} bits set, {free} counted free", area.id());
                return Err(broken("G2", what));
            }
            let owned = owned.get(&area.id()).copied().unwrap_or(0);
            if taken != owned + bad {
                let what = format!(
                    "area {}: {taken} slots allocated, {owned} owned by anons, {bad} bad",
                    area.id()
                );
                return Err(broken("W2 (I9)", what));
            }
            let (named, gone) = (lost.get(&area.id()).copied().unwrap_or(0), slots.lost_count());
            if bad != named + gone {
                let what =
                    format!("area {}: {bad} bad, {named} said by names, {gone} lost", area.id());
                return Err(broken("G3", what));
            }
            if area.is_failing() && free == 0 {
                return Err(broken("G4", format!("area {} fails, and is full", area.id())));
            }
            census.slots += u64::from(area.pages());
            census.free_slots += u64::from(free);
            census.bad_slots += u64::from(bad);
        }
        if let Some((slot, n)) = strays.next() {
            return Err(broken(
                "K1",
                format!("slot {slot} does not remember anon {n}, who owns it"),
            ));
        }
        Ok(())
    }
    /// A borrowed name has no page of its own, and each has a loan of its lender's.
    fn verify_borrowed(&self, cx: &Cx, census: &mut SwapCensus) -> Result<(), SwapDamage> {
        let mut borrowers: BTreeMap<PageId, u32> = BTreeMap::new();
        for (n, place) in self.names().walk(0) {
            let Some(lender) = place.lender() else { continue };
            census.borrowed += 1;
            if let Some(page) = self.db().exists(cx, self.identity(n)) {
                let what = format!("anon {n} has page {page}, and borrows page {lender}");
                return Err(broken("R1 (I3)", what));
            }
            *borrowers.entry(lender).or_default() += 1;
        }
        for (page, names) in borrowers {
            let loans = self.db().page(page).loans();
            if names > loans {
                let what = format!("{names} anons borrow page {page}, which has {loans} loans");
                return Err(broken("R2", what));
            }
        }
        Ok(())
    }
    /// Every page under a swap name belongs to a live anon.
    fn verify_pages(&self, cx: &Cx) -> Result<(), SwapDamage> {
        let vnodes: alloc::vec::Vec<VnodeId> = self.vnodes().collect();
        for v in vnodes {
            for page in self.db().vnode_pages(cx, v) {
                let Some(id) = self.db().page(page).identity() else { continue };
                if !self.number_of(id).is_some_and(|n| self.is_live(n)) {
                    return Err(broken("W4", format!("page {page} is {id}, a name nobody has")));
                }
            }
        }
        Ok(())
    }
    fn verify_books(&self) -> Result<(), SwapDamage> {
        let b = *self.ledger().books();
        if b.phys_resv > b.max || b.locked > b.mem_resv {
            return Err(broken("V1", format!("{b:?}")));
        }
        let areas = self.space().areas();
        let backs = |a: &Arc<SwapArea>| {
            let slots = a.slots.lock_leaf(&**self.db().hooks());
            if slots.removal.is_some() { 0 } else { slots.promised() }
        };
        let listed: u64 = areas.by_id.iter().map(backs).sum();
        if listed + b.owed != b.max {
            return Err(broken("W5", format!("areas have {listed} pages, the books {}", b.max)));
        }
        if b.owed != 0 && b.phys_resv != b.max {
            return Err(broken("V4", format!("owed and not paid: {b:?}")));
        }
        let mem = self.db().free_mem();
        let charged = mem.total().saturating_sub(mem.availrmem());
        if b.mem_resv > charged {
            let what = format!("{} promised from memory, {charged} charged", b.mem_resv);
            return Err(broken("V2", what));
        }
        Ok(())
    }

    /// Breaks one thing, for tests of [`SwapFs::verify`].
    #[doc(hidden)]
    pub fn plant(&self, cx: &Cx, plant: Plant) {
        match plant {
            Plant::FlipSlot(s) => {
                if let Some(a) = self.space().areas().get(s.area) {
                    a.slots.lock(cx).plant(s.index);
                }
            }
            Plant::ShareSlot { owner, thief } => {
                let at = self.names().place(owner);
                self.names().change(thief, self.names().place(thief), at);
            }
            Plant::ForgeSlot(n, s) => {
                self.names().change(n, self.names().place(n), Place::At(s));
            }
            Plant::Misremember(s, n) => {
                if let Some(a) = self.space().areas().get(s.area) {
                    a.set_owner(s.index, n);
                }
            }
            Plant::Owe => {
                let mut b = self.ledger().books();
                b.owed += 1;
                b.max += 1;
            }
            Plant::LoseSlot(n) => {
                self.names().change(n, self.names().place(n), Place::Nowhere);
            }
            Plant::Borrow(n, page) => {
                self.names().change(n, self.names().place(n), Place::Borrowed(page));
            }
            Plant::Kill(n) => {
                self.names().kill(n);
            }
            Plant::OverPromise => {
                let mut b = self.ledger().books();
                b.phys_resv = b.max + 1;
            }
            Plant::FreeMemory => {
                let charged = self.db().free_mem().total() - self.db().free_mem().availrmem();
                self.ledger().books().mem_resv = charged + 1;
            }
        }
    }
}
