//! Two results of one trace: where they differ, which differences are explained, and a trace that differs made short.
//!
//! Results are compared line by line, digests among them; what the trace language never compares (the code of SIGBUS, bytes shown for people, remarks, the
//! fingerprint) is taken away first. A difference is explained by a row of [`EXPLAINED`](segvm::script::EXPLAINED) or it fails. Such a row looks at the state
//! before the operation and at both answers, so that the same operation with other answers, or in another state, still fails.

use std::collections::BTreeMap;
use std::fmt;

use segvm::script::outcome::comparable_line;
use segvm::script::{
    Explained, Operation, ResultText, RunOptions, Runner, Script, Statement, World, explanation,
    minimise, parse,
};

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

/// Compares a trace by `verdict`; where the sides depart for an explained reason, the trace is asked about again without the statement that parts them, and
/// without those that `mend` takes out because nobody knows their outcome now.
pub(crate) fn beyond_departures(
    statements: &[Statement],
    mend: impl Fn(&mut Vec<Statement>),
    verdict: impl Fn(&[Statement]) -> Option<Verdict>,
) -> Option<Verdict> {
    let mut left = statements.to_vec();
    let mut all = verdict(&left)?;
    let mut departures = BTreeMap::new();
    while let Some((at, reason)) = all.departed.take().filter(|_| all.wrong.is_empty()) {
        left.remove(at);
        mend(&mut left);
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
        match why(statements, &a, &b) {
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

/// Which statement a line that begins with a number is about: one of a result, for instance.
pub(crate) fn statement_of(statements: &[Statement], line: &str) -> Option<usize> {
    let number: usize = line.split(' ').next()?.parse().ok()?;
    let traced = statements.iter().enumerate().filter(|(_, s)| s.operation.is_traced());
    traced.map(|(at, _)| at).nth(number.checked_sub(1)?)
}

/// The row of the table that explains two lines with answers to one operation.
fn why(statements: &[Statement], ours: &str, theirs: &str) -> Option<&'static Explained> {
    let at = statement_of(statements, ours)?;
    let ((number, ours), (same, theirs)) = (ours.split_once(' ')?, theirs.split_once(' ')?);
    let past = statements[..at].iter().map(|s| &s.operation);
    (number == same).then(|| explanation(past, &statements[at].operation, ours, theirs)).flatten()
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
