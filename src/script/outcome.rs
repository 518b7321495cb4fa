//! What an operation answers, in the words of the trace language's result format.
//!
//! ```text
//! N ok [moved] [n=COUNT] [h=HASH] [b=FIRSTBYTES]
//! N ENAME
//! N SEGV at=K code=maperr|accerr
//! N BUS at=K code=adrerr|objerr|adraln
//! N skip
//! N CRASH
//! ```
//!
//! Contents are compared by hash: 64-bit FNV-1a. The hash of a page that cannot be read is the
//! empty hash ([`FNV_OFFSET`]).

mod codes;

pub use self::codes::{BusCode, Errno, SegvCode, TrapCode};

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// Bytes in a page.
pub const PAGE_BYTES: u64 = 4096;

/// The contents of one page.
pub type PageBytes = [u8; PAGE_BYTES as usize];

/// FNV-1a's starting value, which is the hash of no bytes.
pub const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Goes on hashing: `hash` is what earlier bytes gave.
pub const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut i = 0;
    while i < bytes.len() {
        hash = (hash ^ bytes[i] as u64).wrapping_mul(FNV_PRIME);
        i += 1;
    }
    hash
}

/// The hash of a page of zeros.
pub const ZERO_PAGE_HASH: u64 = fnv(FNV_OFFSET, &[0; PAGE_BYTES as usize]);

/// Hashes one page. Zeros at its end, which most pages have, are multiplications only, so they are one.
pub fn page_hash(page: &PageBytes) -> u64 {
    let stored = page.chunks_exact(8).rposition(|c| c != [0; 8]).map_or(0, |last| (last + 1) * 8);
    let zeros = (page.len() - stored) as u32;
    fnv(FNV_OFFSET, &page[..stored]).wrapping_mul(FNV_PRIME.wrapping_pow(zeros))
}

/// Says whether all bytes are zero.
pub fn is_zero(page: &PageBytes) -> bool {
    page.chunks_exact(8).all(|c| c == [0; 8])
}

/// Up to sixteen bytes, shown for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FirstBytes {
    bytes: [u8; 16],
    len: u8,
}

impl FirstBytes {
    /// Most bytes kept.
    pub const MAX: usize = 16;

    /// Keeps the first bytes of `data`.
    pub fn of(data: &[u8]) -> Self {
        let mut first = FirstBytes::default();
        first.extend(data);
        first
    }

    /// Takes more bytes until there are sixteen.
    pub fn extend(&mut self, data: &[u8]) {
        let at = usize::from(self.len);
        let k = data.len().min(Self::MAX - at);
        self.bytes[at..at + k].copy_from_slice(&data[..k]);
        self.len += k as u8;
    }

    /// The bytes kept.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Display for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for FirstBytes {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        if !s.len().is_multiple_of(2)
            || s.len() > 2 * Self::MAX
            || !s.bytes().all(|b| b.is_ascii_hexdigit())
        {
            return Err(());
        }
        let mut first = FirstBytes::default();
        for i in (0..s.len()).step_by(2) {
            first.extend(&[u8::from_str_radix(&s[i..i + 2], 16).map_err(|_| ())?]);
        }
        Ok(first)
    }
}

impl Serialize for FirstBytes {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// What an operation that succeeded says beside `ok`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Facts {
    /// A hint was not followed, and the mapping made elsewhere was taken away again.
    pub moved: bool,
    /// A count, mostly of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// A hash of bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h: Option<u64>,
    /// The first bytes read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub b: Option<FirstBytes>,
}

/// What an operation answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Ok(Facts),
    /// It was refused.
    Errno(Errno),
    /// The access stopped with SIGSEGV.
    Segv {
        /// Bytes done before.
        at: u64,
        /// Why.
        code: SegvCode,
    },
    /// The access stopped with SIGBUS.
    Bus {
        /// Bytes done before.
        at: u64,
        /// Why.
        code: BusCode,
    },
    /// The access stopped with SIGTRAP, at a watched byte.
    Trap {
        /// Bytes done before.
        at: u64,
        /// What reached it.
        code: TrapCode,
    },
    /// The process does not live, the file was not made, or the slot is taken: nothing was done.
    Skip,
    /// The process died or did not answer. Always a bug.
    Crash,
}

impl Outcome {
    /// Plain `ok`.
    pub const OK: Outcome = Outcome::Ok(Facts { moved: false, n: None, h: None, b: None });

    /// `ok moved`.
    pub const MOVED: Outcome = Outcome::Ok(Facts { moved: true, n: None, h: None, b: None });

    /// `ok n=count`.
    pub const fn count(n: u64) -> Outcome {
        Outcome::Ok(Facts { moved: false, n: Some(n), h: None, b: None })
    }

    /// `ok h=hash`.
    pub const fn hash(h: u64) -> Outcome {
        Outcome::Ok(Facts { moved: false, n: None, h: Some(h), b: None })
    }

    /// `ok n=count h=hash`: what `pread` answers.
    pub const fn count_and_hash(n: u64, h: u64) -> Outcome {
        Outcome::Ok(Facts { moved: false, n: Some(n), h: Some(h), b: None })
    }

    /// `ok h=hash b=first`: what `read` answers.
    pub const fn bytes(h: u64, b: FirstBytes) -> Outcome {
        Outcome::Ok(Facts { moved: false, n: None, h: Some(h), b: Some(b) })
    }

    /// Says whether it was done.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Outcome::Ok(_))
    }

    /// Says whether two executors agree, leaving out what the trace language never compares: the
    /// bytes shown for people and the code of SIGBUS.
    pub fn agrees_with(&self, other: &Outcome) -> bool {
        self.comparable() == other.comparable()
    }

    fn comparable(mut self) -> Outcome {
        match &mut self {
            Outcome::Ok(facts) => facts.b = None,
            Outcome::Bus { code, .. } => *code = BusCode::Objerr,
            _ => {}
        }
        self
    }
}

impl From<Errno> for Outcome {
    fn from(e: Errno) -> Self {
        Outcome::Errno(e)
    }
}

impl<T: Into<Outcome>> From<Result<Outcome, T>> for Outcome {
    fn from(r: Result<Outcome, T>) -> Self {
        r.unwrap_or_else(Into::into)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Ok(facts) => {
                f.write_str("ok")?;
                if facts.moved {
                    f.write_str(" moved")?;
                }
                if let Some(n) = facts.n {
                    write!(f, " n={n}")?;
                }
                if let Some(h) = facts.h {
                    write!(f, " h={h:016x}")?;
                }
                facts.b.map_or(Ok(()), |b| write!(f, " b={b}"))
            }
            Outcome::Errno(e) => write!(f, "{e}"),
            Outcome::Segv { at, code } => write!(f, "SEGV at={at} code={}", code.word()),
            Outcome::Bus { at, code } => write!(f, "BUS at={at} code={}", code.word()),
            Outcome::Trap { at, code } => write!(f, "TRAP at={at} code={}", code.word()),
            Outcome::Skip => f.write_str("skip"),
            Outcome::Crash => f.write_str("CRASH"),
        }
    }
}

/// What can be said of one page of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum PageState {
    /// `.`: nothing is mapped there. Such pages are in no digest.
    Unmapped,
    /// `-`: mapped, and no access is allowed.
    NoAccess,
    /// `r`: readable.
    Readable,
    /// `w`: readable and writable.
    Writable,
    /// `B`: SIGBUS on reading.
    Bus,
    /// `b`: SIGBUS on writing only.
    BusOnWrite,
}

impl PageState {
    /// The letter in a `D` line.
    pub const fn letter(self) -> char {
        match self {
            PageState::Unmapped => '.',
            PageState::NoAccess => '-',
            PageState::Readable => 'r',
            PageState::Writable => 'w',
            PageState::Bus => 'B',
            PageState::BusOnWrite => 'b',
        }
    }

    /// Says whether the page's bytes can be had.
    pub const fn is_readable(self) -> bool {
        matches!(self, PageState::Readable | PageState::Writable | PageState::BusOnWrite)
    }
}

/// The running hash of `digest`: for every mapped page, in order, its index (four bytes, little
/// end first), its state letter and the hash of its bytes (eight bytes, little end first).
#[derive(Clone, Copy, Debug)]
pub struct Digest(u64);

impl Default for Digest {
    fn default() -> Self {
        Digest(FNV_OFFSET)
    }
}

impl Digest {
    /// Adds a page; one that is not mapped adds nothing.
    pub fn page(&mut self, index: u32, state: PageState, hash: u64) {
        if state != PageState::Unmapped {
            self.0 = fnv(self.0, &index.to_le_bytes());
            self.0 = fnv(self.0, &[state.letter() as u8]);
            self.0 = fnv(self.0, &hash.to_le_bytes());
        }
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}

/// Takes away from a result line what the trace language never compares; `None` for lines that are
/// not compared at all (remarks, blank lines and the last line).
pub fn comparable_line(line: &str) -> Option<String> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') || line.starts_with("end ") {
        return None;
    }
    let bus = line.contains(" BUS ");
    let kept = |w: &&str| !(w.starts_with("b=") || bus && w.starts_with("code="));
    Some(line.split(' ').filter(kept).collect::<Vec<_>>().join(" "))
}

/// Compares two results of one script and returns the pairs of lines that differ; where one result
/// is shorter, its side is empty.
pub fn compare_results(left: &str, right: &str) -> Vec<(String, String)> {
    let mut left = left.lines().filter_map(comparable_line);
    let mut right = right.lines().filter_map(comparable_line);
    let mut differences = Vec::new();
    loop {
        match (left.next(), right.next()) {
            (None, None) => return differences,
            (l, r) if l == r => {}
            (l, r) => differences.push((l.unwrap_or_default(), r.unwrap_or_default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hashes_are_those_of_the_trace_language() {
        assert_eq!(fnv(FNV_OFFSET, b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(page_hash(&[0; 4096]), ZERO_PAGE_HASH);
        assert_eq!(page_hash(&[1; 4096]), fnv(FNV_OFFSET, &[1; 4096]));
    }

    #[test]
    fn outcomes_print_as_result_lines() {
        let o = Outcome::bytes(0xab, FirstBytes::of(&[1, 2, 255]));
        assert_eq!(o.to_string(), "ok h=00000000000000ab b=0102ff");
        assert_eq!(Outcome::MOVED.to_string(), "ok moved");
        assert_eq!(Outcome::from(Errno::EAGAIN).to_string(), "EAGAIN");
        let s = Outcome::Segv { at: 3, code: SegvCode::Maperr };
        assert_eq!(s.to_string(), "SEGV at=3 code=maperr");
    }

    #[test]
    fn numbers_are_those_of_illumos() {
        assert_eq!(Errno::ENOTSUP.number(), 48);
        assert_eq!(Errno::from_number(79), Some(Errno::EOVERFLOW));
        assert_eq!(Errno::from_name("EDEADLK"), Some(Errno::EDEADLK));
        assert!(Errno::ALL.iter().all(|e| Errno::from_name(e.name()) == Some(*e)));
    }

    #[test]
    fn comparison_leaves_out_what_is_shown_for_people() {
        let a = "# x\n1 ok h=01 b=00\n2 BUS at=4 code=adrerr\nend ops=2 fingerprint=1\n";
        let b = "1 ok h=01 b=ff\n2 BUS at=4 code=objerr\n";
        assert_eq!(compare_results(a, b), []);
        assert_eq!(compare_results("1 ok\n2 ok\n", "1 ok\n"), [("2 ok".into(), String::new())]);
        let segv = "1 SEGV at=0 code=maperr\n";
        assert_eq!(compare_results(segv, "1 SEGV at=0 code=accerr\n").len(), 1);
    }
}
