//! The words of scripts as the machine has them, and its answers as outcomes.

use super::builder::{self, ForkPolicy};
use super::{AccessError, MemAdvice, MemAttr, MemCommand, MemInfo, SysError};
use crate::files::{self, FileError};
use crate::script::ast::{self, MachineSettings, OpenMode, Prot, SwapSpec};
use crate::script::outcome::{BusCode, Errno, Outcome, SegvCode, TrapCode};
use addr_space::{Advice, Signal};
use page_db::HashKind;

impl MachineSettings {
    /// The machine these settings ask for; what they do not say is as `default` has it.
    pub fn builder(&self, default: builder::MachineBuilder) -> builder::MachineBuilder {
        let mut b = default;
        if let Some(m) = self.memory {
            b = b.frames(m.frames());
        }
        if let Some(n) = self.cpus {
            b = b.cpus(u16::try_from(n).unwrap_or(u16::MAX));
        }
        if let Some(n) = self.colours {
            b = b.colours(n);
        }
        if let Some(h) = self.hash {
            b = b.hash(match h {
                ast::HashKind::Chain => HashKind::Chain,
                ast::HashKind::DashMap => HashKind::Dash,
            });
        }
        if let Some(f) = self.fork {
            b = b.fork(match f {
                ast::ForkPolicy::Eager => ForkPolicy::Eager,
                ast::ForkPolicy::Lazy => ForkPolicy::Lazy,
            });
        }
        if let Some(l) = self.locked {
            b = b.locked_at_fork(match l {
                ast::LockedAtFork::Share => builder::LockedAtFork::Share,
                ast::LockedAtFork::Copy => builder::LockedAtFork::Copy,
            });
        }
        if let Some(n) = self.kluster {
            b = b.kluster(n);
        }
        if let Some(s) = self.seed {
            b = b.seed(s);
        }
        self.swap.iter().fold(b, |b, area| b.swap(area_of(area)))
    }
}

pub(super) fn area_of(spec: &SwapSpec) -> builder::SwapArea {
    let backing = match &spec.backing {
        ast::SwapBacking::Memory => builder::SwapBacking::Memory,
        ast::SwapBacking::File(path) => builder::SwapBacking::File(path.into()),
    };
    let priority = spec.priority.unwrap_or(0);
    let priority =
        i16::try_from(priority).unwrap_or(if priority < 0 { i16::MIN } else { i16::MAX });
    builder::SwapArea { backing, pages: spec.pages, priority }
}

/// The errno of a number; whatever the system answers with has a name.
pub(super) fn errno(n: i32) -> Outcome {
    Errno::from_number(n).map_or(Outcome::Crash, Outcome::Errno)
}

impl From<SysError> for Outcome {
    fn from(e: SysError) -> Self {
        errno(e.errno)
    }
}
impl From<FileError> for Outcome {
    fn from(e: FileError) -> Self {
        errno(e.errno())
    }
}
impl From<AccessError> for Outcome {
    fn from(e: AccessError) -> Self {
        let at = e.done;
        match e.signal {
            Signal::SegvMapErr => Self::Segv { at, code: SegvCode::Maperr },
            Signal::SegvAccErr => Self::Segv { at, code: SegvCode::Accerr },
            Signal::BusAdrErr => Self::Bus { at, code: BusCode::Adrerr },
            Signal::BusAdrAln => Self::Bus { at, code: BusCode::Adraln },
            Signal::BusObjErr(_) => Self::Bus { at, code: BusCode::Objerr },
            Signal::TrapWatch { access, .. } => Self::Trap { at, code: trap_code(access) },
            Signal::None => Self::Crash,
        }
    }
}

fn trap_code(access: page_db::Access) -> TrapCode {
    match access {
        page_db::Access::Write | page_db::Access::Create => TrapCode::Wwatch,
        page_db::Access::Exec => TrapCode::Xwatch,
        _ => TrapCode::Rwatch,
    }
}

/// `ok`, or whatever the call answered.
pub(super) fn done<E: Into<Outcome>>(r: Result<(), E>) -> Outcome {
    r.map_or_else(Into::into, |()| Outcome::OK)
}

/// `PROT_*` bits.
pub(super) fn prot_bits(prot: Prot) -> u32 {
    match prot {
        Prot::Letters { read, write, exec } => {
            u32::from(read) | u32::from(write) << 1 | u32::from(exec) << 2
        }
        Prot::Bad => 1 | 1 << 30,
    }
}

/// The number of a command of `memcntl`.
pub(super) fn command(command: ast::ControlCommand) -> u32 {
    use ast::ControlCommand as C;
    match command {
        C::Sync => MemCommand::Sync as u32,
        C::Lock => MemCommand::Lock as u32,
        C::Unlock => MemCommand::Unlock as u32,
        C::Advise => MemCommand::Advise as u32,
        C::LockAs => MemCommand::LockAll as u32,
        C::UnlockAs => MemCommand::UnlockAll as u32,
        C::HatAdvise => MemCommand::HatAdvise as u32,
        C::InheritZero => MemCommand::InheritZero as u32,
        C::Bad => 0,
    }
}

/// Which pages it means, as its bits.
pub(super) fn attr(pages: ast::PageChoice) -> u32 {
    let mut attr = MemAttr::empty();
    attr.set(MemAttr::READ, pages.read);
    attr.set(MemAttr::WRITE, pages.write);
    attr.set(MemAttr::EXEC, pages.exec);
    attr.set(MemAttr::SHARED, pages.shared);
    attr.set(MemAttr::PRIVATE, pages.private);
    attr.bits() | u32::from(pages.bad) << 31
}

/// What `meminfo` is asked, in the order in which scripts write it.
pub(super) fn questions(what: ast::MemQuestions) -> Vec<MemInfo> {
    let all = [
        (what.physical, MemInfo::Physical),
        (what.group, MemInfo::Group),
        (what.pagesize, MemInfo::PageSize),
        (what.replicas, MemInfo::Replicas),
    ];
    all.into_iter().filter_map(|(asked, question)| asked.then_some(question)).collect()
}

pub(super) fn mode_of(mode: OpenMode) -> files::OpenMode {
    match mode {
        OpenMode::ReadWrite => files::OpenMode::ReadWrite,
        OpenMode::ReadOnly => files::OpenMode::ReadOnly,
        OpenMode::WriteOnly => files::OpenMode::WriteOnly,
    }
}

/// What `madvise` is asked for; `None` for no advice at all.
pub(super) fn advice(word: ast::Advice) -> Option<MemAdvice> {
    Some(match word {
        ast::Advice::Normal => MemAdvice::Use(Advice::Normal),
        ast::Advice::Random => MemAdvice::Use(Advice::Random),
        ast::Advice::Sequential => MemAdvice::Use(Advice::Sequential),
        ast::Advice::Free => MemAdvice::Use(Advice::Free),
        ast::Advice::Purge => MemAdvice::Use(Advice::Purge),
        ast::Advice::Drop => MemAdvice::Use(Advice::Drop),
        ast::Advice::Discard => MemAdvice::Use(Advice::Discard),
        ast::Advice::WillNeed => MemAdvice::WillNeed,
        ast::Advice::PopulateRead => MemAdvice::Populate(page_db::Access::Read),
        ast::Advice::PopulateWrite => MemAdvice::Populate(page_db::Access::Write),
        ast::Advice::DontNeed => MemAdvice::DontNeed,
        ast::Advice::InheritZero => MemAdvice::InheritZero,
        ast::Advice::InheritCopy => MemAdvice::InheritCopy,
        ast::Advice::DontFork => MemAdvice::DontFork,
        ast::Advice::DoFork => MemAdvice::DoFork,
        ast::Advice::Bad => return None,
    })
}
