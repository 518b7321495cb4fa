//! Processes that ask for Linux's answers, judged by Linux.
//!
//! # The difficulty
//!
//! The rows of `Process::set_personality` say what a Linux answers where illumos does not, and portable traces leave exactly those operations out. So the traces
//! here are not portable: they have the operations that rows decide. But which operations these are depends on the state they meet, and the naive model
//! that knows the state answers as illumos does.
//!
//! # The rule
//!
//! ```text
//!   not portable ──▶ why not?  ── a row decides it ────▶ kept; the model does what Linux does instead   (lock 0 0 4, a hole at 2: lock 0 0 2)
//!                       │      └─ nothing differs ─────▶ kept
//!                       └──────── needs more than a call ▶ left out                                      (truncation below copies, ...)
//! ```
//!
//! What is left runs on the machine and on the kernel, and every line must be equal. One difference is explained, as it is everywhere: a lock belongs to the
//! frame here, and to the process there.

use segvm::model::{Attempt, Backing, Model, Process};
use segvm::script::ast::{
    Addr, AddrBase, Advice, FileRef, Length, Map, ProcRef, Prot, Range, Share, Source,
};
use segvm::script::outcome::{PAGE_BYTES, comparable_line};
use segvm::script::{
    Operation, RunOptions, Runner, Silent, Statement, differs, explanation, generate, undefined,
};

use super::judge::{Parting, Verdict, result_of, statement_of};
use super::kernel::{Kernel, Means};
use super::variants::Variant;
use super::{GenerateOptions, Profile, for_all, number, say};

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Why an operation is not portable, where a row of the personality decides it; and the rows.
const DECIDED: [(&str, &str); 14] = [
    ("a length of 0", "1"),
    ("a lock that begins within a page", "2"),
    ("an advice over a hole", "5"),
    ("a hole and a lock", "6"),
    ("a lock over a hole", "7"),
    ("a lock of what cannot be had, or of a private file", "8-10"),
    ("private or locked memory that is not needed", "12-14"),
    ("freeing what is not private anonymous", "15"),
    ("asking for what cannot be had", "has no number"),
    ("a length that overflows", "22-24"),
    ("both kinds of sharing at once", "26"),
    ("an unknown bit of protection", "27"),
    ("an offset past the last", "31"),
    ("a transfer that stops half way", "32"),
];

/// The state of memory as Linux has it.
struct Shadow {
    runner: Runner<Model>,
    /// What the model has done.
    past: Vec<Operation>,
    /// Who has ever locked memory that is promised to nobody and that he might not touch: only Linux has a mark there.
    marked: BTreeSet<u32>,
}

impl Shadow {
    fn new() -> Shadow {
        let runner = Runner::new(Model::new(), RunOptions::default());
        Shadow { runner, past: Vec::new(), marked: BTreeSet::new() }
    }

    fn model(&self) -> &Model {
        self.runner.world()
    }

    /// Whether a process that asks for Linux's answers must answer as Linux does.
    fn may_be_asked(&self, operation: &Operation) -> bool {
        let why = differs(self.model(), operation);
        let decided = why.is_none_or(|why| DECIDED.iter().any(|(reason, _)| *reason == why));
        let thrown_away = match operation {
            Operation::Advise(range, Advice::DontNeed) => Some(range),
            Operation::Sync(range, flags) if flags.invalidate => Some(range),
            _ => None,
        };
        // A page past the end of its file is not there to be locked, and keeps its mark on Linux alone.
        let doubtful = thrown_away.is_some_and(|range| self.locks_what_is_not_there(range));
        let known = undefined(self.model(), operation).is_none() && !doubtful;
        decided && known && !self.cuts_private(operation)
    }

    /// Whether locked pages are among those of a range that may not have been there to be locked: of files, past the end, and those in `marked`.
    fn locks_what_is_not_there(&self, range: &Range) -> bool {
        let ProcRef::Slot(proc) = range.proc else { return false };
        let Some(process) = self.model().processes().get(&proc) else { return false };
        let addr = range.addr.resolve(Model::LAYOUT);
        let end = addr.saturating_add(range.len.resolve(addr)).div_ceil(PAGE_BYTES);
        let first = addr / PAGE_BYTES;
        process.pages().range(first..end.max(first)).any(|(_, page)| {
            let file = matches!(page.backing, Backing::Object { object, .. } if self.model().objects()[object].is_file());
            page.locked && (file || (page.noreserve && self.marked.contains(&proc)))
        })
    }

    /// A truncation below private pages of the file, which Linux may have copied at a time that the model does not know.
    fn cuts_private(&self, operation: &Operation) -> bool {
        let Operation::Truncate { file: FileRef::Slot(file), size } = operation else {
            return false;
        };
        let Some(cut) = self.model().files().get(file).map(|f| f.object) else { return false };
        let mut pages = self.model().processes().values().flat_map(|p| p.pages().values());
        let kept = size.div_ceil(PAGE_BYTES);
        pages.any(|page| {
            !page.shared
                && matches!(page.backing, Backing::Object { object, index } if object == cut && index >= kept)
        })
    }

    /// Does what Linux does, piece by piece.
    fn step(&mut self, operation: &Operation) {
        let done = match operation {
            Operation::Map(map) => vec![Operation::Map(as_linux_maps(map))],
            Operation::Advise(range, Advice::DontNeed) => {
                self.pieces(range, |r| Operation::Advise(r, Advice::Discard))
            }
            Operation::Advise(range, how) => self.pieces(range, |r| Operation::Advise(r, *how)),
            Operation::Lock(range) => {
                // What is locked is brought in, whether anything is reserved for it or not.
                let read = |r| Operation::Advise(r, Advice::PopulateRead);
                let mut done = self.first_piece(range, read);
                done.extend(self.first_piece(range, Operation::Lock));
                done
            }
            Operation::LockAll(proc, _) => {
                let mut done = self.everything(proc);
                done.push(operation.clone());
                done
            }
            Operation::Unlock(range) => self.first_piece(range, Operation::Unlock),
            other => vec![other.clone()],
        };
        for operation in done {
            let statement = Statement::from(operation);
            let _ = self.runner.step(&statement, &mut Silent);
            self.past.push(statement.operation);
        }
        let bare = |p: &Process| {
            p.pages().values().any(|page| page.locked && page.noreserve && !page.is_readable())
        };
        let processes = self.runner.world().processes().iter();
        self.marked.extend(processes.filter(|(_, p)| bare(p)).map(|(slot, _)| *slot));
    }

    /// Whether a store to a range comes to its end.
    fn can_be_stored_to(&self, range: &Range) -> bool {
        let ProcRef::Slot(proc) = range.proc else { return false };
        let addr = range.addr.resolve(Model::LAYOUT);
        let end = addr.saturating_add(range.len.resolve(addr)).div_ceil(PAGE_BYTES);
        let store = |n| self.model().reach(proc, n * PAGE_BYTES, Attempt::Store, 0);
        (addr / PAGE_BYTES..end).all(|n| store(n).is_ok())
    }

    /// Reads of all that is mapped.
    fn everything(&self, proc: &ProcRef) -> Vec<Operation> {
        let ProcRef::Slot(slot) = proc else { return Vec::new() };
        let Some(process) = self.model().processes().get(slot) else { return Vec::new() };
        let read = |n: &u64| {
            let addr = Addr { base: AddrBase::Absolute(n * PAGE_BYTES), plus: 0 };
            let range = Range { proc: proc.clone(), addr, len: Length::Pages(1, 0) };
            Operation::Advise(range, Advice::PopulateRead)
        };
        process.pages().keys().map(read).collect()
    }

    fn first_piece(&self, range: &Range, make: impl Fn(Range) -> Operation) -> Vec<Operation> {
        self.pieces(range, make).into_iter().take(1).collect()
    }

    /// The mapped runs of pages in a range, an operation for each; the operation itself where nothing is to be cut. A lock stops at the first hole, which
    /// may come first.
    fn pieces(&self, range: &Range, make: impl Fn(Range) -> Operation) -> Vec<Operation> {
        let addr = range.addr.resolve(Model::LAYOUT);
        let end = addr.checked_add(range.len.resolve(addr)).map(|end| end.div_ceil(PAGE_BYTES));
        let process = match range.proc {
            ProcRef::Slot(proc) => self.model().processes().get(&proc),
            ProcRef::Name(_) => None,
        };
        let (Some(end), Some(process)) = (end, process) else { return vec![make(range.clone())] };
        let first = addr / PAGE_BYTES;
        let mut runs: Vec<(u64, u64)> = vec![(first, first)];
        for n in process.pages().range(first..end.max(first)).map(|(n, _)| *n) {
            match runs.last_mut() {
                Some((_, to)) if *to == n => *to += 1,
                _ => runs.push((n, n + 1)),
            }
        }
        let piece = |(from, to): (u64, u64)| {
            let addr = Addr { base: AddrBase::Absolute(from * PAGE_BYTES), plus: 0 };
            make(Range { addr, len: Length::Pages(to - from, 0), ..range.clone() })
        };
        runs.into_iter().map(piece).collect()
    }
}

/// Bits of protection that mean nothing are ignored, and of both kinds of sharing a file has the one.
fn as_linux_maps(map: &Map) -> Map {
    let prot = if map.prot == Prot::Bad { Prot::R } else { map.prot };
    let of_file = matches!(map.source, Source::File(..));
    let share = if map.share == Share::Both && of_file { Share::Shared } else { map.share };
    Map { prot, share, ..map.clone() }
}

/// What may be asked of a script, in order; what of it a row decides is told to `met`.
fn asked_of(statements: &[Statement], mut met: impl FnMut(&'static str)) -> Vec<Statement> {
    let mut shadow = Shadow::new();
    let mut kept = Vec::new();
    let mut freed: Option<Range> = None;
    for statement in statements {
        let operation = &statement.operation;
        // What was given away is overwritten at once, by the same process.
        let overwrites = matches!((operation, &freed), (Operation::Write(a, _), Some(r)) if a.range == *r)
            && freed.as_ref().is_some_and(|range| shadow.can_be_stored_to(range));
        if freed.take().is_some() && !overwrites {
            kept.pop();
        }
        if operation.has_outcome() && !shadow.may_be_asked(operation) {
            continue;
        }
        if let Operation::Advise(range, Advice::Free) = operation {
            freed = Some(range.clone());
        }
        differs(shadow.model(), operation).into_iter().for_each(&mut met);
        shadow.step(operation);
        kept.push(statement.clone());
    }
    kept
}

fn against_linux(statements: &[Statement]) -> Option<Verdict> {
    if asked_of(statements, |_| {}).len() < statements.len() {
        return None;
    }
    let (ours, theirs) =
        (Variant::AsLinux.result_of(statements), result_of(Kernel::new(), statements));
    let lines = |text: &str| text.lines().filter_map(comparable_line).collect::<Vec<_>>();
    let (ours, theirs) = (lines(&ours), lines(&theirs));
    let mut verdict = Verdict::default();
    for (a, b) in ours.iter().zip(&theirs).filter(|(a, b)| a != b) {
        match why(statements, a, b) {
            Some(reason) => *verdict.explained.entry(reason).or_default() += 1,
            None => verdict.wrong.push(format!("ours: {a}\n    theirs: {b}")),
        }
    }
    if ours.len() != theirs.len() {
        verdict.wrong.push("one result is longer".to_owned());
    }
    Some(verdict)
}

/// The one difference that no call can decide: whose locks keep a page.
fn why(statements: &[Statement], ours: &str, theirs: &str) -> Option<&'static str> {
    let at = statement_of(statements, ours)?;
    let ((_, ours), (_, theirs)) = (ours.split_once(' ')?, theirs.split_once(' ')?);
    let mut shadow = Shadow::new();
    statements[..at].iter().for_each(|s| shadow.step(&s.operation));
    // What is thrown away goes on behind holes, where the table stops: each page is asked about.
    let (Operation::Sync(range, _) | Operation::Advise(range, _)) = &statements[at].operation
    else {
        return None;
    };
    let addr = range.addr.resolve(Model::LAYOUT);
    let pages = range.len.resolve(addr).div_ceil(PAGE_BYTES);
    let page = |i: u64| {
        let addr = Addr { base: AddrBase::Absolute(addr + i * PAGE_BYTES), plus: 0 };
        let range = Range { addr, len: Length::Pages(1, 0), ..range.clone() };
        match &statements[at].operation {
            Operation::Sync(_, flags) => Operation::Sync(range, *flags),
            _ => Operation::Advise(range, Advice::DontNeed),
        }
    };
    let row = (0..pages).find_map(|i| explanation(&shadow.past, &page(i), ours, theirs))?;
    row.ours.contains(&"EBUSY").then_some(row.reason)
}

/// Each row in [`DECIDED`] is met, and decided by the kernel under the tests.
#[test]
fn the_personality_of_linux_answers_as_linux() {
    let asked = number("SEGVM_LINUX_TRACES");
    let seed = number("SEGVM_LINUX_SEED").unwrap_or(1);
    let means = Means::find();
    let met: Mutex<BTreeMap<&str, usize>> = Mutex::default();
    let count = asked.unwrap_or(200).div_ceil(4);
    for_all("linux, personality", count, |i| {
        let profile = Profile::ALL[(i % Profile::ALL.len() as u64) as usize];
        let mut options = GenerateOptions::trace(profile, seed + i);
        options.portable = false;
        let statements = means.possible(&generate(&options).statements);
        let statements = asked_of(&statements, |why| {
            *met.lock().expect("no panic").entry(why).or_default() += 1;
        });
        let origin = format!("profile={} seed={} personality=linux", profile.name(), seed + i);
        match against_linux(&statements) {
            Some(verdict) if verdict.wrong.is_empty() => Ok(verdict),
            _ => Err(Parting::of(origin, &statements, against_linux)),
        }
    });
    let met = met.into_inner().expect("no panic");
    for (why, rows) in DECIDED {
        let n = met.get(why).copied().unwrap_or_default();
        say(&format!("linux, personality: {n} times {why} ({rows})"));
        let may_lack = count < 50 || means.reasons().next().is_some();
        assert!(n > 0 || may_lack, "no trace meets {why}");
    }
}
