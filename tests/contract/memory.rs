//! Physical memory: the host's, the same with holes, and some with flaws.

use crate::{all_caught, clauses_of};
use page_db::phys_mem::WORDS;
use page_db::{HostMem, PAGE_SIZE, Pfn, PhysMem};
use segvm::contract::{check_phys_mem, phys_mem};
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::{self, ThreadId};

const PAGE: usize = PAGE_SIZE as usize;
const BASE: u64 = 16;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Flaw {
    Nothing,
    HasHoles,
    HasNoMemory,
    GrowsLater,
    ZeroesHalf,
    CopiesAllButTheLastWord,
    CopiesTheWrongWay,
    ReadsFromTheStart,
    WritesWholeWords,
    WritesBackWhatItRead,
    WritesTheNextFrameToo,
    TwoFramesAreOne,
    WordsAreACopy,
    WordsAreTheNextFrames,
    OneWordIsTheNext,
    ForgetsAFrameOfTheRow,
    ZeroesTheFrameBefore,
    CopiesInWordsOfItsOwn,
    FillsAHoleLater,
    HasItsHoles,
    HasTheFrameBehind,
    GivesEachThreadWordsOfItsOwn,
}

fn is_no_hole(pfn: Pfn) -> bool {
    !(BASE..BASE + 5).contains(&pfn.0) && !pfn.0.is_multiple_of(3)
}

#[derive(Debug)]
struct Flawed {
    mem: HostMem,
    flaw: Flaw,
    asked: AtomicU64,
    shadow: [AtomicU64; WORDS],
    /// The thread that made it, and what others read before they wrote.
    maker: ThreadId,
    read: Mutex<HashMap<ThreadId, Vec<u8>>>,
}

impl Flawed {
    fn new(flaw: Flaw) -> Self {
        let mem = HostMem::new(Pfn(BASE), 300).expect("heap");
        let shadow = std::array::from_fn(|_| AtomicU64::new(0));
        let (maker, read) = (thread::current().id(), Mutex::default());
        Self { mem, flaw, asked: AtomicU64::new(0), shadow, maker, read }
    }
    fn is(&self, flaw: Flaw) -> bool {
        self.flaw == flaw
    }
    /// Which frame of the host's it is.
    fn at(&self, pfn: Pfn) -> Pfn {
        if self.is(Flaw::TwoFramesAreOne) && pfn.0 == BASE + 7 { Pfn(BASE + 3) } else { pfn }
    }
    fn next(&self, pfn: Pfn) -> Pfn {
        Pfn(BASE + (pfn.0 - BASE + 1) % self.mem.frames())
    }
}

impl PhysMem for Flawed {
    fn base(&self) -> Pfn {
        self.mem.base()
    }
    fn frames(&self) -> u64 {
        let more = self.is(Flaw::GrowsLater) && self.asked.fetch_add(1, Relaxed) > 0;
        self.mem.frames() - u64::from(more)
    }
    fn is_memory(&self, pfn: Pfn) -> bool {
        match self.flaw {
            Flaw::HasHoles | Flaw::HasItsHoles => is_no_hole(pfn),
            Flaw::FillsAHoleLater => is_no_hole(pfn) || self.asked.load(Relaxed) > 0,
            Flaw::HasNoMemory => false,
            _ => true,
        }
    }
    fn has(&self, pfn: Pfn) -> bool {
        let inside = (BASE..BASE + self.mem.frames()).contains(&pfn.0);
        match self.flaw {
            Flaw::HasItsHoles => inside,
            Flaw::HasTheFrameBehind if pfn.0 == BASE + self.mem.frames() => true,
            _ => inside && self.is_memory(pfn),
        }
    }
    fn zero(&self, pfn: Pfn) {
        if self.is(Flaw::FillsAHoleLater) {
            self.asked.store(1, Relaxed);
        }
        if self.is(Flaw::ZeroesHalf) {
            return self.mem.write(pfn, 0, &[0; PAGE / 2]);
        }
        if self.is(Flaw::ZeroesTheFrameBefore) && pfn.0 > BASE {
            self.mem.zero(Pfn(pfn.0 - 1));
        }
        self.mem.zero(self.at(pfn));
    }
    fn copy(&self, from: Pfn, to: Pfn) {
        match self.flaw {
            Flaw::CopiesTheWrongWay => self.mem.copy(to, from),
            Flaw::CopiesAllButTheLastWord => {
                let last = self.mem.u64_at(to, WORDS - 1).load(Relaxed);
                self.mem.copy(from, to);
                self.mem.u64_at(to, WORDS - 1).store(last, Relaxed);
            }
            // The sum of what it found at two moments, neither the one nor the other.
            Flaw::CopiesInWordsOfItsOwn => {
                for (f, t) in self.mem.words(from).iter().zip(self.mem.words(to)) {
                    let first = f.load(Relaxed);
                    thread::yield_now();
                    t.store(first / 2 + f.load(Relaxed) / 2 + first % 2, Relaxed);
                }
            }
            _ => self.mem.copy(self.at(from), self.at(to)),
        }
    }
    fn read(&self, pfn: Pfn, offset: usize, buf: &mut [u8]) {
        let offset = if self.is(Flaw::ReadsFromTheStart) { 0 } else { offset };
        self.mem.read(self.at(pfn), offset, buf);
    }
    fn write(&self, pfn: Pfn, offset: usize, bytes: &[u8]) {
        match self.flaw {
            Flaw::WritesWholeWords => {
                let mut whole = bytes.to_vec();
                whole.resize(bytes.len().next_multiple_of(8).min(PAGE - offset), 0);
                self.mem.write(pfn, offset, &whole);
            }
            // What it read before it wrote last.
            Flaw::WritesBackWhatItRead if thread::current().id() != self.maker => {
                let (first, end) = (offset / 8 * 8, (offset + bytes.len()).next_multiple_of(8));
                let mut now = vec![0; end - first];
                self.mem.read(pfn, first, &mut now);
                let before = self.read.lock().unwrap().insert(thread::current().id(), now.clone());
                let mut words = before.unwrap_or(now);
                words[offset - first..][..bytes.len()].copy_from_slice(bytes);
                self.mem.write(pfn, first, &words);
            }
            Flaw::WritesTheNextFrameToo if offset + bytes.len() == PAGE && offset != 0 => {
                self.mem.write(pfn, offset, bytes);
                self.mem.write(self.next(pfn), 0, &bytes[..1.min(bytes.len())]);
            }
            _ => self.mem.write(self.at(pfn), offset, bytes),
        }
    }
    fn words(&self, pfn: Pfn) -> &[AtomicU64; WORDS] {
        match self.flaw {
            Flaw::WordsAreTheNextFrames => self.mem.words(self.next(pfn)),
            Flaw::WordsAreACopy => {
                let words = self.mem.words(pfn).iter().zip(&self.shadow);
                words.for_each(|(from, to)| to.store(from.load(Relaxed), Relaxed));
                &self.shadow
            }
            _ => self.mem.words(self.at(pfn)),
        }
    }
    fn side_by_side(&self) -> Option<&[[AtomicU64; WORDS]]> {
        match self.flaw {
            Flaw::ForgetsAFrameOfTheRow => self.mem.side_by_side().map(|all| &all[1..]),
            Flaw::Nothing => self.mem.side_by_side(),
            _ => None,
        }
    }
    fn u64_at(&self, pfn: Pfn, index: usize) -> &AtomicU64 {
        if self.is(Flaw::GivesEachThreadWordsOfItsOwn) && thread::current().id() != self.maker {
            return &self.shadow[index];
        }
        let next = usize::from(self.is(Flaw::OneWordIsTheNext));
        &self.words(pfn)[(index + next) % WORDS]
    }
}

#[test]
fn the_hosts_memory_keeps_the_contract_with_holes_and_without() {
    phys_mem("HostMem", &HostMem::new(Pfn(BASE), 300).expect("heap"));
    phys_mem("HostMem", &HostMem::new(Pfn(0), 3).expect("heap"));
    phys_mem("a layer over it", &Flawed::new(Flaw::Nothing));
    phys_mem("a layer with holes", &Flawed::new(Flaw::HasHoles));
}

/// Each flaw, and the clause that catches it.
const FLAWS: &[(Flaw, &str)] = {
    use Flaw::*;
    &[
        (HasNoMemory, "there are frames of memory"),
        (GrowsLater, "where the frames begin"),
        (ZeroesHalf, "zero() sets all"),
        (CopiesAllButTheLastWord, "copy() copies a whole frame"),
        (CopiesTheWrongWay, "copy() copies a whole frame"),
        (ReadsFromTheStart, "read() reads"),
        (WritesWholeWords, "write() writes"),
        (WritesBackWhatItRead, "a write loses nothing"),
        (WritesTheNextFrameToo, "a call leaves all other frames"),
        (TwoFramesAreOne, "no two frames"),
        (WordsAreACopy, "the words of a frame"),
        (WordsAreTheNextFrames, "the words of a frame"),
        (OneWordIsTheNext, "u64_at()"),
        (ForgetsAFrameOfTheRow, "side_by_side()"),
        (ZeroesTheFrameBefore, "a call leaves all other frames"),
        (CopiesInWordsOfItsOwn, "of a frame that is stored to"),
        (FillsAHoleLater, "is_memory() says the same"),
        (HasItsHoles, "has() is true of frames of this memory"),
        (HasTheFrameBehind, "has() is true of frames of this memory"),
        (GivesEachThreadWordsOfItsOwn, "words are atomic"),
    ]
};

#[test]
fn every_flaw_of_memory_is_caught_by_its_clause() {
    all_caught(FLAWS, |flaw| check_phys_mem("flawed", &Flawed::new(flaw)));
}

/// The clauses that some flaw breaks.
pub(crate) fn clauses() -> Vec<&'static str> {
    clauses_of(&[FLAWS])
}
