//! The simulated processors: they walk the same bytes a real one would, and remember.
//!
//! # The difficulty
//!
//! A missing shootdown is invisible on most days: the stale entry was evicted, or nobody used it. A simulator that
//! translates afresh at each access would never show it.
//!
//! # The rule
//!
//! Each CPU remembers every translation it used, for each space, across switches (as with address-space numbers), and **never forgets by
//! itself**. If what it remembers allows an access, that is what it uses, stale or not. So a flush that is missing or late
//! makes the next access go astray, the same way in each run; and [`HostMmu::stale_entries`] finds it before any access does.
//!
//! ```text
//!   access ─▶ lock the CPU ─▶ remembered and sufficient? ──▶ move the bytes ─▶ unlock
//!                                  no: walk, set A and D, remember    (a fault forgets what was remembered of the page)
//!   flush  ─▶ for each CPU of the set: lock it (waits for the access under way), forget
//! ```
//!
//! - Of each walk a CPU remembers also which table of level 0 it came to, and begins there the next time (a processor's PDE cache): an unlinked table that is
//!   not told of leads into whatever its frame holds by then. Where hardware forgets more of this than it is told (`INVLPG` of any address), the simulator
//!   forgets only what [`FlushEntry`] says.
//! - A store through a remembered translation whose dirty bit was not set when it was remembered walks again, as hardware does.
//! - Translations of the upper half are global: remembered once, under the kernel's space.
//! - With a capacity, a CPU forgets one entry chosen by a seeded generator when it learns one too many: the same seed, the same choice.
//!
//! Sources: [SDM 3A §4.10.2, §4.10.3, §4.10.4]; invariants V07, V10; DESIGN law 5.

use crate::access::{Bytes, Trap, UserAccess};
use crate::geometry::{shift, span};
use crate::mmu::{Caps, CpuSet, Mmu, SpaceId};
use crate::pte::PteBits;
use crate::tlb::{FlushDue, FlushEntry};
use crate::walker::{Mode, PageFault, PfError, Start, Walked, peek, peek_table, walk_from};
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use page_db::sync::{Mutex, MutexGuard, PerCpu};
use page_db::{Access, CpuId, Cx, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysMem, Rank, VirtAddr};

/// How simulated processors behave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostConfig {
    /// Translations a CPU can remember; `None`: all.
    pub capacity: Option<usize>,
    /// Which ones go when it is full.
    pub seed: u64,
}

/// What a remembered translation is filed under: the space and the page number.
type Key = (SpaceId, u64);

struct HostSpace {
    root: Pfn,
    /// CPUs of the first group that ran in it at any time.
    first: CpuSet,
    /// Those of the other groups, if there are any.
    others: Vec<CpuSet>,
}

impl HostSpace {
    fn cpus(&mut self) -> impl Iterator<Item = &mut CpuSet> {
        core::iter::once(&mut self.first).chain(&mut self.others)
    }
}

struct HostCpu {
    current: SpaceId,
    root: Option<Pfn>,
    remembered: BTreeMap<Key, Walked>,
    /// Entries of level 1, by the number of their span: each leads to a table of level 0.
    tables: BTreeMap<Key, Walked>,
    random: u64,
}

/// The number of the span of an entry of level 1.
const fn span_number(va: VirtAddr) -> u64 {
    va.get() >> shift(1)
}

/// A translation, or the way to a table (its `remembered` is of level 1), a CPU remembers that the tables no longer hold.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct StaleEntry {
    /// Which CPU.
    pub cpu: CpuId,
    /// Whose translation.
    pub space: SpaceId,
    /// Page number: the address divided by the page size.
    pub vpn: u64,
    /// What the CPU would use.
    pub remembered: Walked,
    /// What the tables say.
    pub now: Option<Walked>,
}

impl fmt::Display for StaleEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cpu, space, va) = (self.cpu.0, self.space, self.vpn << PAGE_SHIFT);
        write!(f, "cpu {cpu} remembers {va:#x} of space {space} as {:?}, ", self.remembered)?;
        match &self.now {
            Some(now) => write!(f, "the tables say {now:?}"),
            None => f.write_str("the tables hold nothing"),
        }
    }
}

/// The simulated processors of a machine: of one, with the memory of its page database. [`HatX86::new`](crate::HatX86::new) refuses those of another.
pub struct HostMmu {
    mem: Arc<dyn PhysMem>,
    config: HostConfig,
    spaces: Mutex<BTreeMap<SpaceId, HostSpace>>,
    cpus: PerCpu<Mutex<HostCpu>>,
}

impl fmt::Debug for HostMmu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMmu")
            .field("cpus", &self.cpus.len())
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl HostMmu {
    /// `cpus` processors over `mem` that forget nothing.
    pub fn new(mem: Arc<dyn PhysMem>, cpus: u16) -> Arc<Self> {
        Self::with_config(mem, cpus, HostConfig::default())
    }
    /// `cpus` processors over `mem`.
    pub fn with_config(mem: Arc<dyn PhysMem>, cpus: u16, config: HostConfig) -> Arc<Self> {
        let cpu = |n: u16| {
            Mutex::new(
                Rank::Cpu,
                HostCpu {
                    current: SpaceId::KERNEL,
                    root: None,
                    remembered: BTreeMap::new(),
                    tables: BTreeMap::new(),
                    random: config.seed ^ (u64::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                },
            )
        };
        Arc::new(Self {
            mem,
            config,
            spaces: Mutex::new(Rank::Registry, BTreeMap::new()),
            cpus: PerCpu::new(cpus, cpu),
        })
    }
    fn cpu<'a>(&'a self, cx: &'a Cx, cpu: CpuId) -> MutexGuard<'a, HostCpu> {
        self.cpus.get(usize::from(cpu.0)).lock(cx)
    }
    /// Number of processors.
    pub fn cpu_count(&self) -> u16 {
        self.cpus.len() as u16
    }
    fn all_cpus(&self) -> impl Iterator<Item = CpuId> + use<> {
        (0..self.cpu_count()).map(CpuId)
    }
    /// The space active on a CPU.
    pub fn current(&self, cx: &Cx, cpu: CpuId) -> SpaceId {
        self.cpu(cx, cpu).current
    }
    /// Translations a CPU remembers, by space and page number.
    pub fn remembered(&self, cx: &Cx, cpu: CpuId) -> Vec<(SpaceId, u64, Walked)> {
        self.cpu(cx, cpu).remembered.iter().map(|(k, w)| (k.0, k.1, *w)).collect()
    }
    /// Makes a CPU forget everything, as it may at any time.
    pub fn forget_all(&self, cx: &Cx, cpu: CpuId) {
        self.cpu(cx, cpu).forget_all();
    }
    /// Makes a CPU forget what [`Mmu::flush`] names one by one, as for each entry of a flush.
    pub fn forget(&self, cx: &Cx, cpu: CpuId, entry: &FlushEntry) {
        self.cpu(cx, cpu).forget(entry);
    }
    /// Every remembered translation and way that the tables no longer hold, by CPU, space and address, the translations of a CPU first. Call when nothing runs: a flush under way looks stale.
    pub fn stale_entries(&self, cx: &Cx) -> Vec<StaleEntry> {
        let roots: BTreeMap<SpaceId, Pfn> =
            self.spaces.lock(cx).iter().map(|(id, s)| (*id, s.root)).collect();
        let mut stale = Vec::new();
        for cpu in self.all_cpus() {
            for (space, vpn, remembered) in self.remembered(cx, cpu) {
                let va = VirtAddr::new(vpn << PAGE_SHIFT).unwrap_or_default();
                let now = roots.get(&space).and_then(|root| peek(&*self.mem, *root, va));
                if !now.is_some_and(|now| holds(&now, &remembered)) {
                    stale.push(StaleEntry { cpu, space, vpn, remembered, now });
                }
            }
            let tables: Vec<_> = self.cpu(cx, cpu).tables.iter().map(|(k, w)| (*k, *w)).collect();
            for ((space, number), remembered) in tables {
                let va = VirtAddr::new(number << shift(1)).unwrap_or_default();
                let now = roots.get(&space).and_then(|root| peek_table(&*self.mem, *root, va));
                if !now.is_some_and(|now| holds(&now, &remembered)) {
                    stale.push(StaleEntry { cpu, space, vpn: va.vpn(), remembered, now });
                }
            }
        }
        stale
    }
    /// The translation to use for an access, from memory or by a walk. The caller keeps the CPU locked while it uses it (A1).
    fn translate(
        &self,
        cpu: &mut HostCpu,
        mode: Mode,
        va: VirtAddr,
        access: Access,
    ) -> Result<Pfn, PageFault> {
        let space = if va.is_kernel() { SpaceId::KERNEL } else { cpu.current };
        let key = (space, va.vpn());
        if let Some(w) = cpu.remembered.get(&key)
            && w.allows(access, mode)
            && (!access.is_write() || w.leaf.has(PteBits::D))
        {
            return Ok(w.pfn);
        }
        let near = (space, span_number(va));
        if let Some(passed) = cpu.tables.get(&near)
            && let Ok((w, _)) = walk_from(&*self.mem, Start::below(passed), va, access, mode)
        {
            self.remember(cpu, key, w);
            return Ok(w.pfn);
        }
        let none = PageFault::new(va, access, mode, PfError::empty());
        let walked = match cpu.root {
            // A CPU that runs in no user's space has no lower half.
            Some(root) if space == cpu.current || va.is_kernel() => {
                walk_from(&*self.mem, Start::root(root), va, access, mode)
            }
            _ => Err(none),
        };
        match walked {
            Ok((w, passed)) => {
                if let Some(passed) = passed {
                    self.remember_table(cpu, near, passed);
                }
                self.remember(cpu, key, w);
                Ok(w.pfn)
            }
            Err(fault) => {
                cpu.remembered.remove(&key);
                cpu.tables.remove(&near);
                Err(fault)
            }
        }
    }
    fn remember(&self, cpu: &mut HostCpu, key: Key, w: Walked) {
        cpu.remembered.insert(key, w);
        if self.config.capacity.is_some_and(|c| cpu.remembered.len() > c.max(1)) {
            let victim = cpu.victim(key);
            cpu.remembered.remove(&victim);
        }
    }
    /// Of ways a CPU has room for as many as of translations; the first one goes.
    fn remember_table(&self, cpu: &mut HostCpu, near: Key, passed: Walked) {
        if self.config.capacity.is_some_and(|c| cpu.tables.len() >= c.max(1)) {
            cpu.tables.pop_first();
        }
        cpu.tables.insert(near, passed);
    }
}

/// Whether what the tables say includes what is remembered.
fn holds(now: &Walked, remembered: &Walked) -> bool {
    let marks = PteBits::A | PteBits::D;
    now.pfn == remembered.pfn
        && now.prot.contains(remembered.prot)
        && now.leaf.bits().contains(remembered.leaf.bits() & marks)
}

impl HostCpu {
    fn next_random(&mut self) -> u64 {
        // xorshift64*: any period will do, only repeatability matters.
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// A remembered key other than `keep`: the first at or after a random address of a random space.
    fn victim(&mut self, keep: Key) -> Key {
        let r = self.next_random();
        let all = &self.remembered;
        let (Some((first, _)), Some((last, _))) = (all.first_key_value(), all.last_key_value())
        else {
            return keep;
        };
        let space = first.0.0 + (r >> 32) as u32 % (last.0.0 - first.0.0 + 1);
        // Space ids have gaps: the next space that has anything, then an address between its first and its last.
        let low = all.range((SpaceId(space), 0)..).next().map_or(*first, |(k, _)| *k);
        let high = all.range(..=(low.0, u64::MAX)).next_back().map_or(low, |(k, _)| *k);
        let from = (low.0, low.1 + (r & u64::from(u32::MAX)) % (high.1 - low.1 + 1));
        let mut wrapped = all.range(from..).chain(all.range(..from));
        wrapped.find(|(k, _)| **k != keep).map_or(keep, |(k, _)| *k)
    }
    /// Forgets the pages `from..to` of a space.
    fn forget_pages(&mut self, space: SpaceId, from: u64, to: u64) {
        let mut rest = (space, from);
        while let Some((k, _)) = self.remembered.range(rest..(space, to)).next() {
            rest = *k;
            self.remembered.remove(&rest);
        }
    }
    fn forget_space(&mut self, space: SpaceId) {
        self.forget_pages(space, 0, u64::MAX);
        self.forget_tables(space, 0, u64::MAX);
    }
    /// Forgets the way to the tables of the spans `from..to` of a space.
    fn forget_tables(&mut self, space: SpaceId, from: u64, to: u64) {
        while let Some((k, _)) = self.tables.range((space, from)..(space, to)).next() {
            let first = *k;
            self.tables.remove(&first);
        }
    }
    fn forget_all(&mut self) {
        self.remembered.clear();
        self.tables.clear();
    }
    fn forget(&mut self, e: &FlushEntry) {
        let space = if e.va.is_kernel() { SpaceId::KERNEL } else { e.space };
        if e.level == 0 {
            self.remembered.remove(&(space, e.va.vpn()));
            return;
        }
        let number = span_number(e.va);
        self.forget_tables(space, number, number + (span(e.level) >> shift(1)));
        // The translations of an unlinked table were flushed by name.
        if e.old.is_leaf(e.level) || e.new.is_present() {
            let (from, to) = (e.va.vpn(), e.va.vpn() + (span(e.level) >> PAGE_SHIFT));
            self.forget_pages(space, from, to);
        }
    }
}

impl Mmu for HostMmu {
    fn caps(&self) -> Caps {
        Caps { referenced_before_cached: true, wants_hints: false, deterministic: true }
    }
    fn serves(&self, cx: &Cx, mem: &dyn PhysMem, root: Pfn) -> bool {
        let mine = self.mem.has(root);
        mine && core::ptr::eq(self.mem.words(root), mem.words(root))
            && !self.spaces.lock(cx).contains_key(&SpaceId::KERNEL)
    }
    fn space_created(&self, cx: &Cx, id: SpaceId, root: Pfn) {
        let kernel = id == SpaceId::KERNEL;
        let others = CpuSet::groups(self.cpu_count()).skip(1).collect();
        let mut space = HostSpace { root, first: CpuSet::of_group(0), others };
        if kernel {
            space.cpus().for_each(|set| set.fill(self.cpu_count()));
        }
        self.spaces.lock(cx).insert(id, space);
        if kernel {
            self.all_cpus().for_each(|c| self.cpu(cx, c).root = Some(root));
        }
    }
    fn space_destroyed(&self, cx: &Cx, id: SpaceId, _root: Pfn) {
        let kernel = {
            let mut spaces = self.spaces.lock(cx);
            spaces.remove(&id);
            spaces.get(&SpaceId::KERNEL).map(|k| k.root)
        };
        for c in self.all_cpus() {
            let mut cpu = self.cpu(cx, c);
            if cpu.current == id {
                (cpu.current, cpu.root) = (SpaceId::KERNEL, kernel);
            }
            cpu.forget_space(id);
        }
    }
    fn activate(&self, cx: &Cx, cpu: CpuId, id: Option<SpaceId>) {
        let id = id.unwrap_or(SpaceId::KERNEL);
        // Locked over all of it: a space that goes meanwhile is looked for on this CPU afterwards.
        let mut c = self.cpu(cx, cpu);
        // In the set before the first walk: a flush that misses this CPU comes before, and the walk sees what it changed.
        let mut spaces = self.spaces.lock(cx);
        let found = spaces.get_mut(&id).map(|s| {
            let cpu = CpuId(cpu.0 % self.cpu_count());
            s.cpus().for_each(|set| set.insert(cpu));
            s.root
        });
        let kernel = spaces.get(&SpaceId::KERNEL).map(|s| s.root);
        drop(spaces);
        // Whoever wants a space that is gone must not go on in the one that is there, which is somebody else's.
        let now = found.map_or((SpaceId::KERNEL, kernel), |root| (id, Some(root)));
        (c.current, c.root) = now;
    }
    fn cpu_count(&self) -> u16 {
        self.cpu_count()
    }
    fn running_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        for c in self.all_cpus() {
            if cpus.takes(c) && self.cpu(cx, c).current == id {
                cpus.insert(c);
            }
        }
    }
    fn remembered_on(&self, cx: &Cx, id: SpaceId, cpus: &mut CpuSet) {
        if let Some(space) = self.spaces.lock(cx).get_mut(&id) {
            space.cpus().for_each(|set| cpus.union(set));
        }
    }
    fn remembered_wrongly(&self, cx: &Cx) -> Option<String> {
        self.stale_entries(cx).first().map(ToString::to_string)
    }
    fn flush(&self, cx: &Cx, due: &FlushDue) {
        for c in due.cpus().iter() {
            let mut cpu = self.cpu(cx, c); // waits for the access under way
            if due.is_everything() {
                cpu.forget_all();
                continue;
            }
            due.whole_spaces().for_each(|space| cpu.forget_space(space));
            due.entries().for_each(|e| cpu.forget(&e));
        }
    }
}

impl UserAccess for HostMmu {
    fn is_active(&self, cx: &Cx, cpu: CpuId, id: SpaceId) -> bool {
        self.current(cx, cpu) == id
    }
    fn access(
        &self,
        cx: &Cx,
        cpu: CpuId,
        mode: Mode,
        va: VirtAddr,
        bytes: Bytes<'_>,
    ) -> Result<(), Trap> {
        let (offset, len) = (va.page_offset() as usize, bytes.len());
        if len == 0 {
            return Ok(());
        }
        if offset + len > PAGE_SIZE as usize {
            return Err(Trap::Crosses { va, len });
        }
        let mut c = self.cpu(cx, cpu);
        let pfn = self.translate(&mut c, mode, va, bytes.access())?;
        if !self.mem.has(pfn) {
            return Err(Trap::Bus { va, pfn });
        }
        match bytes {
            Bytes::Load(buf) | Bytes::Fetch(buf) => self.mem.read(pfn, offset, buf),
            Bytes::Store(from) => self.mem.write(pfn, offset, from),
        }
        drop(c); // A1: held until the bytes are moved
        Ok(())
    }
}
