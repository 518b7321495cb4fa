//! What scripts ask the system for beside maps and faults: its manner of answering, memory shown twice, chosen pages, what is behind an address.

use crate::run_ok;

#[test]
fn a_script_chooses_whose_answers_it_gets() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; advise 0 0 0 normal; expect EINVAL
        personality 0 linux; expect ok; advise 0 0 0 normal; expect ok
        advise 0 0 2 dontneed; read 0 0 0+1; expect ok b=00
        fork 0 1; lock 1 0+5 1; expect ok; personality 1 illumos; lock 1 0+5 1; expect EINVAL
        exit 1; personality 1 linux; expect skip",
    );
}

#[test]
fn a_script_shows_memory_twice() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; fork 0 1; share 0 0 2 1 8; expect ok
        write 1 8 0+1 66; read 0 0 0+1; expect ok b=42; read 1 0 0+1; expect ok b=41
        share 0 0 2 1 9; expect EEXIST; share 0 0 3 1 20; expect EFAULT; share 0 0+1 1 1 20; expect EINVAL
        share 0 0 1 1 20+1; expect EINVAL; share 0 0 1 5 20; expect skip
        share 0 0 1 0 30; expect ok; write 0 30 0+1 67; read 1 8 0+1; expect ok b=43",
    );
}

#[test]
fn a_script_controls_chosen_pages() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; map 0 2 2 r shared fixed anon; read 0 0 4
        memcntl 0 0 4 lock 0 r+shared; expect ok; advise 0 0 2 dontneed; expect ok
        advise 0 2 2 dontneed; expect EBUSY; memcntl 0 0 4 unlock 0 r+shared; advise 0 2 2 dontneed; expect ok
        memcntl 0 @null 0 lockas 3 all; expect ok; advise 0 0 1 dontneed; expect EBUSY
        memcntl 0 @null 0 unlockas 0 all; memcntl 0 0 1 advise 4 all; expect ok
        memcntl 0 0 1 sync 4 bad; expect EINVAL; memcntl 0 0 1 bad 0 all; expect EINVAL
        memcntl 0 0 1 lock 0 shared+private; expect EINVAL; memcntl 0 0 1 lockas 1 all; expect EINVAL
        write 0 0 0+1 65; memcntl 0 0 1 inherit_zero 0 all; fork 0 1; read 1 0 0+1; expect ok b=00",
    );
}

#[test]
fn a_script_asks_what_is_behind_an_address() {
    run_ok(
        "map 0 0 2 rw priv fixed anon; write 0 0 0+1 65
        meminfo 0 0+5 physical+pagesize+replicas; expect ok n=7; meminfo 0 0 group; expect ok n=3
        meminfo 0 1 physical; expect ok n=1; meminfo 0 4 physical; expect ok n=0; meminfo 0 0 none; expect EINVAL",
    );
}
