//! What the page layer asks of the hat: everything about *all* translations of one page.
//!
//! Page-out, destruction and truncation start from a page and must reach every address space that maps it. The trait lives
//! here, with its callers; `hat-x86` supplies it, and before a hat is installed no page is mapped.

use crate::cx::Cx;
use crate::page::PageId;
use core::fmt;

bitflags::bitflags! {
    /// Referenced and modified, as gathered from translations and kept on the page (`p_nrm`).
    #[doc(alias("P_REF", "P_MOD", "P_RO"))]
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct RefMod: u8 {
        /// Stored to since it was last written out.
        const MOD = 1;
        /// Used since the front hand last passed.
        const REF = 2;
        /// Must not be mapped writable. Nothing here sets it. Whoever does has the page locked exclusively, so that no load of it goes on, and then takes the right
        /// from what is mapped ([`PageMappings::clear_write`]); until it is taken away no translation of the page that is on its list can be stored
        /// through.
        const RO = 4;
    }
}

/// How [`PageMappings::sync`] treats the bits it finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMode {
    /// Gather and clear them in every translation (`HAT_SYNC_ZERORM`).
    #[doc(alias = "HAT_SYNC_ZERORM")]
    ZeroRm,
    /// Only look (`HAT_SYNC_DONTZERO`).
    #[doc(alias = "HAT_SYNC_DONTZERO")]
    DontZero,
    /// Only look, and stop at the first referenced one, or report a page with more mappings than `share_limit` as referenced
    /// (`HAT_SYNC_STOPON_REF | HAT_SYNC_STOPON_SHARED`).
    #[doc(alias("HAT_SYNC_STOPON_REF", "HAT_SYNC_STOPON_SHARED"))]
    StopOnRef {
        /// Pages mapped more often than this count as referenced.
        share_limit: u32,
    },
}

/// All translations of a page. Every method has flushed, and holds no lock, when it returns.
pub trait PageMappings: fmt::Debug + Send + Sync {
    /// Removes every translation of the page, adding its referenced and modified bits to the page's. The caller holds the page exclusively.
    #[doc(alias = "hat_pageunload")]
    fn unload(&self, cx: &Cx, page: PageId);
    /// Gathers referenced and modified bits of all translations and the page, as `mode` says, and returns their union.
    /// With [`SyncMode::ZeroRm`] the union is also stored on the page. The caller holds the page lock.
    #[doc(alias = "hat_pagesync")]
    fn sync(&self, cx: &Cx, page: PageId, mode: SyncMode) -> RefMod;
    /// Takes the right to write from every translation of the page (and flushes). The caller holds the page lock. A range that is given that right meanwhile
    /// either had it before, and loses it here, or finds [`RefMod::RO`], if that was set before.
    #[doc(alias = "hat_page_clrwrt")]
    fn clear_write(&self, cx: &Cx, page: PageId);
    /// How many translations the page has. Asked without the page's lock, too: a hint then, whatever the page is by now.
    #[doc(alias = "hat_page_getshare")]
    fn share_count(&self, cx: &Cx, page: PageId) -> u32;
    /// Returns once no processor can use a translation that another thread has removed or weakened but may not have flushed yet.
    ///
    /// A page whose translations somebody else is just removing looks unmapped a moment before the flush is complete; asked
    /// before such a page is freed or taken for clean. Usually a glance at one word for each CPU.
    fn settle(&self, cx: &Cx) {
        let _ = cx;
    }
}

const _: Option<&dyn PageMappings> = None; // used as an object everywhere; stays one
