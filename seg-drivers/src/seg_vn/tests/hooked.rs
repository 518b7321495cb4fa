//! Memory that runs something before it zeroes or copies a frame.

use page_db::sync::atomic::AtomicU64;
use page_db::{HostMem, Pfn, PhysMem};
use std::boxed::Box;

type Hook = Box<dyn Fn() + Send + Sync>;

pub(super) struct Hooked {
    mem: HostMem,
    before_zero: Hook,
    before_copy: Hook,
}

impl Hooked {
    pub(super) fn new(
        frames: u64,
        before_zero: impl Fn() + Send + Sync + 'static,
        before_copy: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            mem: HostMem::new(Pfn(16), frames).expect("heap"),
            before_zero: Box::new(before_zero),
            before_copy: Box::new(before_copy),
        }
    }
}

impl core::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Hooked")
    }
}

impl PhysMem for Hooked {
    fn base(&self) -> Pfn {
        self.mem.base()
    }
    fn frames(&self) -> u64 {
        self.mem.frames()
    }
    fn zero(&self, pfn: Pfn) {
        (self.before_zero)();
        self.mem.zero(pfn);
    }
    fn copy(&self, from: Pfn, to: Pfn) {
        (self.before_copy)();
        self.mem.copy(from, to);
    }
    fn read(&self, pfn: Pfn, offset: usize, buf: &mut [u8]) {
        self.mem.read(pfn, offset, buf);
    }
    fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        self.mem.write(pfn, offset, bytes);
    }
    fn words(&self, pfn: Pfn) -> &[AtomicU64; 512] {
        self.mem.words(pfn)
    }
}
