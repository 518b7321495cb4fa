//! What must hold of any text that the script parser is given.
//!
//! 1. Nothing panics: not the parser, not what prints its complaints, not completion, wherever the cursor stands.
//! 2. A complaint has a place within the text.
//! 3. What parses prints as text that parses to the same operations, and prints as that text again.
//! 4. Feeding a script line by line, as the shell does, reads what feeding it whole reads.

use segvm::script::{Operation, Parser, Script, parse, script_blocks};

/// Texts longer than this say nothing that shorter ones do not.
const MOST: usize = 4096;

/// Checks one input. Bytes that are no text are read as text with holes.
pub(crate) fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(MOST)]);
    match parse(&text) {
        Ok(script) => {
            prints_itself(&script);
            line_by_line(&text, &script);
        }
        Err(e) => {
            let lines = text.lines().count().max(1) as u32 + 1;
            let place = e.span;
            assert!((1..=lines).contains(&place.line), "{e} in {lines} lines of {text:?}");
            assert!(!e.to_string().is_empty());
        }
    }
    complete_anywhere(&text);
    script_blocks(&text).into_iter().for_each(drop);
}

fn printed(script: &Script) -> String {
    script.operations().map(|o| format!("{o}\n")).collect()
}

fn prints_itself(script: &Script) {
    let once = printed(script);
    let again = parse(&once).unwrap_or_else(|e| panic!("what was printed parses: {e}\n{once}"));
    assert!(script.operations().eq(again.operations()), "other operations than printed:\n{once}");
    assert_eq!(printed(&again), once);
}

fn line_by_line(text: &str, script: &Script) {
    let mut parser = Parser::new();
    let mut read: Vec<Operation> = Vec::new();
    for (i, line) in text.split('\n').enumerate() {
        let fed = parser.feed(line, i as u32 + 1);
        let fed = fed.unwrap_or_else(|e| panic!("a line of a script that parses: {e}\n{text}"));
        read.extend(fed.into_iter().map(|s| s.operation));
    }
    assert!(script.operations().eq(&read), "line by line it is another script:\n{text}");
}

/// Completes at a few places of the first lines; every word that is offered begins as what stands there does.
fn complete_anywhere(text: &str) {
    let mut parser = Parser::new();
    for (i, line) in text.split('\n').take(8).enumerate() {
        let columns = line.chars().count() + 1;
        for column in (0..=columns + 1).step_by(columns / 6 + 1).chain([columns]) {
            let found = parser.complete(line, column);
            let start = (found.start as usize).saturating_sub(1);
            let length = (column.max(1) - 1).saturating_sub(start);
            let prefix: String = line.chars().skip(start).take(length).collect();
            for candidate in &found.candidates {
                assert!(candidate.word.starts_with(&prefix), "{line:?} at {column}: {candidate:?}");
            }
        }
        let _ = parser.feed(line, i as u32 + 1);
    }
}
