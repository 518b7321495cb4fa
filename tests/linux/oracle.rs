//! The judges themselves judged, and the model that nobody here wrote either, where an oracle of the trace language is at hand.
//!
//! `SEGVM_ORACLE_DIR` names a folder with `linux_oracle.c`, `vm_model.py` and `gen_trace.py`. Without it, without python3 or a C compiler, what needs them is
//! skipped, and says so.

use std::cell::RefCell;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use segvm::model::Model;
use segvm::script::outcome::compare_results;
use segvm::script::{
    Operation, Profile, RunOptions, Runner, Script, Silent, Statement, objection, undefined,
};

use super::judge::{
    Parting, Verdict, beyond_departures, compare, result_of, statement_of, statements_of,
    trace_text,
};
use super::kernel::{Kernel, Means};
use super::variants::Variant;
use super::{for_all, number, on_variants, portable, say};

/// What answers, in processes of its own, with a trace in a file.
struct Oracle {
    dir: PathBuf,
    scratch: PathBuf,
    /// Interpreters that nobody is asking now.
    idle: Mutex<Vec<Interpreter>>,
}

impl Oracle {
    /// The oracle, if there is to be one; the reason why not is printed.
    ///
    /// # Panics
    /// When it is named and cannot be asked: whoever names it wants its answer.
    fn find(needs: &str, what: &str) -> Option<Oracle> {
        let Some(dir) = std::env::var_os("SEGVM_ORACLE_DIR").map(PathBuf::from) else {
            say(&format!("{what}: skipped, SEGVM_ORACLE_DIR is not set"));
            return None;
        };
        let version = Command::new(needs).arg("--version").stdout(Stdio::null()).status();
        let runs = version.is_ok_and(|s| s.success());
        assert!(runs, "{what}: SEGVM_ORACLE_DIR is set, and there is no {needs} to ask it with");
        let name = format!("linux-{}-{}", std::process::id(), what.replace(' ', "-"));
        let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&scratch).expect("room for traces");
        Some(Oracle { dir, scratch, idle: Mutex::default() })
    }

    /// A trace as a file, for as long as `ask` takes.
    fn with_trace<T>(&self, statements: &[Statement], ask: impl FnOnce(&Path) -> T) -> T {
        let thread = format!("{:?}", std::thread::current().id());
        let path = self.scratch.join(format!("{}.vmt", thread.replace(['(', ')'], "")));
        std::fs::write(&path, trace_text("", statements)).expect("room for a trace");
        ask(&path)
    }

    /// What one of the programs in Python prints.
    fn ask(&self, program: &str, arguments: &[&str]) -> String {
        let idle = self.idle.lock().expect("no panic").pop();
        let mut interpreter = idle.unwrap_or_else(|| Interpreter::start(&self.dir));
        let answer = interpreter.run(program, arguments);
        self.idle.lock().expect("no panic").push(interpreter);
        answer
    }

    /// What the model says of a trace. It says something of one whose outcome it calls undefined, too: see [`Oracle::undefined`].
    fn model_of(&self, statements: &[Statement]) -> String {
        self.with_trace(statements, |path| {
            let path = path.to_str().expect("a path of letters");
            self.ask("vm_model", &["--dialect", "illumos", path])
        })
    }

    /// The statements whose outcome the model calls undefined.
    fn undefined(&self, statements: &[Statement]) -> Vec<usize> {
        let lint = self.with_trace(statements, |path| {
            self.ask("vm_model", &["--lint", path.to_str().expect("a path of letters")])
        });
        lint.lines().filter_map(|line| statement_of(statements, line)).collect()
    }

    /// Takes out of a trace what the model calls undefined.
    fn leave_out_undefined(&self, statements: &mut Vec<Statement>) {
        loop {
            let named = self.undefined(statements);
            if named.is_empty() {
                return;
            }
            for at in named.into_iter().rev() {
                statements.remove(at);
            }
        }
    }

    /// What the model calls undefined or not portable in a trace.
    fn objections_to(&self, statements: &[Statement]) -> String {
        self.with_trace(statements, |path| {
            let path = path.to_str().expect("a path of letters");
            self.ask("vm_model", &["--lint-portable", path])
        })
    }

    /// A trace of the oracle's own generator. Behind the arena it writes lengths below zero now and then; the language has none, so such lines are no statements.
    fn generated(&self, profile: &str, seed: u64, portable: bool) -> Vec<Statement> {
        let seed = seed.to_string();
        let mut arguments = vec!["--profile", profile, "--seed", &seed];
        arguments.extend(portable.then_some("--portable"));
        let text = self.ask("gen_trace", &arguments);
        let negative = |w: &str| w.strip_prefix('-').is_some_and(|n| n.parse::<u64>().is_ok());
        let lines = text.lines().filter(|line| !line.split(' ').any(negative));
        statements_of(&lines.collect::<Vec<_>>().join("\n"))
    }

    /// The executor in C, compiled.
    fn executor(&self) -> PathBuf {
        let binary = self.scratch.join("linux_oracle");
        let source = self.dir.join("linux_oracle.c");
        let made = Command::new("gcc").args(["-O2", "-o"]).arg(&binary).arg(&source).status();
        assert!(made.is_ok_and(|s| s.success()), "{} does not compile", source.display());
        binary
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

/// A Python interpreter that runs one program of the oracle after the other.
struct Interpreter {
    process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Interpreter {
    fn start(dir: &Path) -> Interpreter {
        let mut command = Command::new("python3");
        command.args(["-B", "-c", include_str!("resident.py")]).arg(dir);
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = piped.spawn().expect("python3 starts");
        let requests = process.stdin.take().expect("a pipe");
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Interpreter { process, requests, answers }
    }

    fn run(&mut self, program: &str, arguments: &[&str]) -> String {
        let words = [&[program], arguments].concat();
        writeln!(self.requests, "{}", words.join("\t")).expect("the interpreter listens");
        let mut length = String::new();
        self.answers.read_line(&mut length).expect("the interpreter answers");
        let length = length.trim().parse().unwrap_or_else(|_| panic!("{words:?} ended badly"));
        let mut answer = vec![0; length];
        self.answers.read_exact(&mut answer).expect("the whole answer");
        String::from_utf8(answer).expect("text")
    }
}

impl Drop for Interpreter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn output(command: &mut Command) -> String {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.unwrap_or_else(|e| panic!("{command:?}: {e}"));
    String::from_utf8(output.stdout).expect("text")
}

/// Our executor and the one in C find the same, on their traces and on ours.
#[test]
fn the_executor_finds_what_the_one_in_c_finds() {
    let Some(oracle) = Oracle::find("gcc", "the executor in C") else { return };
    let executor = oracle.executor();
    let means = Means::find();
    let mut traces = Vec::new();
    let samples = std::fs::read_dir(oracle.dir.join("samples")).expect("the oracle has samples");
    for entry in samples {
        let path = entry.expect("a sample").path();
        if path.extension().is_some_and(|e| e == "vmt") {
            let text = std::fs::read_to_string(&path).expect("a sample");
            traces.push((path.display().to_string(), statements_of(&text)));
        }
    }
    traces.extend((0..70).map(|i| portable(i, 5000, &means)));
    let profiles = Profile::ALL.iter().map(|p| p.name()).chain(["remap"]);
    if Command::new("python3").arg("--version").output().is_ok() {
        // What is locked by and by depends on the account's limits, where it has any.
        // SAFETY: asks for a number.
        let all = unsafe { libc::geteuid() } == 0;
        traces
            .extend(profiles.map(|p| (p.to_owned(), oracle.generated(p, 1, !all && p != "remap"))));
    }
    for (origin, statements) in &traces {
        let statements = means.possible(statements);
        let theirs =
            oracle.with_trace(&statements, |path| output(Command::new(&executor).arg(path)));
        let ours = result_of(Kernel::new(), &statements);
        assert_eq!(compare_results(&ours, &theirs), [], "{origin}");
    }
    say(&format!("the executor in C: {} traces agree", traces.len()));
}

/// What we call portable the model calls portable, and the other way round.
#[test]
fn the_generator_makes_portable_traces() {
    let Some(oracle) = Oracle::find("python3", "the check of portable traces") else { return };
    let means = Means::find();
    for_all("portable by the model", 70, |i| {
        let (origin, statements) = portable(i, 7000, &means);
        let verdict = |part: &[Statement]| {
            let wrong = oracle.objections_to(part).lines().map(str::to_owned).collect();
            let fit = objection(&Script { statements: part.to_vec() }).is_none();
            fit.then_some(Verdict { wrong, ..Verdict::default() })
        };
        agreed(origin, &statements, verdict)
    });
    for_all("portable by us", 21, |i| {
        let profile = Profile::ALL[i as usize % Profile::ALL.len()].name();
        let statements = oracle.generated(profile, i, true);
        let verdict = |part: &[Statement]| {
            let ours = objection(&Script { statements: part.to_vec() });
            let wrong = ours.map(|o| format!("`{}`: {}", part[o.statement].operation, o.reason));
            let fit = oracle.objections_to(part).is_empty();
            fit.then_some(Verdict { wrong: wrong.into_iter().collect(), ..Verdict::default() })
        };
        agreed(format!("profile={profile} seed={i} portable=1"), &statements, verdict)
    });
}

/// The verdict of a trace, or the trace made short; one that may not be asked about has no place in a test.
fn agreed(
    origin: String,
    statements: &[Statement],
    verdict: impl Fn(&[Statement]) -> Option<Verdict>,
) -> Result<Verdict, Parting> {
    match verdict(statements) {
        Some(v) if v.wrong.is_empty() => Ok(v),
        Some(_) => Err(Parting::of(origin, statements, verdict)),
        None => panic!("{origin} may not be asked about"),
    }
}

/// A trace without the stores that go past the end of a file: the generator leaves them out where Linux would come upon them, and illumos refuses mappings that
/// Linux makes, so that a store meets what was there before.
fn in_bounds(statements: Vec<Statement>) -> Vec<Statement> {
    let mut runner = Runner::new(Model::new(), RunOptions::default());
    let stays = |s: &Statement| {
        let store = matches!(s.operation, Operation::Write(..) | Operation::Fread(_));
        let stays = !store || undefined(runner.world(), &s.operation).is_none();
        if stays {
            runner.step(s, &mut Silent).expect("a trace expects nothing");
        }
        stays
    };
    statements.into_iter().filter(stays).collect()
}

/// The library answers as the independent model of illumos does, to every trace, portable or not.
#[test]
fn all_traces_agree_with_the_model() {
    let Some(oracle) = Oracle::find("python3", "the model of illumos") else { return };
    let asked = number("SEGVM_MODEL_TRACES");
    let seed = number("SEGVM_LINUX_SEED").unwrap_or(1);
    for_all("model", asked.unwrap_or(40), |i| {
        let profile = Profile::ALL[i as usize % Profile::ALL.len()].name();
        let statements = in_bounds(oracle.generated(profile, seed + i, false));
        let origin = format!("profile={profile} seed={} portable=0", seed + i);
        // What the plain machine says of the whole trace, for the other machines.
        let plain = RefCell::new(None);
        let once = |part: &[Statement]| {
            let theirs = oracle.model_of(part);
            let ours = Variant::Plain.result_of(part);
            if part.len() == statements.len() {
                plain.replace(Some(ours.clone()));
            }
            let verdict = compare(part, &ours, &theirs);
            // The generator writes nothing that is undefined; what is left of a trace that is made short may be.
            let may_be_asked = verdict.wrong.is_empty() || oracle.undefined(part).is_empty();
            may_be_asked.then_some(verdict)
        };
        let against_model = |part: &[Statement]| {
            beyond_departures(part, |left| oracle.leave_out_undefined(left), once)
        };
        let verdict = agreed(origin.clone(), &statements, against_model)?;
        let plain = plain.take().expect("the whole trace was asked about first");
        on_variants(asked.is_some(), i, &origin, &statements, &plain).map(|()| verdict)
    });
}
