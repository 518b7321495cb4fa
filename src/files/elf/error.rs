//! Why a program file is refused.

use page_db::errno;

/// What is wrong with a program file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ElfProblem {
    /// No ELF header, or a damaged one.
    #[error("not an ELF file")]
    NotElf,
    /// A 32-bit or big-endian program, or one for another machine.
    #[error("not a 64-bit x86-64 program")]
    WrongMachine,
    /// An object file, a core, or something newer.
    #[error("type {0} is neither an executable nor a shared object")]
    WrongType(u16),
    /// The program headers lie outside the file.
    #[error("the program headers lie outside the file")]
    Headers,
    /// More program headers than any program has.
    #[error("{0} program headers are too many")]
    TooManyHeaders(usize),
    /// Nothing to load.
    #[error("no segment is to be loaded")]
    NothingToLoad,
    /// A segment's bytes lie outside the file.
    #[error("segment {index} takes bytes {offset:#x}+{size:#x} of a file of {file:#x} bytes")]
    BeyondFile {
        /// Number of the program header.
        index: usize,
        /// Offset in the file.
        offset: u64,
        /// Bytes in the file.
        size: u64,
        /// Size of the file.
        file: u64,
    },
    /// A segment is longer in the file than in memory.
    #[error("segment {index} has {file:#x} bytes in the file but {memory:#x} in memory")]
    Shrinks {
        /// Number of the program header.
        index: usize,
        /// Bytes in the file.
        file: u64,
        /// Bytes in memory.
        memory: u64,
    },
    /// Address and offset do not agree within a page, so the page cannot be mapped.
    #[error("segment {index} at {vaddr:#x} cannot be mapped from offset {offset:#x}")]
    Incongruent {
        /// Number of the program header.
        index: usize,
        /// Address.
        vaddr: u64,
        /// Offset in the file.
        offset: u64,
    },
    /// A segment wraps or leaves the user's half.
    #[error("segment {index} at {vaddr:#x}+{size:#x} leaves the address space")]
    OutsideSpace {
        /// Number of the program header.
        index: usize,
        /// Address.
        vaddr: u64,
        /// Bytes in memory.
        size: u64,
    },
    /// Segments overlap or do not ascend.
    #[error("segment {index} overlaps an earlier one")]
    Overlap {
        /// Number of the program header.
        index: usize,
    },
    /// The entry point lies in no executable segment.
    #[error("entry point {0:#x} is in no executable segment")]
    Entry(u64),
    /// The interpreter's name is not one.
    #[error("the interpreter's name is malformed")]
    Interpreter,
    /// The table that a dynamic program is relocated by is malformed.
    #[error("the relocation tables are malformed")]
    Relocations,
    /// The file could not be read.
    #[error("the file cannot be read (errno {0})")]
    Read(i32),
}

/// A malformed program file: which, and what is wrong with it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct ElfError {
    /// The file's name.
    pub file: String,
    /// What is wrong.
    pub problem: ElfProblem,
}

/// `ENOEXEC`, which the page layer has no use for.
pub const ENOEXEC: i32 = 8;

impl ElfError {
    /// The number `exec` reports for it.
    pub fn errno(&self) -> i32 {
        match self.problem {
            ElfProblem::Read(e) => e,
            ElfProblem::OutsideSpace { .. } => errno::ENOMEM,
            _ => ENOEXEC,
        }
    }
}
