//! Writing: standard output that may be a terminal, a file or a pipe that nobody reads any more.
//!
//! A closed pipe (`segvm run x | head`) is no error: what follows is thrown away, so that a script still
//! runs to its end and its status says whether it holds. Any other failure to write is kept and reported
//! once, by [`Out::finish`].

use std::fmt;
use std::io::{self, BufWriter, ErrorKind, IsTerminal, Write};

use clap::ColorChoice;
use segvm::script::{Event, Outcome, PlainText, Sink};
use serde_json::{Value, json};

use crate::progress::Progress;

/// Writes a line to standard error; when nobody listens there, there is nobody to tell.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// A step, a title.
    Heading,
    /// Where, or what was typed: beside the point.
    Quiet,
    /// It was done.
    Good,
    /// It was refused.
    Refused,
    /// A signal, a mistake.
    Bad,
}

/// Whether a stream is painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Paint(bool);

impl Paint {
    /// The choice for a stream: `--color` first, then `NO_COLOR` and `TERM`, then whether it is a terminal.
    pub(crate) fn choose(choice: ColorChoice, stream: &impl IsTerminal) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Paint(match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !plain && stream.is_terminal(),
        })
    }

    /// No colours.
    #[cfg(test)]
    pub(crate) const NONE: Paint = Paint(false);

    /// Whether anything is painted.
    pub(crate) fn is_on(self) -> bool {
        self.0
    }

    /// The text in its tone.
    pub(crate) fn text(self, tone: Tone, text: &str) -> String {
        if !self.0 || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Heading => "1;36",
            Tone::Quiet => "2",
            Tone::Good => "32",
            Tone::Refused => "33",
            Tone::Bad => "1;31",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// The tone of an answer.
pub(crate) fn tone_of(outcome: &Outcome) -> Tone {
    match outcome {
        Outcome::Ok(_) => Tone::Good,
        Outcome::Errno(_) | Outcome::Skip => Tone::Refused,
        _ => Tone::Bad,
    }
}

/// Standard output.
pub(crate) struct Out {
    to: Box<dyn Write>,
    paint: Paint,
    progress: Option<Progress>,
    gone: bool,
    failed: Option<io::Error>,
}

impl Out {
    /// Standard output, buffered unless people look at it.
    pub(crate) fn new(color: ColorChoice) -> Self {
        let stdout = io::stdout();
        let paint = Paint::choose(color, &stdout);
        let to: Box<dyn Write> = match stdout.is_terminal() {
            true => Box::new(stdout),
            false => Box::new(BufWriter::with_capacity(1 << 16, stdout)),
        };
        Out { to, paint, progress: None, gone: false, failed: None }
    }

    /// Shows a progress bar of `total` steps from the second second on, if people look.
    pub(crate) fn watch(&mut self, total: u64, what: &'static str) {
        self.progress = Progress::new(total, what);
    }

    /// One step of what [`Out::watch`] announced is done.
    pub(crate) fn tick(&mut self) {
        if let Some(progress) = &self.progress {
            progress.tick();
        }
    }

    /// The colours of this stream.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Writes and forgets about errors until [`Out::finish`].
    pub(crate) fn put(&mut self, text: &str) {
        let Out { to, progress, .. } = self;
        let done = match progress {
            Some(p) => p.suspend(|| to.write_all(text.as_bytes())),
            None => to.write_all(text.as_bytes()),
        };
        self.note(done);
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, text: &str) {
        self.put(text);
        self.put("\n");
    }

    /// Writes a line in a tone.
    pub(crate) fn toned(&mut self, tone: Tone, text: &str) {
        let text = self.paint.text(tone, text);
        self.line(&text);
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &Value) {
        self.line(&value.to_string());
    }

    /// Sends what is buffered on its way: before something is said on standard error, or asked.
    pub(crate) fn flush(&mut self) {
        let done = self.to.flush();
        self.note(done);
    }

    /// The end of all output.
    ///
    /// # Errors
    /// The first error in writing, other than a closed pipe.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.progress = None;
        self.flush();
        self.failed.take().map_or(Ok(()), Err)
    }

    fn note(&mut self, done: io::Result<()>) {
        let Err(error) = done else { return };
        self.to = Box::new(io::sink());
        if error.kind() == ErrorKind::BrokenPipe {
            self.gone = true;
        } else {
            self.failed.get_or_insert(error);
        }
    }
}

impl fmt::Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text);
        Ok(())
    }
}

/// Operations with their answers in colour, views as they are.
pub(crate) struct Plain<'a>(pub(crate) &'a mut Out);

impl Sink for Plain<'_> {
    fn event(&mut self, event: Event<'_>) -> fmt::Result {
        let paint = self.0.paint();
        let answer = match &event {
            Event::Outcome { outcome, .. } => Some((outcome.to_string(), tone_of(outcome))),
            _ => None,
        };
        let mut text = String::new();
        PlainText(&mut text).event(event)?;
        match answer {
            Some((answer, tone)) if paint.is_on() => {
                let said = text.trim_end();
                let said = said.strip_suffix(&answer).unwrap_or(said);
                self.0.line(&format!("{said}{}", paint.text(tone, &answer)));
            }
            _ => self.0.put(&text),
        }
        Ok(())
    }
}

/// Every event as one line of JSON.
pub(crate) struct JsonLines<'a>(pub(crate) &'a mut Out);

impl Sink for JsonLines<'_> {
    fn event(&mut self, event: Event<'_>) -> fmt::Result {
        let value = match event {
            Event::Outcome { number, statement, outcome } => json!({
                "event": "operation",
                "line": statement.span().line,
                "number": number,
                "statement": statement.operation.to_string(),
                "outcome": outcome,
            }),
            Event::View { statement, text } => {
                let line = statement.span().line;
                let said = Value::String(statement.operation.to_string());
                let view = one_line(text);
                self.0.line(&format!(
                    "{{\"event\":\"view\",\"line\":{line},\"statement\":{said},\"view\":{view}}}"
                ));
                return Ok(());
            }
            Event::Echo(text) => json!({ "event": "echo", "text": text }),
            Event::Final(line) => json!({ "event": "final", "text": line }),
            Event::End { operations, fingerprint } => json!({
                "event": "end",
                "operations": operations,
                "fingerprint": format!("{fingerprint:016x}"),
            }),
            other => json!({ "event": format!("{other:?}") }),
        };
        self.0.json(&value);
        Ok(())
    }
}

/// JSON in one line, its fields in their order; text that is no JSON becomes a string.
pub(crate) fn one_line(text: &str) -> String {
    let text = text.trim();
    match serde_json::from_str::<Value>(text) {
        Ok(_) if !text.contains('\n') => text.to_owned(),
        Ok(value) => value.to_string(),
        Err(_) => Value::String(text.to_owned()).to_string(),
    }
}
