//! `memcntl`: its wrong calls row by row, and which pages a selection means.

use super::super::{Machine, MapFlags, MapRequest, Process, USER_TOP};
use super::*;
use crate::files::{FileHandle, OpenMode};
use page_db::errno::{EBUSY, EFAULT, EINVAL, ENOMEM, EPERM};
use page_db::{PAGE_SIZE as P, Vnode};

const AT: u64 = 0x1000_0000;

/// Four private pages, of which the second is read-only and the third is not accessible; two shared pages of a file behind them; then a hole.
fn process() -> (Process, FileHandle) {
    let m = Machine::builder().frames(512).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let flags = MapFlags::PRIVATE | MapFlags::ANON | MapFlags::FIXED;
    let request = MapRequest { addr: AT, len: 4 * P, prot: 3, flags, file: None, offset: 0 };
    p.mmap(&request).expect("room");
    p.mprotect(AT + P, P, 1).expect("mapped");
    p.mprotect(AT + 2 * P, P, 0).expect("mapped");
    let file = FileHandle::new(m.create_file("f", 2 * P).expect("a file"), OpenMode::ReadWrite);
    let flags = MapFlags::SHARED | MapFlags::FIXED;
    let shared = MapRequest { addr: AT + 4 * P, len: 2 * P, flags, file: Some(&file), ..request };
    p.mmap(&shared).expect("room");
    (p, file)
}

fn call(command: MemCommand) -> MemCall {
    MemCall { addr: AT, len: P, command: command as u32, ..MemCall::default() }
}

/// What a call answers on a process of its own.
#[track_caller]
fn check(what: &str, call: MemCall, want: i32) {
    let (p, _file) = process();
    let got = p.memcntl(&call).map_err(|e| e.errno).err().unwrap_or(0);
    assert_eq!(got, want, "{what}");
    p.machine().verify().unwrap_or_else(|v| panic!("after {what}: {v}"));
}

#[test]
fn wrong_calls_have_their_errno() {
    use MemCommand::*;
    let sync = call(Sync);
    let all = MemCall { addr: 0, len: 0, arg: 1, ..call(LockAll) };
    let hat = MemCall { len: 6 * P, arg: AT, ..call(HatAdvise) };
    let zero = call(InheritZero);
    let table: &[(&str, MemCall, i32)] = &[
        ("misaligned", MemCall { addr: AT + 1, ..sync }, EINVAL),
        ("length 0", MemCall { len: 0, ..sync }, EINVAL),
        ("a mask", MemCall { mask: 1, ..sync }, EINVAL),
        ("an unknown bit of selection", MemCall { attr: 0x40, ..sync }, EINVAL),
        ("the user bit in a selection", MemCall { attr: 0x8, ..sync }, EINVAL),
        ("shared and private", MemCall { attr: 0x31, ..sync }, EINVAL),
        ("an unknown command", MemCall { command: 9, ..sync }, EINVAL),
        ("no command", MemCall { command: 0, ..sync }, EINVAL),
        ("unknown flags", MemCall { arg: 8, ..sync }, EINVAL),
        ("flags beyond a byte", MemCall { arg: 0x104, ..sync }, EINVAL),
        ("both ways of writing", MemCall { arg: 5, ..sync }, EINVAL),
        ("a hole", MemCall { len: 7 * P, ..sync }, ENOMEM),
        ("a selection over a hole", MemCall { len: 7 * P, attr: 0x10, ..sync }, ENOMEM),
        ("a range that wraps", MemCall { len: u64::MAX, ..sync }, ENOMEM),
        ("the kernel's half", MemCall { addr: 0xffff_8000_0000_0000, ..sync }, ENOMEM),
        ("past the user's addresses", MemCall { addr: USER_TOP - P, len: 2 * P, ..sync }, ENOMEM),
        ("an argument for a lock", MemCall { arg: 1, ..call(Lock) }, EINVAL),
        ("an argument for an unlock", MemCall { arg: 1, ..call(Unlock) }, EINVAL),
        ("a lock over a hole", MemCall { len: 7 * P, ..call(Lock) }, ENOMEM),
        ("a lock of nothing", MemCall { len: 0, ..call(Lock) }, EINVAL),
        ("a range for everything", MemCall { addr: AT, ..all }, EINVAL),
        ("a length for everything", MemCall { len: P, ..all }, EINVAL),
        ("nothing to lock", MemCall { arg: 0, ..all }, EINVAL),
        ("unknown things to lock", MemCall { arg: 4, ..all }, EINVAL),
        ("an argument for unlocking all", MemCall { arg: 1, command: 6, ..all }, EINVAL),
        ("an unknown advice", MemCall { arg: 10, ..call(Advise) }, EINVAL),
        ("an advice over a hole", MemCall { len: 7 * P, ..call(Advise) }, ENOMEM),
        ("a selection for page sizes", MemCall { attr: 1, ..hat }, EINVAL),
        ("page sizes from nowhere", MemCall { arg: 0x10, ..hat }, EFAULT),
        ("an unknown word about page sizes", hat, EINVAL), // memory is zeros
        ("a selection for zeros", MemCall { attr: 1, ..zero }, EINVAL),
        ("an argument for zeros", MemCall { arg: 1, ..zero }, EINVAL),
        ("zeros for shared memory", MemCall { addr: AT + 4 * P, ..zero }, EINVAL),
        ("zeros for a hole", MemCall { addr: AT + 6 * P, ..zero }, ENOMEM),
    ];
    for (what, call, want) in table {
        check(what, *call, *want);
    }
    for command in [Sync, Lock, Unlock, Advise, InheritZero] {
        check("it works", call(command), 0);
    }
    check("all of it works", MemCall { arg: 3, ..all }, 0);
    for arg in 0..10 {
        check("every advice is heard", MemCall { arg, attr: 0x10, ..call(Advise) }, 0);
    }
}

#[test]
fn locks_need_the_privilege_before_their_argument_is_looked_at() {
    let (p, _file) = process();
    p.set_may_lock(false);
    for command in
        [MemCommand::Lock, MemCommand::Unlock, MemCommand::LockAll, MemCommand::UnlockAll]
    {
        let of_all = matches!(command, MemCommand::LockAll | MemCommand::UnlockAll);
        let (addr, len) = if of_all { (0, 0) } else { (AT, P) };
        let call = MemCall { addr, len, arg: 99, ..call(command) };
        assert_eq!(p.memcntl(&call).map_err(|e| e.errno), Err(EPERM), "{command:?}");
    }
}

/// The pages of the process that are locked, counted from [`AT`].
fn locked(p: &Process) -> Vec<usize> {
    let mut bytes = Vec::new();
    p.mincore_into(AT, 6 * P, &mut bytes).expect("mapped");
    (0..6).filter(|i| bytes[*i] & 2 != 0).collect()
}

#[test]
fn a_selection_means_pages_of_one_kind_with_exactly_these_rights() {
    let read = MemAttr::READ.bits();
    let write = MemAttr::WRITE.bits();
    let table: &[(u32, &[usize])] = &[
        (0, &[0, 1, 2, 3, 4, 5]),
        (MemAttr::PRIVATE.bits() | read | write, &[0, 3]),
        (MemAttr::PROC_DATA.bits(), &[0, 3]),
        (MemAttr::PROC_TEXT.bits(), &[]),
        (MemAttr::PRIVATE.bits() | read, &[1]),
        (read, &[1]),                    // private, where nothing is said
        (MemAttr::PRIVATE.bits(), &[2]), // no access at all
        (MemAttr::SHARED.bits() | read | write, &[4, 5]),
        (MemAttr::SHARED.bits() | read, &[]),
    ];
    for (attr, want) in table {
        let (p, _file) = process();
        let lock = MemCall { len: 6 * P, attr: *attr, ..call(MemCommand::Lock) };
        p.memcntl(&lock).expect("may");
        assert_eq!(locked(&p), *want, "attr {attr:#x}");
        assert_eq!(p.space().state().locked(), want.len() as u64 * P);
        p.munlockall().expect("may");
        // The same of everything, and back page by page of what is meant.
        let all = MemCall { addr: 0, len: 0, arg: 1, attr: *attr, ..call(MemCommand::LockAll) };
        p.memcntl(&all).expect("may");
        assert_eq!(locked(&p), *want, "attr {attr:#x}, of everything");
        p.mlock(AT, 6 * P).expect("may");
        p.memcntl(&MemCall { len: 6 * P, attr: *attr, ..call(MemCommand::Unlock) }).expect("may");
        let rest: Vec<_> = (0..6).filter(|page| !want.contains(page)).collect();
        assert_eq!(locked(&p), rest, "attr {attr:#x}, unlocked");
        p.mlock(AT, 6 * P).expect("may");
        let none = MemCall { addr: 0, len: 0, attr: *attr, ..call(MemCommand::UnlockAll) };
        p.memcntl(&none).expect("may");
        assert_eq!(locked(&p), rest, "attr {attr:#x}, unlocked of everything");
        p.machine().verify().expect("whole");
    }
}

/// A lock that fails behind what was meant undoes what it locked, and no more.
#[test]
fn a_meant_lock_that_fails_is_undone() {
    let (p, _file) = process();
    p.mlock(AT + 3 * P, P).expect("may");
    let lock = MemCall { len: 7 * P, attr: MemAttr::PROC_DATA.bits(), ..call(MemCommand::Lock) };
    assert_eq!(p.memcntl(&lock).map_err(|e| e.errno), Err(ENOMEM));
    assert_eq!(locked(&p), [3]);
    p.machine().verify().expect("whole");
}

#[test]
fn writing_back_heeds_the_selection() {
    let (p, file) = process();
    p.store(AT + 4 * P, b"new").expect("mapped");
    let dirty = |p: &Process| {
        let db = p.machine().db();
        let id = page_db::Identity::new(file.vnode.id(), page_db::FileOffset(0));
        let page = db.exists(p.cx(), id).expect("in memory");
        let at = page_db::VirtAddr::new(AT + 4 * P).expect("user");
        let mapped = p.space().hat().probe(p.cx(), at).map(|have| have.ref_mod);
        (db.page(page).ref_mod() | mapped.unwrap_or_default()).contains(page_db::RefMod::MOD)
    };
    let sync = MemCall { len: 6 * P, arg: 4, ..call(MemCommand::Sync) };
    p.memcntl(&MemCall { attr: MemAttr::PRIVATE.bits() | 3, ..sync }).expect("mapped");
    assert!(dirty(&p), "not meant");
    p.memcntl(&MemCall { attr: MemAttr::SHARED.bits() | 3, ..sync }).expect("mapped");
    assert!(!dirty(&p), "meant");
    // Dropping locked pages is refused where they are meant.
    p.mlock(AT + 4 * P, P).expect("may");
    let drop = MemCall { arg: 6, ..sync };
    p.memcntl(&MemCall { attr: MemAttr::PRIVATE.bits() | 3, ..drop }).expect("not meant");
    let busy = p.memcntl(&MemCall { attr: MemAttr::SHARED.bits() | 3, ..drop });
    assert_eq!(busy.map_err(|e| e.errno), Err(EBUSY));
    // So is the advice that is the same.
    let dont_need = MemCall { arg: 4, ..MemCall { len: 6 * P, ..call(MemCommand::Advise) } };
    p.memcntl(&MemCall { attr: MemAttr::PRIVATE.bits() | 3, ..dont_need }).expect("not meant");
    for attr in [0, MemAttr::SHARED.bits() | 3] {
        let busy = p.memcntl(&MemCall { attr, ..dont_need });
        assert_eq!(busy.map_err(|e| e.errno), Err(EBUSY), "attr {attr:#x}");
    }
}

#[test]
fn there_is_one_page_size_to_prefer() {
    let (p, _file) = process();
    let refused =
        |addr, len, what, size| p.hat_advise(addr, len, what, size).map_err(|e| e.errno).err();
    for size in [0, P] {
        assert_eq!(refused(AT, 6 * P, HatAdvice::Range, size), None);
        assert_eq!(refused(0, 0, HatAdvice::Break, size), None);
        assert_eq!(refused(0, 0, HatAdvice::Stack, size), None);
    }
    assert_eq!(refused(AT, 6 * P, HatAdvice::Range, 2 << 20), Some(EINVAL));
    assert_eq!(refused(AT, 7 * P, HatAdvice::Range, P), Some(ENOMEM));
    assert_eq!(refused(AT, 0, HatAdvice::Range, P), Some(EINVAL));
    assert_eq!(refused(AT, P + 1, HatAdvice::Range, P), Some(EINVAL));
    assert_eq!(refused(AT, P, HatAdvice::Stack, P), Some(EINVAL));
    // The same by its structure.
    let mut mha = [0; 16];
    mha[0] = 1;
    mha[8..].copy_from_slice(&P.to_le_bytes());
    p.store(AT, &mha).expect("mapped");
    let call = MemCall { len: 6 * P, arg: AT, ..call(MemCommand::HatAdvise) };
    assert_eq!(p.memcntl(&call), Ok(()));
    p.store(AT + 4, &[1]).expect("mapped");
    assert_eq!(p.memcntl(&call).map_err(|e| e.errno), Err(EINVAL));
}

/// `msync` by its own name refuses the same flags.
#[test]
fn msync_cannot_write_both_ways() {
    let (p, _file) = process();
    let sync = |flags| p.msync(AT, P, flags).map_err(|e| e.errno).err();
    assert_eq!(sync(SyncFlags::SYNC | SyncFlags::ASYNC), Some(EINVAL));
    assert_eq!(sync(SyncFlags::from_bits_retain(0x80)), Some(EINVAL));
    assert_eq!(sync(SyncFlags::SYNC | SyncFlags::INVALIDATE), None);
    assert_eq!(sync(SyncFlags::empty()), None);
}
