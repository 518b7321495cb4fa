//! Laws 3, 4, 5: `verify` finds what is broken, and names it.
//!
//! A check that has never seen damage proves nothing. So a small world is built in which everything occurs (shared and private, anonymous
//! and of files, copied, locked, paged out, cached), every check passes, and then one structure is spoilt behind everybody's
//! back: by a hook made for that, or by a lower layer's own call that the layers above know nothing of.
//!
//! I1 to I15 are those of uvm.md 7.4, V01 to V30 those of the list of thirty; the rest are each crate's own, explained where they are checked. Some of
//! the thirty are others of these under another name: V08 is I1, V11 is I4 and L1, V12 is I8, V13 is I11 and I15, V17 is W2, V18 is I12.
//!
//! The last clause of I3 is weaker than there: an anon with neither page nor slot is zeros, which `MADV_FREE` may make of it.

use crate::world::{ANON, PAGE, PRIVATE, R, RW, SHARED, at, map, open};
use addr_space::avl::Invariant;
use addr_space::verify::TestDamage;
use addr_space::{AddrSpace, LoadFlags, UnloadFlags};
use hat_x86::{PteBits, X86Pte, geometry};
use page_db::damage::Damage;
use page_db::db::Claim;
use page_db::{
    CpuId, FileOffset, Identity, LockedPage, PageId, Prot, Reserve, VirtAddr, VirtRange, Vnode, pvn,
};
use seg_drivers::SegVn;
use segvm::Machine;
use segvm::files::{FileHandle, OpenMode};
use segvm::machine::{ForkPolicy, Process};
use std::any::Any;
use std::collections::BTreeSet;
use swapfs::{AnonNumber, AreaId, PhysSlot, Plant};

/// Pages of the first process, by what they are. Its child has all of them but the first two.
const STORED: u64 = 48; // and the next: paged out
const ANON_SHARED_BY_FORK: u64 = 0; // and the next; the one after was copied by the child
const FILE_READ: u64 = 8; // private, not copied
const FILE_COPIED: u64 = 9;
const FILE_SHARED: u64 = 16;
const LOCKED: u64 = 32;
const READ_ONLY: u64 = 40;
const NOTHING: u64 = 64;

struct Small {
    m: Machine,
    p: Process,
    _child: Process,
    file: FileHandle,
    /// A file whose page is on the cache list.
    cached: FileHandle,
}

fn small() -> Small {
    // Below 256 frames no processor keeps free ones aside: each free page is on a list.
    let m = Machine::builder().frames(240).cpus(2).build().unwrap();
    let p = m.spawn("parent").unwrap();
    let store = |p: &Process, page: u64| p.store(at(page), b"bytes").unwrap();
    let load = |p: &Process, page: u64| {
        p.load_u8(at(page)).unwrap();
    };
    let file = open(&m, "file", 4 * PAGE, OpenMode::ReadWrite);
    let cached = open(&m, "cached", 2 * PAGE, OpenMode::ReadWrite);
    map(&p, STORED, 2, RW, PRIVATE | ANON, None).unwrap();
    store(&p, STORED);
    store(&p, STORED + 1);
    m.pageout_all();
    map(&p, 56, 2, R, SHARED, Some(&cached)).unwrap();
    load(&p, 56);
    p.munmap(at(56), 2 * PAGE).unwrap();
    map(&p, 0, 4, RW, PRIVATE | ANON, None).unwrap();
    (0..3).for_each(|page| store(&p, page));
    map(&p, FILE_READ, 2, RW, PRIVATE, Some(&file)).unwrap();
    load(&p, FILE_READ);
    store(&p, FILE_COPIED);
    map(&p, FILE_SHARED, 2, RW, SHARED, Some(&file)).unwrap();
    store(&p, FILE_SHARED);
    load(&p, FILE_SHARED + 1);
    map(&p, 24, 2, RW, SHARED | ANON, None).unwrap();
    store(&p, 24);
    map(&p, LOCKED, 1, RW, PRIVATE | ANON, None).unwrap();
    p.mlock(at(LOCKED), PAGE).unwrap();
    map(&p, READ_ONLY, 1, R, PRIVATE | ANON, None).unwrap();
    load(&p, READ_ONLY);
    let child = p.fork().unwrap();
    store(&child, 2);
    load(&p, 0);
    Small { m, p, _child: child, file, cached }
}

impl Small {
    fn space(&self) -> std::sync::Arc<AddrSpace> {
        self.p.space()
    }
    fn with_vn<T>(&self, page: u64, look: impl FnOnce(&SegVn, u64) -> T) -> T {
        with_vn(&self.m, &self.p, page, look)
    }
    /// The anon of a page.
    fn anon(&self, page: u64) -> AnonNumber {
        self.with_vn(page, |vn, slot| vn.amap().and_then(|m| m.peek(slot))).expect("an anon")
    }
    /// Puts an anon into a page's slot, without a reference.
    fn put_slot(&self, page: u64, n: Option<AnonNumber>) {
        self.with_vn(page, |vn, slot| {
            vn.amap().unwrap().enter(self.m.cx(), slot).expect("its chunk exists").set(n);
        });
    }
    /// Sets the references of a page's slot.
    fn put_slot_refs(&self, page: u64, refs: u32) {
        self.with_vn(page, |vn, slot| {
            vn.amap().unwrap().damage_slot_refs(self.m.cx(), slot..slot + 1, refs);
        });
    }
    /// The page a page of the process is mapped to.
    fn frame(&self, page: u64) -> PageId {
        let t = self.space().hat().probe(self.m.cx(), va(page)).expect("mapped");
        self.m.db().page_of(t.pfn).expect("a frame with a page")
    }
    /// A page of a file that is on the cache list.
    fn cached(&self) -> PageId {
        let id = Identity::new(self.cached.vnode.id(), FileOffset(0));
        self.m.db().exists(self.m.cx(), id).expect("still cached")
    }
    fn free(&self) -> PageId {
        let db = self.m.db();
        let nameless = |p: &PageId| db.page(*p).is_free() && db.page(*p).identity().is_none();
        db.pages().ids().find(nameless).expect("memory is not short")
    }
    /// A frame that is the kernel's, and nobody's.
    fn kernel(&self) -> PageId {
        let page = self.m.db().alloc(self.m.cx(), 0, Reserve::Normal).unwrap();
        self.m.db().set_kernel(&page, true);
        page.id()
    }
    fn page(&self, damage: Damage) {
        self.m.db().damage(self.m.cx(), damage);
    }
    fn swap(&self, plant: Plant) {
        self.m.swap().plant(self.m.cx(), plant);
    }
    fn space_damage(&self, damage: TestDamage) {
        assert!(self.space().damage_for_test(self.m.cx(), damage), "{damage:?} can be done");
    }
    /// Changes the bits of the translation of a page.
    fn entry(&self, page: u64, change: impl FnOnce(X86Pte) -> X86Pte) {
        let (cx, hat) = (self.m.cx(), self.space().hat().id());
        let found = self.m.hat().vatopfn(cx, hat, va(page)).expect("a hat");
        let old = found.steps.last().expect("a leaf").entry;
        assert!(self.m.hat().damage_entry(cx, hat, va(page), change(old).0), "a leaf");
    }
    fn valid_count(&self, page: u64, by: u16) {
        let hat = self.space().hat().id();
        self.m.hat().damage_valid_cnt(self.m.cx(), hat, va(page), by);
    }
    fn top(&self, addr: u64, change: impl FnOnce(X86Pte) -> X86Pte) {
        let (cx, hat) = (self.m.cx(), self.space().hat().id());
        let found = self.m.hat().vatopfn(cx, hat, VirtAddr::new(addr).unwrap()).expect("a hat");
        let new = change(found.steps[0].entry);
        self.m.hat().damage_top(cx, hat, geometry::index(addr, geometry::TOP), new.0);
    }
    /// Maps a page of the process to a page that is somewhere else.
    fn load_wrong(&self, page: u64, other: PageId) {
        let (space, cx) = (self.space(), self.m.cx());
        space.hat().unload(cx, VirtRange::page_of(va(page)), UnloadFlags::empty());
        let locked = self.m.db().lock_shared(cx, other);
        let prot = Prot::READ | Prot::USER;
        space.hat().memload(cx, va(page), &locked, prot, LoadFlags::empty(), None).unwrap();
    }
}

/// Looks at the segment of a page of a process.
fn with_vn<T>(m: &Machine, p: &Process, page: u64, look: impl FnOnce(&SegVn, u64) -> T) -> T {
    let (space, cx) = (p.space(), m.cx());
    let segs = space.segs(cx);
    let seg = segs.seg_at(cx, va(page)).expect("a segment");
    let ops: &dyn Any = seg.ops();
    let vn: &SegVn = ops.downcast_ref().expect("of seg_vn");
    look(vn, vn.slot_of(seg.range(), va(page)))
}

fn va(page: u64) -> VirtAddr {
    VirtAddr::new(at(page)).unwrap()
}

fn writable(e: X86Pte) -> X86Pte {
    e.with(PteBits::W, PteBits::empty())
}

struct Case {
    /// What `verify` is to name.
    invariant: &'static str,
    /// What the damage is.
    what: &'static str,
    harm: fn(&Small),
}

const fn case(invariant: &'static str, what: &'static str, harm: fn(&Small)) -> Case {
    Case { invariant, what, harm }
}

/// Law 3: what is counted adds up.
const CONSERVATION: &[Case] = &[
    case("I1", "an anon has a reference too many", |s| {
        s.m.anon().anons().damage_refs(s.anon(2), 1);
    }),
    case("I1", "an anon in two slots has one reference", |s| {
        s.m.anon().anons().damage_refs(s.anon(ANON_SHARED_BY_FORK), -1);
    }),
    case("I1", "a slot lost its anon", |s| s.put_slot(2, None)),
    case("I1", "a slot holds another's anon", |s| s.put_slot(2, Some(s.anon(0)))),
    case("I3", "a slot holds a number that was never handed out", |s| {
        s.put_slot(2, AnonNumber::from_raw(40_000));
    }),
    case("I6", "a slot that is occupied has no reference", |s| s.put_slot_refs(2, 0)),
    case("I6", "a slot has more references than its map", |s| s.put_slot_refs(2, 9)),
    case("I8", "a frame is the kernel's that no table lies in", |s| {
        s.kernel();
    }),
    case("I8", "a frame was allocated and forgotten", |s| {
        let other = s.m.thread(CpuId(1));
        _ = s.m.db().alloc(other.cx(), 0, Reserve::Normal).unwrap().leak();
    }),
    case("F1", "a free page is on no list", |s| s.page(Damage::LoseFree(s.free()))),
    case("I9", "a slot is taken that nobody owns", |s| {
        s.swap(Plant::LoseSlot(s.anon(STORED)));
    }),
    case("W2", "two anons own one slot", |s| {
        let (owner, thief) = (s.anon(STORED), s.anon(STORED + 1));
        s.swap(Plant::ShareSlot { owner, thief });
    }),
    case("W2", "an anon owns a slot that is free", |s| {
        s.swap(Plant::ForgeSlot(s.anon(STORED), PhysSlot { area: AreaId(1), index: 7 }));
    }),
    case("G2", "a slot is taken and counted free", |s| {
        s.swap(Plant::FlipSlot(PhysSlot { area: AreaId(1), index: 9 }));
    }),
    case("R1", "an anon with a page says that it borrows another", |s| {
        s.swap(Plant::Borrow(s.anon(0), s.frame(FILE_SHARED)));
    }),
    case("Q2", "a name died without being freed", |s| s.swap(Plant::Kill(s.anon(2)))),
    case("V1", "more is promised than there is", |s| s.swap(Plant::OverPromise)),
    case("V2", "memory is promised that was not charged", |s| s.swap(Plant::FreeMemory)),
    case("I12", "swap is promised to nobody", |s| s.m.swap().reserve(1).unwrap()),
    case("I12", "swap that was promised is given to others", |s| s.m.swap().unreserve(1)),
    case("I12", "a segment counts a page that it has not reserved", |s| {
        s.with_vn(0, |vn, _| vn.damage_reserved());
    }),
    case("I13", "the sizes of the segments do not add up", |s| s.space_damage(TestDamage::Size)),
    case("I13", "their reserved sizes do not", |s| s.space_damage(TestDamage::Resv)),
    case("B1", "a page is claimed and nobody paid", |s| {
        s.page(Damage::Claim(s.frame(FILE_SHARED), 1));
    }),
    case("B1", "memory is charged to nobody", |s| {
        assert!(s.m.db().free_mem().charge(1, 0));
    }),
    case("V19", "a page is claimed and no mapping locked it", |s| {
        let page = s.m.db().lock_shared(s.m.cx(), s.frame(FILE_SHARED));
        s.m.db().claim(&page, Claim::Lck).unwrap();
    }),
    case("V19", "a mapping locked a page that is not claimed", |s| {
        let page = s.m.db().lock_shared(s.m.cx(), s.frame(LOCKED));
        let era = page.page().claim_era().unwrap();
        s.m.db().unclaim(&page, Claim::Cow, era);
    }),
    case("V19", "a mapping locked a page of a file that is not claimed", |s| {
        s.p.mlock(at(FILE_SHARED), PAGE).unwrap();
        let page = s.m.db().lock_shared(s.m.cx(), s.frame(FILE_SHARED));
        let era = page.page().claim_era().unwrap();
        s.m.db().unclaim(&page, Claim::Lck, era);
    }),
    case("V19", "locked bytes are charged that nobody locked", |s| {
        assert!(s.space().state().charge_locked(PAGE));
    }),
    case("K1", "a page of the kernel's heap has a claim too many", |s| {
        let (db, kmem) = (s.m.db(), s.m.kmem());
        kmem.alloc(&s.m.kernel_scx(), 1).unwrap();
        let first = db.vnode_pages(s.m.cx(), kmem.vnode().id())[0];
        let page = db.lock_shared(s.m.cx(), first);
        db.claim(&page, Claim::Lck).unwrap();
    }),
];

/// Law 4: one identity, and every list agrees with it.
const IDENTITY: &[Case] = &[
    case("I4", "two pages have one name", |s| {
        s.page(Damage::Duplicate(s.frame(FILE_SHARED), s.kernel()));
    }),
    case("L1", "a page is not in the hash", |s| s.page(Damage::Unhash(s.frame(FILE_SHARED)))),
    case("L1", "a page has another name than the hash", |s| {
        let name = Identity::new(s.file.vnode.id(), FileOffset(3 * PAGE));
        s.page(Damage::Misname(s.frame(FILE_SHARED), name));
    }),
    case("P1", "a page is not on its vnode's list", |s| s.page(Damage::Unlist(s.frame(0)))),
    case("L1", "a page is on another vnode's list", |s| {
        s.page(Damage::ListTwice(s.kernel(), s.file.vnode.id()));
    }),
    case("P1", "a file's page says it is anonymous", |s| {
        s.page(Damage::FlipSwap(s.frame(FILE_SHARED)));
    }),
    case("C1", "a page in use says it is free", |s| s.page(Damage::FlipFree(s.frame(0)))),
    case("C1", "a page of the cache list says it is in use", |s| {
        s.page(Damage::FlipFree(s.cached()));
    }),
    case("C1", "a page of the cache list is on no list", |s| {
        s.page(Damage::LoseCached(s.cached()));
    }),
    case("C1", "the cache list is broken", |s| s.page(Damage::Unlink(s.cached()))),
    case("F1", "the free list is broken", |s| s.page(Damage::Unlink(s.free()))),
    case("P2", "a free page is mapped", |s| s.page(Damage::Map(s.cached()))),
    case("P2", "a free page is claimed", |s| s.page(Damage::Claim(s.cached(), 1))),
    case("K4", "a free page is in transit", |s| s.page(Damage::Transit(s.free()))),
    case("I11", "a page in use is in transit, and nobody moves it", |s| {
        s.page(Damage::Transit(s.frame(0)));
    }),
    case("I11", "a page is locked exclusively by nobody who runs", |s| {
        let other = s.m.thread(CpuId(1));
        _ = s.m.db().lock_excl(other.cx(), s.frame(0)).leak();
    }),
    case("V15", "a page lies past the end of its file", |s| {
        let id = Identity::new(s.file.vnode.id(), FileOffset(9 * PAGE));
        pvn::get(s.m.cx(), s.m.db(), id, 0, |_| Ok(())).unwrap();
    }),
    case("V01", "the tree of segments does not balance", |s| {
        s.space_damage(TestDamage::Tree(Invariant::Balance));
    }),
    case("V01", "a largest gap is wrong", |s| s.space_damage(TestDamage::Tree(Invariant::MaxGap))),
    case("V01", "segments overlap", |s| s.space_damage(TestDamage::Tree(Invariant::Ascending))),
    case("V01", "a link of the tree runs in a circle", |s| {
        s.space_damage(TestDamage::Tree(Invariant::Links));
    }),
    case("G4", "a segment of the tree has no driver", |s| s.space_damage(TestDamage::Driver)),
];

/// Law 5: translations are what the layers above say, and processors know no others.
const TRANSLATION: &[Case] = &[
    case("I2", "an anon of two may be stored into", |s| s.entry(ANON_SHARED_BY_FORK, writable)),
    case("I5", "a page is mapped to another anon", |s| s.load_wrong(1, s.frame(0))),
    case("I5", "a copied page is mapped to the file's", |s| {
        s.load_wrong(FILE_COPIED, s.frame(FILE_SHARED + 1));
    }),
    case("I5", "a page that nobody touched is mapped", |s| s.load_wrong(3, s.frame(0))),
    case("I14", "a file's page may be stored into through a private mapping", |s| {
        s.entry(FILE_READ, writable);
    }),
    case("V05", "something is mapped outside the segments", |s| {
        s.load_wrong(NOTHING, s.frame(FILE_SHARED));
    }),
    case("V05", "a translation allows more than its page", |s| s.entry(READ_ONLY, writable)),
    case("V10", "a free page is mapped", |s| {
        let pfn = s.m.db().pfn(s.free());
        s.entry(FILE_SHARED, |e| X86Pte::new(pfn, e.bits()));
    }),
    case("T1", "a processor remembers a right that was taken away", |s| {
        s.p.store(at(FILE_SHARED), b"remember").unwrap();
        s.entry(FILE_SHARED, |e| e.with(PteBits::empty(), PteBits::W));
    }),
    case("I10", "a page is lent and may be stored to", |s| {
        let range = page_db::VirtRange::exact(at(0), page_db::PAGE_SIZE).unwrap();
        std::mem::forget(s.space().lend_pages(s.m.cx(), range).unwrap());
        s.entry(0, |e| e.with(PteBits::W, PteBits::empty()));
    }),
    case("M1", "a page's list names an entry that is another's", |s| {
        let mapping = s.m.db().page(s.frame(0)).mapping();
        mapping.set_entry(mapping.entry() ^ 1);
    }),
    case("H1", "a table counts an entry too many", |s| s.valid_count(0, 1)),
    case("H4", "a table's entry leads to no table", |s| {
        let pfn = s.m.db().pfn(s.frame(0));
        s.top(5 << 39, |_| X86Pte::table(pfn, true));
    }),
    case("H5", "an absent entry has bits", |s| s.entry(NOTHING, |_| X86Pte(0x40))),
    case("H6", "a table's entry refuses something", |s| {
        s.top(at(0), |e| e.with(PteBits::NX, PteBits::empty()));
    }),
    case("H6", "an entry of the user's half is the supervisor's", |s| {
        s.entry(FILE_SHARED, |e| e.with(PteBits::empty(), PteBits::U));
    }),
    case("P1", "the kernel's half differs from the kernel's", |s| {
        s.top(hat_x86::KERNEL_WINDOW.start().get(), |_| X86Pte::EMPTY);
    }),
];

/// Does the damage to a fresh world and compares what is named.
fn run(cases: &[Case]) {
    for Case { invariant, what, harm } in cases {
        let world = small();
        world.m.verify().unwrap_or_else(|v| panic!("before any damage: {v}"));
        harm(&world);
        let Err(v) = world.m.verify() else { panic!("nobody noticed that {what} ({invariant})") };
        let words: Vec<_> = v.invariant.split([' ', '(', ')']).collect();
        assert!(words.contains(invariant), "{what}: {invariant} was to be named, not {v}");
    }
}

#[test]
fn what_does_not_add_up_is_named() {
    run(CONSERVATION);
}

#[test]
fn what_has_two_names_or_none_is_named() {
    run(IDENTITY);
}

#[test]
fn what_is_mapped_wrongly_is_named() {
    run(TRANSLATION);
}

/// I15 is about the thread that asks.
#[test]
fn a_lock_that_is_held_is_named() {
    let s = small();
    let space = std::sync::Arc::clone(&s.space());
    let guard = space.segs(s.m.cx());
    let found = s.m.verify().unwrap_err();
    assert_eq!(found.invariant, "I15", "{found}");
    assert!(found.what.contains("AsLock"), "the lock is named: {found}");
    drop(guard);
    s.m.verify().unwrap();
    let page = s.m.db().lock_shared(s.m.cx(), s.frame(0));
    assert_eq!(s.m.verify().unwrap_err().invariant, "I15");
    drop(page);
    s.m.verify().unwrap();
}

/// I7: who shares an anon map until it is copied may not store through it, and who need not copy it shares it with nobody.
#[test]
fn a_map_that_is_yet_to_be_copied_is_nobodys_to_store_through() {
    // A page of the segment whose mark is wrong, and what it says.
    for (page, needs_copy) in [(0, false), (16, true)] {
        let m = Machine::builder().frames(240).fork(ForkPolicy::Lazy).build().unwrap();
        let p = m.spawn("parent").unwrap();
        map(&p, 0, 2, RW, PRIVATE | ANON, None).unwrap();
        map(&p, 8, 1, RW, SHARED | ANON, None).unwrap();
        p.store(at(0), b"bytes").unwrap();
        p.store(at(8), b"bytes").unwrap();
        let child = p.fork().unwrap();
        map(&p, 16, 1, RW, PRIVATE | ANON, None).unwrap();
        p.store(at(16), b"bytes").unwrap();
        m.verify().unwrap();
        let mark = |page, needs_copy| {
            with_vn(&m, &p, page, |vn, _| vn.damage_needs_copy(needs_copy));
        };
        mark(page, needs_copy);
        let found = m.verify().unwrap_err();
        assert_eq!(found.invariant, "I7", "{found}");
        mark(page, !needs_copy);
        m.verify().unwrap();
        // Shared memory is shared for good, and a map that is not there cannot be copied.
        map(&p, 24, 1, RW, PRIVATE | ANON, None).unwrap();
        for page in [8, 24] {
            mark(page, true);
            assert_eq!(m.verify().unwrap_err().invariant, "I7");
            mark(page, false);
            m.verify().unwrap();
        }
        child.exit();
    }
}

#[test]
fn every_invariant_of_the_list_is_broken_somewhere() {
    let broken: BTreeSet<_> =
        CONSERVATION.iter().chain(IDENTITY).chain(TRANSLATION).map(|c| c.invariant).collect();
    let elsewhere = [7, 15]; // the tests above
    for n in (1..=15).filter(|n| !elsewhere.contains(n)) {
        assert!(broken.contains(format!("I{n}").as_str()), "no case breaks I{n}");
    }
    for v in ["V01", "V05", "V10", "V15", "V19"] {
        assert!(broken.contains(v), "no case breaks {v}");
    }
}
