//! Random worlds: the machine against the naive model.
//!
//! A seed and a profile make a script. It runs on a machine and on the model side by side; answers are compared after every statement, contents (every
//! page of every process, every file) too, and the machine's invariants are checked. What fails is made short and printed with its seed.
//!
//! A thousand short worlds run by default. `SEGVM_SIM_WORLDS=N` runs N, `SEGVM_SIM_SEED=S` starts at seed S, `SEGVM_SIM_OPS=K` makes them K operations long,
//! `SEGVM_SIM_INPUTS=N` makes that many inputs of the fuzz targets by lot.
//!
//! What must never show is varied from world to world: memory so short that everything is paged, page-out after every operation, the page
//! hash, the number of processors, colours, and whether forks copy anon maps at once or when they must.

mod corpus;
mod stress;
mod threads;

use segvm::machine::MachineWorld;
use segvm::model::Model;
use segvm::script::{
    Errno, GenerateOptions, Lockstep, Outcome, Profile, Script, Statement, generate, minimise,
    parse,
};

const PROFILES: [Profile; 8] = [
    Profile::Map,
    Profile::Cow,
    Profile::File,
    Profile::Prot,
    Profile::Sync,
    Profile::Err,
    Profile::Mix,
    Profile::Remap,
];

/// The next number below `n` of a small repeatable generator.
pub(crate) fn lot(seed: &mut u64, n: u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) % n
}

pub(crate) fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

/// What must be invisible, chosen by the seed.
fn settings(seed: u64) -> String {
    let memory = [2048, 512, 160][(seed / 7 % 3) as usize];
    let hash = ["chain", "dashmap"][(seed / 21 % 2) as usize];
    let cpus = 1 + seed / 42 % 3;
    let colours = 1 << (seed / 126 % 4);
    let fork = ["eager", "lazy"][(seed / 3 % 2) as usize];
    format!(
        "machine memory={memory} cpus={cpus} colours={colours} hash={hash} fork={fork} swap=mem:4096"
    )
}

/// The script with a machine in front and, for every third seed, page-out after every operation.
fn dress(seed: u64, body: &[Statement]) -> Script {
    let mut text = settings(seed);
    text.push('\n');
    for s in body {
        text.push_str(&format!("{}\n", s.operation));
        if seed.is_multiple_of(3) {
            text.push_str("pageout *\n");
        }
    }
    parse(&text).unwrap_or_else(|e| panic!("a generated script parses: {e}\n{text}"))
}

fn run(script: &Script) -> Result<(), String> {
    let world = MachineWorld::new(&script.machine()).map_err(|e| e.to_string())?;
    Lockstep::new(world, Model::new(), 1, true).run(script).map_err(|e| e.to_string())
}

/// Runs one world; a failure comes back as a report with a script that can be pasted into a test.
fn world(profile: Profile, seed: u64, ops: u64) -> Result<(), String> {
    let mut options = GenerateOptions::small(profile, seed);
    options.operations = usize::try_from(ops).unwrap_or(usize::MAX);
    let made = generate(&options);
    let Err(first) = run(&dress(seed, &made.statements)) else { return Ok(()) };
    let short = minimise(&made.statements, |part| run(&dress(seed, part)).is_err());
    let script = dress(seed, &short);
    let why = run(&script).err().unwrap_or(first);
    let text: String = script.statements.iter().map(|s| format!("    {}\n", s.operation)).collect();
    Err(format!("profile {profile:?} seed {seed}: {why}\n{}\n{text}", settings(seed)))
}

/// Runs so many worlds of these profiles, one after the other, on all processors.
fn run_worlds(profiles: &[Profile], worlds: u64) {
    let first = number("SEGVM_SIM_SEED", 1);
    let ops = number("SEGVM_SIM_OPS", 40);
    let next = std::sync::atomic::AtomicU64::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                loop {
                    let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if i >= worlds || failures.lock().expect("no panic").len() >= 3 {
                        return;
                    }
                    let profile = profiles[(i % profiles.len() as u64) as usize];
                    let done = std::panic::catch_unwind(|| world(profile, first + i, ops));
                    let report = match done {
                        Ok(Ok(())) => continue,
                        Ok(Err(report)) => report,
                        Err(_) => format!("profile {profile:?} seed {}: PANIC (above)", first + i),
                    };
                    failures.lock().expect("no panic").push(report);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    assert!(failures.is_empty(), "{} worlds failed:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn random_worlds_agree_with_the_naive_model() {
    run_worlds(&PROFILES, number("SEGVM_SIM_WORLDS", 1000));
}

/// Of memory that others have too: devices, loans, second views, watches; of frames and swap areas that come and go.
#[test]
fn worlds_of_held_memory_agree_with_the_naive_model() {
    run_worlds(&[Profile::Held], number("SEGVM_SIM_WORLDS", 400));
}

/// Each of their operations is done, and not only refused.
#[test]
fn held_memory_is_held() {
    let mut done = std::collections::BTreeMap::new();
    for seed in 1..=60 {
        let script =
            dress(seed, &generate(&GenerateOptions::small(Profile::Held, seed)).statements);
        let world = MachineWorld::new(&script.machine()).expect("a machine");
        let mut pair = Lockstep::new(world, Model::new(), 0, false);
        for s in &script.statements {
            let answer = pair.step(s).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let text = s.operation.to_string();
            let word = text.split(' ').next().unwrap_or_default().to_owned();
            // A frame in use is to be retired later.
            let is_done = |a: Outcome| a.is_ok() || (word == "retire" && a == Errno::EAGAIN.into());
            let is_done = answer.is_some_and(is_done);
            *done.entry(word).or_insert(0) += u32::from(is_done);
        }
    }
    for word in [
        "pin", "pinned", "unpin", "lend", "lent", "unlend", "lendanon", "borrow", "share", "watch",
        "unwatch", "retire", "unretire", "squeeze", "release", "swapadd", "swapdel",
    ] {
        assert!(done.get(word).is_some_and(|n| *n >= 10), "{word}: {done:?}");
    }
}
