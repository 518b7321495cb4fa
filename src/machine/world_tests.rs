//! Traces with known results, on a machine.

use super::*;
use crate::script::outcome::compare_results;
use crate::script::{Operation, ResultText, RunOptions, Runner, explanation, parse};

/// The result of a script on a machine with every invariant checked as often as asked.
fn result_of(script: &str, settings: &str, verify_each: bool) -> String {
    // Settings stand behind the header.
    let (header, rest) = script.split_once('\n').expect("a header line");
    let script = parse(&format!("{header}\n{settings}{rest}")).expect("a well-formed script");
    let world = MachineWorld::new(&script.machine()).expect("a machine");
    let options = RunOptions { verify_each, keep_going: true, ..RunOptions::default() };
    let mut runner = Runner::new(world, options);
    let mut text = String::new();
    let report = runner.run(&script, &mut ResultText(&mut text)).expect("a result");
    if let Some(failure) = report.failures.first() {
        panic!("{failure}\n{text}");
    }
    runner.world_mut().verify().expect("sound at the end");
    assert!(runner.world().machine().cx().held().is_empty(), "I15");
    text
}

fn check(name: &str, script: &str, expected: &str, settings: &str, verify_each: bool) {
    let got = result_of(script, settings, verify_each);
    let parsed = parse(script).expect("a well-formed script");
    let operations: Vec<&Operation> = parsed.operations().collect();
    let mut differences = compare_results(expected, &got);
    differences.retain(|(theirs, ours)| !is_explained(&operations, ours, theirs));
    let shown: Vec<_> = differences.iter().take(10).collect();
    assert!(
        differences.is_empty(),
        "{name} ({settings}): {} differ: {shown:#?}",
        differences.len()
    );
}

/// Says whether two lines with the answers to one operation differ for a reason of the table.
fn is_explained(operations: &[&Operation], ours: &str, theirs: &str) -> bool {
    let (Some((number, ours)), Some((same, theirs))) =
        (ours.split_once(' '), theirs.split_once(' '))
    else {
        return false;
    };
    let Ok(number) = number.parse::<usize>() else { return false };
    let numbered = operations.iter().enumerate().filter(|(_, o)| o.is_traced());
    let Some(at) = numbered.map(|(at, _)| at).nth(number.wrapping_sub(1)) else { return false };
    same.parse() == Ok(number)
        && explanation(operations[..at].iter().copied(), operations[at], ours, theirs)
            .is_some_and(|row| !row.departs)
}

macro_rules! traces {
    ($($test:ident = $name:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            let script = include_str!(concat!("../../tests/traces/", $name, ".vmt"));
            let expected = include_str!(concat!("../../tests/traces/", $name, ".res"));
            check($name, script, expected, "", true);
            check($name, script, expected, "machine memory=192 cpus=2 swap=mem:40000\n", false);
        })+
    };
}

traces! {
    the_map_trace = "map",
    the_cow_trace = "cow",
    the_file_trace = "file",
    the_prot_trace = "prot",
    the_sync_trace = "sync",
    the_err_trace = "err",
    the_mix_trace = "mix",
    the_cow_trace_as_illumos = "cow-illumos",
    the_file_trace_as_illumos = "file-illumos",
    the_mix_trace_as_illumos = "mix-illumos",
    the_sync_trace_as_illumos = "sync-illumos",
    locked_pages_that_were_cut_off_and_are_copied = "cut-lock-illumos",
    a_lock_of_what_was_cut_off_claims_no_other_page = "cut-claim",
    a_transfer_that_moves_nothing_copies_no_page = "frames-illumos",
    untouched_pages_are_not_locked_where_nothing_is_reserved = "lock-untouched-illumos",
}

/// For each row of the table of explained differences: a script whose last operation the machine answers as the row says, and what a judge says instead.
const MET: [(&str, &str, &str); 11] = [
    ("map 0 0 2 rw shared fixed anon; fork 0 1; lock 1 0 1; advise 0 0 2 dontneed", "EBUSY", "ok"),
    ("map 0 0 2 rw priv fixed anon; lock 0 0 3; advise 0 0 2 dontneed", "ok", "EBUSY"),
    ("map 0 0 2 rw priv fixed anon noreserve; lock 0 0 2; sync 0 0 2 sync+inval", "ok", "EBUSY"),
    (
        "file 0 8192; map 0 0 2 rw shared fixed file 0 0; lock 0 0 2; truncate 0 4096; sync 0 1 1 sync+inval",
        "ok",
        "EBUSY",
    ),
    ("map 0 0 2 rw priv fixed anon; lock 0 0 @wrap", "ENOMEM", "EINVAL"),
    ("file 0 4096; map 0 0 2 r shared fixed file 0 0; advise 0 0 2 willneed", "EFAULT", "ok"),
    ("map 0 0 2 rw priv fixed anon; incore 0 0 @max", "EINVAL", "ENOMEM"),
    ("map 0 0 2 rw priv fixed anon; protect 0 0 2 bad", "ENOTSUP", "EINVAL"),
    ("map 0 0 2 bad priv fixed anon", "ENOTSUP", "ok"),
    ("file 0 4096; map 0 0 1 bad priv hint file 0 0", "EACCES", "ok"),
    (
        "file 0 4096 wo; map 0 0 1 rw priv fixed anon; map 0 0 1 rw priv noreplace file 0 0",
        "EACCES",
        "EEXIST",
    ),
];

#[test]
fn the_machine_answers_as_each_row_of_the_table_says() {
    let mut met = std::collections::BTreeSet::new();
    for (script, ours, theirs) in MET {
        let parsed = parse(script).expect("parses");
        let world = MachineWorld::new(&parsed.machine()).expect("a machine");
        let mut runner = Runner::new(world, RunOptions::default());
        let mut last = None;
        for statement in &parsed.statements {
            last = runner.step(statement, &mut crate::script::Silent).expect("a result");
        }
        assert_eq!(last.map(|o| o.to_string()).as_deref(), Some(ours), "{script}");
        let operations: Vec<&Operation> = parsed.operations().collect();
        let (operation, past) = operations.split_last().expect("an operation");
        let row = explanation(past.iter().copied(), operation, ours, theirs);
        met.insert(row.unwrap_or_else(|| panic!("no row explains {script}")).reason);
    }
    let all = crate::script::EXPLAINED.iter().map(|row| row.reason);
    assert_eq!(met, all.collect(), "a row that no script meets");
}
