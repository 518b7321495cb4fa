//! The world in which things are done, and fail.

use crate::world::{ANON, NORESERVE, PAGE, PRIVATE, R, RW, SHARED, at, map, open};
use page_db::LockedPage;
use segvm::Machine;
use segvm::files::{File, FileHandle, OpenMode};
use segvm::machine::{ForkPolicy, Process, WorldDump};
use std::sync::Arc;
use swapfs::{FaultyDevice, MemDevice};

/// Pages of the disk.
const DISK: u64 = 128;

/// What has happened to the world before the operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Situation {
    /// Everything that was touched is in memory, and there is no child.
    Fresh,
    /// A child shares it all.
    Forked,
    /// A child shares it all, anon maps included.
    ForkedLazily,
    /// As [`Situation::Forked`], and memory was short: what can leave it has left.
    PagedOut,
    /// As [`Situation::ForkedLazily`], likewise.
    PagedOutLazily,
}

impl Situation {
    pub(super) const ALL: [Self; 5] =
        [Self::Fresh, Self::Forked, Self::ForkedLazily, Self::PagedOut, Self::PagedOutLazily];
    fn fork(self) -> ForkPolicy {
        match self {
            Self::ForkedLazily | Self::PagedOutLazily => ForkPolicy::Lazy,
            _ => ForkPolicy::Eager,
        }
    }
}

pub(super) struct World {
    pub(super) m: Machine,
    pub(super) p: Process,
    /// Its child, which has touched nothing; itself where there is none.
    pub(super) child: Process,
    pub(super) file: FileHandle,
    /// A small program.
    pub(super) program: Arc<File>,
    pub(super) disk: Arc<FaultyDevice>,
    /// `availrmem`, anon maps and anons before there was a process.
    boot: (u64, usize, u64),
}

impl World {
    pub(super) fn new(situation: Situation) -> Self {
        let m = Machine::builder().frames(240).no_swap().fork(situation.fork()).build().unwrap();
        let memory = Arc::new(MemDevice::new("/dev/disk", DISK));
        let disk = Arc::new(FaultyDevice::new(memory as _));
        m.swap().add(m.cx(), Arc::clone(&disk) as _, 0, DISK, 0).unwrap();
        let file = open(&m, "file", 4 * PAGE - 100, OpenMode::ReadWrite);
        let program = m.create_file("program", 0).unwrap();
        program.pwrite(m.cx(), m.db(), 0, &executable()).unwrap();
        program.sync(m.cx(), m.db()).unwrap();
        let boot = boot_of(&m);
        let p = m.spawn("p").unwrap();
        for page in 0..4u8 {
            let at = u64::from(page) * PAGE;
            file.vnode.pwrite(m.cx(), m.db(), at + 10, &[b'f', page]).unwrap();
        }
        file.vnode.sync(m.cx(), m.db()).unwrap();
        populate(&p, &file);
        let child = if situation == Situation::Fresh {
            p.another_thread(page_db::CpuId(0))
        } else {
            p.fork().unwrap()
        };
        let w = Self { m, p, child, file, program, disk, boot };
        if matches!(situation, Situation::PagedOut | Situation::PagedOutLazily) {
            w.m.pageout_all();
            w.forget();
        }
        // Modified since, and in memory.
        w.p.store(at(9) + 30, b"dirty").unwrap();
        w.p.store(at(2) + 30, b"dirty").unwrap();
        w
    }
    /// Takes the frames of pages that are free, so that they must be read.
    fn forget(&self) {
        let db = self.m.db();
        let cached = |p: &page_db::PageId| db.page(*p).is_free();
        let names: Vec<_> =
            db.pages().ids().filter(cached).filter_map(|p| db.page(p).identity()).collect();
        for id in names {
            let page = db.lookup_excl(self.m.cx(), id).expect("nothing else runs");
            assert!(!page.page().is_mapped());
            db.destroy(self.m.cx(), page);
        }
    }
    pub(super) fn dump(&self) -> WorldDump {
        self.m.dump()
    }
    /// Law 3: when everybody has exited nothing is left.
    pub(super) fn end(self, what: &str) {
        self.m.processes().iter().for_each(Process::exit);
        self.m.verify().unwrap_or_else(|v| panic!("{what}, after the last exit: {v}"));
        assert_eq!(boot_of(&self.m), self.boot, "{what}: law 3");
        let left = self.m.swap().info().reserved();
        assert_eq!(left, 0, "{what}: law 3, promises");
    }
}

fn boot_of(m: &Machine) -> (u64, usize, u64) {
    (m.db().free_mem().availrmem(), m.anon().maps().len(), m.swap().live())
}

fn populate(p: &Process, file: &FileHandle) {
    map(p, 0, 4, RW, PRIVATE | ANON, None).unwrap();
    map(p, 8, 4, RW, SHARED, Some(file)).unwrap();
    map(p, 16, 4, RW, PRIVATE, Some(file)).unwrap();
    map(p, 24, 2, RW, SHARED | ANON, None).unwrap();
    map(p, 32, 2, R, PRIVATE, Some(file)).unwrap();
    map(p, 48, 3, RW, PRIVATE | ANON | NORESERVE, None).unwrap();
    map(p, 56, 3, RW, PRIVATE | ANON, None).unwrap();
    for page in [0, 1, 2, 9, 10, 17, 24, 48, 56] {
        p.store(at(page) + 20, &[b'm', page as u8]).unwrap();
    }
    p.mlock(at(56), 2 * PAGE).unwrap();
}

/// A program of one page of text and one of data and zeros.
fn executable() -> Vec<u8> {
    const TEXT: u64 = 0x40_0000;
    let mut f = vec![0; 2 * PAGE as usize];
    f[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let put = |f: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        f[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut f, 16, &2u16.to_le_bytes()); // executable
    put(&mut f, 18, &62u16.to_le_bytes()); // x86-64
    put(&mut f, 20, &1u32.to_le_bytes());
    put(&mut f, 24, &(TEXT + 0x200).to_le_bytes()); // entry
    put(&mut f, 32, &64u64.to_le_bytes()); // program headers
    put(&mut f, 52, &64u16.to_le_bytes());
    put(&mut f, 54, &56u16.to_le_bytes());
    put(&mut f, 56, &2u16.to_le_bytes());
    let segments = [(5u32, 0u64, TEXT, PAGE, PAGE), (6, PAGE, TEXT + 4 * PAGE, 0x100, 3 * PAGE)];
    for (i, (rights, offset, addr, bytes, memory)) in segments.into_iter().enumerate() {
        let at = 64 + 56 * i;
        put(&mut f, at, &1u32.to_le_bytes());
        put(&mut f, at + 4, &rights.to_le_bytes());
        for (j, word) in [offset, addr, addr, bytes, memory, PAGE].into_iter().enumerate() {
            put(&mut f, at + 8 + 8 * j, &word.to_le_bytes());
        }
    }
    f
}
