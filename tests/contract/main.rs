//! The contract suites over every implementation in the repository, and over flawed ones: each flaw breaks one clause, and is caught by it.

mod gaps;
mod hash;
mod hat;
mod memory;
mod mmu;
mod seg;
mod swap;
mod vnode;

use hat_x86::{HostConfig, HostMmu};
use page_db::{
    Counters, CpuId, Cx, HostMem, ManualClock, PageDb, PageDbConfig, Pfn, PhysMem, SpinHooks,
    ThreadId,
};
use segvm::contract::Breach;
use std::sync::Arc;

/// The suite found a breach of the clause that begins with `clause`.
#[track_caller]
fn caught(flaw: impl std::fmt::Debug, checked: Result<(), Breach>, clause: &str) {
    match checked {
        Ok(()) => panic!("{flaw:?} went unnoticed"),
        Err(breach) => {
            assert!(breach.clause.starts_with(clause), "{flaw:?} was caught by another: {breach}");
            assert!(breach.to_string().contains(clause) && !breach.facts.is_empty());
        }
    }
}

/// The clause about locks, which only a debug build can see broken.
const HOLDS: &str = "no lock is held past a call";

/// The clause about threads that end otherwise than by returning.
const FALLS: &str = "it does not panic";

/// Every flaw of a list is caught by its clause.
#[track_caller]
fn all_caught<F: Copy + std::fmt::Debug>(
    flaws: &[(F, &str)],
    judged: impl Fn(F) -> Result<(), Breach>,
) {
    let seen = flaws.iter().filter(|(_, clause)| *clause != HOLDS || cfg!(debug_assertions));
    seen.for_each(|(flaw, clause)| caught(*flaw, judged(*flaw), clause));
}

/// The same of flaws that show only when two threads meet in them.
fn all_caught_some_time<F: Copy + std::fmt::Debug>(
    flaws: &[(F, &str)],
    judged: impl Fn(F) -> Result<(), Breach>,
) {
    flaws.iter().for_each(|(flaw, clause)| caught_some_time(*flaw, || judged(*flaw), clause));
}

/// How the clauses begin that some flaw of the lists breaks.
fn clauses_of<F>(lists: &[&[(F, &'static str)]]) -> Vec<&'static str> {
    lists.iter().flat_map(|flaws| flaws.iter().map(|(_, clause)| *clause)).collect()
}

/// The same of a flaw that shows only when two threads meet in it: not every run brings them together, but one of many does.
fn caught_some_time(
    flaw: impl std::fmt::Debug,
    check: impl Fn() -> Result<(), Breach>,
    clause: &str,
) {
    let breach = (0..100).map(|_| check()).find(Result::is_err);
    caught(flaw, breach.unwrap_or(Ok(())), clause);
}

/// Frames and pages for `cpus` processors, and the processors.
fn machine(cpus: u16, config: HostConfig) -> (Cx, Arc<PageDb>, Arc<HostMmu>) {
    let counters = Counters::new(cpus);
    let cx = Cx::new(&counters, CpuId(0), ThreadId(0), Arc::new(SpinHooks));
    let mem: Arc<dyn PhysMem> = Arc::new(HostMem::new(Pfn(16), 256).expect("heap"));
    let (clock, pages) =
        (Arc::new(ManualClock::default()), PageDbConfig { cpus, ..PageDbConfig::default() });
    let db = PageDb::new(&cx, Arc::clone(&mem), clock, counters, &pages).expect("small");
    (cx, Arc::new(db), HostMmu::with_config(mem, cpus, config))
}
