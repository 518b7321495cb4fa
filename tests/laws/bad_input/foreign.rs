//! What belongs to another machine, or to another process: its numbers are this one's numbers, and mean something else.

use super::{Ground, Row, died, errno, row, run, said};
use crate::world::{PAGE, R, RW, SHARED, at, map};
use addr_space::{AddrSpace, AsError, AsId, HatProvider as _, LoadFlags, SegKind, UnloadFlags};
use page_db::{
    Access, Cx, FileOffset, GotPage, Identity, PageDb, Prot, PutFlags, Reserve, VirtAddr,
    VirtRange, Vnode, VnodeError, VnodeId, VnodeKind,
};
use seg_drivers::{AnonLayer, KmemArgs, SegVnArgs, VnDriver, VnTunables};
use segvm::Machine;
use segvm::files::{File, FileHandle, OpenMode};
use segvm::machine::{Process, USER_RANGE};
use std::fmt::Display;
use std::sync::{Arc, OnceLock};

/// Another machine, larger, with a process and a file that has the number of this one's.
struct Other {
    m: Machine,
    p: Process,
    file: Arc<File>,
}

fn other(g: &Ground) -> Other {
    let m = Machine::builder().frames(4096).build().unwrap();
    let p = m.spawn("q").unwrap();
    let file = m.create_file("theirs", 4 * PAGE).unwrap();
    assert_eq!(file.id(), g.file.id(), "numbers say nothing");
    file.pwrite(m.cx(), m.db(), 0, b"theirs").unwrap();
    g.file.pwrite(g.cx(), g.m.db(), 0, b"secret").unwrap();
    Other { m, p, file }
}

impl Other {
    fn handle(&self) -> FileHandle {
        FileHandle::new(Arc::clone(&self.file), OpenMode::ReadWrite)
    }
    /// The answer, once the other machine is as it should be and the file of this one has its bytes.
    fn after(self, g: &Ground, answer: String) -> String {
        self.m.verify().unwrap();
        self.p.exit();
        self.m.verify().unwrap();
        let mut bytes = [0; 6];
        g.file.pread(g.cx(), g.m.db(), 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"secret");
        self.file.pread(self.m.cx(), self.m.db(), 0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"theirs");
        answer
    }
}

/// What comes of `ask` beside another machine.
fn beside(g: &Ground, ask: impl FnOnce(&Other) -> String) -> String {
    let o = other(g);
    let answer = ask(&o);
    o.after(g, answer)
}
fn told<T: std::fmt::Debug>(r: Result<T, AsError>) -> String {
    r.map_or_else(|e| with_errno(e.errno(), &e), |v| format!("{v:?}"))
}
fn with_errno(n: i32, e: &dyn Display) -> String {
    format!("{}: {e}", errno(n))
}
fn range(page: u64, pages: u64) -> VirtRange {
    VirtRange::exact(at(page), pages * PAGE).unwrap()
}
fn va(page: u64) -> VirtAddr {
    VirtAddr::new(at(page)).unwrap()
}
/// Maps a page of `vnode` shared at page 40.
fn map_vnode(g: &Ground, vnode: Arc<dyn Vnode>) -> String {
    let args = SegVnArgs {
        vnode: Some(vnode),
        kind: SegKind::SHARED,
        ..SegVnArgs::zfod(g.m.vn(), Prot::RW)
    };
    told(g.p.space().map(g.cx(), range(40, 1), &args))
}

/// An object that has a number, and hands out the page it is given, or none.
#[derive(Debug)]
struct Object {
    id: VnodeId,
    from: OnceLock<(Arc<File>, &'static PageDb)>,
}

impl Object {
    fn new(id: VnodeId) -> Arc<Self> {
        Arc::new(Self { id, from: OnceLock::new() })
    }
}

impl Vnode for Object {
    fn id(&self) -> VnodeId {
        self.id
    }
    fn name(&self) -> String {
        "object".to_owned()
    }
    fn size(&self) -> u64 {
        PAGE
    }
    fn get_page<'a>(
        &self,
        cx: &'a Cx,
        _: &'a PageDb,
        offset: FileOffset,
        access: Access,
    ) -> Result<GotPage<'a>, VnodeError> {
        match self.from.get() {
            Some((file, db)) => {
                // The same thread, as that machine knows it.
                let there = Cx::new(db.counters(), cx.cpu(), cx.thread(), Arc::clone(cx.hooks()));
                file.get_page(Box::leak(Box::new(there)), db, offset, access)
            }
            None => Err(VnodeError::NotSupported { vnode: self.id, op: "get_page" }),
        }
    }
    fn put_page(
        &self,
        _: &Cx,
        _: &PageDb,
        _: FileOffset,
        _: u64,
        _: PutFlags,
    ) -> Result<(), VnodeError> {
        Ok(())
    }
}

const FOREIGN: &[Row] = &[
    row(
        "another machine's file is mapped",
        |g| beside(g, |o| said(map(&g.p, 40, 1, RW, SHARED, Some(&o.handle())))),
        "EINVAL: another machine's file",
    ),
    row(
        "another machine's file in place of what is there",
        |g| beside(g, |o| said(map(&g.p, 0, 1, RW, SHARED, Some(&o.handle())))),
        "EINVAL: another machine's file",
    ),
    row(
        "another machine's vnode is mapped",
        |g| beside(g, |o| map_vnode(g, Arc::clone(&o.file) as _)),
        "EINVAL: seg_vn: an object that this machine does not have at 0x100000028000..0x100000029000",
    ),
    row(
        "an object with a number that was never handed out",
        |g| map_vnode(g, Object::new(VnodeId(99_999))),
        "EINVAL: seg_vn: an object that this machine does not have at 0x100000028000..0x100000029000",
    ),
    row(
        "an object with the number of another",
        |g| map_vnode(g, Object::new(g.file.id())),
        "EINVAL: seg_vn: an object that this machine does not have at 0x100000028000..0x100000029000",
    ),
    row(
        "an object that hands out another machine's page",
        |g| {
            beside(g, |o| {
                let id = g.m.db().vnodes().register(g.cx(), VnodeKind::File).unwrap();
                let object = Object::new(id);
                let weak = Arc::downgrade(&(Arc::clone(&object) as Arc<dyn Vnode>));
                assert!(g.m.db().vnodes().attach(id, weak));
                let theirs: &'static Arc<PageDb> = Box::leak(Box::new(Arc::clone(o.m.db())));
                assert!(object.from.set((Arc::clone(&o.file), theirs)).is_ok());
                let mapped = map_vnode(g, object);
                let answer =
                    died(g.p.load(at(40), &mut [0])) + "; " + &died(g.p.store(at(40), &[1]));
                mapped + "; " + &answer
            })
        },
        "(); BusObjErr(5) at 0x100000028000, after 0 bytes; BusObjErr(5) at 0x100000028000, after 0 bytes",
    ),
    row(
        "another machine's driver",
        |g| {
            beside(g, |o| {
                let args = SegVnArgs::zfod(o.m.vn(), Prot::RW);
                told(g.p.space().map(g.cx(), range(40, 1), &args))
            })
        },
        "EINVAL: seg_vn: another machine's driver at 0x100000028000..0x100000029000",
    ),
    row(
        "a driver of one's own over another machine's swap",
        |g| {
            beside(g, |o| {
                let vn = VnDriver::new(&AnonLayer::new(o.m.swap()), VnTunables::default());
                told(g.p.space().map(g.cx(), range(40, 1), &SegVnArgs::zfod(&vn, Prot::RW)))
            })
        },
        "EINVAL: seg_vn: another machine's driver at 0x100000028000..0x100000029000",
    ),
    row(
        "another machine's program",
        |g| beside(g, |o| said(g.p.exec(&o.file).map(|_| ()))),
        "EINVAL: another machine's file",
    ),
    row(
        "a file in another machine's memory",
        |g| {
            beside(g, |o| {
                let (f, cx, db) = (&o.file, g.cx(), g.m.db());
                let file = |r: Result<(), segvm::files::FileError>| {
                    r.map_or_else(|e| with_errno(e.errno(), &e), |()| "done".to_owned())
                };
                let answers = [
                    file(f.pread(cx, db, 0, &mut [0; 6]).map(drop)),
                    file(f.pwrite(cx, db, 0, b"x").map(drop)),
                    file(f.truncate(cx, db, 0)),
                    file(f.sync(cx, db)),
                    format!("{:?}", f.look(cx, db, 0).map(drop)),
                    format!("{:?}", f.get_page(cx, db, FileOffset(0), Access::Read).map(drop)),
                    format!("{}", f.set_exec(db)),
                    format!("{}", Arc::clone(f).retire(cx, db).is_ok()),
                    format!("{}", g.m.remove_file(Arc::clone(f))),
                ];
                let (refused, others) = answers.split_at(4);
                assert!(refused.iter().all(|a| *a == refused[0]), "{refused:?}");
                format!("{}; {}", refused[0], others.join("; "))
            })
        },
        "EINVAL: vnode 3 is not one of this page database's; Err(22); Err(NoVnode { vnode: VnodeId(3) }); false; false; false",
    ),
    row(
        "a child of another machine",
        |g| {
            beside(g, |o| {
                let hat = o.m.hat().alloc(o.m.cx()).unwrap();
                let child =
                    AddrSpace::new(o.m.cx(), AsId(99), USER_RANGE, hat, Arc::clone(o.m.db()))
                        .unwrap();
                let answer = told(g.p.space().dup(g.cx(), &child));
                child.free(o.m.cx());
                answer
            })
        },
        "EINVAL: a child of another machine in address space 1",
    ),
    row(
        "memory is shown in another machine",
        |g| beside(g, |o| told(g.p.space().share_range(g.cx(), range(0, 1), &o.p.space(), va(0)))),
        "EINVAL: an address space of another machine in address space 1",
    ),
    row(
        "another machine's kernel heap",
        |g| {
            beside(g, |o| {
                let heap = o.m.kmem();
                let had = heap.alloc(&o.m.kernel_scx(), 2).unwrap();
                let mine = g.m.kmem().alloc(&g.m.kernel_scx(), 2).unwrap();
                assert_eq!(had, mine, "addresses say nothing");
                let here = g.m.kernel_scx();
                let said = |r: Result<(), addr_space::SegError>| {
                    r.map_or_else(|e| with_errno(e.errno(), &e), |()| "done".to_owned())
                };
                let answer = [
                    said(heap.free(&here, had)),
                    said(heap.alloc(&here, 1).map(drop))
                        .replace(&heap.window().to_string(), "all of it"),
                    told(g.m.kas().map(g.cx(), heap.window(), &KmemArgs(Arc::clone(heap))))
                        .contains("overlaps")
                        .to_string(),
                ]
                .join("; ");
                said(heap.free(&o.m.kernel_scx(), had));
                said(g.m.kmem().free(&here, mine));
                answer
            })
        },
        "EINVAL: seg_kmem: another machine's heap at 0xfffffe0000000000..0xfffffe0000002000; EINVAL: seg_kmem: another machine's heap at all of it; true",
    ),
    row(
        "a translation to another machine's page",
        |g| {
            beside(g, |o| {
                let got = o.file.get_page(o.m.cx(), o.m.db(), FileOffset(0), Access::Read).unwrap();
                let (space, none) = (g.p.space(), LoadFlags::empty());
                let hat = space.hat();
                let one = hat.memload(g.cx(), va(1), &got.page, Prot::RW, none, None);
                let pages = [Some(addr_space::RunPage::new(&got.page, Prot::RW))];
                let run = hat.memload_run(g.cx(), va(2), &pages, none, None);
                assert_eq!((run.passed, run.loaded), (0, 0));
                assert!(hat.probe(g.cx(), va(1)).is_none() && hat.probe(g.cx(), va(2)).is_none());
                hat.unload(g.cx(), range(1, 2), UnloadFlags::empty());
                let answer = format!("{}; {}", one.unwrap_err(), run.end.unwrap_err());
                drop(got);
                answer
            })
        },
        "the page for 0x100000001000 is another machine's; the page for 0x100000002000 is another machine's",
    ),
    row(
        "pins are given back in another process, and in another machine",
        |g| {
            let (o, child) = (other(g), g.p.fork().unwrap());
            child.store(at(0), b"child").unwrap();
            let ask = |pages| g.p.space().lock_pages(g.cx(), range(pages, 1), Access::Write);
            g.p.store(at(1), b"x").unwrap();
            // Of one page there is a list, the file's is locked by software.
            let mut answers = Vec::new();
            for pinned in [ask(0).unwrap(), ask(16).unwrap()] {
                let wrong = child.space().unlock_pages(child.cx(), pinned);
                let (e, pinned) = wrong.unwrap_err();
                answers.push(told::<()>(Err(e)));
                let (e, pinned) = o.p.space().unlock_pages(o.p.cx(), pinned).unwrap_err();
                answers.push(told::<()>(Err(e)));
                g.m.verify().unwrap();
                let there = g.p.space().try_unmap(g.cx(), pinned.range());
                assert!(there.is_err(), "still pinned");
                g.p.space().unlock_pages(g.cx(), pinned).unwrap();
            }
            assert_eq!(answers[..2], answers[2..]);
            child.exit();
            o.after(g, answers[..2].join("; "))
        },
        "EINVAL: pinned pages of address space 1 in address space 2; EINVAL: pinned pages of another machine in address space 1",
    ),
    row(
        "what was lent is read and given back where it came from",
        |g| {
            let lent = g.p.lend(at(0), PAGE).unwrap();
            g.p.store(at(0), b"after").unwrap();
            let mut bytes = [0; 5];
            let n = lent.read(0, &mut bytes);
            lent.give_back(g.cx());
            g.p.store(at(0), b"alive").unwrap();
            format!("{n} {} {}", String::from_utf8_lossy(&bytes), g.m.db().lent_pages())
        },
        "5 alive 0",
    ),
];

const NUMBERS: &[Row] = &[
    row(
        "the number of a file that lives",
        |g| {
            let gone = g.m.db().vnodes().retire(g.cx(), g.file.id());
            let next = g.m.create_file("next", PAGE).unwrap();
            format!("{gone} {}", next.id() == g.file.id())
        },
        "false false",
    ),
    row(
        "a number is given back twice",
        |g| {
            let t = g.m.db().vnodes();
            let make = || t.register(g.cx(), VnodeKind::File).unwrap();
            let id = make();
            let said = format!("{} {}", t.retire(g.cx(), id), t.retire(g.cx(), id));
            let (x, y) = (make(), make());
            format!("{said} {}", x == y)
        },
        "true false false",
    ),
    row(
        "numbers that nobody has",
        |g| {
            let (db, cx) = (g.m.db(), g.cx());
            let object: Arc<dyn Vnode> = Object::new(VnodeId(0));
            let free = db.freemem();
            for id in [0, 40, 5555, u32::MAX].map(VnodeId) {
                let t = db.vnodes();
                assert!(!t.retire(cx, id) && !t.set_kind(id, VnodeKind::Exec));
                assert!(!t.attach(id, Arc::downgrade(&object)));
                let name = Identity::new(id, FileOffset(0));
                let made = db.create(cx, name, 0, Reserve::Normal).map(drop);
                assert_eq!(made, Err(page_db::PageError::NoVnode { vnode: id }));
                assert!(db.lookup_shared(cx, name).is_none() && db.freemem() == free);
            }
            with_errno(22, &page_db::PageError::NoVnode { vnode: VnodeId(40) })
        },
        "EINVAL: vnode number 40 is not in use",
    ),
    row(
        "a file that somebody has is not ended",
        |g| {
            let f = g.m.create_file("f", PAGE).unwrap();
            f.pwrite(g.cx(), g.m.db(), 0, b"here").unwrap();
            let kept = Arc::clone(&f);
            let handle = FileHandle::new(f, OpenMode::ReadOnly);
            map(&g.p, 40, 1, R, SHARED, Some(&handle)).unwrap();
            let first = g.m.remove_file(handle.vnode);
            g.p.munmap(at(40), PAGE).unwrap();
            let mut bytes = [0; 4];
            kept.pread(g.cx(), g.m.db(), 0, &mut bytes).unwrap();
            let id = kept.id();
            let answer = format!("{first} {} ", String::from_utf8_lossy(&bytes));
            let last = g.m.remove_file(kept);
            let next = g.m.create_file("next", PAGE).unwrap();
            format!("{answer}{last} {}", next.id() == id)
        },
        "false here true true",
    ),
];

#[test]
fn what_belongs_to_another_machine() {
    run(Ground::new, FOREIGN);
}

#[test]
fn vnode_numbers() {
    run(Ground::new, NUMBERS);
}
