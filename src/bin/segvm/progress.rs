//! A progress bar for work that takes more than a second, on standard error, when that is a terminal.

use std::io::{IsTerminal, stderr};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long work may take before a bar appears.
const PATIENCE: Duration = Duration::from_secs(1);

/// Work of a known number of steps. Dropping it takes the bar away.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Held so that the waiting thread notices when the work is over.
    _over: Sender<()>,
}

impl Progress {
    /// A bar that appears in a second, or nothing when nobody would see it.
    pub(crate) fn new(total: u64, what: &'static str) -> Option<Self> {
        if !stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        if let Ok(style) =
            ProgressStyle::with_template("{spinner} {msg} {wide_bar} {pos}/{len} {eta}")
        {
            bar.set_style(style);
        }
        bar.set_message(what);
        let (over, wait) = channel();
        let shown = bar.clone();
        // One operation may take long by itself, so the wait is a thread's, not a step's.
        thread::spawn(move || {
            if wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(Duration::from_millis(100));
            }
        });
        Some(Progress { bar, _over: over })
    }

    /// One step is done.
    pub(crate) fn tick(&self) {
        self.bar.inc(1);
    }

    /// Runs something that writes to the terminal.
    pub(crate) fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bar.suspend(write)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
