//! `cargo bench`: the library beside its references, in one process and one run.
//!
//! One table comes out: goal, our figure, the reference's, the ratio with its quartiles, the gates, the verdict. How
//! the figures are taken is the subject of [`harness`]; nothing here fails a build by the clock.
//!
//! ```text
//! cargo bench                          everything, nine repetitions
//! cargo bench -- --row 15              one goal (1 means 1a and 1b)
//! cargo bench -- --quick               three repetitions, smaller sizes: a look, not a measurement
//! cargo bench -- --json figures.json   the same as a document, raw samples included
//! cargo bench -- --list                the goals
//! ```
//!
//! `SEGVM_AVL_C=/path/to/library.so` adds a C tree to the index rows; [`avl_c`] says what the library must export.

mod alloc;
mod avl_c;
mod avl_pointer;
mod calibrate;
mod harness;
mod index;
mod linux;
mod linux_fork;
mod our_memory;
mod our_pages;
mod our_world;
mod peers;
mod row_both;
mod row_cold;
mod row_cow;
mod row_faults;
mod row_fork;
mod row_fork_large;
mod row_growth;
mod row_hash;
mod row_hat;
mod row_incore;
mod row_index;
mod row_mapping;
mod row_pairs;
mod row_protect;
mod row_read;
mod row_sizes;
mod row_soft;
mod row_spaces;
mod row_threads;
mod table;
mod tables;
mod windows;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use calibrate::Calibration;
use harness::{Config, Goal, Group, GroupSpec, Samples};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Every group, in the order of its first goal.
const GROUPS: &[GroupSpec] = &[
    row_faults::SPEC,
    row_cold::SPEC,
    row_mapping::SPEC,
    row_cow::SPEC,
    row_soft::SPEC,
    row_read::SPEC,
    row_fork::SPEC,
    row_fork_large::SPEC,
    row_spaces::SPEC,
    row_growth::SPEC,
    row_index::SPEC,
    row_protect::SPEC,
    row_hash::SPEC,
    row_pairs::SPEC,
    row_threads::SPEC,
    row_both::SPEC,
    row_hat::SPEC,
    row_incore::SPEC,
    row_sizes::SPEC,
];

/// What the command line asks for.
#[derive(Debug, Default)]
struct Options {
    rows: Vec<String>,
    json: Option<PathBuf>,
    repetitions: Option<usize>,
    quick: bool,
    list: bool,
    test: bool,
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = |what: &str| words.next().ok_or(format!("{word} needs {what}"));
        match word.as_str() {
            "--row" => options.rows.push(value("the number of a goal")?),
            "--json" => options.json = Some(value("a file")?.into()),
            "--repetitions" => {
                let text = value("a number")?;
                let count = text
                    .parse()
                    .ok()
                    .filter(|&n| n > 0)
                    .ok_or(format!("{text:?} is not a number of repetitions"))?;
                options.repetitions = Some(count);
            }
            "--quick" => options.quick = true,
            "--list" => options.list = true,
            "--test" => options.test = true,
            "--bench" => {}
            other => eprintln!("ignoring {other:?}"),
        }
    }
    Ok(options)
}

/// Whether `--row wanted` means `row`: 1 means 1a and 1b, and 11a means 11a.1k, but 1 does not mean 10.
fn means(wanted: &str, row: &str) -> bool {
    row.strip_prefix(wanted).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The number a row's name begins with.
fn number(row: &str) -> u32 {
    row.chars().map_while(|c| c.to_digit(10)).fold(0, |number, digit| 10 * number + digit)
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let chosen = |goal: &Goal| {
        options.rows.is_empty() || options.rows.iter().any(|wanted| means(wanted, goal.row))
    };
    let groups: Vec<&GroupSpec> =
        GROUPS.iter().filter(|group| group.goals.iter().any(chosen)).collect();
    let mut goals: Vec<&'static Goal> =
        groups.iter().flat_map(|group| group.goals).filter(|goal| chosen(goal)).collect();
    goals.sort_by_key(|goal| number(goal.row));
    if goals.is_empty() {
        eprintln!("no goal is called {}; --list shows them", options.rows.join(" or "));
        return ExitCode::from(2);
    }
    if options.list {
        goals.iter().for_each(|goal| println!("{:<4} {} / {}", goal.row, goal.name, goal.against));
        return ExitCode::SUCCESS;
    }
    if options.test || cfg!(debug_assertions) {
        println!("{} goals known; measuring needs `cargo bench`", goals.len());
        return ExitCode::SUCCESS;
    }
    match run(&options, &groups, &goals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options, specs: &[&GroupSpec], goals: &[&'static Goal]) -> Result<(), String> {
    let cpus = linux::allowed_cpus();
    let repetitions = options.repetitions.unwrap_or(if options.quick { 3 } else { 9 });
    let config = Config { repetitions, quick: options.quick, cpus };
    let environment = linux::Environment::read(config.cpus.len());
    if !linux::without_huge_pages() {
        eprintln!("huge pages could not be switched off: Linux rows are not comparable");
    }
    linux::pin_thread(config.cpus[0]);

    let mut samples = Samples::default();
    let mut groups: Vec<Box<dyn Group>> = vec![Box::new(Calibration::new(&config)?)];
    for spec in specs {
        progress(&format!("preparing {}", spec.goals[0].row));
        match (spec.build)(&config) {
            Ok(group) => groups.push(group),
            Err(why) => spec.goals.iter().for_each(|goal| samples.lacks(goal.ours, why.clone())),
        }
    }
    for repetition in 1..=config.repetitions {
        progress(&format!("repetition {repetition} of {}", config.repetitions));
        samples.next_repetition();
        for group in &mut groups {
            group.measure(&config, &mut samples);
        }
    }
    progress("");

    let stolen = linux::steal_seconds() - environment.steal_seconds;
    let outcomes: Vec<_> = goals.iter().map(|goal| table::Outcome::of(goal, &samples)).collect();
    let also: Vec<_> = specs.iter().flat_map(|spec| spec.also).chain(calibrate::ALSO).collect();
    print!("{}", table::text(&outcomes, &also, &samples, &environment, stolen));
    if let Some(file) = &options.json {
        let document = table::json(&outcomes, &also, &samples, &environment, stolen);
        std::fs::write(file, format!("{document:#}\n"))
            .map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

/// One line on a terminal that the next one replaces; nothing elsewhere.
fn progress(text: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        _ = write!(out, "\r\x1b[K{text}");
        _ = out.flush();
    }
}
