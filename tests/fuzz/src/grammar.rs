//! From bytes to scripts, by the grammar.
//!
//! # The difficulty
//!
//! Bytes taken as text are hardly ever a script, and a fuzzer that has to find the words first finds nothing else. A table of statements kept here would find
//! them, and would miss each one that the language gets later.
//!
//! # The rule
//!
//! The language's own completion says what may stand next, and a byte chooses among it:
//!
//! ```text
//!   bytes   2f        03      81 00    05    ...
//!   line    protect   2       17+256   5     rw
//!           listed    a process        a length   <- what completion answers for the line so far
//! ```
//!
//! Where completion lists words a byte picks one; where it describes what stands there (a process, an address, a number) the byte picks from a few that make
//! histories collide: four processes, four files, thirty pages. A statement ends where the grammar lets it and a byte says so. What does not parse is dropped,
//! which is rare, and seen by a test.
//!
//! What reaches out of the machine (files and programs of the host) or looks back at answers (`expect`) is not drawn.

use segvm::script::{Parser, STATEMENTS, Statement};

/// Pages of the arena: few, so that ranges meet.
pub(crate) const ARENA: u32 = 32;

/// Statements of one script at most.
pub(crate) const MOST: usize = 160;

/// Statements that are never drawn.
pub(crate) const NEVER: [&str; 7] =
    ["vmtrace", "arena", "machine", "hostfile", "spawn", "expect", "echo"];

/// Statements that make histories, and stand more often than the rest.
const OFTEN: [&str; 24] = [
    "map", "map", "map", "write", "write", "write", "read", "read", "fork", "fork", "protect",
    "protect", "unmap", "advise", "advise", "lock", "unlock", "sync", "pageout", "truncate",
    "fread", "fwrite", "exit", "file",
];

/// What an input begins with that may say all there is to say. One that does not is of the time when there was less, and goes on saying what it said.
pub(crate) const HELD: &[u8] = b"held";

/// Statements that came after the first inputs were kept.
const LATER: [&str; 5] = ["pin", "pinned", "unpin", "retire", "unretire"];

/// What others do with memory, as often in such inputs as what makes histories.
const BY_OTHERS: [&str; 24] = [
    "pin", "pin", "pinned", "unpin", "lend", "lend", "lent", "unlend", "lendanon", "lendanon",
    "borrow", "borrow", "share", "share", "share", "watch", "unwatch", "retire", "retire",
    "unretire", "squeeze", "release", "swapadd", "swapdel",
];

/// Which statements an input may draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// Those that there were when the first inputs were kept.
    First,
    /// All, what others do with memory more often.
    All,
}

/// The bytes of an input, one after another; zeros when they are over.
#[derive(Debug)]
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    /// The next byte.
    pub(crate) fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    /// A number below `limit`, which is at most 256.
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.next()) % limit.max(1)
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())]
    }
}

/// Memory and files of each kind and two processes, so that most of what is drawn meets something.
const PRELUDE: &str = "file 0 20000; file 1 40960; file 2 100 ro
    map 0 0 6 rw priv fixed anon; map 0 6 6 rw shared fixed anon; map 0 12 4 rw priv fixed anon noreserve
    map 0 16 6 rw priv fixed file 0 0; map 0 22 8 rw shared fixed file 1 0; write 0 0 4 1; fork 0 1";

/// Statements as long as there are bytes, with the prelude in front or not.
pub(crate) fn statements(bytes: &mut Bytes<'_>, words: Words, prelude: bool) -> Vec<Statement> {
    let mut parser = Parser::new();
    let mut script = parser.feed(&format!("arena {ARENA}"), 1).unwrap_or_default();
    if prelude {
        script.extend(parser.feed(PRELUDE, 1).unwrap_or_default());
    }
    while !bytes.0.is_empty() && script.len() < MOST {
        let line = line(&parser, words, bytes);
        script.extend(parser.feed(&line, 1).unwrap_or_default());
    }
    script
}

/// One line: a statement that parses, but for rare mistakes.
pub(crate) fn line(parser: &Parser, words: Words, bytes: &mut Bytes<'_>) -> String {
    let mut line = first_word(words, bytes).to_owned();
    // No statement has more words than this, but for lists that a byte would have to keep going.
    for _ in 0..16 {
        line.push(' ');
        let next = parser.complete(&line, line.len() + 1);
        let whole = next.expected.ends_with("the end of the statement");
        let only_the_end = next.expected == "the end of the statement";
        // What completion does not say of a last word that may be left out, the parser does.
        let may_end = whole || parser.clone().feed(&line, 1).is_ok();
        if only_the_end || may_end && bytes.next().is_multiple_of(if whole { 2 } else { 4 }) {
            break;
        }
        let listed: Vec<&str> = next.candidates.iter().map(|c| c.word.as_str()).collect();
        match word(next.expected, &listed, bytes) {
            Some(word) => line.push_str(&word),
            None => break,
        }
    }
    line.truncate(line.trim_end().len());
    line
}

fn first_word(words: Words, bytes: &mut Bytes<'_>) -> &'static str {
    let at = usize::from(bytes.next());
    if at < 192 {
        return match words {
            Words::All if at >= 96 => BY_OTHERS[at % BY_OTHERS.len()],
            _ => OFTEN[at % OFTEN.len()],
        };
    }
    let there = |w: &&str| words == Words::All || !LATER.contains(w);
    let drawn = STATEMENTS.iter().map(|(word, _)| *word).filter(|w| !NEVER.contains(w));
    let all: Vec<&str> = drawn.filter(there).collect();
    all[(at - 192) % all.len()]
}

/// A word for a place that completion describes as `expected` and lists `listed` for.
fn word(expected: &str, listed: &[&str], bytes: &mut Bytes<'_>) -> Option<String> {
    let begins = |with: &str| expected.starts_with(with);
    // Words are listed with what makes sense first: three of four draws take the first half. A listed word may want a number at its end, and most places that
    // list some take others as well.
    let some_listed = |bytes: &mut Bytes<'_>| {
        let draw = usize::from(bytes.next());
        let among = if draw < 192 { listed.len().div_ceil(2) } else { listed.len() };
        let word = listed[draw % among];
        Some(if word.ends_with([':', '=']) {
            format!("{word}{}", bytes.below(4))
        } else {
            word.to_owned()
        })
    };
    if begins("a process slot") {
        Some(bytes.below(8).to_string())
    } else if begins("a process") || begins("`-x`, a process") || begins("`*` or a process") {
        let slots = ["0", "0", "1", "1", "2", "3", "0", "7"];
        let others = !listed.is_empty() && bytes.next().is_multiple_of(4);
        if others { some_listed(bytes) } else { Some(bytes.pick(&slots).to_owned()) }
    } else if begins("a file") {
        let others = !listed.is_empty() && bytes.next().is_multiple_of(4);
        if others { some_listed(bytes) } else { Some(bytes.below(4).to_string()) }
    } else if begins("a new name") {
        Some(bytes.pick(&["$a", "$b"]).to_owned())
    } else if begins("an address") {
        Some(address(listed, bytes))
    } else if begins("a length") || begins("PAGES[+BYTES]") {
        Some(length(listed, bytes))
    } else if begins("a number of bytes") {
        Some(if listed.is_empty() || !bytes.next().is_multiple_of(4) {
            size(bytes)
        } else {
            listed[0].to_owned()
        })
    } else if begins("a byte") {
        Some(bytes.next().to_string())
    } else if begins("a frame number") {
        Some((u32::from(bytes.next()) << 2).to_string())
    } else if begins("a number") || begins("the number") {
        Some(bytes.below(24).to_string())
    } else if begins("the name of a counter") {
        Some(bytes.pick(&["cow_fault", "zfod", "pgrec", "nothing"]).to_owned())
    } else if begins("a quoted text") {
        Some("\"x\"".to_owned())
    } else if expected.contains("path") || listed.is_empty() {
        None
    } else {
        some_listed(bytes)
    }
}

fn address(listed: &[&str], bytes: &mut Bytes<'_>) -> String {
    let how = bytes.next();
    let page = bytes.below(ARENA as usize - 2);
    match how {
        0..=191 => page.to_string(),
        192..=215 => format!("{page}+{}", u32::from(bytes.next()) * 16 + u32::from(how) % 16),
        216..=231 => format!("b:{}", page % 8),
        232..=239 => format!("0x{:x}", 0x7fff_ff00_0000_u64 + u64::from(bytes.next()) * 0x10_0000),
        _ if listed.is_empty() => page.to_string(),
        _ => {
            let word = bytes.pick(listed);
            if word.ends_with(':') { format!("{word}{page}") } else { word.to_owned() }
        }
    }
}

fn length(listed: &[&str], bytes: &mut Bytes<'_>) -> String {
    let how = bytes.next();
    match how {
        0..=191 => (1 + how % 8).to_string(),
        192..=239 => format!("{}+{}", how % 3, u32::from(bytes.next()) * 16 + u32::from(how) % 16),
        240..=243 => "0".to_owned(),
        244..=247 => format!("{}k", bytes.next()),
        _ if listed.is_empty() => "20".to_owned(),
        _ => bytes.pick(listed).to_owned(),
    }
}

fn size(bytes: &mut Bytes<'_>) -> String {
    let pages = u32::from(bytes.next()) % 12;
    match bytes.next() {
        0..=127 => (pages * 4096).to_string(),
        128..=159 => format!("{}k", pages * 4),
        160..=163 => "0x7fffffffffffffff".to_owned(),
        164..=167 => u64::MAX.to_string(),
        more => (pages * 4096 + u32::from(more) * 16 + 1).to_string(),
    }
}
