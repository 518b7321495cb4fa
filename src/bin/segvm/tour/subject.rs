//! The program that is shown: where its interesting places are, and what bytes its file holds there.

use std::fs::File as HostFile;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use page_db::Prot;
use segvm::files::elf::LoadSegment;
use segvm::files::{ElfImage, Piece};
use segvm::machine::{LOAD_BASE, Program};

/// Where a program's bytes are, to compare with.
pub(super) enum Bytes {
    /// A file of the host.
    Host(HostFile),
    /// In memory.
    Memory(Vec<u8>),
}

impl Bytes {
    /// Opens a file of the host.
    ///
    /// # Errors
    /// When it cannot be opened, or is a directory or a device.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let name = path.display();
        let file = HostFile::open(path).with_context(|| format!("cannot read {name}"))?;
        if !file.metadata()?.is_file() {
            bail!("{name} is no regular file");
        }
        Ok(Bytes::Host(file))
    }

    /// Up to `len` bytes from `offset`; what lies past the end reads as zeros, as in a mapping.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn at(&self, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self {
            Bytes::Host(file) => {
                let mut done = 0;
                while done < len {
                    match file.read_at(&mut bytes[done..], offset + done as u64)? {
                        0 => break,
                        n => done += n,
                    }
                }
            }
            Bytes::Memory(all) => {
                let from = all.get(offset as usize..).unwrap_or_default();
                let n = from.len().min(len);
                bytes[..n].copy_from_slice(&from[..n]);
            }
        }
        Ok(bytes)
    }
}

/// The program.
pub(super) struct Subject {
    /// Its bytes.
    pub(super) bytes: Bytes,
    /// Its headers, where it was loaded, its mappings.
    pub(super) program: Program,
}

impl Subject {
    /// Works out where a program lies once loaded.
    ///
    /// # Errors
    /// When its headers place it where no program can be.
    pub(super) fn new(bytes: Bytes, image: ElfImage) -> Result<Self> {
        let base = if image.position_independent { LOAD_BASE } else { 0 };
        let pieces = image.plan(base)?;
        let entry = image.entry_at(base).context("the entry point is no user address")?;
        Ok(Subject { bytes, program: Program { image, base, entry, pieces } })
    }

    /// Where it begins to run.
    pub(super) fn entry(&self) -> u64 {
        self.program.entry.get()
    }

    /// The file offset of what is loaded at `addr`, if the file has it.
    pub(super) fn offset_of(&self, addr: u64) -> Option<u64> {
        let vaddr = addr.checked_sub(self.program.base)?;
        let holds = |s: &&LoadSegment| vaddr >= s.vaddr && vaddr - s.vaddr < s.file_size;
        let segment = self.program.image.segments.iter().find(holds)?;
        Some(segment.offset + (vaddr - segment.vaddr))
    }

    /// The bytes that belong at `addr` before anything is stored there.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn original(&self, addr: u64, len: usize) -> Result<Option<Vec<u8>>> {
        self.offset_of(addr).map(|offset| self.bytes.at(offset, len)).transpose()
    }

    /// The first page of initialised data, by its address.
    pub(super) fn data_page(&self) -> Option<u64> {
        self.program.pieces.iter().find_map(|p| match p {
            Piece::File { range, prot, .. } if prot.contains(Prot::WRITE) => {
                Some(range.start().get())
            }
            _ => None,
        })
    }
}
