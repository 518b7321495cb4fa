//! Exploring schedules: races under a scheduler that picks the interleavings and replays what fails. Built with `cfg(shuttle)` only.
//!
//! # The difficulty
//!
//! A race shows in one schedule of a million, and a test that never met it proves nothing. So two questions are asked of each scenario: does it hold
//! in every schedule tried, and would it have noticed?
//!
//! # The rule
//!
//! ```text
//!   explore(scenario, mutations)
//!      │
//!      ├─ as it is          every schedule passes, of both searches
//!      └─ each mutation     armed, the same scenario fails within ten times as many, by either search
//!
//!   priorities   the thread preferred most runs until it waits; preference changes at two points drawn by lot (PCT): finds one bad moment
//!   walk         whoever can run runs, drawn by lot at each point: finds races of many small steps
//! ```
//!
//! A scenario is a closure that builds a small world, runs threads against each other ([`spawn`], [`join`]: none starts before all are made, or the first
//! would mostly be done by then), and asserts contents and `verify()`. Every atomic operation, every lock and every part of a copied page is a point where another thread may run;
//! a hang is a deadlock and fails. Searches start from a fixed seed, so a run that passed passes again.
//!
//! | variable | |
//! |---|---|
//! | `SEGVM_SCHEDULES=N` | schedules of each search, instead of the scenario's own number |
//! | `SHUTTLE_RANDOM_SEED=S` | another seed, hence other schedules |
//! | `SEGVM_REPLAY=SCHEDULE` | runs one schedule, as printed by the failure, of the test named on the command line |
//! | `SEGVM_MUTATION=NAME` | arms a mutation for it |
//!
//! The schedulers are sequentially consistent: a missing fence is found by the `loom` models, not here.
//!
//! Sources: Burckhardt et al., *A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs*, ASPLOS 2010 (PCT); the shuttle crate.

use super::mutation::{Mutation, arm};
use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use shuttle::current::{get_label_for_task, me, set_label_for_task};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::sync::{Condvar, Mutex};
use shuttle::thread::{self, JoinHandle};
use shuttle::{Config, MaxSteps, Runner};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::{env, eprintln};

/// Points where the preferred thread changes: two find what needs one thread to be stopped at one place and another at a second.
const DEPTH: usize = 3;
/// A thread's stack: a fault goes deep, the more so in a debug build.
const STACK: usize = 512 << 10;
/// Points one schedule may have; more is a loop that gets nowhere.
const MOST_POINTS: usize = 2_000_000;
/// Where the searches start.
const SEED: u64 = 0x5e65;

type Scenario = Arc<dyn Fn() + Send + Sync>;

/// Runs `scenario` under `schedules` schedules of each search, as it is and with each of `mutations` armed.
///
/// # Panics
/// When a schedule fails, which is printed for `SEGVM_REPLAY`; and when a mutation is not noticed.
pub fn explore(
    schedules: usize,
    mutations: &[Mutation],
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let scenario: Scenario = Arc::new(scenario);
    if let Ok(schedule) = env::var("SEGVM_REPLAY") {
        return replay(&schedule, &scenario);
    }
    let schedules = number("SEGVM_SCHEDULES").unwrap_or(schedules);
    for search in [Search::Priorities, Search::Walk] {
        if let Err(failed) = search.run(schedules, None, &scenario) {
            eprintln!("schedule {} of {search:?} failed", failed.at);
            resume_unwind(failed.why);
        }
    }
    // More than enough, so that a change elsewhere does not let a mutation slip through: the search ends with the first that fails.
    let most = 10 * schedules;
    for m in mutations {
        let caught = [Search::Priorities, Search::Walk].into_iter().find_map(|search| {
            search.run(most, Some(*m), &scenario).err().map(|failed| (search, failed.at))
        });
        match caught {
            Some((search, at)) => {
                eprintln!("mutation {m:?} caught after {at} schedules by {search:?}")
            }
            None => {
                panic!("mutation {m:?} was not noticed in {most} schedules of either search")
            }
        }
    }
}

/// As [`explore`], for scenarios of a few points: every schedule there is, or the first `most` in order of depth, is run.
///
/// # Panics
/// As [`explore`].
pub fn explore_all(
    most: usize,
    mutations: &[Mutation],
    scenario: impl Fn() + Send + Sync + 'static,
) {
    let scenario: Scenario = Arc::new(scenario);
    if let Ok(schedule) = env::var("SEGVM_REPLAY") {
        return replay(&schedule, &scenario);
    }
    if let Err(failed) = Search::All.run(most, None, &scenario) {
        eprintln!("schedule {} of all failed", failed.at);
        resume_unwind(failed.why);
    }
    explore(most, mutations, move || scenario());
}

/// What the threads of a scenario wait behind until all are made; a label of its first task, as the mutation is.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    fn mine() -> Self {
        get_label_for_task(me()).expect("a scenario is run by `explore`")
    }
    fn pass(&self) {
        let (open, opened) = &*self.0;
        let mut is_open = open.lock().expect("nobody panics holding it");
        while !*is_open {
            is_open = opened.wait(is_open).expect("nobody panics holding it");
        }
    }
    fn open(&self) {
        let (open, opened) = &*self.0;
        *open.lock().expect("nobody panics holding it") = true;
        opened.notify_all();
    }
}

/// A thread of a scenario; it starts with the others, when they are joined.
///
/// # Panics
/// Outside a scenario.
pub fn spawn(f: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let gate = Gate::mine();
    thread::spawn(move || {
        gate.pass();
        f();
    })
}

/// Lets the threads of a scenario run, and waits for the end of these.
///
/// # Panics
/// When one of them has, and outside a scenario.
pub fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    Gate::mine().open();
    for t in threads {
        t.join().expect("no panic");
    }
}

fn number(name: &str) -> Option<usize> {
    env::var(name).ok()?.parse().ok()
}

fn replay(schedule: &str, scenario: &Scenario) {
    let armed = env::var("SEGVM_MUTATION").ok().map(|name| {
        let found = Mutation::ALL.iter().find(|m| alloc::format!("{m:?}") == name);
        *found.unwrap_or_else(|| panic!("there is no mutation {name}"))
    });
    let scheduler = ReplayScheduler::new_from_encoded(schedule);
    if let Err(failed) = run(scheduler, armed, scenario) {
        resume_unwind(failed.why);
    }
}

/// A schedule that failed.
struct Failed {
    /// How many had been run, this one included.
    at: usize,
    why: Box<dyn core::any::Any + Send>,
}

/// How schedules are chosen.
#[derive(Clone, Copy, Debug)]
enum Search {
    Priorities,
    Walk,
    All,
}

impl Search {
    fn run(self, most: usize, armed: Option<Mutation>, scenario: &Scenario) -> Result<(), Failed> {
        match self {
            // The first schedule only counts the points.
            Self::Priorities => {
                run(PctScheduler::new_from_seed(SEED, DEPTH, most + 1), armed, scenario)
            }
            Self::Walk => run(RandomScheduler::new_from_seed(SEED, most), armed, scenario),
            Self::All => {
                run(shuttle::scheduler::DfsScheduler::new(Some(most), false), armed, scenario)
            }
        }
    }
}

fn run(
    scheduler: impl Scheduler + 'static,
    armed: Option<Mutation>,
    scenario: &Scenario,
) -> Result<(), Failed> {
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(MOST_POINTS);
    config.silence_warnings = true; // that everything is sequentially consistent here is said above
    let begun = Arc::new(AtomicUsize::new(0));
    let (count, scenario) = (Arc::clone(&begun), Arc::clone(scenario));
    let once = move || {
        count.fetch_add(1, Relaxed);
        arm(armed);
        let _ = set_label_for_task(me(), Gate::default());
        scenario();
    };
    let done = catch_unwind(AssertUnwindSafe(|| Runner::new(scheduler, config).run(once)));
    done.map(drop).map_err(|why| Failed { at: begun.load(Relaxed), why })
}
