//! The lock order of the whole system, as code.
//!
//! [`Rank`] is read top to bottom: a thread that holds a lock of one rank may wait only for locks of later ranks. A debug
//! build checks each acquisition that may wait ([`crate::Cx`] keeps the ranks held), so this list is the checker's own table.
//! Of two locks of one rank (fork takes two address spaces, a table and its parent) the parent's comes first and the
//! second is taken by a `lock_nested` method, which says so at the call. `try_` acquisitions need no order.

/// A lock's rank where ranks are checked. In a release build it takes no room: a lock of a pointer is two words, not three.
#[derive(Clone, Copy)]
pub(crate) struct Ranked {
    #[cfg(debug_assertions)]
    rank: Rank,
}

impl Ranked {
    pub(crate) const fn new(rank: Rank) -> Self {
        #[cfg(debug_assertions)]
        return Self { rank };
        #[cfg(not(debug_assertions))]
        {
            let _ = rank;
            Self {}
        }
    }
    /// The rank; in a release build, where nobody looks at it, any.
    #[inline]
    pub(crate) const fn get(self) -> Rank {
        #[cfg(debug_assertions)]
        return self.rank;
        #[cfg(not(debug_assertions))]
        Rank::Registry
    }
}

impl core::fmt::Debug for Ranked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if cfg!(debug_assertions) { self.get().fmt(f) } else { f.write_str("not kept") }
    }
}

/// Every lock in the system, in the order a thread may take them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum Rank {
    /// Serialises "choose an address, then map it" (`AS_CLAIMGAP`).
    AsRange,
    /// Held over one pass of locking in memory, whose undo is nobody else's business.
    AsLocking,
    /// `a_lock`: the segment list of an address space.
    AsLock,
    /// `a_contents`: flags, callbacks and waiters of an address space.
    AsContents,
    /// A segment driver's own lock (`segvn_data.lock`).
    SegPrivate,
    /// An anon map's shape: its top level, slot references, growth (`a_rwlock`).
    AnonMap,
    /// One anon slot (`anon_array_enter`).
    AnonSlot,
    /// A file's size and attributes, held over `get_page`.
    Vnode,
    /// Page-out's hands and queue.
    Pageout,
    /// A page's `p_selock`.
    Page,
    /// A page's `p_iolock`.
    PageIo,
    /// A page-hash bucket group (`ph_mutex`).
    HashShard,
    /// A vnode's page list (`vph_mutex`).
    VnodeList,
    /// Free and cache lists.
    FreeList,
    /// The swap reservation ledger (`anoninfo_lock`).
    SwapReserve,
    /// `freemem_lock`: availrmem, waiters for memory.
    FreeMem,
    /// Numbers of anons and their physical slots (`AH_MUTEX`).
    SwapNames,
    /// A swap area's bitmap (`swapinfo_lock`).
    SwapArea,
    /// The stored bytes of a file, under a page being moved in or out.
    VnodeData,
    /// Whose turn it is on a simulated processor, over a switch and one access. Nothing of an address space is waited for meanwhile, so whoever looks at the
    /// segments of one may load from them.
    Turn,
    /// A hat: its CPU set, its list of tables.
    Hat,
    /// One page table; a parent before its child.
    HTable,
    /// The mappings of a page.
    HMent,
    /// What one CPU remembers.
    Cpu,
    /// An arena's free ids.
    Arena,
    /// Registries read by views: vnode names, counters.
    Registry,
}
