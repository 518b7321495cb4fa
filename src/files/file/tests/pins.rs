//! Truncation beside pages that are pinned, whose holders go on to use the file (F9).
//!
//! Whoever might hang does so in a thread of his own, and is given up on after a while.

use super::*;
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

struct Pins {
    r: Arc<Shared>,
    f: Arc<File>,
}

struct Shared(PageDb);

impl Shared {
    fn cx(&self, thread: u32) -> Cx {
        Cx::new(self.0.counters(), CpuId(0), ThreadId(thread), Arc::new(SpinHooks))
    }
}

impl Pins {
    /// A file of four pages of sevens.
    fn new() -> Self {
        let r = rig(32);
        let f = r.file(0);
        r.write(&f, 0, &[7; 4 * PAGE]);
        Self { r: Arc::new(Shared(r.db)), f }
    }
    fn cx(&self) -> Cx {
        self.r.cx(2)
    }
    fn db(&self) -> &PageDb {
        &self.r.0
    }
    /// Pins a page, as a soft lock does.
    fn pin(&self, page: u64) -> PageId {
        let cx = self.cx();
        let got = self.f.get_page(&cx, self.db(), FileOffset(page * PAGE_SIZE), Access::Read);
        got.expect("there").page.leak()
    }
    fn unpin(&self, page: PageId) {
        let cx = self.cx();
        drop(self.db().adopt_shared(&cx, page));
    }
    fn lend(&self, page: u64) -> PageId {
        let cx = self.cx();
        let page = self.db().lookup_excl(&cx, self.f.identity(page * PAGE_SIZE)).expect("there");
        self.db().lend(&cx, &page).expect("memory to spare");
        page.id()
    }
    /// Starts `op` in a thread of its own; its answer comes later.
    fn start<R: Send + 'static>(
        &self,
        thread: u32,
        op: impl FnOnce(&Cx, &PageDb, &File) -> R + Send + 'static,
    ) -> Receiver<R> {
        let (answer, answers) = channel();
        let (r, f) = (Arc::clone(&self.r), Arc::clone(&self.f));
        std::thread::spawn(move || {
            let cx = r.cx(thread);
            let _ = answer.send(op(&cx, &r.0, &f));
        });
        answers
    }
    /// Starts a truncation that finds a page pinned, and returns when it waits.
    fn truncate(&self, size: u64) -> Receiver<Result<(), FileError>> {
        let done = self.start(3, move |cx, db, f| f.truncate(cx, db, size));
        self.until("one waits", |p| p.db().waits().sleepers() == 1);
        done
    }
    fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let from = Instant::now();
        while !is_so(self) {
            assert!(from.elapsed() < PATIENCE, "never so: {what}");
            sleep(Duration::from_millis(1));
        }
    }
    /// Does something as the one who has the pins: it must not wait for the truncation.
    fn holder<R: Send + 'static>(
        &self,
        op: impl FnOnce(&Cx, &PageDb, &File) -> R + Send + 'static,
    ) -> R {
        let done = self.start(4, op);
        done.recv_timeout(PATIENCE).expect("F9: the holder of a pin waits for whoever waits for it")
    }
    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        self.holder(move |cx, db, f| {
            let mut buf = vec![0xee; len];
            let n = f.pread(cx, db, offset, &mut buf).expect("readable");
            buf.truncate(n);
            buf
        })
    }
    /// Ends the truncation and everything else; what the file holds, read from the store.
    fn end(self, truncation: &Receiver<Result<(), FileError>>) -> Vec<u8> {
        truncation.recv_timeout(PATIENCE).expect("nobody is in its way").expect("cut");
        let cx = self.cx();
        let end = FileOffset(self.f.size().next_multiple_of(PAGE_SIZE));
        let past = pvn::pages_in(&cx, self.db(), self.f.id(), end, 0).expect("heap");
        assert_eq!(past, [], "F2");
        self.f.put_page(&cx, self.db(), FileOffset(0), 0, PutFlags::INVAL).expect("written");
        self.db().verify(&cx).expect("sound");
        let bytes = self.read(0, 16 * PAGE);
        assert_eq!(bytes.len() as u64, self.f.size());
        bytes
    }
}

#[test]
fn who_has_a_page_pinned_goes_on_beside_a_truncation_that_waits_for_it() {
    let p = Pins::new();
    let pin = p.pin(1);
    let truncation = p.truncate(100);
    let past = p.holder(|cx, db, f| f.get_page(cx, db, FileOffset(8192), Access::Read).err());
    assert!(matches!(past, Some(VnodeError::BeyondEof { size: 100, .. })), "T1: {past:?}");
    assert_eq!(p.read(0, 5000), [7; 100]);
    assert_eq!(p.holder(|cx, db, f| f.pwrite(cx, db, 10, &[8; 10])), Ok(10));
    assert!(truncation.try_recv().is_err(), "the page is pinned");
    p.unpin(pin);
    let bytes = p.end(&truncation);
    assert_eq!(
        (&bytes[..10], &bytes[10..20], &bytes[20..]),
        (&[7; 10][..], &[8; 10][..], &[7; 80][..])
    );
}

#[test]
fn growth_over_a_page_that_a_truncation_waits_for_brings_up_zeros() {
    let p = Pins::new();
    let pin = p.pin(1);
    let truncation = p.truncate(0);
    // Once by writing past it, once by setting the size.
    assert_eq!(p.holder(|cx, db, f| f.pwrite(cx, db, 4096 + 10, &[8; 10])), Ok(10));
    assert_eq!(p.holder(|cx, db, f| f.truncate(cx, db, 3 * PAGE_SIZE)), Ok(()));
    let mut expected = vec![0; 3 * PAGE];
    expected[PAGE + 10..PAGE + 20].fill(8);
    assert_eq!(p.read(0, 4 * PAGE), expected, "T2");
    // What the i/o brings into the page now, it brings into the file.
    p.db().mem().write(p.db().pfn(pin), 30, &[9; 10]);
    p.db().page(pin).set_ref_mod(RefMod::MOD);
    p.unpin(pin);
    expected[PAGE + 30..PAGE + 40].fill(9);
    assert_eq!(p.end(&truncation), expected, "T3");
}

#[test]
fn a_truncation_beside_another_waits_for_the_pages_of_both() {
    let p = Pins::new();
    let pin = p.pin(3);
    let first = p.truncate(3 * PAGE_SIZE);
    let second = p.start(5, |cx, db, f| f.truncate(cx, db, 3 * PAGE_SIZE));
    p.until("two wait", |p| p.db().waits().sleepers() == 2);
    let third = p.start(6, |cx, db, f| f.truncate(cx, db, PAGE_SIZE));
    p.until("three wait", |p| p.db().waits().sleepers() == 3);
    assert_eq!((p.f.size(), p.db().vnode_page_count(&p.cx(), p.f.id())), (PAGE_SIZE, 2));
    assert!(second.try_recv().is_err() && third.try_recv().is_err(), "F2: a page is there still");
    p.unpin(pin);
    for other in [second, third] {
        other.recv_timeout(PATIENCE).expect("nobody is in its way").expect("cut");
    }
    assert_eq!(p.end(&first), [7; PAGE]);
}

#[test]
fn who_has_a_lent_page_pinned_goes_on_beside_those_who_want_it_alone() {
    for writes in [false, true] {
        let p = Pins::new();
        let lent = p.lend(0);
        let pin = p.pin(0);
        assert_eq!(lent, pin);
        let (waits, expected) = match writes {
            // The last page is to be cleared behind the new end; or it is to be stored to.
            false => (p.truncate(100), vec![7; 100]),
            true => {
                let done = p.start(3, |cx, db, f| f.pwrite(cx, db, 100, &[8]).map(drop));
                p.until("one waits", |p| p.db().waits().sleepers() == 1);
                let mut bytes = vec![7; 4 * PAGE];
                bytes[100] = 8;
                (done, bytes)
            }
        };
        assert_eq!(p.read(PAGE_SIZE, 10), [7; 10], "nothing has been cut yet");
        assert_eq!(p.holder(|cx, db, f| f.pwrite(cx, db, 4 * PAGE_SIZE, &[8; 10])), Ok(10));
        assert_eq!(p.holder(|cx, db, f| f.truncate(cx, db, 4 * PAGE_SIZE)), Ok(()));
        p.unpin(pin);
        let db = Arc::clone(&p.r);
        assert_eq!(p.end(&waits), expected);
        db.0.unlend(&db.cx(2), lent);
    }
}

/// What a cut has yet to take away, it takes away; who makes the file longer, or writes it, does not wait for that.
#[test]
fn growth_waits_for_no_page_past_its_own_end() {
    let p = Pins::new();
    let pin = p.pin(3);
    let truncation = p.truncate(0);
    assert_eq!(p.holder(|cx, db, f| f.truncate(cx, db, 2 * PAGE_SIZE)), Ok(()));
    assert_eq!(p.holder(|cx, db, f| f.pwrite(cx, db, 2 * PAGE_SIZE, &[8])), Ok(1));
    assert!(truncation.try_recv().is_err(), "the page is pinned");
    p.unpin(pin);
    let mut expected = vec![0; 2 * PAGE + 1];
    expected[2 * PAGE] = 8;
    assert_eq!(p.end(&truncation), expected);
}
