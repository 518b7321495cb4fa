//! Where the tour plays: a machine, driven by statements that are shown as they are done.
//!
//! Each statement is printed with its answer, so that a reader can type it into `segvm shell`. A view is
//! cut to what the step is about, and says how much was left out. What a step claims is checked, and the
//! machine's invariants after it; a claim that does not hold is shown and makes the tour fail, and the
//! tour goes on.

use std::fmt;

use anyhow::{Context, Result, bail};
use segvm::Process;
use segvm::machine::MachineWorld;
use segvm::script::{Event, Operation, Outcome, Parser, RunOptions, Runner, World};
use serde_json::{Value, json};

use crate::output::{Out, Tone, one_line, tone_of};

/// How much of a view is shown.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep<'a> {
    /// All of it, if it is not too long.
    All,
    /// The first and the last lines, so many of each.
    Ends(usize, usize),
    /// The first so many lines (the heading), and those that hold one of these words.
    Lines(usize, &'a [String]),
}

/// Lines of a view that is shown whole.
const LONGEST: usize = 18;

/// Statements narrower than this are padded, so that their answers stand below each other.
const STATEMENT_WIDTH: usize = 44;

/// The machine, the output, and what has been claimed.
pub(super) struct Stage<'a> {
    runner: Runner<MachineWorld>,
    parser: Parser,
    out: &'a mut Out,
    json: bool,
    step: u32,
    checked: Vec<String>,
    claims: u32,
    failures: u32,
}

impl<'a> Stage<'a> {
    /// A machine that has just been switched on.
    pub(super) fn new(world: MachineWorld, json: bool, out: &'a mut Out) -> Self {
        let options = RunOptions { json_views: json, ..RunOptions::default() };
        Stage {
            runner: Runner::new(world, options),
            parser: Parser::new(),
            out,
            json,
            step: 0,
            checked: Vec::new(),
            claims: 0,
            failures: 0,
        }
    }

    /// Begins a step: its title, the book's concept in one sentence.
    pub(super) fn step(&mut self, title: &str, concept: &str) {
        self.end_step();
        self.step += 1;
        if self.json {
            let (step, book) = (self.step, concept.split_once(": ").map(|(book, _)| book));
            self.out.json(&json!({
                "event": "step", "step": step, "title": title, "concept": concept, "book": book,
            }));
            return;
        }
        let heading = format!("{}. {title}", self.step);
        let rule = "-".repeat(78usize.saturating_sub(heading.chars().count()).max(3));
        self.out.line("");
        self.out.toned(Tone::Heading, &format!("{heading} {rule}"));
        for line in wrap(concept, 80) {
            self.out.line(&line);
        }
        self.out.line("");
    }

    /// Does statements, one after another; the last one's answer. One that is not done is a failure.
    ///
    /// # Errors
    /// A mistake in the statements, which are the tour's own.
    pub(super) fn run(&mut self, text: &str) -> Result<Outcome> {
        let outcome = self.attempt(text)?;
        if !outcome.is_ok() {
            self.check(format!("`{text}` is done"), false);
        }
        Ok(outcome)
    }

    /// The same for a statement that need not succeed.
    ///
    /// # Errors
    /// As [`Stage::run`].
    pub(super) fn attempt(&mut self, text: &str) -> Result<Outcome> {
        let statements = self.parser.feed(text, 1).with_context(|| format!("`{text}`"))?;
        let mut last = Outcome::OK;
        for statement in &statements {
            let done = self.runner.step(statement, &mut |_: Event<'_>| -> fmt::Result { Ok(()) });
            let outcome = done.with_context(|| format!("`{text}`"))?;
            let said = statement.operation.to_string();
            let Some(outcome) = outcome else {
                if !self.json {
                    self.out.line(&format!("  > {said}"));
                }
                continue;
            };
            if self.json {
                self.out
                    .json(&json!({ "event": "operation", "statement": said, "outcome": outcome }));
            } else {
                let answer = self.out.paint().text(tone_of(&outcome), &outcome.to_string());
                self.out.line(&format!("  > {said:<STATEMENT_WIDTH$} -> {answer}"));
            }
            last = outcome;
        }
        Ok(last)
    }

    /// Shows a view. One that cannot be shown is a failure.
    ///
    /// # Errors
    /// A mistake in the request, which is the tour's own.
    pub(super) fn view(&mut self, request: &str, keep: Keep<'_>) -> Result<()> {
        let statements = self.parser.feed(request, 1).with_context(|| format!("`{request}`"))?;
        let [statement] = statements.as_slice() else { bail!("`{request}` is not one view") };
        if !matches!(statement.operation, Operation::View(_)) {
            bail!("`{request}` is no view");
        }
        let mut shown = String::new();
        let mut sink = |event: Event<'_>| -> fmt::Result {
            if let Event::View { text, .. } = event {
                shown.push_str(text);
            }
            Ok(())
        };
        if let Err(e) = self.runner.step(statement, &mut sink) {
            self.check(format!("`{request}` can be shown ({})", e.problem), false);
            return Ok(());
        }
        if self.json {
            let (said, view) = (Value::String(request.to_owned()), one_line(&shown));
            self.out.line(&format!("{{\"event\":\"view\",\"statement\":{said},\"view\":{view}}}"));
            return Ok(());
        }
        self.out.line(&format!("  > {request}"));
        for line in cut(&shown, keep) {
            let line = match line {
                Cut::Line(line) => format!("    {line}").trim_end().to_owned(),
                Cut::Left(n) => {
                    let lines = if n == 1 { "line" } else { "lines" };
                    let text = format!("    ... {n} more {lines}");
                    self.out.paint().text(Tone::Quiet, &text)
                }
            };
            self.out.line(&line);
        }
        Ok(())
    }

    /// Says what to look at.
    pub(super) fn say(&mut self, text: &str) {
        if self.json {
            self.out.json(&json!({ "event": "remark", "text": text }));
            return;
        }
        for line in wrap(text, 78) {
            self.out.line(&format!("  {line}"));
        }
    }

    /// Notes whether a claim holds.
    pub(super) fn check(&mut self, claim: impl Into<String>, holds: bool) {
        let claim = claim.into();
        self.claims += 1;
        if self.json {
            self.out.json(&json!({ "event": "check", "claim": claim, "holds": holds }));
        }
        if holds {
            self.checked.push(claim);
            return;
        }
        self.failures += 1;
        if !self.json {
            self.out.toned(Tone::Bad, &format!("  NOT SO: {claim}"));
        }
    }

    /// Ends a step: every invariant is checked, and what was checked is said.
    fn end_step(&mut self) {
        if self.step == 0 {
            return;
        }
        self.out.tick();
        match self.runner.world_mut().verify() {
            Ok(()) => self.check("every invariant holds", true),
            Err(e) => self.check(format!("every invariant holds ({e})"), false),
        }
        let checked = std::mem::take(&mut self.checked);
        if self.json || checked.is_empty() {
            return;
        }
        for (n, line) in wrap(&checked.join("; "), 70).into_iter().enumerate() {
            let label = match n {
                0 => self.out.paint().text(Tone::Good, "checked: "),
                _ => " ".repeat("checked: ".len()),
            };
            self.out.line(&format!("  {label}{line}"));
        }
        self.out.flush();
    }

    /// Ends the tour; how many claims did not hold.
    pub(super) fn end(mut self) -> u32 {
        self.end_step();
        let (steps, claims, failures) = (self.step, self.claims, self.failures);
        if self.json {
            self.out.json(&json!({
                "event": "end", "steps": steps, "claims": claims, "failures": failures,
            }));
            return failures;
        }
        self.out.line("");
        match failures {
            0 => self.out.toned(Tone::Good, &format!("{steps} steps, {claims} checks, all hold.")),
            n => {
                self.out
                    .toned(Tone::Bad, &format!("{steps} steps, {claims} checks, {n} do not hold."));
            }
        }
        failures
    }

    /// Whether anybody still looks.
    pub(super) fn is_watched(&self) -> bool {
        !self.out.is_gone()
    }

    /// The world the statements drive.
    pub(super) fn world(&self) -> &MachineWorld {
        self.runner.world()
    }

    /// A process by name.
    ///
    /// # Errors
    /// When there is none: an earlier step failed.
    pub(super) fn process(&self, name: &str) -> Result<&Process> {
        let slot = self.runner.proc_slot(name);
        slot.and_then(|slot| self.world().process(slot))
            .with_context(|| format!("there is no process ${name}: an earlier step failed"))
    }

    /// A counter's value.
    pub(super) fn counter(&self, name: &str) -> u64 {
        self.world().counter(name).unwrap_or(0)
    }

    /// Values of several counters, for [`Stage::rose`].
    pub(super) fn counters<const N: usize>(
        &self,
        names: [&'static str; N],
    ) -> [(&'static str, u64); N] {
        names.map(|name| (name, self.counter(name)))
    }

    /// By how much each counter has risen since.
    pub(super) fn rose<const N: usize>(&self, since: [(&'static str, u64); N]) -> [u64; N] {
        since.map(|(name, before)| self.counter(name).wrapping_sub(before))
    }
}

/// A line of a view, or how many are left out here.
#[derive(Debug, PartialEq, Eq)]
enum Cut<'a> {
    Line(&'a str),
    Left(usize),
}

fn cut<'a>(text: &'a str, keep: Keep<'_>) -> Vec<Cut<'a>> {
    let lines: Vec<&str> = text.lines().collect();
    let wanted = |n: usize, line: &str| match keep {
        Keep::All => lines.len() <= LONGEST || n < LONGEST - 1,
        // One line left out takes as much room as the line.
        Keep::Ends(head, tail) => {
            lines.len() <= head + tail + 1 || n < head || n + tail >= lines.len()
        }
        Keep::Lines(head, words) => n < head || words.iter().any(|w| line.contains(w.as_str())),
    };
    let mut cut = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        match (wanted(n, line), cut.last_mut()) {
            (true, _) => cut.push(Cut::Line(line)),
            (false, Some(Cut::Left(left))) => *left += 1,
            (false, _) => cut.push(Cut::Left(1)),
        }
    }
    cut
}

/// Breaks a text into lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let text = "h\na\nb\nc\nd\n";
        assert_eq!(cut(text, Keep::All).len(), 5);
        let ends = cut(text, Keep::Ends(1, 1));
        assert_eq!(ends, [Cut::Line("h"), Cut::Left(3), Cut::Line("d")]);
        assert_eq!(cut(text, Keep::Ends(2, 2)).len(), 5);
        let b = ["b".to_owned()];
        let lines = cut(text, Keep::Lines(1, &b));
        assert_eq!(lines, [Cut::Line("h"), Cut::Left(1), Cut::Line("b"), Cut::Left(2)]);
    }

    #[test]
    fn text_is_wrapped_at_words() {
        assert_eq!(wrap("a bc def", 4), ["a bc", "def"]);
        assert_eq!(wrap("", 4), [""]);
    }
}
