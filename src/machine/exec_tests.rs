//! Programs: this very test binary, and files that are none.

use super::*;
use crate::files::{ElfImage, Piece};
use addr_space::Signal;
use page_db::errno::*;
use page_db::{PAGE_SIZE, Prot, Vnode, VnodeKind};

const ENOEXEC: i32 = 8;

fn own_executable(m: &Machine) -> Arc<File> {
    let path = std::env::current_exe().expect("a path");
    m.open_host_file(&path, false).expect("readable")
}

#[test]
fn a_real_program_becomes_an_address_space() {
    let m = Machine::builder().frames(4096).build().expect("a machine");
    let p = m.spawn("init").expect("a process");
    let before = p.map_anon(PAGE_SIZE).expect("mapped");
    let file = own_executable(&m);
    let program = p.exec(&file).expect("a program");
    m.verify().expect("sound");
    let gone = p.load_u8(before).expect_err("the old address space is gone");
    assert_eq!(gone.signal, Signal::SegvMapErr);
    assert_eq!(m.db().vnodes().kind(file.id()), VnodeKind::Exec);

    // The entry point holds the file's bytes, and can be fetched but not stored to.
    let image = &program.image;
    let offset = |vaddr: u64| {
        let s = image.segments.iter().find(|s| vaddr >= s.vaddr && vaddr < s.vaddr + s.file_size);
        s.map(|s| s.offset + vaddr - s.vaddr).expect("in the file")
    };
    let (mut seen, mut stored) = ([0; 16], [0; 16]);
    p.fetch(program.entry.get(), &mut seen).expect("executable");
    file.pread(m.cx(), m.db(), offset(image.entry), &mut stored).expect("readable");
    assert_eq!(seen, stored);
    let e = p.store(program.entry.get(), &[0]).expect_err("text is not writable");
    assert_eq!(e.signal, Signal::SegvAccErr);

    // Bss is zeros, the heap starts above it, the stack holds the arguments.
    let zero = program.pieces.iter().find_map(|piece| match piece {
        Piece::Zero { range, .. } => Some(range.start().get()),
        Piece::File { range, zero_tail, .. } => (*zero_tail > 0).then(|| range.end() - zero_tail),
    });
    assert_eq!(p.load_u8(zero.expect("a program has a bss")), Ok(0));
    let (base, now) = p.heap();
    assert!(base == now && program.pieces.iter().all(|piece| piece.range().end() <= base));
    p.brk(base + 10).expect("a heap");
    p.store(base, b"heap").expect("stored");
    let mut argc = [0; 8];
    let stack = p.stack().expect("a stack");
    let top = (stack.start().get()..STACK_TOP)
        .rev()
        .step_by(8)
        .map(|a| a & !7)
        .find(|a| p.load(*a, &mut argc).is_ok() && u64::from_le_bytes(argc) == 1);
    assert!(top.is_some(), "argc is on the stack");

    // Relocation stores into private copies; the file does not change.
    let words = p.relocate(&program).expect("relocated");
    assert_eq!(words, image.relative.len() as u64);
    if let Some(r) = image.relative.iter().find(|r| r.addend.is_some()) {
        let mut word = [0; 8];
        p.load(r.vaddr + program.base, &mut word).expect("readable");
        let want = r.addend.map(|a| a + program.base);
        assert_eq!(Some(u64::from_le_bytes(word)), want);
    }
    assert_eq!(file.transfers().1, 0);
    m.verify().expect("sound");

    let child = p.fork().expect("a child");
    child.store(base, b"HEAP").expect("copied");
    assert_eq!(p.load_u8(base), Ok(b'h'));
    m.pageout_all();
    assert_eq!(p.load_u8(base), Ok(b'h'));
    assert_eq!(child.load_u8(base), Ok(b'H'));
    p.exit();
    child.exit();
    m.verify().expect("sound");
    assert_eq!(m.swap().live(), 0);
}

/// What a program stores before it runs is a touch like others: what that is refused for is what exec is.
#[test]
fn a_program_that_cannot_be_stored_into_is_refused_with_the_reason() {
    let m = Machine::builder().frames(2048).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGE_SIZE).expect("mapped");
    p.store(at, b"still here").expect("stored");
    let file = own_executable(&m);
    let image = ElfImage::read(m.cx(), m.db(), &file).expect("a program");
    let tail = image.plan(LOAD_BASE).expect("planned").into_iter().find_map(|piece| match piece {
        Piece::File { offset, range, zero_tail, .. } if zero_tail > 0 => {
            Some(offset.0 + range.len() - PAGE_SIZE)
        }
        _ => None,
    });
    let tail = tail.expect("a program has data that ends within a page");
    let drop_page = || {
        use page_db::{FileOffset, PutFlags};
        file.put_page(m.cx(), m.db(), FileOffset(tail), PAGE_SIZE, PutFlags::INVAL).expect("clean");
    };
    drop_page();
    // Whether the headers' page is read again before is the cache's affair: the first read that is that of the data fails.
    let reads = file.transfers().0;
    p.exec(&file).expect("a program");
    assert!(file.transfers().0 > reads, "the tail was read");
    drop_page();
    file.fail_read(m.cx(), 1, EIO);
    let e = p.exec(&file).expect_err("the data cannot be read");
    assert_eq!((e.call, e.errno), ("exec", EIO), "{e}");
    assert_eq!(p.name(), file.name());
    m.verify().expect("sound");
}

/// Pages of a program count as such when they are read, as they do when they are written.
#[test]
fn what_is_read_of_a_program_counts_as_the_programs() {
    use page_db::{Counter, FileOffset, PutFlags};
    let m = Machine::builder().frames(2048).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let file = own_executable(&m);
    let counts = || [Counter::ExecPgIn, Counter::FsPgIn].map(|c| m.counters().get(c));
    let program = p.exec(&file).expect("a program");
    let before = counts();
    assert!(before[0] > 0 || before[1] > 0, "its headers were read before it ran");
    let text = |piece: &&Piece| piece.range().contains(program.entry);
    let Some(Piece::File { range, offset, .. }) = program.pieces.iter().find(text) else {
        panic!("the entry is in the file");
    };
    let at = offset.0 + (program.entry.get() & !(PAGE_SIZE - 1)) - range.start().get();
    let fetch = || p.fetch(program.entry.get(), &mut [0]).expect("executable");
    fetch();
    let before = counts();
    let gone = file.put_page(m.cx(), m.db(), FileOffset(at), PAGE_SIZE, PutFlags::INVAL);
    gone.expect("clean");
    fetch();
    assert_eq!(counts(), [before[0] + 1, before[1]]);
}

#[test]
fn what_is_no_program_changes_nothing() {
    let m = Machine::builder().frames(512).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGE_SIZE).expect("mapped");
    p.store(at, b"still here").expect("stored");
    let empty = m.create_file("empty", 0).expect("a file");
    let text = m.create_file("text", 0).expect("a file");
    text.pwrite(m.cx(), m.db(), 0, b"#!/bin/sh\n").expect("written");
    let cut = m.create_file("cut", 0).expect("a file");
    let mut head = [0; 200];
    own_executable(&m).pread(m.cx(), m.db(), 0, &mut head).expect("read");
    cut.pwrite(m.cx(), m.db(), 0, &head).expect("written");
    for file in [&empty, &text, &cut] {
        let e = p.exec(file).expect_err("no program");
        assert_eq!(e.errno, ENOEXEC, "{e}");
        assert!(e.to_string().contains(&file.name()), "{e}");
        m.verify().expect("sound");
    }
    cut.fail_read(m.cx(), 1, EIO);
    {
        use page_db::{FileOffset, PutFlags};
        cut.put_page(m.cx(), m.db(), FileOffset(0), 0, PutFlags::INVAL).expect("dropped");
    }
    assert_eq!(p.exec(&cut).expect_err("unreadable").errno, EIO);
    assert_eq!(p.load_u8(at), Ok(b's'));
    assert_eq!(p.name(), "p");
    m.verify().expect("sound");
}

#[test]
fn a_program_without_memory_is_refused() {
    // The first tries have too little memory for the tables, later ones for the stack: the machine stays sound at each.
    for frames in 8..40 {
        let Ok(m) = Machine::builder().frames(frames).build() else { continue };
        let Ok(p) = m.spawn("p") else { continue };
        let done = p.exec(&own_executable(&m));
        m.verify().unwrap_or_else(|v| panic!("{frames} frames: {v} after {done:?}"));
        if let Err(e) = done {
            assert!(matches!(e.errno, ENOMEM | EAGAIN), "{frames} frames: {e}");
            assert_eq!(e.call, "exec", "{frames} frames: {e}");
            assert!(!p.has_exited(), "{frames} frames: nothing has changed");
        }
        p.exit();
        m.verify().unwrap_or_else(|v| panic!("{frames} frames: {v} after exit"));
    }
}

#[test]
fn another_thread_sees_the_new_program() {
    let m = Machine::builder().frames(2048).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let other = p.another_thread(page_db::CpuId(1));
    let at = p.map_anon(PAGE_SIZE).expect("mapped");
    assert_eq!(other.load_u8(at), Ok(0));
    let program = p.exec(&own_executable(&m)).expect("a program");
    assert!(other.load_u8(at).is_err());
    let mut b = [0];
    other.fetch(program.entry.get(), &mut b).expect("executable");
    let first = program.pieces.first().expect("a piece");
    assert!(first.prot().contains(Prot::READ));
    m.verify().expect("sound");
}

/// vfork, limits, exec: the program runs under the child's limits, and the parent goes on under its own.
#[test]
fn limits_set_for_a_program_are_not_the_parents() {
    let m = Machine::builder().frames(2048).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let child = p.vfork().expect("a child");
    let large = 1 << 30;
    child.set_limit(Limit::Vmem, large);
    child.set_limit(Limit::Memlock, PAGE_SIZE);
    child.exec(&own_executable(&m)).expect("it fits");
    let told = |p: &Process| {
        let space = p.space();
        (space.state().vmem_limit(), space.state().memlock_limit())
    };
    assert_eq!((told(&child), told(&p)), ((large, PAGE_SIZE), (u64::MAX, u64::MAX)));
    m.verify().expect("sound");
}

/// P4: what is reported of a limit is what holds, whoever else sets it and whatever program is run meanwhile.
#[test]
fn what_is_reported_of_a_limit_is_what_holds() {
    let m = Machine::builder().frames(8192).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let agree = |round: u64| {
        let holds = p.space().state().vmem_limit();
        assert_eq!(p.limit(Limit::Vmem), holds, "round {round}");
    };
    let large = 1 << 40;
    for round in 0..500 {
        let other = p.another_thread(page_db::CpuId(1));
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|s| {
            let begin = &start;
            s.spawn(move || {
                begin.wait();
                (0..100).for_each(|n| other.set_limit(Limit::Vmem, large + 2 * n));
            });
            begin.wait();
            (0..100).for_each(|n| p.set_limit(Limit::Vmem, large + 2 * n + 1));
        });
        agree(round);
    }
    let file = own_executable(&m);
    for round in 0..20 {
        let other = p.another_thread(page_db::CpuId(1));
        let done = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|s| {
            let done = &done;
            s.spawn(move || {
                for n in 0.. {
                    other.set_limit(Limit::Vmem, large + n);
                    // Now and then for the last time, at any point of an exec.
                    if done.load(std::sync::atomic::Ordering::Relaxed) || n == round * 20 {
                        break;
                    }
                }
            });
            p.exec(&file).map(drop).expect("a program");
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        agree(round);
    }
    m.verify().expect("sound");
}

#[test]
fn a_process_that_has_exited_runs_no_program() {
    let m = Machine::builder().frames(2048).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let child = p.vfork().expect("a child");
    let file = own_executable(&m);
    let free = m.db().freemem();
    child.exit();
    assert_eq!(child.exec(&file).expect_err("gone").errno, ESRCH);
    // Also when it is gone by the time the new address space is there.
    let space = m.new_space("test").expect("frames");
    let fresh = super::image::Image::new(space, 0, Some(&child.shared.limits));
    assert!(child.replace_image(&fresh, "late").is_none());
    child.give_up(&fresh);
    assert!(!p.shares_space());
    p.exit();
    assert_eq!(p.exec(&file).expect_err("gone").errno, ESRCH);
    assert!(m.db().freemem() >= free, "no address space is left behind");
    m.verify().expect("sound");
}

#[test]
fn of_exit_and_exec_at_once_each_gives_up_its_own() {
    let m = Machine::builder().frames(4096).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGE_SIZE).expect("mapped");
    let file = own_executable(&m);
    for round in 0..200 {
        let child = p.vfork().expect("a child");
        let other = child.another_thread(page_db::CpuId(1));
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|s| {
            let begin = &start;
            s.spawn(move || {
                begin.wait();
                // Half way through exec, more or less.
                (0..round * 500).for_each(|_| std::hint::spin_loop());
                other.exit();
            });
            begin.wait();
            match child.exec(&file) {
                Ok(_) => {}
                Err(e) => assert!(matches!(e.errno, ESRCH | EFAULT | ENOMEM), "{e}"),
            }
        });
        assert!(child.has_exited() && !p.shares_space(), "round {round}");
        p.store(at, &[1]).expect("the parent's memory is whole");
    }
    m.verify().expect("sound");
}

#[test]
fn a_program_over_a_limit_leaves_the_old_one_whole() {
    let m = Machine::builder().frames(2048).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let at = p.map_anon(PAGE_SIZE).expect("mapped");
    p.store(at, &[7]).expect("stored");
    let (heap, name) = (p.heap(), p.name());
    for (limit, errno) in [(Limit::Vmem, ENOMEM), (Limit::Stack, ENOMEM)] {
        p.set_limit(limit, PAGE_SIZE / 2);
        assert_eq!(p.exec(&own_executable(&m)).expect_err("too little").errno, errno, "{limit:?}");
        assert_eq!((p.load_u8(at), p.heap(), p.name()), (Ok(7), heap, name.clone()), "{limit:?}");
        p.set_limit(limit, u64::MAX);
    }
    m.verify().expect("sound");
    p.set_limit(Limit::Vmem, 1 << 30);
    p.exec(&own_executable(&m)).expect("a program");
    assert_eq!(p.limit(Limit::Vmem), 1 << 30, "a limit is the program's, too");
}

/// Each thread finds a whole program, whichever of two that are begun at once comes last.
#[test]
fn of_two_programs_at_once_one_is_there_whole() {
    let m = Machine::builder().frames(8192).cpus(2).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    for round in 0..20 {
        let other = p.another_thread(page_db::CpuId(1));
        let file = own_executable(&m);
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|s| {
            let (begin, file) = (&start, &file);
            s.spawn(move || {
                begin.wait();
                (0..round * 1000).for_each(|_| std::hint::spin_loop());
                other.exec(file).map(drop).expect("the second program");
            });
            begin.wait();
            p.exec(file).map(drop).expect("the first program");
        });
        let (base, now) = p.heap();
        assert!(base == now && base != BREAK_BASE, "round {round}: the break is the program's");
        assert!(p.stack().is_some(), "round {round}: it has a stack");
        m.verify().unwrap_or_else(|v| panic!("round {round}: {v}"));
    }
}

/// A file whose first read waits until the process runs another program.
#[derive(Debug)]
struct ReadLate {
    reader: std::sync::Mutex<Option<std::sync::mpsc::Sender<()>>>,
    process: Arc<crate::machine::process::Shared>,
    before: addr_space::AsId,
}

impl crate::files::Store for ReadLate {
    fn read(&self, _: &page_db::Cx, _: u64, _: &mut crate::files::PageBuf) -> Result<(), i32> {
        if let Some(reads) = self.reader.lock().expect("quiet").take() {
            let _ = reads.send(());
            while self.process.space().id() == self.before {
                std::thread::yield_now();
            }
        }
        Ok(())
    }
    fn write(&self, _: &page_db::Cx, _: u64, _: &[u8]) -> Result<(), i32> {
        Ok(())
    }
    fn resize(&self, _: &page_db::Cx, _: u64, _: u64) -> Result<(), i32> {
        Ok(())
    }
}

/// A call that works in several steps does all of them where it began: it locks nothing of the program that another thread runs meanwhile.
#[test]
fn a_lock_that_brings_in_is_of_one_program() {
    let m = Machine::builder().frames(4096).cpus(2).build().expect("a machine");
    let executable = own_executable(&m);
    let twin = m.spawn("twin").expect("a process");
    let place = twin.exec(&executable).expect("a program").pieces[0].range();
    twin.exit();
    for all in [false, true] {
        let p = m.spawn("p").expect("a process");
        p.set_personality(Personality::Linux);
        let (reads, begun) = std::sync::mpsc::channel();
        let late = ReadLate {
            reader: std::sync::Mutex::new(Some(reads)),
            process: Arc::clone(&p.shared),
            before: p.space().id(),
        };
        let file = m.add_file("late", PAGE_SIZE, Box::new(late)).expect("a file");
        let file = crate::files::FileHandle::new(file, crate::files::OpenMode::ReadWrite);
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        let (addr, len, file) = (place.start().get(), PAGE_SIZE, Some(&file));
        p.mmap(&MapRequest { addr, len, prot: 1, flags, file, offset: 0 }).expect("room");
        let other = p.another_thread(page_db::CpuId(1));
        std::thread::scope(|s| {
            let executable = &executable;
            s.spawn(move || {
                begun.recv().expect("it reads");
                other.exec(executable).map(drop).expect("a program");
            });
            // What it answers depends on how far the end of the old program is by then.
            let _ = match all {
                true => p.mlockall(addr_space::LockAll::CURRENT),
                false => p.mlock(addr, len),
            };
        });
        assert_eq!(p.space().state().locked(), 0, "all: {all}");
        p.exit();
    }
    m.verify().expect("sound");
}

/// Nobody finds a child that is not yet what it is to be.
#[test]
fn a_process_is_found_when_it_is_whole() {
    let m = Machine::builder().frames(512).build().expect("a machine");
    let p = m.spawn("p").expect("a process");
    let pids = || m.processes().iter().map(Process::pid).collect::<Vec<_>>();
    let child = Process::create(&m, p.cx().cpu(), "child").expect("frames");
    assert_eq!(pids(), [p.pid()]);
    let child = child.announce();
    assert_eq!(pids(), [p.pid(), child.pid()]);
    child.exit();
    let (child, other) = (p.fork().expect("a child"), p.vfork().expect("another"));
    assert_eq!(pids(), [p.pid(), child.pid(), other.pid()]);
    // One that is never announced goes all the same.
    Process::create(&m, p.cx().cpu(), "none").expect("frames").exit();
    assert_eq!(pids(), [p.pid(), child.pid(), other.pid()]);
    m.verify().expect("sound");
}
