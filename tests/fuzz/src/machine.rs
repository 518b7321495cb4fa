//! What must hold of any script that runs on a machine.
//!
//! The first byte chooses the machine and how closely it is watched, the rest are a script of [`grammar`](super::grammar); before them may stand [`HELD`](grammar::HELD).
//! An input that begins as a trace does is a script as it stands, so that traces can be given to the fuzzer.
//!
//! 1. After every statement, every invariant of the machine holds (`verify`), no lock is held, nothing has panicked.
//! 2. With ample memory, every answer and all contents are those of the naive model, which has no memory management.
//! 3. With short memory, answers may be refusals, and when the last process has ended nothing of them is left: no anon, no promise, no anon map.
//!
//! What has no defined outcome is left out where answers are compared; so is what takes memory away, or what was freed and not overwritten.

use segvm::machine::MachineWorld;
use segvm::model::Model;
use segvm::script::ast::{
    Advice, Amount, ForkPolicy, HashKind, MachineSettings, SwapBacking, SwapSpec,
};
use segvm::script::outcome::PAGE_BYTES;
use segvm::script::{
    Difference, Lockstep, Operation, Outcome, RunOptions, RunProblem, Runner, Silent, Statement,
    World, parse, undefined,
};

use super::grammar::{self, Bytes, Words};

/// Statements between two comparisons of all contents; there is one more at the end.
const CONTENTS: usize = 4;

/// Files longer than this are made in short memory only.
const LONG_FILE: u64 = 64 * PAGE_BYTES;

/// A script and the machine it runs on.
#[derive(Debug)]
pub(crate) struct Input {
    settings: MachineSettings,
    /// Memory may run out.
    short: bool,
    pub(crate) statements: Vec<Statement>,
}

impl Input {
    /// The input that these bytes are.
    pub(crate) fn of(data: &[u8]) -> Input {
        let (words, data) = match data.strip_prefix(grammar::HELD) {
            Some(rest) => (Words::All, rest),
            None => (Words::First, data),
        };
        let mut bytes = Bytes(data);
        let written = data.starts_with(b"vmtrace 1");
        let how = if written { 0 } else { bytes.next() };
        let short = how & 1 != 0;
        let area = |pages| SwapSpec { backing: SwapBacking::Memory, pages, priority: None };
        let settings = MachineSettings {
            // A machine that is short has what a few processes need to exist, and swap for as much again.
            memory: Some(Amount::Frames(if short { 48 + 16 * u64::from(how >> 6) } else { 512 })),
            cpus: Some(1 + u32::from(how >> 1 & 1)),
            colours: Some(1 << (how >> 3 & 2)),
            hash: Some(if how & 4 != 0 { HashKind::DashMap } else { HashKind::Chain }),
            fork: Some(if how & 8 != 0 { ForkPolicy::Lazy } else { ForkPolicy::Eager }),
            swap: vec![area(if short { 40 } else { 4096 })],
            ..MachineSettings::default()
        };
        let statements = if written {
            read(data)
        } else {
            grammar::statements(&mut bytes, words, how & 0x20 == 0)
        };
        Input { settings, short, statements }
    }

    /// The script as a file that `segvm run` takes.
    pub(crate) fn text(&self) -> String {
        let machine = Operation::Machine(self.settings.clone());
        let rest = self.statements.iter().map(|s| format!("{}\n", s.operation));
        format!("{machine}\n{}", rest.collect::<String>())
    }
}

/// The statements of a script that is written out, but for such as reach out of the machine.
fn read(data: &[u8]) -> Vec<Statement> {
    let text = String::from_utf8_lossy(data);
    let within = |s: &Statement| {
        let on_host = |area: &SwapSpec| area.backing != SwapBacking::Memory;
        match &s.operation {
            Operation::HostFile { .. } | Operation::Spawn { .. } | Operation::Expect(_) => false,
            Operation::SwapAdd(area) => !on_host(area),
            Operation::Arena(pages) => *pages <= 256,
            _ => true,
        }
    };
    let mut statements = parse(&text).unwrap_or_default().statements;
    statements.retain(within);
    statements.truncate(grammar::MOST);
    statements
}

/// Checks one input.
pub(crate) fn run(data: &[u8]) {
    let input = Input::of(data);
    let world = MachineWorld::new(&input.settings).expect("a machine of this size boots");
    let done =
        if input.short { in_short_memory(world, &input) } else { beside_the_model(world, &input) };
    if let Err(what) = done {
        panic!("{what}\n{}", input.text());
    }
}

/// A view that cannot be shown is an answer; a violated invariant is not.
fn is_wrong(problem: &RunProblem) -> bool {
    !matches!(problem, RunProblem::View(_) | RunProblem::NoName(_))
}

fn beside_the_model(world: MachineWorld, input: &Input) -> Result<(), String> {
    let mut pair = Lockstep::new(world, Model::new(), CONTENTS, true);
    for statement in &input.statements {
        let operation = &statement.operation;
        let beyond = match operation {
            Operation::Squeeze(_)
            | Operation::Grow { .. }
            | Operation::SwapDel(_)
            | Operation::Exec { .. }
            // The model has nobody else's answers.
            | Operation::Personality(..)
            | Operation::MemCntl { .. } => true,
            Operation::Advise(_, Advice::Free | Advice::Purge | Advice::Drop) => true,
            // All of every file is looked at after every statement.
            Operation::File { size, .. } => *size > LONG_FILE,
            _ => undefined(pair.right().world(), operation).is_some(),
        };
        if beyond {
            continue;
        }
        match pair.step(statement) {
            Err(e) => match &*e.what {
                Difference::Run { error, .. } if !is_wrong(&error.problem) => {}
                _ => return Err(e.to_string()),
            },
            Ok(Some(Outcome::Crash)) => return Err(format!("`{operation}` crashes")),
            Ok(_) => {}
        }
        no_lock_is_held(pair.left().world(), operation)?;
    }
    pair.compare_contents().map_err(|what| format!("at the end: {what}"))
}

fn in_short_memory(world: MachineWorld, input: &Input) -> Result<(), String> {
    let options = RunOptions { verify_each: true, ..RunOptions::default() };
    let mut runner = Runner::new(world, options);
    for statement in &input.statements {
        let operation = &statement.operation;
        match runner.step(statement, &mut Silent) {
            Err(e) if is_wrong(&e.problem) => return Err(format!("after `{operation}`: {e}")),
            Ok(Some(Outcome::Crash)) => return Err(format!("`{operation}` crashes")),
            _ => {}
        }
        no_lock_is_held(runner.world(), operation)?;
    }
    let mut world = runner.into_world();
    world.release();
    (1..=input.statements.len() as u64).for_each(|pin| _ = world.unpin(pin));
    // Whoever borrows outlives the lender: each statement made one loan at most.
    (1..=input.statements.len() as u64).for_each(|loan| _ = world.unlend(loan));
    let machine = world.machine().clone();
    machine.processes().iter().for_each(|p| p.exit());
    machine.verify().map_err(|e| format!("after the last exit: {e}"))?;
    let swap = machine.swap();
    let left = (swap.live(), swap.info().reserved(), machine.anon().maps().len());
    if left == (0, 0, 0) {
        Ok(())
    } else {
        Err(format!("after the last exit (anons, promises, maps): {left:?}"))
    }
}

fn no_lock_is_held(world: &MachineWorld, operation: &Operation) -> Result<(), String> {
    let held = world.machine().cx().held();
    if held.is_empty() { Ok(()) } else { Err(format!("after `{operation}`: I15: {held:?}")) }
}
