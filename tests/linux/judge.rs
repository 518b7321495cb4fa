//! Two results of one trace: where they differ, which differences are explained, and a trace that differs made short.
//!
//! Results are compared line by line, digests among them; what the trace language never compares (the code of SIGBUS, bytes shown for people, remarks, the
//! fingerprint) is taken away first. A difference is explained by a line of [`EXPLAINED`] or it fails. Such a line looks at the state before the operation and at
//! both answers, so that the same operation with other answers, or in another state, still fails.

use std::collections::BTreeMap;
use std::fmt;

use segvm::model::{Backing, Model, Page};
use segvm::script::ast::{Advice, Range};
use segvm::script::outcome::{PAGE_BYTES, comparable_line};
use segvm::script::{
    Operation, ResultText, RunOptions, Runner, Script, Silent, Statement, World, minimise, parse,
};

/// An operation that got two answers, and the state it met.
pub(crate) struct Scene<'a> {
    before: &'a Model,
    operation: &'a Operation,
    ours: &'a str,
    theirs: &'a str,
}

/// A difference that is understood.
struct Explained {
    reason: &'static str,
    holds: fn(&Scene<'_>) -> bool,
}

/// Every difference that is understood, one line each.
const EXPLAINED: &[Explained] = &[Explained {
    reason: "illumos does not throw away what any process has locked; Linux and the model ask the caller's own locks only",
    holds: |s| {
        s.ours == "EBUSY"
            && ["ok", "ENOMEM"].contains(&s.theirs)
            && s.throws_away_what_others_lock()
    },
}];

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

    fn pages(&self, range: &Range) -> impl Iterator<Item = (u64, &Page)> {
        let addr = range.addr.resolve(Model::LAYOUT);
        let end = addr.saturating_add(range.len.resolve(addr)).div_ceil(PAGE_BYTES);
        let slot = range.proc.to_string().parse().unwrap_or(u32::MAX);
        let process = self.before.processes().get(&slot);
        let pages = process.into_iter().flat_map(move |p| p.pages().range(addr / PAGE_BYTES..end));
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

/// What was found of two results.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Lines that differ and should not, as text.
    pub(crate) wrong: Vec<String>,
    /// How often each explanation held.
    pub(crate) explained: BTreeMap<&'static str, usize>,
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
            Some(reason) => *verdict.explained.entry(reason).or_default() += 1,
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

fn explanation(statements: &[Statement], ours: &str, theirs: &str) -> Option<&'static str> {
    let at = statement_of(statements, ours)?;
    let answers = (ours.split_once(' ')?, theirs.split_once(' ')?);
    let ((number, ours), (same, theirs)) = answers;
    if number != same {
        return None;
    }
    let mut runner = Runner::new(Model::new(), RunOptions::default());
    statements[..at].iter().try_for_each(|s| runner.step(s, &mut Silent).map(drop)).ok()?;
    let scene =
        Scene { before: runner.world(), operation: &statements[at].operation, ours, theirs };
    EXPLAINED.iter().find(|e| (e.holds)(&scene)).map(|e| e.reason)
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
