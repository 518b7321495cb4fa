//! `segvm tour`.

use super::{ended, json_lines, segvm};

/// What a reader with the textbook looks for.
const CONCEPTS: &[&str] = &[
    "Fig. 9.10",
    "Fig. 9.11",
    "Fig. 10.2",
    "Fig. 10.3",
    "Fig. 11.2",
    "Ch. 9",
    "Ch. 9.6",
    "Ch. 9.7",
    "9.8",
    "Ch. 10",
    "Ch. 12",
    "address space",
    "AVL tree",
    "seg_vn",
    "vnode",
    "identity",
    "page hash",
    "kas",
    "anon map",
    "swapfs",
    "two-handed clock",
    "cache list",
    "case 1A",
    "case 1B",
    "case 2A",
    "case 2B",
    "copy-on-write",
    "stack grows",
];

#[track_caller]
fn is_whole(out: &str) {
    for concept in CONCEPTS {
        // Sentences are broken into lines.
        let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(concept), "{concept}");
    }
    for view in [
        "::memstat",
        "::seg ",
        "::pmap",
        "::segtree",
        "::walk",
        "::vatopfn",
        "::htable",
        "::page",
        "::anon",
        "::vnode",
        "::swapinfo",
        "::vmstat",
    ] {
        assert!(out.contains(&format!("  > {view}")), "{view}");
    }
    assert!(!out.contains("NOT SO"), "{out}");
    let last = out.lines().last().expect("lines");
    assert!(last.ends_with("all hold."), "{last}");
}

#[test]
fn of_its_own_executable() {
    let output = segvm(&["tour"], "");
    let (out, err) = ended(&output, 0);
    is_whole(out);
    assert_eq!(err, "");
    assert!(out.contains(env!("CARGO_BIN_EXE_segvm")), "{out}");
}

#[test]
fn it_is_what_the_command_does_when_nothing_is_said() {
    let output = segvm(&[], "");
    let (out, err) = ended(&output, 0);
    is_whole(out);
    assert_eq!(err, "");
}

#[test]
fn of_the_built_in_program_it_is_the_same_every_time() {
    let first = segvm(&["tour", "--elf-builtin"], "");
    let (out, _) = ended(&first, 0);
    is_whole(out);
    let second = segvm(&["tour", "--elf-builtin"], "");
    assert_eq!(out, ended(&second, 0).0);
}

#[test]
fn a_view_takes_less_than_a_screen() {
    let output = segvm(&["tour"], "");
    let (out, _) = ended(&output, 0);
    let (mut lines, mut title) = (0, "");
    for line in out.lines() {
        if line.starts_with("    ") {
            lines += 1;
        } else {
            (lines, title) = (0, line);
        }
        assert!(lines < 20, "{title}");
    }
}

#[test]
fn of_another_program_of_this_machine() {
    let output = segvm(&["tour", "/bin/sh"], "");
    is_whole(ended(&output, 0).0);
}

#[test]
fn of_what_is_no_program() {
    for (path, why) in [
        ("/etc/passwd", "not an ELF file"),
        ("/nonexistent", "cannot read /nonexistent"),
        ("/", "is no regular file"),
    ] {
        let output = segvm(&["tour", path], "");
        let (out, err) = ended(&output, 2);
        assert_eq!(out, "", "{path}");
        assert!(err.contains(why), "{path}: {err}");
    }
}

#[test]
fn as_json() {
    let output = segvm(&["tour", "--elf-builtin", "--json"], "");
    let (out, _) = ended(&output, 0);
    let lines = json_lines(out);
    let of = |event: &str| lines.iter().filter(|l| l["event"] == event).collect::<Vec<_>>();
    assert_eq!(of("step").len() as u64, lines.last().expect("lines")["steps"]);
    assert!(of("step").iter().all(|s| s["book"].is_string()));
    assert!(of("check").iter().all(|c| c["holds"] == true));
    assert!(of("view").iter().all(|v| !v["view"].is_string() && !v["view"].is_null()));
    assert!(of("view").len() > 20);
    assert_eq!(lines.last().expect("lines")["failures"], 0);
}
