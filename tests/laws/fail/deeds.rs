//! What is done.

use super::world::World;
use crate::world::{ANON, NONE, PAGE, PRIVATE, R, RW, SHARED, at, map};
use addr_space::{
    AddrSpace, Advice, AsCallback, Deleted, Events, FaultKind, Inherit, LockAll, PinnedPages,
    SyncFlags, WatchFlags,
};
use page_db::{Access, Cx, VirtRange};
use segvm::machine::{
    MapFlags, MapRequest, MemAdvice, RemapFlags, STACK_TOP, SwapArea, SwapBacking,
};
use std::sync::{Arc, Mutex};
use swapfs::AreaId;

pub(super) type Done = Result<(), String>;

/// Something that is done, and may fail.
pub(super) struct Deed {
    pub(super) what: &'static str,
    pub(super) how: fn(&World) -> Done,
    /// Whether it goes page by page or step by step, so that those before the failing one are done.
    pub(super) piecemeal: bool,
    /// What a failure may leave besides the state before: what this does.
    pub(super) or: Option<fn(&World)>,
}

const fn whole(what: &'static str, how: fn(&World) -> Done) -> Deed {
    Deed { what, how, piecemeal: false, or: None }
}
const fn piecemeal(what: &'static str, how: fn(&World) -> Done) -> Deed {
    Deed { what, how, piecemeal: true, or: None }
}
const fn whole_or(what: &'static str, how: fn(&World) -> Done, or: fn(&World)) -> Deed {
    Deed { what, how, piecemeal: false, or: Some(or) }
}

fn done<T, E: std::fmt::Display>(r: Result<T, E>) -> Done {
    r.map(drop).map_err(|e| e.to_string())
}

fn pages(first: u64, n: u64) -> VirtRange {
    VirtRange::exact(at(first), n * PAGE).unwrap()
}

/// Gives advice about `n` pages.
fn advise(w: &World, first: u64, n: u64, advice: MemAdvice) -> Done {
    done(w.p.madvise(at(first), n * PAGE, advice))
}

/// Says what a child is to find in `n` pages.
fn inherit(w: &World, first: u64, n: u64, how: Inherit) -> Done {
    done(w.p.minherit(at(first), n * PAGE, how))
}

/// Pins pages for i/o, does something meanwhile, and lets go.
fn pinned(w: &World, range: VirtRange, access: Access, meanwhile: fn(&World) -> Done) -> Done {
    let (space, cx) = (w.p.space(), w.p.cx());
    let pinned = space.lock_pages(cx, range, access).map_err(|e| e.to_string())?;
    let done = meanwhile(w);
    space.unlock_pages(cx, pinned).expect("pinned here");
    done
}

/// Lends pages to the kernel, does something meanwhile, and has them back.
fn lent(w: &World, range: VirtRange, meanwhile: fn(&World) -> Done) -> Done {
    let (space, cx) = (w.p.space(), w.p.cx());
    let lent = space.lend_pages(cx, range).map_err(|e| e.to_string())?;
    let done = meanwhile(w);
    lent.give_back(cx);
    done
}

/// Lends pages to anons, shows them at page 40, does something meanwhile, and takes them away again.
fn borrowed(w: &World, first: u64, n: u64, meanwhile: fn(&World) -> Done) -> Done {
    let lent = w.p.lend_to_anons(at(first), n * PAGE).map_err(|e| e.to_string())?;
    if let Err(back) = w.p.borrow(lent, at(40)) {
        let (e, lent) = *back;
        lent.give_back(w.p.cx());
        return Err(e.to_string());
    }
    let done = meanwhile(w);
    w.p.munmap(at(40), n * PAGE).map_err(|e| e.to_string())?;
    done
}

/// Locks pages by software, and unlocks them.
fn soft_locked(w: &World, range: VirtRange, access: Access) -> Done {
    let (space, cx) = (w.p.space(), w.p.cx());
    space.fault(cx, range, FaultKind::SoftLock, access).map_err(|e| e.to_string())?;
    done(space.fault(cx, range, FaultKind::SoftUnlock, access))
}

/// Makes the locked pages the process's own, as a store does, and changes no byte.
fn own_locked(w: &World) {
    w.p.store(at(56) + 20, &[b'm', 56]).unwrap();
    w.p.store(at(57), &[0]).unwrap();
}

/// Makes `old` pages from page `first` on `new` pages long, in place or, with a page to go to, there.
fn remap(w: &World, first: u64, old: u64, new: u64, to: Option<u64>) -> Done {
    let flags = to.map_or(RemapFlags::MAYMOVE, |_| RemapFlags::MAYMOVE | RemapFlags::FIXED);
    done(w.p.mremap(at(first), old * PAGE, new * PAGE, flags, to.map_or(0, at)))
}

/// Moves pages to page 40 and leaves their place mapped.
fn left_mapped(w: &World, first: u64, pages: u64) -> Done {
    let flags = RemapFlags::all();
    done(w.p.mremap(at(first), pages * PAGE, pages * PAGE, flags, at(40)))
}

/// Maps without saying exactly where, and takes it away again.
fn mapped_near(w: &World, addr: u64) -> Done {
    let flags = PRIVATE | ANON;
    let request = MapRequest { addr, len: 3 * PAGE, prot: RW, flags, file: None, offset: 0 };
    done(w.p.mmap(&request))
}

/// Watches the first bytes of a page, does something meanwhile, and takes the watch back.
fn watched(w: &World, page: u64, flags: WatchFlags, meanwhile: fn(&World) -> Done) -> Done {
    w.p.watch(at(page), 8, flags).map_err(|e| e.to_string())?;
    let done = meanwhile(w);
    w.p.unwatch(at(page), 8).map_err(|e| e.to_string())?;
    done
}

/// Whoever holds pages, until he is told to let go.
#[derive(Debug)]
struct Holder(Mutex<Option<PinnedPages>>);

/// What it is known by.
const TOKEN: u64 = 1;

impl Holder {
    fn let_go(&self, cx: &Cx, space: &AddrSpace) {
        if let Some(pages) = self.0.lock().unwrap().take() {
            space.unlock_pages(cx, pages).expect("pinned here");
        }
    }
}

impl AsCallback for Holder {
    fn call(&self, cx: &Cx, space: &AddrSpace, _: Events) {
        self.let_go(cx, space);
        space.delete_callback(cx, TOKEN);
    }
}

/// Pins a page, asks to be told, does what needs the pin gone, and forgets about it if that failed before.
fn told(w: &World, page: u64, event: Events, meanwhile: fn(&World) -> Done) -> Done {
    let (space, cx) = (w.p.space(), w.p.cx());
    let pinned = space.lock_pages(cx, pages(page, 1), Access::Read).map_err(|e| e.to_string())?;
    let holder = Arc::new(Holder(Mutex::new(Some(pinned))));
    let answer = done(space.add_callback(cx, Arc::clone(&holder) as _, TOKEN, event, None));
    let answer = answer.and_then(|()| meanwhile(w));
    let deleted = space.delete_callback(cx, TOKEN);
    assert!(answer.is_err() || deleted == Deleted::NotFound, "it was told: {deleted:?}");
    holder.let_go(cx, &space);
    answer
}

pub(super) const DEEDS: &[Deed] = &[
    // Accesses.
    whole("load a page of a file", |w| done(w.p.load_u8(at(11)))),
    whole("load a page stored to", |w| done(w.p.load_u8(at(0)))),
    whole("load a page never touched", |w| done(w.p.load_u8(at(3)))),
    whole("store into a page stored to", |w| done(w.p.store(at(1) + 40, b"new"))),
    whole("store into a page never touched", |w| done(w.p.store(at(3) + 40, b"new"))),
    whole_or(
        "store where nothing is promised",
        |w| done(w.p.store(at(49) + 40, b"new")),
        |w| assert_eq!(w.p.load_u8(at(49)), Ok(0)), // promised and made, and no table left to map it in
    ),
    whole("copy a page of a file", |w| done(w.p.store(at(18) + 40, b"new"))),
    whole("store into a shared file", |w| done(w.p.store(at(11) + 40, b"new"))),
    whole("store into shared memory", |w| done(w.p.store(at(24) + 40, b"new"))),
    whole("store into shared memory never touched", |w| done(w.p.store(at(25) + 40, b"new"))),
    whole("store into a locked page", |w| done(w.p.store(at(56) + 40, b"new"))),
    piecemeal("store across pages", |w| done(w.p.store(at(0) + 40, &[b'n'; 3 * PAGE as usize]))),
    piecemeal("store across pages of a file", |w| {
        done(w.p.store(at(16) + 40, &[b'n'; 3 * PAGE as usize]))
    }),
    whole("store in the child", |w| done(w.child.store(at(2) + 50, b"child"))),
    whole("store in the child, where nothing was since", |w| {
        done(w.child.store(at(0) + 50, b"child"))
    }),
    whole("store in the child, into a locked page", |w| done(w.child.store(at(57) + 50, b"child"))),
    // Watched pages.
    whole("store beside watched bytes", |w| {
        watched(w, 1, WatchFlags::WRITE, |w| done(w.p.store(at(1) + 40, b"new")))
    }),
    whole("store beside watched bytes never touched", |w| {
        watched(w, 3, WatchFlags::READ, |w| done(w.p.store(at(3) + 40, b"new")))
    }),
    whole("store beside watched bytes of a file", |w| {
        watched(w, 18, WatchFlags::WRITE, |w| done(w.p.store(at(18) + 40, b"new")))
    }),
    whole("load beside watched bytes of a file", |w| {
        watched(w, 11, WatchFlags::READ, |w| done(w.p.load_u8(at(11) + 40)))
    }),
    whole("fork with a page watched", |w| watched(w, 1, WatchFlags::READ, |w| done(w.p.fork()))),
    // Processes.
    whole("fork", |w| done(w.p.fork())),
    whole("fork with pages pinned", |w| {
        pinned(w, pages(2, 1), Access::Write, |w| done(w.p.fork()))
    }),
    piecemeal("fork with a page left out", |w| {
        advise(w, 1, 1, MemAdvice::DontFork)?;
        done(w.p.fork())
    }),
    whole("fork and end", |w| w.p.fork().map(|c| c.exit()).map_err(|e| e.to_string())),
    whole("lend the address space", |w| done(w.p.vfork())),
    whole("lend the address space and get it back", |w| {
        w.p.vfork().map(|c| c.exit()).map_err(|e| e.to_string())
    }),
    whole("spawn", |w| done(w.m.spawn("another"))),
    whole("run a program", |w| done(w.p.exec(&w.program))),
    piecemeal("exit", |w| {
        w.p.exit();
        Ok(())
    }),
    piecemeal("exit of the child", |w| {
        w.child.exit();
        Ok(())
    }),
    // Mappings.
    whole("map more", |w| done(map(&w.p, 40, 4, RW, PRIVATE | ANON, None))),
    whole("map more of a file", |w| done(map(&w.p, 40, 4, RW, SHARED, Some(&w.file)))),
    whole("map more, shared", |w| done(map(&w.p, 40, 4, RW, SHARED | ANON, None))),
    whole("map more beside what is", |w| done(map(&w.p, 4, 2, RW, PRIVATE | ANON, None))),
    piecemeal("map more and fill it", |w| {
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON | MapFlags::POPULATE, None))
    }),
    whole("map more and lock it", |w| {
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON | MapFlags::LOCKED, None))
    }),
    whole("map more, where nothing is", |w| {
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON | MapFlags::EXCL, None))
    }),
    whole("unmap what somebody holds who is told", |w| {
        told(w, 2, Events::UNMAP, |w| done(w.p.munmap(at(2), PAGE)))
    }),
    whole("map near a hint", |w| mapped_near(w, at(40))),
    whole("map near a hint that is taken", |w| mapped_near(w, at(0))),
    whole("map anywhere", |w| mapped_near(w, 0)),
    whole_or(
        "map over a mapping",
        |w| done(map(&w.p, 0, 4, RW, PRIVATE | ANON, None)),
        |w| w.p.munmap(at(0), 4 * PAGE).unwrap(),
    ),
    whole_or(
        "map over the middle of a file",
        |w| done(map(&w.p, 17, 2, RW, SHARED | ANON, None)),
        |w| w.p.munmap(at(17), 2 * PAGE).unwrap(),
    ),
    whole_or(
        "map a file over parts of several",
        |w| done(map(&w.p, 2, 8, RW, PRIVATE, Some(&w.file))),
        |w| w.p.munmap(at(2), 8 * PAGE).unwrap(),
    ),
    whole("unmap a page in the middle", |w| done(w.p.munmap(at(1), PAGE))),
    whole("unmap the middle of a file", |w| done(w.p.munmap(at(17), 2 * PAGE))),
    whole("unmap a whole mapping", |w| done(w.p.munmap(at(24), 2 * PAGE))),
    whole("unmap parts of several", |w| done(w.p.munmap(at(2), 16 * PAGE))),
    whole("unmap a locked page", |w| done(w.p.munmap(at(57), PAGE))),
    whole("unmap everything", |w| done(w.p.munmap(at(0), 64 * PAGE))),
    // Mappings that grow, shrink, move, and are there twice.
    whole("let a mapping grow", |w| remap(w, 0, 4, 6, None)),
    whole("let a file's mapping grow", |w| remap(w, 8, 4, 6, None)),
    whole("let shared memory grow", |w| remap(w, 24, 2, 4, None)),
    whole("let a mapping shrink", |w| remap(w, 16, 4, 2, None)),
    whole("let the middle of a mapping shrink", |w| remap(w, 1, 2, 1, None)),
    whole("move a mapping", |w| remap(w, 0, 4, 4, Some(40))),
    whole("move the middle of copies of a file", |w| remap(w, 17, 2, 2, Some(40))),
    whole("move locked pages", |w| remap(w, 56, 2, 2, Some(40))),
    whole("move what is not promised", |w| remap(w, 49, 1, 1, Some(40))),
    whole("move over a part of a mapping", |w| remap(w, 0, 2, 2, Some(17))),
    whole("move a part of a mapping over another", |w| remap(w, 0, 1, 1, Some(2))),
    whole("move and shrink", |w| remap(w, 8, 4, 2, Some(40))),
    whole("move a mapping that has no room to grow", |w| remap(w, 1, 1, 3, None)),
    whole("move locked pages that have no room to grow", |w| remap(w, 56, 2, 4, None)),
    whole("move and grow", |w| remap(w, 16, 4, 6, Some(40))),
    whole("move shared memory and let it grow", |w| remap(w, 24, 2, 4, Some(40))),
    whole_or(
        "move and grow over mappings",
        |w| remap(w, 0, 4, 6, Some(17)),
        |w| w.p.munmap(at(17), 6 * PAGE).unwrap(),
    ),
    whole("move and leave zeros", |w| left_mapped(w, 0, 4)),
    whole("move copies of a file and leave the file", |w| left_mapped(w, 17, 2)),
    whole("move shared memory and leave it", |w| left_mapped(w, 24, 2)),
    whole("show memory twice", |w| done(w.p.share_range(at(0), 4 * PAGE, &w.p))),
    whole("show copies of a file twice", |w| done(w.p.share_range(at(16), 4 * PAGE, &w.p))),
    whole("show shared memory twice", |w| done(w.p.share_range(at(24), 2 * PAGE, &w.p))),
    whole_or(
        "show locked pages twice",
        |w| done(w.p.share_range(at(56), 3 * PAGE, &w.p)),
        own_locked,
    ),
    whole("show memory to the child", |w| done(w.p.share_range(at(0), 4 * PAGE, &w.child))),
    whole("show the child's memory", |w| done(w.child.share_range(at(16), 4 * PAGE, &w.p))),
    whole("move the break", |w| done(w.p.brk(w.p.heap().0 + 2 * PAGE))),
    piecemeal("move the break up and down", |w| {
        done(w.p.brk(w.p.heap().0 + 3 * PAGE))?;
        done(w.p.brk(w.p.heap().0 + PAGE))
    }),
    whole("grow the stack", |w| done(w.p.grow_stack(STACK_TOP - 2 * PAGE))),
    whole("take pages that may go", |w| done(w.p.space().purge(w.p.cx()))),
    // Rights.
    whole("let a file's pages be stored into", |w| done(w.p.mprotect(at(32), 2 * PAGE, RW))),
    whole("let a part of a file be stored into", |w| done(w.p.mprotect(at(33), PAGE, RW))),
    whole("take all rights", |w| done(w.p.mprotect(at(0), 4 * PAGE, NONE))),
    whole("take rights from a part", |w| done(w.p.mprotect(at(1), 2 * PAGE, R))),
    whole("take rights of what somebody holds who is told", |w| {
        told(w, 2, Events::SETPROT, |w| done(w.p.mprotect(at(2), PAGE, R)))
    }),
    whole("take rights from locked pages", |w| done(w.p.mprotect(at(56), PAGE, R))),
    piecemeal("take rights from a part and give them back", |w| {
        done(w.p.mprotect(at(17), 2 * PAGE, R))?;
        done(w.p.mprotect(at(17), 2 * PAGE, RW))
    }),
    // Locks.
    whole("lock pages", |w| done(w.p.mlock(at(0), 4 * PAGE))),
    whole("lock pages of a file", |w| done(w.p.mlock(at(8), 4 * PAGE))),
    whole("lock copies of a file's pages", |w| done(w.p.mlock(at(16), 4 * PAGE))),
    whole("lock pages that are not promised", |w| done(w.p.mlock(at(48), 3 * PAGE))),
    whole("unlock a page", |w| done(w.p.munlock(at(56), PAGE))),
    whole("unlock all that are locked", |w| done(w.p.munlock(at(56), 3 * PAGE))),
    whole("lock everything", |w| done(w.p.mlockall(LockAll::CURRENT))),
    whole_or(
        "lock everything, now and later",
        |w| done(w.p.mlockall(LockAll::CURRENT | LockAll::FUTURE)),
        |w| w.p.mlockall(LockAll::FUTURE).unwrap(), // illumos leaves the flag
    ),
    piecemeal("lock what is mapped later", |w| {
        done(w.p.mlockall(LockAll::FUTURE))?;
        done(map(&w.p, 40, 4, RW, PRIVATE | ANON, None))
    }),
    whole("unlock everything", |w| done(w.p.munlockall())),
    piecemeal("pin for reading", |w| pinned(w, pages(16, 4), Access::Read, |_| Ok(()))),
    piecemeal("lend", |w| lent(w, pages(16, 4), |_| Ok(()))),
    piecemeal("lend and store", |w| lent(w, pages(0, 2), |w| done(w.p.store(at(0), b"lent")))),
    piecemeal("lend pages of a file and store", |w| {
        lent(w, pages(8, 1), |w| done(w.p.store(at(8), b"lent")))
    }),
    piecemeal("lend to anons", |w| borrowed(w, 16, 4, |_| Ok(()))),
    piecemeal("lend to anons, and the lender stores", |w| {
        borrowed(w, 0, 3, |w| done(w.p.store(at(0), b"lent")))
    }),
    piecemeal("lend a file to anons, and one stores", |w| {
        borrowed(w, 8, 2, |w| done(w.p.store(at(41), b"borrowed")))
    }),
    piecemeal("lend a file to anons, store, and load what was", |w| {
        borrowed(w, 8, 1, |w| {
            done(w.p.store(at(8), b"lent"))?;
            done(w.p.load(at(40), &mut [0; 4]))
        })
    }),
    piecemeal("lend a file to anons and lock what they have", |w| {
        borrowed(w, 8, 2, |w| done(w.p.mlock(at(40), 2 * PAGE)))
    }),
    piecemeal("pin for writing", |w| pinned(w, pages(0, 4), Access::Write, |_| Ok(()))),
    piecemeal("lock by software, for reading", |w| soft_locked(w, pages(16, 4), Access::Read)),
    piecemeal("lock by software, for writing", |w| soft_locked(w, pages(0, 4), Access::Write)),
    whole("lock a file by software", |w| soft_locked(w, pages(8, 4), Access::Write)),
    // Advice and what is asked.
    piecemeal("ask for pages in advance", |w| advise(w, 16, 4, MemAdvice::WillNeed)),
    piecemeal("fill for loads", |w| advise(w, 16, 4, MemAdvice::Populate(Access::Read))),
    piecemeal("fill for stores", |w| advise(w, 0, 4, MemAdvice::Populate(Access::Write))),
    whole("say what is not needed", |w| advise(w, 0, 4, MemAdvice::DontNeed)),
    whole("say what of a file is not needed", |w| advise(w, 8, 4, MemAdvice::DontNeed)),
    whole("give contents up", |w| advise(w, 0, 4, MemAdvice::Use(Advice::Free))),
    whole("give contents up at once where that is easy", |w| {
        advise(w, 0, 4, MemAdvice::Use(Advice::Purge))
    }),
    whole("empty pages of its own", |w| advise(w, 0, 4, MemAdvice::Use(Advice::Drop))),
    piecemeal("empty copies of a file and drop its pages", |w| {
        advise(w, 16, 4, MemAdvice::Use(Advice::Drop))
    }),
    whole("discard pages", |w| advise(w, 0, 4, MemAdvice::Use(Advice::Discard))),
    whole("discard copies of a file", |w| advise(w, 16, 4, MemAdvice::Use(Advice::Discard))),
    whole("discard what is not promised", |w| advise(w, 48, 3, MemAdvice::Use(Advice::Discard))),
    whole("discard shared pages", |w| advise(w, 24, 2, MemAdvice::Use(Advice::Discard))),
    whole("say that a part is read in order", |w| {
        advise(w, 9, 2, MemAdvice::Use(Advice::Sequential))
    }),
    whole("say that all is read at random", |w| advise(w, 0, 4, MemAdvice::Use(Advice::Random))),
    whole("leave zeros to a child", |w| advise(w, 1, 2, MemAdvice::InheritZero)),
    piecemeal("leave zeros to a child that is forked", |w| {
        advise(w, 1, 2, MemAdvice::InheritZero)?;
        done(w.p.fork())
    }),
    whole("share with a child", |w| inherit(w, 0, 4, Inherit::Share)),
    piecemeal("share with a child that is forked", |w| {
        inherit(w, 1, 2, Inherit::Share)?;
        inherit(w, 16, 2, Inherit::Share)?;
        done(w.p.fork())
    }),
    Deed {
        what: "share locked pages with a child that is forked",
        how: |w| {
            inherit(w, 56, 3, Inherit::Share)?;
            done(w.p.fork())
        },
        piecemeal: true,
        // Pages that are locked are made the map's own one by one, before there is a child.
        or: Some(|w| {
            inherit(w, 56, 3, Inherit::Share).unwrap();
            own_locked(w);
        }),
    },
    piecemeal("leave copies of shared memory to a child that is forked", |w| {
        inherit(w, 8, 2, Inherit::Copy)?;
        inherit(w, 24, 2, Inherit::Copy)?;
        inherit(w, 25, 1, Inherit::Zero)?;
        done(w.p.fork())
    }),
    whole("leave copies to a child", |w| advise(w, 0, 4, MemAdvice::InheritCopy)),
    whole("leave nothing to a child", |w| advise(w, 9, 1, MemAdvice::DontFork)),
    whole("leave all to a child", |w| advise(w, 8, 4, MemAdvice::DoFork)),
    whole("prefer the one page size", |w| {
        done(w.p.space().set_page_size(w.p.cx(), pages(0, 4), 0))
    }),
    whole("ask what is in memory", |w| done(w.p.mincore(at(0), 4 * PAGE))),
    whole("ask what shared memory is", |w| {
        done(w.p.space().mem_id(w.p.cx(), pages(25, 1).start()))
    }),
    // Transfers, and memory as a whole.
    piecemeal("write out a file's pages", |w| done(w.p.msync(at(8), 4 * PAGE, SyncFlags::empty()))),
    piecemeal("write out and drop", |w| done(w.p.msync(at(8), 4 * PAGE, SyncFlags::INVALIDATE))),
    piecemeal("write out anonymous pages", |w| {
        done(w.p.msync(at(0), 4 * PAGE, SyncFlags::empty()))
    }),
    piecemeal("page everything out", |w| {
        w.m.pageout_all();
        Ok(())
    }),
    piecemeal("swap the process out", |w| {
        w.p.swap_out();
        Ok(())
    }),
    piecemeal("read into memory", |w| match w.p.pread(&w.file, 5, at(0) + 5, 3 * PAGE) {
        // A transfer that was cut short says how far it came.
        Ok(n) if n < 3 * PAGE => Err(format!("{n} bytes")),
        other => done(other),
    }),
    piecemeal("write from memory", |w| match w.p.pwrite(&w.file, PAGE + 5, at(0) + 5, 2 * PAGE) {
        Ok(n) if n < 2 * PAGE => Err(format!("{n} bytes")),
        other => done(other),
    }),
    whole("extend the file", |w| done(w.p.pwrite(&w.file, 4 * PAGE + 20, at(2) + 20, 20))),
    whole("truncate the file", |w| done(w.file.vnode.truncate(w.m.cx(), w.m.db(), PAGE + 100))),
    whole("let the file grow", |w| done(w.file.vnode.truncate(w.m.cx(), w.m.db(), 9 * PAGE))),
    piecemeal("flush the file", |w| done(w.file.vnode.sync(w.m.cx(), w.m.db()))),
    whole("add a disk", |w| {
        let area = SwapArea { backing: SwapBacking::Memory, pages: 16, priority: 1 };
        done(w.m.swap_add(&area))
    }),
    piecemeal("empty the disk", |w| {
        if w.m.swap().list().is_empty() {
            return Ok(());
        }
        done(w.m.swap_del(AreaId(1)))
    }),
];
