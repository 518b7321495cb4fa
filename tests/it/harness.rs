//! Running a script on a machine, and looking at the machine between two pieces of it.
//!
//! Three ways to make a test, from the shortest:
//!
//! - [`run_ok`]: the script's own `expect` lines say it all.
//! - [`check`]: the same, and what it prints is compared with a stored snapshot.
//! - [`Scene`]: pieces of script with questions in between that no view answers in one word; [`Scene::story`] is a table of them.
//!
//! In all of them every invariant is checked after every statement, and at the end every process exits and nothing may be left.

use addr_space::{Seg, UnloadFlags};
use page_db::{FileOffset, Identity, PAGE_SIZE, PageId, PageState, Pfn, VirtAddr, Vnode, VnodeId};
use seg_drivers::seg_vn::SegVn;
use segvm::files::File;
use segvm::machine::{ARENA, Machine, MachineWorld, Process};
use segvm::script::ast::MachineSettings;
use segvm::script::{FileSlot, Parser, PlainText, ProcSlot, RunOptions, Runner, Script, parse};
use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A machine that pieces of script drive.
pub(crate) struct Scene {
    runner: Runner<MachineWorld>,
    parser: Parser,
    line: u32,
    /// Anons by number, named in the order in which they were first seen.
    letters: BTreeMap<u32, char>,
}

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Anon {
    pub(crate) number: u32,
    pub(crate) refs: u32,
    /// The frame of its page, if that is resident.
    pub(crate) frame: Option<u64>,
    /// Whether it has a place on a swap device.
    pub(crate) on_swap: bool,
}

/// What the lines of a story may count, and how they call it.
const COUNTED: &[(&str, &str)] = &[
    ("as_fault", "f"),
    ("case_1a", "1A"),
    ("case_1b", "1B"),
    ("case_2a", "2A"),
    ("case_2b", "2B"),
    ("zfod", "zf"),
    ("cow_fault", "cp"),
    ("fault_ahead", "ahead"),
    ("maj_fault", "maj"),
];

impl Scene {
    /// A machine as `settings` (the words of `machine` statements) ask for it.
    #[track_caller]
    pub(crate) fn on(settings: &str) -> Self {
        let mut parser = Parser::new();
        let settings =
            parser.feed(settings, 1).unwrap_or_else(|e| panic!("the settings are wrong: {e}"));
        Self::with(&Script { statements: settings }.machine(), parser)
    }
    #[track_caller]
    fn with(settings: &MachineSettings, parser: Parser) -> Self {
        let world =
            MachineWorld::new(settings).unwrap_or_else(|e| panic!("the machine is refused: {e}"));
        let options = RunOptions { verify_each: true, ..RunOptions::default() };
        Self { runner: Runner::new(world, options), parser, line: 1, letters: BTreeMap::new() }
    }
    #[track_caller]
    pub(crate) fn new() -> Self {
        Self::on("machine memory=512")
    }
    /// Takes `n` frames out of memory for a device.
    #[track_caller]
    pub(crate) fn device_frames(&mut self, n: usize) -> Vec<Pfn> {
        let db = Arc::clone(self.machine().db());
        let kernel = || {
            let is = |p: &PageId| db.page(*p).state().contains(PageState::KERNEL);
            db.pages().ids().filter(is).collect::<Vec<_>>()
        };
        let before = kernel();
        self.run(&format!("squeeze {n}; expect ok n={n}"));
        let taken: Vec<_> = kernel().into_iter().filter(|p| !before.contains(p)).collect();
        assert_eq!(taken.len(), n);
        let cx = self.machine().cx();
        taken.iter().for_each(|p| db.set_device(&db.lock_excl(cx, *p), true));
        taken.iter().map(|p| db.pfn(*p)).collect()
    }
    /// Runs the next piece; returns what it prints, or the error.
    fn try_run(&mut self, piece: &str) -> Result<String, String> {
        let statements =
            self.parser.feed(piece, self.line).map_err(|e| format!("the script is wrong: {e}"))?;
        self.line += piece.lines().count().max(1) as u32;
        let mut text = String::new();
        let done = self.runner.run_statements(&statements, &mut PlainText(&mut text));
        let world = self.runner.world();
        assert!(world.machine().cx().held().is_empty(), "I15: no lock is held on return");
        done.map(|_| text.clone()).map_err(|e| format!("{text}{e}"))
    }
    /// Runs the next piece, which must succeed; returns what it prints.
    #[track_caller]
    pub(crate) fn run(&mut self, piece: &str) -> String {
        self.try_run(piece).unwrap_or_else(|e| panic!("{e}\n--- script\n{piece}"))
    }
    pub(crate) fn machine(&self) -> &Machine {
        self.runner.world().machine()
    }
    /// A counter by its kstat name.
    #[track_caller]
    pub(crate) fn count(&self, name: &str) -> u64 {
        use segvm::script::World as _;
        self.runner.world().counter(name).unwrap_or_else(|| panic!("no counter {name}"))
    }
    fn counts(&self) -> Vec<u64> {
        COUNTED.iter().map(|(name, _)| self.count(name)).collect()
    }

    fn in_seg<R>(
        &self,
        proc: u32,
        page: u64,
        look: impl FnOnce(Seg<'_>, VirtAddr) -> Option<R>,
    ) -> Option<R> {
        let process = self.runner.world().process(ProcSlot(proc))?;
        let (space, cx) = (process.space(), self.machine().cx());
        let segs = space.segs(cx);
        look(segs.seg_at(cx, addr(page))?, addr(page))
    }
    /// What the slot of a page holds.
    pub(crate) fn anon(&self, proc: u32, page: u64) -> Option<Anon> {
        let (cx, layer) = (self.machine().cx(), self.machine().anon());
        let n = self.in_seg(proc, page, |seg, at| {
            let ops: &dyn Any = seg.ops();
            let vn = ops.downcast_ref::<SegVn>()?;
            vn.amap()?.peek(vn.slot_of(seg.range(), at))
        })?;
        let resident = layer.db().exists(cx, layer.swap().identity(n));
        Some(Anon {
            number: n.get(),
            refs: layer.anons().refs(n),
            frame: resident.map(|p| layer.db().pfn(p).0),
            on_swap: layer.swap().slot(cx, n).is_some(),
        })
    }
    /// The anon map of a page's segment as `number:references`, with a `!` when it is to be copied before anything is added to it; `-` for none.
    #[allow(dead_code, reason = "for the target of the behaviours, which has this module too")]
    pub(crate) fn map_of(&self, proc: u32, page: u64) -> String {
        let found = self.in_seg(proc, page, |seg, _| {
            let ops: &dyn Any = seg.ops();
            let vn = ops.downcast_ref::<SegVn>()?;
            let map = vn.amap()?;
            let mark = if vn.needs_copy() { "!" } else { "" };
            Some(format!("{}:{}{mark}", map.id().0, map.refs()))
        });
        found.unwrap_or_else(|| "-".to_string())
    }
    /// The translation of a page: frame and effective rights.
    pub(crate) fn translation(&self, proc: u32, page: u64) -> Option<(u64, String)> {
        let process = self.runner.world().process(ProcSlot(proc))?;
        let found = process.space().hat().probe(self.machine().cx(), addr(page))?;
        Some((found.pfn.0, found.prot.to_string()))
    }
    /// The frame a page is mapped to.
    pub(crate) fn frame(&self, proc: u32, page: u64) -> Option<u64> {
        self.translation(proc, page).map(|(pfn, _)| pfn)
    }
    /// The rights a page is mapped with, `-` for none.
    pub(crate) fn rights(&self, proc: u32, page: u64) -> String {
        self.translation(proc, page).map_or_else(|| "-".to_string(), |(_, rights)| rights)
    }
    #[track_caller]
    pub(crate) fn process(&self, proc: u32) -> &Process {
        self.runner.world().process(ProcSlot(proc)).expect("a process that lives")
    }
    #[track_caller]
    pub(crate) fn file_vnode(&self, file: u32) -> VnodeId {
        self.file(file).id()
    }
    #[track_caller]
    pub(crate) fn file(&self, file: u32) -> &File {
        &self.runner.world().file_in(FileSlot(file)).expect("the file was made").vnode
    }
    /// How many hold a file.
    #[allow(dead_code, reason = "for the target of the behaviours, which has this module too")]
    #[track_caller]
    pub(crate) fn file_holders(&self, file: u32) -> usize {
        let handle = self.runner.world().file_in(FileSlot(file)).expect("the file was made");
        std::sync::Arc::strong_count(&handle.vnode)
    }
    /// Takes every translation of user memory away, as the hat may do at any time (T2).
    pub(crate) fn forget_translations(&mut self) {
        let cx = self.machine().cx();
        for (_, space) in self.machine().spaces().into_iter().filter(|(pid, _)| pid.is_some()) {
            space.hat().unload(cx, space.limits(), UnloadFlags::empty());
        }
        self.run("verify");
    }
    /// The frame of a file's page, if it is in memory.
    #[track_caller]
    pub(crate) fn file_frame(&self, file: u32, page: u64) -> Option<u64> {
        let id = Identity::new(self.file_vnode(file), FileOffset(page * PAGE_SIZE));
        let db = self.machine().db();
        db.exists(self.machine().cx(), id).map(|p| db.pfn(p).0)
    }
    /// The page structure behind a frame.
    #[track_caller]
    pub(crate) fn page(&self, frame: u64) -> PageId {
        self.machine().db().page_of(page_db::Pfn(frame)).expect("a frame of this machine")
    }
    /// Who maps a frame: process and page, in order.
    pub(crate) fn mappers(&self, frame: u64) -> Vec<(u32, u64)> {
        let world = self.runner.world();
        let hats: BTreeMap<u32, u32> = self
            .runner
            .live()
            .into_iter()
            .filter_map(|slot| Some((world.process(slot)?.space().hat().id(), slot.0)))
            .collect();
        let list = self.machine().hat().mappings_of(self.machine().cx(), self.page(frame));
        let mut all: Vec<_> = list
            .into_iter()
            .map(|(hat, va, _)| (hats[&hat], (va.get() - ARENA) / PAGE_SIZE))
            .collect();
        all.sort_unstable();
        all
    }

    /// The state of the first `pages` pages of every process in one line: `0[a:2/r-- .]`. Per page, the anon (`.` for an empty slot) with its
    /// references, and the rights of its translation. A page of the lower layer that is mapped has no anon: `file/r--`.
    pub(crate) fn state(&mut self, pages: u64) -> String {
        let procs: Vec<_> = self.runner.live();
        let of = |scene: &mut Self, proc: u32| {
            let cells: Vec<_> = (0..pages).map(|page| scene.cell(proc, page)).collect();
            format!("{proc}[{}]", cells.join(" "))
        };
        procs.into_iter().map(|p| of(self, p.0)).collect::<Vec<_>>().join(" ")
    }
    fn cell(&mut self, proc: u32, page: u64) -> String {
        let rights = self.rights(proc, page);
        match self.anon(proc, page) {
            None if rights == "-" => ".".to_string(),
            None => format!("file/{rights}"),
            Some(anon) => {
                let next = (b'a' + self.letters.len() as u8) as char;
                let letter = *self.letters.entry(anon.number).or_insert(next);
                format!("{letter}:{}/{rights}", anon.refs)
            }
        }
    }
    /// Runs a table, a step a line: what is done `|` the state of the first `pages` pages after it ([`Scene::state`]) `|` what was counted
    /// meanwhile (`f` faults, the cases `1A` to `2B`, `zf` zero-fills, `cp` copies, `ahead` neighbours, `maj` reads; what is 0 is left out).
    #[track_caller]
    pub(crate) fn story(&mut self, pages: u64, table: &str) {
        for line in table.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let mut columns = line.split('|').map(str::trim);
            let (Some(does), Some(state), Some(counted), None) =
                (columns.next(), columns.next(), columns.next(), columns.next())
            else {
                panic!("not three columns: {line}");
            };
            let before = self.counts();
            self.run(does);
            let deltas = self.counts().into_iter().zip(before).zip(COUNTED);
            let words = deltas.map(|((now, then), (_, short))| (short, now - then));
            let words: Vec<_> =
                words.filter(|(_, n)| *n != 0).map(|(short, n)| format!("{short}{n}")).collect();
            let (got, words) = (self.state(pages), words.join(" "));
            assert_eq!((got.as_str(), words.as_str()), (state, counted), "at: {line}");
        }
    }
    /// Ends the scene: every process exits, after which nothing anonymous may be left (law 3), nor any reservation.
    #[track_caller]
    pub(crate) fn end(mut self) {
        for slot in self.runner.live() {
            // Named processes have slots that the language has no word for.
            if slot.0 < 8 {
                self.run(&format!("exit {}", slot.0));
            }
        }
        if self.runner.live().is_empty() {
            let (swap, cx) = (self.machine().swap(), self.machine().cx());
            assert_eq!(swap.live(), 0, "law 3: no anon outlives the last process");
            assert_eq!(
                swap.info().reserved(),
                0,
                "law 3: no reservation outlives the last process"
            );
            assert!(self.machine().anon().maps().is_empty(), "law 3: no anon map is left");
            assert!(cx.held().is_empty(), "I15");
        }
    }
}

/// The address of a page of the arena.
pub(crate) fn addr(page: u64) -> VirtAddr {
    VirtAddr::new(ARENA + page * PAGE_SIZE).expect("the arena is canonical")
}

/// Runs a script with `verify()` after each statement and returns what it prints, or the error.
pub(crate) fn output(script: &str) -> Result<String, String> {
    let parsed = parse(script).map_err(|e| format!("the script is wrong: {e}"))?;
    let mut scene = Scene::with(&parsed.machine(), Parser::new());
    let text = scene.try_run(script)?;
    scene.end();
    Ok(text)
}

/// Runs a script that must succeed.
#[track_caller]
pub(crate) fn run_ok(script: &str) -> String {
    output(script).unwrap_or_else(|e| panic!("{e}\n--- script\n{script}"))
}

/// Runs a script and compares what it prints with the stored snapshot `name`. `what` says what to look at.
#[track_caller]
pub(crate) fn check(name: &str, what: &str, script: &str) {
    compare(name, what, &run_ok(script));
}

/// Compares text with the stored snapshot `name`.
#[track_caller]
pub(crate) fn compare(name: &str, what: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_description(what);
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_snapshot_path("snapshots");
    settings.bind(|| insta::assert_snapshot!(name.replace('/', "__"), text));
}
