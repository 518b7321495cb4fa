//! Reading one word after another, and knowing what may stand next.
//!
//! The parser asks a [`Cursor`] for words, naming the [`Class`] of words that may stand there. One
//! grammar so serves three ends: the value, the message when the word is none of its class (with
//! the nearest word that is), and completion. For completion the parser reads the words before
//! the cursor; where it asks for one more, it is stopped with the class it asked for.

use std::collections::BTreeMap;

use super::ast::{Addr, FileRef, Length, ProcRef};
use super::error::{NameKind, ParseError, Problem, nearest};
use super::numbers::{NumberError, addr, bytes, decimal, length, number, small};
use super::token::{Span, Token};

/// What may stand at one place of a statement.
#[derive(Debug)]
pub(super) struct Class {
    /// In words, after "expected"; empty when the words themselves say it.
    pub(super) what: &'static str,
    /// Words that may stand there, with what they mean.
    pub(super) words: &'static [(&'static str, &'static str)],
    /// Names that may stand there.
    pub(super) names: Option<NameKind>,
    /// What else may stand there and only the surroundings can list.
    pub(super) open: Open,
}

/// Words that the grammar cannot list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Open {
    /// None.
    Closed,
    /// A quoted path of the host.
    Path,
    /// The name of a counter.
    Counter,
}

impl Class {
    /// A class of listed words.
    pub(super) const fn of(words: &'static [(&'static str, &'static str)]) -> Class {
        Class { what: "", words, names: None, open: Open::Closed }
    }

    /// A class that needs words to describe it.
    pub(super) const fn new(what: &'static str) -> Class {
        Class { what, words: &[], names: None, open: Open::Closed }
    }

    /// The same class with words to offer.
    pub(super) const fn with(self, words: &'static [(&'static str, &'static str)]) -> Class {
        Class { words, ..self }
    }

    /// The same class with names.
    pub(super) const fn naming(self, kind: NameKind) -> Class {
        Class { names: Some(kind), ..self }
    }

    /// The same class with words that only the surroundings can list.
    pub(super) const fn open(self, open: Open) -> Class {
        Class { open, ..self }
    }

    fn describe(&self) -> String {
        if !self.what.is_empty() {
            return self.what.into();
        }
        let mut out = String::new();
        for (i, (word, _)) in self.words.iter().enumerate() {
            let joint = match i {
                0 => "",
                _ if i + 1 == self.words.len() => " or ",
                _ => ", ",
            };
            out.push_str(&format!("{joint}`{word}`"));
        }
        out
    }
}

/// Why the parser stopped.
#[derive(Debug)]
pub(super) enum Stop {
    /// A mistake.
    Mistake(ParseError),
    /// Completion: such a word may stand at the cursor.
    Wanted(&'static Class),
}

impl From<ParseError> for Stop {
    fn from(e: ParseError) -> Self {
        Stop::Mistake(e)
    }
}

/// The names a script has given so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Names(BTreeMap<String, NameKind>);

impl Names {
    pub(super) fn declare(&mut self, name: &str, kind: NameKind) {
        self.0.insert(name.to_owned(), kind);
    }

    pub(super) fn kind(&self, name: &str) -> Option<NameKind> {
        self.0.get(name).copied()
    }

    pub(super) fn of(&self, kind: NameKind) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(_, k)| **k == kind).map(|(n, _)| n.as_str())
    }
}

/// Most slots the trace language has for processes.
pub(super) const PROC_SLOTS: u32 = 8;
/// Most slots the trace language has for files.
pub(super) const FILE_SLOTS: u32 = 16;

/// The words of one statement, read from left to right.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    tokens: &'a [Token],
    next: usize,
    end: Span,
    names: &'a Names,
    probing: bool,
}

impl<'a> Cursor<'a> {
    /// Reads `tokens`; `probing` asks what may follow them.
    pub(super) fn new(tokens: &'a [Token], end: Span, names: &'a Names, probing: bool) -> Self {
        Cursor { tokens, next: 0, end, names, probing }
    }

    /// Says whether the statement is over. It is not while completion asks what may follow.
    pub(super) fn at_end(&self) -> bool {
        self.next == self.tokens.len() && !self.probing
    }

    /// The next word, of class `class`.
    pub(super) fn take(&mut self, class: &'static Class) -> Result<&'a Token, Stop> {
        match self.tokens.get(self.next) {
            Some(token) => {
                self.next += 1;
                Ok(token)
            }
            None if self.probing => Err(Stop::Wanted(class)),
            None => {
                let problem = Problem::Expected { what: class.describe(), found: None, hint: None };
                Err(ParseError { span: self.end, problem }.into())
            }
        }
    }

    /// The complaint that `token` is not of class `class`.
    pub(super) fn unexpected(&self, token: &Token, class: &Class) -> Stop {
        let words = class.words.iter().map(|(w, _)| *w);
        let problem = Problem::Expected {
            what: class.describe(),
            found: Some(token.text.clone()),
            hint: nearest(&token.text, words),
        };
        ParseError { span: token.span, problem }.into()
    }

    /// The next word, translated by `read`.
    pub(super) fn word<T>(
        &mut self,
        class: &'static Class,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Stop> {
        let token = self.take(class)?;
        read(&token.text).ok_or_else(|| self.unexpected(token, class))
    }

    /// The next word, translated by `read`, which tells a wrong word from a number too large.
    pub(super) fn measure<T>(
        &mut self,
        class: &'static Class,
        read: impl FnOnce(&str) -> Result<T, NumberError>,
    ) -> Result<T, Stop> {
        let token = self.take(class)?;
        read(&token.text).map_err(|e| self.number_mistake(token, class, e))
    }

    /// The complaint about a number.
    pub(super) fn number_mistake(&self, token: &Token, class: &Class, e: NumberError) -> Stop {
        match e {
            NumberError::NotOne => self.unexpected(token, class),
            NumberError::TooLarge(limit) => {
                let problem = Problem::TooLarge { found: token.text.clone(), limit };
                ParseError { span: token.span, problem }.into()
            }
        }
    }

    /// A quoted word.
    pub(super) fn text(&mut self, class: &'static Class) -> Result<String, Stop> {
        let token = self.take(class)?;
        token.quoted().ok_or_else(|| self.unexpected(token, class))
    }

    /// The end of the statement, which began with `statement`.
    pub(super) fn finish(&mut self, statement: &str) -> Result<(), Stop> {
        static NOTHING: Class = Class::new("the end of the statement");
        match self.tokens.get(self.next) {
            None if self.probing => Err(Stop::Wanted(&NOTHING)),
            None => Ok(()),
            Some(token) => {
                let (statement, found) = (statement.to_owned(), token.text.clone());
                let problem = Problem::Surplus { statement, found };
                Err(ParseError { span: token.span, problem }.into())
            }
        }
    }

    /// A process that exists already.
    pub(super) fn proc(&mut self) -> Result<ProcRef, Stop> {
        static PROC: Class = Class::new("a process, 0 to 7 or `$name`").naming(NameKind::Process);
        let token = self.take(&PROC)?;
        self.proc_of(token, &PROC)
    }

    /// The process that `token` means.
    pub(super) fn proc_of(&self, token: &Token, class: &Class) -> Result<ProcRef, Stop> {
        Ok(match self.reference(token, class, NameKind::Process, PROC_SLOTS)? {
            Reference::Slot(n) => ProcRef::Slot(n),
            Reference::Name(n) => ProcRef::Name(self.known(token, n, NameKind::Process)?),
        })
    }

    /// A process that this statement may make.
    pub(super) fn new_proc(&mut self) -> Result<ProcRef, Stop> {
        static PROC: Class =
            Class::new("a process to make, 0 to 7 or `$name`").naming(NameKind::Process);
        let token = self.take(&PROC)?;
        Ok(match self.reference(token, &PROC, NameKind::Process, PROC_SLOTS)? {
            Reference::Slot(n) => ProcRef::Slot(n),
            Reference::Name(n) => ProcRef::Name(n),
        })
    }

    /// A file that exists already.
    pub(super) fn file(&mut self) -> Result<FileRef, Stop> {
        static FILE: Class = Class::new("a file, 0 to 15 or `$name`").naming(NameKind::File);
        let token = self.take(&FILE)?;
        self.file_of(token, &FILE)
    }

    /// The file that `token` means.
    pub(super) fn file_of(&self, token: &Token, class: &Class) -> Result<FileRef, Stop> {
        Ok(match self.reference(token, class, NameKind::File, FILE_SLOTS)? {
            Reference::Slot(n) => FileRef::Slot(n),
            Reference::Name(n) => FileRef::Name(self.known(token, n, NameKind::File)?),
        })
    }

    /// A file that this statement may make.
    pub(super) fn new_file(&mut self) -> Result<FileRef, Stop> {
        static FILE: Class =
            Class::new("a file to make, 0 to 15 or `$name`").naming(NameKind::File);
        let token = self.take(&FILE)?;
        Ok(match self.reference(token, &FILE, NameKind::File, FILE_SLOTS)? {
            Reference::Slot(n) => FileRef::Slot(n),
            Reference::Name(n) => FileRef::Name(n),
        })
    }

    /// A name that nothing has yet, or that names a `kind` already.
    pub(super) fn name(&mut self, class: &'static Class, kind: NameKind) -> Result<String, Stop> {
        let token = self.take(class)?;
        match self.reference(token, class, kind, 0)? {
            Reference::Name(n) => Ok(n),
            Reference::Slot(_) => Err(self.unexpected(token, class)),
        }
    }

    fn reference(
        &self,
        token: &Token,
        class: &Class,
        kind: NameKind,
        slots: u32,
    ) -> Result<Reference, Stop> {
        if let Some(name) = token.text.strip_prefix('$') {
            if !is_name(name) {
                return Err(self.unexpected(token, class));
            }
            return match self.names.kind(name) {
                Some(other) if other != kind => {
                    let problem = Problem::Taken { name: token.text.clone(), kind: other };
                    Err(ParseError { span: token.span, problem }.into())
                }
                _ => Ok(Reference::Name(name.to_owned())),
            };
        }
        match decimal(&token.text) {
            Ok(n) if n < u64::from(slots) => Ok(Reference::Slot(n as u32)),
            _ => Err(self.unexpected(token, class)),
        }
    }

    fn known(&self, token: &Token, name: String, kind: NameKind) -> Result<String, Stop> {
        if self.names.kind(&name).is_some() {
            return Ok(name);
        }
        let hint = nearest(&name, self.names.of(kind)).map(|n| format!("${n}"));
        let problem = Problem::Undeclared { name: token.text.clone(), kind, hint };
        Err(ParseError { span: token.span, problem }.into())
    }

    /// An address.
    pub(super) fn addr(&mut self) -> Result<Addr, Stop> {
        self.measure(&ADDR, addr)
    }

    /// A length.
    pub(super) fn length(&mut self) -> Result<Length, Stop> {
        static LENGTH: Class = Class::new(
            "a length: PAGES[+BYTES], bytes as 0x2000 or 64k, `@max`, `@maxpg` or `@wrap`",
        )
        .with(&[
            ("@max", "2^64 - 1"),
            ("@maxpg", "2^64 - 4096"),
            ("@wrap", "so that address + length is 2^64 + 4096"),
        ]);
        self.measure(&LENGTH, length)
    }

    /// A length or an offset that none of the `@` words can be.
    pub(super) fn plain_length(&mut self) -> Result<Length, Stop> {
        static LENGTH: Class = Class::new("PAGES[+BYTES], or bytes as 0x2000 or 64k");
        self.measure(
            &LENGTH,
            |w| {
                if w.starts_with('@') { Err(NumberError::NotOne) } else { length(w) }
            },
        )
    }

    /// A number of bytes.
    pub(super) fn bytes(&mut self) -> Result<u64, Stop> {
        static BYTES: Class = Class::new("a number of bytes (8192, 0x2000, 8k)");
        self.measure(&BYTES, bytes)
    }

    /// A number that `class` describes.
    pub(super) fn count(&mut self, class: &'static Class) -> Result<u64, Stop> {
        self.measure(class, number)
    }

    /// A number that `class` describes and that fits in 32 bits.
    pub(super) fn small(&mut self, class: &'static Class) -> Result<u32, Stop> {
        self.measure(class, small)
    }

    /// A byte to store.
    pub(super) fn byte(&mut self) -> Result<u8, Stop> {
        static BYTE: Class = Class::new("a byte, 0 to 255");
        self.measure(&BYTE, |w| {
            u8::try_from(number(w)?).map_err(|_| NumberError::TooLarge("a byte is 0 to 255".into()))
        })
    }

    /// The CPU an access runs on, if the statement names one.
    pub(super) fn cpu(&mut self) -> Result<Option<u32>, Stop> {
        static CPU: Class = Class::new("`cpu=N` or the end of the statement")
            .with(&[("cpu=", "the CPU this access runs on")]);
        if self.at_end() {
            return Ok(None);
        }
        self.measure(&CPU, |w| {
            w.strip_prefix("cpu=").ok_or(NumberError::NotOne).and_then(small).map(Some)
        })
    }
}

/// The class of addresses.
pub(super) static ADDR: Class =
    Class::new("an address: PAGES[+BYTES], `b:`PAGES, 0x..., `@null`, `@top` or `@kern`").with(&[
        ("b:", "pages from the initial break"),
        ("@null", "address 0"),
        ("@top", "the last but one page below the user limit"),
        ("@kern", "the lowest address of the upper half"),
    ]);

enum Reference {
    Slot(u32),
    Name(String),
}

/// Says whether `name` can be a name (what follows the `$`).
pub(super) fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}
