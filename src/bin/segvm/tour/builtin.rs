//! A program made on the spot: text, data with relocations, bss, and nothing else.
//!
//! ```text
//!   file     address   rights
//!   0x0000   0x0000    r--      headers, relocations
//!   0x1000   0x1000    r-x      text, three pages; the entry is in the second
//!   0x4000   0x5000    rw-      data: the dynamic section, a table of pointers
//!            0x7000    rw-      bss, four pages
//! ```
//!
//! Nothing ever runs it, so its text is any bytes at all: here, ones that differ from page to page.

/// Bytes of text.
const TEXT_BYTES: u64 = 0x3000;
const TEXT: u64 = 0x1000;
const DATA_OFFSET: u64 = 0x4000;
const DATA: u64 = 0x5000;
const DATA_BYTES: u64 = 0x1800;
const DATA_IN_MEMORY: u64 = 0x6000;
/// Relocations, and where their table lies.
const RELOCATIONS: u64 = 24;
const RELA: u64 = 0x200;
const RELA_ENTRY: u64 = 24;
/// Offset of the pointers in the data: the last ones lie on its second page.
const POINTERS: u64 = 0xf80;

/// The bytes of the program's file.
pub(super) fn program() -> Vec<u8> {
    let mut file = vec![0; (DATA_OFFSET + DATA_BYTES) as usize];
    let mut put = |at: u64, words: &[u64]| {
        for (n, word) in words.iter().enumerate() {
            let at = at as usize + 8 * n;
            file[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
    };
    header(&mut put);
    for n in 0..RELOCATIONS {
        // r_offset, r_info (R_X86_64_RELATIVE), r_addend
        put(RELA + n * RELA_ENTRY, &[DATA + POINTERS + 8 * n, 8, TEXT + 16 * n]);
    }
    // DT_RELA, DT_RELASZ, DT_RELAENT, DT_NULL
    put(DATA_OFFSET, &[7, RELA, 8, RELOCATIONS * RELA_ENTRY, 9, RELA_ENTRY, 0, 0]);
    for n in (0..TEXT_BYTES).step_by(8) {
        put(TEXT + n, &[(n | 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)]);
    }
    file
}

fn header(put: &mut impl FnMut(u64, &[u64])) {
    const PHDRS: u64 = 64;
    const SHAPE: u64 = 64 | 56 << 16 | 4 << 32;
    // Magic, 64-bit, little end first, version 1.
    put(0, &[0x0001_0102_464c_457f, 0]);
    // e_type ET_DYN, e_machine EM_X86_64, e_version; e_entry; e_phoff; e_shoff;
    // e_flags and e_ehsize; e_phentsize, e_phnum and no sections.
    put(16, &[3 | 62 << 16 | 1 << 32, TEXT + 0x1040, PHDRS, 0]);
    put(48, &[SHAPE << 32, SHAPE >> 32]);
    let segment = |kind: u64, flags: u64, offset, at, len, memory, align| {
        [kind | flags << 32, offset, at, at, len, memory, align]
    };
    let (load, dynamic) = (1, 2);
    let (r, w, x) = (4, 2, 1);
    let segments = [
        segment(
            load,
            r,
            0,
            0,
            RELA + RELOCATIONS * RELA_ENTRY,
            RELA + RELOCATIONS * RELA_ENTRY,
            0x1000,
        ),
        segment(load, r | x, TEXT, TEXT, TEXT_BYTES, TEXT_BYTES, 0x1000),
        segment(load, r | w, DATA_OFFSET, DATA, DATA_BYTES, DATA_IN_MEMORY, 0x1000),
        segment(dynamic, r | w, DATA_OFFSET, DATA, 64, 64, 8),
    ];
    for (n, words) in (0..).zip(segments) {
        put(PHDRS + n * 56, &words);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use segvm::files::ElfImage;

    #[test]
    fn it_is_a_program() {
        let bytes = program();
        let image = ElfImage::parse("builtin", bytes.as_slice()).expect("parses");
        assert!(image.position_independent);
        assert_eq!((image.segments.len(), image.relative.len()), (3, RELOCATIONS as usize));
        assert_eq!(image.entry, TEXT + 0x1040);
        assert_eq!(image.plan(0x40_0000).expect("fits").len(), 4);
    }
}
