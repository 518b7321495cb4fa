//! What a program file says about the address space it wants.
//!
//! A program is a list of pieces. Each is a range of the file that appears at an address with certain rights, and where the piece is
//! longer in memory than in the file, the rest is zeros:
//!
//! ```text
//!   file      [ .text ......... ][ .data ....|
//!   memory    [ text, r-x       ][ data, rw- |zero tail][ bss: anonymous, rw- ]
//!                                 file pages  ^ the last file page's rest, cleared by a store: a private copy
//! ```
//!
//! The file is not trusted: every number in it is checked before it is used, and an [`ElfError`] says which one is wrong. Nothing is
//! read but headers, the interpreter's name and the tables of relative relocations.
//!
//! Sources: System V ABI (gABI 4.1) chapter 5, its AMD64 supplement; illumos `elfexec` (behaviour).

mod error;

pub use self::error::{ENOEXEC, ElfError, ElfProblem};

use super::file::File;
use object::LittleEndian;
use object::elf::{
    DT_RELA, DT_RELAENT, DT_RELASZ, DT_RELR, DT_RELRSZ, DynamicTag, EM_X86_64, ET_DYN, ET_EXEC,
    FileHeader64, PF_R, PF_W, PF_X, PT_GNU_RELRO, PT_INTERP, PT_LOAD, ProgramHeader64,
    R_X86_64_RELATIVE, Rela64, Relr64,
};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, RelrIterator};
use object::read::{ReadCache, ReadCacheOps, ReadRef};
use page_db::{Cx, FileOffset, PAGE_MASK, PAGE_SIZE, PageDb, Prot, VirtAddr, VirtRange, Vnode};
use std::fmt;

const LE: LittleEndian = LittleEndian;
type Header = FileHeader64<LittleEndian>;
type Phdr = ProgramHeader64<LittleEndian>;

/// Most program headers a program may have; the format allows 65535, real ones have a dozen.
const MAX_HEADERS: usize = 256;

/// One segment to load, at its own address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LoadSegment {
    /// Address of its first byte.
    pub vaddr: u64,
    /// Bytes in memory, at least `file_size`.
    pub size: u64,
    /// Offset in the file of its first byte.
    pub offset: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Rights.
    pub prot: Prot,
}

impl LoadSegment {
    fn end(&self) -> u64 {
        self.vaddr + self.size
    }
}

/// One mapping that loading makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece {
    /// Pages of the file, private.
    File {
        /// Where.
        range: VirtRange,
        /// Rights.
        prot: Prot,
        /// Offset in the file of the first page.
        offset: FileOffset,
        /// Bytes at the end of the range to be cleared.
        zero_tail: u64,
    },
    /// Anonymous memory.
    Zero {
        /// Where.
        range: VirtRange,
        /// Rights.
        prot: Prot,
    },
}

impl Piece {
    /// The addresses.
    pub fn range(&self) -> VirtRange {
        match self {
            Self::File { range, .. } | Self::Zero { range, .. } => *range,
        }
    }
    /// The rights.
    pub fn prot(&self) -> Prot {
        match self {
            Self::File { prot, .. } | Self::Zero { prot, .. } => *prot,
        }
    }
}

/// A relocation that adds the load address: the word at `vaddr` becomes base + `addend`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelativeReloc {
    /// Address of the word, before the load address is added.
    pub vaddr: u64,
    /// What is stored there; `None` when the word itself holds it (`DT_RELR`).
    pub addend: Option<u64>,
}

/// A program file, read and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ElfImage {
    /// The file's name.
    pub name: String,
    /// Whether it may be loaded anywhere (`ET_DYN`).
    pub position_independent: bool,
    /// Entry point, before the load address is added.
    pub entry: u64,
    /// What to load, ascending.
    pub segments: Vec<LoadSegment>,
    /// The dynamic linker it asks for. It is noted, not run.
    pub interpreter: Option<String>,
    /// What becomes read-only after relocation: address and size.
    pub relro: Option<(u64, u64)>,
    /// Relative relocations, in file order.
    pub relative: Vec<RelativeReloc>,
    /// Relocations that need symbols; they are left undone.
    pub symbolic: u64,
}

/// A vnode as a seekable stream, so that headers are read and nothing else.
struct Stream<'a> {
    cx: &'a Cx,
    db: &'a PageDb,
    file: &'a File,
    at: u64,
    failed: &'a std::cell::Cell<Option<i32>>,
}

impl ReadCacheOps for Stream<'_> {
    fn len(&mut self) -> Result<u64, ()> {
        Ok(self.file.size())
    }
    fn seek(&mut self, pos: u64) -> Result<u64, ()> {
        self.at = pos;
        Ok(pos)
    }
    fn read(&mut self, buf: &mut [u8]) -> Result<usize, ()> {
        match self.file.pread(self.cx, self.db, self.at, buf) {
            Ok(n) => {
                self.at += n as u64;
                Ok(n)
            }
            Err(e) => {
                self.failed.set(Some(e.errno()));
                Err(())
            }
        }
    }
    fn read_exact(&mut self, mut buf: &mut [u8]) -> Result<(), ()> {
        while !buf.is_empty() {
            match self.read(buf)? {
                0 => return Err(()),
                n => buf = &mut buf[n..],
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Stream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("at", &self.at).finish_non_exhaustive()
    }
}

impl ElfImage {
    /// Reads the headers of a program through its page cache.
    ///
    /// # Errors
    /// [`ElfError`], naming the file and what is wrong with it.
    pub fn read(cx: &Cx, db: &PageDb, file: &File) -> Result<Self, ElfError> {
        let failed = std::cell::Cell::new(None);
        let cache = ReadCache::new(Stream { cx, db, file, at: 0, failed: &failed });
        let parsed = Self::parse(&file.name(), &cache);
        match failed.get() {
            Some(e) => Err(ElfError { file: file.name(), problem: ElfProblem::Read(e) }),
            None => parsed,
        }
    }

    /// Reads a program from bytes.
    ///
    /// # Errors
    /// [`ElfError`], naming the file and what is wrong with it.
    pub fn parse<'d, R: ReadRef<'d>>(name: &str, data: R) -> Result<Self, ElfError> {
        Self::parse_data(name, data).map_err(|problem| ElfError { file: name.to_owned(), problem })
    }

    fn parse_data<'d, R: ReadRef<'d>>(name: &str, data: R) -> Result<Self, ElfProblem> {
        let header = header_of(data)?;
        let phdrs = header.program_headers(LE, data).map_err(|_| ElfProblem::Headers)?;
        if phdrs.len() > MAX_HEADERS {
            return Err(ElfProblem::TooManyHeaders(phdrs.len()));
        }
        let size = data.len().map_err(|()| ElfProblem::NotElf)?;
        let segments = load_segments(phdrs, size)?;
        let entry = header.e_entry(LE);
        let runs = |s: &LoadSegment| {
            s.prot.contains(Prot::EXEC) && entry >= s.vaddr && entry < s.vaddr + s.file_size
        };
        if !segments.iter().any(runs) {
            return Err(ElfProblem::Entry(entry));
        }
        let mut image = Self {
            name: name.to_owned(),
            position_independent: header.e_type(LE) == ET_DYN,
            entry,
            segments,
            interpreter: None,
            relro: None,
            relative: Vec::new(),
            symbolic: 0,
        };
        for p in phdrs {
            match p.p_type(LE) {
                PT_INTERP => image.interpreter = Some(interpreter(p, data)?),
                PT_GNU_RELRO => image.relro = Some((p.p_vaddr(LE), p.p_memsz(LE))),
                _ => {}
            }
        }
        image.read_relocations(phdrs, data)?;
        Ok(image)
    }

    /// First address and first address past the end of all segments, before the load address is added.
    pub fn span(&self) -> (u64, u64) {
        let first = self.segments.first().map_or(0, |s| s.vaddr & !PAGE_MASK);
        let last = self.segments.last().map_or(0, LoadSegment::end);
        (first, last)
    }

    /// The mappings that load the program at `base` (added to every address; 0 for a program that is not position-independent).
    ///
    /// # Errors
    /// [`ElfProblem::OutsideSpace`] when the base carries a segment out of the user's half.
    pub fn plan(&self, base: u64) -> Result<Vec<Piece>, ElfError> {
        let mut pieces = Vec::new();
        for (index, s) in self.segments.iter().enumerate() {
            let outside =
                ElfProblem::OutsideSpace { index, vaddr: s.vaddr.wrapping_add(base), size: s.size };
            let err = || ElfError { file: self.name.clone(), problem: outside.clone() };
            let start = s.vaddr.checked_add(base).ok_or_else(err)?;
            push_pieces(&mut pieces, s, start).ok_or_else(err)?;
        }
        Ok(pieces)
    }

    /// The file offset of the bytes `[vaddr, vaddr + len)`, if one segment has them in the file.
    fn file_offset(&self, vaddr: u64, len: u64) -> Option<u64> {
        self.segments.iter().find_map(|s| {
            let within = vaddr.checked_sub(s.vaddr)?;
            (within.checked_add(len)? <= s.file_size).then_some(s.offset + within)
        })
    }

    fn read_relocations<'d, R: ReadRef<'d>>(
        &mut self,
        phdrs: &[Phdr],
        data: R,
    ) -> Result<(), ElfProblem> {
        let bad = ElfProblem::Relocations;
        let mut table = Dynamic::default();
        for p in phdrs {
            if let Some(entries) = p.dynamic(LE, data).map_err(|_| bad.clone())? {
                entries.iter().for_each(|d| table.note(d.tag(LE), d.val(LE)));
            }
        }
        if table.rela_size > 0 {
            if table.rela_entry != size_of::<Rela64<LittleEndian>>() as u64 {
                return Err(bad);
            }
            let at = self.file_offset(table.rela, table.rela_size).ok_or(bad.clone())?;
            let count =
                usize::try_from(table.rela_size / table.rela_entry).map_err(|_| bad.clone())?;
            let relas =
                data.read_slice_at::<Rela64<LittleEndian>>(at, count).map_err(|()| bad.clone())?;
            for r in relas {
                if r.r_type(LE, false) == R_X86_64_RELATIVE {
                    let addend = Some(r.r_addend(LE) as u64);
                    self.relative.push(RelativeReloc { vaddr: r.r_offset(LE), addend });
                } else {
                    self.symbolic += 1;
                }
            }
        }
        if table.relr_size > 0 {
            let at = self.file_offset(table.relr, table.relr_size).ok_or(bad.clone())?;
            let count = usize::try_from(table.relr_size / 8).map_err(|_| bad.clone())?;
            let words =
                data.read_slice_at::<Relr64<LittleEndian>>(at, count).map_err(|()| bad.clone())?;
            let relr = RelrIterator::<Header>::new(LE, words);
            self.relative.extend(relr.map(|vaddr| RelativeReloc { vaddr, addend: None }));
        }
        let inside = |r: &RelativeReloc| self.file_offset(r.vaddr, 8).is_some();
        if self.relative.iter().all(inside) { Ok(()) } else { Err(bad) }
    }
}

/// Where the dynamic section says the relative relocations are.
#[derive(Default)]
struct Dynamic {
    rela: u64,
    rela_size: u64,
    rela_entry: u64,
    relr: u64,
    relr_size: u64,
}

impl Dynamic {
    fn note(&mut self, tag: DynamicTag, value: u64) {
        match tag {
            DT_RELA => self.rela = value,
            DT_RELASZ => self.rela_size = value,
            DT_RELAENT => self.rela_entry = value,
            DT_RELR => self.relr = value,
            DT_RELRSZ => self.relr_size = value,
            _ => {}
        }
    }
}

fn header_of<'d, R: ReadRef<'d>>(data: R) -> Result<&'d Header, ElfProblem> {
    let header = data.read_at::<Header>(0).map_err(|()| ElfProblem::NotElf)?;
    if header.e_ident.magic != object::elf::ELFMAG {
        return Err(ElfProblem::NotElf);
    }
    if !header.is_class_64() || !header.is_little_endian() || header.e_machine(LE) != EM_X86_64 {
        return Err(ElfProblem::WrongMachine);
    }
    match header.e_type(LE) {
        ET_EXEC | ET_DYN => Ok(header),
        other => Err(ElfProblem::WrongType(other.0)),
    }
}

fn load_segments(phdrs: &[Phdr], file: u64) -> Result<Vec<LoadSegment>, ElfProblem> {
    let mut segments: Vec<LoadSegment> = Vec::new();
    for (index, p) in phdrs.iter().enumerate().filter(|(_, p)| p.p_type(LE) == PT_LOAD) {
        let s = LoadSegment {
            vaddr: p.p_vaddr(LE),
            size: p.p_memsz(LE),
            offset: p.p_offset(LE),
            file_size: p.p_filesz(LE),
            prot: prot_of(p),
        };
        if s.size == 0 {
            continue;
        }
        check_segment(index, &s, file)?;
        if segments
            .last()
            .is_some_and(|l| l.end().next_multiple_of(PAGE_SIZE) > s.vaddr & !PAGE_MASK)
        {
            return Err(ElfProblem::Overlap { index });
        }
        segments.push(s);
    }
    if segments.is_empty() { Err(ElfProblem::NothingToLoad) } else { Ok(segments) }
}

fn prot_of(p: &Phdr) -> Prot {
    let flags = p.p_flags(LE).0;
    let mut prot = Prot::empty();
    for (bit, right) in [(PF_R, Prot::READ), (PF_W, Prot::WRITE), (PF_X, Prot::EXEC)] {
        prot.set(right, flags & bit.0 != 0);
    }
    prot
}

fn check_segment(index: usize, s: &LoadSegment, file: u64) -> Result<(), ElfProblem> {
    let end = s.offset.checked_add(s.file_size);
    if end.is_none_or(|e| e > file) {
        return Err(ElfProblem::BeyondFile { index, offset: s.offset, size: s.file_size, file });
    }
    if s.file_size > s.size {
        return Err(ElfProblem::Shrinks { index, file: s.file_size, memory: s.size });
    }
    if s.file_size > 0 && s.vaddr & PAGE_MASK != s.offset & PAGE_MASK {
        return Err(ElfProblem::Incongruent { index, vaddr: s.vaddr, offset: s.offset });
    }
    match VirtRange::covering(s.vaddr, s.size) {
        Ok(r) if !r.start().is_kernel() => Ok(()),
        _ => Err(ElfProblem::OutsideSpace { index, vaddr: s.vaddr, size: s.size }),
    }
}

fn interpreter<'d, R: ReadRef<'d>>(p: &Phdr, data: R) -> Result<String, ElfProblem> {
    let bytes = p.interpreter(LE, data).map_err(|_| ElfProblem::Interpreter)?;
    let name = bytes.and_then(|b| std::str::from_utf8(b).ok());
    name.filter(|n| !n.is_empty()).map(str::to_owned).ok_or(ElfProblem::Interpreter)
}

/// The mappings of one segment whose first byte goes to `start`; `None` when they leave the user's half.
fn push_pieces(pieces: &mut Vec<Piece>, s: &LoadSegment, start: u64) -> Option<()> {
    let whole = VirtRange::covering(start, s.size).ok().filter(|r| !r.start().is_kernel())?;
    let file_end = start + s.file_size;
    let mut rest = Some(whole);
    if s.file_size > 0 {
        let range = VirtRange::covering(start, s.file_size).ok()?;
        let zero_tail = if s.size > s.file_size { range.end() - file_end } else { 0 };
        let offset = FileOffset(s.offset & !PAGE_MASK);
        pieces.push(Piece::File { range, prot: s.prot, offset, zero_tail });
        rest = whole.from(range.end());
    }
    if let Some(range) = rest {
        pieces.push(Piece::Zero { range, prot: s.prot });
    }
    Some(())
}

impl ElfImage {
    /// The entry point once loaded at `base`; `None` when it is no user address.
    pub fn entry_at(&self, base: u64) -> Option<VirtAddr> {
        VirtAddr::new(self.entry.checked_add(base)?).ok().filter(|a| !a.is_kernel())
    }
}

#[cfg(test)]
#[path = "elf_tests.rs"]
mod tests;
