//! The contract of [`PhysMem`].

#[cfg(all(feature = "std", not(shuttle)))]
use super::steps::Steps;
use super::{Breach, Judge};
use crate::phys_mem::{PhysMem, WORDS};
use crate::sync::atomic::Ordering::Relaxed;
use crate::units::{PAGE_SIZE, Pfn};
use alloc::vec;
use alloc::vec::Vec;

const PAGE: usize = PAGE_SIZE as usize;
/// Frames of the front and of the back that are looked at.
const ENDS: usize = 64;

const SAME: &str = "where the frames begin and how many there are is the same at every call";
const FRAMES: &str = "there are frames of memory, numbered without wrapping";
const STAYS: &str = "is_memory() says the same of a frame at every call";
const HAS: &str = "has() is true of frames of this memory and of no other, nor of holes in it";
const ZERO: &str = "zero() sets all of a frame to zeros";
const COPY: &str = "copy() copies a whole frame and leaves the one it is copied from";
const READ: &str = "read() reads the bytes at its offset";
const WRITE: &str = "write() writes the bytes at its offset and no others";
const WORD: &str = "the words of a frame are its bytes, in order";
const ONE: &str = "u64_at() is one of words()";
const SIDE: &str = "side_by_side() is all frames in order, the same words";
const OWN: &str = "no two frames share a byte";
const ALONE: &str = "a call leaves all other frames as they are";
#[cfg(all(feature = "std", not(shuttle)))]
const ATOMIC: &str = "words are atomic: of two changes at once none is lost";
#[cfg(all(feature = "std", not(shuttle)))]
const BESIDE: &str =
    "a write loses nothing that is stored beside it meanwhile, in the same word too";
#[cfg(all(feature = "std", not(shuttle)))]
const MOVING: &str =
    "of a frame that is stored to while it is copied, each byte copied is the old one or the new";

struct Bench<'a> {
    judge: Judge,
    mem: &'a dyn PhysMem,
    /// Frames of memory: some of the first, and some of the last.
    frames: Vec<Pfn>,
}

/// A byte that tells its frame and its place.
fn mark(pfn: Pfn, at: usize) -> u8 {
    (pfn.0.wrapping_mul(37) as usize + at * 11 + at / 256 + 1) as u8
}

impl Bench<'_> {
    fn fill(&self, pfn: Pfn) {
        let bytes: Vec<u8> = (0..PAGE).map(|at| mark(pfn, at)).collect();
        self.mem.write(pfn, 0, &bytes);
    }
    fn bytes(&self, pfn: Pfn) -> Vec<u8> {
        let mut all = vec![0; PAGE];
        self.mem.read(pfn, 0, &mut all);
        all
    }
    /// A frame holds what `due` says of each byte.
    fn holds(
        &self,
        clause: &'static str,
        pfn: Pfn,
        due: impl Fn(usize) -> u8,
    ) -> Result<(), Breach> {
        let wrong = self.bytes(pfn).into_iter().enumerate().find(|(at, b)| *b != due(*at));
        let Some((at, seen)) = wrong else { return Ok(()) };
        let what = format_args!("byte {at} of frame {pfn}");
        self.judge.same(clause, what, seen, due(at))
    }
    /// All frames but `changed` hold their marks.
    fn others_hold(&self, changed: &[Pfn]) -> Result<(), Breach> {
        let mut others = self.frames.iter().filter(|pfn| !changed.contains(pfn));
        others.try_for_each(|pfn| self.holds(ALONE, *pfn, |at| mark(*pfn, at)))
    }
}

/// The contract of [`PhysMem`]: whole frames and parts of any alignment move exactly, words are the same bytes and atomic, frames are apart, and all of
/// that while others store. Frames at both ends of the memory handed in are overwritten, so it is nobody's yet.
///
/// # Errors
/// The first clause that does not hold.
pub fn check_phys_mem(name: &str, mem: &dyn PhysMem) -> Result<(), Breach> {
    let judge = Judge::new("PhysMem", name);
    let (base, n) = (mem.base(), mem.frames());
    judge.same(SAME, format_args!("what it says later"), (mem.base(), mem.frames()), (base, n))?;
    let end = base.0.checked_add(n);
    let facts = format_args!("{n} frames from {base} on");
    judge.require(FRAMES, n != 0 && end.is_some(), facts)?;
    let numbers = || (base.0..base.0.saturating_add(n)).map(Pfn).filter(|pfn| mem.is_memory(*pfn));
    let mut frames: Vec<Pfn> = numbers().take(ENDS).chain(numbers().rev().take(ENDS)).collect();
    frames.sort_unstable();
    frames.dedup();
    judge.require(
        FRAMES,
        frames.len() >= 3,
        format_args!("{} of them are memory", frames.len()),
    )?;
    let seen = what_it_has(&judge, mem)?;
    let b = Bench { judge, mem, frames };
    frames_are_apart(&b)?;
    whole_frames(&b)?;
    parts(&b)?;
    words(&b)?;
    #[cfg(all(feature = "std", not(shuttle)))]
    under_threads(&b)?;
    b.judge.same(
        STAYS,
        format_args!("in the end, frame by frame"),
        what_it_has(&b.judge, mem)?,
        seen,
    )
}

/// [`check_phys_mem`], for tests.
///
/// # Panics
/// At the first clause that does not hold.
#[track_caller]
pub fn phys_mem(name: &str, mem: &dyn PhysMem) {
    Breach::raise(check_phys_mem(name, mem));
}

/// Of frames on both sides of either end: whether each is memory.
fn what_it_has(judge: &Judge, mem: &dyn PhysMem) -> Result<Vec<(Pfn, bool)>, Breach> {
    let (base, end, n) = (mem.base().0, mem.base().0.saturating_add(mem.frames()), ENDS as u64);
    let front = base.saturating_sub(2)..base.saturating_add(n).min(end);
    let back = end.saturating_sub(n).max(front.end)..end.saturating_add(2);
    let mut seen = Vec::new();
    for pfn in front.chain(back).map(Pfn) {
        let inside = (base..end).contains(&pfn.0);
        // Nobody asks what a frame is that is none of them.
        let memory = inside && mem.is_memory(pfn);
        judge.same(HAS, format_args!("what it says of {pfn}"), mem.has(pfn), memory)?;
        if inside {
            judge.same(
                STAYS,
                format_args!("of {pfn}, the second answer"),
                mem.is_memory(pfn),
                memory,
            )?;
        }
        seen.push((pfn, memory));
    }
    Ok(seen)
}

fn frames_are_apart(b: &Bench<'_>) -> Result<(), Breach> {
    b.frames.iter().for_each(|pfn| b.fill(*pfn));
    b.frames.iter().try_for_each(|pfn| b.holds(OWN, *pfn, |at| mark(*pfn, at)))
}

fn whole_frames(b: &Bench<'_>) -> Result<(), Breach> {
    // In the middle of others, at both ends, and from one end to the other.
    let (first, last) = (b.frames[0], b.frames[b.frames.len() - 1]);
    let middle = b.frames[b.frames.len() / 2];
    for (from, to) in [(first, middle), (middle, last), (last, first), (middle, middle)] {
        b.mem.zero(to);
        b.holds(ZERO, to, |_| 0)?;
        b.others_hold(&[to])?;
        b.fill(from);
        b.mem.copy(from, to);
        b.holds(COPY, to, |at| mark(from, at))?;
        b.holds(COPY, from, |at| mark(from, at))?;
        b.others_hold(&[to])?;
        b.fill(to);
    }
    Ok(())
}

/// Of every alignment at either end, over words and within one, up to the frame's last byte.
fn parts(b: &Bench<'_>) -> Result<(), Breach> {
    let pfn = b.frames[b.frames.len() / 2];
    for offset in [0, 1, 7, 8, 13, 2047, 4070, PAGE - 1, PAGE] {
        for len in [0, 1, 3, 8, 9, 26, PAGE].into_iter().filter(|len| offset + len <= PAGE) {
            b.fill(pfn);
            let mut got = vec![0xa5; len];
            b.mem.read(pfn, offset, &mut got);
            let due: Vec<u8> = (offset..offset + len).map(|at| mark(pfn, at)).collect();
            b.judge.same(READ, format_args!("{len} bytes at {offset}"), got, due)?;
            let bytes: Vec<u8> = (0..len).map(|i| !mark(pfn, offset + i)).collect();
            b.mem.write(pfn, offset, &bytes);
            let written = offset..offset + len;
            let due = |at| if written.contains(&at) { !mark(pfn, at) } else { mark(pfn, at) };
            b.holds(WRITE, pfn, due)?;
        }
    }
    b.fill(pfn);
    b.others_hold(&[])
}

fn words(b: &Bench<'_>) -> Result<(), Breach> {
    for pfn in b.frames.iter().copied() {
        let words = b.mem.words(pfn);
        let again = b.mem.words(pfn);
        b.judge.require(WORD, core::ptr::eq(words, again), format_args!("{pfn} has two places"))?;
        for (i, word) in words.iter().enumerate() {
            let due: [u8; 8] = core::array::from_fn(|n| mark(pfn, i * 8 + n));
            let seen = word.load(Relaxed).to_ne_bytes();
            b.judge.same(WORD, format_args!("word {i} of frame {pfn}"), seen, due)?;
            let one = core::ptr::eq(b.mem.u64_at(pfn, i), word);
            b.judge.require(ONE, one, format_args!("word {i} of frame {pfn} is another"))?;
        }
        let at = (pfn.0 as usize) % WORDS;
        words[at].store(u64::MAX, Relaxed);
        let due = |byte| if byte / 8 == at { 0xff } else { mark(pfn, byte) };
        b.holds(WORD, pfn, due)?;
        b.fill(pfn);
    }
    let Some(side) = b.mem.side_by_side() else { return Ok(()) };
    b.judge.same(SIDE, format_args!("how many"), side.len() as u64, b.mem.frames())?;
    for pfn in b.frames.iter().copied() {
        let same = core::ptr::eq(&side[(pfn.0 - b.mem.base().0) as usize], b.mem.words(pfn));
        b.judge.require(SIDE, same, format_args!("frame {pfn} is elsewhere"))?;
    }
    Ok(())
}

/// Three threads on one frame: each has bytes of its own in words that they share, and all count in one word.
#[cfg(all(feature = "std", not(shuttle)))]
fn under_threads(b: &Bench<'_>) -> Result<(), Breach> {
    const ROUNDS: u64 = 300;
    let (pfn, other) = (b.frames[0], b.frames[1]);
    b.mem.zero(pfn);
    let steps = &Steps::default();
    b.judge.three_threads(|me| {
        let _ended = steps.ends(me);
        for round in 0..ROUNDS {
            steps.begin(me, round + 1);
            for _ in 0..10 {
                b.mem.u64_at(pfn, 0).fetch_add(1, Relaxed);
            }
            // Bytes 8 to 11, 11 to 14, 14 to 17: of two words. What was written the round before is there until it is written over.
            let (at, byte) = (8 + me * 3, |round: u64| (round % 250) as u8);
            let mut got = [0; 3];
            b.mem.read(pfn, at, &mut got);
            b.judge.same(BESIDE, format_args!("what thread {me} wrote"), got, [byte(round); 3])?;
            b.mem.write(pfn, at, &[byte(round + 1); 3]);
        }
        Ok(())
    })?;
    let counted = b.mem.u64_at(pfn, 0).load(Relaxed);
    b.judge.same(ATOMIC, format_args!("three threads' count"), counted, 30 * ROUNDS)?;
    // Two copy, one stores words of all bits and of none until they are done.
    b.mem.zero(pfn);
    let steps = &Steps::default();
    b.judge.three_threads(|me| {
        let _ended = steps.ends(me);
        steps.meet(me, 1);
        if me == 0 {
            while !(steps.has_ended(1) && steps.has_ended(2)) {
                for value in [u64::MAX, 0] {
                    b.mem.words(pfn).iter().for_each(|word| word.store(value, Relaxed));
                }
            }
            return Ok(());
        }
        let to = if me == 1 { other } else { b.frames[2] };
        (0..100).try_for_each(|_| {
            b.mem.copy(pfn, to);
            let odd = b.bytes(to).into_iter().find(|byte| *byte != 0 && *byte != 0xff);
            b.judge.same(MOVING, format_args!("a byte that is neither"), odd, None)
        })
    })?;
    b.frames[..3].iter().for_each(|pfn| b.fill(*pfn));
    b.others_hold(&[])
}
