//! The judge under an account that may do little: what it cannot ask the kernel it leaves out, and says so.
//!
//! These tests run others of this program in a process of their own, which has lost the privilege to lock memory and may lock none without it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use super::say;

/// Linux's number for the privilege to lock memory, and for the one to raise limits.
const CAP_IPC_LOCK: libc::c_int = 14;
const CAP_SYS_RESOURCE: libc::c_int = 24;

/// Gives up, for this process and what it runs, all that lets it lock memory.
fn give_up_locks() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: changes what this process may do, which is about to run something else. A process that has no such privilege cannot drop it, and need not.
    unsafe {
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_IPC_LOCK, 0, 0, 0);
        libc::prctl(libc::PR_CAPBSET_DROP, CAP_SYS_RESOURCE, 0, 0, 0);
        match libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const none) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Runs a test of this program without locks.
fn without_locks(test: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture"]);
    command.env("SEGVM_LINUX_TRACES", "21").env("SEGVM_LINUX_OPS", "80");
    // SAFETY: two system calls between fork and exec, no allocation.
    unsafe { command.pre_exec(give_up_locks) };
    command.output().expect("this program runs again")
}

#[test]
fn what_an_account_may_not_do_is_left_out_and_told() {
    let output = without_locks("portable_traces_agree_with_linux");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
    assert!(told.contains("linux: locks are left out: "), "{told}");
    assert!(told.contains("linux: 21 traces agree"), "{told}");
    told.lines().filter(|l| l.contains("left out")).for_each(|l| say(&format!("as told: {l}")));
}

/// A stored trace whose answers would all be others without its locks is not run, and the test says which.
#[test]
fn stored_traces_with_locks_are_not_run_without_them() {
    let output = without_locks("stored_traces_have_their_stored_results");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stdout));
    for name in ["sync", "mix"] {
        assert!(told.contains(&format!("{name} is not run: locks are left out: ")), "{told}");
    }
    assert!(!told.contains("map is not run"), "{told}");
}
