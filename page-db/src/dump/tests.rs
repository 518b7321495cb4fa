//! The tables as people see them.

use super::{FreeLists, HashStat, MemStat, PageRow, PageTable, VmStat, VnodeList};
use crate::db::{Claim, PageDbConfig, Reserve};
use crate::testing::{TestFile, World, hashes, name};
use crate::{Counter, VnodeKind};
use alloc::string::ToString;
use alloc::sync::Arc;

/// Three pages of a file (one cached, one claimed and read), two anonymous ones (one exclusive, in transit), one page table.
fn world(colours: u32) -> (World, Arc<TestFile>) {
    let w = World::with(1024, &PageDbConfig { colours, ..PageDbConfig::default() });
    let f = TestFile::new(&w);
    let (swap, exec) = (w.vnode(VnodeKind::Swap), w.vnode(VnodeKind::Exec));
    for i in [2, 0, 1] {
        w.make(f.page(i));
    }
    w.free(f.page(2), false);
    let page = w.db.lookup_shared(&w.cx, f.page(1)).expect("there");
    w.db.claim(&page, Claim::Lck).expect("memory to spare");
    w.db.claim(&page, Claim::Cow).expect("memory to spare");
    _ = page.leak();
    w.make(name(swap, 0x123));
    _ = w.db.create(&w.cx, name(swap, 7), 0, Reserve::Normal).expect("a frame").leak();
    w.make(name(exec, 0));
    let table = w.db.alloc(&w.cx, 0, Reserve::Normal).expect("a frame");
    w.db.set_kernel(&table, true);
    drop(table);
    w.hat.map(&w.cx, w.db.exists(&w.cx, f.page(0)).expect("there"), 3);
    (w, f)
}

#[test]
fn page_prints_mdbs_columns_by_name() {
    let (w, _f) = world(1);
    let table = PageTable::named(&w.cx, &w.db).to_string();
    assert_eq!(
        table,
        "  PAGE VNODE     OFFSET SELOCK LCT COW IO FS ST    PFN
     2     1          0      -   0   0  0  0  0     11
     3     1       1000     S1   1   1  0  0  0     12
     1     1       2000      -   0   0  0  0 80     10
     5     2       7000      X   0   0  1  0 10     14
     4     2     123000      -   0   0  0  0 10     13
     6     3          0      -   0   0  0  0  0     15
"
    );
    let of_file = PageTable::of_vnode(&w.cx, &w.db, crate::VnodeId(1));
    let order: alloc::vec::Vec<_> = of_file.rows.iter().map(|r| r.page.link()).collect();
    assert_eq!(order, [3, 2, 1], "the vnode's list has the newest first");
    let nameless = w.db.page_of(crate::Pfn(0x16)).expect("managed");
    let row = PageTable::of(&w.cx, &w.db, [nameless]).to_string();
    assert!(row.ends_with("     7     -          -      -   0   0  0  0  8     16\n"), "{row}");
}

#[test]
fn one_page_prints_its_facts_named() {
    let (w, f) = world(1);
    let id = w.db.exists(&w.cx, f.page(0)).expect("there");
    w.db.page(id).set_ref_mod(crate::RefMod::MOD);
    assert_eq!(
        PageRow::of(&w.cx, &w.db, id).to_string(),
        "page pfn=0x11 vp=1 off=0x0 lock=- iolock=0 lck=0 cow=0 state=0x0 nrm=-m share=3"
    );
}

#[test]
fn memstat_counts_each_frame_once() {
    let (w, _f) = world(1);
    let m = MemStat::of(&w.cx, &w.db);
    assert_eq!(
        m.to_string(),
        "Page Summary                Pages                MB  %Tot
------------     ----------------  ----------------  ----
Kernel                          1                 0    0%
Anon                            2                 0    0%
Exec and libs                   1                 0    0%
Page cache                      2                 0    0%
Free (cachelist)                1                 0    0%
Free (freelist)              1017                 3   99%

Total                        1024                 4
Physical                     1024                 4
"
    );
    let rows = m.rows();
    let sum: u64 = rows[..6].iter().map(|r| r.pages.0).sum();
    assert_eq!(sum, rows[6].pages.0);
    assert_eq!(m.cachelist.0 + m.freelist.0, w.db.freemem());
}

#[test]
fn vnodes_print_with_their_pages_counted() {
    let (w, _f) = world(1);
    assert_eq!(
        VnodeList::of(&w.cx, &w.db).to_string(),
        "VNODE KIND     PAGES  CACHED       SIZE NAME
    1 file         3       1   40000000 test file
    2 swap         2       0          0 -
    3 exec         1       0          0 -
"
    );
}

#[test]
fn hash_prints_chains_by_length() {
    for hash in hashes() {
        let w = World::with(64, &PageDbConfig { hash, ..PageDbConfig::default() });
        let v = w.vnode(VnodeKind::File);
        for i in 0..3 {
            w.make(name(v, i));
        }
        let s = HashStat::of(&w.cx, &w.db);
        assert_eq!(s.pages, 3);
        if hash == crate::HashKind::Chain {
            w.make(name(v, 64)); // the same bucket as 0
            let s = HashStat::of(&w.cx, &w.db);
            assert_eq!(
                s.to_string(),
                "page_hash chain: 4 pages in 64 chains
LENGTH    CHAINS
     0        61
     1         2
     2         1
"
            );
        }
    }
}

#[test]
fn free_lists_print_by_colour() {
    let (w, _f) = world(4);
    let before = FreeLists::of(&w.cx, &w.db);
    assert_eq!(before.freemem, 1018);
    let listed: u64 = before.colours.iter().map(|c| c.free + c.cached).sum();
    assert_eq!(listed + before.magazines[0], 1018);
    w.db.drain_magazines(&w.cx);
    assert_eq!(
        FreeLists::of(&w.cx, &w.db).to_string(),
        "  BIN      FREE    CACHED
    0       254         1
    1       254         0
    2       254         0
    3       255         0
freemem 1018
"
    );
}

#[test]
fn vmstat_prints_counters_by_kstat_name() {
    let (w, _f) = world(1);
    let s = w.db.counters().snapshot();
    let chosen = VmStat::chosen(&s, ["pgrec", "scan"]).expect("both are counted");
    assert_eq!(chosen.to_string(), "pgrec 0\nscan  0\n");
    assert_eq!(VmStat::chosen(&s, ["scan", "nonsense"]), Err("nonsense"));
    assert_eq!(VmStat::all(&s).rows.len(), Counter::ALL.len());
    let counted = VmStat::counted(&s).to_string();
    assert_eq!(counted, "frame_allocs 7\nframe_frees  1\n");
}
