//! The end of a file: all of it or nothing, and who is waited for.

use super::*;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::scope;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_retired_file_leaves_nothing() {
    let r = rig(16);
    let f = r.file(0);
    r.write(&f, 0, &[1; 9000]);
    let kept = std::sync::Arc::clone(&f);
    let f = f.retire(&r.cx, &r.db).expect_err("somebody else has it");
    assert_eq!(r.read(&f, 8999, 1), [1]);
    drop(kept);
    let other = rig(16);
    let f = f.retire(&other.cx, &other.db).expect_err("another machine's");
    assert!(f.retire(&r.cx, &r.db).is_ok());
    assert_eq!(r.db.freemem(), 16);
    r.done();
}

/// A clock of which each tick is told, and passes when that is heard.
#[derive(Debug)]
struct ToldClock {
    told: Sender<()>,
    heard: std::sync::Mutex<Receiver<()>>,
}

impl Clock for ToldClock {
    fn now(&self) -> u64 {
        0
    }
    fn tick(&self) {
        let _ = self.told.send(()); // nobody listens any more: time passes
        let _ = self.heard.lock().map(|heard| heard.recv());
    }
}

/// A hand of the clock, or somebody who looks, has a page for a moment: that does not keep a file which nobody has.
#[test]
fn a_file_of_which_somebody_has_a_page_for_a_moment_is_ended() {
    let (told, ticks) = channel();
    let (hears, heard) = channel();
    let r = rig_by(16, Arc::new(ToldClock { told, heard: std::sync::Mutex::new(heard) }));
    let f = r.file(0);
    r.write(&f, 0, &[7; 9000]);
    let page = r.db.lookup_shared(&r.cx, f.identity(4096)).expect("in memory");
    let cx = Cx::new(r.db.counters(), CpuId(0), ThreadId(2), Arc::new(SpinHooks));
    let db = &r.db;
    scope(|s| {
        let ended = s.spawn(move || f.retire(&cx, db).is_ok());
        let waits = ticks.recv_timeout(PATIENCE);
        drop(page);
        drop((ticks, hears));
        assert_eq!(waits, Ok(()), "it does not wait");
        assert!(ended.join().expect("no panic"), "nobody has a page of it");
    });
    assert_eq!(r.db.freemem(), 16);
    r.done();
}
