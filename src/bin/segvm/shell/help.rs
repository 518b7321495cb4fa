//! `help`: the statements, from the same table that the parser and completion use.

use std::fmt::Write as _;

use segvm::script::STATEMENTS;

use crate::output::{Paint, Tone};

/// The text of `help` or `help WORD`.
pub(super) fn text(about: Option<&str>, paint: Paint) -> String {
    let wanted = |word: &str| match about {
        None => true,
        Some(about) => word == about || word.strip_prefix("::") == Some(about),
    };
    let mut text = String::new();
    for (word, rest) in STATEMENTS.iter().filter(|(word, _)| wanted(word)) {
        let (operands, meaning) = rest.split_once("--").unwrap_or(("", rest));
        let (operands, meaning) = (operands.trim(), meaning.trim());
        let shown = format!("{} {operands}", paint.text(Tone::Heading, word));
        let width = word.chars().count() + 1 + operands.chars().count();
        let gap = " ".repeat(40usize.saturating_sub(width).max(1));
        let _ = writeln!(text, "{shown}{gap}{meaning}");
    }
    match (about, text.is_empty()) {
        (Some(about), true) => format!("there is no statement `{about}`; `help` lists them all\n"),
        (Some(_), false) => text,
        (None, _) => {
            text.push_str(
                "help [WORD], quit\n\
                 P is a process (0 to 7 or $name), F a file (0 to 15 or $name), A an address (a page of \
                 the arena,\nb:N, 0x...), L a length (pages, PAGES+BYTES, 64k, 0x...). \
                 docs/script.md has it all.\n",
            );
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_has_its_line() {
        let all = text(None, Paint::NONE);
        for (word, _) in STATEMENTS {
            assert!(all.lines().any(|l| l.split_whitespace().next() == Some(word)), "{word}");
        }
        assert!(text(Some("pmap"), Paint::NONE).starts_with("::pmap"));
        assert_eq!(text(Some("unmap"), Paint::NONE).lines().count(), 1);
        assert!(text(Some("quux"), Paint::NONE).contains("no statement"));
    }
}
