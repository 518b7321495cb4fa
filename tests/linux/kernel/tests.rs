//! How a process that comes to grief is noticed: every way is a CRASH, once, and then there is no such process.

use super::*;
use crate::judge::{compare, statements_of};

const P0: ProcSlot = ProcSlot(0);

/// A kernel whose first process runs, and what it answers to a load of one byte of its arena.
fn started() -> (Kernel, Access) {
    let mut kernel = Kernel::new();
    kernel.begin(4);
    let region = Region { proc: P0, addr: kernel.layout.arena, len: 1 };
    let access = Access { region, cpu: None };
    assert_eq!(kernel.read(access), Outcome::Segv { at: 0, code: SegvCode::Maperr });
    (kernel, access)
}

/// The process is no more, and nobody asks it again.
fn is_gone(kernel: &mut Kernel, access: Access, pid: libc::pid_t) {
    assert_eq!(kernel.read(access), Outcome::Skip);
    // SAFETY: asks whether there is a child of this number; it would not be waited for by anybody else.
    let there = unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
    assert_eq!(there, -1, "it was reaped");
}

#[test]
fn a_process_that_is_killed_is_a_crash() {
    let (mut kernel, access) = started();
    let pid = kernel.procs[&0];
    // SAFETY: a child of this thread.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    assert_eq!(kernel.read(access), Outcome::Crash);
    is_gone(&mut kernel, access, pid);
}

#[test]
fn a_process_that_ends_by_itself_is_a_crash() {
    let (mut kernel, access) = started();
    let pid = kernel.procs[&0];
    let ended = kernel.system(P0, libc::SYS_exit_group, [0; 6]);
    assert_eq!(ended, Err(Outcome::Crash), "even with status 0");
    is_gone(&mut kernel, access, pid);
}

#[test]
fn a_fault_outside_of_a_load_or_store_is_a_crash() {
    let (mut kernel, access) = started();
    let pid = kernel.procs[&0];
    let ended = kernel.system(P0, libc::SYS_kill, [pid as u64, libc::SIGSEGV as u64, 0, 0, 0, 0]);
    assert_eq!(ended, Err(Outcome::Crash));
    is_gone(&mut kernel, access, pid);
}

#[test]
fn a_process_that_does_not_answer_is_a_crash_and_is_ended() {
    let (mut kernel, access) = started();
    kernel.patience = Duration::from_millis(200);
    let pid = kernel.procs[&0];
    let begun = Instant::now();
    assert_eq!(kernel.system(P0, libc::SYS_pause, [0; 6]), Err(Outcome::Crash));
    assert!(begun.elapsed() >= kernel.patience);
    is_gone(&mut kernel, access, pid);
}

#[test]
fn a_process_lives_on_when_the_one_that_forked_it_crashes() {
    let (mut kernel, access) = started();
    assert_eq!(kernel.fork(P0, ProcSlot(3)), Outcome::OK);
    assert_eq!(kernel.system(P0, libc::SYS_exit_group, [7, 0, 0, 0, 0, 0]), Err(Outcome::Crash));
    let of_child = Access { region: Region { proc: ProcSlot(3), ..access.region }, ..access };
    assert_eq!(kernel.read(of_child), Outcome::Segv { at: 0, code: SegvCode::Maperr });
    assert_eq!(kernel.exit(ProcSlot(3)), Outcome::OK);
}

#[test]
fn nothing_is_left_of_a_kernel_that_is_dropped() {
    let (mut kernel, _) = started();
    assert_eq!(kernel.fork(P0, ProcSlot(1)), Outcome::OK);
    let pids: Vec<libc::pid_t> = kernel.procs.values().copied().collect();
    drop(kernel);
    for pid in pids {
        // SAFETY: asks whether such a process is there.
        assert_eq!(unsafe { libc::kill(pid, 0) }, -1, "{pid} is gone");
    }
}

/// No row of the table explains a CRASH.
#[test]
fn a_crash_is_a_difference() {
    let statements =
        statements_of("vmtrace 1\nmap 0 0 1 rw priv fixed anon\nadvise 0 0 1 dontneed\n");
    for ours in ["ok", "EBUSY", "ENOMEM"] {
        let verdict = compare(&statements, &format!("1 ok\n2 {ours}\n"), "1 ok\n2 CRASH\n");
        assert_eq!(verdict.wrong.len(), 1, "{ours}");
    }
}
