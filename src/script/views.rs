//! The statements that look: views and expectations.

use super::ast::*;
use super::error::NameKind;
use super::numbers::{NumberError, addr, number};
use super::outcome::{BusCode, Errno, SegvCode, TrapCode};
use super::words::{ADDR, Class, Cursor, Open, Stop};

const JSON: (&str, &str) = ("--json", "as JSON");

/// Reads what follows the name of a view.
pub(super) fn view(name: &str, c: &mut Cursor<'_>) -> Result<ViewRequest, Stop> {
    let kind = match name {
        "::pmap" => pmap(c)?,
        "::seg" => ViewKind::Seg(space(c)?),
        "::segtree" => ViewKind::SegTree(space(c)?),
        "::anon" => return anon(c),
        "::page" => return pages(c),
        "::memstat" => ViewKind::Memstat,
        "::vnode" => ViewKind::Vnode(c.file()?),
        "::hash" => ViewKind::Hash,
        "::vatopfn" => ViewKind::VaToPfn(c.proc()?, c.addr()?),
        "::htable" => ViewKind::HTable(c.proc()?),
        "::swapinfo" => ViewKind::SwapInfo,
        "::vmstat" => return vmstat(c),
        _ => ViewKind::Walk(c.proc()?, c.addr()?),
    };
    Ok(ViewRequest { kind, json: json(c)? })
}

/// The `--json` that may end a view.
fn json(c: &mut Cursor<'_>) -> Result<bool, Stop> {
    static END: Class = Class::new("`--json` or the end of the statement").with(&[JSON]);
    if c.at_end() {
        return Ok(false);
    }
    c.word(&END, |w| (w == "--json").then_some(true))
}

fn space(c: &mut Cursor<'_>) -> Result<SpaceRef, Stop> {
    static SPACE: Class = Class::new("a process, 0 to 7 or `$name`, or `kas`")
        .with(&[("kas", "the kernel's address space")])
        .naming(NameKind::Process);
    let token = c.take(&SPACE)?;
    if token.text == "kas" {
        return Ok(SpaceRef::Kernel);
    }
    c.proc_of(token, &SPACE).map(SpaceRef::Process)
}

fn pmap(c: &mut Cursor<'_>) -> Result<ViewKind, Stop> {
    static FIRST: Class = Class::new("`-x`, a process, 0 to 7 or `$name`, or `kas`")
        .with(&[
            ("-x", "with residency, anonymous and locked columns"),
            ("kas", "the kernel's address space"),
        ])
        .naming(NameKind::Process);
    let token = c.take(&FIRST)?;
    Ok(match token.text.as_str() {
        "-x" => ViewKind::Pmap { space: space(c)?, extended: true },
        "kas" => ViewKind::Pmap { space: SpaceRef::Kernel, extended: false },
        _ => {
            let space = SpaceRef::Process(c.proc_of(token, &FIRST)?);
            ViewKind::Pmap { space, extended: false }
        }
    })
}

fn anon(c: &mut Cursor<'_>) -> Result<ViewRequest, Stop> {
    static REST: Class =
        Class::new("an address, `--json` or the end of the statement").with(&[JSON]);
    let proc = c.proc()?;
    if c.at_end() {
        return Ok(ViewRequest { kind: ViewKind::Anon(proc, None), json: false });
    }
    let token = c.take(&REST)?;
    if token.text == "--json" {
        return Ok(ViewRequest { kind: ViewKind::Anon(proc, None), json: true });
    }
    let at = addr(&token.text).map_err(|e| match e {
        NumberError::NotOne => c.unexpected(token, &REST),
        e => c.number_mistake(token, &ADDR, e),
    })?;
    Ok(ViewRequest { kind: ViewKind::Anon(proc, Some(at)), json: json(c)? })
}

fn pages(c: &mut Cursor<'_>) -> Result<ViewRequest, Stop> {
    static WHICH: Class =
        Class::new("a file, 0 to 15 or `$name`, `pfn`, `--json` or the end of the statement")
            .with(&[("pfn", "N -- one frame"), JSON])
            .naming(NameKind::File);
    static PFN: Class = Class::new("a frame number");
    if c.at_end() {
        return Ok(ViewRequest { kind: ViewKind::Pages, json: false });
    }
    let token = c.take(&WHICH)?;
    let kind = match token.text.as_str() {
        "--json" => return Ok(ViewRequest { kind: ViewKind::Pages, json: true }),
        "pfn" => ViewKind::PageAt(c.count(&PFN)?),
        _ => ViewKind::FilePages(c.file_of(token, &WHICH)?),
    };
    Ok(ViewRequest { kind, json: json(c)? })
}

fn vmstat(c: &mut Cursor<'_>) -> Result<ViewRequest, Stop> {
    static NAME: Class = Class::new("the name of a counter, `--json` or the end of the statement")
        .with(&[JSON])
        .open(Open::Counter);
    let mut names = Vec::new();
    let mut json = false;
    while !json && !c.at_end() {
        let word = c.word(&NAME, |w| (w == "--json" || is_counter(w)).then(|| w.to_owned()))?;
        json = word == "--json";
        if !json {
            names.push(word);
        }
    }
    Ok(ViewRequest { kind: ViewKind::VmStat(names), json })
}

/// Says whether `word` can be the name of a counter.
fn is_counter(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// Reads what follows `expect`.
pub(super) fn expectation(c: &mut Cursor<'_>) -> Result<Expectation, Stop> {
    static WHAT: Class =
        Class::new("`ok`, an errno, `SEGV`, `BUS`, `skip`, a quoted text, `not` or `counter`")
            .with(&[
                ("ok", "[moved] [n=] [h=] [b=] -- it was done"),
                ("SEGV", "[at=] [code=] -- it stopped with SIGSEGV"),
                ("BUS", "[at=] [code=] -- it stopped with SIGBUS"),
                ("TRAP", "[at=] [code=] -- it stopped at a watched byte"),
                ("skip", "nothing was done"),
                ("not", "\"TEXT\" -- the view does not show this"),
                ("counter", "NAME [+][>=]N -- what was counted"),
                ("ENOMEM", "no memory, or no such addresses"),
                ("EINVAL", "invalid argument"),
                ("EAGAIN", "no resources now"),
                ("EACCES", "permission denied"),
                ("EBADF", "bad file descriptor"),
                ("EFAULT", "bad address"),
                ("EBUSY", "in use"),
                ("ENOTSUP", "not supported"),
                ("EEXIST", "exists already"),
                ("EIO", "input or output error"),
                ("ENXIO", "no such device or address"),
                ("EOVERFLOW", "value too large"),
            ]);
    static TEXT: Class = Class::new("a quoted text");
    let token = c.take(&WHAT)?;
    if let Some(text) = token.quoted() {
        return Ok(Expectation::Text { text, present: true });
    }
    Ok(match token.text.as_str() {
        "not" => Expectation::Text { text: c.text(&TEXT)?, present: false },
        "counter" => counter(c)?,
        "ok" => Expectation::Outcome(expect_ok(c)?),
        "SEGV" => {
            let mut at = None;
            let mut code = None;
            stop_words(c, &mut at, |w| {
                code = Some(match w {
                    "maperr" => SegvCode::Maperr,
                    "accerr" => SegvCode::Accerr,
                    _ => return None,
                });
                Some(())
            })?;
            Expectation::Outcome(ExpectedOutcome::Segv { at, code })
        }
        "TRAP" => {
            let mut at = None;
            let mut code = None;
            stop_words(c, &mut at, |w| {
                code = Some(match w {
                    "rwatch" => TrapCode::Rwatch,
                    "wwatch" => TrapCode::Wwatch,
                    "xwatch" => TrapCode::Xwatch,
                    _ => return None,
                });
                Some(())
            })?;
            Expectation::Outcome(ExpectedOutcome::Trap { at, code })
        }
        "BUS" => {
            let mut at = None;
            let mut code = None;
            stop_words(c, &mut at, |w| {
                code = Some(match w {
                    "adrerr" => BusCode::Adrerr,
                    "objerr" => BusCode::Objerr,
                    "adraln" => BusCode::Adraln,
                    _ => return None,
                });
                Some(())
            })?;
            Expectation::Outcome(ExpectedOutcome::Bus { at, code })
        }
        "skip" => Expectation::Outcome(ExpectedOutcome::Skip),
        word => match Errno::from_name(word) {
            Some(e) => Expectation::Outcome(ExpectedOutcome::Errno(e)),
            None => return Err(c.unexpected(token, &WHAT)),
        },
    })
}

/// The words `at=` and `code=` behind a signal.
fn stop_words(
    c: &mut Cursor<'_>,
    at: &mut Option<u64>,
    mut code: impl FnMut(&str) -> Option<()>,
) -> Result<(), Stop> {
    static WORDS: Class =
        Class::new("`at=N`, a `code=` of this signal, or the end of the statement").with(&[
            ("at=", "bytes done before"),
            ("code=maperr", "SEGV: nothing is mapped there"),
            ("code=accerr", "SEGV: the mapping does not allow it"),
            ("code=objerr", "BUS: the object behind the mapping failed"),
            ("code=adrerr", "BUS: no such physical address"),
            ("code=adraln", "BUS: misaligned"),
            ("code=rwatch", "TRAP: a load"),
            ("code=wwatch", "TRAP: a store"),
            ("code=xwatch", "TRAP: an instruction fetch"),
        ]);
    while !c.at_end() {
        c.measure(&WORDS, |w| {
            match w.split_once('=') {
                Some(("at", n)) => *at = Some(number(n)?),
                Some(("code", w)) => code(w).ok_or(NumberError::NotOne)?,
                _ => return Err(NumberError::NotOne),
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn expect_ok(c: &mut Cursor<'_>) -> Result<ExpectedOutcome, Stop> {
    static WORDS: Class =
        Class::new("`moved`, `n=COUNT`, `h=HASH`, `b=BYTES` or the end of the statement").with(&[
            ("moved", "a hint was not followed"),
            ("n=", "a count"),
            ("h=", "a hash, 16 digits"),
            ("b=", "how the bytes shown begin, in hexadecimal"),
        ]);
    let (mut moved, mut n, mut h, mut b) = (false, None, None, None);
    while !c.at_end() {
        c.measure(&WORDS, |w| {
            match w.split_once('=') {
                None if w == "moved" => moved = true,
                Some(("n", v)) => n = Some(number(v)?),
                Some(("h", v)) if v.len() == 16 => {
                    h = Some(u64::from_str_radix(v, 16).map_err(|_| NumberError::NotOne)?);
                }
                Some(("b", v)) => b = Some(v.parse().map_err(|()| NumberError::NotOne)?),
                _ => return Err(NumberError::NotOne),
            }
            Ok(())
        })?;
    }
    Ok(ExpectedOutcome::Ok { moved, n, h, b })
}

fn counter(c: &mut Cursor<'_>) -> Result<Expectation, Stop> {
    static NAME: Class = Class::new("the name of a counter").open(Open::Counter);
    static VALUE: Class = Class::new("N, +N, >=N or +>=N").with(&[
        ("+", "N -- exactly so many during the last operation"),
        (">=", "N -- at least so many"),
        ("+>=", "N -- at least so many during the last operation"),
    ]);
    let name = c.word(&NAME, |w| is_counter(w).then(|| w.to_owned()))?;
    c.measure(&VALUE, |w| {
        let (delta, w) = w.strip_prefix('+').map_or((false, w), |w| (true, w));
        let (at_least, w) = w.strip_prefix(">=").map_or((false, w), |w| (true, w));
        Ok(Expectation::Counter { name, delta, at_least, value: number(w)? })
    })
}
