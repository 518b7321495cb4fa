//! Which clauses no flaw breaks: what nobody has seen fail may be unable to.

use crate::{hash, hat, memory, mmu, seg, swap, vnode};
use std::path::{Path, PathBuf};

/// A suite: whose, where its clauses are written, and how those begin that a flaw breaks.
type Suite = (&'static str, &'static [&'static str], Vec<&'static str>);

fn suites() -> Vec<Suite> {
    let of_all = vec![crate::HOLDS, crate::FALLS];
    let hat_x86: &[_] = &["hat-x86/src/contract.rs", "hat-x86/src/contract"];
    vec![
        ("all", &["page-db/src/contract/mod.rs"], of_all),
        ("PageHash", &["page-db/src/contract/hash.rs"], hash::clauses()),
        ("PhysMem", &["page-db/src/contract/phys_mem.rs"], memory::clauses()),
        (
            "Vnode",
            &["page-db/src/contract/vnode.rs", "page-db/src/contract/vnode"],
            vnode::clauses(),
        ),
        ("Hat", &["as/src/contract/hat.rs", "as/src/contract/hat"], hat::clauses()),
        ("SegOps", &["as/src/contract/seg"], seg::flaws::clauses()),
        ("SwapDevice", &["swapfs/src/contract.rs"], swap::clauses()),
        ("Mmu", hat_x86, mmu::clauses()),
    ]
}

fn sources(places: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |place: PathBuf| -> Vec<PathBuf> {
        match std::fs::read_dir(&place) {
            Ok(folder) => folder.map(|entry| entry.expect("a file").path()).collect(),
            Err(_) => vec![place],
        }
    };
    let mut all: Vec<_> = places.iter().flat_map(|place| files(root.join(place))).collect();
    all.sort();
    all.into_iter().map(|file| std::fs::read_to_string(file).expect("source text")).collect()
}

/// The clauses of a source text, which are its constants of text.
fn clauses(source: &str) -> impl Iterator<Item = &str> {
    source.split(": &str =").skip(1).filter_map(move |rest| {
        let rest = rest.trim_start().strip_prefix('"')?;
        rest.split_once("\";").map(|(clause, _)| clause)
    })
}

#[test]
fn every_clause_but_these_is_broken_by_a_flaw() {
    let mut gaps = Vec::new();
    for (suite, places, broken) in suites() {
        let sources = sources(places);
        let all: Vec<&str> = sources.iter().flat_map(|source| clauses(source)).collect();
        assert!(suite == "all" || all.len() > 12, "{suite} has clauses: {all:?}");
        for begins in broken.iter().filter(|begins| suite == "all" || !is_of_all(begins)) {
            let meant = all.iter().filter(|clause| clause.starts_with(begins)).count();
            assert_eq!(meant, 1, "clauses of {suite} that begin with {begins:?}");
        }
        let open = |clause: &&&str| !broken.iter().any(|begins| clause.starts_with(begins));
        gaps.extend(all.iter().filter(open).map(|clause| format!("{suite}: {clause}")));
    }
    gaps.sort();
    assert_eq!(gaps, GAPS);
}

fn is_of_all(begins: &str) -> bool {
    [crate::HOLDS, crate::FALLS].contains(&begins)
}

/// A clause that is written where it is judged would be none of the list.
#[test]
fn clauses_are_constants() {
    for (suite, places, _) in suites() {
        for source in sources(places) {
            let calls = ["require", "same", "breach"].iter().flat_map(|call| {
                let spaced = source.split(call).skip(1).filter_map(|rest| rest.strip_prefix('('));
                spaced.map(|rest| rest.trim_start().starts_with('"'))
            });
            assert!(
                !calls.into_iter().any(|literal| literal),
                "{suite} judges by a clause without a name"
            );
        }
    }
}

/// Those that no flaw breaks: what a case must have, where no case can be made that has it not.
const GAPS: &[&str] = &["PageHash: the host has memory for some hundred page structures"];
