//! The statements about a range of addresses: `map`, `unmap`, `protect` and the like.

use super::super::ast::*;
use super::super::words::{Class, Cursor, Stop};

fn range(c: &mut Cursor<'_>) -> Result<Range, Stop> {
    Ok(Range { proc: c.proc()?, addr: c.addr()?, len: c.length()? })
}

/// Protection letters.
fn prot(c: &mut Cursor<'_>) -> Result<Prot, Stop> {
    static PROT: Class = Class::new("protection letters of rwx, `-` or `bad`").with(&[
        ("rw", "read and write"),
        ("r", "read"),
        ("rx", "read and execute"),
        ("rwx", "read, write and execute"),
        ("w", "write"),
        ("x", "execute"),
        ("-", "nothing"),
        ("bad", "read, and a bit that means nothing"),
    ]);
    c.word(&PROT, |w| match w {
        "bad" => Some(Prot::Bad),
        w if w.chars().all(|c| "rwx-".contains(c)) => Some(Prot::Letters {
            read: w.contains('r'),
            write: w.contains('w'),
            exec: w.contains('x'),
        }),
        _ => None,
    })
}

pub(super) fn map(c: &mut Cursor<'_>) -> Result<Map, Stop> {
    static SHARE: Class = Class::of(Share::WORDS);
    static PLACEMENT: Class = Class::of(Placement::WORDS);
    static SOURCE: Class = Class::of(&[("anon", "zeros"), ("file", "F OFFSET -- a file's bytes")]);
    let Range { proc, addr, len } = range(c)?;
    let prot = prot(c)?;
    let share = c.word(&SHARE, Share::from_word)?;
    let placement = c.word(&PLACEMENT, Placement::from_word)?;
    let of_file = c.word(&SOURCE, |w| match w {
        "anon" => Some(false),
        "file" => Some(true),
        _ => None,
    })?;
    let source = if of_file { Source::File(c.file()?, c.plain_length()?) } else { Source::Anon };
    let flags = map_flags(c)?;
    Ok(Map { proc, addr, len, prot, share, placement, source, flags })
}

fn map_flags(c: &mut Cursor<'_>) -> Result<MapFlags, Stop> {
    static FLAG: Class =
        Class::new("`noreserve`, `populate`, `locked` or the end of the statement").with(&[
            ("noreserve", "reserve no swap"),
            ("populate", "bring the pages in now"),
            ("locked", "lock the pages"),
        ]);
    let mut flags = MapFlags::default();
    while !c.at_end() {
        let flag = c.word(&FLAG, |w| match w {
            "noreserve" => Some(&mut flags.noreserve),
            "populate" => Some(&mut flags.populate),
            "locked" => Some(&mut flags.locked),
            _ => None,
        })?;
        *flag = true;
    }
    Ok(flags)
}

pub(super) fn ranges(word: &str, c: &mut Cursor<'_>) -> Result<Operation, Stop> {
    static ADVICE: Class = Class::of(Advice::WORDS);
    static INHERIT: Class = Class::of(Inherit::WORDS);
    static PIN: Class = Class::of(PinFor::WORDS);
    let range = range(c)?;
    Ok(match word {
        "unmap" => Operation::Unmap(range),
        "protect" => Operation::Protect(range, prot(c)?),
        "advise" => Operation::Advise(range, c.word(&ADVICE, Advice::from_word)?),
        "sync" => Operation::Sync(range, sync_flags(c)?),
        "lock" => Operation::Lock(range),
        "unlock" => Operation::Unlock(range),
        "incore" => Operation::Incore(range),
        "watch" => Operation::Watch(range, watch_for(c)?),
        "unwatch" => Operation::Unwatch(range),
        "lend" => Operation::Lend(range),
        "lendanon" => Operation::LendAnon(range),
        "pin" => Operation::Pin(range, c.word(&PIN, PinFor::from_word)?),
        "inherit" => Operation::Inherit(range, c.word(&INHERIT, Inherit::from_word)?),
        _ => {
            static FLAGS: Class =
                Class::new("`none`, or `may`, `fixed`, `dontunmap` joined by `+`").with(&[
                    ("none", "stay in place"),
                    ("may", "the mapping may move"),
                    ("may+fixed", "it moves to the address given"),
                    ("may+dontunmap", "the old range stays mapped, empty"),
                ]);
            let new_len = c.length()?;
            let flags = c.word(&FLAGS, remap_flags)?;
            let to = if c.at_end() { None } else { Some(c.addr()?) };
            Operation::Remap { range, new_len, flags, to }
        }
    })
}

fn watch_for(c: &mut Cursor<'_>) -> Result<WatchFor, Stop> {
    static WHAT: Class = Class::new("letters of `rwx`, and `+after`").with(&[
        ("r", "loads"),
        ("w", "stores"),
        ("x", "instruction fetches"),
        ("rw", "loads and stores"),
        ("w+after", "stores, when they have been made"),
    ]);
    c.word(&WHAT, |word| {
        let (letters, after) = match word.strip_suffix("+after") {
            Some(letters) => (letters, true),
            None => (word, false),
        };
        let mut what = WatchFor { after, ..WatchFor::default() };
        for letter in letters.chars() {
            let flag = match letter {
                'r' => &mut what.read,
                'w' => &mut what.write,
                'x' => &mut what.exec,
                _ => return None,
            };
            if core::mem::replace(flag, true) {
                return None;
            }
        }
        (!letters.is_empty()).then_some(what)
    })
}

fn remap_flags(word: &str) -> Option<RemapFlags> {
    let mut flags = RemapFlags::default();
    if word == "none" {
        return Some(flags);
    }
    for flag in word.split('+') {
        match flag {
            "may" => flags.may = true,
            "fixed" => flags.fixed = true,
            "dontunmap" => flags.dontunmap = true,
            _ => return None,
        }
    }
    Some(flags)
}

fn sync_flags(c: &mut Cursor<'_>) -> Result<SyncFlags, Stop> {
    static FLAGS: Class = Class::new("`none`, `bad`, or `sync`, `async`, `inval` joined by `+`")
        .with(&[
            ("sync", "write and wait"),
            ("async", "start writing"),
            ("sync+inval", "write, wait and forget the pages"),
            ("async+inval", "start writing, then forget the pages"),
            ("none", "no flag"),
            ("sync+async", "both at once, which is a mistake"),
            ("bad", "a flag that means nothing"),
        ]);
    c.word(&FLAGS, |word| {
        let mut flags = SyncFlags::default();
        match word {
            "none" => return Some(flags),
            "bad" => return Some(SyncFlags { bad: true, ..flags }),
            _ => {}
        }
        for flag in word.split('+') {
            match flag {
                "sync" => flags.sync = true,
                "async" => flags.asynchronous = true,
                "inval" => flags.invalidate = true,
                _ => return None,
            }
        }
        Some(flags)
    })
}
