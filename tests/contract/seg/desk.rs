//! A machine to judge drivers on.

use addr_space::{AddrSpace, AsError, AsId, HatProvider as _, SegCreate, SegKind};
use page_db::{FileOffset, PAGE_SIZE, Pfn, Prot, VirtAddr, Vnode};
use seg_drivers::SegVnArgs;
use seg_drivers::seg_dev::DeviceMemory;
use segvm::Machine;
use segvm::contract::{Breach, SegCan, SegCase, check_seg_ops};
use segvm::files::File;
use segvm::machine::{ForkPolicy, USER_RANGE};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Pages that a suite maps.
pub(crate) const PAGES: u64 = 8;

pub(crate) struct Desk {
    pub(crate) m: Machine,
    pub(crate) file: Arc<File>,
    next: AtomicU32,
}

impl Desk {
    /// What `seg_vn` can over anything.
    const VN: SegCan = SegCan::FAULT
        .union(SegCan::STORE)
        .union(SegCan::BYTES)
        .union(SegCan::SPLIT)
        .union(SegCan::DUP)
        .union(SegCan::PROT)
        .union(SegCan::LOCK)
        .union(SegCan::SOFTLOCK)
        .union(SegCan::ADVISE)
        .union(SegCan::SYNC)
        .union(SegCan::INHERIT)
        .union(SegCan::INHERIT_SHARE)
        .union(SegCan::EXTRACT)
        .union(SegCan::LEND)
        .union(SegCan::MEM_ID)
        .union(SegCan::PAGE_SIZE);
    /// Over nothing.
    pub(crate) const ANON: SegCan = Self::VN.union(SegCan::PAGELOCK);
    /// Over a file.
    pub(crate) const FILE: SegCan = Self::VN.union(SegCan::VNODE);

    pub(crate) fn new(fork: ForkPolicy) -> Self {
        let m = Machine::builder().frames(512).cpus(2).fork(fork).build().expect("a small machine");
        let file = m.create_file("letters", PAGES * PAGE_SIZE).expect("a file");
        for n in 0..PAGES {
            let bytes: Vec<u8> =
                (0..PAGE_SIZE).map(|at| (n * 0x11 + at * 7 + at / 256) as u8).collect();
            file.pwrite(m.cx(), m.db(), n * PAGE_SIZE, &bytes).expect("memory");
        }
        Self { m, file, next: AtomicU32::new(1000) }
    }
    pub(crate) fn memory(&self, kind: SegKind) -> SegVnArgs {
        SegVnArgs { kind, ..SegVnArgs::zfod(self.m.vn(), Prot::RW) }
    }
    pub(crate) fn file(&self, kind: SegKind) -> SegVnArgs {
        let vnode: Arc<dyn Vnode> = Arc::clone(&self.file) as _;
        SegVnArgs { vnode: Some(vnode), offset: FileOffset(0), ..self.memory(kind) }
    }
    pub(crate) fn space(&self) -> Result<Arc<AddrSpace>, AsError> {
        let hat = self.m.hat().alloc(self.m.cx())?;
        let id = AsId(self.next.fetch_add(1, SeqCst));
        let db = Arc::clone(self.m.db());
        Ok(Arc::new(AddrSpace::new(self.m.cx(), id, USER_RANGE, hat, db)?))
    }
    pub(crate) fn counts(&self) -> Vec<(&'static str, u64)> {
        let maps = self.m.anon().maps().len() as u64;
        let mapped = self.file.mapped_pages();
        vec![
            ("promised", self.m.swap().info().reserved()),
            ("anons", self.m.swap().live()),
            ("anon maps", maps),
            ("mapped pages of the file", mapped),
        ]
    }
    pub(crate) fn page_at(&self, pfn: Pfn) -> Vec<u8> {
        let mut page = vec![0; PAGE_SIZE as usize];
        self.m.db().mem().read(pfn, 0, &mut page);
        page
    }
    pub(crate) fn page_of_file(&self, n: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE_SIZE as usize];
        let done = self.file.pread(self.m.cx(), self.m.db(), n * PAGE_SIZE, &mut page);
        assert_eq!(done.expect("a file"), PAGE_SIZE as usize);
        page
    }
    /// Judges a driver by the contract of `SegOps`, in spaces of its own.
    pub(crate) fn check(
        &self,
        name: &str,
        make: &(dyn SegCreate + Sync),
        can: SegCan,
        behind: Option<&dyn Fn(u64) -> Vec<u8>>,
    ) -> Result<(), Breach> {
        check_seg_ops(&SegCase {
            cx: self.m.cx(),
            db: self.m.db(),
            name,
            space: &|| self.space(),
            make: Some(make),
            at: VirtAddr::new(0x40_0000 + 3 * PAGE_SIZE).expect("canonical"),
            can,
            behind,
            counts: &|| self.counts(),
        })
    }
    /// The same, for a driver that keeps it.
    #[track_caller]
    pub(crate) fn keeps(
        &self,
        name: &str,
        make: &(dyn SegCreate + Sync),
        can: SegCan,
        behind: Option<&dyn Fn(u64) -> Vec<u8>>,
    ) {
        Breach::raise(self.check(name, make, can, behind));
        self.end();
    }
    pub(crate) fn end(&self) {
        self.m.verify().expect("every invariant holds");
    }
}

/// A device of some frames.
#[derive(Debug)]
pub(crate) struct Card(pub(crate) Vec<Pfn>);

impl DeviceMemory for Card {
    fn name(&self) -> String {
        "card".into()
    }
    fn pages(&self) -> u64 {
        self.0.len() as u64
    }
    fn frame(&self, index: u64) -> Option<Pfn> {
        self.0.get(index as usize).copied()
    }
}
