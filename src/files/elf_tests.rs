//! The ELF reader: a program built by hand, and each way to spoil it.

use super::*;

/// A program with text, data and bss, byte by byte, so that each byte can be spoiled.
fn program() -> Vec<u8> {
    let mut b = vec![0u8; 0x3000];
    let put =
        |b: &mut Vec<u8>, at: usize, bytes: &[u8]| b[at..at + bytes.len()].copy_from_slice(bytes);
    put(&mut b, 0, b"\x7fELF\x02\x01\x01");
    put(&mut b, 16, &3u16.to_le_bytes()); // ET_DYN
    put(&mut b, 18, &62u16.to_le_bytes());
    put(&mut b, 20, &1u32.to_le_bytes());
    put(&mut b, 24, &0x1010u64.to_le_bytes()); // entry
    put(&mut b, 32, &64u64.to_le_bytes()); // phoff
    put(&mut b, 52, &64u16.to_le_bytes());
    put(&mut b, 54, &56u16.to_le_bytes());
    put(&mut b, 56, &4u16.to_le_bytes()); // phnum
    let mut phdr = |i: usize, words: [u64; 8]| {
        let at = 64 + 56 * i;
        put(&mut b, at, &(words[0] as u32).to_le_bytes());
        put(&mut b, at + 4, &(words[1] as u32).to_le_bytes());
        for (k, w) in words[2..].iter().enumerate() {
            put(&mut b, at + 8 + 8 * k, &w.to_le_bytes());
        }
    };
    //          type flags offset  vaddr   paddr filesz memsz  align
    phdr(0, [1, 5, 0x1000, 0x1000, 0, 0x800, 0x800, 0x1000]);
    phdr(1, [1, 6, 0x2010, 0x3010, 0, 0x100, 0x2800, 0x1000]);
    phdr(2, [3, 4, 0x1700, 0x1700, 0, 10, 10, 1]);
    phdr(3, [2, 6, 0x2010, 0x3010, 0, 64, 64, 8]); // dynamic
    put(&mut b, 0x1700, b"/lib/ld.1\0");
    for (k, w) in [7u64, 0x3060, 8, 48, 9, 24, 0, 0].iter().enumerate() {
        put(&mut b, 0x2010 + 8 * k, &w.to_le_bytes());
    }
    // Two relocations: one relative, one that needs a symbol.
    for (k, w) in [0x3100u64, 8, 0x1234, 0x3108, (1 << 32) | 6, 0].iter().enumerate() {
        put(&mut b, 0x2060 + 8 * k, &w.to_le_bytes());
    }
    b
}

fn problem(bytes: &[u8]) -> ElfProblem {
    ElfImage::parse("p", bytes).expect_err("malformed").problem
}

fn spoiled(at: usize, bytes: &[u8]) -> ElfProblem {
    let mut b = program();
    b[at..at + bytes.len()].copy_from_slice(bytes);
    problem(&b)
}

#[test]
fn a_program_is_a_list_of_pieces() {
    let p = program();
    let image = ElfImage::parse("p", &p[..]).expect("well-formed");
    assert!(image.position_independent);
    assert_eq!(image.interpreter.as_deref(), Some("/lib/ld.1"));
    assert_eq!(image.relative, [RelativeReloc { vaddr: 0x3100, addend: Some(0x1234) }]);
    assert_eq!(image.symbolic, 1);
    assert_eq!(image.span(), (0x1000, 0x5810));
    assert_eq!(image.entry_at(0x40_0000).map(VirtAddr::get), Some(0x40_1010));
    let plan = image.plan(0x40_0000).expect("fits");
    let shown: Vec<_> = plan
        .iter()
        .map(|p| match p {
            Piece::File { range, prot, offset, zero_tail } => {
                format!("file {range} {prot} {offset} tail {zero_tail:#x}")
            }
            Piece::Zero { range, prot } => format!("zero {range} {prot}"),
        })
        .collect();
    assert_eq!(
        shown,
        [
            "file 0x401000..0x402000 r-x 0x1000 tail 0x0",
            "file 0x403000..0x404000 rw- 0x2000 tail 0xef0",
            "zero 0x404000..0x406000 rw-",
        ]
    );
}

#[test]
fn each_damage_has_its_name() {
    assert_eq!(problem(&[]), ElfProblem::NotElf);
    assert_eq!(spoiled(0, b"\x7fEVE"), ElfProblem::NotElf);
    assert_eq!(spoiled(4, &[1]), ElfProblem::WrongMachine);
    assert_eq!(spoiled(5, &[2]), ElfProblem::WrongMachine);
    assert_eq!(spoiled(18, &[3]), ElfProblem::WrongMachine);
    assert_eq!(spoiled(16, &[4]), ElfProblem::WrongType(4));
    assert_eq!(spoiled(32, &[0xff; 8]), ElfProblem::Headers);
    assert_eq!(spoiled(24, &[0, 0]), ElfProblem::Entry(0));
    let first = 64;
    assert!(matches!(spoiled(first + 8 + 7, &[0xff]), ElfProblem::BeyondFile { index: 0, .. }));
    assert!(matches!(spoiled(first + 32 + 1, &[0xff]), ElfProblem::BeyondFile { index: 0, .. }));
    assert!(matches!(
        spoiled(first + 40, &[0; 2]),
        ElfProblem::NothingToLoad | ElfProblem::Entry(_)
    ));
    assert!(matches!(spoiled(first + 40 + 1, &[4]), ElfProblem::Shrinks { index: 0, .. }));
    assert!(matches!(spoiled(first + 16, &[1]), ElfProblem::Incongruent { index: 0, .. }));
    assert!(matches!(spoiled(first + 16 + 7, &[0x80]), ElfProblem::OutsideSpace { index: 0, .. }));
    assert!(matches!(spoiled(first + 40 + 1, &[0x30]), ElfProblem::Overlap { index: 1 }));
    assert_eq!(spoiled(0x1709, b"x"), ElfProblem::Interpreter);
    assert_eq!(spoiled(0x2010 + 8, &[0xff; 8]), ElfProblem::Relocations);
    assert_eq!(spoiled(0x2010 + 40, &[16]), ElfProblem::Relocations);
    assert_eq!(spoiled(0x2060 + 7, &[0xff]), ElfProblem::Relocations);
}

#[test]
fn no_cut_and_no_flipped_byte_panics() {
    let whole = program();
    for n in (0..whole.len()).step_by(7) {
        let _ = ElfImage::parse("p", &whole[..n]);
    }
    for at in (0..64 + 56 * 4).chain(0x2010..0x2090) {
        for v in [0u8, 1, 0x7f, 0x80, 0xff] {
            let mut b = whole.clone();
            b[at] = v;
            if let Ok(image) = ElfImage::parse("p", &b[..]) {
                for base in [0, 0x1000, 0x7fff_ffff_0000, u64::MAX - 4095] {
                    let _ = image.plan(base);
                    let _ = image.entry_at(base);
                }
            }
        }
    }
}

#[test]
fn this_very_program_can_be_read() {
    let exe = std::env::current_exe().expect("a path");
    let bytes = std::fs::read(&exe).expect("readable");
    let image = ElfImage::parse("self", &bytes[..]).expect("well-formed");
    assert!(image.segments.len() >= 3);
    assert!(!image.relative.is_empty());
    assert!(image.plan(0x5555_0000_0000).is_ok());
}
