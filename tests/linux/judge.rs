//! Two results of one trace: where they differ, which differences are explained, and a trace that differs made short.
//!
//! Results are compared line by line, digests among them; what the trace language never compares (the code of SIGBUS, bytes shown for people, remarks, the
//! fingerprint) is taken away first. A difference is explained by a line of [`EXPLAINED`] or it fails. Such a line looks at the state before the operation and at
//! both answers, so that the same operation with other answers, or in another state, still fails.

use std::collections::BTreeMap;
use std::fmt;

use segvm::model::{Backing, Model, Page};
use segvm::script::ast::{Advice, FileRef, Prot, Range};
use segvm::script::outcome::{Outcome, PAGE_BYTES, comparable_line};
use segvm::script::{
    Operation, ResultText, RunOptions, Runner, Script, Silent, Statement, World, minimise, parse,
};

/// An operation that got two answers, and the state it met.
pub(crate) struct Scene<'a> {
    before: &'a Model,
    /// The operations before it, and what illumos answers to them.
    past: &'a [(&'a Operation, Outcome)],
    operation: &'a Operation,
}

/// A difference that is understood: what we answered, what they answered, when, and why that is right.
struct Explained {
    ours: &'static [&'static str],
    theirs: &'static [&'static str],
    holds: fn(&Scene<'_>) -> bool,
    /// One side did it, the other did not.
    departs: bool,
    reason: &'static str,
}

/// Every difference that is understood, one line each. Where a model and the documents disagree, the documents are right.
const EXPLAINED: &[Explained] = &[
    Explained {
        ours: &["EBUSY"],
        theirs: &["ok", "ENOMEM"],
        holds: |s| s.throws_away_what_others_lock(),
        departs: false,
        reason: "illumos does not throw away what any process has locked; Linux and the model ask the caller's own locks only",
    },
    Explained {
        ours: &["ok", "ENOMEM"],
        theirs: &["EBUSY"],
        holds: |s| s.throws_away_what_a_failed_lock_left(),
        departs: false,
        reason: "a lock that fails half way is undone; the model keeps its first pages locked",
    },
    Explained {
        ours: &["ok", "ENOMEM"],
        theirs: &["EBUSY"],
        holds: |s| s.throws_away_what_was_past_the_end(),
        departs: false,
        reason: "a page past the end of its file cannot be locked, and one cut off is no more; the model locks addresses",
    },
    Explained {
        ours: &["ENOMEM"],
        theirs: &["EINVAL"],
        holds: |s| s.length_wraps(),
        departs: false,
        reason: "a length that wraps is no address space (ENOMEM); the model has Linux's answer to some",
    },
    Explained {
        ours: &["EFAULT"],
        theirs: &["ok", "ENOMEM"],
        holds: |s| s.wants_pages_past_the_end(),
        departs: false,
        reason: "asking for pages past the end of a file fails as the read would; the model does not look",
    },
    Explained {
        ours: &["EINVAL"],
        theirs: &["ENOMEM"],
        holds: |s| s.length_is_negative(),
        departs: false,
        reason: "the length of `incore` is a signed number; the model has Linux's answer",
    },
    Explained {
        ours: &["ENOTSUP"],
        theirs: &["EINVAL"],
        holds: |s| matches!(s.operation, Operation::Protect(_, Prot::Bad)),
        departs: false,
        reason: "unknown bits of protection are not supported; the model has Linux's answer",
    },
    Explained {
        ours: &["ENOTSUP", "EACCES"],
        theirs: &["ok", "ok moved"],
        holds: |s| matches!(s.operation, Operation::Map(m) if m.prot == Prot::Bad),
        departs: true,
        reason: "nothing is mapped with unknown bits of protection; the model maps, as Linux does",
    },
];

impl Scene<'_> {
    /// The range of an operation that throws pages out of memory.
    fn thrown_away(&self) -> Option<&Range> {
        match self.operation {
            Operation::Advise(range, Advice::DontNeed) => Some(range),
            Operation::Sync(range, flags) if flags.invalidate => Some(range),
            _ => None,
        }
    }

    fn throws_away_what_others_lock(&self) -> bool {
        self.thrown_away().is_some_and(|range| {
            self.pages(range).any(|(n, page)| !page.locked && self.is_locked_elsewhere(n, page))
        })
    }

    fn throws_away_what_a_failed_lock_left(&self) -> bool {
        let Some(range) = self.thrown_away() else { return false };
        let failed = |(n, _): (u64, &Page)| {
            self.past.iter().any(|(operation, outcome)| match operation {
                Operation::Lock(lock) if !outcome.is_ok() => {
                    lock.proc == range.proc && numbers(lock).contains(&n)
                }
                _ => false,
            })
        };
        self.nothing_is_claimed(range) && self.pages(range).any(failed)
    }

    fn throws_away_what_was_past_the_end(&self) -> bool {
        self.thrown_away().is_some_and(|range| {
            self.nothing_is_claimed(range) && self.pages(range).any(|(_, page)| page.locked)
        })
    }

    /// Says whether no page of a range is locked, but for such as no lock can have claimed.
    fn nothing_is_claimed(&self, range: &Range) -> bool {
        self.pages(range).all(|(_, page)| !page.locked || self.was_past_the_end(page))
    }

    /// Says whether a page was past the end of its file, now or at any time: what is cut off loses its claims.
    fn was_past_the_end(&self, page: &Page) -> bool {
        let Backing::Object { object, index } = page.backing else { return false };
        let of_file = |file: &FileRef| {
            let mut files = self.before.files().iter();
            files.any(|(slot, f)| f.object == object && *file == FileRef::Slot(*slot))
        };
        !page.is_copied()
            && self.past.iter().any(|(operation, _)| match operation {
                Operation::File { file, size, .. } | Operation::Truncate { file, size } => {
                    of_file(file) && size.div_ceil(PAGE_BYTES) <= index
                }
                _ => false,
            })
    }

    fn length_wraps(&self) -> bool {
        match self.operation {
            Operation::Advise(range, _)
            | Operation::Sync(range, _)
            | Operation::Lock(range)
            | Operation::Unlock(range) => {
                let addr = range.addr.resolve(Model::LAYOUT);
                let len = range.len.resolve(addr).checked_next_multiple_of(PAGE_BYTES);
                len.and_then(|len| addr.checked_add(len)).is_none()
            }
            _ => false,
        }
    }

    fn length_is_negative(&self) -> bool {
        let Operation::Incore(range) = self.operation else { return false };
        range.len.resolve(range.addr.resolve(Model::LAYOUT)) > i64::MAX as u64
    }

    fn wants_pages_past_the_end(&self) -> bool {
        let Operation::Advise(range, Advice::WillNeed) = self.operation else { return false };
        let ends: Vec<u64> = self.before.objects().iter().map(|o| o.page_count()).collect();
        self.pages(range).any(|(_, page)| page.is_past_end(&ends))
    }

    fn pages(&self, range: &Range) -> impl Iterator<Item = (u64, &Page)> {
        let slot = range.proc.to_string().parse().unwrap_or(u32::MAX);
        let process = self.before.processes().get(&slot);
        let numbers = numbers(range);
        let pages = process.into_iter().flat_map(move |p| p.pages().range(numbers.clone()));
        pages.map(|(n, page)| (*n, page))
    }

    /// Says whether somebody has locked a page that may be the same frame: the same page of an object, or what a fork left both with.
    fn is_locked_elsewhere(&self, n: u64, page: &Page) -> bool {
        let everyone = self.before.processes().values().flat_map(|p| p.pages());
        everyone.filter(|(_, other)| other.locked).any(|(m, other)| match page.backing {
            Backing::Object { .. } => other.backing == page.backing,
            Backing::Zero => other.backing == Backing::Zero && *m == n,
        })
    }
}

/// The numbers of a range's pages.
fn numbers(range: &Range) -> std::ops::Range<u64> {
    let addr = range.addr.resolve(Model::LAYOUT);
    let end = addr.saturating_add(range.len.resolve(addr)).div_ceil(PAGE_BYTES);
    addr / PAGE_BYTES..end
}

/// What was found of two results.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Lines that differ and should not, as text.
    pub(crate) wrong: Vec<String>,
    /// How often each explanation held.
    pub(crate) explained: BTreeMap<&'static str, usize>,
    /// A statement that one side did and the other refused: what follows cannot be compared, and nothing was.
    pub(crate) departed: Option<(usize, &'static str)>,
}

/// Compares a trace by `verdict`; where the sides depart for an explained reason, the trace is asked about again without the statement that parts them.
pub(crate) fn beyond_departures(
    statements: &[Statement],
    verdict: impl Fn(&[Statement]) -> Option<Verdict>,
) -> Option<Verdict> {
    let mut left = statements.to_vec();
    let mut all = verdict(&left)?;
    let mut departures = BTreeMap::new();
    while let Some((at, reason)) = all.departed.take().filter(|_| all.wrong.is_empty()) {
        left.remove(at);
        *departures.entry(reason).or_default() += 1;
        // What was explained before the departure is found again.
        all = verdict(&left)?;
    }
    all.explained.extend(departures);
    Some(all)
}

/// Runs a trace on a world, to its result.
pub(crate) fn result_of(world: impl World, statements: &[Statement]) -> String {
    let mut out = ResultText(String::new());
    let mut runner = Runner::new(world, RunOptions::default());
    let script = Script { statements: statements.to_vec() };
    match runner.run(&script, &mut out) {
        Ok(_) => out.0,
        Err(e) => format!("{}\n{e}\n", out.0),
    }
}

/// Compares two results of a trace.
pub(crate) fn compare(statements: &[Statement], ours: &str, theirs: &str) -> Verdict {
    let mut verdict = Verdict::default();
    let mut ours = ours.lines().filter_map(comparable_line);
    let mut theirs = theirs.lines().filter_map(comparable_line);
    loop {
        let (a, b) = match (ours.next(), theirs.next()) {
            (None, None) => return verdict,
            (a, b) => (a.unwrap_or_default(), b.unwrap_or_default()),
        };
        if a == b {
            continue;
        }
        match explanation(statements, &a, &b) {
            Some(explained) if explained.departs => {
                verdict.departed = statement_of(statements, &a).map(|at| (at, explained.reason));
                return verdict;
            }
            Some(explained) => *verdict.explained.entry(explained.reason).or_default() += 1,
            None => {
                let what = statement_of(statements, &a).map_or_else(
                    || "at the end".to_owned(),
                    |at| format!("`{}`", statements[at].operation),
                );
                verdict.wrong.push(format!("{what}\n      ours: {a}\n    theirs: {b}"));
            }
        }
    }
}

/// Which statement a line of the result is about.
fn statement_of(statements: &[Statement], line: &str) -> Option<usize> {
    let number: usize = line.split(' ').next()?.parse().ok()?;
    let traced = statements.iter().enumerate().filter(|(_, s)| s.operation.is_traced());
    traced.map(|(at, _)| at).nth(number.checked_sub(1)?)
}

fn explanation(statements: &[Statement], ours: &str, theirs: &str) -> Option<&'static Explained> {
    let at = statement_of(statements, ours)?;
    let answers = (ours.split_once(' ')?, theirs.split_once(' ')?);
    let ((number, ours), (same, theirs)) = answers;
    if number != same {
        return None;
    }
    let mut runner = Runner::new(Model::new(), RunOptions::default());
    let mut past = Vec::new();
    for s in &statements[..at] {
        let outcome = runner.step(s, &mut Silent).ok()?;
        past.extend(outcome.map(|outcome| (&s.operation, outcome)));
    }
    let (before, operation) = (runner.world(), &statements[at].operation);
    let scene = Scene { before, past: &past, operation };
    let fits = |e: &&Explained| e.ours.contains(&ours) && e.theirs.contains(&theirs);
    EXPLAINED.iter().filter(fits).find(|e| (e.holds)(&scene))
}

/// A trace on which two executors part, made as short as it gets.
#[derive(Debug)]
pub(crate) struct Parting {
    /// Where the trace came from.
    pub(crate) origin: String,
    trace: String,
    wrong: Vec<String>,
}

impl Parting {
    /// Drops statements for as long as `verdict` finds a difference; `None` from it is a trace that may not be asked about.
    pub(crate) fn of(
        origin: String,
        statements: &[Statement],
        verdict: impl Fn(&[Statement]) -> Option<Verdict>,
    ) -> Parting {
        let fails = |part: &[Statement]| verdict(part).is_some_and(|v| !v.wrong.is_empty());
        let short = minimise(statements, fails);
        let wrong = verdict(&short).map(|v| v.wrong).unwrap_or_default();
        Parting { trace: trace_text(&origin, &short), origin, wrong }
    }
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} lines differ", self.origin, self.wrong.len())?;
        self.wrong.iter().take(5).try_for_each(|w| writeln!(f, "  {w}"))?;
        writeln!(f, "  as a trace for tests/traces:\n{}", self.trace)
    }
}

/// A trace as a file.
pub(crate) fn trace_text(origin: &str, statements: &[Statement]) -> String {
    let mut text = format!("vmtrace 1\n# {origin}\n");
    for s in statements.iter().filter(|s| s.operation != Operation::Header) {
        text.push_str(&format!("{}\n", s.operation));
    }
    text
}

/// The statements of a trace.
pub(crate) fn statements_of(text: &str) -> Vec<Statement> {
    parse(text).unwrap_or_else(|e| panic!("a trace parses: {e}\n{text}")).statements
}
