//! Ending a page: no translation, no claim, no name, a free frame; or, of a lent page, an orphan.

use super::PageDb;
use crate::cx::Cx;
use crate::selock::{ExclPage, LockedPage};

impl PageDb {
    /// Unloads every translation, returns claims to availrmem, takes the name and frees the frame. The contents are lost, unless the page is lent: then the
    /// last loan frees the frame ([`PageDb::lend`]).
    ///
    /// A cached page (which is free already) is taken off its list first; freemem is the same afterwards.
    ///
    /// # Panics
    /// When the page is in transit (K4), is a free page without a name, or another database's (K5).
    #[doc(alias("page_destroy", "page_destroy_free", "VN_DISPOSE"))]
    pub fn destroy(&self, cx: &Cx, page: ExclPage<'_>) {
        self.assert_own(&page);
        let was_free = page.page().is_free();
        if was_free {
            self.uncache(cx, &page);
        }
        self.unload(cx, &page);
        self.drop_claims(&page);
        self.hash_out(cx, &page);
        if self.disown(page.page()) {
            return;
        }
        if was_free { self.free_uncounted(cx, page, false) } else { self.free(cx, page, false) }
    }
}
