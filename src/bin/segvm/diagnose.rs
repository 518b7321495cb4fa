//! Mistakes shown where they are: file, line, column, the line itself, a caret.

use std::fmt::Write as _;

use segvm::script::Span;

use crate::output::{Paint, Tone};

/// The text a script came from, for showing pieces of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    /// What to call it.
    pub(crate) name: &'a str,
    /// All of it.
    pub(crate) text: &'a str,
    /// The number of its first line.
    pub(crate) first_line: u32,
}

impl Source<'_> {
    /// `name:line:column: message`, then the line and a caret under the word.
    pub(crate) fn mistake(&self, span: Span, message: &str, paint: Paint) -> String {
        let place = paint.text(Tone::Heading, &format!("{}:{span}:", self.name));
        let mut text = format!("{place} {}", paint.text(Tone::Bad, message));
        let index = span.line.checked_sub(self.first_line).map(|n| n as usize);
        let Some(line) = index.and_then(|n| self.text.lines().nth(n)) else { return text };
        let number = span.line.to_string();
        let before = (span.column.max(1) - 1) as usize;
        // Tabs stay tabs, so that the caret stands under its word however wide they are.
        let pad: String = line
            .chars()
            .chain(std::iter::repeat(' '))
            .take(before)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let caret = paint.text(Tone::Bad, &"^".repeat(span.len.max(1) as usize));
        let bar = paint.text(Tone::Quiet, "|");
        let gap = " ".repeat(number.len());
        let _ = write!(text, "\n {number} {bar} {}\n {gap} {bar} {pad}{caret}", line.trim_end());
        text
    }
}

/// The place of a byte in a text, as editors count.
pub(crate) fn place_of(text: &[u8], byte: usize) -> Span {
    let before = &text[..byte.min(text.len())];
    let start = before.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let line = before.iter().filter(|b| **b == b'\n').count() as u32 + 1;
    let column = String::from_utf8_lossy(&before[start..]).chars().count() as u32 + 1;
    Span { line, column, len: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_under_its_word() {
        let source = Source { name: "s", text: "verify\n\tmap 0 zz\n", first_line: 1 };
        let shown = source.mistake(Span { line: 2, column: 8, len: 2 }, "what", Paint::NONE);
        assert_eq!(shown, "s:2:8: what\n 2 | \tmap 0 zz\n   | \t      ^^");
    }

    #[test]
    fn a_place_past_the_text_has_no_line() {
        let source = Source { name: "s", text: "", first_line: 1 };
        assert_eq!(
            source.mistake(Span { line: 1, column: 1, len: 0 }, "m", Paint::NONE),
            "s:1:1: m"
        );
        assert_eq!(source.mistake(Span::default(), "m", Paint::NONE), "s:0:0: m");
    }

    #[test]
    fn bytes_have_places() {
        let place = place_of("ä\nbc".as_bytes(), 4);
        assert_eq!((place.line, place.column), (2, 2));
    }
}
