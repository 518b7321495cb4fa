//! Moving a page to another name with its contents and its translations.

use super::PageDb;
use crate::cx::Cx;
use crate::error::PageError;
use crate::selock::{ExclPage, LockedPage};
use crate::vnode::Identity;

impl PageDb {
    /// Gives `page` the name `to`. A page that has the name already is destroyed; its claims pass to `page`.
    ///
    /// The page stays exclusive. Its referenced and modified bits go with the old name: set them again where they matter.
    /// The caller holds no other page lock (the page that has the name is waited for).
    #[doc(alias = "page_rename")]
    pub fn rename(&self, cx: &Cx, page: &ExclPage<'_>, to: Identity) {
        self.hash_out(cx, page);
        loop {
            match self.hash_in(cx, page, to) {
                Ok(()) => return,
                Err(PageError::Exists(_)) => self.displace(cx, page, to),
                Err(_) => unreachable!("hash_in fails only with Exists"),
            }
        }
    }
    fn displace(&self, cx: &Cx, page: &ExclPage<'_>, to: Identity) {
        let Some(found) = self.exists(cx, to) else { return };
        // Waiting for a second page lock: the first has no name now, so nobody can be waiting for it while holding this one.
        let old = self.lock_unnamed(cx, found);
        if !old.page().is(to) {
            return;
        }
        self.merge_claims(&old, page);
        self.destroy(cx, old);
    }
}
