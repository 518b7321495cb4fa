//! No number of a list is missing, and none is there twice.
//!
//! What is still to come stands beside its list: a test that is added must leave it, and none can get lost.

use std::collections::BTreeMap;
use std::process::Command;

/// A list: where its tests are, the letter of their numbers, the numbers, and those that have no test yet.
struct List {
    module: &'static str,
    letter: char,
    numbers: &'static [u32],
    to_come: &'static [u32],
}

const fn list(
    module: &'static str,
    letter: char,
    numbers: &'static [u32],
    to_come: &'static [u32],
) -> List {
    List { module, letter, numbers, to_come }
}

/// 1, 2, ... N.
const fn up_to<const N: usize>() -> [u32; N] {
    let mut all = [0; N];
    let mut i = 0;
    while i < N {
        all[i] = i as u32 + 1;
        i += 1;
    }
    all
}

const LISTS: &[List] = &[
    list("illumos", 'b', &up_to::<61>(), &[]),
    list("uvm", 'u', &up_to::<40>(), &[]),
    list("uvm::lazy", 'u', &[3, 4, 5, 7, 8, 9, 11, 28], &[]),
    list(
        "cases_a",
        'a',
        &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29, 31, 32, 34, 35],
        &[],
    ),
    list("cases_b", 'b', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23], &[]),
    list(
        "cases_c",
        'c',
        &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29, 31, 32, 34, 35],
        &[],
    ),
    list("cases_d", 'd', &[1, 2, 4, 5, 7, 8], &[]),
    list(
        "cases_e",
        'e',
        &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29],
        &[],
    ),
    list(
        "cases_f",
        'f',
        &[
            1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17, 19, 20, 22, 23, 25, 26, 28, 29, 31, 32, 34,
            35, 37, 38, 40, 41, 43, 44,
        ],
        &[],
    ),
    list("cases_g", 'g', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16], &[]),
    list("cases_h", 'h', &[1, 2, 4, 5, 7, 8, 10, 11, 13], &[]),
    list("cases_i", 'i', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17], &[]),
    list("cases_j", 'j', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14], &[]),
    list("cases_k", 'k', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16, 17], &[]),
    list("cases_l", 'l', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14, 16], &[]),
    list("cases_m", 'm', &[1, 2, 4, 5, 7, 8, 10, 11, 13, 14], &[]),
    list("invariants", 'v', &up_to::<30>(), &[]),
];

/// The tests of this binary, as it lists them itself.
pub(crate) fn tests() -> Vec<String> {
    let own = std::env::current_exe().expect("a path");
    let out = Command::new(own).args(["--list", "--format", "terse"]).output().expect("it runs");
    let text = String::from_utf8(out.stdout).expect("names");
    text.lines().filter_map(|l| l.strip_suffix(": test")).map(str::to_owned).collect()
}

/// The number a test's name begins with.
fn number(name: &str, letter: char) -> Option<u32> {
    let (number, _) = name.strip_prefix(letter)?.split_once('_')?;
    number.parse().ok().filter(|_| number.len() == 2)
}

#[test]
fn every_number_has_its_test() {
    let mut found: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for test in tests() {
        let Some((module, name)) = test.rsplit_once("::") else { continue };
        // The longest prefix: `uvm::lazy` before `uvm`.
        let lists = LISTS.iter().enumerate().filter(|(_, l)| module.starts_with(l.module));
        let Some((i, list)) = lists.max_by_key(|(_, l)| l.module.len()) else { continue };
        found.entry(i).or_default().extend(number(name, list.letter));
    }
    for (i, list) in LISTS.iter().enumerate() {
        let mut numbers = found.remove(&i).unwrap_or_default();
        numbers.extend(list.to_come);
        numbers.sort_unstable();
        assert_eq!(numbers, list.numbers, "the numbers of {}", list.module);
    }
}
