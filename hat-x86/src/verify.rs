//! Checking the hat against itself, when nothing runs.
//!
//! The walk goes down every top table by its bytes, recounts what the records say, and remembers every consistent entry; then every page's
//! list is compared with what was met, and what the processors remember with what the tables hold. The first disagreement is named.
//!
//! Sources: illumos.md 12.61 (e); DESIGN section 4, laws 3 and 5; invariants V05, V10.

use crate::error::HatDamage;
use crate::geometry::{ENTRIES, KERNEL_TOP, TOP, WINDOW_TOP, entry_base, index};
use crate::hat::HatState;
use crate::hment::Site;
use crate::htable::tag;
use crate::provider::HatX86;
use crate::pte::{PteBits, X86Pte};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use page_db::sync::atomic::Ordering::SeqCst;
use page_db::{Cx, PageId, PageState, Pfn, VirtAddr};

/// One hat, for views and checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
pub struct HatInfo {
    /// Its id; 0 is the kernel's.
    pub id: u32,
    /// Frame of its top table.
    pub root: Pfn,
    /// Pages it maps.
    pub resident: u64,
    /// Its page tables.
    pub tables: u64,
}

/// What the walk has met.
#[derive(Default)]
struct Met {
    tables: BTreeSet<u32>,
    /// Mappings by page.
    mapped: BTreeMap<PageId, Vec<Site>>,
    /// Leaf entries of any kind to frames of the kernel's: of which hat, and at which address.
    kernels: Vec<(u32, u64, X86Pte)>,
}

impl HatX86 {
    /// All hats, by id.
    pub fn hats(&self, cx: &Cx) -> Vec<HatInfo> {
        let info = |st: &HatState| {
            let mut tables = 0;
            self.each_table(st, &mut |_| tables += 1);
            HatInfo { id: st.id, root: self.root_pfn(st), resident: self.resident_of(st), tables }
        };
        self.states(cx).iter().map(|st| info(st)).collect()
    }
    /// Every mapping on a page's list: hat, address, entry with the effective rights; by hat and address.
    pub fn mappings_of(&self, cx: &Cx, page: PageId) -> Vec<(u32, VirtAddr, X86Pte)> {
        let list = self.lists.enter(cx, &self.db, page);
        // M5: with the lock it does not become a table's frame or cease to be one.
        let mut all: Vec<_> = if self.db.page(page).state().contains(PageState::KERNEL) {
            Vec::new()
        } else {
            list.sites()
                .map(|s| {
                    let (space, va) = self.place_of(s);
                    let entry = X86Pte(self.cell_at(s).load(SeqCst));
                    let entry = self.tables.get(s.table).effective(entry);
                    (space.0, VirtAddr::new(va).unwrap_or_default(), entry)
                })
                .collect()
        };
        drop(list);
        all.sort_by_key(|(hat, va, _)| (*hat, *va));
        all
    }
    /// Checks every invariant that can be seen from outside. Call when nothing runs.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, cx: &Cx) -> Result<(), HatDamage> {
        let mut met = Met::default();
        for st in self.states(cx) {
            self.verify_hat(&st, &mut met)?;
        }
        if met.tables.len() as u64 != self.tables.live() {
            let what =
                format!("{} tables are reachable, {} live", met.tables.len(), self.tables.live());
            return Err(HatDamage::new("H2 no table is lost", what));
        }
        let tables: BTreeSet<Pfn> = met.tables.iter().map(|t| self.tables.get(*t).pfn()).collect();
        let mut kernels = met.kernels.iter();
        if let Some((hat, at, e)) = kernels.find(|(_, _, e)| tables.contains(&e.pfn())) {
            return Err(HatDamage::new("H8 no leaf maps a table", leaf(*hat, *at, *e)));
        }
        self.verify_lists(cx, &mut met)?;
        match self.mmu.remembered_wrongly(cx) {
            Some(what) => Err(HatDamage::new("T1 no stale translation", what)),
            None => Ok(()),
        }
    }
    fn verify_hat(&self, st: &HatState, met: &mut Met) -> Result<(), HatDamage> {
        let kernel = self.root_pfn(self.kernel_state());
        for i in KERNEL_TOP..ENTRIES {
            let of = |root| {
                X86Pte(self.db.word(root, i).load(SeqCst)).with(PteBits::empty(), PteBits::A)
            };
            let (mine, theirs) = (of(self.root_pfn(st)), of(kernel));
            if mine != theirs {
                let what =
                    format!("entry {i} of hat {} is {mine}, the kernel's is {theirs}", st.id);
                return Err(HatDamage::new("P1 one kernel half", what));
            }
        }
        self.verify_table(st, st.root, tag(0, TOP), 0, met)
    }
    /// Checks a table and all below it.
    fn verify_table(
        &self,
        st: &HatState,
        id: u32,
        want: u64,
        parent: u32,
        met: &mut Met,
    ) -> Result<(), HatDamage> {
        let rec = self.tables.get(id);
        let level = rec.level();
        let name = || format!("table {id} (hat {}, level {level}, base {:#x})", st.id, rec.base());
        let broken = |rule, what: String| Err(HatDamage::new(rule, format!("{}: {what}", name())));
        if !rec.is(st.id, want) || rec.parent() != parent {
            return broken("H4 a record says which table it is", format!("{rec:?}"));
        }
        let page = self.db.page_of(rec.pfn());
        if !page.is_some_and(|p| self.db.page(p).state() == PageState::KERNEL) {
            return broken("H4 tables live in kernel frames", format!("frame {}", rec.pfn()));
        }
        // By one way only: what leads here names the hat, the base and the level, and no other entry has the same.
        met.tables.insert(id);
        let mine = if level < TOP {
            0..ENTRIES
        } else if st.is_user() {
            0..KERNEL_TOP
        } else {
            WINDOW_TOP..WINDOW_TOP + 1 // the rest of the upper half is the backend's, compared by P1
        };
        let mut valid = 0u16;
        for i in mine {
            let e = X86Pte(self.db.word(rec.pfn(), i).load(SeqCst));
            if !e.is_present() {
                if e.0 != 0 {
                    return broken(
                        "H5 an absent entry is empty",
                        format!("entry {i} is {:#x}", e.0),
                    );
                }
                continue;
            }
            valid += 1;
            let at = entry_base(rec.base(), level, i);
            if level == 0 {
                self.verify_leaf(st, id, i, at, e, met)?;
                continue;
            }
            let below = tag(at, level - 1);
            let Some((child, _)) = self.child(st.id, e, below) else {
                return broken(
                    "H4 frame leads to record",
                    format!("entry {i} ({e}) leads to no table"),
                );
            };
            // Only the entry above a leaf may deny anything (U1).
            let denied = level == 1 && self.tables.get(child).is_denied();
            let off = if denied { PteBits::W } else { PteBits::empty() };
            let want = X86Pte::table(e.pfn(), st.is_user()).with(PteBits::empty(), off);
            if e.with(PteBits::empty(), PteBits::A) != want {
                let what = format!("entry {i} is {e}, should be {want}");
                return broken("H6 a table's entry grants everything", what);
            }
            self.verify_table(st, child, below, id, met)?;
        }
        if valid != rec.valid() {
            return broken(
                "H1 valid_cnt",
                format!("{valid} entries are present, valid_cnt is {}", rec.valid()),
            );
        }
        if valid == 0 && level < TOP && rec.busy() == 0 {
            return broken("H2 an empty table goes", "it is empty".into());
        }
        if level > 0 && rec.locks() != 0 {
            return broken(
                "H3 locks count pages",
                format!("{} locks above the leaves", rec.locks()),
            );
        }
        Ok(())
    }
    fn verify_leaf(
        &self,
        st: &HatState,
        table: u32,
        i: usize,
        at: u64,
        e: X86Pte,
        met: &mut Met,
    ) -> Result<(), HatDamage> {
        let name = || leaf(st.id, at, e);
        if e.has(PteBits::U) != st.is_user() {
            return Err(HatDamage::new("H6 user or kernel", name()));
        }
        if !e.is_synced() && !e.has(PteBits::A | PteBits::D) {
            return Err(HatDamage::new("H5 unsynced entries start used", name()));
        }
        let page = self.db.page_of(e.pfn());
        if page.is_some_and(|p| self.db.page(p).state().contains(PageState::KERNEL)) {
            met.kernels.push((st.id, at, e));
        }
        match page {
            Some(p) if self.db.page(p).is_free() => {
                Err(HatDamage::new("V10 no entry maps a free page", name()))
            }
            Some(p) if e.is_consistent() => {
                met.mapped.entry(p).or_default().push(Site { table, entry: i as u16 });
                Ok(())
            }
            None if e.is_consistent() => {
                Err(HatDamage::new("M1 a consistent entry has a page", name()))
            }
            _ => Ok(()),
        }
    }
    fn verify_lists(&self, cx: &Cx, met: &mut Met) -> Result<(), HatDamage> {
        let mut records = 0;
        for page in self.db.pages().ids() {
            let p = self.db.page(page);
            if p.state().contains(PageState::KERNEL) {
                continue;
            }
            let list = self.lists.enter(cx, &self.db, page);
            let mut listed: Vec<Site> = list.sites().collect();
            let mut mapped = met.mapped.remove(&page).unwrap_or_default();
            let found = listed.iter().all(|s| list.contains(*s));
            let (count, embedded, share) =
                (list.count(), p.mapping().is_embedded(), p.mapping().share());
            drop(list);
            listed.sort_unstable();
            mapped.sort_unstable();
            if listed != mapped {
                let what = format!("page {page} is mapped by {mapped:?}, its list says {listed:?}");
                return Err(HatDamage::new("M1 entries and mappings agree", what));
            }
            let shape = count as usize == listed.len() && found && (!embedded || share == 0);
            if !shape {
                let what =
                    format!("page {page}: embedded {embedded}, share {share}, listed {listed:?}");
                return Err(HatDamage::new("M1 the list is whole", what));
            }
            records += u64::from(share);
        }
        // A frame of the kernel's has no list: a consistent entry to it has not been compared with anything.
        if let Some((page, sites)) = met.mapped.first_key_value() {
            let what = format!("page {page}, which is the kernel's, is mapped by {sites:?}");
            return Err(HatDamage::new("M1 a consistent entry has a list", what));
        }
        if records != self.lists.live() {
            let what = format!("{records} records are on lists, {} live", self.lists.live());
            return Err(HatDamage::new("M1 no record is lost", what));
        }
        Ok(())
    }
    /// Overwrites the entry of the leaf over `addr`, as a test's damage. Says whether there is such a leaf.
    #[doc(hidden)]
    pub fn damage_entry(&self, cx: &Cx, hat: u32, addr: VirtAddr, raw: u64) -> bool {
        let Some(st) = self.state(cx, hat) else { return false };
        match self.find(cx, &st, addr.get()) {
            crate::walk::Found::Leaf(id) => {
                let pfn = self.tables.get(id).pfn();
                self.db.word(pfn, index(addr.get(), 0)).store(raw, SeqCst);
                true
            }
            crate::walk::Found::Missing(..) => false,
        }
    }
    /// Adds to the `valid_cnt` of the lowest table over `addr`, as a test's damage.
    #[doc(hidden)]
    pub fn damage_valid_cnt(&self, cx: &Cx, hat: u32, addr: VirtAddr, by: u16) {
        if let Some(st) = self.state(cx, hat) {
            let (crate::walk::Found::Leaf(id) | crate::walk::Found::Missing(id, _)) =
                self.find(cx, &st, addr.get());
            self.tables.get(id).damage_valid(by);
        }
    }
    /// Overwrites entry `index` of a hat's top table, as a test's damage.
    #[doc(hidden)]
    pub fn damage_top(&self, cx: &Cx, hat: u32, index: usize, raw: u64) {
        if let Some(st) = self.state(cx, hat) {
            self.db.word(self.root_pfn(&st), index).store(raw, SeqCst);
        }
    }
}

/// A leaf entry, as damage names it.
fn leaf(hat: u32, at: u64, e: X86Pte) -> String {
    format!("{at:#x} of hat {hat}: {e}")
}
