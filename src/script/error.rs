//! What can be wrong with a script, and where.

use thiserror::Error;

use super::token::Span;

/// A mistake in a script: the word it is about, and what was expected there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{span}: {problem}")]
pub struct ParseError {
    /// The word, or the place where one is missing.
    pub span: Span,
    /// What is wrong.
    pub problem: Problem,
}

/// The kinds of things that carry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// A process.
    Process,
    /// A file.
    File,
}

impl NameKind {
    /// The kind in words.
    pub fn word(self) -> &'static str {
        match self {
            NameKind::Process => "process",
            NameKind::File => "file",
        }
    }
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// The word is not one of those that may stand here.
    #[error("expected {what}, found {}{}", word_or_end(.found.as_deref()), hinted(.hint.as_deref()))]
    Expected {
        /// What may stand here.
        what: String,
        /// The word, or `None` at the end of the statement.
        found: Option<String>,
        /// A word that resembles it and may stand here.
        hint: Option<String>,
    },
    /// The first word names no operation, view or directive.
    #[error("unknown statement `{found}`{}", hinted(.hint.as_deref()))]
    UnknownStatement {
        /// The word.
        found: String,
        /// A statement that resembles it.
        hint: Option<String>,
    },
    /// The statement is complete, and more words follow.
    #[error("`{statement}` is complete here, found `{found}`")]
    Surplus {
        /// The statement's first word.
        statement: String,
        /// The first word too many.
        found: String,
    },
    /// A number does not fit.
    #[error("`{found}` is too large: {limit}")]
    TooLarge {
        /// The word.
        found: String,
        /// The largest that fits, in words.
        limit: String,
    },
    /// A name is used before anything made it.
    #[error("no {} is called `{name}` yet{}", .kind.word(), hinted(.hint.as_deref()))]
    Undeclared {
        /// The name, with its `$`.
        name: String,
        /// What it should name.
        kind: NameKind,
        /// A name that resembles it.
        hint: Option<String>,
    },
    /// A name already stands for something else.
    #[error("`{name}` already names another {}", .kind.word())]
    Taken {
        /// The name, with its `$`.
        name: String,
        /// What it names.
        kind: NameKind,
    },
    /// The statement may not stand at this place of the script.
    #[error("`{statement}` may stand {rule}")]
    Misplaced {
        /// The statement's first word.
        statement: String,
        /// Where it may stand.
        rule: &'static str,
    },
    /// A quote is not closed in its line.
    #[error("this quote is not closed in its line")]
    Unterminated,
}

fn word_or_end(word: Option<&str>) -> String {
    match word {
        Some(w) => format!("`{w}`"),
        None => "the end of the statement".into(),
    }
}

fn hinted(hint: Option<&str>) -> String {
    match hint {
        Some(h) => format!(" (did you mean `{h}`?)"),
        None => String::new(),
    }
}

/// Returns the candidate nearest to `word`, when one is near enough to be a slip of the fingers.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let limit = match word.chars().count() {
        0 => return None,
        1..=3 => 1,
        _ => 2,
    };
    candidates
        .into_iter()
        .map(|c| (distance(word, c), c))
        .filter(|&(d, c)| d > 0 && d <= limit && d < c.chars().count())
        .min()
        .map(|(_, c)| c.to_owned())
}

/// The number of insertions, removals, replacements and swaps of neighbours between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                let swap: &Vec<usize> = &before_last;
                row[j] = row[j].min(swap[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_misses_are_found_and_far_ones_are_not() {
        let words = ["map", "unmap", "protect", "pageout"];
        assert_eq!(nearest("protetc", words).as_deref(), Some("protect"));
        assert_eq!(nearest("mpa", words).as_deref(), Some("map"));
        assert_eq!(nearest("quux", words), None);
        assert_eq!(nearest("", words), None);
    }
}
