//! The library's side of a trace, on machines that must not show.
//!
//! What a machine is like never changes a result: not when memory is reclaimed, not how many processors there are, which hash finds pages, when a fork copies,
//! or how little memory there is.

use segvm::machine::{Machine, MachineWorld, Personality};
use segvm::script::ast::{Amount, ForkPolicy, HashKind, MachineSettings, SwapBacking, SwapSpec};
use segvm::script::{Operation, ProcSlot, ResultText, RunOptions, Runner, Statement, World};

/// A machine that a trace runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    /// One processor, ample memory.
    Plain,
    /// All that can be reclaimed is, after every operation.
    Pageout,
    /// Three processors, on which loads and stores take turns.
    Cpus,
    /// Pages are found by the sharded map.
    Dashmap,
    /// Forks share anon maps until someone needs them.
    Lazy,
    /// 48 frames beside those of page tables, however many these are.
    Small,
    /// Ample memory, and processes that ask for Linux's answers.
    AsLinux,
}

/// Frames of the other machines: a trace locks fewer pages, and what is not locked can be paged out.
const FRAMES: u64 = 640;

/// Frames of the small machine that page tables do not take.
const SMALL: u64 = 48;

/// Frames that page tables take at most: eight processes with a root and, for arena and break each, three levels below. What is not taken is held back.
const TABLES: u64 = 8 * (1 + 2 * 3);

/// Takes the frames away that page tables may come to need and do not need now, so that [`SMALL`] are left for all else. Within one operation tables may
/// grow into those: there are never more.
fn hold_back(machine: &Machine) -> Result<(), String> {
    let tables: u64 = machine.hat().hats(machine.cx()).iter().map(|h| h.tables).sum();
    let held = TABLES.checked_sub(tables).ok_or_else(|| format!("{tables} page tables"))?;
    if held < machine.squeezed() {
        machine.release();
    }
    let more = held - machine.squeezed();
    match machine.squeeze(more) {
        taken if taken == more => Ok(()),
        taken => Err(format!("{taken} of {more} frames can be held back from {tables} tables")),
    }
}

impl Variant {
    /// All that must not show.
    pub(crate) const OTHERS: [Variant; 5] =
        [Variant::Pageout, Variant::Cpus, Variant::Dashmap, Variant::Lazy, Variant::Small];

    fn settings(self) -> MachineSettings {
        let mut s = MachineSettings { memory: Some(Amount::Frames(FRAMES)), ..Default::default() };
        let swap = SwapSpec { backing: SwapBacking::Memory, pages: 2048, priority: None };
        s.swap.push(swap);
        match self {
            Variant::Plain | Variant::Pageout | Variant::AsLinux => {}
            Variant::Cpus => s.cpus = Some(3),
            Variant::Dashmap => s.hash = Some(HashKind::DashMap),
            Variant::Lazy => s.fork = Some(ForkPolicy::Lazy),
            Variant::Small => s.memory = Some(Amount::Frames(SMALL + TABLES)),
        }
        s
    }

    /// Says whether a trace can be run on it: what is locked cannot leave a small memory.
    pub(crate) fn suits(self, statements: &[Statement]) -> bool {
        let locks = |s: &Statement| match &s.operation {
            Operation::Lock(_) | Operation::LockAll(..) => true,
            Operation::Map(m) => m.flags.locked,
            _ => false,
        };
        self != Variant::Small || !statements.iter().any(locks)
    }

    /// The result of a trace.
    pub(crate) fn result_of(self, statements: &[Statement]) -> String {
        let world = match MachineWorld::new(&self.settings()) {
            Ok(world) => world,
            Err(e) => return format!("no such machine: {e}\n"),
        };
        if self == Variant::AsLinux
            && let Some(first) = world.process(ProcSlot(0))
        {
            first.set_personality(Personality::Linux);
        }
        let mut runner = Runner::new(world, RunOptions::default());
        let mut out = ResultText(String::new());
        for (turn, statement) in statements.iter().enumerate() {
            if self == Variant::Small
                && let Err(e) = hold_back(runner.world().machine())
            {
                return format!("{}\n{e}\n", out.0);
            }
            let statement = self.dressed(statement, turn);
            if let Err(e) = runner.step(&statement, &mut out) {
                return format!("{}\n{e}\n", out.0);
            }
            if self == Variant::Pageout {
                runner.world_mut().pageout(None);
            }
        }
        let ended = runner.finish(&mut out);
        let sound = runner.world_mut().verify();
        match (ended, sound) {
            (Ok(()), Ok(())) => out.0,
            (ended, sound) => format!("{}\n{ended:?} {sound:?}\n", out.0),
        }
    }

    /// The statement, on a processor when there are several.
    fn dressed(self, statement: &Statement, turn: usize) -> Statement {
        let mut statement = statement.clone();
        if self == Variant::Cpus {
            match &mut statement.operation {
                Operation::Read(a) | Operation::Write(a, _) => a.cpu = Some(turn as u32 % 3),
                Operation::Fread(t) | Operation::Fwrite(t) => t.memory.cpu = Some(turn as u32 % 3),
                _ => {}
            }
        }
        statement
    }
}
