//! One small world: a machine with hardly any memory, and the naive model beside it.

use page_db::{Thresholds, VirtRange};
use segvm::machine::{ForkPolicy, Machine, MachineWorld, SwapArea, SwapBacking, WorldDump};
use segvm::model::Model;
use segvm::script::ast::{Map, ProcRef, Range};
use segvm::script::outcome::{BusCode, Errno, Outcome, PAGE_BYTES};
use segvm::script::{
    Operation, ProcSlot, RunOptions, Runner, Script, Silent, Statement, World as _, explanation,
    undefined,
};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

/// Page tables of the kernel and of two processes that use the arena: what is needed; and two frames more.
pub(crate) const FRAMES: u64 = 2 + 2 * 4 + 2;
/// Two frames more than the tables of the kernel, of the process that runs, and the top one of the other, whose lower ones can be taken away.
pub(crate) const TOO_FEW: u64 = 2 + 4 + 1 + 2;
/// Pages that are free when page-out starts.
const LOTSFREE: u64 = 2;
/// Frames that stand aside until contents are compared, so that every page can be brought in then.
const ASIDE: u64 = 12;

/// Pages of each process.
const PAGES: usize = 3;

/// Bytes at the beginning of a page that operations store to.
const STORED: usize = 8;

/// A state without what does not matter, as a number of 128 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key(u64, u64);

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ending {
    /// Both sides answered alike.
    Agreed,
    /// There is nothing to do it to.
    Skipped,
    /// The machine had no memory or no swap for it, and all is as before.
    Refused,
    /// So with a fixed mapping, and what was there is gone.
    Unmapped,
}

/// A machine and the model, at the same point of a sequence of operations.
pub(crate) struct World {
    machine: Runner<MachineWorld>,
    model: Runner<Model>,
    /// What was done, for differences that are understood.
    past: Vec<Operation>,
    /// Frames, anon maps and anons that are in use when nobody lives.
    boot: (u64, usize, u64),
}

/// What `step` and the others find: what is wrong, in words.
pub(crate) type Checked<T> = Result<T, String>;

impl World {
    /// The world after `start`.
    pub(crate) fn new(fork: ForkPolicy, frames: u64, start: &Script) -> Self {
        let disk = SwapArea { backing: SwapBacking::Memory, pages: 1, priority: 0 };
        let thresholds = Thresholds::from_lotsfree(LOTSFREE);
        let m = Machine::builder().frames(frames + ASIDE).thresholds(thresholds);
        let m = m.swap(disk).fork(fork).build().expect("a small machine");
        let boot = boot_of(&m);
        assert_eq!(m.squeeze(ASIDE), ASIDE);
        let machine = MachineWorld::on(m).expect("room for one process");
        let mut world = Self {
            machine: Runner::new(machine, RunOptions::default()),
            model: Runner::new(Model::new(), RunOptions::default()),
            past: Vec::new(),
            boot,
        };
        for statement in &start.statements {
            let done = world.step(statement);
            assert!(matches!(done, Ok(Ending::Agreed)), "{}: {done:?}", statement.operation);
        }
        world
    }
    /// Does an operation on both sides. What the machine refuses for want of memory the model does not do.
    pub(crate) fn step(&mut self, statement: &Statement) -> Checked<Ending> {
        if undefined(self.model.world(), &statement.operation).is_some() {
            return Ok(Ending::Skipped);
        }
        let left = self.machine.step(statement, &mut Silent).map_err(|e| e.to_string())?;
        let before = left.is_some_and(is_shortage).then(|| self.model.clone());
        let right = self.model.step(statement, &mut Silent).map_err(|e| e.to_string())?;
        let (Some(left), Some(right)) = (left, right) else {
            self.past.push(statement.operation.clone()); // a setting
            return Ok(Ending::Agreed);
        };
        if (left, right) == (Outcome::Skip, Outcome::Skip) {
            return Ok(Ending::Skipped);
        }
        let unknown = right == Outcome::Errno(Errno::ENOSYS); // page-out, of which the model knows nothing
        if unknown || left.agrees_with(&right) || self.is_explained(statement, left, right) {
            self.past.push(statement.operation.clone());
            return Ok(Ending::Agreed);
        }
        let Some(model) = before else {
            return Err(format!("the machine answers `{left}`, the model `{right}`"));
        };
        self.model = model;
        if let Operation::Map(map) = &statement.operation
            && self.is_bare(map)
        {
            let range = Range { proc: map.proc.clone(), addr: map.addr, len: map.len };
            let unmap = Operation::Unmap(range).into();
            self.model.step(&unmap, &mut Silent).map_err(|e| e.to_string())?;
            return Ok(Ending::Unmapped);
        }
        Ok(Ending::Refused)
    }
    fn is_explained(&self, statement: &Statement, left: Outcome, right: Outcome) -> bool {
        let (left, right) = (left.to_string(), right.to_string());
        explanation(&self.past, &statement.operation, &left, &right).is_some()
    }
    /// Whether the machine has nothing where a mapping was to go.
    fn is_bare(&self, map: &Map) -> bool {
        let ProcRef::Slot(slot) = map.proc else { return false };
        let world = self.machine.world();
        let Some(p) = world.process(ProcSlot(slot)) else { return false };
        let at = map.addr.resolve(world.layout(ProcSlot(slot)));
        let range = VirtRange::covering(at, map.len.resolve(at)).expect("pages of the arena");
        p.space().segs(p.cx()).iter().all(|s| s.range().intersect(range).is_none())
    }
    pub(crate) fn dump(&self) -> WorldDump {
        self.machine.world().machine().dump()
    }
    /// The state: everything in the dump, and what the model makes of memory, in case that differs.
    pub(crate) fn key(&mut self, dump: &WorldDump) -> Key {
        let seen = self.seen_by_the_model();
        let half = |seed: u64| {
            let mut h = DefaultHasher::new();
            (seed, dump, seen).hash(&mut h);
            h.finish()
        };
        Key(half(1), half(2))
    }
    fn seen_by_the_model(&mut self) -> u64 {
        let mut h = DefaultHasher::new();
        let mut bytes = [0; PAGE_BYTES as usize];
        for proc in self.model.live() {
            for (index, at) in self.model.pages(proc).take(PAGES) {
                let state = self.model.world_mut().peek(proc, at, &mut bytes);
                (proc, index, state.letter()).hash(&mut h);
                if state.is_readable() {
                    bytes[..STORED].hash(&mut h);
                }
            }
        }
        for file in self.model.made_files() {
            let contents = self.model.world_mut().file_contents(file).unwrap_or_default();
            (contents.size, contents.pages).hash(&mut h);
        }
        h.finish()
    }
    /// Ends the sequence. With memory for it, every load finds what the model has; then everybody exits, and nothing is left.
    pub(crate) fn end(mut self) -> Checked<()> {
        self.machine.world().machine().release();
        self.compare_contents()?;
        self.verify().map_err(|v| format!("when all was loaded: {v}"))?;
        for proc in self.machine.live() {
            self.machine.world_mut().exit(proc);
        }
        self.verify().map_err(|v| format!("after the last exit: {v}"))?;
        let m = self.machine.world().machine();
        let (promises, slots) = (m.swap().info().reserved(), m.swap().list()[0].free);
        if (boot_of(m), promises, slots) == (self.boot, 0, 1) {
            return Ok(());
        }
        let (is, was) = (boot_of(m), self.boot);
        Err(format!(
            "after the last exit: {is:?}, not {was:?}; {promises} promises, {slots} slots free"
        ))
    }
    fn compare_contents(&mut self) -> Checked<()> {
        let (mut left, mut right) = ([0; PAGE_BYTES as usize], [0; PAGE_BYTES as usize]);
        for proc in self.machine.live() {
            let places = self.machine.pages(proc).zip(self.model.pages(proc)).take(PAGES);
            for ((index, at), (_, there)) in places {
                let l = self.machine.world_mut().peek(proc, at, &mut left);
                let r = self.model.world_mut().peek(proc, there, &mut right);
                if l != r || (l.is_readable() && left != right) {
                    let (l, r) = (l.letter(), r.letter());
                    let bytes = format!("{:x?} and {:x?}", &left[..4], &right[..4]);
                    return Err(format!(
                        "page {index} of process {} is {l} and should be {r}; {bytes}",
                        proc.0
                    ));
                }
            }
        }
        for file in self.machine.made_files() {
            let left = self.machine.world_mut().file_contents(file);
            if left != self.model.world_mut().file_contents(file) {
                return Err(format!("file {}: {left:?}", file.0));
            }
        }
        Ok(())
    }
    pub(crate) fn verify(&self) -> Checked<()> {
        self.machine.world().machine().verify().map_err(|v| v.to_string())
    }
}

/// Whether a refused operation left the state before it. A page that was shared may have been copied, byte for byte, when there was no frame left to
/// map the copy with.
pub(crate) fn is_as_before(was: &WorldDump, is: &WorldDump) -> bool {
    let bytes = |line: &str| line.split_once(" holds ").map(|(_, bytes)| bytes.to_owned());
    let place = |line: &str| {
        let (who, rest) = line.split_once(" anon ")?;
        Some((who.to_owned(), rest.split_once(" holds ")?.1.to_owned()))
    };
    let anons = |d: &WorldDump| d.visible().iter().filter_map(|l| place(l)).collect::<Vec<_>>();
    let others = |d: &WorldDump| {
        let others = d.visible().iter().filter(|l| place(l).is_none()).cloned();
        others.collect::<Vec<_>>()
    };
    let (had, has) = (anons(was), anons(is));
    let known: Vec<_> = was.visible().iter().filter_map(|l| bytes(l)).collect();
    others(was) == others(is)
        && had.iter().all(|page| has.contains(page))
        && has.iter().all(|page| had.contains(page) || known.contains(&page.1))
}

fn boot_of(m: &Machine) -> (u64, usize, u64) {
    (m.db().free_mem().availrmem(), m.anon().maps().len(), m.swap().live())
}

/// Whether an answer may mean that there is no memory or no swap.
fn is_shortage(answer: Outcome) -> bool {
    matches!(
        answer,
        Outcome::Errno(Errno::ENOMEM | Errno::EAGAIN | Errno::EFAULT)
            | Outcome::Bus { code: BusCode::Objerr, .. }
    )
}
