//! Finding room, and keeping it until it is mapped.
//!
//! Choosing an address and mapping it are two steps, and two threads may choose the same hole. Whoever wants both holds the range claim meanwhile
//! ([`AddrSpace::claim_range`]); mapping at a given address needs none.
//!
//! The claim is held for long: over waits for pins and for memory, and over what is called meanwhile to let go of either (Q2 of
//! [`crate::callback`]). Whoever is called so and chooses an address in the same space would wait for his own thread. So the claim knows its
//! holder, and refuses him.
//!
//! Sources: [SI §9.4]; illumos.md 3.4.

use crate::addr_space::AddrSpace;
use crate::avl::{GapQuery, Order};
use crate::error::{AsError, SegError};
use crate::seg::SegCreate;
use page_db::sync::atomic::{AtomicU64, Ordering};
use page_db::sync::{Mutex, MutexGuard};
use page_db::{Cx, PAGE_MASK, PAGE_SIZE, Rank, UnitError, VirtAddr, VirtRange};

/// Which of the suitable holes is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GapOrder {
    /// The lowest.
    #[doc(alias = "AH_LO")]
    Lowest,
    /// The highest.
    #[doc(alias = "AH_HI")]
    #[default]
    Highest,
}

/// What hole is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GapRequest {
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Where to look; the whole address space by default.
    pub window: Option<VirtRange>,
    /// Which one.
    pub order: GapOrder,
    /// The place must begin at a multiple of this: a power of two, or 0 for anywhere.
    pub align: u64,
    /// Bytes that must stay free on either side, a multiple of the page size.
    pub redzone: u64,
    /// Only the hole around this address will do.
    #[doc(alias = "AH_CONTAIN")]
    pub containing: Option<VirtAddr>,
}

impl GapRequest {
    /// Asks for the highest hole of `len` bytes.
    pub const fn new(len: u64) -> Self {
        Self { len, window: None, order: GapOrder::Highest, align: 0, redzone: 0, containing: None }
    }
    /// The same, the lowest first.
    #[must_use]
    pub const fn lowest(mut self) -> Self {
        self.order = GapOrder::Lowest;
        self
    }
    /// The same, inside `window` only.
    #[must_use]
    pub const fn within(mut self, window: VirtRange) -> Self {
        self.window = Some(window);
        self
    }
    /// The same, at a multiple of `align`.
    #[must_use]
    pub const fn aligned(mut self, align: u64) -> Self {
        self.align = align;
        self
    }
    /// The same, with `bytes` free on either side.
    #[must_use]
    pub const fn with_redzone(mut self, bytes: u64) -> Self {
        self.redzone = bytes;
        self
    }
    /// The same, in the hole around `addr`.
    #[must_use]
    pub const fn around(mut self, addr: VirtAddr) -> Self {
        self.containing = Some(addr);
        self
    }
    fn check(&self, at: u64) -> Result<(), AsError> {
        if self.len == 0 {
            return Err(UnitError::Empty(at).into());
        }
        for bytes in [self.len, self.redzone] {
            if bytes & PAGE_MASK != 0 {
                return Err(UnitError::PartialPage(bytes).into());
            }
        }
        if self.align != 0 && !self.align.is_power_of_two() {
            return Err(UnitError::Misaligned(self.align).into());
        }
        Ok(())
    }
}

/// A hole that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundGap {
    /// The whole part of the hole inside the window, possibly much larger than asked for.
    pub hole: VirtRange,
    /// Where the mapping goes: as low or as high in the hole as it fits.
    pub place: VirtRange,
}

/// What address `mmap` wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddrRequest {
    /// Bytes, a multiple of the page size.
    pub len: u64,
    /// Tried first, rounded down to its page, if it leads to a hole.
    pub hint: Option<VirtAddr>,
    /// Where else: top-down in this range, the whole address space by default.
    pub window: Option<VirtRange>,
    /// A power of two, or 0. A hint is not tried with an alignment.
    pub align: u64,
    /// What lies here the place is for: it is not thrown away to make room.
    pub spare: Option<VirtRange>,
}

impl AddrRequest {
    /// Asks for `len` bytes anywhere.
    pub const fn new(len: u64) -> Self {
        Self { len, hint: None, window: None, align: 0, spare: None }
    }
}

impl AddrSpace {
    /// Finds a hole. Without the range claim somebody else may take it before it is mapped.
    ///
    /// # Errors
    /// [`AsError::NoGap`]; [`AsError::Range`] for a length or alignment that makes no sense.
    #[doc(alias("as_gap", "as_gap_aligned"))]
    pub fn find_gap(&self, cx: &Cx, request: &GapRequest) -> Result<FoundGap, AsError> {
        let window = request.window.unwrap_or(self.limits());
        request.check(window.start().get())?;
        let query = GapQuery {
            window: (window.start().get(), window.end()),
            len: request.len,
            align: request.align.max(PAGE_SIZE),
            redzone: request.redzone,
            order: match request.order {
                GapOrder::Lowest => Order::Lowest,
                GapOrder::Highest => Order::Highest,
            },
            containing: request.containing.map(VirtAddr::get),
        };
        let query = if query.align == PAGE_SIZE { GapQuery { align: 0, ..query } } else { query };
        let none = AsError::NoGap { len: request.len };
        let gap = self.lock.read(cx).find_gap(cx, &query).ok_or(none)?;
        let place = query.place_in(&gap).ok_or(none)?;
        Ok(FoundGap {
            hole: VirtRange::exact(gap.start, gap.end - gap.start)?,
            place: VirtRange::exact(place, request.len)?,
        })
    }
    /// Claims the right to choose addresses, waiting for it.
    ///
    /// # Errors
    /// [`AsError::Claimed`] when the thread has it already, as a callback may find.
    ///
    /// # Locks
    /// Taken without the lock.
    ///
    /// # Panics
    /// In a debug build, when the thread holds any lock of an address space.
    #[doc(alias("as_rangelock", "AS_CLAIMGAP"))]
    pub fn claim_range<'a>(&'a self, cx: &'a Cx) -> Result<RangeClaim<'a>, AsError> {
        if self.has_claim(cx) {
            return Err(AsError::Claimed);
        }
        let place = &self.range_claim.0;
        let held = place.lock.lock(cx);
        place.holder.store(ClaimPlace::number(cx), Ordering::Relaxed);
        Ok(RangeClaim { space: self, cx, _held: Held { place, _lock: held } })
    }
    /// Whether this thread has the claim, as whoever is called back under one may ask before it begins what would take it.
    pub fn has_claim(&self, cx: &Cx) -> bool {
        // Only this thread writes its own number there, so the look needs no order.
        self.range_claim.0.holder.load(Ordering::Relaxed) == ClaimPlace::number(cx)
    }
}

/// Where the range claim of an address space is kept.
#[derive(Debug)]
pub(crate) struct ClaimPlace {
    lock: Mutex<()>,
    /// The number of the thread that has it, plus one; 0 for none. Guarded by the lock, but for a thread that looks for itself.
    holder: AtomicU64,
}

impl ClaimPlace {
    pub(crate) const fn new() -> Self {
        Self { lock: Mutex::new(Rank::AsRange, ()), holder: AtomicU64::new(0) }
    }
    /// What stands there for a thread.
    fn number(cx: &Cx) -> u64 {
        u64::from(cx.thread().0) + 1
    }
}

/// The claim's lock, and its holder's number there.
#[derive(Debug)]
struct Held<'a> {
    place: &'a ClaimPlace,
    _lock: MutexGuard<'a, ()>,
}
impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.place.holder.store(0, Ordering::Relaxed); // before it is unlocked
    }
}

/// The right to choose addresses in an address space; given up when dropped.
#[doc(alias = "as_rangeunlock")]
#[derive(Debug)]
pub struct RangeClaim<'a> {
    space: &'a AddrSpace,
    cx: &'a Cx,
    _held: Held<'a>,
}

impl RangeClaim<'_> {
    /// Finds a hole, which stays one until the claim is dropped (but for mappings at given addresses).
    ///
    /// # Errors
    /// As [`AddrSpace::find_gap`].
    pub fn find_gap(&self, request: &GapRequest) -> Result<FoundGap, AsError> {
        self.space.find_gap(self.cx, request)
    }
    /// Chooses the place of a mapping: at the hint if there is room, else as high as possible. Where no hole is large enough what may be thrown away goes
    /// first ([`AddrSpace::purge`]), but for what is to be spared; it is gone also where there is no room then.
    ///
    /// # Errors
    /// As [`AddrSpace::find_gap`] and [`AddrSpace::purge`].
    #[doc(alias = "map_addr")]
    pub fn choose_addr(&self, request: &AddrRequest) -> Result<VirtRange, AsError> {
        let hinted = request.hint.filter(|hint| hint.get() != 0 && request.align <= PAGE_SIZE);
        if let Some(hint) = hinted
            && let Ok(at_hint) = VirtRange::exact(hint.page_floor().get(), request.len)
            && let Ok(found) = self.find_gap(&GapRequest::new(request.len).within(at_hint))
        {
            return Ok(found.place);
        }
        let gap = GapRequest { window: request.window, ..GapRequest::new(request.len) };
        let gap = gap.aligned(request.align);
        let found = match self.find_gap(&gap) {
            Err(AsError::NoGap { .. }) if self.space.needs_purge(self.cx, request.spare) => {
                self.space.purge_but(self.cx, request.spare)?;
                self.find_gap(&gap)
            }
            found => found,
        };
        found.map(|found| found.place)
    }
    /// Maps at a chosen place, and says where.
    ///
    /// # Errors
    /// As [`RangeClaim::choose_addr`] and [`AddrSpace::map`]; nothing has changed.
    pub fn map_anywhere(
        &self,
        request: &AddrRequest,
        make: &dyn SegCreate,
    ) -> Result<VirtRange, AsError> {
        loop {
            let range = self.choose_addr(request)?;
            match self.space.map_free(self.cx, range, make) {
                // A mapping at a given address, which needs no claim, was faster.
                Err(AsError::Overlap { .. }) => {}
                done => return done.map(|()| range),
            }
        }
    }
    /// Maps at `range`.
    ///
    /// # Errors
    /// As [`AddrSpace::map`]; nothing has changed.
    pub fn map(&self, range: VirtRange, make: &dyn SegCreate) -> Result<(), AsError> {
        self.space.map(self.cx, range, make)
    }
    /// Maps at `range`; a child of fork gets it if it gets the page `like`, which the new pages go on from.
    ///
    /// # Errors
    /// As [`AddrSpace::map`]; nothing has changed.
    pub fn map_like(
        &self,
        range: VirtRange,
        make: &dyn SegCreate,
        like: VirtAddr,
    ) -> Result<(), AsError> {
        self.space.map_at(self.cx, range, make, Some(like))
    }
    /// Maps at `range` in place of whatever is there (`MAP_FIXED`).
    ///
    /// # Errors
    /// As [`AddrSpace::unmap`] and [`AddrSpace::map`]; what was there is gone, as in illumos. [`AsError::Overlap`] where a driver does not give up what is there
    /// (a part of a guard): what lies below that is gone.
    #[doc(alias = "MAP_FIXED")]
    pub fn map_fixed(&self, range: VirtRange, make: &dyn SegCreate) -> Result<(), AsError> {
        let (space, cx) = (self.space, self.cx);
        space.check_limits(range)?;
        let mut taken = space.check_free(cx, &space.lock.read(cx), range).is_err();
        // held: the claim
        loop {
            if taken {
                match space.unmap(cx, range) {
                    // What does not go is met by the mapping.
                    Err(AsError::Seg(SegError::Invalid { range: with, .. })) => {
                        return Err(AsError::Overlap { range, with });
                    }
                    done => done?,
                }
            }
            match space.map_free(cx, range, make) {
                // A mapping at a given address, which needs no claim, came between: it goes as well.
                Err(AsError::Overlap { .. }) => taken = true,
                done => return done,
            }
        }
    }
}
