//! Mistakes on request: one recheck left out, one store made too early, one lock let go too soon.
//!
//! A scenario that passes in every schedule says little unless it is known to fail when the code is wrong. So the code carries the mistakes that it avoids,
//! each where it would be made, under a name that a scenario arms. Outside `cfg(shuttle)` [`mutated`] is the constant `false`
//! and nothing of them is compiled. Which mutation is armed hangs off the exploring run: it is a label of its first task, which
//! the others inherit.
//!
//! The table below is the list; the last column is the scenario that notices, in `schedules` of the crate named.

macro_rules! mutations {
    ($($(#[$doc:meta])* $id:ident,)+) => {
        /// A mistake.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutation { $($(#[$doc])* $id),+ }
        impl Mutation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$id),+];
        }
    };
}

mutations! {
    // ---- page-db ----
    /// K2: a lock that becomes shared wakes nobody. `page_lock`
    DowngradeWakesNobody,
    /// K1: a shared lock becomes exclusive beside other readers. `page_lock_upgrade`
    UpgradeBesideReaders,
    /// K3: who waits for a page by name goes on waiting when it has lost the name. `a_stranger_pins_the_frame_of_a_page_waited_for`
    StrangerAwaited,
    /// K4: a waiter for the i/o lock does not say so. `io_lock`
    IoWaiterUnannounced,
    /// S1: the writer looks at the readers' slots before it says that it is there. `slot_lock_excludes`
    WriterLooksFirst,
    /// A reader that leaves does not look for a writer. `slot_lock`
    ReaderLeavesQuietly,
    /// A reader falls asleep without marking its slot. `slot_lock_opens_for_whoever_wakes_a_sleeper`
    SleeperUnmarked,
    /// A waiter looks at the state first and announces itself afterwards. `memory_comes_to_the_sleeper`
    WaitAnnouncedLate,
    /// H2: a miss of the search without a lock is believed. `lookup_carried_onto_another_chain`
    MissBelieved,
    /// H1: a hit is believed without comparing the name under the page's lock. `a_cached_page_has_one_fate`
    HitBelieved,
    /// H3: an insert does not search again under the bucket lock. `one_name_one_page`
    InsertBlind,
    /// N3 of vnodes: a page is put on the list of a number that may have been given back. `a_number_given_back_names_no_page`
    JoinedBlind,
    /// Q1: a claim is looked at and written in two steps. `claims`
    ClaimInTwoSteps,
    /// F1: draining a magazine lets go of its lock between moving the frames and emptying it. `magazine_refill_against_drain`
    DrainLetsGo,
    /// F1: a frame is counted as free when it can be taken already. `a_free_frame_is_counted_before_it_is_taken`
    FreeCountedLate,
    /// T1: a frame is marked as one to be retired without another look at its marks. `one_frame_is_retired_once`
    MarkedBlindly,
    /// F3: whether a freed frame may wait in a magazine is looked at before the magazine's lock only. `a_free_into_a_magazine_reaches_the_sleeper`
    StockBelieved,
    /// F3: frames are let wait in magazines without a look for waiters afterwards. `magazines_filled_beside_a_sleeper`
    StockedBesideAWaiter,
    /// E4: whether a page that loses its name lives on is decided by a look at its loans, not by what the bit was set beside. `destroy_against_the_last_unlend`,
    /// `break_loan_against_the_last_unlend`
    DisownedByALook,
    /// E3: breaking a loan takes the name from the lent page first and gives it to the copy afterwards. `break_loan_against_lookup`
    NameMovedInTwoSteps,

    // ---- hat-x86 ----
    /// C1: a load does not compare its stamp under the leaf's lock. `stamp_against_change`
    StampIgnored,
    /// H4: tables are linked under one that has ended meanwhile. `tables_come_and_go`
    LinkedUnderTheDead,
    /// H2: a table seen empty is unlinked without a second look. `a_leaf_emptied_and_filled`
    EmptyBelieved,
    /// H2: a top table ends while a table below it is about to be unlinked. `an_end_against_an_unload_on_its_way_up`
    TopEndsFirst,
    /// T1: a hat counts as one in which nothing runs before the processors have left it. `an_end_against_a_store`
    FreeingBeforeLeft,
    /// H3: a pinned table is unlinked. `theft_against_replacement`
    PinUnseen,
    /// M1: a mapping copied from its page's list is removed without looking at the entry again. `one_mapping_removed_from_both_sides`
    MappingBelieved,
    /// F4: nobody looks for the flushes that others owe. `no_store_into_a_freed_frame`
    DebtsUnseen,
    /// M5: a table's id is stored over a word that somebody has. `mappings_of_a_frame_that_was_a_table`
    HeadStoredOver,
    /// U2: a split gives the right to write back above before it takes it from the entries. `a_split_gives_nothing_away`
    AllowedFirst,
    /// M6: a range takes an entry's bits without the lock of the page's list. `harvest_of_a_range_against_harvest_of_a_page`
    BitsInFlight,
    /// U4: a range is given the right to write without the lock of the page's list. `a_grant_against_a_page_made_read_only`
    GrantBesideTheList,
    /// F2: taking the accessed bit owes no flush. `harvest_against_unload`, `write_out_against_harvest`
    HarvestOwesNothing,
    /// V2: a page is taken for clean without a look at flushes owed since its bits were gathered. `write_out_against_unload`
    CleanBesideADebt,
    /// V4: after its write a page's bits are asked for while it is mapped still. `store_against_the_end_of_an_invalidating_write`,
    /// `store_against_the_end_of_a_freeing_write`
    UsedAskedFirst,

    // ---- the whole library; scenarios in seg-drivers ----
    /// H3 of anon maps: a slot that another thread holds busy is taken all the same. `fault_against_fault`
    BusySlotTaken,
    /// A range gives up its contents first and its translations afterwards. `store_against_unmap`
    TranslationsAfterContents,
    /// M3: slots on their way out count as gone before they are empty. `map_beside_what_is_leaving`, `map_where_a_part_is_leaving`
    LeavingOverEarly,
    /// M3: references are forgotten while somebody empties slots by them. `part_leaves_against_exit`
    RefsForgottenEarly,
    /// N4: an anon is freed without waiting for whoever holds its page. `page_out_against_exit`
    PushNotAwaited,
    /// W1: a slot is given up after a look at the i/o lock, without taking it. `slot_given_up_against_write_out`
    SlotFreedByALook,
    /// N5: an anon's number goes back before its page is gone. `swap_in_against_discard`
    NumberBeforePage,
    /// Truncation passes over a page that somebody holds. `file_store_against_truncate`
    HeldPagePassedOver,
    /// W1: an anon's number goes back although a removal of swap may be reading its page. `removal_of_swap_against_exit`
    RemovalUnseen,
    /// W6: an anon's slot goes back before the page is gone that a removal of swap has made, and that is written there. `removal_of_swap_and_page_out_against_exit`
    SlotBeforePage,
    /// O2: a side of a lazy fork lets go of the map before it has copied it. `own_maps_from_both_sides`
    MapLeftEarly,
    /// J1: a slot of a joint map is replaced and the other sharers keep their translations. `joint_store_against_load`
    OthersKeepTheOld,
    /// J1: a map is said to be joint before the segment more is counted. `sharer_exits_against_fork_by_sharing`
    JointBeforeCounted,
    /// M4: a chunk that could not be freed when it became empty is left where it is. `sharers_exit_at_once`
    ChunkNotLookedForAgain,
    /// J2: a fault goes by what the slot held before it was busy. `joint_store_against_load`
    SlotReadEarly,
    /// A range gives up its translations before the address space is locked, and no more. `fault_against_unmap`
    UnloadedBeforeLocked,
    /// V07: fork takes the right to store from the tables and tells no processor. `fault_against_dup`
    ForkForgetsToFlush,
    /// J5: before a loan is broken others are looked for, and then waited for. `store_to_a_lent_page_against_a_soft_lock`
    PinLookedFor,
    /// S1 of `seg_vn`: translations are changed before the new rights are published. `fault_against_set_prot`
    RightsPublishedLate,
    /// N3: the old anon loses its reference before its page has been copied. `copy_on_write_from_both_sides`
    ReferenceDroppedEarly,
    /// J4: the copy of a joint map waits for no flush that others owe for pages without a translation. `joint_copy_against_unmap`
    CopiedBesideADebt,
    /// The same of an anon that is lent. `loan_against_unmap`
    LentBesideADebt,
    /// R2: the page that a borrowed anon's word names is believed without another look at the word under the page's lock.
    /// `borrower_against_break_and_lock`
    LenderBelieved,
    /// R3: a borrower that gets a page of its own leaves the translations of the lender's in place. `borrower_against_break_and_lock`
    BorrowersKeepTheLender,
    /// O3: a page found clean is freed without another look after its last translation went. `page_out_against_fault`
    CleanBelieved,
}

/// Whether the mistake `m` is to be made here.
#[cfg(not(shuttle))]
#[inline(always)]
pub const fn mutated(m: Mutation) -> bool {
    let _ = m;
    false
}

#[cfg(shuttle)]
pub(super) use armed::arm;
#[cfg(shuttle)]
pub use armed::mutated;

#[cfg(shuttle)]
mod armed {
    use super::Mutation;
    use shuttle::current::{get_label_for_task, me, set_label_for_task, try_get_current_task};

    #[derive(Clone, Copy, Debug)]
    struct Armed(Mutation);

    /// Arms a mutation for the threads that the calling one will start, and for itself.
    pub(in crate::sync) fn arm(mutation: Option<Mutation>) {
        if let Some(m) = mutation {
            let _ = set_label_for_task(me(), Armed(m));
        }
    }

    /// Whether the mistake `m` is to be made here.
    pub fn mutated(m: Mutation) -> bool {
        let armed = try_get_current_task().and_then(get_label_for_task::<Armed>);
        armed.is_some_and(|a| a.0 == m)
    }
}
