//! Ways to break the page layer's structures behind its back.
//!
//! A check that has never seen damage proves nothing. Each variant makes one invariant of [`PageDb::verify`] false and nothing else; tests see
//! it named. Not part of the interface: hidden, and of no use to anybody whose machine is to go on.

use crate::cx::Cx;
use crate::db::{Claims, PageDb};
use crate::page::{ORPHAN, PageId, PageState};
use crate::sync::atomic::Ordering::Relaxed;
use crate::vnode::{Identity, VnodeId};

/// One way to break something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// Takes a page out of the hash, but leaves it its name.
    Unhash(PageId),
    /// Changes a page's name without filing it again.
    Misname(PageId, Identity),
    /// Files a second page under a name (chain hash only).
    Duplicate(PageId, PageId),
    /// Takes a page off its vnode's list.
    Unlist(PageId),
    /// Puts a page on a vnode's list besides.
    ListTwice(PageId, VnodeId),
    /// Flips `P_FREE`.
    FlipFree(PageId),
    /// Flips `P_SWAP`.
    FlipSwap(PageId),
    /// Takes a nameless free page off its list.
    LoseFree(PageId),
    /// Takes a cached page off its list.
    LoseCached(PageId),
    /// Spoils the back link of a listed free page.
    Unlink(PageId),
    /// Gives a page a mapping that no table has.
    Map(PageId),
    /// Claims a page this many times without paying.
    Claim(PageId, u16),
    /// Lends a page this many times without paying, and leaves it without an owner if so said.
    Lend(PageId, u32, bool),
    /// Marks a page as in transit.
    Transit(PageId),
    /// Has a page held shared by so many.
    Hold(PageId, u32),
}

impl PageDb {
    /// Does the damage. The caller picks pages in the right state; nothing is checked.
    #[doc(hidden)]
    pub fn damage(&self, cx: &Cx, damage: Damage) {
        let flip = |id, bit: PageState| {
            let p = self.page(id);
            if p.state().contains(bit) {
                p.set_state(PageState::empty(), bit);
            } else {
                p.set_state(bit, PageState::empty());
            }
        };
        match damage {
            Damage::Unhash(id) => {
                let name = self.page(id).identity().expect("a named page");
                self.hash().remove(cx, self.pages(), name, id);
                self.page(id).set_identity(Some(name));
            }
            Damage::Misname(id, name) => self.page(id).set_identity(Some(name)),
            Damage::Duplicate(first, second) => {
                let name = self.page(first).identity().expect("a named page");
                self.page(first).set_identity(None);
                let filed = self.hash().insert_unless_present(cx, self.pages(), name, second);
                self.page(first).set_identity(Some(name));
                filed.expect("the first was out of sight");
            }
            Damage::Unlist(id) => {
                let name = self.page(id).identity().expect("a named page");
                self.vnodes().slot(name.vnode).pages.lock(cx).sub(self.pages(), id);
            }
            Damage::ListTwice(id, vnode) => {
                self.vnodes().slot(vnode).pages.lock(cx).add(self.pages(), id);
            }
            Damage::FlipFree(id) => flip(id, PageState::FREE),
            Damage::FlipSwap(id) => flip(id, PageState::SWAP),
            Damage::LoseFree(id) => self.free_list().lose(cx, self.pages(), id),
            Damage::LoseCached(id) => self.cache_list().remove(cx, self.pages(), id),
            Damage::Unlink(id) => self.page(id).prev.store(u32::MAX, Relaxed),
            Damage::Map(id) => self.page(id).mapping().set_head(cx, 1),
            Damage::Claim(id, n) => {
                let era = (n != 0).then(|| self.claim_era());
                let claims = Claims { lck: 0, cow: n, era };
                self.page(id).claims.store(claims.word(), Relaxed);
            }
            Damage::Lend(id, n, orphan) => {
                let word = if orphan { n | ORPHAN } else { n };
                self.page(id).loans.store(word, Relaxed);
            }
            Damage::Transit(id) => self.page(id).iolock.store(1, Relaxed),
            Damage::Hold(id, n) => self.page(id).selock.store(n, Relaxed),
        }
    }
}
