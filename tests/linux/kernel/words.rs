//! The words of the trace language in the kernel's numbers, and back.

use segvm::script::ast::{Advice, Placement, Prot, Share};
use segvm::script::outcome::{BusCode, Errno, Outcome, SegvCode};
use segvm::script::world::{MapCall, MapSource};

use super::{child, trap};

/// What a function of the C library answered, its error taken from `errno`.
pub(super) fn answer(r: i64) -> Outcome {
    if r >= 0 {
        return Outcome::OK;
    }
    errno(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())
}

/// The outcome of a Linux error number. One that the language has no word for is told, and never equals anything.
pub(super) fn errno(number: i32) -> Outcome {
    let named = match number {
        libc::EPERM => Errno::EPERM,
        libc::ENOENT => Errno::ENOENT,
        libc::EINTR => Errno::EINTR,
        libc::EIO => Errno::EIO,
        libc::ENXIO => Errno::ENXIO,
        libc::EBADF => Errno::EBADF,
        libc::EAGAIN => Errno::EAGAIN,
        libc::ENOMEM => Errno::ENOMEM,
        libc::EACCES => Errno::EACCES,
        libc::EFAULT => Errno::EFAULT,
        libc::EBUSY => Errno::EBUSY,
        libc::EEXIST => Errno::EEXIST,
        libc::ENODEV => Errno::ENODEV,
        libc::EINVAL => Errno::EINVAL,
        libc::EFBIG => Errno::EFBIG,
        libc::ENOSPC => Errno::ENOSPC,
        libc::EDEADLK => Errno::EDEADLK,
        libc::ENOSYS => Errno::ENOSYS,
        libc::EOVERFLOW => Errno::EOVERFLOW,
        libc::EOPNOTSUPP => Errno::ENOTSUP,
        other => {
            eprintln!("no word for error {other} of the system");
            return Outcome::Crash;
        }
    };
    Outcome::Errno(named)
}

/// What a system call of a process answered.
pub(super) fn system_outcome(r: i64) -> Outcome {
    if (-4095..0).contains(&r) { errno(-r as i32) } else { Outcome::OK }
}

/// What an access of a process answered.
pub(super) fn access_outcome(words: [u64; 4]) -> Result<(), Outcome> {
    let [what, at, signal, code] = words;
    if what == child::DONE {
        return Ok(());
    }
    Err(match (signal as i32, code as i32) {
        (libc::SIGBUS, libc::BUS_ADRERR) => Outcome::Bus { at, code: BusCode::Adrerr },
        (libc::SIGBUS, _) => Outcome::Bus { at, code: BusCode::Objerr },
        (_, trap::SEGV_ACCERR) => Outcome::Segv { at, code: SegvCode::Accerr },
        // An address that is none has a code of the kernel's own; nothing is mapped there.
        (_, _) => Outcome::Segv { at, code: SegvCode::Maperr },
    })
}

pub(super) fn prot_bits(prot: Prot) -> u64 {
    match prot {
        Prot::Letters { read, write, exec } => {
            u64::from(read) | u64::from(write) << 1 | u64::from(exec) << 2
        }
        Prot::Bad => 1 | 0x20,
    }
}

pub(super) fn map_flags(call: &MapCall) -> u64 {
    let share = match call.share {
        Share::Private => libc::MAP_PRIVATE,
        Share::Shared => libc::MAP_SHARED,
        Share::Both => libc::MAP_PRIVATE | libc::MAP_SHARED,
        Share::Neither => 0,
    };
    let placement = match call.placement {
        Placement::Fixed => libc::MAP_FIXED,
        Placement::Hint => 0,
        Placement::NoReplace => libc::MAP_FIXED_NOREPLACE,
    };
    let flags = [
        (call.source == MapSource::Anon, libc::MAP_ANON),
        (call.flags.noreserve, libc::MAP_NORESERVE),
        (call.flags.populate, libc::MAP_POPULATE),
        (call.flags.locked, libc::MAP_LOCKED),
    ];
    let set = flags.iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
    (share | placement | set) as u64
}

/// What the kernel has no word for answers as an advice that means nothing; no trace for it has such.
pub(super) fn advice_number(advice: Advice) -> i32 {
    match advice {
        Advice::Normal => libc::MADV_NORMAL,
        Advice::Random => libc::MADV_RANDOM,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::WillNeed => libc::MADV_WILLNEED,
        Advice::PopulateRead => libc::MADV_POPULATE_READ,
        Advice::PopulateWrite => libc::MADV_POPULATE_WRITE,
        Advice::DontNeed => libc::MADV_DONTNEED,
        Advice::Free => libc::MADV_FREE,
        Advice::DontFork => libc::MADV_DONTFORK,
        Advice::DoFork => libc::MADV_DOFORK,
        Advice::InheritZero => libc::MADV_WIPEONFORK,
        Advice::InheritCopy => libc::MADV_KEEPONFORK,
        Advice::Purge | Advice::Drop | Advice::Discard | Advice::Bad => 9999,
    }
}
