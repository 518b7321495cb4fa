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
    ///
    /// # Errors
    /// [`PageError::Exists`] when somebody holds the page that has the name. It is not waited for: its holder may be waiting for `page`. `page` is as
    /// it was, or, if somebody took its old name or the new one at that very moment, without a name. [`PageError::NoVnode`], and nothing has changed, or the
    /// same of the old name if the number was given back at that very moment.
    ///
    /// # Panics
    /// When the page is another database's (K5).
    #[doc(alias = "page_rename")]
    pub fn rename(&self, cx: &Cx, page: &ExclPage<'_>, to: Identity) -> Result<(), PageError> {
        self.assert_own(page);
        if page.page().is(to) {
            return Ok(());
        }
        if self.vnodes().used_slot(to.vnode).is_none() {
            return Err(PageError::NoVnode { vnode: to.vnode });
        }
        let (from, bits) = (page.identity(), page.page().ref_mod());
        if let Some(found) = self.exists(cx, to)
            && self.try_lock_excl(cx, found).is_none()
        {
            return Err(PageError::Exists(to)); // before anybody misses the old name
        }
        self.hash_out(cx, page);
        self.rouse(page);
        while let Err(error) = self.hash_in(cx, page, to) {
            // What has no vnode any more is nobody's to displace.
            if !matches!(error, PageError::Exists(_)) || !self.displace(cx, page, to) {
                if let Some(from) = from
                    && self.hash_in(cx, page, from).is_ok()
                {
                    page.page().set_ref_mod(bits);
                }
                return Err(error);
            }
        }
        Ok(())
    }
    /// Ends the page that is named `to`, if there still is one; says no when somebody holds it.
    fn displace(&self, cx: &Cx, page: &ExclPage<'_>, to: Identity) -> bool {
        let Some(found) = self.exists(cx, to) else { return true };
        let Some(old) = self.try_lock_excl(cx, found) else { return false };
        if old.page().is(to) {
            self.merge_claims(&old, page);
            self.destroy(cx, old);
        }
        true
    }
}
