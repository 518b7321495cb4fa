//! One chain: the walk without a lock, and the steps under the bucket lock.
//!
//! The walk needs no order at all: whatever it believes is looked at again under a lock (H1, H2), so every link may be a stale one. That a page
//! is never *seen* on a chain before it carries its name, or keeps its name after it left, is a courtesy to those who ask for a hint alone,
//! and costs nothing where a store is a release anyway.
//!
//! Written over [`Links`], so that the models run this code.

use crate::sync::{Mutation, Slip, Word, mutated};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Links an unlocked walk follows before it gives up and leaves the answer to the locked search.
pub(super) const WALK_BOUND: u32 = 64;

/// Where the links and names are. Links are numbers of pages, 0 for none; the head of a chain says more than its link.
pub(crate) trait Links {
    /// What a link and the head of a chain are kept in.
    type Word: Word;
    /// A name.
    type Name: Copy;
    /// The head of the chain `bucket`: 0, or what [`Links::as_head`] makes of its first page.
    fn head(&self, bucket: usize) -> &Self::Word;
    /// The first page and something of its name, in one word that is not 0.
    fn as_head(&self, page: u32, name: Self::Name) -> u32;
    /// The first page again; 0 for 0.
    fn first(&self, head: u32) -> u32;
    /// The link of `page`.
    fn next(&self, page: u32) -> &Self::Word;
    /// The name of a page on a chain. held: the bucket
    fn name(&self, page: u32) -> Self::Name;
    /// Whether `page` carries `name` now.
    fn is(&self, page: u32, name: Self::Name) -> bool;
    /// Gives `page` a name or takes it.
    fn rename(&self, page: u32, name: Option<Self::Name>);
}

/// Walks on from `first`, which is another page; the page found, and the links followed.
pub(crate) fn walk_on<L: Links>(links: &L, first: u32, name: L::Name) -> (Option<u32>, u32) {
    let (mut at, mut steps) = (first, 0);
    loop {
        steps += 1;
        // A walk that was carried away ends, since chains are finite; the bound guards against one rebuilt under it again and again.
        if steps > WALK_BOUND {
            return (None, steps); // H2: the caller searches again under the lock
        }
        at = links.next(at).load(Acquire);
        if at == 0 || links.is(at, name) {
            return ((at != 0).then_some(at), steps);
        }
    }
}
/// The page named `name`. held: the bucket
pub(crate) fn search<L: Links>(links: &L, bucket: usize, name: L::Name) -> Option<u32> {
    let mut at = links.first(links.head(bucket).load(Acquire));
    while at != 0 && !links.is(at, name) {
        at = links.next(at).load(Acquire);
    }
    (at != 0).then_some(at)
}
/// Puts `page` at the head of the chain under `name`, unless the name is taken: then the page that has it. held: the bucket
#[inline]
pub(crate) fn file<L: Links>(
    links: &L,
    bucket: usize,
    name: L::Name,
    page: u32,
) -> Result<(), u32> {
    let blind = mutated(Mutation::InsertBlind) || L::Word::slips(Slip::InsertBlind);
    if let Some(other) = search(links, bucket, name)
        && !blind
    {
        return Err(other);
    }
    links.rename(page, Some(name));
    links.next(page).store(links.first(links.head(bucket).load(Relaxed)), Release);
    links.head(bucket).store(links.as_head(page, name), Release);
    Ok(())
}
/// Takes `page` out of the chain, and its name from it; `false` when it is not there. held: the bucket
pub(crate) fn unfile<L: Links>(links: &L, bucket: usize, page: u32) -> bool {
    let next = links.next(page).load(Relaxed);
    let mut at = links.first(links.head(bucket).load(Acquire));
    if at == page {
        let head = if next == 0 { 0 } else { links.as_head(next, links.name(next)) };
        links.head(bucket).store(head, Release);
    } else {
        loop {
            if at == 0 {
                return false;
            }
            let before = links.next(at);
            at = before.load(Acquire);
            if at == page {
                before.store(next, Release);
                break;
            }
        }
    }
    // The removed page keeps its link: a walker standing on it goes on along the chain it came from.
    links.rename(page, None);
    true
}
/// Puts `to` into the place of `from`, which carries `name`, and moves the name; `false` when `from` is not there. held: the bucket
pub(crate) fn replace<L: Links>(
    links: &L,
    bucket: usize,
    name: L::Name,
    from: u32,
    to: u32,
) -> bool {
    let first = links.first(links.head(bucket).load(Acquire));
    let mut before = None;
    let mut at = first;
    while at != from {
        if at == 0 {
            return false;
        }
        before = Some(at);
        at = links.next(at).load(Acquire);
    }
    if L::Word::slips(Slip::NameLeavesFirst) {
        links.rename(from, None);
    }
    // Named before it is seen, and the old one nameless only after: a walker finds one of them.
    links.rename(to, Some(name));
    links.next(to).store(links.next(from).load(Relaxed), Release);
    match before {
        None => links.head(bucket).store(links.as_head(to, name), Release),
        Some(page) => links.next(page).store(to, Release),
    }
    links.rename(from, None);
    true
}
