//! The canonical text of a script.
//!
//! One statement per line, one blank between words, every optional word that has a default spelled
//! out. Parsing the text gives the same values again: `parse(print(x)) == x`.

use std::fmt;

use super::ast::*;
use super::token::quote;

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operations().try_for_each(|o| writeln!(f, "{o}"))
    }
}

impl fmt::Display for ProcRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProcRef::Slot(n) => write!(f, "{n}"),
            ProcRef::Name(n) => write!(f, "${n}"),
        }
    }
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileRef::Slot(n) => write!(f, "{n}"),
            FileRef::Name(n) => write!(f, "${n}"),
        }
    }
}

impl fmt::Display for SpaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpaceRef::Process(p) => p.fmt(f),
            SpaceRef::Kernel => f.write_str("kas"),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base {
            AddrBase::Arena(n) => write!(f, "{n}")?,
            AddrBase::Break(n) => write!(f, "b:{n}")?,
            AddrBase::Null => f.write_str("@null")?,
            AddrBase::Top => f.write_str("@top")?,
            AddrBase::Kern => f.write_str("@kern")?,
            AddrBase::Absolute(a) => write!(f, "{a:#x}")?,
        }
        plus(f, self.plus)
    }
}

fn plus(f: &mut fmt::Formatter<'_>, bytes: u64) -> fmt::Result {
    if bytes == 0 { Ok(()) } else { write!(f, "+{bytes}") }
}

/// Writes a number of bytes so that it cannot be taken for a number of pages: `64k`, `0x123`.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, 't'), (30, 'g'), (20, 'm'), (10, 'k')];
        match units.iter().find(|(shift, _)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Length::Pages(pages, bytes) => {
                write!(f, "{pages}")?;
                plus(f, bytes)
            }
            Length::Bytes(n) => Bytes(n).fmt(f),
            Length::Max => f.write_str("@max"),
            Length::MaxPages => f.write_str("@maxpg"),
            Length::Wrap => f.write_str("@wrap"),
        }
    }
}

impl fmt::Display for Prot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Prot::Bad => f.write_str("bad"),
            Prot::Letters { read: false, write: false, exec: false } => f.write_str("-"),
            Prot::Letters { read, write, exec } => [(read, "r"), (write, "w"), (exec, "x")]
                .iter()
                .filter(|(set, _)| *set)
                .try_for_each(|(_, letter)| f.write_str(letter)),
        }
    }
}

/// Joins the words that are set by `+`; none of them is written `none`.
fn joined(f: &mut fmt::Formatter<'_>, words: &[(bool, &str)]) -> fmt::Result {
    joined_or(f, words, "none")
}

/// The same with another word for none.
pub(super) fn joined_or(
    f: &mut fmt::Formatter<'_>,
    words: &[(bool, &str)],
    none: &str,
) -> fmt::Result {
    let set: Vec<&str> = words.iter().filter(|(set, _)| *set).map(|(_, w)| *w).collect();
    if set.is_empty() { f.write_str(none) } else { f.write_str(&set.join("+")) }
}

impl fmt::Display for SyncFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.bad {
            return f.write_str("bad");
        }
        let Self { sync, asynchronous, invalidate, .. } = *self;
        joined(f, &[(sync, "sync"), (asynchronous, "async"), (invalidate, "inval")])
    }
}

impl fmt::Display for WatchFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters =
            [(self.read, "r"), (self.write, "w"), (self.exec, "x"), (self.after, "+after")];
        letters.iter().filter(|(on, _)| *on).try_for_each(|(_, word)| f.write_str(word))
    }
}

impl fmt::Display for RemapFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, &[(self.may, "may"), (self.fixed, "fixed"), (self.dontunmap, "dontunmap")])
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Map { proc, addr, len, prot, share, placement, source, flags } = self;
        write!(f, "map {proc} {addr} {len} {prot} {share} {placement} ")?;
        match source {
            Source::Anon => f.write_str("anon")?,
            Source::File(file, offset) => write!(f, "file {file} {offset}")?,
        }
        [(flags.noreserve, " noreserve"), (flags.populate, " populate"), (flags.locked, " locked")]
            .iter()
            .filter(|(set, _)| *set)
            .try_for_each(|(_, word)| f.write_str(word))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.proc, self.addr, self.len)
    }
}

/// The suffix that names a CPU.
struct OnCpu(Option<u32>);

impl fmt::Display for OnCpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |n| write!(f, " cpu={n}"))
    }
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AccessRange { range: Range { proc, addr, len }, cpu } = &self.memory;
        write!(f, "{proc} {} {} {addr} {len}{}", self.file, self.offset, OnCpu(*cpu))
    }
}

impl fmt::Display for MachineSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("machine")?;
        match self.memory {
            Some(Amount::Frames(n)) => write!(f, " memory={n}")?,
            Some(Amount::Bytes(n)) => write!(f, " memory={}", Bytes(n))?,
            None => {}
        }
        let numbers = [
            ("cpus", self.cpus.map(u64::from)),
            ("colours", self.colours.map(u64::from)),
            ("seed", self.seed),
        ];
        for (key, value) in numbers {
            value.map_or(Ok(()), |v| write!(f, " {key}={v}"))?;
        }
        self.hash.map_or(Ok(()), |v| write!(f, " hash={v}"))?;
        self.fork.map_or(Ok(()), |v| write!(f, " fork={v}"))?;
        self.locked.map_or(Ok(()), |v| write!(f, " locked={v}"))?;
        self.kluster.map_or(Ok(()), |v| write!(f, " kluster={v}"))?;
        for SwapSpec { backing, pages, priority } in &self.swap {
            match backing {
                SwapBacking::Memory => write!(f, " swap=mem:{pages}")?,
                SwapBacking::File(path) => write!(f, " swap=file:{}:{pages}", quote(path))?,
            }
            priority.map_or(Ok(()), |p| write!(f, ":{p}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for SwapSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.backing {
            SwapBacking::Memory => write!(f, "mem {}", self.pages)?,
            SwapBacking::File(path) => write!(f, "file {} {}", quote(path), self.pages)?,
        }
        self.priority.map_or(Ok(()), |p| write!(f, " pri={p}"))
    }
}

impl fmt::Display for ViewRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ViewKind::Pmap { space, extended: false } => write!(f, "::pmap {space}"),
            ViewKind::Pmap { space, extended: true } => write!(f, "::pmap -x {space}"),
            ViewKind::Seg(space) => write!(f, "::seg {space}"),
            ViewKind::SegTree(space) => write!(f, "::segtree {space}"),
            ViewKind::Anon(p, None) => write!(f, "::anon {p}"),
            ViewKind::Anon(p, Some(a)) => write!(f, "::anon {p} {a}"),
            ViewKind::Pages => f.write_str("::page"),
            ViewKind::FilePages(file) => write!(f, "::page {file}"),
            ViewKind::PageAt(pfn) => write!(f, "::page pfn {pfn:#x}"),
            ViewKind::Memstat => f.write_str("::memstat"),
            ViewKind::Vnode(file) => write!(f, "::vnode {file}"),
            ViewKind::Hash => f.write_str("::hash"),
            ViewKind::VaToPfn(p, a) => write!(f, "::vatopfn {p} {a}"),
            ViewKind::HTable(p) => write!(f, "::htable {p}"),
            ViewKind::SwapInfo => f.write_str("::swapinfo"),
            ViewKind::VmStat(names) => {
                f.write_str("::vmstat")?;
                names.iter().try_for_each(|n| write!(f, " {n}"))
            }
            ViewKind::Walk(p, a) => write!(f, "::walk {p} {a}"),
        }?;
        if self.json { f.write_str(" --json") } else { Ok(()) }
    }
}

impl fmt::Display for ExpectedOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExpectedOutcome::Ok { moved, n, h, b } => {
                f.write_str(if *moved { "ok moved" } else { "ok" })?;
                n.map_or(Ok(()), |n| write!(f, " n={n}"))?;
                h.map_or(Ok(()), |h| write!(f, " h={h:016x}"))?;
                b.map_or(Ok(()), |b| write!(f, " b={b}"))
            }
            ExpectedOutcome::Errno(e) => e.fmt(f),
            ExpectedOutcome::Segv { at, code } => {
                f.write_str("SEGV")?;
                at.map_or(Ok(()), |at| write!(f, " at={at}"))?;
                code.map_or(Ok(()), |code| write!(f, " code={}", code.word()))
            }
            ExpectedOutcome::Bus { at, code } => {
                f.write_str("BUS")?;
                at.map_or(Ok(()), |at| write!(f, " at={at}"))?;
                code.map_or(Ok(()), |code| write!(f, " code={}", code.word()))
            }
            ExpectedOutcome::Trap { at, code } => {
                f.write_str("TRAP")?;
                at.map_or(Ok(()), |at| write!(f, " at={at}"))?;
                code.map_or(Ok(()), |code| write!(f, " code={}", code.word()))
            }
            ExpectedOutcome::Skip => f.write_str("skip"),
        }
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expectation::Outcome(o) => o.fmt(f),
            Expectation::Text { text, present: true } => f.write_str(&quote(text)),
            Expectation::Text { text, present: false } => write!(f, "not {}", quote(text)),
            Expectation::Counter { name, delta, at_least, value } => {
                let plus = if *delta { "+" } else { "" };
                let least = if *at_least { ">=" } else { "" };
                write!(f, "counter {name} {plus}{least}{value}")
            }
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use Operation as O;
        match self {
            O::Header => f.write_str("vmtrace 1"),
            O::Arena(pages) => write!(f, "arena {pages}"),
            O::Machine(settings) => settings.fmt(f),
            O::Proc { name, slot } => write!(f, "proc ${name} = {slot}"),
            O::File { file, size, mode } => write!(f, "file {file} {size} {mode}"),
            O::Truncate { file, size } => write!(f, "truncate {file} {size}"),
            O::Pwrite { file, offset, len, byte } => {
                write!(f, "pwrite {file} {offset} {len} {byte}")
            }
            O::Pread { file, offset, len } => write!(f, "pread {file} {offset} {len}"),
            O::Fclose(file) => write!(f, "fclose {file}"),
            O::Map(map) => map.fmt(f),
            O::Unmap(range) => write!(f, "unmap {range}"),
            O::Protect(range, prot) => write!(f, "protect {range} {prot}"),
            O::Advise(range, advice) => write!(f, "advise {range} {advice}"),
            O::Sync(range, flags) => write!(f, "sync {range} {flags}"),
            O::Lock(range) => write!(f, "lock {range}"),
            O::Unlock(range) => write!(f, "unlock {range}"),
            O::Watch(range, what) => write!(f, "watch {range} {what}"),
            O::Unwatch(range) => write!(f, "unwatch {range}"),
            O::Lend(range) => write!(f, "lend {range}"),
            O::Lent(n) => write!(f, "lent {n}"),
            O::Unlend(n) => write!(f, "unlend {n}"),
            O::LendAnon(range) => write!(f, "lendanon {range}"),
            O::Borrow { proc, addr, loan } => write!(f, "borrow {proc} {addr} {loan}"),
            O::Pin(range, what) => write!(f, "pin {range} {what}"),
            O::Pinned(n) => write!(f, "pinned {n}"),
            O::Unpin(n) => write!(f, "unpin {n}"),
            O::Retire { proc, addr } => write!(f, "retire {proc} {addr}"),
            O::Unretire => f.write_str("unretire"),
            O::LockAll(p, what) => write!(f, "lockall {p} {what}"),
            O::UnlockAll(p) => write!(f, "unlockall {p}"),
            O::Incore(range) => write!(f, "incore {range}"),
            O::Brk { proc, to } => write!(f, "brk {proc} {to}"),
            O::Remap { range, new_len, flags, to } => {
                write!(f, "remap {range} {new_len} {flags}")?;
                to.map_or(Ok(()), |to| write!(f, " {to}"))
            }
            O::Read(a) => write!(f, "read {}{}", a.range, OnCpu(a.cpu)),
            O::Write(a, byte) => write!(f, "write {} {byte}{}", a.range, OnCpu(a.cpu)),
            O::Fread(t) => write!(f, "fread {t}"),
            O::Fwrite(t) => write!(f, "fwrite {t}"),
            O::Fork { parent, child } => write!(f, "fork {parent} {child}"),
            O::Exit(p) => write!(f, "exit {p}"),
            O::Pageout(None) => f.write_str("pageout *"),
            O::Pageout(Some(p)) => write!(f, "pageout {p}"),
            O::Digest(p) => write!(f, "digest {p}"),
            O::HostFile { file, path, mode } => write!(f, "hostfile {file} {} {mode}", quote(path)),
            O::Exec { proc, file } => write!(f, "exec {proc} {file}"),
            O::Spawn { proc, path } => write!(f, "spawn {proc} {}", quote(path)),
            O::Fetch { proc, addr, cpu } => write!(f, "fetch {proc} {addr}{}", OnCpu(*cpu)),
            O::Scan(n) => write!(f, "scan {n}"),
            O::Squeeze(n) => write!(f, "squeeze {n}"),
            O::Release => f.write_str("release"),
            O::SwapAdd(spec) => write!(f, "swapadd {spec}"),
            O::SwapDel(n) => write!(f, "swapdel {n}"),
            O::Vfork { parent, child } => write!(f, "vfork {parent} {child}"),
            O::Inherit(range, how) => write!(f, "inherit {range} {}", how.word()),
            O::Personality(proc, system) => write!(f, "personality {proc} {system}"),
            O::ShareRange { range, into, to } => write!(f, "share {range} {into} {to}"),
            O::MemCntl { range, command, arg, pages } => {
                write!(f, "memcntl {range} {command} {arg} {pages}")
            }
            O::MemInfo { proc, addr, what } => write!(f, "meminfo {proc} {addr} {what}"),
            O::Grow { proc, addr } => write!(f, "grow {proc} {addr}"),
            O::SetRlimit { proc, limit, bytes: Some(n) } => {
                write!(f, "setrlimit {proc} {limit} {n}")
            }
            O::SetRlimit { proc, limit, bytes: None } => write!(f, "setrlimit {proc} {limit} none"),
            O::View(view) => view.fmt(f),
            O::Expect(e) => write!(f, "expect {e}"),
            O::Echo(text) => write!(f, "echo {}", quote(text)),
            O::Verify => f.write_str("verify"),
        }
    }
}
