//! Files as vnodes: bytes in, bytes out, truncation, stores that fail.

use super::*;
use page_db::{
    Clock, Counters, CpuId, HostMem, ManualClock, PageDbConfig, PageId, Pfn, RefMod, SpinHooks,
    ThreadId,
};

mod ends;
mod pins;

struct Rig {
    db: PageDb,
    cx: Cx,
}

fn rig(frames: u64) -> Rig {
    rig_by(frames, Arc::new(ManualClock::default()))
}
fn rig_by(frames: u64, clock: Arc<dyn Clock>) -> Rig {
    let counters = Counters::new(1);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(1), Arc::new(SpinHooks));
    let mem = Arc::new(HostMem::new(Pfn(1), frames).expect("heap"));
    let db = PageDb::new(&cx, mem, clock, counters, &PageDbConfig::default()).expect("a database");
    Rig { db, cx }
}

impl Rig {
    fn file(&self, size: u64) -> Arc<File> {
        File::in_memory(&self.cx, &self.db, "f", size).expect("a file")
    }
    fn write(&self, f: &File, offset: u64, bytes: &[u8]) {
        assert_eq!(f.pwrite(&self.cx, &self.db, offset, bytes), Ok(bytes.len()));
    }
    fn read(&self, f: &File, offset: u64, len: usize) -> Vec<u8> {
        let mut buf = vec![0xee; len];
        let n = f.pread(&self.cx, &self.db, offset, &mut buf).expect("readable");
        buf.truncate(n);
        buf
    }
    fn put(&self, f: &File, flags: PutFlags) -> Result<(), VnodeError> {
        f.put_page(&self.cx, &self.db, FileOffset(0), 0, flags)
    }
    fn done(&self) {
        self.db.verify(&self.cx).expect("sound");
        assert!(self.cx.held().is_empty(), "I15: {:?}", self.cx.held());
    }
}

#[test]
fn bytes_survive_eviction() {
    let r = rig(64);
    let f = r.file(0);
    let text: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
    r.write(&f, 100, &text);
    assert_eq!(f.size(), 10_100);
    r.put(&f, PutFlags::INVAL).expect("written");
    assert_eq!(r.db.vnode_page_count(&r.cx, f.id()), 0);
    assert_eq!(f.transfers(), (0, 3));
    assert_eq!(r.read(&f, 100, 20_000), text);
    assert_eq!(r.read(&f, 0, 100), [0; 100]);
    r.done();
}

#[test]
fn nothing_is_read_past_the_end() {
    let r = rig(16);
    let f = r.file(5000);
    assert_eq!(r.read(&f, 4990, 100), [0; 10]);
    assert!(r.read(&f, 5000, 1).is_empty());
    assert!(r.read(&f, 1 << 40, 1).is_empty());
    let e = f.pread(&r.cx, &r.db, MAX_OFFSET + 1, &mut [0]).expect_err("no offset");
    assert_eq!(e.errno(), errno::EINVAL);
    let e = f.get_page(&r.cx, &r.db, FileOffset(8192), Access::Read).expect_err("past the end");
    assert_eq!(e.errno(), errno::EFAULT);
    assert!(f.get_page(&r.cx, &r.db, FileOffset(4096), Access::Read).is_ok());
    r.done();
}

#[test]
fn truncation_takes_pages_and_bytes_with_it() {
    let r = rig(64);
    let f = r.file(0);
    r.write(&f, 0, &[7; 20_000]);
    r.put(&f, PutFlags::empty()).expect("written");
    f.truncate(&r.cx, &r.db, 5000).expect("cut");
    assert_eq!(r.db.vnode_page_count(&r.cx, f.id()), 2);
    f.truncate(&r.cx, &r.db, 20_000).expect("grown");
    assert_eq!(r.read(&f, 0, 5000), [7; 5000]);
    assert_eq!(r.read(&f, 5000, 15_000), [0; 15_000]);
    r.put(&f, PutFlags::INVAL).expect("written");
    assert_eq!(r.read(&f, 4999, 3), [7, 0, 0]);
    r.done();
}

#[test]
fn bytes_left_behind_the_end_do_not_come_up() {
    let r = rig(64);
    let f = r.file(100);
    // A shared mapping stores past the end of the last page.
    let got = f.get_page(&r.cx, &r.db, FileOffset(0), Access::Write).expect("there");
    r.db.mem().write(got.page.pfn(), 90, &[9; 50]);
    got.page.page().set_ref_mod(RefMod::MOD);
    drop(got);
    r.write(&f, 300, &[1]);
    assert_eq!(r.read(&f, 89, 12), [0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0]);
    assert_eq!(r.read(&f, 100, 200), [0; 200]);
    r.done();
}

#[test]
fn the_tail_never_reaches_the_store() {
    let r = rig(64);
    let f = r.file(100);
    let got = f.get_page(&r.cx, &r.db, FileOffset(0), Access::Write).expect("there");
    r.db.mem().write(got.page.pfn(), 90, &[9; 50]);
    got.page.page().set_ref_mod(RefMod::MOD);
    drop(got);
    r.put(&f, PutFlags::INVAL).expect("written");
    f.truncate(&r.cx, &r.db, 4096).expect("grown");
    assert_eq!(r.read(&f, 99, 3), [9, 0, 0]);
    r.done();
}

#[test]
fn a_failed_write_keeps_the_page_dirty() {
    let r = rig(64);
    let f = r.file(0);
    r.write(&f, 0, &[3; 8192]);
    f.fail_write(&r.cx, 2, errno::EIO);
    let e = r.put(&f, PutFlags::FREE).expect_err("the second write fails");
    assert_eq!(e.errno(), errno::EIO);
    let kept = r.db.lookup_shared(&r.cx, Identity::new(f.id(), FileOffset(4096))).expect("V3");
    assert!(kept.page().ref_mod().contains(RefMod::MOD), "V3: modified again");
    drop(kept);
    r.put(&f, PutFlags::INVAL).expect("it works the second time");
    assert_eq!(r.read(&f, 0, 8192), [3; 8192]);
    r.done();
}

#[test]
fn a_failed_read_leaves_no_page() {
    let r = rig(64);
    let f = r.file(8192);
    f.fail_read(&r.cx, 1, errno::EIO);
    let e = f.get_page(&r.cx, &r.db, FileOffset(0), Access::Read).expect_err("injected");
    assert_eq!(e.errno(), errno::EIO);
    assert_eq!(r.db.vnode_page_count(&r.cx, f.id()), 0);
    f.fail_read(&r.cx, 2, errno::EIO);
    assert_eq!(r.read(&f, 0, 8192).len(), 4096, "short, as read(2) is");
    assert_eq!(r.read(&f, 4096, 1), [0]);
    r.done();
}

#[test]
fn limits_are_answers() {
    let r = rig(16);
    let f = r.file(0);
    let errno_of = |e: FileError| e.errno();
    let far = f.pwrite(&r.cx, &r.db, MAX_OFFSET - 1, &[0; 2]).map_err(errno_of);
    assert_eq!(far, Err(errno::EFBIG));
    assert_eq!(f.truncate(&r.cx, &r.db, u64::MAX).map_err(errno_of), Err(errno::EINVAL));
    assert_eq!(f.truncate(&r.cx, &r.db, MAX_OFFSET), Ok(()));
    r.write(&f, MAX_OFFSET - 4096, &[5; 3]);
    assert_eq!(r.read(&f, MAX_OFFSET - 4095, 4), [5, 5, 0, 0]);
    assert_eq!(f.truncate(&r.cx, &r.db, 0), Ok(()));
    r.done();
}

#[test]
fn no_frame_is_an_answer() {
    let r = rig(8);
    let f = r.file(0);
    let n = f.pwrite(&r.cx, &r.db, 0, &[1; 16 * 4096]).expect("some of it");
    assert!(n > 0 && n < 16 * 4096 && n.is_multiple_of(4096));
    assert_eq!(f.size(), n as u64, "the size is what was written");
    let e = f.pwrite(&r.cx, &r.db, n as u64, &[1]).expect_err("no frame, nobody to make one");
    assert_eq!(e.errno(), errno::ENOMEM);
    assert_eq!(f.size(), n as u64);
    f.truncate(&r.cx, &r.db, 0).expect("cut");
    r.done();
}

#[test]
fn host_files_are_read_and_written_through_the_cache() {
    let dir = std::env::temp_dir().join(format!("segvm-file-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let path = dir.join("host");
    std::fs::write(&path, b"hello, host").expect("written");
    let r = rig(32);
    let f = File::on_host(&r.cx, &r.db, &path, true).expect("open");
    assert_eq!(r.read(&f, 7, 100), b"host");
    r.write(&f, 5000, b"far");
    f.sync(&r.cx, &r.db).expect("synced");
    let bytes = std::fs::read(&path).expect("readable");
    assert_eq!((bytes.len(), &bytes[5000..], bytes[11]), (5003, &b"far"[..], 0));
    f.truncate(&r.cx, &r.db, 5).expect("cut");
    assert_eq!(std::fs::read(&path).expect("readable"), b"hello");

    let ro = File::on_host(&r.cx, &r.db, &path, false).expect("open");
    let e = ro.pwrite(&r.cx, &r.db, 0, b"x").expect_err("read-only");
    assert_eq!(e.errno(), errno::EROFS);
    assert_eq!(ro.truncate(&r.cx, &r.db, 0).expect_err("read-only").errno(), errno::EROFS);
    let got = ro.get_page(&r.cx, &r.db, FileOffset(0), Access::Read).expect("there");
    assert_eq!(got.prot, Prot::RX);
    drop(got);
    let gone = File::on_host(&r.cx, &r.db, &dir.join("none"), false).expect_err("no such file");
    assert_eq!(gone.errno(), errno::ENOENT);
    let folder = File::on_host(&r.cx, &r.db, &dir, false).expect_err("a directory");
    assert_eq!(folder.errno(), errno::EISDIR);
    std::fs::remove_dir_all(&dir).expect("removed");
    r.done();
}

#[test]
fn cutting_a_little_off_a_large_file_does_not_walk_it() {
    const PAGES: u64 = 10_000;
    let r = rig(12_000);
    let f = r.file(0);
    r.write(&f, 0, &vec![1; (PAGES * PAGE_SIZE) as usize]);
    for size in [PAGES * PAGE_SIZE - 100, (PAGES - 1) * PAGE_SIZE, (PAGES - 3) * PAGE_SIZE + 5] {
        f.truncate(&r.cx, &r.db, size).expect("cut");
        assert_eq!(r.db.vnode_page_count(&r.cx, f.id()), size.div_ceil(PAGE_SIZE));
        assert_eq!(r.db.vnode_pages_met(&r.cx, f.id()), 0, "under the lock of its list");
    }
    r.done();
}

/// A store whose next write, once it is asked for, lets truncation go as far as it gets.
#[derive(Debug, Default)]
struct Slow {
    bytes: MemStore,
    /// Whether a write is under way, and resizes since it was.
    seen: std::sync::Mutex<(bool, u32)>,
    turn: std::sync::Condvar,
}

impl Slow {
    const LONG: std::time::Duration = std::time::Duration::from_millis(200);

    fn await_write(&self) {
        let seen = self.seen.lock().expect("sound");
        drop(self.turn.wait_while(seen, |s| !s.0).expect("sound"));
    }
}

#[derive(Debug)]
struct SlowStore(Arc<Slow>);

impl Store for SlowStore {
    fn read(&self, cx: &Cx, offset: u64, page: &mut PageBuf) -> Result<(), i32> {
        self.0.bytes.read(cx, offset, page)
    }
    fn write(&self, cx: &Cx, offset: u64, bytes: &[u8]) -> Result<(), i32> {
        let mut seen = self.0.seen.lock().expect("sound");
        *seen = (true, 0);
        self.0.turn.notify_all();
        // The first resize comes; the second must not before this write has ended, so of it the time limit is the witness.
        drop(self.0.turn.wait_timeout_while(seen, Slow::LONG, |s| s.1 < 2).expect("sound"));
        self.0.bytes.write(cx, offset, bytes)
    }
    fn resize(&self, cx: &Cx, from: u64, to: u64) -> Result<(), i32> {
        self.0.seen.lock().expect("sound").1 += 1;
        self.0.turn.notify_all();
        self.0.bytes.resize(cx, from, to)
    }
}

#[test]
fn truncation_waits_for_the_write_back_of_the_last_page() {
    // F1, F3 and F7: the write has looked at the old size.
    let r = rig(16);
    let slow = Arc::new(Slow::default());
    let f = File::new(&r.cx, &r.db, "f", 0, Box::new(SlowStore(slow.clone()))).expect("a file");
    r.write(&f, 0, &[7; 4096]);
    std::thread::scope(|s| {
        s.spawn(|| {
            slow.await_write();
            let cx = Cx::new(r.db.counters(), CpuId(0), ThreadId(2), Arc::new(SpinHooks));
            f.truncate(&cx, &r.db, 100).expect("cut");
        });
        r.put(&f, PutFlags::empty()).expect("written");
    });
    r.put(&f, PutFlags::INVAL).expect("written");
    f.truncate(&r.cx, &r.db, 4096).expect("grown");
    let bytes = r.read(&f, 0, 4096);
    assert_eq!((&bytes[..100], &bytes[100..]), (&[7; 100][..], &[0; 3996][..]));
    r.done();
}
