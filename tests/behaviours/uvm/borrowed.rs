//! Pages lent to anons: what another mapping shows, as it was when it was lent, until either side stores (uvm.md 5.7, 7.2 C9).
//!
//! Process 0 lends, process 1 borrows at page 8. Frames are compared to see who has whose page.

use super::loans::{give_back, lend, orphans};
use crate::{Scene, available, range, reserved, scene, space};
use addr_space::{AsError, FaultKind, SegError};
use page_db::{Access, CpuId, Identity, PAGE_SIZE, Prot};
use seg_drivers::LentAnons;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use swapfs::{AnonNumber, Place};

/// A file of two pages of `A`, mapped shared by process 0, and a process 1 without memory.
const FILE: &str = "file 0 8192; pwrite 0 0 8192 65; fork 0 1; map 0 0 2 rw shared fixed file 0 0; advise 0 0 2 random";
/// Its first page, lent, and shown to process 1, which has looked at it.
const SHOWN: &str =
    "lendanon 0 0 1; expect ok n=1; borrow 1 8 1; expect ok; read 1 8 0+1; expect ok b=41";

fn shown() -> Scene {
    let mut s = scene(FILE);
    s.run(SHOWN);
    s
}
/// Loans of the page in a frame.
#[track_caller]
fn loans(s: &Scene, frame: u64) -> u32 {
    s.machine().db().page(s.page(frame)).loans()
}
fn lent_pages(s: &Scene) -> u64 {
    s.machine().db().lent_pages()
}
fn copied(s: &Scene) -> u64 {
    s.count("bytes_copied") / PAGE_SIZE
}
/// Number and references of what the slot of a page holds.
#[track_caller]
fn slot(s: &Scene, proc: u32, page: u64) -> (u32, u32) {
    s.anon(proc, page).map(|a| (a.number, a.refs)).expect("an anon")
}
/// Where the bytes of the anon of a page are.
#[track_caller]
fn place(s: &Scene, proc: u32, page: u64) -> Place {
    let n = AnonNumber::from_raw(slot(s, proc, page).0).expect("a number");
    s.machine().swap().place(n)
}
/// The name of the page in a frame.
fn named(s: &Scene, frame: u64) -> Option<Identity> {
    s.machine().db().page(s.page(frame)).identity()
}

#[test]
fn a_loan_of_an_anon_is_one_reference_more() {
    let mut s = scene("map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; fork 0 1; unmap 1 0 1");
    s.run("write 0 0 0+1 65");
    let (anon, frame, promised) = (slot(&s, 0, 0), s.frame(0, 0), reserved(&s));
    assert_eq!((anon.1, s.rights(0, 0).as_str()), (1, "rw-"));
    s.run("lendanon 0 0 1; expect ok n=1");
    assert_eq!((slot(&s, 0, 0), s.frame(0, 0)), ((anon.0, 2), frame), "the page stays where it is");
    assert_eq!((s.rights(0, 0).as_str(), reserved(&s)), ("r--", promised + 1));
    assert_eq!(lent_pages(&s), 0, "nothing of it is lent");
    s.run("write 0 0 0+1 66; expect counter case_1b +1; borrow 1 8 1; expect ok");
    assert_eq!((slot(&s, 1, 8), reserved(&s)), ((anon.0, 1), promised + 1));
    s.run("read 1 8 0+1; expect ok b=41; write 1 8 0+1 67; expect counter cow_fault +0; read 0 0 0+1; expect ok b=42");
    assert_eq!(s.frame(1, 8), frame, "the borrower has the old page for itself");
    s.end();
}

#[test]
fn a_files_page_is_shown_as_it_is_and_nothing_is_copied() {
    let mut s = scene(FILE);
    s.run("read 0 0 0+1");
    let (may, before) = (available(&s), copied(&s));
    s.run(SHOWN);
    let frame = s.file_frame(0, 0);
    assert_eq!((s.frame(1, 8), s.rights(1, 8).as_str()), (frame, "r--"));
    assert_eq!((s.frame(0, 0), s.rights(0, 0).as_str()), (frame, "r--"));
    let page = s.page(frame.expect("in memory"));
    assert_eq!((place(&s, 1, 8), slot(&s, 1, 8).1), (Place::Borrowed(page), 1));
    assert_eq!((loans(&s, frame.unwrap()), lent_pages(&s), copied(&s)), (1, 1, before));
    assert_eq!(may - available(&s), 1, "a lent page is charged once; the promise is of disk");
    s.run("::anon 1; expect \"borrowed from\"; ::walk 1 8; expect \"borrowed page\"");
    s.end();
}

#[test]
fn a_store_of_the_borrower_copies_under_the_anons_own_name() {
    let mut s = shown();
    let (frame, anon, before) = (s.file_frame(0, 0), slot(&s, 1, 8), copied(&s));
    s.run("write 1 8 0+1 66; expect counter cow_fault +1; expect counter case_1a +1");
    assert_eq!((slot(&s, 1, 8), place(&s, 1, 8)), (anon, Place::Nowhere), "1A-l: the same anon");
    assert_ne!(s.frame(1, 8), frame);
    assert_eq!((copied(&s) - before, lent_pages(&s), loans(&s, frame.unwrap())), (1, 0, 0));
    s.run("read 0 0 0+1; expect ok b=41; write 0 0 0+1 67; expect counter cow_fault +0; read 1 8 0+1; expect ok b=42");
    assert_eq!(s.file_frame(0, 0), frame, "the file's page was never touched");
    s.end();
}

#[test]
fn a_store_to_the_file_leaves_the_page_to_the_borrower() {
    for store in ["write 0 0 0+1 66; expect counter cow_fault +1", "pwrite 0 0 1 66"] {
        let mut s = shown();
        let (frame, anon, before) = (s.file_frame(0, 0), slot(&s, 1, 8), copied(&s));
        s.run(store);
        assert_ne!(s.file_frame(0, 0), frame, "{store}: the file has the copy");
        assert_eq!((copied(&s) - before, orphans(&s), s.frame(1, 8)), (1, 1, None));
        s.run("read 1 8 0+1; expect ok b=41");
        assert_eq!((s.frame(1, 8), slot(&s, 1, 8)), (frame, anon), "{store}: the page it had seen");
        assert_eq!((place(&s, 1, 8), orphans(&s), lent_pages(&s)), (Place::Nowhere, 0, 0));
        s.run("write 1 8 0+1 67; expect counter cow_fault +0; read 0 0 0+1; expect ok b=42");
        assert_eq!((s.frame(1, 8), copied(&s) - before), (frame, 1), "{store}: one copy in all");
        s.run("pageout *; read 1 8 0+1; expect ok b=43");
        s.end();
    }
}

#[test]
fn a_page_that_the_kernel_has_too_stays_the_kernels() {
    let mut s = shown();
    let frame = s.file_frame(0, 0).expect("in memory");
    let kernel = lend(&mut s, 1, 8, 1);
    assert_eq!(
        (loans(&s, frame), lent_pages(&s)),
        (2, 1),
        "one of the borrower, one of the kernel"
    );
    s.run("write 0 0 0+1 66; read 1 8 0+1; expect ok b=41");
    assert_eq!(
        (s.frame(1, 8), loans(&s, frame)),
        (Some(frame), 1),
        "adopted, and lent by its owner"
    );
    assert!(named(&s, frame).is_some_and(|id| s.machine().swap().number_of(id).is_some()));
    s.run("write 1 8 0+1 67; expect counter cow_fault +1");
    assert_eq!((orphans(&s), super::loans::seen(&kernel)), (1, vec![65]));
    assert_ne!(s.frame(1, 8), Some(frame));
    give_back(&mut s, kernel);
    assert_eq!((orphans(&s), lent_pages(&s)), (0, 0));
    s.end();
}

#[test]
fn a_fork_shares_what_is_borrowed() {
    let mut s = shown();
    let (frame, anon, before) = (s.file_frame(0, 0), slot(&s, 1, 8), copied(&s));
    s.run("fork 1 2; read 2 8 0+1; expect ok b=41");
    assert_eq!((slot(&s, 2, 8), s.frame(2, 8)), ((anon.0, 2), frame));
    s.run("write 2 8 0+1 66; expect counter case_1b +1; expect counter cow_fault +1");
    assert_eq!((slot(&s, 1, 8).1, loans(&s, frame.unwrap()), copied(&s) - before), (1, 1, 1));
    assert_eq!(s.frame(1, 8), frame, "the parent goes on borrowing");
    s.run("write 1 8 0+1 67; expect counter case_1a +1; read 2 8 0+1; expect ok b=42; read 0 0 0+1; expect ok b=41");
    assert_eq!((lent_pages(&s), copied(&s) - before), (0, 2));
    s.end();
}

#[test]
fn the_last_of_two_owners_ends_the_loan() {
    let mut s = shown();
    let frame = s.file_frame(0, 0).expect("in memory");
    s.run("fork 1 2; exit 1");
    assert_eq!((slot(&s, 2, 8).1, loans(&s, frame)), (1, 1));
    s.run("advise 2 8 1 discard; expect ok; read 2 8 0+1; expect ok b=00");
    assert_eq!((loans(&s, frame), lent_pages(&s)), (0, 0));
    s.run("write 0 0 0+1 66; expect counter cow_fault +0");
    s.end();
}

#[test]
fn pins_and_locks_are_of_the_anons_own_page() {
    let mut s = shown();
    s.run("fork 1 2; protect 1 8 1 r; protect 2 8 1 r; read 1 8 0+1; read 2 8 0+1");
    let (frame, anon) = (s.file_frame(0, 0), slot(&s, 1, 8));
    let cx = s.machine().cx();
    space(&s, 1).fault(cx, range(8, 1), FaultKind::SoftLock, Access::Read).expect("mapped");
    assert_eq!((slot(&s, 1, 8), place(&s, 1, 8), anon.1), (anon, Place::Nowhere, 2));
    let own = s.frame(1, 8);
    assert_ne!(own, frame);
    assert_eq!((s.frame(2, 8), lent_pages(&s)), (None, 0), "R3: nobody shows the lender's page");
    s.run("write 0 0 0+1 66; expect counter cow_fault +0; read 2 8 0+1; expect ok b=41");
    assert_eq!(s.frame(2, 8), own, "both have the one copy");
    let cx = s.machine().cx();
    space(&s, 1).fault(cx, range(8, 1), FaultKind::SoftUnlock, Access::Read).expect("pinned");
    s.end();

    let mut s = shown();
    s.run("lock 1 8 1; expect ok");
    assert_eq!((place(&s, 1, 8), lent_pages(&s)), (Place::Nowhere, 0));
    s.run("write 0 0 0+1 66; expect counter cow_fault +0; read 1 8 0+1; expect ok b=41; unlock 1 8 1; expect ok");
    s.end();
}

#[test]
fn pages_pinned_for_storing_are_the_borrowers_alone() {
    let s = shown();
    let frame = s.file_frame(0, 0);
    let pinned = space(&s, 1).lock_pages(s.machine().cx(), range(8, 1), Access::Write);
    let pinned = pinned.expect("it may be stored to");
    assert_eq!((place(&s, 1, 8), lent_pages(&s)), (Place::Nowhere, 0));
    assert_ne!(s.frame(1, 8), frame);
    space(&s, 1).unlock_pages(s.machine().cx(), pinned).expect("pinned here");
    s.end();
}

#[test]
fn page_out_has_nothing_to_write_and_the_page_stays() {
    let mut s = shown();
    let frame = s.file_frame(0, 0);
    s.run("pageout *; expect counter anonpgout +0; sync 1 8 1 sync+inval; expect counter anonpgout +0; swapdel 0");
    assert_eq!((s.file_frame(0, 0), lent_pages(&s)), (frame, 1));
    let resident = s.process(1).mincore(crate::addr(8).get(), PAGE_SIZE).expect("mapped");
    assert_eq!(resident[0] & 1, 1, "it is in memory");
    s.run("read 1 8 0+1; expect ok b=41");
    assert_eq!(s.frame(1, 8), frame);
    s.run("swapadd mem 64; write 1 8 0+1 66; pageout *; expect counter anonpgout +1; read 1 8 0+1; expect ok b=42");
    s.end();
}

#[test]
fn a_file_that_is_cut_off_leaves_its_page_to_the_borrower() {
    let mut s = shown();
    let frame = s.file_frame(0, 0);
    s.run("truncate 0 0; expect ok");
    assert_eq!((orphans(&s), s.frame(1, 8)), (1, None));
    s.run("read 1 8 0+1; expect ok b=41; read 0 0 0+1; expect BUS at=0 code=objerr");
    assert_eq!((s.frame(1, 8), orphans(&s)), (frame, 0));
    s.end();

    let mut s = shown();
    s.run("truncate 0 100; read 1 8 2; expect SEGV; read 1 8 1; expect ok; exit 0; read 1 8 0+1; expect ok b=41");
    s.end();
}

/// A page of a file that somebody's anon shows stays in memory, and who would throw it out is told so.
#[test]
fn a_file_page_that_is_lent_is_not_thrown_out() {
    let mut s = Scene::new();
    s.run("file 0 8192 rw; map 0 0 2 rw shared fixed file 0 0; write 0 0 2 65; lendanon 0 0 2; fork 0 1");
    s.run("borrow 1 20 1; exit 0; map 1 0 2 rw shared fixed file 0 0");
    for does in ["sync 1 0 2 sync+inval", "advise 1 0 2 dontneed", "advise 1 0 2 drop"] {
        s.run(&format!("{does}; expect EBUSY; read 1 20 0+1; expect ok b=41"));
    }
    s.run("advise 1 0 2 discard; expect ok; read 1 0 0+1; expect ok b=41");
    // With a page of its own for the anon it may go.
    s.run("write 1 20 2 66; sync 1 0 2 sync+inval; expect ok; read 1 0 0+1; expect ok b=41; read 1 20 0+1; expect ok b=42");
    s.end();
}

#[test]
fn what_is_given_back_is_as_it_was() {
    let mut s = scene(FILE);
    s.run("read 0 0 0+1; write 0 1 0+1 65; map 0 4 1 rw priv fixed anon; write 0 4 0+1 70");
    let (live, promised, may) = (s.machine().swap().live(), reserved(&s), available(&s));
    s.run("lendanon 0 0 2; expect ok n=1; lendanon 0 4 1; expect ok n=2");
    assert_eq!((s.machine().swap().live(), reserved(&s)), (live + 2, promised + 3));
    s.run("lent 1; expect EINVAL; borrow 1 8 3; expect EINVAL; unlend 1; expect ok; unlend 2; expect ok; unlend 2; expect EINVAL");
    assert_eq!((s.machine().swap().live(), reserved(&s)), (live, promised));
    assert_eq!((available(&s), lent_pages(&s), slot(&s, 0, 4).1), (may, 0, 1));
    s.run("write 0 0 0+1 66; write 0 4 0+1 71; expect counter cow_fault +0");
    s.end();
}

/// One range over several segments: an anon, a page nobody has touched, a private file's page, copied and not.
#[test]
fn a_range_of_several_segments_is_lent_as_one() {
    let mut s = scene("file 0 8192; pwrite 0 0 8192 65; fork 0 1");
    s.run("map 0 0 2 rw priv fixed anon; map 0 2 2 rw priv fixed file 0 0; write 0 0 0+1 70; write 0 3 0+1 71");
    s.run("lendanon 0 0 4; expect ok n=1; write 0 0 4 90; pwrite 0 0 8192 91; borrow 1 8 1; expect ok");
    for (page, byte) in [(8, "46"), (9, "00"), (10, "41"), (11, "47")] {
        s.run(&format!("read 1 {page} 0+1; expect ok b={byte}"));
    }
    assert_eq!(crate::shape(&s, 1), (1, 4), "one mapping");
    s.run("write 1 8 4 1; unmap 1 9 2; map 1 9 2 rw priv fixed anon; remap 1 8 1 1 may+fixed 20; expect ok");
    s.end();
}

/// What is lent may be lent on: an anon gains a reference, whatever it shows.
#[test]
fn a_borrower_may_lend() {
    let mut s = shown();
    let (frame, anon) = (s.file_frame(0, 0).expect("in memory"), slot(&s, 1, 8));
    s.run("lendanon 1 8 1; expect ok n=2; borrow 0 12 2; expect ok; read 0 12 0+1; expect ok b=41");
    assert_eq!((slot(&s, 0, 12), loans(&s, frame)), ((anon.0, 2), 1));
    s.run("lendanon 0 0 1; expect ok n=3; borrow 0 13 3; read 0 13 0+1; expect ok b=41");
    assert_ne!(slot(&s, 0, 13).0, anon.0, "R4: the file's page is lent to another anon");
    assert_eq!(loans(&s, frame), 2);
    s.run("write 0 0 0+1 66; read 1 8 0+1; expect ok b=41");
    assert_eq!((s.frame(1, 8), loans(&s, frame)), (Some(frame), 1), "who looks first adopts");
    s.run("read 0 13 0+1; expect ok b=41; read 0 12 0+1; expect ok b=41; exit 1");
    assert_eq!((s.frame(0, 13), s.frame(0, 12)), (Some(frame), Some(frame)), "and lends it");
    s.run("write 0 12 0+1 67; expect counter cow_fault +1; read 0 13 0+1; expect ok b=41; write 0 13 0+1 68; expect counter cow_fault +0");
    s.end();
}

#[test]
fn what_may_not_be_lent_to_an_anon() {
    let mut s = scene("file 0 4096; map 0 0 2 rw priv fixed anon; write 0 0 2 65; lock 0 1 1");
    s.run("map 0 4 1 - priv fixed anon; fork 0 1; map 0 5 1 rw shared fixed file 0 0; lock 0 5 1");
    let (live, promised, rights) = (s.machine().swap().live(), reserved(&s), s.rights(0, 0));
    s.run("lendanon 0 0 2; expect EBUSY; lendanon 0 0+1 1; expect EINVAL; lendanon 0 2 1; expect ENOMEM");
    s.run("lendanon 0 4 1; expect EACCES; lendanon 0 5 1; expect EBUSY");
    assert_eq!((s.machine().swap().live(), reserved(&s), lent_pages(&s)), (live, promised, 0));
    assert_eq!(slot(&s, 0, 0).1, 2, "the child's and the parent's");
    assert_eq!(s.rights(0, 0), rights);
    s.run("lendanon 0 0 1; expect ok n=1; borrow 0 1 1; expect ENOMEM; borrow 0 8+1 1; expect EINVAL; borrow 0 8 1; expect ok");
    s.run("borrow 0 9 1; expect EINVAL; read 0 8 0+1; expect ok b=41");
    let other = Scene::new();
    let lent = LentAnons::lend(s.machine().vn(), s.machine().cx(), &space(&s, 0), range(0, 1));
    let lent = lent.expect("mapped and not locked");
    let (cx, there) = (other.machine().cx(), space(&other, 0));
    let (e, lent) = lent.enter(cx, &there, range(8, 1), Prot::RW).expect_err("another machine");
    assert!(matches!(e, AsError::Seg(SegError::Invalid { .. })), "{e}");
    let cx = s.machine().cx();
    let (e, lent) = lent.enter(cx, &space(&s, 0), range(9, 2), Prot::RW).expect_err("too long");
    assert!(matches!(e, AsError::Seg(SegError::Invalid { .. })), "{e}");
    lent.give_back(cx);
    s.run("verify");
    s.end();
}

#[test]
fn a_loan_is_promised_swap_before_anything_is_lent() {
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run("file 0 4096; pwrite 0 0 1 65; map 0 0 1 rw shared fixed file 0 0; write 0 0 0+1 65; map 0 1 1 rw priv fixed anon; write 0 1 0+1 65");
    s.run("map 0 0x7e0000000000 2 rw priv fixed anon");
    // Whatever can be promised is, but for one page.
    for (i, pages) in (0..9).rev().flat_map(|i| [1u64 << i; 2]).enumerate() {
        s.run(&format!(
            "map 0 {:#x} {pages} rw priv fixed anon",
            0x7f00_0000_0000u64 + ((i as u64) << 24)
        ));
    }
    s.run("unmap 0 0x7e0000000000 1");
    let (promised, refs) = (reserved(&s), slot(&s, 0, 1).1);
    s.run("lendanon 0 0 2; expect EAGAIN");
    assert_eq!((lent_pages(&s), reserved(&s), slot(&s, 0, 1).1), (0, promised, refs));
    assert_eq!((s.rights(0, 0).as_str(), s.rights(0, 1).as_str()), ("rw-", "rw-"));
    s.run("lendanon 0 1 1; expect ok n=1; borrow 0 8 1; expect EAGAIN; unmap 0 0x7e0000001000 1; borrow 0 8 1; expect ok");
    s.end();
}

/// The same under lazy forks, where the map that is lent from may be another side's as well.
#[test]
fn lending_from_a_map_that_is_shared_lazily() {
    let mut s = Scene::on("machine memory=512 fork=lazy");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 2 65; fork 0 1; lendanon 1 0 2; expect ok n=1; borrow 1 8 1; expect ok");
    assert_eq!(slot(&s, 0, 0).1, 2, "a slot of the shared map, and one of the loan's");
    s.run("write 0 0 0+1 66; write 1 1 0+1 67; write 1 8 0+1 68");
    s.run(
        "read 1 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=41; read 1 9 0+1; expect ok b=41",
    );
    s.end();
}

/// What a borrower sees does not change, whoever stores to the file or cuts it meanwhile, and whether or not it is lent on.
#[test]
fn what_is_borrowed_stands_still_beside_threads() {
    let mut s = Scene::on("machine memory=512 cpus=4");
    s.run("file 0 4096; pwrite 0 0 4096 65; fork 0 1; map 0 4 1 rw shared fixed file 0 0; read 0 4 0+1");
    let done = AtomicBool::new(false);
    let [changer, lender] = [1, 2].map(|cpu| s.process(0).another_thread(CpuId(cpu)));
    let borrower = s.process(1).another_thread(CpuId(3));
    let (file, mapped) = (s.file(0), crate::addr(4).get());
    std::thread::scope(|threads| {
        let (done, db) = (&done, s.machine().db());
        threads.spawn(move || {
            for i in (0..6_000u32).map(|i| i as u8) {
                changer.store(mapped, &[i; 200]).expect("mapped");
                file.pwrite(changer.cx(), db, 100, &[i]).expect("a file of memory");
                file.truncate(changer.cx(), db, 150).expect("a file of memory");
            }
            done.store(true, SeqCst);
        });
        threads.spawn(move || {
            let (mut turn, mut looks) = (0u64, 0u64);
            while !done.load(SeqCst) || looks == 0 {
                turn += 1;
                assert!(turn < 1_000_000, "nothing can be lent");
                let Ok(lent) = lender.lend_to_anons(mapped, PAGE_SIZE) else { continue };
                let (at, mut kept) = (crate::addr(8).get(), crate::addr(8).get());
                borrower.borrow(lent, at).map_err(|back| back.0).expect("room");
                let look = |at| {
                    let mut bytes = [0; 4096];
                    borrower.load(at, &mut bytes).expect("mapped");
                    bytes
                };
                let before = look(at);
                if turn.is_multiple_of(3) {
                    let again = borrower.lend_to_anons(at, PAGE_SIZE).expect("not locked");
                    kept = crate::addr(9).get();
                    borrower.borrow(again, kept).map_err(|back| back.0).expect("room");
                }
                if turn.is_multiple_of(2) {
                    borrower.store(at, &[before[0]]).expect("mapped");
                }
                for _ in 0..4 {
                    assert!(look(at) == before && look(kept) == before, "it changed");
                    std::thread::yield_now();
                }
                borrower.munmap(at, 2 * PAGE_SIZE).expect("whole pages");
                looks += 1;
            }
        });
    });
    s.run("verify");
    s.end();
}
