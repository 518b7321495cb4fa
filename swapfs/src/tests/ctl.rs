//! Areas that come and go while pages are stored in them.

use super::{World, cx_on};
use crate::{AreaId, DeviceError, FaultyDevice, MemDevice, SwapDevice, SwapError, SwapFs};
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use page_db::sync::Once;
use page_db::{PageDb, Pfn, PhysMem, PutFlags, errno};

/// Behaviour 39.
#[test]
fn promises_move_to_a_new_area_and_back() {
    let w = World::new(256);
    w.fs.reserve(30).expect("memory");
    assert_eq!((w.fs.info().mem_resv, w.db.free_mem().availrmem()), (30, 226));
    let (_, id) = w.add("d", 100, 0);
    let i = w.fs.info();
    assert_eq!((i.max, i.phys_resv, i.mem_resv), (100, 30, 0));
    assert_eq!(w.db.free_mem().availrmem(), 256);
    let all: Vec<_> = (0..20).map(|i| w.anon(i)).collect();
    for n in &all {
        w.fs.put_page(&w.cx, *n, super::PUSH).expect("room");
    }
    w.fs.flush_pushes(&w.cx).expect("room");
    for n in &all[..10] {
        w.evict(*n);
    }
    w.fs.remove(&w.cx, id).expect("memory is plenty");
    assert!(w.fs.list().is_empty());
    assert_eq!((w.fs.info().max, w.fs.info().mem_resv), (0, 30));
    assert_eq!(w.db.free_mem().availrmem(), 226);
    for (i, n) in all.iter().enumerate() {
        assert_eq!(w.fs.slot(&w.cx, *n), None);
        assert!(w.modified(*n));
        assert_eq!(w.load(*n), (i as u8, false));
    }
    w.check();
    assert_eq!(w.fs.remove(&w.cx, id), Err(SwapError::NoSuchArea { area: id }));
}

#[test]
fn an_area_that_backs_promises_stays() {
    let w = World::new(64);
    let (_, id) = w.add("d", 100, 0);
    w.fs.reserve(90).expect("disk");
    let before = (w.fs.info(), w.fs.list());
    let refused = w.fs.remove(&w.cx, id);
    assert_eq!(refused, Err(SwapError::StillNeeded { area: id, pages: 100, availrmem: 64 }));
    assert_eq!(refused.map_err(|e| e.errno()), Err(errno::ENOMEM));
    assert_eq!((w.fs.info(), w.fs.list()), before);
    // With another to take over, it may go.
    let (_, other) = w.add("e", 90, 0);
    let n = w.anon(1);
    w.fs.put_page(&w.cx, n, PutFlags::empty()).expect("room");
    w.fs.remove(&w.cx, id).expect("the other backs them");
    assert_eq!((w.fs.info().max, w.fs.info().phys_resv, w.fs.info().mem_resv), (90, 90, 0));
    assert_eq!(w.fs.list()[0].id, other);
    w.check();
}

#[test]
fn no_memory_to_bring_pages_back_puts_everything_back() {
    let w = World::new(16);
    let (_, id) = w.add("d", 100, 0);
    let all: Vec<_> = (0..40).map(|i| (w.anon(i), i)).map(|(n, i)| (w.evict(n), n, i)).collect();
    let before = (w.fs.info(), w.fs.list()[0].removing);
    let refused = w.fs.remove(&w.cx, id).map_err(|e| e.errno());
    assert_eq!(refused, Err(errno::ENOMEM));
    assert_eq!((w.fs.info(), w.fs.list()[0].removing), before);
    w.check();
    for (_, n, i) in &all {
        assert_eq!(w.load(*n).0, *i);
        w.evict(*n);
    }
    w.check();
}

/// Behaviour 40, and bad ranges.
#[test]
fn ranges_are_checked() {
    let w = World::new(32);
    let dev = Arc::new(MemDevice::new("d", 100));
    let add = |start, pages| w.fs.add(&w.cx, dev.clone(), start, pages, 0);
    let code = |r: Result<AreaId, SwapError>| r.map_err(|e| e.errno());
    assert_eq!(code(add(0, 0)), Err(errno::EINVAL));
    assert_eq!(code(add(0, 101)), Err(errno::EINVAL));
    assert_eq!(code(add(100, 1)), Err(errno::EINVAL));
    assert_eq!(code(add(u64::MAX, 2)), Err(errno::EINVAL));
    assert_eq!(code(add(1, u64::MAX)), Err(errno::EINVAL));
    let id = add(10, 50).expect("fits");
    for (start, pages) in [(10, 50), (0, 11), (59, 1), (20, 5), (0, 100)] {
        assert_eq!(code(add(start, pages)), Err(errno::EEXIST), "{start}+{pages}");
    }
    // Another device object for the same medium is the same medium.
    let again = Arc::new(MemDevice::new("d", 100));
    assert_eq!(code(w.fs.add(&w.cx, again, 10, 50, 0)), Err(errno::EEXIST));
    let next = add(60, 40).expect("beside it");
    assert_eq!((id, next), (AreaId(1), AreaId(2)));
    add(0, 10).expect("before it");
    assert_eq!(code(w.fs.remove(&w.cx, AreaId(9)).map(|()| AreaId(0))), Err(errno::EINVAL));
    w.fs.remove(&w.cx, id).expect("unused");
    assert_eq!(add(10, 50).expect("free again"), AreaId(4), "ids are not used again");
    assert_eq!(w.fs.info().max, 100);
    w.check();
}

/// A device that does something while it is being read.
pub(super) struct Meddler {
    pub(super) inner: FaultyDevice,
    fs: Once<(Weak<SwapFs>, Weak<PageDb>)>,
    act: fn(&SwapFs, &page_db::Cx, Arc<dyn SwapDevice>),
    me: Weak<Meddler>,
}

impl core::fmt::Debug for Meddler {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.inner.fmt(f)
    }
}

impl SwapDevice for Meddler {
    fn name(&self) -> String {
        self.inner.name()
    }
    fn pages(&self) -> u64 {
        self.inner.pages()
    }
    fn read(
        &self,
        cx: &page_db::Cx,
        page: u64,
        to: Pfn,
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        let (fs, db) = self.fs.get().expect("set");
        let (fs, db) = (fs.upgrade().expect("alive"), db.upgrade().expect("alive"));
        let me: Arc<dyn SwapDevice> = self.me.upgrade().expect("alive");
        (self.act)(&fs, &cx_on(db.counters(), 0), me);
        self.inner.read(cx, page, to, mem)
    }
    fn write(
        &self,
        cx: &page_db::Cx,
        page: u64,
        frames: &[Pfn],
        mem: &dyn PhysMem,
    ) -> Result<(), DeviceError> {
        self.inner.write(cx, page, frames, mem)
    }
}

/// An area of 20 pages on such a device.
pub(super) fn meddled(
    w: &World,
    act: fn(&SwapFs, &page_db::Cx, Arc<dyn SwapDevice>),
) -> (Arc<Meddler>, AreaId) {
    let dev = Arc::new_cyclic(|me| Meddler {
        inner: FaultyDevice::new(Arc::new(MemDevice::new("m", 20))),
        fs: Once::new(),
        act,
        me: Weak::clone(me),
    });
    let _ = dev.fs.set((Arc::downgrade(&w.fs), Arc::downgrade(&w.db)));
    let id = w.fs.add(&w.cx, dev.clone(), 0, 20, 0).expect("fits");
    (dev, id)
}

/// A page that is pinned for i/o is in memory, and its slot is all that a removal wants.
#[test]
fn a_removal_waits_for_no_pin() {
    let w = World::new(64);
    let (_, id) = w.add("d", 8, 0);
    let n = w.anon(7);
    w.push(n).expect("room");
    let pinned = w.fs.get_page(&w.cx, n, 0).expect("a page").page.leak();
    w.fs.remove(&w.cx, id).expect("nothing of it is needed");
    assert_eq!(w.fs.slot(&w.cx, n), None);
    assert!(w.modified(n), "its bytes are nowhere else");
    drop(w.db.adopt_shared(&w.cx, pinned));
    assert_eq!(w.load(n), (7, false));
    w.check();
}

/// Behaviour 40: the same range added while it is being removed.
#[test]
fn an_add_of_the_same_range_calls_a_removal_off() {
    let w = World::new(64);
    let (_, id) = meddled(&w, |fs, cx, dev| {
        let other = fs.add(cx, Arc::clone(&dev), 0, 10, 0).map_err(|e| e.errno());
        assert_eq!(other, Err(errno::EEXIST), "another range is an overlap all the same");
        assert_eq!(fs.remove(cx, AreaId(1)), Err(SwapError::BeingRemoved { area: AreaId(1) }));
        assert!(fs.list()[0].removing);
        assert_eq!(fs.info().max, 0);
        assert_eq!(fs.add(cx, dev, 0, 20, 0), Ok(AreaId(1)));
    });
    let (a, b) = (w.anon(1), w.anon(2));
    w.evict(a);
    w.evict(b);
    assert_eq!(w.fs.remove(&w.cx, id), Err(SwapError::CalledOff { area: id }));
    assert_eq!((w.fs.info().max, w.fs.list()[0].removing), (20, false));
    assert_eq!(w.fs.slot(&w.cx, a), None, "brought back before the news");
    assert!(w.fs.slot(&w.cx, b).is_some());
    w.check();
}

/// An anon freed while a removal reads its slot: no page of a dead name stays, and the number is whole.
#[test]
fn an_anon_may_go_while_its_page_is_brought_back() {
    let w = World::new(64);
    // The reader's page is locked by this very thread, so the freeing is cut short before it would wait: the word dies, nothing else.
    let (_, id) = meddled(&w, |fs, cx, _| {
        let n = fs.live_numbers().next().expect("one");
        fs.plant(cx, crate::Plant::Kill(n));
    });
    let a = w.anon(1);
    w.evict(a);
    let slot = w.fs.slot(&w.cx, a).expect("stored");
    let got = w.fs.get_page(&w.cx, a, 0).map(drop).map_err(|e| e.errno());
    assert_eq!(got, Err(errno::EIDRM));
    assert!(!w.resident(a));
    // Finish what the planted death began.
    w.fs.space().free(&w.cx, slot);
    w.fs.names().free_run(&w.cx, &[a]);
    w.check();
    w.fs.remove(&w.cx, id).expect("empty");
    w.check();
}

/// The same where the slot cannot be read: it is nobody's by then, and keeps no area.
#[test]
fn an_unreadable_slot_of_an_anon_that_goes_keeps_no_area() {
    let w = World::new(64);
    // As above, and the slot goes back; the number does when the page is gone.
    let (dev, id) = meddled(&w, |fs, cx, _| {
        let n = fs.live_numbers().next().expect("one");
        let slot = fs.slot(cx, n).expect("stored");
        fs.plant(cx, crate::Plant::Kill(n));
        fs.space().free(cx, slot);
    });
    let n = w.anon(1);
    w.evict(n);
    dev.inner.fail_read(1);
    assert_eq!(w.fs.remove(&w.cx, id), Ok(()));
    assert!(!w.resident(n));
    w.fs.names().free_run(&w.cx, &[n]);
    assert!(w.fs.list().is_empty());
    w.check();
}

/// A removal brings the page back after the owner has seen that there is none, and is over before the owner ends the name.
#[test]
fn an_anon_may_go_after_its_page_was_brought_back() {
    let w = World::new(256);
    for round in 0..3 {
        let (_, id) = w.add("d", 100, 0);
        let n = w.anon(7);
        w.evict(n);
        let since = w.fs.removals_seen();
        assert!(!w.resident(n), "the owner has nothing to destroy");
        w.fs.remove(&w.cx, id).expect("memory is plenty");
        match round {
            0 => w.fs.free(&w.cx, n),
            _ => w.fs.free_run(&w.cx, &[n], since),
        }
        w.check();
        assert_eq!(w.db.freemem(), 256);
    }
    // Who looks for the page when all of them are over need not look twice.
    assert!(!w.fs.removals.may_have_made_pages(w.fs.removals_seen()));
}

#[test]
fn the_table_of_areas() {
    let w = World::new(32);
    w.add("/dev/dsk/c0t0d0s1", 100, 0);
    w.add("/swapfile", 50, -1);
    let n = w.anon(1);
    w.evict(n);
    assert_eq!(
        alloc::format!("{}", w.fs.swapinfo()),
        "AREA  PRI      START      PAGES       FREE    BAD NAME\n   \
            1    0          0        100         99      0 /dev/dsk/c0t0d0s1\n   \
            2   -1          0         50         50      0 /swapfile",
    );
}

#[cfg(unix)]
#[test]
fn a_host_file_is_a_device() {
    use crate::FileDevice;
    let dir = std::env::temp_dir().join(alloc::format!("swapfs-test-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("temp dir");
    assert_eq!(FileDevice::open(&dir).map(drop).map_err(|e| e.errno), Err(errno::EISDIR));
    assert_eq!(FileDevice::open("/dev/null").map(drop).map_err(|e| e.errno), Err(errno::ENOSYS));
    assert_eq!(
        FileDevice::open(dir.join("none")).map(drop).map_err(|e| e.errno),
        Err(errno::ENOENT)
    );
    let w = World::new(64);
    let dev = FileDevice::create(dir.join("swap"), 40).expect("made");
    assert_eq!(dev.pages(), 40);
    assert_eq!(
        dev.read(&w.cx, 40, Pfn(16), w.db.mem()).map_err(|e| e.errno),
        Err(errno::ENXIO),
        "past the end"
    );
    w.fs.add(&w.cx, Arc::new(dev), 1, 39, 0).expect("fits");
    let all: Vec<_> = (0..20).map(|i| w.anon(i)).collect();
    for n in &all {
        w.fs.put_page(&w.cx, *n, super::PUSH).expect("room");
    }
    w.fs.flush_pushes(&w.cx).expect("room");
    for (i, n) in all.iter().enumerate() {
        w.evict(*n);
        assert_eq!(w.load(*n), (i as u8, true));
    }
    w.check();
    std::fs::remove_dir_all(&dir).expect("ours");
}
