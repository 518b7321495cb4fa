//! Cutting a script into statements and words.
//!
//! A statement ends with its line or with `;`. Words are separated by blanks; `#` starts a comment
//! that runs to the end of the line, as in the trace language, wherever it stands outside quotes.
//! A quoted piece (`"..."`, with `\"`, `\\`, `\n` and `\t`) belongs to the word it stands in, so a
//! path with blanks can be written, alone or inside `swap=file:"a b":64`.
//!
//! Every word keeps its place. Lines and columns are counted from 1, in characters, as editors do.

use std::fmt;

use serde::Serialize;

use super::error::{ParseError, Problem};

/// A place in a script: a line and the columns a word covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Span {
    /// Line, from 1.
    pub line: u32,
    /// Column of the first character, from 1.
    pub column: u32,
    /// Number of characters covered; 0 for the place where a word is missing.
    pub len: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One word of a statement, as written (quotes included).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Where it stands.
    pub span: Span,
    /// Its characters.
    pub text: String,
}

impl Token {
    /// Returns what a wholly quoted word says, or `None` for any other word.
    pub fn quoted(&self) -> Option<String> {
        unquote(&self.text)
    }
}

/// The words of one statement, and where the next word would stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Words {
    /// The words; never empty.
    pub tokens: Vec<Token>,
    /// The place just behind the last word.
    pub end: Span,
}

/// Removes the quotes of `text` and resolves its escapes; `None` when it is not one quoted piece.
pub(super) fn unquote(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return None,
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
    Some(out)
}

/// Writes `text` as a quoted word that [`unquote`] gives back.
pub(super) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Cuts `source` into statements; its first line has the number `first_line`.
///
/// # Errors
/// [`Problem::Unterminated`] at a quote that its line does not close.
pub(super) fn statements(source: &str, first_line: u32) -> Result<Vec<Words>, ParseError> {
    let mut out = Vec::new();
    for (line, text) in (first_line..).zip(source.lines()) {
        Cutter { line, ..Cutter::default() }.line(text, &mut out)?;
    }
    Ok(out)
}

/// Says whether a comment has begun by the end of `line`.
pub(super) fn has_comment(line: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return true,
            _ => {}
        }
    }
    false
}

/// The statement and the word being gathered.
#[derive(Default)]
struct Cutter {
    line: u32,
    tokens: Vec<Token>,
    word: String,
    start: u32,
    len: u32,
}

impl Cutter {
    fn line(mut self, text: &str, out: &mut Vec<Words>) -> Result<(), ParseError> {
        let mut quote_at = None;
        let mut escaped = false;
        for (column, c) in (1..).zip(text.chars()) {
            if quote_at.is_some() {
                self.push(column, c);
                match c {
                    _ if escaped => escaped = false,
                    '\\' => escaped = true,
                    '"' => quote_at = None,
                    _ => {}
                }
                continue;
            }
            match c {
                '#' => break,
                ';' => self.end_statement(out),
                c if c.is_whitespace() => self.end_word(),
                c => {
                    if c == '"' {
                        quote_at = Some(column);
                    }
                    self.push(column, c);
                }
            }
        }
        if let Some(column) = quote_at {
            let span = Span { line: self.line, column, len: 1 };
            return Err(ParseError { span, problem: Problem::Unterminated });
        }
        self.end_statement(out);
        Ok(())
    }

    fn push(&mut self, column: u32, c: char) {
        if self.word.is_empty() {
            self.start = column;
            self.len = 0;
        }
        self.word.push(c);
        self.len += 1;
    }

    fn end_word(&mut self) {
        if !self.word.is_empty() {
            let span = Span { line: self.line, column: self.start, len: self.len };
            self.tokens.push(Token { span, text: std::mem::take(&mut self.word) });
        }
    }

    fn end_statement(&mut self, out: &mut Vec<Words>) {
        self.end_word();
        if let Some(last) = self.tokens.last() {
            let end = Span { column: last.span.column + last.span.len, len: 0, ..last.span };
            out.push(Words { tokens: std::mem::take(&mut self.tokens), end });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(source: &str) -> Vec<Vec<(u32, u32, String)>> {
        statements(source, 1)
            .expect("cuts")
            .into_iter()
            .map(|w| w.tokens.into_iter().map(|t| (t.span.line, t.span.column, t.text)).collect())
            .collect()
    }

    #[test]
    fn statements_end_with_lines_and_semicolons() {
        let w = words("a  b;c\n\n ;; d # e ; f\n");
        let w: Vec<Vec<_>> =
            w.iter().map(|s| s.iter().map(|t| (t.0, t.1, &*t.2)).collect()).collect();
        assert_eq!(w, [vec![(1, 1, "a"), (1, 4, "b")], vec![(1, 6, "c")], vec![(3, 5, "d")]]);
    }

    #[test]
    fn quotes_hold_blanks_hashes_and_semicolons() {
        let w = words(r#"echo "a ; # \" b" x="y z":3"#);
        assert_eq!(w[0][1].2, r#""a ; # \" b""#);
        assert_eq!(unquote(&w[0][1].2).as_deref(), Some("a ; # \" b"));
        assert_eq!(w[0][2].2, r#"x="y z":3"#);
        assert_eq!(unquote(&w[0][2].2), None);
    }

    #[test]
    fn an_open_quote_is_reported_where_it_opens() {
        let e = statements("echo hi\necho  \"abc", 1).expect_err("open");
        assert_eq!((e.span.line, e.span.column), (2, 7));
    }

    #[test]
    fn quoting_round_trips() {
        for s in ["", "a b", "\"", "\\", "tab\tline\n", "päth"] {
            assert_eq!(unquote(&quote(s)).as_deref(), Some(s));
        }
    }
}
