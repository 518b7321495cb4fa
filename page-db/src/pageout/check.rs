//! One hand looks at one frame.

use super::push::Queued;
use super::{Hands, Pageout, ScanReport};
use crate::cx::Cx;
use crate::db::PageDb;
use crate::mappings::{RefMod, SyncMode};
use crate::page::{PageId, PageState};
use crate::pvn;
use crate::selock::{ExclPage, LockedPage};
use crate::sync::{Mutation, mutated};
use crate::vnode::{Identity, VnodeKind};

/// Which hand looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hand {
    /// Gathers and clears the bits.
    #[doc(alias("front_hand", "fronthand"))]
    Front,
    /// Only looks, and takes widely shared pages for referenced.
    #[doc(alias("back_hand", "backhand"))]
    Back,
}

/// What a hand did about a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// Not eligible: the kernel's, locked, free, claimed, nameless, or too widely shared (-1).
    Skipped,
    /// In use, or nothing could be done about it now (0).
    Examined,
    /// On the cache list now, or queued to be pushed and freed (1).
    Freed,
}

/// What [`look`] found; the caller does the queueing, since the page is unlocked by then.
enum Look {
    Skipped,
    Shared,
    Examined,
    Freed,
    Dirty(Identity),
}

impl Pageout {
    /// What `hand` does about `page`: the seven steps of the textbook's `checkpage`. A dirty victim is queued, and pushed with the next scan.
    #[doc(alias = "checkpage")]
    pub fn check_page(&self, cx: &Cx, db: &PageDb, page: PageId, hand: Hand) -> Checked {
        if self.is_foreign(db) {
            return Checked::Skipped;
        }
        let mut hands = self.hands.lock(cx);
        Self::check(cx, db, &mut hands, page, hand, &mut ScanReport::default())
    }
    /// As [`Pageout::check_page`] for the frame with an index. held: hands
    pub(super) fn look_at(
        &self,
        cx: &Cx,
        db: &PageDb,
        hands: &mut Hands,
        index: u64,
        hand: Hand,
        report: &mut ScanReport,
    ) -> Checked {
        Self::check(cx, db, hands, Self::id_at(index), hand, report)
    }
    fn check(
        cx: &Cx,
        db: &PageDb,
        hands: &mut Hands,
        page: PageId,
        hand: Hand,
        report: &mut ScanReport,
    ) -> Checked {
        let checked = match look(cx, db, page, hand, hands.po_share) {
            Look::Skipped => Checked::Skipped,
            Look::Shared => {
                report.shared += 1;
                Checked::Skipped
            }
            Look::Examined => Checked::Examined,
            Look::Freed => {
                report.freed += 1;
                Checked::Freed
            }
            Look::Dirty(id) => match hands.queue.push(id) {
                Queued::New => {
                    report.queued += 1;
                    Checked::Freed
                }
                Queued::Already => Checked::Freed,
                Queued::Full => Checked::Examined, // O5
            },
        };
        match checked {
            Checked::Skipped => report.skipped += 1,
            Checked::Examined => report.examined += 1,
            Checked::Freed => {}
        }
        checked
    }
}

/// Step 1, made without a lock and again with it: pages that are none of page-out's business.
fn is_ineligible(db: &PageDb, page: PageId) -> bool {
    let p = db.page(page);
    let Some(id) = p.identity() else { return true };
    p.state().intersects(PageState::FREE | PageState::KERNEL)
        || p.is_kept()
        || db.vnodes().kind(id.vnode) == VnodeKind::Kernel
}

fn look(cx: &Cx, db: &PageDb, id: PageId, hand: Hand, po_share: u32) -> Look {
    // 1. Without a lock.
    let lock = db.lock_state(id);
    if lock.excl || lock.shared != 0 || is_ineligible(db, id) {
        return Look::Skipped;
    }
    if db.share_count(cx, id) > po_share {
        return Look::Shared;
    }
    // 2. With it (O1).
    let Some(page) = db.try_lock_excl(cx, id) else { return Look::Skipped };
    if is_ineligible(db, id) || db.is_io_locked(id) {
        return Look::Skipped;
    }
    // 3. The bits.
    let mode = match hand {
        Hand::Front => SyncMode::ZeroRm,
        Hand::Back => SyncMode::StopOnRef { share_limit: po_share },
    };
    let bits = db.sync_ref_mod(cx, &page, mode);
    judge(cx, db, page, hand, bits)
}

/// Steps 4 to 7, for a page whose bits are known.
fn judge(cx: &Cx, db: &PageDb, page: ExclPage<'_>, hand: Hand, bits: RefMod) -> Look {
    // 4. Used between the hands.
    if bits.contains(RefMod::REF) {
        if hand == Hand::Front {
            page.page().clear_ref_mod(RefMod::REF);
        }
        return Look::Examined;
    }
    // 5. A victim, whichever hand sees it. 6. Dirty: the push frees it (O4).
    if bits.contains(RefMod::MOD) {
        return dirty(db, &page);
    }
    // 7. Clean: translations go first, then the bits are read for good (O3).
    db.unload(cx, &page);
    let bits = if mutated(Mutation::CleanBelieved) { bits } else { page.page().ref_mod() };
    if bits.contains(RefMod::REF) {
        if hand == Hand::Front {
            page.page().clear_ref_mod(RefMod::REF);
        }
        return Look::Examined;
    }
    if bits.contains(RefMod::MOD) {
        return dirty(db, &page);
    }
    if let Some(id) = page.identity() {
        pvn::count_freed(cx, db, id.vnode);
    }
    db.free(cx, page, false);
    Look::Freed
}

/// A dirty victim can be pushed if its vnode's object lives.
fn dirty(db: &PageDb, page: &ExclPage<'_>) -> Look {
    match page.identity() {
        Some(id) if db.vnodes().lives(id.vnode) => Look::Dirty(id),
        _ => Look::Examined,
    }
}
