//! `exec`: a program file becomes an address space.
//!
//! ```text
//!   .text   r-x   seg_vn over the file, private
//!   .data   rw-   seg_vn over the file, private: the first store makes a copy     zero tail: such a store
//!   .bss    rw-   seg_vn without a file
//!   break         starts above the last segment
//!   stack   rw-   grows down from STACK_TOP
//! ```
//!
//! The new address space is built beside the old one, to the last byte of the arguments, and takes its place when nothing can fail any more. Until then it is
//! reached through a handle of its own, so that neither another thread's call nor another exec finds it half made. In illumos the old one goes first, to have
//! its memory for the new one, and what fails after that ends the process.
//!
//! No instruction is executed here. [`Process::relocate`] does what the dynamic linker would do first, with stores of the process's own.
//!
//! Sources: illumos `exec/elf/elf.c` (behaviour); System V ABI.

use super::SysError;
use super::cpu::AccessError;
use super::image::Image;
use super::process::{BREAK_BASE, Process, STACK_TOP};
use crate::files::{ElfImage, File, Piece};
use addr_space::{AsError, SegKind, Signal};
use page_db::sync::atomic::Ordering;
use page_db::{FileOffset, PAGE_MASK, PAGE_SIZE, Prot, VirtAddr, Vnode, errno};
use seg_drivers::seg_vn::SegVnArgs;
use std::sync::Arc;

const EXEC: &str = "exec";

/// Where a position-independent program is loaded.
pub const LOAD_BASE: u64 = 0x40_0000;

/// A program that was loaded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Program {
    /// The file's headers.
    pub image: ElfImage,
    /// What was added to every address.
    pub base: u64,
    /// Where it would begin to run.
    pub entry: VirtAddr,
    /// Its mappings.
    pub pieces: Vec<Piece>,
}

impl Process {
    /// Puts a new address space with the program of `file` in the place of this one, with a break and one page of stack. Other
    /// handles of the process see it at their next call.
    ///
    /// # Errors
    /// `ESRCH` when the process has exited, `EINVAL` for another machine's file, `ENOEXEC` for a malformed one, `EIO` or what its store answers when it cannot be read, `ENOMEM` and `EAGAIN` when
    /// it cannot be mapped, a limit is passed, or there is no memory for what it stores, `EAGAIN` when the caller has the range claim of the address space that is left: nothing has changed.
    #[doc(alias("execve", "elfexec", "elfmap", "exec_args"))]
    pub fn exec(&self, file: &Arc<File>) -> Result<Program, SysError> {
        let gone = || SysError::arg(EXEC, errno::ESRCH, "the process has exited");
        if self.has_exited() {
            return Err(gone());
        }
        if !file.is_of(self.machine.db()) {
            return Err(SysError::arg(EXEC, errno::EINVAL, "another machine's file"));
        }
        self.may_make_space(EXEC)?;
        let program = self.read_program(file)?;
        let fresh = self.machine.new_space(EXEC)?;
        let image = Image::new(fresh, BREAK_BASE, Some(&self.shared.limits));
        let loader = self.preparing(&image, &program.image.name);
        if let Err(e) = loader.load_program(file, &program) {
            self.give_up(&image);
            return Err(e);
        }
        file.set_exec(self.machine.db());
        let Some(old) = self.replace_image(&image, &program.image.name) else {
            self.give_up(&image); // another thread's exit was faster
            return Err(gone());
        };
        image.tell_limits(); // P4: what was set since it was made
        self.give_up(&old);
        Ok(program)
    }
    fn read_program(&self, file: &Arc<File>) -> Result<Program, SysError> {
        let image = ElfImage::read(self.cx(), self.machine.db(), file)
            .map_err(|e| SysError::of(EXEC, e))?;
        let base = if image.position_independent { LOAD_BASE } else { 0 };
        let pieces = image.plan(base).map_err(|e| SysError::of(EXEC, e))?;
        let above = || SysError::arg(EXEC, errno::ENOMEM, "the program reaches into the stack");
        let entry = image.entry_at(base).ok_or_else(above)?;
        let room = self.stack_room();
        if pieces.iter().any(|p| p.range().end() > room.start().get()) {
            return Err(above());
        }
        Ok(Program { image, base, entry, pieces })
    }
    fn map_program(&self, file: &Arc<File>, program: &Program) -> Result<(), AsError> {
        let space = self.space_now();
        program.pieces.iter().try_for_each(|piece| {
            let prot = piece.prot();
            let args = match piece {
                Piece::Zero { .. } => SegVnArgs::zfod(self.machine.vn(), prot),
                Piece::File { offset, .. } => {
                    let data = prot.contains(Prot::WRITE);
                    SegVnArgs {
                        vnode: Some(Arc::clone(file) as Arc<dyn Vnode>),
                        offset: FileOffset(offset.0),
                        kind: if data { SegKind::INITDATA } else { SegKind::TEXT },
                        ..SegVnArgs::zfod(self.machine.vn(), prot)
                    }
                }
            };
            space.map(self.cx(), piece.range(), &args)
        })
    }
    /// Mappings, break, stack and zero tails, in an address space that is this handle's alone.
    fn load_program(&self, file: &Arc<File>, program: &Program) -> Result<(), SysError> {
        self.map_program(file, program).map_err(|e| SysError::of(EXEC, e))?;
        let (_, end) = program.image.span();
        let brk = (end + program.base).next_multiple_of(PAGE_SIZE);
        let image = self.image();
        image.break_base.store(brk, Ordering::Release);
        image.break_now.store(brk, Ordering::Release);
        drop(image);
        for piece in &program.pieces {
            if let Piece::File { range, zero_tail, prot, .. } = piece
                && *zero_tail > 0
                && prot.contains(Prot::WRITE)
            {
                let zeros = [0; PAGE_SIZE as usize];
                self.deposit(range.end() - zero_tail, &zeros[..*zero_tail as usize])?;
            }
        }
        let grown = self.grow_stack(STACK_TOP - PAGE_SIZE);
        grown.map_err(|e| SysError { call: EXEC, ..e })?;
        self.push_arguments(&program.image.name)
    }
    /// What a program finds on its stack: one argument, no environment.
    fn push_arguments(&self, name: &str) -> Result<(), SysError> {
        // A name longer than the page leaves room for nothing else.
        let name = &name.as_bytes()[..name.len().min(1024)];
        let string = (STACK_TOP - name.len() as u64 - 1) & !15;
        let words = [1, string, 0, 0];
        let mut block: Vec<u8> = words.iter().flat_map(|w: &u64| w.to_le_bytes()).collect();
        self.deposit(string - block.len() as u64, &block)?;
        block.clear();
        block.extend_from_slice(name);
        block.push(0);
        self.deposit(string, &block)
    }
    /// Stores what the kernel gives a program along. What the fault was refused for is what exec is.
    fn deposit(&self, addr: u64, bytes: &[u8]) -> Result<(), SysError> {
        self.store(addr, bytes).map_err(|e| {
            let errno = match e.signal {
                Signal::BusObjErr(errno) => errno,
                _ => errno::EFAULT,
            };
            SysError::arg(EXEC, errno, e.what())
        })
    }

    /// Stores the relative relocations of a program that was just loaded, then takes the right to write from what is to be
    /// read-only afterwards. Returns how many words were stored.
    ///
    /// # Errors
    /// The access that failed.
    pub fn relocate(&self, program: &Program) -> Result<u64, AccessError> {
        let base = program.base;
        for r in &program.image.relative {
            let at = r.vaddr.wrapping_add(base);
            let addend = match r.addend {
                Some(a) => a,
                None => {
                    let mut word = [0; 8];
                    self.load(at, &mut word)?;
                    u64::from_le_bytes(word)
                }
            };
            self.store(at, &addend.wrapping_add(base).to_le_bytes())?;
        }
        if let Some((at, size)) = program.image.relro {
            let start = at.wrapping_add(base) & !PAGE_MASK;
            let end = at.wrapping_add(base).wrapping_add(size) & !PAGE_MASK;
            // Advisory: a program without it runs as well.
            let _ = self.mprotect(start, end.saturating_sub(start), 1);
        }
        Ok(program.image.relative.len() as u64)
    }
}
