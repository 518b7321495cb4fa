//! Files, programs and swap areas.

use super::{Ground, HUGE, MAX, Row, SIZE, errno, row, run, said};
use crate::world::{PAGE, at};
use page_db::{FileOffset, PutFlags, Vnode};
use segvm::files::{File, FileError};
use segvm::machine::{SwapArea, SwapBacking, SwapCtlError};
use std::path::Path;
use std::sync::Arc;
use swapfs::{AreaId, MemDevice, SwapError};

fn told<T: std::fmt::Debug>(r: Result<T, FileError>) -> String {
    r.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |v| format!("{v:?}"))
}

fn open(g: &Ground, path: &str, writable: bool) -> String {
    told(g.m.open_host_file(Path::new(path), writable).map(|f| f.name()))
}

const FILES: &[Row] = &[
    row(
        "a file of 2^63 bytes",
        |g| told(g.m.create_file("large", HUGE)),
        "EFBIG: `large` cannot have 0x8000000000000000 bytes",
    ),
    row(
        "no such file",
        |g| open(g, "/nowhere/at/all", false),
        "ENOENT: the store of `/nowhere/at/all` failed with errno 2",
    ),
    row("a directory", |g| open(g, "/", false), "EISDIR: the store of `/` failed with errno 21"),
    row(
        "a size of 2^64-1",
        |g| told(g.file.truncate(g.cx(), g.m.db(), MAX)),
        "EINVAL: offset 0xffffffffffffffff of `data` passes the largest file offset",
    ),
    row(
        "a write at 2^63",
        |g| told(g.file.pwrite(g.cx(), g.m.db(), HUGE, b"x")),
        "EINVAL: offset 0x8000000000000000 of `data` passes the largest file offset",
    ),
    row(
        "a write that ends past the largest offset",
        |g| told(g.file.pwrite(g.cx(), g.m.db(), HUGE - 2, b"four")),
        "EFBIG: `data` cannot have 0x8000000000000002 bytes",
    ),
    row(
        "a read at 2^64-1",
        |g| told(g.file.pread(g.cx(), g.m.db(), MAX, &mut [0; 4])),
        "EINVAL: offset 0xffffffffffffffff of `data` passes the largest file offset",
    ),
    row("a read past the end", |g| told(g.file.pread(g.cx(), g.m.db(), SIZE, &mut [0; 4])), "0"),
    row(
        "a read that fails",
        |g| {
            g.file.fail_read(g.cx(), 1, 5);
            told(g.file.pread(g.cx(), g.m.db(), 0, &mut [0; 4]))
        },
        "EIO: i/o error 5 at offset 0x0 of vnode 3",
    ),
    row(
        "a flush that fails, and one that does not",
        |g| {
            g.file.pwrite(g.cx(), g.m.db(), 0, b"dirty").unwrap();
            g.file.fail_write(g.cx(), 1, 28);
            let first = told(g.file.sync(g.cx(), g.m.db()));
            format!("{first}; {}", told(g.file.sync(g.cx(), g.m.db())))
        },
        "ENOSPC: i/o error 28 at offset 0x0 of vnode 3; ()",
    ),
    row(
        "a page past the end",
        |g| match g.file.get_page(g.cx(), g.m.db(), FileOffset(HUGE), page_db::Access::Read) {
            Ok(_) => "a page".to_owned(),
            Err(e) => e.to_string(),
        },
        "offset 0x8000000000000000 of vnode 3 lies past its end (0x2800 bytes)",
    ),
    row(
        "pages put away that are not there",
        |g| {
            let put = g.file.put_page(g.cx(), g.m.db(), FileOffset(HUGE), MAX, PutFlags::INVAL);
            format!("{put:?}")
        },
        "Ok(())",
    ),
    row(
        "a file that is mapped is forgotten",
        |g| format!("{}", g.m.remove_file(Arc::clone(&g.file))),
        "false",
    ),
];

/// Puts bytes into a new file and runs it.
fn exec(g: &Ground, bytes: &[u8]) -> String {
    let file = g.m.create_file("program", 0).unwrap();
    file.pwrite(g.cx(), g.m.db(), 0, bytes).unwrap();
    run_file(g, &file)
}

fn run_file(g: &Ground, file: &Arc<File>) -> String {
    said(g.p.exec(file).map(|_| ()))
}

/// A program of one segment, executable and readable, at 0x400000.
fn program() -> Vec<u8> {
    let mut b = vec![0u8; 2 * PAGE as usize];
    let mut put = |at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &[2, 0, 62, 0, 1]); // ET_EXEC, x86-64, version 1
    put(24, &0x40_0100u64.to_le_bytes()); // entry
    put(32, &64u64.to_le_bytes()); // program headers behind this one
    put(52, &[64, 0, 56, 0, 1]); // sizes, and one of them
    put(64, &[1, 0, 0, 0, 5]); // PT_LOAD, r-x
    for (i, word) in [0, 0x40_0000, 0x40_0000, PAGE, PAGE, PAGE].into_iter().enumerate() {
        put(72 + 8 * i, &u64::to_le_bytes(word)); // offset, vaddr, paddr, filesz, memsz, align
    }
    b
}

fn spoilt(g: &Ground, at: usize, bytes: &[u8]) -> String {
    let mut b = program();
    b[at..at + bytes.len()].copy_from_slice(bytes);
    exec(g, &b)
}

const PROGRAMS: &[Row] = &[
    row("an empty file", |g| exec(g, b""), "ENOEXEC: program: not an ELF file"),
    row("a text", |g| exec(g, b"#!/bin/sh\n"), "ENOEXEC: program: not an ELF file"),
    row("half a header", |g| exec(g, &program()[..32]), "ENOEXEC: program: not an ELF file"),
    row(
        "a program of 32 bits",
        |g| spoilt(g, 4, &[1]),
        "ENOEXEC: program: not a 64-bit x86-64 program",
    ),
    row(
        "a program for another machine",
        |g| spoilt(g, 18, &[183]),
        "ENOEXEC: program: not a 64-bit x86-64 program",
    ),
    row(
        "an object file",
        |g| spoilt(g, 16, &[1]),
        "ENOEXEC: program: type 1 is neither an executable nor a shared object",
    ),
    row(
        "headers past the end",
        |g| spoilt(g, 32, &MAX.to_le_bytes()),
        "ENOEXEC: program: the program headers lie outside the file",
    ),
    row("no segment", |g| spoilt(g, 64, &[4]), "ENOEXEC: program: no segment is to be loaded"),
    row(
        "a segment past the end of the file",
        |g| spoilt(g, 72, &(1u64 << 40).to_le_bytes()),
        "ENOEXEC: program: segment 0 takes bytes 0x10000000000+0x1000 of a file of 0x2000 bytes",
    ),
    row(
        "a segment that is larger in the file",
        |g| spoilt(g, 104, &8u64.to_le_bytes()),
        "ENOEXEC: program: segment 0 has 0x1000 bytes in the file but 0x8 in memory",
    ),
    row(
        "a segment in the kernel",
        |g| spoilt(g, 80, &0xffff_8000_0000_0000u64.to_le_bytes()),
        "ENOMEM: program: segment 0 at 0xffff800000000000+0x1000 leaves the address space",
    ),
    row(
        "a segment whose end wraps",
        |g| spoilt(g, 104, &MAX.to_le_bytes()),
        "ENOMEM: program: segment 0 at 0x400000+0xffffffffffffffff leaves the address space",
    ),
    row(
        "an entry point outside",
        |g| spoilt(g, 24, &0x50_0000u64.to_le_bytes()),
        "ENOEXEC: program: entry point 0x500000 is in no executable segment",
    ),
    row(
        "a segment off its page",
        |g| spoilt(g, 80, &0x40_0010u64.to_le_bytes()),
        "ENOEXEC: program: segment 0 at 0x400010 cannot be mapped from offset 0x0",
    ),
    row(
        "a program that cannot be read",
        |g| {
            let file = g.m.create_file("program", 2 * PAGE).unwrap();
            file.fail_read(g.cx(), 1, 5);
            run_file(g, &file)
        },
        "EIO: program: the file cannot be read (errno 5)",
    ),
    row(
        "a segment in the stack's room",
        |g| {
            let mut b = program();
            let vaddr = (segvm::machine::STACK_TOP - PAGE).to_le_bytes();
            b[80..88].copy_from_slice(&vaddr);
            b[24..32].copy_from_slice(&vaddr);
            exec(g, &b)
        },
        "ENOMEM: the program reaches into the stack",
    ),
];

fn area(pages: u64) -> SwapArea {
    SwapArea { backing: SwapBacking::Memory, pages, priority: 0 }
}

fn control<T: std::fmt::Debug>(r: Result<T, SwapCtlError>) -> String {
    r.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |v| format!("{v:?}"))
}

fn add(g: &Ground, start: u64, pages: u64) -> String {
    let device = Arc::new(MemDevice::new("/dev/extra", 100));
    let added: Result<_, SwapError> = g.m.swap().add(g.cx(), device, start, pages, 0);
    added.map_or_else(|e| format!("{}: {e}", errno(e.errno())), |a| format!("{a}"))
}

const AREAS: &[Row] = &[
    row("no page", |g| control(g.m.swap_add(&area(0))), "EINVAL: swap area on mem1 has no pages"),
    row(
        "2^63 pages",
        |g| control(g.m.swap_add(&area(HUGE))),
        "EINVAL: pages 0+9223372036854775808 lie outside mem1, which has 9223372036854775808",
    ),
    row(
        "a file in no directory",
        |g| {
            let backing = SwapBacking::File("/nowhere/at/all".into());
            control(g.m.swap_add(&SwapArea { backing, ..area(8) }))
        },
        "ENOENT: swap on `/nowhere/at/all`: open at page 0 failed (errno 2)",
    ),
    row(
        "past the device",
        |g| add(g, 90, 11),
        "EINVAL: pages 90+11 lie outside /dev/extra, which has 100",
    ),
    row(
        "an end that wraps",
        |g| add(g, MAX, 2),
        "EINVAL: pages 18446744073709551615+2 lie outside /dev/extra, which has 100",
    ),
    row(
        "what is in use",
        |g| {
            add(g, 10, 20);
            add(g, 29, 5)
        },
        "EEXIST: pages 29+5 of /dev/extra overlap swap area 2",
    ),
    row(
        "no such area is removed",
        |g| control(g.m.swap_del(AreaId(77))),
        "EINVAL: no swap area 77",
    ),
    row(
        "an area is removed twice",
        |g| {
            add(g, 0, 10);
            control(g.m.swap_del(AreaId(2))) + "; " + &control(g.m.swap_del(AreaId(2)))
        },
        "(); EINVAL: no swap area 2",
    ),
];

#[test]
fn wrong_files() {
    run(Ground::new, FILES);
}

/// Until the old address space goes, a program that cannot be run changes nothing.
#[test]
fn wrong_programs() {
    run(Ground::new, PROGRAMS);
}

#[test]
fn a_right_program_runs() {
    let g = Ground::new();
    assert_eq!(exec(&g, &program()), "done");
    assert!(g.p.load_u8(at(0)).is_err(), "what was mapped before is gone");
    assert_eq!(g.p.load_u8(0x40_0001).unwrap(), b'E');
    g.m.verify().unwrap();
}

/// Who has the old address space in hand keeps nobody from the new one.
#[test]
fn a_space_in_hand_does_not_keep_the_old_program() {
    let g = Ground::new();
    let old = g.p.space();
    assert_eq!(exec(&g, &program()), "done");
    assert_eq!(g.p.load_u8(0x40_0001).unwrap(), b'E');
    assert!(g.p.load_u8(at(0)).is_err());
    assert!(!Arc::ptr_eq(&old, &g.p.space()) && old.is_freed());
    g.m.verify().unwrap();
}

#[test]
fn wrong_swap_areas() {
    run(Ground::new, AREAS);
}
