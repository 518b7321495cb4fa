//! The fuzz targets, on the inputs that are kept of them.
//!
//! The targets themselves want a nightly compiler (`tests/fuzz`). What they do with an input does not, and is run here on every file of their corpora, so that
//! neither can rot; and on bytes by lot, which is what a fuzzer begins with.

#[path = "../fuzz/src/grammar.rs"]
mod grammar;
#[path = "../fuzz/src/machine.rs"]
mod machine;
#[path = "../fuzz/src/parser.rs"]
mod parser;

use std::collections::BTreeSet;
use std::path::Path;

use segvm::script::outcome::{FNV_OFFSET, fnv};
use segvm::script::{Operation, Parser, STATEMENTS};

use super::{lot, number};
use grammar::Words;

/// Runs every file of a target's corpus.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus of a target");
    let mut files: Vec<_> = entries.map(|e| e.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() >= 20, "{} has {} files", folder.display(), files.len());
    for file in files {
        let data = std::fs::read(&file).expect("a file of the corpus");
        let done = std::panic::catch_unwind(|| run(&data));
        assert!(done.is_ok(), "{} fails (above)", file.display());
    }
}

#[test]
fn the_corpus_of_the_machine_runs() {
    replay("machine", machine::run);
}

#[test]
fn the_corpus_of_the_parser_runs() {
    replay("parser", parser::run);
}

/// What is kept was kept for what it does: new statements of the language leave the scripts of old inputs as they are.
#[test]
fn old_inputs_are_the_scripts_that_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/machine");
    let mut scripts: Vec<String> = std::fs::read_dir(&folder)
        .expect("the corpus")
        .map(|entry| std::fs::read(entry.expect("a file").path()).expect("a file of the corpus"))
        .filter(|data| !data.starts_with(grammar::HELD))
        .map(|data| machine::Input::of(&data).text())
        .collect();
    scripts.sort();
    let all = fnv(FNV_OFFSET, scripts.concat().as_bytes());
    assert_eq!((scripts.len(), all), (48, 0x6617_b150_753b_6aff));
}

fn by_lot(seed: &mut u64) -> Vec<u8> {
    let length = 8 + lot(seed, 200);
    (0..length).map(|_| lot(seed, 256) as u8).collect()
}

#[test]
fn bytes_by_lot_run() {
    let mut seed = number("SEGVM_SIM_SEED", 42);
    for _ in 0..number("SEGVM_SIM_INPUTS", 60) {
        let data = by_lot(&mut seed);
        machine::run(&data);
        machine::run(&[grammar::HELD, &data].concat());
        parser::run(&by_lot(&mut seed));
    }
}

/// Nearly all that the grammar makes of bytes are statements, and all statements come about.
#[test]
fn bytes_become_every_statement() {
    let mut seed = 7;
    let parser = Parser::new();
    let (mut good, mut all) = (0, 0);
    let mut seen = BTreeSet::new();
    for round in 0..400 {
        let words = if round % 2 == 0 { Words::First } else { Words::All };
        let data = by_lot(&mut seed);
        let mut bytes = grammar::Bytes(&data);
        while !bytes.0.is_empty() {
            let line = grammar::line(&parser, words, &mut bytes);
            all += 1;
            good += usize::from(parser.clone().feed(&line, 1).is_ok());
            seen.extend(line.split(' ').next().map(str::to_owned));
        }
        let script = machine::Input::of(&data).statements;
        assert!(script.iter().all(|s| !matches!(s.operation, Operation::HostFile { .. })));
    }
    assert!(good * 100 >= all * 95, "{good} of {all} parse");
    let empty = grammar::statements(&mut grammar::Bytes(&[]), Words::All, true);
    assert_eq!(empty.len(), 11, "the prelude parses");
    let drawn = STATEMENTS.iter().map(|(word, _)| *word).filter(|w| !grammar::NEVER.contains(w));
    let missing: Vec<&str> = drawn.filter(|w| !seen.contains(*w)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
