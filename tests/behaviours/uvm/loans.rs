//! 37: pages lent to the kernel; those lent to anons are in [`super::borrowed`]. (The cases E14 and E23 are in `cases_e`.)

use crate::{Scene, available, page, range, scene, space};
use addr_space::{AsError, LentPages, SegError};
use page_db::{Access, CpuId, Identity, PAGE_SIZE, Prot};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Lends pages of a process.
#[track_caller]
pub(crate) fn lend(s: &mut Scene, proc: u32, first: u64, pages: u64) -> LentPages {
    let lent = space(s, proc).lend_pages(s.machine().cx(), range(first, pages));
    s.run("verify");
    lent.unwrap_or_else(|e| panic!("{e}"))
}
/// The first byte of each lent page, as the kernel reads it.
pub(crate) fn seen(lent: &LentPages) -> Vec<u8> {
    let byte = |i: usize| {
        let mut byte = [0];
        assert_eq!(lent.read(i as u64 * page_db::PAGE_SIZE, &mut byte), 1);
        byte[0]
    };
    (0..lent.pages().len()).map(byte).collect()
}
#[track_caller]
pub(crate) fn give_back(s: &mut Scene, lent: LentPages) {
    lent.give_back(s.machine().cx());
    s.run("verify");
}
fn name(s: &Scene, proc: u32, at: u64) -> Option<Identity> {
    page(s, proc, at).identity()
}
fn resident(s: &Scene, id: Identity) -> bool {
    let db = s.machine().db();
    db.exists(s.machine().cx(), id).is_some_and(|p| !db.page(p).is_free())
}
pub(crate) fn orphans(s: &Scene) -> u64 {
    let db = s.machine().db();
    db.pages().ids().filter(|p| db.page(*p).is_orphan()).count() as u64
}

/// Private memory of one page that process 0 has stored 65 to.
pub(crate) const ONE: &str = "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65";

#[test]
fn u37_a_store_leaves_the_lent_page_to_the_kernel() {
    let mut s = scene(ONE);
    let (free, may) = (s.machine().db().freemem(), available(&s));
    let (anon, old, called) = (s.anon(0, 0), s.frame(0, 0), name(&s, 0, 0));
    let lent = lend(&mut s, 0, 0, 1);
    assert_eq!((s.frame(0, 0), available(&s)), (old, may - 1), "in place, and charged");
    s.run("read 0 0 0+1; expect ok b=41");
    s.run("write 0 0 0+1 66; expect counter cow_fault +1; read 0 0 0+1; expect ok b=42");
    assert_ne!(s.frame(0, 0), old);
    assert_eq!((s.anon(0, 0).map(|a| a.number), name(&s, 0, 0)), (anon.map(|a| a.number), called));
    assert_eq!((seen(&lent), orphans(&s)), (vec![65], 1));
    s.run("write 0 0 0+1 67; expect counter cow_fault +0");
    give_back(&mut s, lent);
    assert_eq!((orphans(&s), s.machine().db().freemem(), available(&s)), (0, free, may));
    s.end();
}

#[test]
fn the_owner_ends_and_the_page_does_not() {
    let mut s = scene(
        "map 0 8 1 rw priv fixed anon; fork 0 1; map 1 0 2 rw priv fixed anon; write 1 0 8192 65",
    );
    let lent = lend(&mut s, 1, 0, 2);
    let again = lend(&mut s, 1, 1, 1);
    s.run("exit 1");
    assert_eq!((seen(&lent), orphans(&s)), (vec![65, 65], 2));
    give_back(&mut s, lent);
    assert_eq!((seen(&again), orphans(&s)), (vec![65], 1), "two loans, one is left");
    give_back(&mut s, again);
    assert_eq!(orphans(&s), 0);
    s.end();
}

#[test]
fn what_may_not_be_lent() {
    let mut s = scene(
        "map 0 0 2 rw priv fixed anon; write 0 0 8192 65; lock 0 1 1; map 0 4 1 - priv fixed anon",
    );
    let may = available(&s);
    let refused = |s: &Scene, first, pages| {
        space(s, 0).lend_pages(s.machine().cx(), range(first, pages)).expect_err("refused")
    };
    let locked = crate::addr(1);
    assert_eq!(refused(&s, 0, 2), AsError::Seg(SegError::Locked { addr: locked }));
    assert_eq!(refused(&s, 1, 2), AsError::Seg(SegError::Locked { addr: locked }));
    s.run("unlock 0 1 1");
    assert_eq!(refused(&s, 0, 3), AsError::Unmapped { addr: crate::addr(2) });
    assert_eq!(refused(&s, 4, 1), AsError::Seg(SegError::Access { range: range(4, 1) }));
    let cx = s.machine().cx();
    let pinned = space(&s, 0).lock_pages(cx, range(0, 1), Access::Write).expect("resident");
    assert_eq!(refused(&s, 0, 1), AsError::Seg(SegError::Pinned { range: range(0, 1) }));
    space(&s, 0).unlock_pages(cx, pinned).expect("pinned here");
    assert_eq!((s.machine().db().lent_pages(), available(&s)), (0, may + 1), "nothing was lent");
    s.run("verify");
    s.end();
}

#[test]
fn absent_pages_are_made_or_read_for_it() {
    let mut s = scene(
        "map 0 0 2 rw priv fixed anon; write 0 1 0+1 65; pageout *; file 0 4096; pwrite 0 0 1 70",
    );
    s.run("map 0 4 1 r priv fixed file 0 0");
    let (zeros, file) = (lend(&mut s, 0, 0, 2), lend(&mut s, 0, 4, 1));
    assert_eq!((seen(&zeros), seen(&file)), (vec![0, 65], vec![70]));
    give_back(&mut s, zeros);
    give_back(&mut s, file);
    s.end();
}

#[test]
fn a_lent_page_stays_in_memory() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; write 0 0 8192 65");
    let names = [0, 1].map(|at| name(&s, 0, at).expect("resident"));
    let lent = lend(&mut s, 0, 0, 1);
    s.run("pageout *");
    assert!(resident(&s, names[0]), "lent");
    assert!(!resident(&s, names[1]), "pushed");
    s.run("advise 0 0 2 dontneed; read 0 0 0+1; expect ok b=41");
    give_back(&mut s, lent);
    s.run("pageout *");
    assert!(!resident(&s, names[0]), "as any other");
    s.end();
}

#[test]
fn a_lock_taken_on_a_lent_page_goes_with_the_name() {
    let mut s = scene(ONE);
    let lent = lend(&mut s, 0, 0, 1);
    s.run("lock 0 0 1; expect ok; write 0 0 0+1 66; expect counter cow_fault +1");
    assert_eq!((page(&s, 0, 0).cowcnt(), seen(&lent)), (1, vec![65]));
    give_back(&mut s, lent);
    s.run("unlock 0 0 1; expect ok");
    s.end();
}

#[test]
fn pages_pinned_for_io_are_the_owners_alone() {
    let mut s = scene(ONE);
    let lent = lend(&mut s, 0, 0, 1);
    let cx = s.machine().cx();
    let pinned = space(&s, 0).lock_pages(cx, range(0, 1), Access::Write).expect("resident");
    s.run("write 0 0 0+1 66; expect counter cow_fault +0");
    assert_eq!(seen(&lent), [65], "the loan was broken by the pin");
    space(&s, 0).unlock_pages(s.machine().cx(), pinned).expect("pinned here");
    give_back(&mut s, lent);
    s.end();
}

/// As a script says it.
#[test]
fn a_script_lends_reads_and_has_back() {
    let mut s = scene(ONE);
    s.run("lend 0 0 1; expect ok n=1; write 0 0 0+1 66; lent 1; expect ok b=41; lend 0 0 1; expect ok n=2");
    s.run("lent 2; expect ok b=42; unlend 1; expect ok; unlend 1; expect EINVAL; lent 1; expect EINVAL");
    s.run("lend 0 0+1 1; expect EINVAL; lend 0 1 1; expect ENOMEM; lent 0; expect EINVAL; unlend 9; expect EINVAL");
    s.run("lock 0 0 1; unlend 2; lend 0 0 1; expect EBUSY; unlock 0 0 1");
    s.end();
}

/// What is lent does not change while it is, whatever another thread does to the bytes: rights given to shared memory, stores, a file's end that moves.
#[test]
fn what_is_lent_stands_still_beside_threads() {
    let mut s = Scene::on("machine memory=512 cpus=4");
    s.run("map 0 0 1 rw shared fixed anon; write 0 0 0+1 65");
    s.run("file 0 4096; pwrite 0 0 4096 65; map 0 4 1 rw shared fixed file 0 0; read 0 4 0+1");
    let done = AtomicBool::new(false);
    let [changer, borrower, storer] = [1, 2, 3].map(|cpu| s.process(0).another_thread(CpuId(cpu)));
    let file = s.file(0);
    let (memory, mapped) = (crate::addr(0).get(), crate::addr(4).get());
    std::thread::scope(|threads| {
        let (done, db) = (&done, s.machine().db());
        threads.spawn(move || {
            for i in (0..20_000u32).map(|i| i as u8) {
                let rights = |r: Prot| changer.mprotect(memory, PAGE_SIZE, u32::from(r.bits()) & 7);
                rights(Prot::READ).expect("mapped");
                rights(Prot::RW).expect("mapped");
                changer.store(memory, &[i; 200]).expect("mapped");
                changer.store(mapped, &[i; 200]).expect("mapped");
                file.truncate(changer.cx(), db, 100).expect("a file of memory");
                file.pwrite(changer.cx(), db, 3000, &[i]).expect("a file of memory");
            }
            done.store(true, SeqCst);
        });
        threads.spawn(move || {
            let mut byte = 0u8;
            while !done.load(SeqCst) {
                byte = byte.wrapping_add(1);
                let _ = storer.store(memory, &[byte]); // refused while there is no right to
            }
        });
        threads.spawn(move || {
            let (mut tries, mut looks) = (0u64, 0u64);
            while !done.load(SeqCst) || looks == 0 {
                for at in [0, 4] {
                    tries += 1;
                    assert!(tries < 1_000_000, "nothing can be lent");
                    let Ok(lent) = borrower.space().lend_pages(borrower.cx(), range(at, 1)) else {
                        continue; // somebody holds it for a moment
                    };
                    let look = || {
                        let mut bytes = [0; 4096];
                        assert_eq!(lent.read(0, &mut bytes), bytes.len());
                        bytes
                    };
                    let before = look();
                    for _ in 0..4 {
                        assert!(look() == before, "page {at} changed while it was lent");
                        std::thread::yield_now();
                    }
                    lent.give_back(borrower.cx());
                    looks += 1;
                }
            }
        });
    });
    s.run("verify");
    s.end();
}

/// A loan to the kernel makes no anon, and no anon has one more owner; loans to anons are in [`super::borrowed`].
#[test]
fn what_the_kernel_borrows_has_no_anon() {
    let mut s = scene(ONE);
    s.run("file 0 4096; map 0 4 1 r priv fixed file 0 0; read 0 4 0+1; expect ok");
    let (live, refs) = (s.machine().swap().live(), s.anon(0, 0).map(|a| a.refs));
    let lent = [lend(&mut s, 0, 0, 1), lend(&mut s, 0, 4, 1)];
    assert_eq!((s.machine().swap().live(), s.anon(0, 0).map(|a| a.refs)), (live, refs));
    assert!(s.anon(0, 4).is_none(), "the file's page is lent as the file's");
    lent.into_iter().for_each(|lent| give_back(&mut s, lent));
    s.end();
}
