//! The `segvm` command: a tour of one program's memory, scripts, and a shell.
//!
//! ```text
//!   segvm                 the tour of its own executable
//!   segvm tour [ELF]      watch a program become an address space, fault, fork, be paged out and come back
//!   segvm run FILE|-      run a script (docs/script.md)
//!   segvm shell           the same language, line by line
//!   segvm sizes           bytes of metadata per page and per segment, counted
//! ```
//!
//! Status 0: all went well. 1: something is not as expected (an expectation, an invariant, a check of the
//! tour). 2: the script or the command line is wrong, or a file cannot be read or written.
//!
//! Everything about command lines, terminals and the host's streams lives in this directory and nowhere
//! else; what is shown comes from the library.

#![forbid(unsafe_code)]

mod diagnose;
mod executor;
mod output;
mod progress;
mod run;
mod shell;
mod sizes;
mod tour;

use std::process::ExitCode;

use clap::{ColorChoice, Parser, Subcommand};

/// The illumos virtual memory system, to be watched and scripted.
#[derive(Debug, Parser)]
#[command(name = "segvm", version)]
struct Cli {
    /// Without one it is the tour
    #[command(subcommand)]
    command: Option<Command>,
    /// Colours: on a terminal, always or never; NO_COLOR turns them off as well
    #[arg(long, global = true, value_name = "WHEN", default_value_t = ColorChoice::Auto)]
    color: ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Command {
    Tour(tour::Args),
    Run(run::Args),
    Shell(shell::Args),
    Sizes(sizes::Args),
}

/// Something is not as expected.
const STATUS_FAILED: u8 = 1;

/// The script, the command line or the host is to blame.
const STATUS_WRONG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.command {
        None => tour::tour(&tour::Args::default(), cli.color),
        Some(Command::Tour(args)) => tour::tour(&args, cli.color),
        Some(Command::Run(args)) => run::run(&args, cli.color),
        Some(Command::Shell(args)) => shell::shell(&args, cli.color),
        Some(Command::Sizes(args)) => sizes::sizes(&args, cli.color),
    };
    done.unwrap_or_else(|error| {
        output::complain(&format!("segvm: {error:#}"));
        ExitCode::from(STATUS_WRONG)
    })
}
