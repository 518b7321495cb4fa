//! `segvm shell`: the script language, line by line.
//!
//! A line may hold several statements. A mistake is shown where it is and the session goes on; what the
//! line said before it has been done, what it says after it has not. The machine is made when the first
//! statement needs one, so `machine` and `arena` may come first, as in a script.

mod help;
mod prompt;

use std::io::{self, IsTerminal};
use std::ops::ControlFlow;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::ColorChoice;
use segvm::script::{
    Event, Operation, Parser, RunOptions, Runner, Script, Sink, Span, Statement, World,
};

use self::prompt::{Input, Known, Line};
use crate::diagnose::Source;
use crate::executor::{self, Executor};
use crate::output::{JsonLines, Out, Paint, Plain, complain};

/// The same language line by line, with history and completion
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON: one line per operation and per view
    #[arg(long)]
    json: bool,
    /// Check every invariant of the machine after each operation
    #[arg(long)]
    verify: bool,
    /// Keep no history of this session
    #[arg(long)]
    no_history: bool,
}

/// Runs the command.
pub(crate) fn shell(args: &Args, color: ColorChoice) -> Result<ExitCode> {
    let terminal = io::stdin().is_terminal();
    let mut session = Session {
        parser: Parser::new(),
        options: RunOptions {
            verify_each: args.verify,
            json_views: args.json,
            ..RunOptions::default()
        },
        json: args.json,
        settings: Vec::new(),
        runner: None,
        name: if terminal { "shell" } else { "<stdin>" },
        number: 0,
        out: Out::new(color),
        errors: Paint::choose(color, &io::stderr()),
    };
    let paint = session.out.paint();
    let mut input = if terminal { Input::terminal(!args.no_history, paint)? } else { Input::Piped };
    if terminal {
        session.out.line("segvm shell: `help` lists the statements, Tab completes, `quit` leaves.");
    }
    while !session.out.is_gone() {
        session.out.flush();
        let line = match input.line(session.known()).context("cannot read the next line")? {
            Line::Text(line) => line,
            Line::Interrupted => continue,
            Line::End => break,
        };
        if session.line(&line).is_break() {
            break;
        }
    }
    input.close();
    session.out.finish().context("cannot write the result")?;
    Ok(ExitCode::SUCCESS)
}

struct Session {
    parser: Parser,
    options: RunOptions,
    json: bool,
    /// What came before the machine was made.
    settings: Vec<Statement>,
    runner: Option<Runner<Executor>>,
    name: &'static str,
    number: u32,
    out: Out,
    errors: Paint,
}

impl Session {
    /// Does what a line says.
    fn line(&mut self, text: &str) -> ControlFlow<()> {
        self.number += 1;
        let mut words = text.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (None | Some("quit"), None, _) | (Some("exit"), None, _) => {
                return if text.trim().is_empty() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                };
            }
            (Some("help" | "?"), about, None) => {
                let text = help::text(about, self.out.paint());
                self.out.put(&text);
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        match self.parser.feed(text, self.number) {
            Err(e) => self.mistake(text, e.span, &e.problem.to_string()),
            Ok(statements) => {
                for statement in statements {
                    if let Err((span, message)) = self.statement(statement) {
                        self.mistake(text, span, &message);
                        break;
                    }
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn statement(&mut self, statement: Statement) -> Result<(), (Span, String)> {
        let setting = matches!(
            statement.operation,
            Operation::Header | Operation::Machine(_) | Operation::Arena(_)
        );
        if setting {
            self.settings.push(statement);
            return Ok(());
        }
        if self.runner.is_none() {
            self.start(statement.span())?;
        }
        let Some(runner) = &mut self.runner else { return Ok(()) };
        step(runner, &statement, self.json, &mut self.out)
    }

    /// Makes the machine that was asked for.
    fn start(&mut self, span: Span) -> Result<(), (Span, String)> {
        let script = Script { statements: std::mem::take(&mut self.settings) };
        let world = executor::build(&script.machine()).map_err(|e| {
            // Settings may be given again.
            self.parser = Parser::new();
            (span, format!("no such machine: {e:#}"))
        })?;
        let mut runner = Runner::new(world, self.options.clone());
        for statement in &script.statements {
            step(&mut runner, statement, self.json, &mut self.out)?;
        }
        runner.watch_all();
        self.runner = Some(runner);
        Ok(())
    }

    fn mistake(&mut self, text: &str, span: Span, message: &str) {
        self.out.flush();
        let source = Source { name: self.name, text, first_line: self.number };
        complain(&source.mistake(span, message, self.errors));
    }

    /// What completion needs to know.
    fn known(&self) -> Known<'_> {
        let world = self.runner.as_ref().map(Runner::world);
        Known { parser: &self.parser, counters: world.map(World::counters).unwrap_or_default() }
    }
}

fn step(
    runner: &mut Runner<Executor>,
    statement: &Statement,
    json: bool,
    out: &mut Out,
) -> Result<(), (Span, String)> {
    let mut sink = |event: Event<'_>| match json {
        true => JsonLines(out).event(event),
        false => Plain(out).event(event),
    };
    match runner.step(statement, &mut sink) {
        Ok(_) => Ok(()),
        Err(e) => Err((e.span, e.problem.to_string())),
    }
}
