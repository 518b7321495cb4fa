//! Breadth first through all states that sequences of operations lead to.

use crate::world::{Checked, Ending, Key, World, is_as_before};
use segvm::machine::{ForkPolicy, WorldDump};
use segvm::script::{Script, Statement};
use std::collections::HashSet;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where to start, and what to do.
pub(crate) struct Plan {
    pub(crate) fork: ForkPolicy,
    pub(crate) frames: u64,
    pub(crate) start: Script,
    pub(crate) operations: Vec<Statement>,
    pub(crate) depth: usize,
}

/// A state, as the sequence that first led to it.
#[derive(Clone)]
struct State {
    key: Key,
    path: Vec<u8>,
}

/// What one depth showed.
#[derive(Clone, Copy, Default)]
pub(crate) struct Row {
    states: usize,
    operations: usize,
    refused: usize,
}

/// What all depths showed.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "depth  operations  refused  states")?;
        for (depth, r) in self.0.iter().enumerate() {
            writeln!(f, "{depth:>5}  {:>10}  {:>7}  {:>6}", r.operations, r.refused, r.states)?;
        }
        let states: usize = self.0.iter().map(|r| r.states).sum();
        writeln!(f, "all states: {states}")
    }
}

/// What was done in a world so far, for whoever has to find out what went wrong. Printed when the machine panics.
struct Trail<'p> {
    plan: &'p Plan,
    done: Vec<u8>,
}

impl Trail<'_> {
    fn text(&self) -> String {
        let lines = |s: &Statement| format!("    {}\n", s.operation);
        let start = self.plan.start.statements.iter().map(lines);
        let done = self.done.iter().map(|op| lines(&self.plan.operations[usize::from(*op)]));
        let Plan { fork, frames, .. } = self.plan;
        format!("    # fork={fork:?}, {frames} frames\n{}", start.chain(done).collect::<String>())
    }
}

impl Drop for Trail<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sequence was\n{}", self.text());
        }
    }
}

/// Where an operation led.
struct Edge {
    op: u8,
    key: Key,
    refused: bool,
}

impl Plan {
    /// A new world, and the trail to `path` in it.
    fn replay(&self, path: &[u8]) -> (World, Trail<'_>) {
        let mut trail = Trail { plan: self, done: Vec::new() };
        let mut world = World::new(self.fork, self.frames, &self.start);
        for op in path {
            trail.done.push(*op);
            world.step(&self.operations[usize::from(*op)]).expect("it was done before");
        }
        (world, trail)
    }
    /// A state made again.
    fn reach(&self, state: &State) -> Checked<(World, Trail<'_>, WorldDump)> {
        let (mut world, trail) = self.replay(&state.path);
        let dump = world.dump();
        if world.key(&dump) != state.key {
            return Err(format!("another state than the first time, after\n{}", trail.text()));
        }
        Ok((world, trail, dump))
    }
    /// Tries everything in a state. An operation that leads back to it leaves the world as it was, for the next one. Of all ways into a new state one
    /// is gone to the end, whichever comes first.
    fn expand(
        &self,
        state: &State,
        known: &HashSet<Key>,
        ended: &Mutex<HashSet<Key>>,
    ) -> Checked<Vec<Edge>> {
        let mut edges = Vec::new();
        let mut here = None;
        for (op, statement) in self.operations.iter().enumerate() {
            let (mut world, mut trail, before) = match here.take() {
                Some(here) => here,
                None => self.reach(state)?,
            };
            trail.done.push(op as u8);
            let wrong = |what: String| format!("{what}, after\n{}", trail.text());
            let ending = world.step(statement).map_err(wrong)?;
            if ending == Ending::Skipped {
                trail.done.pop();
                here = Some((world, trail, before));
                continue;
            }
            world.verify().map_err(wrong)?;
            let dump = world.dump();
            if ending == Ending::Refused && !is_as_before(&before, &dump) {
                return Err(wrong(format!("refused, but\n{}", before.difference(&dump))));
            }
            let key = world.key(&dump);
            let refused = matches!(ending, Ending::Refused | Ending::Unmapped);
            edges.push(Edge { op: op as u8, key, refused });
            if key == state.key {
                here = Some((world, trail, before));
            } else if !known.contains(&key) && ended.lock().expect("no panic").insert(key) {
                world.end().map_err(wrong)?;
            }
        }
        Ok(edges)
    }
    /// Expands all states of one depth, on all processors; in their order.
    fn expand_all(&self, states: &[State], known: &HashSet<Key>) -> Checked<Vec<Vec<Edge>>> {
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let wrong = Mutex::new(None);
        let ended = Mutex::new(HashSet::new());
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(state) = states.get(i) else { return };
                match self.expand(state, known, &ended) {
                    Ok(edges) => done.lock().expect("no panic").push((i, edges)),
                    Err(e) => {
                        wrong.lock().expect("no panic").get_or_insert(e);
                        next.store(states.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|s| {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            (0..threads).for_each(|_| drop(s.spawn(work)));
        });
        match wrong.into_inner().expect("no panic") {
            Some(e) => Err(e),
            None => {
                let mut done = done.into_inner().expect("no panic");
                done.sort_by_key(|(i, _)| *i);
                Ok(done.into_iter().map(|(_, edges)| edges).collect())
            }
        }
    }
    /// All states to the plan's depth.
    pub(crate) fn explore(&self) -> Checked<Table> {
        let (mut world, _trail) = self.replay(&[]);
        let dump = world.dump();
        let key = world.key(&dump);
        let mut known = HashSet::from([key]);
        let mut states = vec![State { key, path: Vec::new() }];
        let mut table = Table(vec![Row { states: 1, ..Row::default() }]);
        for _ in 0..self.depth {
            let edges = self.expand_all(&states, &known)?;
            let mut row = Row::default();
            let mut found = Vec::new();
            for (state, edges) in states.iter().zip(edges) {
                for edge in edges {
                    row.operations += 1;
                    row.refused += usize::from(edge.refused);
                    if known.insert(edge.key) {
                        let mut path = state.path.clone();
                        path.push(edge.op);
                        found.push(State { key: edge.key, path });
                    }
                }
            }
            row.states = found.len();
            table.0.push(row);
            states = found;
        }
        Ok(table)
    }
}
