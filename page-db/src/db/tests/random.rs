//! Random operations on the page layer, held against a model that knows nothing of lists, links or locks.
//!
//! `verify()` runs after each. A failure prints seed and step; the same seed replays it.

use crate::db::{Claim, PageDbConfig, Released, Reserve};
use crate::testing::{Lot, World, hashes, name};
use crate::{HashKind, Identity, LockedPage, PageError, PageId, RefMod, VnodeId, VnodeKind};
use alloc::collections::BTreeMap;

/// What the model knows of a named page.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
struct Known {
    cached: bool,
    mapped: bool,
    modified: bool,
    lck: u16,
    cow: u16,
}

struct Run {
    w: World,
    lot: Lot,
    vnodes: [(VnodeId, VnodeKind); 3],
    named: BTreeMap<Identity, Known>,
    kernel: alloc::vec::Vec<PageId>,
}

const FRAMES: u64 = 48;

impl Run {
    fn new(hash: HashKind, colours: u32, seed: u64) -> Self {
        let w = World::with(FRAMES, &PageDbConfig { hash, colours, ..PageDbConfig::default() });
        let kinds = [VnodeKind::File, VnodeKind::Swap, VnodeKind::Exec];
        let vnodes = kinds.map(|k| (w.vnode(k), k));
        Self { w, lot: Lot(seed), vnodes, named: BTreeMap::new(), kernel: alloc::vec::Vec::new() }
    }
    fn free(&self) -> u64 {
        let used = self.named.values().filter(|k| !k.cached).count() + self.kernel.len();
        FRAMES - used as u64
    }
    fn any_name(&mut self) -> Identity {
        let v = self.vnodes[self.lot.below(3) as usize].0;
        name(v, self.lot.below(24))
    }
    /// The model of an allocation: when no nameless frame is left, some cached page has lost its name.
    fn lost_names(&mut self) {
        let w = &self.w;
        self.named.retain(|id, k| !k.cached || w.db.exists(&w.cx, *id).is_some());
    }
    fn step(&mut self) {
        let id = self.any_name();
        let known = self.named.get(&id).copied();
        match self.lot.below(12) {
            0..=2 => self.create(id, known),
            3 => self.look(id, known),
            4 => self.let_go(id, known),
            5 => self.release(id, known),
            6 => self.destroy(id, known),
            7 => self.rename(id, known),
            8 => self.claim(id, known),
            9 => self.map(id, known),
            10 => self.kernel(),
            _ => self.w.db.drain_magazines(&self.w.cx),
        }
        let census = self.w.verify();
        assert_eq!(census.total(), FRAMES);
        assert_eq!(census.kernel, self.kernel.len() as u64);
        assert_eq!(self.w.db.freemem(), self.free());
        assert_eq!(census.cached, self.named.values().filter(|k| k.cached).count() as u64);
        let charged: u64 =
            self.named.values().map(|k| u64::from(k.lck != 0) + u64::from(k.cow)).sum();
        assert_eq!(self.w.db.free_mem().availrmem(), FRAMES - charged);
        assert!(self.w.cx.held().is_empty());
    }
    fn create(&mut self, id: Identity, known: Option<Known>) {
        let free = self.free();
        let made = self.w.db.create(&self.w.cx, id, id.offset.page_index(), Reserve::Push);
        let made = made.map(|page| page.end_io());
        match (known, free) {
            (_, 0) => assert!(matches!(made, Err(PageError::NoMemory { .. }))),
            (None, _) => {
                assert_eq!(made, Ok(()));
                self.named.insert(id, Known::default());
                self.lost_names();
            }
            // The frame for the new page may have been the cached page itself: then it has the name all the same.
            (Some(k), _) => {
                if made.is_ok() {
                    assert!(k.cached, "only a cached page can have given way");
                    self.named.insert(id, Known::default());
                } else {
                    assert_eq!(made, Err(PageError::Exists(id)));
                }
                self.lost_names();
            }
        }
    }
    fn look(&mut self, id: Identity, known: Option<Known>) {
        let page = self.w.db.lookup_shared(&self.w.cx, id);
        assert_eq!(page.is_some(), known.is_some());
        if let Some(page) = page {
            assert_eq!(page.identity(), Some(id));
            self.named.entry(id).and_modify(|k| k.cached = false);
        }
    }
    fn let_go(&mut self, id: Identity, known: Option<Known>) {
        let Some(k) = known.filter(|k| !k.mapped && k.lck == 0 && k.cow == 0 && !k.cached) else {
            return;
        };
        let dontneed = self.lot.below(2) == 0;
        self.w.free(id, dontneed);
        self.named.insert(id, Known { cached: true, modified: false, ..k });
    }
    fn release(&mut self, id: Identity, known: Option<Known>) {
        let Some(page) = self.w.db.try_lookup_shared(&self.w.cx, id) else {
            assert!(known.is_none_or(|k| k.cached));
            return;
        };
        let k = known.expect("found, so known");
        let anon = self.w.db.vnodes().kind(id.vnode) == VnodeKind::Swap;
        let want = if k.mapped || anon || k.lck != 0 || k.cow != 0 {
            Released::NotReleased
        } else if k.modified {
            Released::Modified
        } else {
            Released::Clean
        };
        assert_eq!(self.w.db.release(&self.w.cx, page, true), want);
        if want == Released::Clean {
            self.named.insert(id, Known { cached: true, ..k });
        }
    }
    fn destroy(&mut self, id: Identity, known: Option<Known>) {
        let page = self.w.db.lookup_excl_cached(&self.w.cx, id);
        assert_eq!(page.is_some(), known.is_some());
        if let Some(page) = page {
            self.w.db.destroy(&self.w.cx, page);
            self.named.remove(&id);
        }
    }
    fn rename(&mut self, id: Identity, known: Option<Known>) {
        let to = self.any_name();
        let Some(k) = known.filter(|_| to != id) else { return };
        let page = self.w.db.lookup_excl(&self.w.cx, id).expect("known");
        self.w.db.rename(&self.w.cx, &page, to).expect("nobody holds it");
        drop(page);
        self.named.remove(&id);
        let old = self.named.remove(&to).unwrap_or_default();
        let k = Known {
            cached: false,
            modified: false,
            mapped: k.mapped,
            lck: k.lck + old.lck,
            cow: k.cow + old.cow,
        };
        self.named.insert(to, k);
    }
    fn claim(&mut self, id: Identity, known: Option<Known>) {
        let Some(mut k) = known else { return };
        let Some(page) = self.w.db.lookup_shared(&self.w.cx, id) else { unreachable!("known") };
        k.cached = false;
        let db = &self.w.db;
        let era = page.page().claim_era().unwrap_or_else(|| db.claim_era());
        match self.lot.below(6) {
            0 if db.claim(&page, Claim::Lck).is_ok() => k.lck += 1,
            1 if db.claim(&page, Claim::Cow).is_ok() => k.cow += 1,
            2 => {
                db.unclaim(&page, Claim::Lck, era);
                k.lck = k.lck.saturating_sub(1);
            }
            3 => {
                db.unclaim(&page, Claim::Cow, era);
                k.cow = k.cow.saturating_sub(1);
            }
            4 if db.move_claim(&page, Claim::Cow, era).is_ok() && k.lck > 0 => {
                (k.lck, k.cow) = (k.lck - 1, k.cow + 1);
            }
            5 if db.move_claim(&page, Claim::Lck, era).is_ok() && k.cow > 0 => {
                (k.lck, k.cow) = (k.lck + 1, k.cow - 1);
            }
            _ => {}
        }
        drop(page);
        self.named.insert(id, k);
    }
    fn map(&mut self, id: Identity, known: Option<Known>) {
        let Some(mut k) = known else { return };
        let page = self.w.db.lookup_excl(&self.w.cx, id).expect("known");
        k.cached = false;
        if k.mapped {
            self.w.db.unload(&self.w.cx, &page);
        } else {
            self.w.hat.map(&self.w.cx, page.id(), 1);
        }
        if self.lot.below(3) == 0 {
            page.page().set_ref_mod(RefMod::MOD);
            k.modified = true;
        }
        k.mapped = !k.mapped;
        drop(page);
        self.named.insert(id, k);
    }
    fn kernel(&mut self) {
        if self.lot.below(2) == 0 && self.kernel.len() < 8 {
            let colour = self.lot.below(9);
            let made = self.w.db.alloc(&self.w.cx, colour, Reserve::Normal).map(|page| {
                self.w.db.set_kernel(&page, true);
                page.leak()
            });
            if let Ok(id) = made {
                self.kernel.push(id);
                self.lost_names();
            }
        } else if let Some(id) = self.kernel.pop() {
            self.w.db.free(&self.w.cx, self.w.db.adopt_excl(&self.w.cx, id), false);
        }
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    let steps: u32 = option_env!("SEGVM_LONG").map_or(1500, |_| 100_000);
    for hash in hashes() {
        for colours in [1, 4, 16] {
            for seed in [0x5eed_0001, 0x5eed_0002, 0x5eed_0003] {
                let mut run = Run::new(hash, colours, seed);
                for step in 0..steps {
                    let at = std::panic::AssertUnwindSafe(|| run.step());
                    if let Err(e) = std::panic::catch_unwind(at) {
                        std::eprintln!("{hash:?}, {colours} colours, seed {seed:#x}, step {step}");
                        std::panic::resume_unwind(e);
                    }
                }
            }
        }
    }
}
