//! One address space, two processes: what the child does to it, and what is left when either goes.

use crate::Scene;
use crate::harness::addr;
use page_db::{PAGE_SIZE, errno};
use segvm::machine::{Limit, STACK_TOP};

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Nothing is copied or promised; break, stack, mappings and locks are the parent's own.
#[test]
fn a_borrowed_address_space_is_the_parents_own() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 0+1 65; brk 0 1");
    let promised = |s: &Scene| s.machine().swap().info().reserved();
    let before = promised(&s);
    s.run("vfork 0 1; expect ok; expect counter cow_fault +0");
    assert_eq!(promised(&s), before);
    assert_eq!(s.process(0).space().id(), s.process(1).space().id());
    assert!(s.process(0).shares_space() && s.process(1).shares_space());
    s.run("write 1 0 0+1 66; read 0 0 0+1; expect ok b=42; map 1 4 1 rw priv fixed anon; write 0 4 0+1 67");
    s.run("brk 1 3; write 0 b:2 0+1 68; lock 1 0 1; exit 1");
    s.run(&format!("grow 0 {:#x}; expect ok", STACK_TOP - PAGE_SIZE));
    assert!(!s.process(0).shares_space());
    let state = (s.process(0).heap(), s.process(0).space().state().locked());
    assert_eq!(
        (state.0.1 - state.0.0, state.1),
        (3 * PAGE_SIZE, PAGE_SIZE),
        "as the child left it"
    );
    s.run("read 0 0 0+1; expect ok b=42; read 0 4 0+1; expect ok b=43; read 0 b:2 0+1; expect ok b=44");
    s.end();
}

/// Limits are each process's own: what a child sets, for itself, is over when it goes.
#[test]
fn a_childs_limits_are_not_the_parents() {
    let mut s = scene("setrlimit 0 vmem 64k; map 0 0 1 rw priv fixed anon; vfork 0 1");
    s.run("setrlimit 1 vmem 8k; setrlimit 1 memlock 4k; map 1 4 1 rw priv fixed anon; expect ok");
    s.run("map 1 8 1 rw priv fixed anon; expect ENOMEM; lock 1 0 1; lock 1 4 1; expect EAGAIN");
    assert_eq!(s.process(0).limit(Limit::Vmem), 64 << 10, "it has its own");
    s.run("exit 1; lock 0 4 1; expect ok; map 0 8 14 rw priv fixed anon; expect ok");
    s.run("map 0 30 1 rw priv fixed anon; expect ENOMEM");
    // What the parent sets meanwhile stays.
    s.run("vfork 0 2; setrlimit 2 vmem 8k; setrlimit 0 vmem 128k; exit 2; map 0 30 16 rw priv fixed anon; expect ok");
    s.run("map 0 60 1 rw priv fixed anon; expect ENOMEM");
    // The same number, set by both.
    s.run("vfork 0 2; setrlimit 2 vmem 64k; setrlimit 0 vmem 64k; exit 2; unmap 0 30 16; map 0 60 1 rw priv fixed anon; expect ENOMEM");
    s.end();
}

/// A child of fork has its parent's limits, not those of whoever uses the parent's memory; and with several such the parent's are back when they have gone.
#[test]
fn limits_of_several_in_one_memory() {
    let mut s = scene(
        "setrlimit 0 vmem 256k; map 0 0 4 rw priv fixed anon; vfork 0 1; setrlimit 1 vmem 32k",
    );
    s.run("fork 0 3; expect ok; map 3 20 16 rw priv fixed anon; expect ok");
    s.run("vfork 1 2; setrlimit 2 vmem 20k; exit 1; exit 2; map 0 20 16 rw priv fixed anon; expect ok");
    s.end();
}

/// P3: of each limit what was set last holds, by whoever is still there; that others go changes nothing.
#[test]
fn limits_hold_as_long_as_whoever_set_them_is_there() {
    // Whoever goes first is the one that the memory was made for.
    let mut s = scene("vfork 0 1; setrlimit 1 vmem 1m; exit 0; map 1 0 512 rw priv fixed anon");
    s.run("expect ENOMEM; map 1 0 256 rw priv fixed anon; expect ok; exit 1");
    s.end();
    let mut s = scene("map 0 0 4 rw priv fixed anon; vfork 0 1; vfork 0 2; setrlimit 1 memlock 4k");
    s.run("lock 1 0 2; expect EAGAIN; exit 2; lock 1 0 2; expect EAGAIN; exit 0; lock 1 0 2; expect EAGAIN");
    s.run("lock 1 0 1; expect ok; exit 1");
    s.end();
    // One limit by one, the other by the other: who goes takes along what he has set.
    let mut s = scene("map 0 0 2 rw priv fixed anon; vfork 0 1; vfork 0 2; setrlimit 1 vmem 16k");
    s.run("setrlimit 2 memlock 4k; exit 2; lock 0 0 2; expect ok; map 0 8 4 rw priv fixed anon; expect ENOMEM");
    s.run("setrlimit 0 memlock 4k; setrlimit 1 memlock 8k; exit 1; map 0 8 4 rw priv fixed anon; expect ok");
    s.run("unlock 0 0 2; lock 0 0 2; expect EAGAIN");
    s.end();
    // The same where the first to go runs a program.
    let mut s = Scene::on("machine memory=4096");
    let own = std::env::current_exe().expect("a path");
    s.run(&format!("hostfile 0 {:?}", own.to_str().expect("text")));
    s.run("vfork 0 1; setrlimit 1 vmem 1m; exec 0 0; expect ok; map 1 0 512 rw priv fixed anon; expect ENOMEM");
    assert_eq!(s.process(0).space().state().vmem_limit(), u64::MAX);
    s.end();
}

/// P2: who has exited reaches nothing of what others go on with.
#[test]
fn a_child_that_has_gone_reaches_nothing() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; vfork 0 1");
    let child = s.machine().process(s.process(1).pid()).expect("lives");
    let thread = child.another_thread(page_db::CpuId(0));
    s.run("exit 1");
    for gone in [child, thread] {
        assert!(gone.has_exited());
        assert!(gone.load_u8(addr(0).get()).is_err());
        let refused = gone.mprotect(addr(0).get(), PAGE_SIZE, 1).map_err(|e| e.errno);
        assert_eq!(refused, Err(errno::ENOMEM));
        assert_eq!(gone.vfork().map(drop).map_err(|e| e.errno), Err(errno::EAGAIN));
        assert!(gone.fork().is_err());
        gone.exit();
    }
    s.run("verify; write 0 0 0+1 66; read 0 0 0+1; expect ok b=42");
    s.end();
}

/// P1: the parent may go first; the child keeps the memory until it goes too.
#[test]
fn a_parent_that_goes_first_leaves_the_memory_to_the_child() {
    let mut s = scene(
        "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; vfork 0 1; vfork 1 2; exit 0; verify",
    );
    s.run("read 1 0 0+1; expect ok b=41; fork 1 3; write 1 0 0+1 66; exit 1; read 2 0 0+1; expect ok b=42");
    s.run("read 3 0 0+1; expect ok b=41; exit 2; read 3 0 0+1; expect ok b=41");
    s.end();
}

/// exec gives the child memory of its own; the parent's is whole.
#[test]
fn a_child_that_runs_a_program_gives_the_memory_back() {
    let mut s = Scene::on("machine memory=4096");
    let own = std::env::current_exe().expect("a path");
    s.run(&format!("hostfile 0 {:?}", own.to_str().expect("text")));
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; vfork 0 1; write 1 0 0+1 66; exec 1 0; expect ok");
    assert_ne!(s.process(0).space().id(), s.process(1).space().id());
    assert!(!s.process(0).shares_space() && !s.process(1).shares_space());
    s.run("read 0 0 0+1; expect ok b=42; read 1 0 0+1; expect SEGV at=0 code=maperr; exit 1; read 0 0 0+1; expect ok b=42");
    // And the other way round: the parent runs a program, the child goes on with the old memory.
    s.run("vfork 0 1; exec 0 0; expect ok; read 1 0 0+1; expect ok b=42; read 0 0 0+1; expect SEGV at=0 code=maperr; exit 1");
    s.end();
}

/// A child that cannot be had leaves nothing behind: one frame that is refused is waited for, all of them cannot be.
#[test]
fn without_a_frame_there_is_no_child() {
    let mut s = Scene::on("machine memory=96 swap=mem:8");
    s.run("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; lock 0 0 1");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let take = || cx.freeing_memory(|| db.alloc(cx, 0, page_db::Reserve::Normal)).ok();
    let all: Vec<_> = std::iter::from_fn(take).collect();
    let refused = s.process(0).vfork().expect_err("no frame at all");
    assert_eq!((refused.errno, s.process(0).shares_space()), (page_db::errno::ENOMEM, false));
    all.into_iter().for_each(|page| db.free(cx, page, false));
    s.machine().fail(&page_db::FailPlan::counting().kth(page_db::FailKind::Frame, 1));
    s.process(0).vfork().expect("there are others").exit();
    s.machine().fail(&page_db::FailPlan::default());
    s.run("verify; read 0 0 0+1; expect ok b=41");
    s.run("vfork 0 1; expect ok; write 1 0 0+1 66; exit 1; read 0 0 0+1; expect ok b=42");
    s.end();
}

/// Whoever is called back while an address is being chosen has the claim, which a fork takes: it is refused, and leaves no child.
#[test]
fn a_fork_under_the_range_claim_leaves_nothing() {
    let s = scene("map 0 0 1 rw priv fixed anon; write 0 0 1 65");
    let (m, p) = (s.machine(), s.process(0));
    let state = || (m.processes().len(), m.db().freemem(), m.swap().info().reserved());
    let (space, before) = (p.space(), state());
    let claim = space.claim_range(p.cx()).expect("nobody has it");
    assert_eq!(p.fork().map(drop).map_err(|e| e.errno), Err(errno::EAGAIN));
    assert_eq!(p.vfork().map(drop).map_err(|e| e.errno), Err(errno::EAGAIN));
    drop(claim);
    assert_eq!(state(), before);
    p.fork().expect("nobody has it").exit();
    assert_eq!(state(), before);
    s.end();
}
