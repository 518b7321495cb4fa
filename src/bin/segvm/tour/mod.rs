//! `segvm tour`: one program's memory, from exec to its last page, in the textbook's terms.
//!
//! ```text
//!   program.rs   boot, the kernel, exec, the first fault, one page of two processes, the first stores
//!   anon.rs      heap, stack, fork, stores on both sides, the page seen from below
//!   memory.rs    a file seen two ways, segments cut, memory short, bytes back, the end
//! ```
//!
//! Every step says what the book calls it, does something, shows a little of what it did, and checks it.
//! The same program gives the same text on every machine, every time.

mod anon;
mod builtin;
mod memory;
mod program;
mod stage;
mod subject;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::ColorChoice;
use segvm::files::{ElfImage, File};
use segvm::machine::MachineWorld;
use segvm::script::ast::{Amount, MachineSettings, SwapBacking, SwapSpec};

use self::stage::Stage;
use self::subject::{Bytes, Subject};
use crate::output::Out;
use crate::{STATUS_FAILED, executor};

/// Watch a program become an address space, fault, fork, copy on write, be paged out and come back
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// An ELF program for x86-64; this command's own executable by default
    elf: Option<PathBuf>,
    /// Take a small program that is built in, whose every address is known
    #[arg(long, conflicts_with = "elf")]
    elf_builtin: bool,
    /// Print JSON: one line per step, operation, view and check
    #[arg(long)]
    json: bool,
}

/// Frames of the tour's machine: 16 MB.
const FRAMES: u64 = 4096;

/// Pages of its swap area: room for the writable part of any ordinary program, twice.
const SWAP_PAGES: u64 = 65536;

/// Steps there are.
const STEPS: u64 = 17;

/// A process of the tour.
pub(super) const PROGRAM: &str = "prog";

/// Runs the command.
pub(crate) fn tour(args: &Args, color: ColorChoice) -> Result<ExitCode> {
    let settings = MachineSettings {
        memory: Some(Amount::Frames(FRAMES)),
        cpus: Some(2),
        swap: vec![SwapSpec { backing: SwapBacking::Memory, pages: SWAP_PAGES, priority: None }],
        ..MachineSettings::default()
    };
    let world = executor::build(&settings).context("the machine cannot be switched on")?;
    let path = match (&args.elf, args.elf_builtin) {
        (_, true) => None,
        (Some(path), _) => Some(path.clone()),
        (None, _) => Some(std::env::current_exe().context("this command's own file is not known")?),
    };
    // A file that is no program is found out before the tour begins.
    if let Some(path) = &path {
        read_headers(&world, path)?;
    }
    let mut out = Out::new(color);
    out.watch(STEPS, "steps");
    let mut stage = Stage::new(world, args.json, &mut out);
    let done = steps(&mut stage, path);
    let failures = stage.end();
    out.finish().context("cannot write")?;
    done?;
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::from(STATUS_FAILED) })
}

/// Reads a program's headers, on a vnode that is thrown away.
fn read_headers(world: &MachineWorld, path: &Path) -> Result<()> {
    Bytes::open(path)?;
    let machine = world.machine();
    let file = machine.open_host_file(path, false)?;
    let image = ElfImage::read(machine.cx(), machine.db(), &file);
    machine.remove_file(file);
    image.map(drop)?;
    Ok(())
}

fn steps(stage: &mut Stage<'_>, path: Option<PathBuf>) -> Result<()> {
    let all: [fn(&mut Stage<'_>, &Subject) -> Result<()>; 14] = [
        program::exec,
        program::first_fault,
        program::tables,
        program::shared_text,
        program::relocation,
        anon::heap,
        anon::stack,
        anon::fork,
        anon::both_sides,
        anon::from_below,
        memory::file_two_ways,
        memory::cutting,
        memory::short,
        memory::back,
    ];
    let boot = program::boot(stage)?;
    program::kernel(stage)?;
    let subject = program::open(stage, path)?;
    for step in all {
        if !stage.is_watched() {
            return Ok(());
        }
        step(stage, &subject)?;
    }
    memory::end(stage, &boot)
}

/// The program behind `$exe`, once the world has it.
fn subject_of(stage: &Stage<'_>, bytes: Bytes, file: &Arc<File>) -> Result<Subject> {
    let machine = stage.world().machine();
    Subject::new(bytes, ElfImage::read(machine.cx(), machine.db(), file)?)
}
