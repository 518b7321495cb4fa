//! A judge that nobody here wrote: the same traces on the library and on the Linux under the tests.
//!
//! | file | what |
//! |---|---|
//! | [`kernel`] | runs a trace with real processes and real system calls |
//! | [`judge`] | compares two results, explains what may differ, makes a trace that differs short |
//! | [`variants`] | runs a trace on the library, on machines that must not show |
//! | [`personality`] | asks Linux about processes that want Linux's answers |
//! | [`account`] | runs the judge under an account that may not lock memory |
//! | [`oracle`] | judges the judges, and asks an independent model of illumos too, where there is one |
//!
//! `docs/judges.md` tells what is judged and how to ask for more. 200 traces of 300 operations run by default; each also runs on one of the other machines of [`variants`]. `SEGVM_LINUX_TRACES=N` runs N, each on every machine;
//! `SEGVM_LINUX_SEED=S` starts at seed S, `SEGVM_LINUX_OPS=K` makes them K operations long. `SEGVM_ORACLE_DIR` and `SEGVM_MODEL_TRACES` are for [`oracle`].

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod account;
mod judge;
mod kernel;
mod oracle;
mod personality;
mod variants;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::catch_unwind;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use segvm::script::outcome::{Errno, compare_results};
use segvm::script::{GenerateOptions, Profile, Script, Statement, generate, objection};

use self::judge::{Parting, Verdict, compare, result_of, statements_of, trace_text};
use self::kernel::{Kernel, Means};
use self::variants::Variant;

/// Traces that part, after which no more are looked for.
const ENOUGH: usize = 3;

/// The number in an environment variable.
pub(crate) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|v| v.parse().ok())
}

/// Says something that the test harness does not keep to itself.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// What many traces came to.
#[derive(Default)]
struct Tally {
    failures: Vec<String>,
    explained: BTreeMap<&'static str, usize>,
}

/// Runs `one` for `0..count` on as many threads as there are processors, and fails with what differed.
fn for_all(what: &str, count: u64, one: impl Fn(u64) -> Result<Verdict, Parting> + Sync) {
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count || tally.lock().expect("no panic").failures.len() >= ENOUGH {
                return;
            }
            let done = catch_unwind(std::panic::AssertUnwindSafe(|| one(i)));
            let mut tally = tally.lock().expect("no panic");
            match done {
                Ok(Ok(verdict)) => {
                    for (reason, n) in verdict.explained {
                        *tally.explained.entry(reason).or_default() += n;
                    }
                }
                Ok(Err(parting)) => tally.failures.push(parting.to_string()),
                Err(_) => tally.failures.push(format!("{what} {i}: PANIC (above)")),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    let tally = tally.into_inner().expect("no panic");
    for (reason, n) in &tally.explained {
        say(&format!("{what}: {n} lines differ, explained: {reason}"));
    }
    let failures = &tally.failures;
    assert!(failures.is_empty(), "{what}: {} differ\n{}", failures.len(), failures.join("\n"));
    say(&format!("{what}: {count} traces agree"));
}

/// A portable trace, by number.
fn portable(i: u64, seed: u64, means: &Means) -> (String, Vec<Statement>) {
    let profile = Profile::ALL[(i % Profile::ALL.len() as u64) as usize];
    of_profile(profile, i, seed, means)
}

fn of_profile(profile: Profile, i: u64, seed: u64, means: &Means) -> (String, Vec<Statement>) {
    let mut options = GenerateOptions::trace(profile, seed + i);
    if let Some(ops) = number("SEGVM_LINUX_OPS") {
        options.operations = ops as usize;
    }
    let statements = means.possible(&generate(&options).statements);
    (format!("profile={} seed={} portable=1", profile.name(), seed + i), statements)
}

/// What Linux says of a trace and what the plain machine does, compared, with the latter.
fn against_linux(statements: &[Statement]) -> Option<(Verdict, String)> {
    let script = Script { statements: statements.to_vec() };
    if objection(&script).is_some() {
        return None;
    }
    let theirs = result_of(Kernel::new(), statements);
    let ours = Variant::Plain.result_of(statements);
    Some((compare(statements, &ours, &theirs), ours))
}

/// The first difference between a machine and the plain one, which answers `plain`.
fn against_plain(variant: Variant, statements: &[Statement], plain: &str) -> Verdict {
    let other = variant.result_of(statements);
    let pairs = plain.lines().zip(other.lines());
    let mut wrong: Vec<String> = pairs
        .filter(|(a, b)| a != b)
        .map(|(a, b)| format!("plain: {a}\n  {variant:?}: {b}"))
        .collect();
    if plain != other && wrong.is_empty() {
        wrong.push(format!("{variant:?} ends otherwise: {:?}", other.lines().last()));
    }
    Verdict { wrong, ..Verdict::default() }
}

/// Runs a trace, to which the plain machine answers `plain`, on other machines: on every one, or on the one whose turn it is.
pub(crate) fn on_variants(
    all: bool,
    i: u64,
    origin: &str,
    statements: &[Statement],
    plain: &str,
) -> Result<(), Parting> {
    for (at, variant) in Variant::OTHERS.into_iter().enumerate() {
        let mine = all || i / Profile::ALL.len() as u64 % Variant::OTHERS.len() as u64 == at as u64;
        if mine
            && variant.suits(statements)
            && !against_plain(variant, statements, plain).wrong.is_empty()
        {
            let origin = format!("{origin} on {variant:?}");
            let verdict = |part: &[Statement]| {
                Some(against_plain(variant, part, &Variant::Plain.result_of(part)))
            };
            return Err(Parting::of(origin, statements, verdict));
        }
    }
    Ok(())
}

/// Judges a trace by Linux, then runs it on other machines.
fn judged(
    all: bool,
    i: u64,
    (origin, statements): (String, Vec<Statement>),
) -> Result<Verdict, Parting> {
    match against_linux(&statements) {
        Some((verdict, plain)) if verdict.wrong.is_empty() => {
            // Nothing that Linux and the library do differently keeps the rest of a trace from being compared.
            assert!(verdict.departed.is_none(), "{origin}: not compared to its end: {verdict:?}");
            on_variants(all, i, &origin, &statements, &plain).map(|()| verdict)
        }
        _ => {
            let verdict = |part: &[Statement]| against_linux(part).map(|(verdict, _)| verdict);
            Err(Parting::of(origin, &statements, verdict))
        }
    }
}

#[test]
fn portable_traces_agree_with_linux() {
    let asked = number("SEGVM_LINUX_TRACES");
    let seed = number("SEGVM_LINUX_SEED").unwrap_or(1);
    let means = Means::find();
    means.reasons().for_each(|reason| say(&format!("linux: {reason}")));
    for_all("linux", asked.unwrap_or(200), |i| {
        judged(asked.is_some(), i, portable(i, seed, &means))
    });
}

/// Mappings that grow, shrink and move: no model but ours knows them, so Linux alone judges.
#[test]
fn remaps_agree_with_linux() {
    let asked = number("SEGVM_LINUX_TRACES");
    let seed = number("SEGVM_LINUX_SEED").unwrap_or(1);
    let means = Means::find();
    for_all("linux, remap", asked.unwrap_or(200).div_ceil(7), |i| {
        judged(asked.is_some(), i, of_profile(Profile::Remap, i, seed, &means))
    });
}

/// The traces of the repository that another executor ran on Linux: this one finds what that one found.
#[test]
fn stored_traces_have_their_stored_results() {
    let means = Means::find();
    for name in ["map", "cow", "file", "prot", "sync", "err", "mix", "cut-claim"] {
        let path = |ext| format!("{}/tests/traces/{name}.{ext}", env!("CARGO_MANIFEST_DIR"));
        let read = |ext| std::fs::read_to_string(path(ext)).expect("a stored trace");
        let statements = statements_of(&read("vmt"));
        if means.possible(&statements).len() < statements.len() {
            let why: Vec<&str> = means.reasons().collect();
            say(&format!("{name} is not run: {}", why.join(", ")));
            continue;
        }
        let found = result_of(Kernel::new(), &statements);
        assert_eq!(compare_results(&found, &read("res")), [], "{name}");
    }
}

/// `segvm run --result` prints what the library's side of these tests says, to the letter.
#[test]
fn the_command_prints_the_result_of_a_trace() {
    let means = Means::all();
    for i in 0..Profile::ALL.len() as u64 {
        let (origin, statements) = portable(i, 9000, &means);
        let mut command = Command::new(env!("CARGO_BIN_EXE_segvm"));
        command.args(["run", "--result", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let text = trace_text(&origin, &statements);
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("the command reads");
        let output = child.wait_with_output().expect("the command ends");
        assert!(output.status.success(), "{origin}");
        let printed = String::from_utf8(output.stdout).expect("text");
        assert_eq!(printed, Variant::Plain.result_of(&statements), "{origin}");
        printed.lines().for_each(|line| assert!(is_of_the_language(line), "{origin}: {line}"));
    }
}

/// Says whether a line is one that the trace language's results have.
fn is_of_the_language(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |w: &str| w.parse::<u64>().is_ok();
    let hash = |w: &str| w.len() == 16 && u64::from_str_radix(w, 16).is_ok();
    let field =
        |w: &str, name: &str, good: &dyn Fn(&str) -> bool| w.strip_prefix(name).is_some_and(good);
    let page = |w: &str| number(w.strip_prefix("b:").unwrap_or(w));
    match words[..] {
        ["P", p, "live"] => number(p),
        ["D", p, at, "-" | "B"] => number(p) && page(at),
        ["D", p, at, "r" | "w" | "b", what] => {
            number(p) && page(at) && (what == "zero" || hash(what))
        }
        ["F", f, size] => number(f) && field(size, "size=", &number),
        ["G", f, at, what] => number(f) && number(at) && hash(what),
        ["end", ops, mark] => field(ops, "ops=", &number) && field(mark, "fingerprint=", &hash),
        [n, "ok" | "skip"] | [n, "ok", "moved"] => number(n),
        [n, "ok", a] => number(n) && (field(a, "n=", &number) || field(a, "h=", &hash)),
        [n, "ok", a, b] => {
            let read = field(a, "h=", &hash) && b.starts_with("b=");
            number(n) && (read || field(a, "n=", &number) && field(b, "h=", &hash))
        }
        [n, "SEGV", at, "code=maperr" | "code=accerr"] | [n, "BUS", at, "code=objerr"] => {
            number(n) && field(at, "at=", &number)
        }
        [n, error] => number(n) && Errno::from_name(error).is_some(),
        _ => false,
    }
}
