//! Traces with known results, on a machine.

use super::*;
use crate::script::outcome::compare_results;
use crate::script::{ResultText, RunOptions, Runner, parse};

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

/// Whether a result line says that pages could not be dropped because they are locked in memory. The machine knows the locks of every
/// process on a page, the model that made the expected results those of the calling process only.
fn is_refused_for_others(script: &str, line: &str) -> bool {
    let Some((number, "EBUSY")) = line.split_once(' ') else { return false };
    let Ok(number) = number.parse::<usize>() else { return false };
    let parsed = parse(script).expect("a well-formed script");
    let op = parsed.operations().filter(|o| o.is_traced()).nth(number - 1).map(|o| o.to_string());
    op.is_some_and(|op| op.ends_with("dontneed") || op.ends_with("+inval"))
}

fn check(name: &str, script: &str, expected: &str, settings: &str, verify_each: bool) {
    let got = result_of(script, settings, verify_each);
    let mut differences = compare_results(expected, &got);
    differences.retain(|(_, ours)| !is_refused_for_others(script, ours));
    let shown: Vec<_> = differences.iter().take(10).collect();
    assert!(
        differences.is_empty(),
        "{name} ({settings}): {} differ: {shown:#?}",
        differences.len()
    );
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
}
