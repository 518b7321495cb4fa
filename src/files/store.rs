//! Where a file's bytes stay when they are not in memory.

use page_db::{Cx, PAGE_SIZE};
use std::fmt;

/// The bytes of one page on their way between a frame and a store.
pub type PageBuf = [u8; PAGE_SIZE as usize];

/// A place for the bytes of one file. Called with offsets that are multiples of the page size; may sleep.
///
/// - F1: bytes past the size of the last [`Store::resize`] read as zeros, now and after any later growth.
pub trait Store: fmt::Debug + Send + Sync {
    /// Reads one page into `page`, which comes in as zeros; what the store does not have stays zero.
    ///
    /// # Errors
    /// The device's errno.
    fn read(&self, cx: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32>;
    /// Writes the first bytes of one page: all of it, or up to the end of the file.
    ///
    /// # Errors
    /// The device's errno; what is stored of that page is then undefined, and the page in memory stays dirty.
    fn write(&self, cx: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32>;
    /// The file had `from` bytes and gets `to`. What lies past `to` is gone (F1). After a file has become shorter the same is asked once more, for a page may have been
    /// written past the new end meanwhile: the store then has `to` bytes already, and perhaps some of that page.
    ///
    /// # Errors
    /// The device's errno; nothing has changed.
    fn resize(&self, cx: &Cx, from: u64, to: u64) -> Result<(), i32>;
    /// Makes what was written permanent.
    ///
    /// # Errors
    /// The device's errno.
    fn flush(&self, cx: &Cx) -> Result<(), i32> {
        let _ = cx;
        Ok(())
    }
    /// Whether its file can be mapped: a pipe's bytes, for one, have no place to stay at.
    #[doc(alias = "VNOMAP")]
    fn is_mappable(&self) -> bool {
        true
    }
    /// Whether the store takes writes.
    fn is_writable(&self) -> bool {
        true
    }
}

const _: Option<&dyn Store> = None; // used as an object everywhere; stays one
