//! `segvm run`: a script from a file or from standard input.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ColorChoice;
use segvm::script::{
    Event, Operation, ResultText, RunOptions, RunProblem, Runner, Script, Sink, parse,
};

use crate::diagnose::{Source, place_of};
use crate::output::{JsonLines, Out, Paint, Plain, complain};
use crate::{STATUS_FAILED, STATUS_WRONG, executor};

/// Run a script: one line per operation with what it answered, and the views it asks for
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The script; `-` is standard input
    file: PathBuf,
    /// Print exactly the result format of the trace language (docs/script.md, section 4)
    #[arg(long)]
    result: bool,
    /// Check every invariant of the machine after each operation
    #[arg(long)]
    verify: bool,
    /// Print JSON: one line per operation and per view; with --result, views alone are JSON
    #[arg(long)]
    json: bool,
    /// Go on after an expectation that fails, and report all of them
    #[arg(long)]
    keep_going: bool,
}

/// Runs the command.
pub(crate) fn run(args: &Args, color: ColorChoice) -> Result<ExitCode> {
    let (name, bytes) = read(args)?;
    let paint = Paint::choose(color, &io::stderr());
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(e) => {
            let text = String::from_utf8_lossy(&bytes);
            let source = Source { name: &name, text: &text, first_line: 1 };
            let place = place_of(&bytes, e.valid_up_to());
            complain(&source.mistake(place, "this is not UTF-8", paint));
            return Ok(ExitCode::from(STATUS_WRONG));
        }
    };
    let source = Source { name: &name, text, first_line: 1 };
    match parse(text) {
        Ok(script) => execute(args, color, paint, source, &script),
        Err(e) => {
            complain(&source.mistake(e.span, &e.problem.to_string(), paint));
            Ok(ExitCode::from(STATUS_WRONG))
        }
    }
}

/// The script's name in messages, and its bytes.
fn read(args: &Args) -> Result<(String, Vec<u8>)> {
    if args.file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
        return Ok(("<stdin>".into(), bytes));
    }
    let name = args.file.display().to_string();
    let bytes = std::fs::read(&args.file).with_context(|| format!("cannot read {name}"))?;
    Ok((name, bytes))
}

fn execute(
    args: &Args,
    color: ColorChoice,
    paint: Paint,
    source: Source<'_>,
    script: &Script,
) -> Result<ExitCode> {
    let world = match executor::build(&script.machine()) {
        Ok(world) => world,
        Err(e) => {
            let machine = script.statements.iter();
            let machine = machine.filter(|s| matches!(s.operation, Operation::Machine(_)));
            let span = machine.map(|s| s.span()).next().unwrap_or_default();
            complain(&source.mistake(span, &format!("no such machine: {e:#}"), paint));
            return Ok(ExitCode::from(STATUS_WRONG));
        }
    };
    let options = RunOptions {
        file: Some(source.name.to_owned()),
        verify_each: args.verify,
        json_views: args.json,
        keep_going: args.keep_going,
        ..RunOptions::default()
    };
    let mut runner = Runner::new(world, options);
    let mut out = Out::new(color);
    out.watch(script.operations().filter(|o| o.has_outcome()).count() as u64, "operations");
    let mut sink = |event: Event<'_>| {
        let counts = matches!(event, Event::Outcome { .. });
        match (args.result, args.json) {
            (true, _) => ResultText(&mut out).event(event),
            (false, true) => JsonLines(&mut out).event(event),
            (false, false) => Plain(&mut out).event(event),
        }?;
        if counts {
            out.tick();
        }
        Ok(())
    };
    let failures = match args.result {
        true => runner.run(script, &mut sink).map(|report| report.failures),
        false => runner.run_statements(&script.statements, &mut sink),
    };
    out.finish().context("cannot write the result")?;
    let failures = failures.unwrap_or_else(|e| vec![e]);
    for e in &failures {
        complain(&source.mistake(e.span, &e.problem.to_string(), paint));
    }
    let status = failures.iter().map(|e| status(&e.problem)).max().unwrap_or(0);
    Ok(ExitCode::from(status))
}

/// The exit status for what went wrong.
pub(crate) fn status(problem: &RunProblem) -> u8 {
    match problem {
        RunProblem::Expectation { .. } | RunProblem::Verify(_) => STATUS_FAILED,
        _ => STATUS_WRONG,
    }
}
