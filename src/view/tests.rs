//! Every view, on a machine with something to show; and the whole of docs/script.md, run.

use crate::machine::MachineWorld;
use crate::script::{PlainText, RunOptions, Runner, parse};

fn output(script: &str) -> String {
    let parsed = parse(script).unwrap_or_else(|e| panic!("{e}\n{script}"));
    let world = MachineWorld::new(&parsed.machine()).expect("a machine");
    let options = RunOptions { verify_each: true, ..RunOptions::default() };
    let mut text = String::new();
    let done = Runner::new(world, options).run(&parsed, &mut PlainText(&mut text));
    done.unwrap_or_else(|e| panic!("{e}\n{text}"));
    text
}

const SCENE: &str = "
    file 0 8192 rw
    map 0 0 4 rw priv fixed anon
    map 0 6 2 rw priv fixed file 0 0
    write 0 1 1 65
    write 0 6 1 66
    brk 0 2
    write 0 b:0 1 1
    fork 0 1
";

const VIEWS: &[&str] = &[
    "::pmap 0",
    "::pmap -x 0",
    "::pmap kas",
    "::seg 0",
    "::seg kas",
    "::segtree 0",
    "::segtree kas",
    "::anon 0",
    "::anon 0 1",
    "::anon 0 30",
    "::page",
    "::page 0",
    "::page pfn 0x108",
    "::memstat",
    "::vnode 0",
    "::hash",
    "::vatopfn 0 1",
    "::vatopfn 0 @kern",
    "::htable 0",
    "::swapinfo",
    "::vmstat",
    "::vmstat cow_fault zfod",
    "::walk 0 1",
    "::walk 0 0",
    "::walk 0 7",
    "::walk 0 30",
    "::walk 0 @kern",
];

#[test]
fn every_view_has_text_and_json() {
    for view in VIEWS {
        let text = output(&format!("{SCENE}{view}\n"));
        assert!(!text.trim().is_empty(), "{view}");
        let json = output(&format!("{SCENE}{view} --json\n"));
        let last = json.lines().last().unwrap_or_default();
        let value: serde_json::Value =
            serde_json::from_str(last).unwrap_or_else(|e| panic!("{view}: {e}: {last}"));
        assert!(!value.is_null(), "{view}");
    }
}

#[test]
fn views_are_the_same_every_time() {
    let all = format!("{SCENE}{}\n", VIEWS.join("\n"));
    let first = output(&all);
    assert_eq!(first, output(&all));
    assert!(!first.contains("0x7f") || !first.contains("Arc"), "no host address shows");
}

#[test]
fn a_process_names_its_heap_and_stack() {
    let text = output(&format!("{SCENE}grow 0 0x7fffefffe000\n::pmap 0\n"));
    assert!(text.contains("8K rw--- [ heap ]") && text.contains("8K rw--- [ stack ]"), "{text}");
    assert!(text.contains("16K rw--- [ anon ]") && text.contains("8K rw--- file0"), "{text}");
}

#[test]
fn the_walk_ends_where_there_is_nothing_further_down() {
    let text = output(&format!(
        "{SCENE}::walk 0 1\n::walk 0 7\n::walk 0 30\nmap 0 20 1 rw priv fixed anon\n::walk 0 20\n"
    ));
    let walks: Vec<Vec<&str>> = text
        .split("proc_t")
        .skip(1)
        .map(|w| w.lines().skip(1).filter_map(|l| l.split_whitespace().nth(1)).collect())
        .collect();
    let whole = [
        "a_segtree",
        "segvn_data",
        "anon_map",
        "anon_hdr",
        "anon",
        "page_hash",
        "page_t",
        "p_mapping",
    ];
    assert!(walks[0].starts_with(&whole), "{text}");
    assert!(
        walks[1].starts_with(&["a_segtree", "segvn_data", "anon_map", "anon_hdr", "page_hash"]),
        "{text}"
    );
    assert!(text.contains("slot empty, never stored to"), "{text}");
    assert!(text.contains("none holds 0x10000001e000"), "{text}");
    assert!(text.contains("none: nothing was touched yet"), "{text}");
}

#[test]
fn mistakes_are_said_in_words() {
    let wrong = |view: &str| {
        let parsed = parse(&format!("{SCENE}{view}\n")).expect("well-formed");
        let world = MachineWorld::new(&parsed.machine()).expect("a machine");
        let mut text = String::new();
        let done =
            Runner::new(world, RunOptions::default()).run(&parsed, &mut PlainText(&mut text));
        done.expect_err("it cannot be shown").to_string()
    };
    assert!(wrong("::page pfn 1").contains("frame 0x1 is not memory"));
    assert!(wrong("::vmstat no_such").contains("no counter `no_such`"));
    assert!(wrong("::vatopfn 0 0x800000000000").contains("non-canonical"));
    assert!(wrong("::pmap 7").contains("process 7 does not live"));
    assert!(wrong("::vnode 3").contains("file 3 was not made"));
}

#[test]
fn every_example_of_the_language_runs() {
    let page = include_str!("../../docs/script.md");
    let mut examples = 0;
    for part in page.split("```script\n").skip(1) {
        let script = part.split("```").next().expect("a closed block");
        if script.contains("/bin/true") || script.contains("/tmp/") {
            continue; // leaves files behind, or wants a program of the host
        }
        output(script);
        examples += 1;
    }
    assert!(examples >= 5, "{examples}");
}
