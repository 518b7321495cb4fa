//! A page of a file between its frame and the store, which a test may make fail.

use super::{File, PAGE};
use page_db::sync::atomic::Ordering;
use page_db::{Counter, Cx, FailKind, PAGE_SIZE, PageDb, Pfn, Vnode, VnodeError, VnodeKind, errno};

/// Failures to come, for tests: the k-th transfer from now fails.
#[derive(Debug, Default)]
pub(super) struct Injected {
    reads: Option<(u64, i32)>,
    writes: Option<(u64, i32)>,
}

impl Injected {
    fn strike(slot: &mut Option<(u64, i32)>) -> Result<(), i32> {
        match slot {
            Some((1, errno)) => {
                let errno = *errno;
                *slot = None;
                Err(errno)
            }
            Some((k, _)) => {
                *k -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl File {
    /// Makes the `k`-th read from now (counting from 1) fail with `errno`; 0 calls it off.
    pub fn fail_read(&self, cx: &Cx, k: u64, errno: i32) {
        self.injected.lock(cx).reads = (k != 0).then_some((k, errno));
    }
    /// Makes the `k`-th write from now (counting from 1) fail with `errno`; 0 calls it off.
    pub fn fail_write(&self, cx: &Cx, k: u64, errno: i32) {
        self.injected.lock(cx).writes = (k != 0).then_some((k, errno));
    }
    /// Whether a transfer may be made: neither this file nor the machine is to fail it.
    fn may(
        &self,
        cx: &Cx,
        kind: FailKind,
        line: fn(&mut Injected) -> &mut Option<(u64, i32)>,
    ) -> Result<(), i32> {
        if cx.fails(kind) {
            return Err(errno::EIO);
        }
        Injected::strike(line(&mut self.injected.lock(cx)))
    }
    /// Fills a frame with the page at `offset` (F3).
    pub(super) fn fill(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        pfn: Pfn,
    ) -> Result<(), VnodeError> {
        let mut page = [0; PAGE];
        self.may(cx, FailKind::VnodeRead, |i| &mut i.reads)
            .and_then(|()| self.store.read(cx, offset, &mut page))
            .map_err(|e| self.io(offset, e))?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        cx.count(Counter::PgIn);
        cx.count(Counter::PgPgIn);
        cx.count(match db.vnodes().kind(self.id) {
            VnodeKind::Exec => Counter::ExecPgIn,
            _ => Counter::FsPgIn,
        });
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        page[inside..].fill(0);
        db.mem().write(pfn, 0, &page);
        Ok(())
    }
    /// Writes a frame to the store, up to the end of the file.
    pub(super) fn write_back(
        &self,
        cx: &Cx,
        db: &PageDb,
        offset: u64,
        pfn: Pfn,
    ) -> Result<(), VnodeError> {
        let inside = self.size().saturating_sub(offset).min(PAGE_SIZE) as usize;
        if inside == 0 {
            return Ok(()); // truncation is on its way to destroy the page
        }
        let mut page = [0; PAGE];
        db.mem().read(pfn, 0, &mut page[..inside]);
        self.may(cx, FailKind::VnodeWrite, |i| &mut i.writes)
            .and_then(|()| self.store.write(cx, offset, &page[..inside]))
            .map_err(|e| self.io(offset, e))?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
