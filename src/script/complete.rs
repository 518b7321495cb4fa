//! Completion: which words may stand at the cursor.
//!
//! The parser reads the words before the cursor and is asked for one more; the class it asks for
//! is the answer. A prefix that does not parse has no completions.

use super::error::NameKind;
use super::parse::{Parser, read_statement};
use super::token::{Token, has_comment, statements};
use super::words::{Cursor, Open, Stop};

/// A word that may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The word.
    pub word: String,
    /// What it means.
    pub help: &'static str,
}

/// What may stand at the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Column, from 1, where the word being completed begins.
    pub start: u32,
    /// The words that begin as the word being completed does, in the grammar's order.
    pub candidates: Vec<Candidate>,
    /// What may stand there, in words; empty when the line already holds a mistake.
    pub expected: &'static str,
    /// A quoted path of the host may stand there.
    pub path: bool,
    /// The name of a counter may stand there.
    pub counter: bool,
}

/// Completes `line` at `column` (from 1; the cursor stands before that column) with nothing known
/// of earlier lines.
pub fn complete(line: &str, column: usize) -> Vec<Candidate> {
    Parser::new().complete(line, column).candidates
}

impl Parser {
    /// Says what may stand at `column` (from 1; the cursor stands before that column) of `line`,
    /// which is the next one after all that was fed.
    pub fn complete(&self, line: &str, column: usize) -> Completion {
        let before: String = line.chars().take(column.saturating_sub(1)).collect();
        let column = before.chars().count() as u32 + 1;
        if has_comment(&before) {
            return Completion { start: column, ..Completion::default() };
        }
        // An open quote is a path or a text being written: close it, so that the words can be cut.
        let (mut words, open) = match statements(&before, 1) {
            Ok(w) => (w, false),
            Err(_) => (statements(&format!("{before}\""), 1).unwrap_or_default(), true),
        };
        let fresh =
            !open && before.chars().next_back().is_none_or(|c| c.is_whitespace() || c == ';');
        let in_statement = !before.trim_end().ends_with(';');
        let mut tokens: Vec<Token> = match words.pop() {
            Some(w) if in_statement || !fresh => w.tokens,
            _ => Vec::new(),
        };
        let partial = if fresh { None } else { tokens.pop() };
        let (start, prefix) = partial.map_or((column, String::new()), |t| (t.span.column, t.text));
        // Names made earlier in the same line count as well.
        let mut known = self.clone();
        for w in &words {
            let text: Vec<&str> = w.tokens.iter().map(|t| t.text.as_str()).collect();
            if known.feed(&text.join(" "), 1).is_err() {
                return Completion { start, ..Completion::default() };
            }
        }
        let end = tokens.last().map(|t| t.span).unwrap_or_default();
        let mut cursor = Cursor::new(&tokens, end, &known.names, true);
        let Err(Stop::Wanted(class)) = read_statement(&mut cursor) else {
            return Completion { start, ..Completion::default() };
        };
        let listed = class.words.iter().map(|(w, help)| ((*w).to_owned(), *help));
        let names = class.names.into_iter().flat_map(|kind| {
            let help = match kind {
                NameKind::Process => "a process",
                NameKind::File => "a file",
            };
            known.names.of(kind).map(move |n| (format!("${n}"), help))
        });
        let candidates = listed
            .chain(names)
            .filter(|(w, _)| w.starts_with(&prefix))
            .map(|(word, help)| Candidate { word, help })
            .collect();
        Completion {
            start,
            candidates,
            expected: class.what,
            path: class.open == Open::Path,
            counter: class.open == Open::Counter,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        complete(line, line.chars().count() + 1).into_iter().map(|c| c.word).collect()
    }

    #[test]
    fn statements_are_offered_at_their_start() {
        assert_eq!(words("pm"), Vec::<String>::new());
        assert_eq!(words("::pm"), ["::pmap"]);
        assert_eq!(
            words("un"),
            ["unmap", "unlock", "unwatch", "unlend", "unpin", "unlockall", "unretire"]
        );
        assert_eq!(words("map 0 1 1 rw priv fixed anon; dig"), ["digest"]);
        assert!(words("verify;").len() > 40);
    }

    #[test]
    fn operands_are_offered_in_their_place() {
        assert_eq!(words("map 0 1 1 rw "), ["priv", "shared", "both", "neither"]);
        assert_eq!(words("map 0 1 1 rw p"), ["priv"]);
        assert_eq!(words("map 0 1 1 rw priv fixed anon "), ["noreserve", "populate", "locked"]);
        assert_eq!(words("read 0 1 1 "), ["cpu="]);
        assert_eq!(words("pageout "), ["*"]);
        assert_eq!(words("map 0 1 1 zz "), Vec::<String>::new());
        assert_eq!(words("verify "), Vec::<String>::new());
    }

    #[test]
    fn names_are_offered_once_they_exist() {
        assert_eq!(words("proc $sh = 0; read $"), ["$sh"]);
        let mut parser = Parser::new();
        parser.feed("file $data 10\nproc $one = 0", 1).expect("parses");
        let c = parser.complete("::vnode $d", 11);
        assert_eq!((c.start, c.candidates.len()), (9, 1));
        assert_eq!(c.candidates[0].word, "$data");
    }

    #[test]
    fn nothing_is_offered_in_a_comment() {
        assert_eq!(words("vmtrace # a word"), Vec::<String>::new());
        assert_eq!(words("vmtrace 1   # a trace"), Vec::<String>::new());
        assert_eq!(words("read 0 1 1 # then; "), Vec::<String>::new());
        assert_eq!(words("echo \"# no comment\"; dig"), ["digest"]);
    }

    #[test]
    fn paths_and_counters_are_announced() {
        let line = "hostfile $x \"/bi";
        let c = Parser::new().complete(line, line.len() + 1);
        assert!(c.path && c.start == 13);
        assert!(Parser::new().complete("expect counter ", 16).counter);
    }
}
