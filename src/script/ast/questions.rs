//! What a script asks to see, and what it expects.

use super::{Addr, FileRef, ProcRef};
use crate::script::outcome::{BusCode, Errno, FirstBytes, SegvCode, TrapCode};

/// Whose address space a view shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SpaceRef<P = ProcRef> {
    /// A process's.
    Process(P),
    /// `kas`: the kernel's.
    Kernel,
}

/// A view, of processes `P`, files `F` and addresses `A`: as a script writes them, or resolved to
/// slots and numbers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewRequest<P = ProcRef, F = FileRef, A = Addr> {
    /// Which.
    pub kind: ViewKind<P, F, A>,
    /// As JSON instead of a table.
    pub json: bool,
}

/// The views there are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ViewKind<P = ProcRef, F = FileRef, A = Addr> {
    /// `::pmap [-x] P`
    Pmap {
        /// Whose.
        space: SpaceRef<P>,
        /// With residency, anonymous and locked columns.
        extended: bool,
    },
    /// `::seg P`
    Seg(SpaceRef<P>),
    /// `::segtree P`
    SegTree(SpaceRef<P>),
    /// `::anon P [A]`
    Anon(P, Option<A>),
    /// `::page`
    Pages,
    /// `::page F`
    FilePages(F),
    /// `::page pfn N`
    PageAt(u64),
    /// `::memstat`
    Memstat,
    /// `::vnode F`
    Vnode(F),
    /// `::hash`
    Hash,
    /// `::vatopfn P A`
    VaToPfn(P, A),
    /// `::htable P`
    HTable(P),
    /// `::swapinfo`
    SwapInfo,
    /// `::vmstat [NAME...]`
    VmStat(Vec<String>),
    /// `::walk P A`
    Walk(P, A),
}

/// What `expect` expects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expectation {
    /// The last operation answered so; only the words given are compared.
    Outcome(ExpectedOutcome),
    /// The last view's text holds this, or does not.
    Text {
        /// The piece of text.
        text: String,
        /// `false` for `expect not`.
        present: bool,
    },
    /// A counter's value.
    Counter {
        /// Its name.
        name: String,
        /// `+`: counted since the last operation began, not since the machine began.
        delta: bool,
        /// `>=`: at least so much, not exactly.
        at_least: bool,
        /// How much.
        value: u64,
    },
}

/// A pattern of outcomes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ExpectedOutcome {
    /// `ok` with these words, if given.
    Ok {
        /// `moved`
        moved: bool,
        /// `n=`
        n: Option<u64>,
        /// `h=`
        h: Option<u64>,
        /// `b=`: the first bytes shown begin so.
        b: Option<FirstBytes>,
    },
    /// An errno.
    Errno(Errno),
    /// `SEGV` with these words, if given.
    Segv {
        /// `at=`
        at: Option<u64>,
        /// `code=`
        code: Option<SegvCode>,
    },
    /// `BUS` with these words, if given.
    Bus {
        /// `at=`
        at: Option<u64>,
        /// `code=`
        code: Option<BusCode>,
    },
    /// `TRAP` with these words, if given.
    Trap {
        /// `at=`
        at: Option<u64>,
        /// `code=`
        code: Option<TrapCode>,
    },
    /// `skip`
    Skip,
}
