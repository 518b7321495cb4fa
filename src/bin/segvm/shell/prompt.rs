//! Where the shell's lines come from: a terminal with editing, or a stream.

use std::borrow::Cow;
use std::io::{self, BufRead};
use std::path::PathBuf;

use anyhow::Result;
use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context, Editor, Helper, Validator};
use segvm::script::Parser;

use crate::output::{Paint, Tone};

/// A line, or why there is none.
pub(super) enum Line {
    /// A line, without its end.
    Text(String),
    /// Control-C: the line is dropped.
    Interrupted,
    /// No more lines.
    End,
}

/// What completion needs to know of the session.
pub(super) struct Known<'a> {
    /// The names made so far.
    pub(super) parser: &'a Parser,
    /// The counters there are.
    pub(super) counters: Vec<String>,
}

/// A source of lines.
pub(super) enum Input {
    /// A person.
    Terminal { editor: Box<Editor<Completing, FileHistory>>, history: Option<PathBuf> },
    /// A stream.
    Piped,
}

impl Input {
    /// A terminal with editing, and with history if it is wanted and there is a place for it.
    pub(super) fn terminal(history: bool, paint: Paint) -> Result<Self> {
        let config = Config::builder()
            .history_ignore_space(true)
            .history_ignore_dups(true)?
            .completion_type(CompletionType::List)
            .build();
        let mut editor = Editor::with_config(config)?;
        editor.set_helper(Some(Completing { parser: Parser::new(), counters: Vec::new(), paint }));
        let history = if history { history_file() } else { None };
        if let Some(path) = &history {
            // The first session has none to load.
            let _ = editor.load_history(path);
        }
        Ok(Input::Terminal { editor: Box::new(editor), history })
    }

    /// The next line.
    pub(super) fn line(&mut self, known: Known<'_>) -> Result<Line> {
        match self {
            Input::Piped => {
                let mut bytes = Vec::new();
                if io::stdin().lock().read_until(b'\n', &mut bytes)? == 0 {
                    return Ok(Line::End);
                }
                let line = String::from_utf8_lossy(&bytes);
                Ok(Line::Text(line.trim_end_matches(['\n', '\r']).to_owned()))
            }
            Input::Terminal { editor, .. } => {
                if let Some(helper) = editor.helper_mut() {
                    helper.parser = known.parser.clone();
                    helper.counters = known.counters;
                }
                match editor.readline("segvm> ") {
                    Ok(line) => {
                        let _ = editor.add_history_entry(&line);
                        Ok(Line::Text(line))
                    }
                    Err(ReadlineError::Interrupted) => Ok(Line::Interrupted),
                    Err(ReadlineError::Eof) => Ok(Line::End),
                    Err(e) => Err(e.into()),
                }
            }
        }
    }

    /// Keeps the history. That there is no place for it is no reason to complain.
    pub(super) fn close(&mut self) {
        if let Input::Terminal { editor, history: Some(path) } = self
            && path.parent().is_some_and(|dir| std::fs::create_dir_all(dir).is_ok())
        {
            let _ = editor.append_history(path);
        }
    }
}

/// The history in the user's state directory.
fn history_file() -> Option<PathBuf> {
    let absolute =
        |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let state =
        absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("segvm").join("history"))
}

/// Completes words as the parser knows them, and says what may stand next.
#[derive(Helper, Validator)]
pub(super) struct Completing {
    parser: Parser,
    counters: Vec<String>,
    paint: Paint,
}

impl Completer for Completing {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let column = line[..pos].chars().count() + 1;
        let found = self.parser.complete(line, column);
        let start = byte_of(line, found.start as usize);
        let word = line.get(start..pos).unwrap_or_default();
        if found.path {
            let inner = word.strip_prefix('"').unwrap_or(word);
            let (at, mut paths) = FilenameCompleter::new().complete_path(inner, inner.len())?;
            if word.is_empty() {
                paths.iter_mut().for_each(|p| p.replacement.insert(0, '"'));
            }
            return Ok((pos - inner.len() + at, paths));
        }
        let same = |word: String| Pair { display: word.clone(), replacement: word };
        let mut pairs: Vec<Pair> = found.candidates.into_iter().map(|c| same(c.word)).collect();
        if found.counter {
            pairs.extend(self.counters.iter().filter(|c| c.starts_with(word)).cloned().map(same));
        }
        if start == 0 {
            let own = ["help", "quit"].into_iter().filter(|w| w.starts_with(word));
            pairs.extend(own.map(|w| same(w.to_owned())));
        }
        if let [only] = pairs.as_mut_slice()
            && pos == line.len()
            && !only.replacement.ends_with('=')
        {
            only.replacement.push(' ');
        }
        Ok((start, pairs))
    }
}

/// The byte at which a column (from 1) begins.
fn byte_of(line: &str, column: usize) -> usize {
    line.char_indices().nth(column.saturating_sub(1)).map_or(line.len(), |(at, _)| at)
}

/// Characters of a hint, so that it does not break the line in two.
const LONGEST_HINT: usize = 48;

/// What may stand next, in words: shown, never taken over.
pub(super) struct Expected(String);

impl Hint for Expected {
    fn display(&self) -> &str {
        &self.0
    }
    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Completing {
    type Hint = Expected;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Expected> {
        if pos < line.len() || !line.ends_with(' ') || line.trim().is_empty() {
            return None;
        }
        let found = self.parser.complete(line, line.chars().count() + 1);
        let expected: String = found.expected.chars().take(LONGEST_HINT).collect();
        (!expected.is_empty()).then(|| Expected(format!("  {expected}")))
    }
}

impl Highlighter for Completing {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(self.paint.text(Tone::Quiet, hint))
    }
}
