//! The settings of `machine`, and swap areas.

use super::super::ast::{
    Amount, ForkPolicy, HashKind, LockedAtFork, MachineSettings, SwapBacking, SwapSpec,
};
use super::super::numbers::{NumberError, bytes, number, small, with_unit};
use super::super::token;
use super::super::words::{Class, Cursor, Stop};
use super::path;

/// The settings of `machine`.
pub(super) fn machine(c: &mut Cursor<'_>) -> Result<MachineSettings, Stop> {
    static SETTING: Class =
        Class::new("a setting: memory=, cpus=, colours=, hash=, fork=, seed= or swap=").with(&[
            ("memory=", "frames, or bytes as 64m"),
            ("cpus=", "number of simulated CPUs"),
            ("colours=", "number of page colours"),
            ("hash=chain", "chains through the page array"),
            ("hash=dashmap", "a sharded concurrent map"),
            ("fork=eager", "copy the amap's slots at fork"),
            ("fork=lazy", "share the amap until someone needs it"),
            ("locked=share", "share pages locked in memory at fork"),
            ("locked=copy", "copy them at fork"),
            ("kluster=", "pages of a file that may be read along with one"),
            ("seed=", "seed of whatever is drawn by lot"),
            ("swap=mem:", "PAGES[:PRI] -- a swap area in memory"),
            ("swap=file:", "PATH:PAGES[:PRI] -- a swap area in a file"),
        ]);
    let mut settings = MachineSettings::default();
    let mut any = false;
    while !any || !c.at_end() {
        any = true;
        let one = c.measure(&SETTING, setting)?;
        settings.merge(&one);
    }
    Ok(settings)
}

/// One `KEY=VALUE` of `machine`.
fn setting(word: &str) -> Result<MachineSettings, NumberError> {
    let mut s = MachineSettings::default();
    let (key, value) = word.split_once('=').ok_or(NumberError::NotOne)?;
    match key {
        "memory" => {
            let amount = if with_unit(value).is_some() || value.starts_with("0x") {
                Amount::Bytes(bytes(value)?)
            } else {
                Amount::Frames(number(value)?)
            };
            s.memory = Some(amount);
        }
        "cpus" => s.cpus = Some(at_least_one(small(value)?)?),
        "colours" => s.colours = Some(at_least_one(small(value)?)?),
        "seed" => s.seed = Some(number(value)?),
        "hash" => s.hash = Some(HashKind::from_word(value).ok_or(NumberError::NotOne)?),
        "fork" => s.fork = Some(ForkPolicy::from_word(value).ok_or(NumberError::NotOne)?),
        "locked" => s.locked = Some(LockedAtFork::from_word(value).ok_or(NumberError::NotOne)?),
        "kluster" => s.kluster = Some(number(value)?),
        "swap" => s.swap.push(swap_setting(value)?),
        _ => return Err(NumberError::NotOne),
    }
    Ok(s)
}

fn at_least_one(n: u32) -> Result<u32, NumberError> {
    if n == 0 { Err(NumberError::NotOne) } else { Ok(n) }
}

/// `mem:PAGES[:PRI]` or `file:PATH:PAGES[:PRI]`.
fn swap_setting(value: &str) -> Result<SwapSpec, NumberError> {
    let (kind, rest) = value.split_once(':').ok_or(NumberError::NotOne)?;
    let (path, numbers) = match kind {
        "mem" => (None, rest),
        "file" => {
            let (path, numbers) = swap_path(rest)?;
            (Some(path), numbers)
        }
        _ => return Err(NumberError::NotOne),
    };
    let (pages, priority) = match numbers.split_once(':') {
        Some((pages, p)) => (pages, Some(p.parse().map_err(|_| NumberError::NotOne)?)),
        None => (numbers, None),
    };
    let backing = path.map_or(SwapBacking::Memory, SwapBacking::File);
    Ok(SwapSpec { backing, pages: number(pages)?, priority })
}

/// Cuts the path, quoted or not, from the numbers behind it.
fn swap_path(text: &str) -> Result<(String, &str), NumberError> {
    if text.starts_with('"') {
        let end = text.rfind('"').filter(|end| *end > 0).ok_or(NumberError::NotOne)?;
        let path = token::unquote(&text[..=end]).ok_or(NumberError::NotOne)?;
        let numbers = text[end + 1..].strip_prefix(':').ok_or(NumberError::NotOne)?;
        return Ok((path, numbers));
    }
    let (head, last) = text.rsplit_once(':').ok_or(NumberError::NotOne)?;
    let (path, numbers) = match head.rsplit_once(':') {
        Some((path, pages)) if number(pages).is_ok() => (path, &text[path.len() + 1..]),
        _ => (head, last),
    };
    if path.is_empty() { Err(NumberError::NotOne) } else { Ok((path.to_owned(), numbers)) }
}

pub(super) fn swap_spec(c: &mut Cursor<'_>) -> Result<SwapSpec, Stop> {
    static KIND: Class =
        Class::of(&[("mem", "in memory"), ("file", "\"PATH\" -- in a file of the host")]);
    static PAGES: Class = Class::new("a number of pages");
    static PRIORITY: Class = Class::new("`pri=N` or the end of the statement")
        .with(&[("pri=", "areas of higher priority fill first")]);
    let in_file = c.word(&KIND, |w| match w {
        "mem" => Some(false),
        "file" => Some(true),
        _ => None,
    })?;
    let backing = if in_file { SwapBacking::File(path(c)?) } else { SwapBacking::Memory };
    let pages = c.count(&PAGES)?;
    let priority = if c.at_end() {
        None
    } else {
        Some(c.word(&PRIORITY, |w| w.strip_prefix("pri=")?.parse().ok())?)
    };
    Ok(SwapSpec { backing, pages, priority })
}
