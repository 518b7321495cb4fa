//! Checking the page layer against itself, when nothing runs.
//!
//! The walk recomputes every membership from each side and names the first disagreement:
//!
//! | name | what is compared |
//! |---|---|
//! | I4 | no two pages in the hash carry one identity |
//! | L1 | hash and pages: each entry is filed under the identity its page carries, and found there; vnode lists likewise |
//! | L4 | pages counted free, and freemem |
//! | P1 | each page is in exactly one of the four states; state bits fit the name |
//! | P2 | free pages have no mapping, no claim and no loan |
//! | F1, F2 | free lists and magazines hold the nameless free pages, each once; links and bounds |
//! | C1 | cache lists hold the named free pages, each once, in the bin of their colour |
//! | K4 | no free page is in transit |
//! | B1 | claims, loans and retired pages are charged to availrmem |
//! | A1 | absent pages are nameless, on no list, in no use, and counted |
//! | E4 | an orphan has no name and is lent |
//! | T1 | retired pages are nameless, on no list, and counted; so are those to be retired (T2) |
//! | T3 | no free page is to be retired |

use super::{MEMORY_KEY, PageDb};
use crate::cx::Cx;
use crate::page::{PageId, PageState};
use crate::selock::{RETIRE_PENDING, RETIRED};
use crate::sync::atomic::Ordering;
use crate::vnode::{Identity, VnodeKind};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A broken invariant of the page layer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct PageDamage {
    /// The invariant's short name.
    pub invariant: &'static str,
    /// What was found.
    pub what: String,
}

/// How the frames are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PageCensus {
    /// Nameless, free.
    pub free: u64,
    /// Named, free.
    pub cached: u64,
    /// Named, in use.
    pub named: u64,
    /// Nameless, in use, marked as the kernel's.
    pub kernel: u64,
    /// Nameless, in use, held by an operation under way.
    pub unnamed: u64,
    /// Out of service.
    pub retired: u64,
    /// Nameless, lent: their owner has gone or has another page.
    pub orphans: u64,
    /// No memory.
    pub absent: u64,
}

impl PageCensus {
    /// All frames counted.
    pub fn total(&self) -> u64 {
        self.free
            + self.cached
            + self.named
            + self.kernel
            + self.unnamed
            + self.retired
            + self.orphans
            + self.absent
    }
}

/// On how many lists of each kind a page was met.
#[derive(Clone, Copy, Default)]
struct Met {
    free: u8,
    cached: u8,
    vnode: u8,
}

fn broken<T>(invariant: &'static str, what: String) -> Result<T, PageDamage> {
    Err(PageDamage { invariant, what })
}

macro_rules! check {
    ($holds:expr, $invariant:literal, $($what:tt)+) => {
        if !$holds {
            return broken($invariant, alloc::format!($($what)+));
        }
    };
}

impl PageDb {
    /// Checks every page invariant. Call when quiet: pages in flight look like damage.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, cx: &Cx) -> Result<PageCensus, PageDamage> {
        const { assert!(MEMORY_KEY > u32::MAX as u64, "no page's key is the memory key") };
        let mut met = vec![Met::default(); self.pages().len() as usize + 1];
        self.verify_free(cx, &mut met)?;
        self.verify_cached(cx, &mut met)?;
        let hashed = self.verify_hash(cx)?;
        self.verify_vnodes(cx, &mut met)?;
        let mut census = PageCensus::default();
        let (mut claimed, mut pages, mut lent, mut to_retire) = (0, 0, 0, 0);
        for id in self.pages().ids() {
            self.verify_page(id, met[id.link() as usize], &hashed, &mut census)?;
            let claims = self.page(id).claims();
            let some = !claims.is_none();
            let named = self.page(id).is_named();
            check!(claims.era.is_some() || !some, "Q4", "page {id} has {claims:?}");
            check!(claims.era.is_none() || named, "Q4", "page {id} without a name has {claims:?}");
            claimed += claims.charge();
            pages += u64::from(some);
            lent += u64::from(self.page(id).is_lent());
            let marks = self.page(id).selock.load(Ordering::SeqCst) & (RETIRE_PENDING | RETIRED);
            to_retire += u64::from(marks != 0);
        }
        let counted = self.to_retire.load(Ordering::SeqCst);
        check!(
            counted == to_retire,
            "T2",
            "{to_retire} pages are retired or to be, {counted} are counted"
        );
        let retired = self.retired_pages();
        check!(
            census.retired == retired,
            "T1",
            "{} pages are retired, {retired} are counted",
            census.retired
        );
        let (absent, all) = (self.absent_frames(), census.total());
        check!(
            census.absent == absent && self.free_mem().total() + absent == all,
            "A1",
            "{} of {all} frames are no memory, {absent} are counted, of memory {}",
            census.absent,
            self.free_mem().total()
        );
        let free = census.free + census.cached;
        check!(
            free == self.freemem(),
            "L4",
            "{free} pages are free, freemem says {}",
            self.freemem()
        );
        let (avail, total) = (self.free_mem().availrmem(), self.free_mem().total());
        check!(
            claimed + lent + census.retired + avail <= total,
            "B1",
            "claims and loans hold {} pages, yet availrmem is {avail} of {total}",
            claimed + lent
        );
        let counted = self.lent_pages();
        check!(counted == lent, "B1", "{lent} pages are lent, {counted} are counted");
        let counted = self.claimed_pages();
        check!(counted == pages, "B1", "{pages} pages have claims, {counted} are counted");
        Ok(census)
    }
    fn verify_free(&self, cx: &Cx, met: &mut [Met]) -> Result<(), PageDamage> {
        if let Some(id) = self.free_list().broken_link(cx, self.pages()) {
            return broken("F1", alloc::format!("the links at page {id} disagree"));
        }
        for (bin, list) in self.free_list().snapshot(cx, self.pages()).into_iter().enumerate() {
            for id in list {
                met[id.link() as usize].free += 1;
                let colour = self.pfn(id).0 & (self.free_list().colours() - 1);
                check!(colour == bin as u64, "F1", "page {id} of colour {colour} is in bin {bin}");
            }
        }
        for (cpu, frames) in self.free_list().magazines(cx).into_iter().enumerate() {
            let (n, most) = (frames.len() as u64, self.free_list().magazine_size());
            check!(n <= most, "F2", "the magazine of cpu {cpu} holds {n} frames of at most {most}");
            for id in frames {
                met[id.link() as usize].free += 1;
            }
        }
        Ok(())
    }
    fn verify_cached(&self, cx: &Cx, met: &mut [Met]) -> Result<(), PageDamage> {
        if let Some(id) = self.cache_list().broken_link(cx, self.pages()) {
            return broken("C1", alloc::format!("the links at page {id} disagree"));
        }
        for (bin, list) in self.cache_list().snapshot(cx, self.pages()).into_iter().enumerate() {
            for id in list {
                met[id.link() as usize].cached += 1;
                let colour = self.pfn(id).0 & (self.free_list().colours() - 1);
                check!(colour == bin as u64, "C1", "page {id} of colour {colour} is in bin {bin}");
            }
        }
        Ok(())
    }
    fn verify_hash(&self, cx: &Cx) -> Result<BTreeMap<Identity, PageId>, PageDamage> {
        let mut all = self.hash().all(cx, self.pages());
        all.sort_unstable();
        if let Some(twice) = all.windows(2).find(|w| w[0].0 == w[1].0) {
            let (id, a, b) = (twice[0].0, twice[0].1, twice[1].1);
            return broken("I4", alloc::format!("{id} names pages {a} and {b}"));
        }
        for &(id, page) in &all {
            let carries = self.page(page).identity();
            check!(
                carries == Some(id),
                "L1",
                "page {page} is filed under {id}, carries {}",
                named(carries)
            );
            check!(
                self.hash().search_locked(cx, self.pages(), id) == Some(page),
                "L1",
                "page {page} is in the table but {id} does not find it"
            );
        }
        Ok(all.into_iter().collect())
    }
    fn verify_vnodes(&self, cx: &Cx, met: &mut [Met]) -> Result<(), PageDamage> {
        for v in self.vnodes().ids() {
            let pages = self.vnode_pages(cx, v);
            let n = self.vnode_page_count(cx, v);
            check!(
                n == pages.len() as u64,
                "P1",
                "vnode {v} counts {n} pages, lists {}",
                pages.len()
            );
            for (i, id) in pages.iter().enumerate() {
                met[id.link() as usize].vnode += 1;
                let carries = self.page(*id).identity();
                check!(
                    carries.map(|i| i.vnode) == Some(v),
                    "L1",
                    "page {id} is on the list of vnode {v} but is {}",
                    named(carries)
                );
                let next = pages[(i + 1) % pages.len()];
                let back = PageId::from_link(self.page(next).vp_prev.load(Ordering::Relaxed));
                check!(back == Some(*id), "P1", "the list of vnode {v} is broken at page {next}");
            }
        }
        Ok(())
    }
    fn verify_page(
        &self,
        id: PageId,
        met: Met,
        hashed: &BTreeMap<Identity, PageId>,
        census: &mut PageCensus,
    ) -> Result<(), PageDamage> {
        let p = self.page(id);
        let (name, state, free) = (p.identity(), p.state(), p.is_free());
        let pending = p.selock.load(Ordering::SeqCst) & RETIRE_PENDING != 0;
        check!(!(free && pending), "T3", "page {id} is free and was to be retired then");
        let in_hash = name.is_some_and(|i| hashed.get(&i) == Some(&id));
        check!(
            name.is_some() == in_hash,
            "L1",
            "page {id} carries {} but is not in the hash",
            named(name)
        );
        check!(
            u8::from(name.is_some()) == met.vnode,
            "P1",
            "page {id} ({}) is on {} vnode lists",
            named(name),
            met.vnode
        );
        let (on_free, on_cache) =
            (u8::from(free && name.is_none()), u8::from(free && name.is_some()));
        check!(
            met.free == on_free,
            "F1",
            "page {id} ({}, free {free}) is on {} free lists",
            named(name),
            met.free
        );
        check!(
            met.cached == on_cache,
            "C1",
            "page {id} ({}, free {free}) is on {} cache lists",
            named(name),
            met.cached
        );
        let swap = name.is_some_and(|i| self.vnodes().kind(i.vnode) == VnodeKind::Swap);
        check!(
            state.contains(PageState::SWAP) == swap
                && !(state.intersects(PageState::KERNEL | PageState::RETIRED | PageState::ABSENT)
                    && (free || name.is_some()))
                && (!state.contains(PageState::DEVICE) || state.contains(PageState::KERNEL)),
            "P1",
            "page {id} ({}) is in state {state:?}",
            named(name)
        );
        check!(
            !p.is_orphan() || (name.is_none() && !free && p.loans() != 0),
            "E4",
            "page {id} ({}) is an orphan with {} loans",
            named(name),
            p.loans()
        );
        if state.contains(PageState::ABSENT) {
            let used = p.is_mapped() || p.is_kept() || p.selock.load(Ordering::SeqCst) != 0;
            check!(state == PageState::ABSENT && !used, "A1", "page {id}, no memory, is in use");
        }
        if free {
            check!(!p.is_mapped(), "P2", "free page {id} is mapped");
            check!(!p.is_claimed(), "P2", "free page {id} is claimed");
            check!(!p.is_lent(), "P2", "free page {id} is lent");
            check!(!self.is_io_locked(id), "K4", "free page {id} is in transit");
        }
        match (name.is_some(), free) {
            (false, true) => census.free += 1,
            (true, true) => census.cached += 1,
            (true, false) => census.named += 1,
            (false, false) if state.contains(PageState::KERNEL) => census.kernel += 1,
            (false, false) if state.contains(PageState::RETIRED) => census.retired += 1,
            (false, false) if state.contains(PageState::ABSENT) => census.absent += 1,
            (false, false) if p.is_orphan() => census.orphans += 1,
            (false, false) => census.unnamed += 1,
        }
        Ok(())
    }
    /// The pages of `census.unnamed`: nameless, in use, not the kernel's. Empty when nothing runs (P1).
    pub fn unnamed_pages(&self) -> Vec<PageId> {
        let unnamed = |id: &PageId| {
            let p = self.page(*id);
            p.identity().is_none()
                && !p.is_orphan()
                && !p.state().intersects(
                    PageState::FREE | PageState::KERNEL | PageState::RETIRED | PageState::ABSENT,
                )
        };
        self.pages().ids().filter(unnamed).collect()
    }
}

fn named(id: Option<Identity>) -> String {
    id.map_or_else(|| String::from("nameless"), |i| alloc::format!("{i}"))
}
