//! Checking the page layer against itself, when nothing runs.
//!
//! The walk recomputes every membership from each side and names the first disagreement: L1..L4, P1, P2, F1, C1, B1 in part.

use super::PageDb;
use crate::cx::Cx;
use crate::page::{PageId, PageState};
use crate::vnode::Identity;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec;

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
}

fn broken(invariant: &'static str, what: impl Into<String>) -> PageDamage {
    PageDamage { invariant, what: what.into() }
}

impl PageDb {
    /// Checks every page invariant. Call when quiet: pages in flight look like damage.
    ///
    /// # Errors
    /// The first invariant found broken.
    pub fn verify(&self, cx: &Cx) -> Result<PageCensus, PageDamage> {
        let n = self.pages().len() as usize + 1;
        let mut on_free = vec![0u8; n];
        let mut on_cache = vec![0u8; n];
        let mut on_vnode = vec![0u8; n];
        for id in self.free_list().snapshot(cx, self.pages()).into_iter().flatten() {
            on_free[id.link() as usize] += 1;
        }
        for id in self.free_list().magazines(cx).into_iter().flatten() {
            on_free[id.link() as usize] += 1;
        }
        for id in self.cache_list().snapshot(cx, self.pages()).into_iter().flatten() {
            on_cache[id.link() as usize] += 1;
        }
        let hashed = self.verify_hash(cx)?;
        for v in self.vnodes().ids() {
            for id in self.vnode_pages(cx, v) {
                on_vnode[id.link() as usize] += 1;
                if self.page(id).identity().map(|i| i.vnode) != Some(v) {
                    return Err(broken(
                        "L1",
                        alloc::format!(
                            "page {id} is on the list of vnode {v} but is {:?}",
                            self.page(id).identity()
                        ),
                    ));
                }
            }
        }
        let mut census = PageCensus::default();
        for id in self.pages().ids() {
            let at = id.link() as usize;
            self.verify_page(id, on_free[at], on_cache[at], on_vnode[at], &hashed, &mut census)?;
        }
        let free = census.free + census.cached;
        if free != self.freemem() {
            return Err(broken(
                "L4",
                alloc::format!("{free} pages are free, freemem says {}", self.freemem()),
            ));
        }
        Ok(census)
    }
    fn verify_hash(&self, cx: &Cx) -> Result<BTreeMap<Identity, PageId>, PageDamage> {
        let mut hashed = BTreeMap::new();
        for (id, page) in self.hash().all(cx, self.pages()) {
            if let Some(other) = hashed.insert(id, page) {
                return Err(broken(
                    "I4 one page per identity",
                    alloc::format!("{id} names pages {other} and {page}"),
                ));
            }
            if self.page(page).identity() != Some(id) {
                return Err(broken(
                    "L1",
                    alloc::format!(
                        "page {page} is filed under {id}, carries {:?}",
                        self.page(page).identity()
                    ),
                ));
            }
            if self.hash().search_locked(cx, self.pages(), id) != Some(page) {
                return Err(broken(
                    "L1",
                    alloc::format!("page {page} is in the table but {id} does not find it"),
                ));
            }
        }
        Ok(hashed)
    }
    fn verify_page(
        &self,
        id: PageId,
        free: u8,
        cached: u8,
        listed: u8,
        hashed: &BTreeMap<Identity, PageId>,
        census: &mut PageCensus,
    ) -> Result<(), PageDamage> {
        let p = self.page(id);
        let named = p.identity();
        let in_hash = named.is_some_and(|i| hashed.get(&i) == Some(&id));
        if named.is_some() != in_hash {
            return Err(broken(
                "L1",
                alloc::format!("page {id} carries {named:?} but is not in the hash"),
            ));
        }
        if named.is_some() != (listed == 1) || listed > 1 {
            return Err(broken(
                "P1",
                alloc::format!("page {id} ({named:?}) is on {listed} vnode lists"),
            ));
        }
        let is_free = p.is_free();
        let expect = (u8::from(is_free && named.is_none()), u8::from(is_free && named.is_some()));
        if (free, cached) != expect {
            return Err(broken(
                "P1",
                alloc::format!(
                    "page {id} ({named:?}, free {is_free}) is on {free} free and {cached} cache lists"
                ),
            ));
        }
        if is_free && (p.is_mapped() || p.is_claimed()) {
            return Err(broken("P2", alloc::format!("free page {id} is mapped or claimed")));
        }
        match (named.is_some(), is_free) {
            (false, true) => census.free += 1,
            (true, true) => census.cached += 1,
            (true, false) => census.named += 1,
            (false, false) if p.state().contains(PageState::KERNEL) => census.kernel += 1,
            (false, false) => census.unnamed += 1,
        }
        Ok(())
    }
}
