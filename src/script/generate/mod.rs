//! Random scripts from a seed.
//!
//! The generator runs the naive model beside it, so that most operations meet something mapped and
//! ranges collide: about nine of ten act on mapped pages, in a window of at most 56. A seed and a
//! profile give the same script everywhere. What has no defined outcome stays out:
//!
//! 1. a store past the end of a file inside its last page, through a shared mapping;
//! 2. reading what `advise free` gave away before overwriting it;
//! 3. copying a file over itself through a mapping, but for a page onto itself;
//! 4. holes and foreign mappings in the break.
//!
//! A *portable* script has, on top, nothing that illumos and Linux may answer differently (`portable.rs` has the rules), so that a real system can be
//! asked whether the answers are right.

mod choice;
mod held;
mod lot;
mod portable;
mod profile;

use crate::model::{Backing, Model, Page};

use self::portable::Judge;
use self::profile::{Kind, MISTAKES};
use super::ast::*;
use super::outcome::PAGE_BYTES;
use super::run::{RunOptions, Runner, Silent};

pub use self::lot::Lot;
pub use self::portable::{Objection, differs, objection, undefined};
pub use self::profile::Profile;

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub struct GenerateOptions {
    /// What it is mostly about.
    pub profile: Profile,
    /// Everything is drawn from this.
    pub seed: u64,
    /// Operations; a last one may be added to overwrite what `advise free` gave away.
    pub operations: usize,
    /// Pages of the arena, 1 to 2048.
    pub arena: u32,
    /// CPUs on which accesses run; with 1, none is named.
    pub cpus: u32,
    /// Steps of the page-out clock stand between the operations.
    pub pressure: bool,
    /// Nothing that illumos and Linux may answer differently.
    pub portable: bool,
}

impl GenerateOptions {
    /// A small world of `profile` from `seed`: 60 operations on 24 pages.
    pub fn small(profile: Profile, seed: u64) -> Self {
        GenerateOptions {
            profile,
            seed,
            operations: 60,
            arena: 24,
            cpus: 1,
            pressure: false,
            portable: false,
        }
    }

    /// A portable trace as one gives it to a real system: 300 operations on 256 pages.
    pub fn trace(profile: Profile, seed: u64) -> Self {
        let (operations, arena, portable) = (300, 256, true);
        GenerateOptions { operations, arena, portable, ..Self::small(profile, seed) }
    }
}

/// Generates a script. Its first statement sets the arena.
pub fn generate(options: &GenerateOptions) -> Script {
    let mut g = Generator::new(*options);
    let weights = options.profile.weights();
    g.emit(Operation::Arena(options.arena));
    for _ in 0..g.lot.between(2, 5) {
        let file = g.file();
        g.emit_all(file);
    }
    let total = options.operations + g.out.len();
    // A kind that finds nothing to act on gives nothing; the bound only guards against a profile
    // that could never give anything.
    for _ in 0..200 * (options.operations + 1) {
        if g.out.len() >= total {
            break;
        }
        let kind = g.lot.weighted(&weights);
        let operations = g.draw(kind);
        if operations.iter().all(|o| g.is_fit(o)) {
            g.emit_all(operations);
        }
    }
    Script { statements: g.out.into_iter().map(Statement::from).collect() }
}

struct Generator {
    options: GenerateOptions,
    lot: Lot,
    runner: Runner<Model>,
    out: Vec<Operation>,
    /// First page of the window that most ranges lie in.
    hot: u64,
    /// Swap areas beside the machine's own, which have come and not gone.
    areas: held::Areas,
}

impl Generator {
    fn new(options: GenerateOptions) -> Self {
        let mut lot = Lot::new(options.seed ^ (options.profile as u64) << 56);
        let hot = lot.below(u64::from(options.arena).saturating_sub(64) + 1);
        let runner = Runner::new(Model::new(), RunOptions::default());
        Generator { options, lot, runner, out: Vec::new(), hot, areas: held::Areas::default() }
    }

    fn model(&self) -> &Model {
        self.runner.world()
    }

    fn emit(&mut self, operation: Operation) {
        let statement = Statement::from(operation);
        self.runner
            .step(&statement, &mut Silent)
            .expect("a generated statement expects nothing that could fail");
        self.out.push(statement.operation);
    }

    fn emit_all(&mut self, operations: Vec<Operation>) {
        for operation in operations {
            self.emit(operation);
            if self.options.pressure && self.lot.chance(10) {
                let steps = self.lot.between(1, 64);
                self.emit(Operation::Scan(steps));
            }
        }
    }

    /// Says whether an operation may be in the script, as things stand.
    fn is_fit(&self, operation: &Operation) -> bool {
        let judge = Judge(self.model());
        let may = judge.undefined(operation).is_none();
        may && !(self.options.portable && judge.differs(operation).is_some())
    }

    fn draw(&mut self, kind: Kind) -> Vec<Operation> {
        use Operation as O;
        match kind {
            Kind::Map => self.map(),
            Kind::Unmap => vec![O::Unmap(self.any_range())],
            Kind::Protect => vec![O::Protect(self.any_range(), self.prot())],
            Kind::Write => vec![O::Write(self.bytes(), self.byte())],
            Kind::Read => vec![O::Read(self.bytes())],
            Kind::Fork => self.fork(),
            Kind::Exit if self.model().processes().len() < 2 => Vec::new(),
            Kind::Exit => vec![O::Exit(ProcRef::Slot(self.proc()))],
            Kind::File => self.file(),
            Kind::Truncate | Kind::Pwrite | Kind::Pread | Kind::Fclose => self.on_file(kind),
            Kind::Fread | Kind::Fwrite => self.transfer(kind),
            Kind::Sync => self.sync(),
            Kind::Advise => {
                let advice = [
                    Advice::Normal,
                    Advice::Random,
                    Advice::Sequential,
                    Advice::WillNeed,
                    Advice::PopulateRead,
                    Advice::PopulateWrite,
                ];
                let known = if self.options.portable { 4 } else { advice.len() };
                vec![O::Advise(self.any_range(), self.lot.pick(&advice[..known]))]
            }
            Kind::Inherit if !self.options.portable && self.lot.chance(60) => {
                let how =
                    [Inherit::Share, Inherit::Share, Inherit::Copy, Inherit::Zero, Inherit::None];
                vec![O::Inherit(self.any_range(), self.lot.pick(&how))]
            }
            Kind::Inherit => {
                let advice = [
                    Advice::DontFork,
                    Advice::DoFork,
                    Advice::InheritZero,
                    Advice::InheritZero,
                    Advice::InheritCopy,
                ];
                vec![O::Advise(self.any_range(), self.lot.pick(&advice))]
            }
            Kind::DontNeed if !self.options.portable && self.lot.chance(50) => {
                vec![O::Advise(self.any_range(), Advice::Discard)]
            }
            Kind::DontNeed => vec![O::Advise(self.any_range(), Advice::DontNeed)],
            Kind::Free => self.free(),
            Kind::Lock => vec![O::Lock(self.any_range())],
            Kind::Unlock => vec![O::Unlock(self.any_range())],
            Kind::LockAll => self.lock_all(),
            Kind::Incore => vec![O::Incore(self.any_range())],
            Kind::Brk => {
                let to = self.lot.below(self.arena().min(24) * PAGE_BYTES);
                let whole = self.lot.chance(50);
                let to = if whole { to - to % PAGE_BYTES } else { to };
                vec![O::Brk { proc: ProcRef::Slot(self.proc()), to: Length::of(to) }]
            }
            Kind::Pageout => {
                let one = ProcRef::Slot(self.proc());
                vec![O::Pageout(if self.lot.chance(50) { None } else { Some(one) })]
            }
            Kind::Digest => vec![O::Digest(ProcRef::Slot(self.proc()))],
            Kind::Err => self.mistake(),
            Kind::Remap => self.remap(),
            Kind::Pin => self.pin(),
            Kind::Loan => self.loan(),
            Kind::LoanAnon => self.loan_to_anons(),
            Kind::Share => self.share(),
            Kind::Watch => self.watch(),
            Kind::Retire => self.retire(),
            Kind::Squeeze => self.squeeze(),
            Kind::Swap => self.swap(),
        }
    }

    fn map(&mut self) -> Vec<Operation> {
        let proc = self.proc();
        let (start, n) = self.pages(true);
        let placement = self.lot.weighted(&[
            (Placement::Fixed, 84),
            (Placement::Hint, 14),
            (Placement::NoReplace, 2),
        ]);
        let mut share = self.lot.pick(&[Share::Private, Share::Private, Share::Shared]);
        let percent = match self.options.profile {
            Profile::File => 80,
            Profile::Sync => 60,
            Profile::Map => 35,
            Profile::Cow => 30,
            _ => 40,
        };
        let source = match self.some_file() {
            Some((file, size)) if self.lot.chance(percent) => {
                let page = self.lot.below(size.div_ceil(PAGE_BYTES) + 2);
                // What becomes of private copies of a file that is cut differs, so a portable
                // script keeps the files apart of which there are copies.
                if self.options.portable {
                    share = if file % 2 == 0 { Share::Private } else { Share::Shared };
                }
                Source::File(FileRef::Slot(file), Length::Pages(page, 0))
            }
            _ => Source::Anon,
        };
        let mut flags = MapFlags::default();
        // What a lock passed over is known by its place, which a move changes.
        let plain = matches!(self.options.profile, Profile::Remap | Profile::Held);
        if !plain && self.lot.chance(4) {
            let which = self.lot.below(3);
            flags.noreserve = which == 0;
            flags.populate = which == 1;
            flags.locked = which == 2;
        }
        vec![Operation::Map(Map {
            proc: ProcRef::Slot(proc),
            addr: Addr::arena(start),
            len: Length::Pages(n, 0),
            prot: self.prot(),
            share,
            placement,
            source,
            flags,
        })]
    }

    /// A mapping that grows, shrinks or moves, in the arena and never past its end.
    fn remap(&mut self) -> Vec<Operation> {
        let proc = self.proc();
        let Range { addr, len, .. } = self.range(proc);
        let (AddrBase::Arena(start), Length::Pages(n, _)) = (addr.base, len) else {
            return Vec::new();
        };
        // One page is one mapping everywhere, so a real system can be asked.
        let had = if self.lot.chance(if self.options.portable { 70 } else { 30 }) { 1 } else { n };
        let flags = |may, fixed, dontunmap| RemapFlags { may, fixed, dontunmap };
        let flags = self.lot.weighted(&[
            (flags(false, false, false), 30),
            (flags(true, false, false), 25),
            (flags(true, true, false), 35),
            (flags(true, false, true), 3),
            (flags(true, true, true), 7),
        ]);
        let mut has = had;
        if !flags.dontunmap && !self.lot.chance(20) {
            has = self.lot.between(1, had + 5);
        }
        let to = self.pages(false).0.min(self.arena() - has.min(self.arena()));
        let has = has.min(self.arena() - start);
        let pages = |n| Length::Pages(n, 0);
        vec![Operation::Remap {
            range: Range { proc: ProcRef::Slot(proc), addr, len: pages(had) },
            new_len: pages(has),
            flags,
            to: flags.fixed.then(|| Addr::arena(to)),
        }]
    }

    fn fork(&mut self) -> Vec<Operation> {
        let free: Vec<u32> = (0..8).filter(|n| !self.model().processes().contains_key(n)).collect();
        if free.is_empty() {
            return vec![Operation::Exit(ProcRef::Slot(self.proc()))];
        }
        let (parent, child) = (self.proc(), self.lot.pick(&free));
        vec![Operation::Fork { parent: ProcRef::Slot(parent), child: ProcRef::Slot(child) }]
    }

    fn file(&mut self) -> Vec<Operation> {
        let slot = self.model().files().len() as u32;
        if slot >= 16 {
            return Vec::new();
        }
        let sizes = [
            0,
            self.lot.between(1, PAGE_BYTES),
            PAGE_BYTES,
            3 * PAGE_BYTES,
            self.lot.below(12 * PAGE_BYTES),
            8 * PAGE_BYTES,
        ];
        let size = self.lot.pick(&sizes);
        let mode = self.lot.weighted(&[
            (OpenMode::ReadWrite, 85),
            (OpenMode::ReadOnly, 12),
            (OpenMode::WriteOnly, 3),
        ]);
        vec![Operation::File { file: FileRef::Slot(slot), size, mode }]
    }

    fn on_file(&mut self, kind: Kind) -> Vec<Operation> {
        let Some((slot, size)) = self.some_file() else { return Vec::new() };
        let file = FileRef::Slot(slot);
        vec![match kind {
            Kind::Truncate => {
                let sizes = [
                    0,
                    size,
                    size + PAGE_BYTES,
                    self.lot.below(10) * PAGE_BYTES,
                    self.lot.below(12 * PAGE_BYTES),
                    size.saturating_sub(1),
                    size / 2,
                ];
                Operation::Truncate { file, size: self.lot.pick(&sizes) }
            }
            Kind::Pwrite => {
                let offsets = [0, self.lot.below(size + 1), self.lot.below(10) * PAGE_BYTES, size];
                let lengths = [1, self.lot.between(1, 400), PAGE_BYTES, 2 * PAGE_BYTES + 5];
                let (offset, len) = (self.lot.pick(&offsets), self.lot.pick(&lengths));
                Operation::Pwrite { file, offset, len, byte: self.byte() }
            }
            Kind::Pread => {
                let offset = self.lot.below(4 * PAGE_BYTES);
                Operation::Pread { file, offset, len: self.lot.between(1, 3000) }
            }
            _ if self.lot.chance(50) => Operation::Fclose(file),
            _ => return Vec::new(),
        }]
    }

    fn transfer(&mut self, kind: Kind) -> Vec<Operation> {
        let Some((slot, size)) = self.some_file() else { return Vec::new() };
        let onto_itself = self.options.portable && self.lot.chance(10);
        let transfer = match if onto_itself { self.page_onto_itself() } else { None } {
            Some(transfer) => transfer,
            None => {
                let offsets = [0, self.lot.below(size + 1), self.lot.below(8) * PAGE_BYTES];
                let offset = self.lot.pick(&offsets);
                Transfer { file: FileRef::Slot(slot), offset, memory: self.bytes() }
            }
        };
        vec![match kind {
            Kind::Fread => Operation::Fread(transfer),
            _ => Operation::Fwrite(transfer),
        }]
    }

    /// A page of a file copied onto itself, through a shared mapping of it.
    fn page_onto_itself(&mut self) -> Option<Transfer> {
        let proc = self.proc();
        let model = self.model();
        let found = self.process_pages(proc).find_map(|(n, page)| {
            let Backing::Object { object, index } = page.backing else { return None };
            let whole = (index + 1) * PAGE_BYTES <= model.objects()[object].size();
            let (slot, _) = model.files().iter().find(|(_, f)| f.object == object)?;
            (page.shared && whole).then_some((n, *slot, index))
        });
        let (n, slot, index) = found?;
        let range =
            Range { proc: ProcRef::Slot(proc), addr: self.addr_of(n), len: Length::Pages(1, 0) };
        let memory = AccessRange { range, cpu: self.cpu() };
        Some(Transfer { file: FileRef::Slot(slot), offset: index * PAGE_BYTES, memory })
    }

    fn sync(&mut self) -> Vec<Operation> {
        let flags = |sync, asynchronous, invalidate| SyncFlags {
            sync,
            asynchronous,
            invalidate,
            bad: false,
        };
        let choices = [
            flags(true, false, false),
            flags(true, false, false),
            flags(false, true, false),
            flags(true, false, true),
            flags(false, true, true),
            flags(false, false, false),
        ];
        vec![Operation::Sync(self.any_range(), self.lot.pick(&choices))]
    }

    /// `advise free`, and at once a store over all of it.
    fn free(&mut self) -> Vec<Operation> {
        let proc = self.proc();
        let good = |page: &Page| page.is_private_anon() && !page.locked && page.write;
        let watched = |n: u64| self.model().is_watched_page(proc, n);
        let pages: Vec<u64> = self
            .process_pages(proc)
            .filter(|(n, p)| good(p) && !watched(*n))
            .map(|(n, _)| n)
            .collect();
        if pages.is_empty() {
            return Vec::new();
        }
        let first = self.lot.pick(&pages);
        let n = (1..6).take_while(|i| pages.contains(&(first + i))).count() as u64 + 1;
        let range = Range {
            proc: ProcRef::Slot(proc),
            addr: self.addr_of(first),
            len: Length::Pages(n, 0),
        };
        let over = AccessRange { range: range.clone(), cpu: self.cpu() };
        let advice = match self.options.portable {
            true => Advice::Free,
            false => self.lot.pick(&[Advice::Free, Advice::Purge, Advice::Drop]),
        };
        vec![Operation::Advise(range, advice), Operation::Write(over, self.byte())]
    }

    fn lock_all(&mut self) -> Vec<Operation> {
        let proc = ProcRef::Slot(self.proc());
        let unlock = Operation::UnlockAll(proc.clone());
        if self.lot.chance(40) {
            return vec![unlock];
        }
        let what = self.lot.pick(&[LockAll::Current, LockAll::Both]);
        vec![Operation::LockAll(proc, what), unlock]
    }

    /// One wrong argument at a time.
    fn mistake(&mut self) -> Vec<Operation> {
        let range = self.any_range();
        let Range { proc, addr, .. } = range.clone();
        let pages = self.lot.between(1, 5);
        let a = addr.to_string();
        let k = pages.to_string();
        let f = self.some_file().map_or_else(|| "15".into(), |(f, _)| f.to_string());
        let line = self.lot.pick(MISTAKES);
        let line = line
            .replace("{p}", &proc.to_string())
            .replace("{a}", &a)
            .replace("{k}", &k)
            .replace("{f}", &f);
        let script = super::parse::parse(&line).expect("every line of the table parses");
        script.statements.into_iter().map(|s| s.operation).collect()
    }
}
