//! A store in the host's memory: the disk of a simulated machine.

use super::store::{PageBuf, Store};
use page_db::sync::Mutex;
use page_db::{Cx, PAGE_SIZE, Rank};
use std::collections::BTreeMap;

/// Pages that were written, by number. A page that never was is a hole and reads as zeros.
#[derive(Debug)]
pub struct MemStore {
    pages: Mutex<BTreeMap<u64, Box<PageBuf>>>,
}

impl Default for MemStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self { pages: Mutex::new(Rank::VnodeData, BTreeMap::new()) }
    }
    /// How many pages are stored.
    pub fn stored(&self, cx: &Cx) -> u64 {
        self.pages.lock(cx).len() as u64
    }
}

impl Store for MemStore {
    fn read(&self, cx: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
        if let Some(stored) = self.pages.lock(cx).get(&(offset / PAGE_SIZE)) {
            page.copy_from_slice(&stored[..]);
        }
        Ok(())
    }
    fn write(&self, cx: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        let mut pages = self.pages.lock(cx);
        let page =
            pages.entry(offset / PAGE_SIZE).or_insert_with(|| Box::new([0; PAGE_SIZE as usize]));
        page[..bytes.len()].copy_from_slice(bytes);
        page[bytes.len()..].fill(0);
        Ok(())
    }
    fn resize(&self, cx: &Cx, from: u64, to: u64) -> Result<(), i32> {
        if to < from {
            let mut pages = self.pages.lock(cx);
            pages.split_off(&to.div_ceil(PAGE_SIZE));
            if let Some(last) = pages.get_mut(&(to / PAGE_SIZE)) {
                last[(to % PAGE_SIZE) as usize..].fill(0);
            }
        }
        Ok(())
    }
}
