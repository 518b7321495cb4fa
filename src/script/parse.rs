//! From text to statements.
//!
//! The grammar is one function per family of statements, each reading its words from left to right
//! through a [`Cursor`]; `docs/script.md` is its description. A [`Parser`] keeps what earlier
//! statements decide for later ones (which names exist, whether an operation has been met), so the
//! shell feeds it one line at a time and a file is fed whole.

mod ranges;
mod settings;

use self::ranges::{map, ranges};
use self::settings::{machine, swap_spec};
use super::ast::*;
use super::control;
use super::error::{NameKind, ParseError, Problem, nearest};
use super::numbers::{bytes, small};
use super::token::{self, Words};
use super::views;
use super::words::{Class, Cursor, Names, Open, Stop};

/// Every statement's first word, with its operands and meaning.
pub const STATEMENTS: &[(&str, &str)] = &[
    ("vmtrace", "1 -- the header of a trace"),
    ("arena", "N -- pages of the arena, 1 to 2048"),
    ("machine", "KEY=VALUE... -- settings of the machine"),
    ("proc", "$NAME = SLOT -- names a process slot"),
    ("file", "F SIZE [rw|ro|wo] -- makes a file of zeros"),
    ("truncate", "F SIZE -- sets a file's size"),
    ("pwrite", "F OFF LEN BYTE -- writes to a file"),
    ("pread", "F OFF LEN -- reads from a file"),
    ("fclose", "F -- closes a file's descriptor"),
    ("map", "P A L PROT SHARE MODE anon|file F OFF [FLAG...] -- maps"),
    ("unmap", "P A L -- unmaps"),
    ("protect", "P A L PROT -- changes protection"),
    ("advise", "P A L HOW -- advises"),
    ("sync", "P A L HOW -- writes a mapping back"),
    ("lock", "P A L -- locks memory"),
    ("unlock", "P A L -- unlocks memory"),
    ("watch", "P A L r|w|x[+after] -- watches bytes"),
    ("unwatch", "P A L -- takes the watch on these bytes back"),
    ("lend", "P A L -- lends pages to the kernel; answers the loan's number"),
    ("lent", "N -- reads the pages of a loan, as the kernel"),
    ("unlend", "N -- ends a loan"),
    ("lendanon", "P A L -- lends pages to anons; answers the loan's number"),
    ("borrow", "P A N -- shows a loan to anons at A, which ends it"),
    ("pin", "P A L r|w -- pins pages for i/o that reads or writes them; answers the pin's number"),
    ("pinned", "N -- reads the pages of a pin, as the device"),
    ("unpin", "N -- lets go of the pages of a pin"),
    ("lockall", "P current|future|both -- locks all memory"),
    ("unlockall", "P -- unlocks all memory"),
    ("incore", "P A L -- asks what is resident"),
    ("brk", "P PAGES[+BYTES] -- sets the break"),
    ("remap", "P A OLD NEW HOW [A2] -- moves or resizes a mapping"),
    ("read", "P A L [cpu=N] -- loads"),
    ("write", "P A L BYTE [cpu=N] -- stores BYTE, BYTE+1, ..."),
    ("fread", "P F OFF A L [cpu=N] -- reads a file into memory"),
    ("fwrite", "P F OFF A L [cpu=N] -- writes memory to a file"),
    ("fork", "P C -- forks P into C"),
    ("exit", "P -- ends a process"),
    ("pageout", "*|P -- reclaims all that can be reclaimed"),
    ("digest", "P -- hashes all pages"),
    ("hostfile", "F \"PATH\" [ro|rw|wo] -- opens a file of the host"),
    ("exec", "P F -- loads a program into P"),
    ("spawn", "P \"PATH\" -- makes a process that runs a program"),
    ("fetch", "P A [cpu=N] -- fetches an instruction"),
    ("scan", "N -- steps of the page-out clock"),
    ("squeeze", "N -- takes N frames away"),
    ("release", "-- gives the frames taken back"),
    ("retire", "P A -- takes the frame behind A out of service, or will"),
    ("unretire", "-- puts the frames that are out of service back"),
    ("swapadd", "mem PAGES | file \"PATH\" PAGES [pri=N] -- adds a swap area"),
    ("swapdel", "N -- removes a swap area"),
    ("vfork", "P C -- C uses P's address space until it runs a program or exits"),
    ("inherit", "P A L share|copy|none|zero -- what a child of fork finds"),
    ("personality", "P illumos|linux -- whose answers the system calls give"),
    ("share", "P A L C A2 -- shows what P has in C too, at A2"),
    ("memcntl", "P A L COMMAND ARG PAGES -- controls memory, or chosen pages of it"),
    ("meminfo", "P A WHAT -- asks what is behind an address"),
    ("grow", "P A -- a fault below the stack"),
    ("setrlimit", "P stack|data|vmem|memlock N|none -- sets a limit"),
    ("expect", "ok|ERRNO|SEGV|BUS|skip ... | [not] \"TEXT\" | counter NAME [+][>=]N -- checks"),
    ("echo", "\"TEXT\" -- prints"),
    ("verify", "-- checks every invariant"),
    ("::pmap", "[-x] P [--json] -- mappings"),
    ("::seg", "P [--json] -- segments"),
    ("::segtree", "P [--json] -- the tree of segments"),
    ("::anon", "P [A] [--json] -- amaps and their slots"),
    ("::page", "[F | pfn N] [--json] -- pages"),
    ("::memstat", "[--json] -- what memory is used for"),
    ("::vnode", "F [--json] -- a file's page list"),
    ("::hash", "[--json] -- the page hash's chains"),
    ("::vatopfn", "P A [--json] -- the frame behind an address"),
    ("::htable", "P [--json] -- page tables"),
    ("::swapinfo", "[--json] -- swap areas"),
    ("::vmstat", "[NAME...] [--json] -- counters"),
    ("::walk", "P A [--json] -- from an address to its page, step by step"),
];

/// Parses a whole script.
///
/// # Errors
/// The first mistake, with its place.
pub fn parse(source: &str) -> Result<Script, ParseError> {
    let statements = Parser::new().feed(source, 1)?;
    Ok(Script { statements })
}

/// Reads scripts piece by piece, each piece knowing what came before.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    pub(super) names: Names,
    /// A statement has been met, so the header may no longer come.
    begun: bool,
    /// An operation has been met, so settings may no longer come.
    running: bool,
    arena: bool,
}

impl Parser {
    /// A parser at the start of a script.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the next lines, the first of which has the number `first_line`.
    ///
    /// # Errors
    /// The first mistake, with its place; then nothing of this piece counts.
    pub fn feed(&mut self, source: &str, first_line: u32) -> Result<Vec<Statement>, ParseError> {
        let mut after = self.clone();
        let mut out = Vec::new();
        for words in token::statements(source, first_line)? {
            out.push(after.statement(&words)?);
        }
        *self = after;
        Ok(out)
    }

    fn statement(&mut self, words: &Words) -> Result<Statement, ParseError> {
        let mut cursor = Cursor::new(&words.tokens, words.end, &self.names, false);
        let operation = match read_statement(&mut cursor) {
            Ok(operation) => operation,
            Err(Stop::Mistake(e)) => return Err(e),
            Err(Stop::Wanted(_)) => unreachable!("only completion probes"),
        };
        let first = &words.tokens[0];
        if let Some(rule) = self.misplaced(&operation) {
            let problem = Problem::Misplaced { statement: first.text.clone(), rule };
            return Err(ParseError { span: first.span, problem });
        }
        self.note(&operation);
        Ok(Statement { operation, words: words.tokens.iter().map(|t| t.span).collect() })
    }

    /// The rule that `operation` breaks by standing here, if any.
    fn misplaced(&self, operation: &Operation) -> Option<&'static str> {
        match operation {
            Operation::Header if self.begun => Some("only as the first statement"),
            Operation::Arena(_) if self.running => Some("only before the first operation"),
            Operation::Arena(_) if self.arena => Some("only once"),
            Operation::Machine(_) if self.running => Some("only before the first operation"),
            _ => None,
        }
    }

    /// Keeps what later statements need to know.
    fn note(&mut self, operation: &Operation) {
        use Operation as O;
        self.begun = true;
        self.arena |= matches!(operation, O::Arena(_));
        self.running |=
            operation.has_outcome() || matches!(operation, O::View(_) | O::Verify | O::Expect(_));
        match operation {
            O::Proc { name, .. }
            | O::Fork { child: ProcRef::Name(name), .. }
            | O::Vfork { child: ProcRef::Name(name), .. }
            | O::Spawn { proc: ProcRef::Name(name), .. } => {
                self.names.declare(name, NameKind::Process);
            }
            O::File { file: FileRef::Name(name), .. }
            | O::HostFile { file: FileRef::Name(name), .. } => {
                self.names.declare(name, NameKind::File);
            }
            _ => {}
        }
    }
}

/// Reads one statement.
pub(super) fn read_statement(c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static FIRST: Class = Class::new("a statement").with(STATEMENTS);
    let first = c.take(&FIRST)?;
    let word = first.text.as_str();
    if !STATEMENTS.iter().any(|(w, _)| *w == word) {
        let hint = nearest(word, STATEMENTS.iter().map(|(w, _)| *w));
        let problem = Problem::UnknownStatement { found: word.to_owned(), hint };
        return Err(ParseError { span: first.span, problem }.into());
    }
    let operation = match word {
        "vmtrace" | "arena" | "machine" | "proc" => header(word, c)?,
        "file" | "truncate" | "pwrite" | "pread" | "fclose" | "hostfile" => files(word, c)?,
        "read" | "write" | "fread" | "fwrite" | "fetch" => accesses(word, c)?,
        "map" => Operation::Map(map(c)?),
        "unmap" | "protect" | "advise" | "sync" | "lock" | "unlock" | "incore" | "remap"
        | "watch" | "unwatch" | "inherit" | "lend" | "lendanon" | "pin" => ranges(word, c)?,
        "lockall" | "unlockall" | "brk" | "fork" | "vfork" | "exit" | "pageout" | "digest"
        | "exec" | "spawn" | "grow" | "borrow" | "retire" | "setrlimit" => processes(word, c)?,
        "personality" | "share" | "memcntl" | "meminfo" => control::read(word, c)?,
        "expect" => Operation::Expect(views::expectation(c)?),
        "scan" | "squeeze" | "release" | "swapadd" | "swapdel" | "lent" | "unlend" | "pinned"
        | "unpin" | "unretire" | "echo" | "verify" => machine_wide(word, c)?,
        view => Operation::View(views::view(view, c)?),
    };
    c.finish(word)?;
    Ok(operation)
}

fn header(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static VERSION: Class = Class::of(&[("1", "the version of the trace language")]);
    static PAGES: Class = Class::new("a number of pages, 1 to 2048");
    static NAME: Class = Class::new("a new name, `$name`");
    static EQUALS: Class = Class::of(&[("=", "stands for")]);
    static SLOT: Class = Class::new("a process slot, 0 to 7");
    Ok(match word {
        "vmtrace" => c.word(&VERSION, |w| (w == "1").then_some(Operation::Header))?,
        "arena" => {
            let in_bounds = |n: &u32| (1..=2048).contains(n);
            Operation::Arena(c.word(&PAGES, |w| small(w).ok().filter(in_bounds))?)
        }
        "machine" => Operation::Machine(machine(c)?),
        _ => {
            let name = c.name(&NAME, NameKind::Process)?;
            c.word(&EQUALS, |w| (w == "=").then_some(()))?;
            let slot =
                c.word(&SLOT, |w| small(w).ok().filter(|n| *n < super::words::PROC_SLOTS))?;
            Operation::Proc { name, slot }
        }
    })
}

fn mode(c: &mut Cursor<'_>) -> Result<OpenMode, Stop> {
    static MODE: Class = Class::of(OpenMode::WORDS);
    c.word(&MODE, OpenMode::from_word)
}

/// A quoted path of the host.
pub(super) fn path(c: &mut Cursor<'_>) -> Result<String, Stop> {
    static PATH: Class = Class::new("a quoted path").open(Open::Path);
    c.text(&PATH)
}

fn files(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    Ok(match word {
        "file" => {
            let (file, size) = (c.new_file()?, c.bytes()?);
            let mode = if c.at_end() { OpenMode::ReadWrite } else { mode(c)? };
            Operation::File { file, size, mode }
        }
        "hostfile" => {
            let (file, path) = (c.new_file()?, path(c)?);
            let mode = if c.at_end() { OpenMode::ReadOnly } else { mode(c)? };
            Operation::HostFile { file, path, mode }
        }
        "truncate" => Operation::Truncate { file: c.file()?, size: c.bytes()? },
        "pwrite" => Operation::Pwrite {
            file: c.file()?,
            offset: c.bytes()?,
            len: c.bytes()?,
            byte: c.byte()?,
        },
        "pread" => Operation::Pread { file: c.file()?, offset: c.bytes()?, len: c.bytes()? },
        _ => Operation::Fclose(c.file()?),
    })
}

fn accesses(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    let proc = c.proc()?;
    Ok(match word {
        "read" => {
            let range = Range { proc, addr: c.addr()?, len: c.length()? };
            Operation::Read(AccessRange { range, cpu: c.cpu()? })
        }
        "write" => {
            let range = Range { proc, addr: c.addr()?, len: c.length()? };
            let byte = c.byte()?;
            Operation::Write(AccessRange { range, cpu: c.cpu()? }, byte)
        }
        "fetch" => Operation::Fetch { proc, addr: c.addr()?, cpu: c.cpu()? },
        _ => {
            let (file, offset) = (c.file()?, c.bytes()?);
            let range = Range { proc, addr: c.addr()?, len: c.length()? };
            let transfer = Transfer { file, offset, memory: AccessRange { range, cpu: c.cpu()? } };
            if word == "fread" { Operation::Fread(transfer) } else { Operation::Fwrite(transfer) }
        }
    })
}

fn processes(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static WHAT: Class = Class::of(LockAll::WORDS);
    static LIMIT: Class = Class::of(Limit::WORDS);
    static BYTES: Class =
        Class::new("a number of bytes (8192, 0x2000, 8k) or `none`").with(&[("none", "no limit")]);
    static WHOSE: Class = Class::new("`*` or a process, 0 to 7 or `$name`")
        .with(&[("*", "every process")])
        .naming(NameKind::Process);
    Ok(match word {
        "lockall" => Operation::LockAll(c.proc()?, c.word(&WHAT, LockAll::from_word)?),
        "unlockall" => Operation::UnlockAll(c.proc()?),
        "brk" => Operation::Brk { proc: c.proc()?, to: c.plain_length()? },
        "fork" => Operation::Fork { parent: c.proc()?, child: c.new_proc()? },
        "vfork" => Operation::Vfork { parent: c.proc()?, child: c.new_proc()? },
        "exit" => Operation::Exit(c.proc()?),
        "digest" => Operation::Digest(c.proc()?),
        "pageout" => {
            let token = c.take(&WHOSE)?;
            let all = token.text == "*";
            Operation::Pageout(if all { None } else { Some(c.proc_of(token, &WHOSE)?) })
        }
        "exec" => Operation::Exec { proc: c.proc()?, file: c.file()? },
        "spawn" => Operation::Spawn { proc: c.new_proc()?, path: path(c)? },
        "grow" => Operation::Grow { proc: c.proc()?, addr: c.addr()? },
        "retire" => Operation::Retire { proc: c.proc()?, addr: c.addr()? },
        "borrow" => Operation::Borrow { proc: c.proc()?, addr: c.addr()?, loan: c.count(&LOAN)? },
        _ => Operation::SetRlimit {
            proc: c.proc()?,
            limit: c.word(&LIMIT, Limit::from_word)?,
            bytes: c
                .measure(&BYTES, |w| if w == "none" { Ok(None) } else { bytes(w).map(Some) })?,
        },
    })
}

static LOAN: Class = Class::new("the number of a loan");

fn machine_wide(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static STEPS: Class = Class::new("a number of steps");
    static FRAMES: Class = Class::new("a number of frames");
    static AREA: Class = Class::new("the number of a swap area");
    static PIN: Class = Class::new("the number of a pin");
    static TEXT: Class = Class::new("a quoted text");
    Ok(match word {
        "scan" => Operation::Scan(c.count(&STEPS)?),
        "squeeze" => Operation::Squeeze(c.count(&FRAMES)?),
        "release" => Operation::Release,
        "swapadd" => Operation::SwapAdd(swap_spec(c)?),
        "swapdel" => Operation::SwapDel(c.small(&AREA)?),
        "lent" => Operation::Lent(c.count(&LOAN)?),
        "unlend" => Operation::Unlend(c.count(&LOAN)?),
        "pinned" => Operation::Pinned(c.count(&PIN)?),
        "unpin" => Operation::Unpin(c.count(&PIN)?),
        "unretire" => Operation::Unretire,
        "echo" => Operation::Echo(c.text(&TEXT)?),
        _ => Operation::Verify,
    })
}
