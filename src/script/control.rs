//! The statements that ask or tell the system about memory: `personality`, `share`, `memcntl`, `meminfo`.

use std::fmt;

use super::ast::{ControlCommand, MemQuestions, Operation, PageChoice, Range, SystemName};
use super::print::joined_or;
use super::words::{Class, Cursor, Stop};

/// Reads one of them behind its first word.
pub(super) fn read(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static SYSTEM: Class = Class::of(SystemName::WORDS);
    let proc = c.proc()?;
    if word == "personality" {
        return Ok(Operation::Personality(proc, c.word(&SYSTEM, SystemName::from_word)?));
    }
    if word == "meminfo" {
        return Ok(Operation::MemInfo { proc, addr: c.addr()?, what: questions(c)? });
    }
    let range = Range { proc, addr: c.addr()?, len: c.length()? };
    if word == "share" {
        return Ok(Operation::ShareRange { range, into: c.proc()?, to: c.addr()? });
    }
    static COMMAND: Class = Class::of(ControlCommand::WORDS);
    static ARGUMENT: Class = Class::new("the command's argument, a number (12, 0x1000)");
    Ok(Operation::MemCntl {
        range,
        command: c.word(&COMMAND, ControlCommand::from_word)?,
        arg: c.measure(&ARGUMENT, super::numbers::bytes)?,
        pages: choice(c)?,
    })
}

fn choice(c: &mut Cursor<'_>) -> Result<PageChoice, Stop> {
    static CHOICE: Class = Class::new(
        "`all`, `bad`, or letters of `rwx` and `shared`, `private` joined by `+`",
    )
    .with(&[
        ("all", "every page"),
        ("r", "private pages that can be loaded and nothing else"),
        ("rw+private", "private pages that can be stored to"),
        ("rw+shared", "shared pages that can be stored to"),
        ("rx+private", "a program's text"),
        ("shared+private", "both, which is a mistake"),
        ("bad", "a bit that means nothing"),
    ]);
    c.word(&CHOICE, PageChoice::from_word)
}

fn questions(c: &mut Cursor<'_>) -> Result<MemQuestions, Stop> {
    static WHAT: Class =
        Class::new("`none`, or `physical`, `group`, `pagesize`, `replicas` joined by `+`").with(&[
            ("physical", "the physical address"),
            ("group", "the locality group"),
            ("pagesize", "the size of the page"),
            ("replicas", "how many replicas there are"),
            ("physical+group+pagesize", "three questions"),
            ("none", "no question, which is a mistake"),
        ]);
    c.word(&WHAT, MemQuestions::from_word)
}

impl PageChoice {
    fn from_word(word: &str) -> Option<Self> {
        let mut choice = PageChoice::default();
        match word {
            "all" => return Some(choice),
            "bad" => return Some(PageChoice { bad: true, ..choice }),
            _ => {}
        }
        for part in word.split('+') {
            match part {
                "shared" => choice.shared = true,
                "private" => choice.private = true,
                "" => return None,
                letters => {
                    for letter in letters.chars() {
                        let flag = match letter {
                            'r' => &mut choice.read,
                            'w' => &mut choice.write,
                            'x' => &mut choice.exec,
                            _ => return None,
                        };
                        *flag = true;
                    }
                }
            }
        }
        Some(choice)
    }
}

impl fmt::Display for PageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bad {
            return f.write_str("bad");
        }
        let letters: String = [(self.read, 'r'), (self.write, 'w'), (self.exec, 'x')]
            .into_iter()
            .filter_map(|(on, letter)| on.then_some(letter))
            .collect();
        let words = [
            (!letters.is_empty(), letters.as_str()),
            (self.shared, "shared"),
            (self.private, "private"),
        ];
        joined_or(f, &words, "all")
    }
}

impl MemQuestions {
    fn from_word(word: &str) -> Option<Self> {
        let mut what = MemQuestions::default();
        if word == "none" {
            return Some(what);
        }
        for question in word.split('+') {
            match question {
                "physical" => what.physical = true,
                "group" => what.group = true,
                "pagesize" => what.pagesize = true,
                "replicas" => what.replicas = true,
                _ => return None,
            }
        }
        Some(what)
    }
}

impl fmt::Display for MemQuestions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.physical, "physical"),
            (self.group, "group"),
            (self.pagesize, "pagesize"),
            (self.replicas, "replicas"),
        ];
        joined_or(f, &words, "none")
    }
}
