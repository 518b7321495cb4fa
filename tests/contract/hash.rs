//! Page hashes: the two there are, and a chain with flaws.

use crate::{FALLS, HOLDS, all_caught, all_caught_some_time, clauses_of};
use page_db::hash::{ChainHash, DashHash};
use page_db::page::PageArray;
use page_db::{Cx, Identity, PageHash, PageId, Rank};
use segvm::contract::{Breach, check_page_hash, page_hash};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::ThreadId;

#[test]
fn both_hashes_keep_the_contract() {
    page_hash(|n| Box::new(ChainHash::new(n).expect("heap")));
    page_hash(|n| Box::new(DashHash::new(n)));
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    HitsTheRemoved,
    LosesOneInSeven,
    HintsAtTheLoser,
    LetsTheSecondWin,
    TellsTheLoserItWon,
    NamesTheLoser,
    ForgetsToName,
    KeepsTheName,
    ListsTwice,
    CountsNoChains,
    RunsPastATakenName,
    StopsAtANamelessPage,
    MissesWhileOthersMove,
    KeepsALock,
    ReplacesInTwoSteps,
    LeavesTheNameBehind,
    SearchesAndThenInserts,
    FallsBesideOthers,
}

#[derive(Debug)]
struct Flawed {
    inner: ChainHash,
    flaw: Flaw,
    removed: Mutex<Option<(Identity, PageId)>>,
    /// Who lost an insert.
    lost: Mutex<Option<PageId>>,
    moving: AtomicU32,
    /// The thread that made it.
    maker: ThreadId,
}

impl Flawed {
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    /// The search under one hold of the lock, the insert under another: whoever came in between is lost.
    fn insert_after_a_search(
        &self,
        cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        if let Some(there) = self.inner.search_locked(cx, pages, id) {
            return Err(there);
        }
        std::thread::yield_now();
        while let Err(there) = self.inner.insert_unless_present(cx, pages, id, page) {
            self.inner.replace(cx, pages, id, there, page);
            if pages.get(page).is(id) {
                break;
            }
        }
        Ok(())
    }
    fn misses(&self, id: Identity) -> bool {
        self.is(Flaw::LosesOneInSeven) && id.offset.page_index() % 7 == 5
            || self.is(Flaw::MissesWhileOthersMove) && self.moving.load(SeqCst) > 0
    }
}

impl PageHash for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }
    fn search_hint(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        if self.misses(id) {
            return None;
        }
        let found = self.inner.search_hint(cx, pages, id);
        let loser = self.lost.lock().unwrap().filter(|p| Some(*p) != found);
        if self.is(Flaw::HintsAtTheLoser) && found.is_some() && loser.is_some() {
            // It carries the name for as long as the caller looks.
            loser.inspect(|p| pages.get(*p).set_identity(Some(id)))
        } else {
            found
        }
    }
    fn search_locked(&self, cx: &Cx, pages: &PageArray, id: Identity) -> Option<PageId> {
        if self.misses(id) {
            return None;
        }
        let removed = *self.removed.lock().unwrap();
        match removed {
            Some((was, page)) if self.is(Flaw::HitsTheRemoved) && was == id => Some(page),
            _ => self.inner.search_locked(cx, pages, id),
        }
    }
    fn insert_unless_present(
        &self,
        cx: &Cx,
        pages: &PageArray,
        id: Identity,
        page: PageId,
    ) -> Result<(), PageId> {
        let elsewhere = std::thread::current().id() != self.maker;
        assert!(!(elsewhere && self.is(Flaw::FallsBesideOthers)), "the flaw");
        if self.is(Flaw::SearchesAndThenInserts) {
            return self.insert_after_a_search(cx, pages, id, page);
        }
        self.moving.fetch_add(1, SeqCst);
        let done = self.inner.insert_unless_present(cx, pages, id, page);
        if self.is(Flaw::MissesWhileOthersMove) {
            std::thread::yield_now();
        }
        self.moving.fetch_sub(1, SeqCst);
        if done.is_err() {
            *self.lost.lock().unwrap() = Some(page);
        }
        match (self.flaw, done) {
            (Flaw::LetsTheSecondWin, Err(winner)) => {
                self.inner.remove(cx, pages, id, winner);
                self.inner.insert_unless_present(cx, pages, id, page)
            }
            (Flaw::TellsTheLoserItWon, Err(_)) => Err(page),
            (Flaw::NamesTheLoser, Err(winner)) => {
                pages.get(page).set_identity(Some(id));
                Err(winner)
            }
            (Flaw::ForgetsToName, Ok(())) => {
                pages.get(page).set_identity(None);
                Ok(())
            }
            (Flaw::KeepsALock, Ok(())) => {
                cx.rank_adopted(Rank::HashShard);
                Ok(())
            }
            (_, done) => done,
        }
    }
    fn remove(&self, cx: &Cx, pages: &PageArray, id: Identity, page: PageId) {
        self.inner.remove(cx, pages, id, page);
        *self.removed.lock().unwrap() = Some((id, page));
        if self.is(Flaw::KeepsTheName) {
            pages.get(page).set_identity(Some(id));
        }
    }
    fn replace(&self, cx: &Cx, pages: &PageArray, id: Identity, from: PageId, to: PageId) {
        if self.is(Flaw::ReplacesInTwoSteps) {
            self.inner.remove(cx, pages, id, from);
            std::thread::yield_now();
            let _ = self.inner.insert_unless_present(cx, pages, id, to);
            return;
        }
        self.inner.replace(cx, pages, id, from, to);
        if self.is(Flaw::LeavesTheNameBehind) {
            pages.get(from).set_identity(Some(id));
        }
    }
    fn insert_run(
        &self,
        cx: &Cx,
        pages: &PageArray,
        run: &mut dyn Iterator<Item = (Identity, PageId)>,
    ) -> Result<(), usize> {
        let mut done = Ok(());
        for (i, (id, page)) in run.enumerate() {
            let filed = self.insert_unless_present(cx, pages, id, page);
            done = done.and(filed.map_err(|_| i));
            if done.is_err() && !self.is(Flaw::RunsPastATakenName) {
                break;
            }
        }
        done
    }
    fn remove_run(&self, cx: &Cx, pages: &PageArray, run: &mut dyn Iterator<Item = PageId>) {
        for page in run {
            match pages.get(page).identity() {
                Some(id) => self.remove(cx, pages, id, page),
                None if self.is(Flaw::StopsAtANamelessPage) => break,
                None => {}
            }
        }
    }
    fn chain_lengths(&self, cx: &Cx, pages: &PageArray) -> Vec<u64> {
        if self.is(Flaw::CountsNoChains) {
            return vec![16, 3, 0];
        }
        self.inner.chain_lengths(cx, pages)
    }
    fn all(&self, cx: &Cx, pages: &PageArray) -> Vec<(Identity, PageId)> {
        let mut all = self.inner.all(cx, pages);
        if self.is(Flaw::ListsTwice) {
            all.extend(all.first().copied());
        }
        all
    }
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (HitsTheRemoved, "a locked search is exact"),
        (LosesOneInSeven, "a locked search is exact"),
        (HintsAtTheLoser, "H1"),
        (LetsTheSecondWin, "H3: the first insert wins"),
        (TellsTheLoserItWon, "H3: the first insert wins"),
        (NamesTheLoser, "H3: the loser stays as it was"),
        (ForgetsToName, "H4: filing a page gives it the name"),
        (KeepsTheName, "H4: removing a page takes its name"),
        (ListsTwice, "all() lists every entry once"),
        (CountsNoChains, "chain_lengths()"),
        (RunsPastATakenName, "insert_run()"),
        (StopsAtANamelessPage, "remove_run()"),
        (MissesWhileOthersMove, "H2"),
        (LeavesTheNameBehind, "replace() files the new page"),
        (KeepsALock, HOLDS),
        (FallsBesideOthers, FALLS),
    ]
};

/// Those that show when two threads meet in them.
const MEETINGS: &[(Flaw, &str)] = &[
    (Flaw::SearchesAndThenInserts, "H3: of several inserts of one name at once"),
    (Flaw::ReplacesInTwoSteps, "replace(): of the old page and the new one"),
];

fn judged(flaw: Flaw) -> Result<(), Breach> {
    check_page_hash(|n| {
        Box::new(Flawed {
            inner: ChainHash::new(n).expect("heap"),
            flaw,
            removed: Mutex::default(),
            lost: Mutex::default(),
            moving: AtomicU32::new(0),
            maker: std::thread::current().id(),
        })
    })
}

#[test]
fn every_flaw_of_a_hash_is_caught_by_its_clause() {
    all_caught(FLAWS, judged);
    all_caught_some_time(MEETINGS, judged);
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    clauses_of(&[FLAWS, MEETINGS])
}
