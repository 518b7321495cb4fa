//! `segvm run`.

use super::{ended, json_lines, segvm};

const COW: &str = "\
map 0 0 4 rw priv fixed anon
write 0 0 0+4 65
fork 0 1
write 1 0 0+1 90
read 0 0 0+4
expect ok b=41424344
read 1 0 0+4
expect ok b=5a424344
";

#[test]
fn one_line_per_operation() {
    let output = segvm(&["run", "-"], COW);
    let (out, err) = ended(&output, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}");
    assert_eq!(lines[0], "   1  map 0 0 4 rw priv fixed anon  -> ok");
    assert!(lines[5].ends_with("b=5a424344"), "{out}");
    assert_eq!(err, "");
}

#[test]
fn a_file_is_read_and_named_in_messages() {
    let path = std::env::temp_dir().join(format!("segvm-cli-{}.vmt", std::process::id()));
    std::fs::write(&path, "verify\nmap 0 0 4 rq priv fixed anon\n").expect("written");
    let name = path.display().to_string();
    let output = segvm(&["run", &name], "");
    let (_, err) = ended(&output, 2);
    std::fs::remove_file(&path).expect("removed");
    assert!(err.starts_with(&format!("{name}:2:11: expected protection letters")), "{err}");
}

#[test]
fn a_failed_expectation_is_status_1_and_ends_the_run() {
    let script = "map 0 0 1 rw priv fixed anon\n  read 0 0 1; expect EINVAL\nread 0 0 1\n";
    let output = segvm(&["run", "-"], script);
    let (out, err) = ended(&output, 1);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(err.starts_with("<stdin>:2:15: expected EINVAL, got ok"), "{err}");
    let caret = err.lines().last().expect("a caret").trim_end();
    assert!(caret.ends_with("| \u{20}             ^^^^^^"), "{err}");
}

#[test]
fn with_keep_going_all_failures_are_told() {
    let script =
        "verify; read 0 0 1; expect ok\nread 0 1 1; expect EINVAL\nexpect SEGV code=maperr\n";
    let output = segvm(&["run", "--keep-going", "-"], script);
    let (out, err) = ended(&output, 1);
    assert_eq!(out.lines().count(), 2, "{out}");
    assert!(err.contains("<stdin>:1:21:") && err.contains("<stdin>:2:13:"), "{err}");
    assert!(!err.contains("<stdin>:3"), "{err}");
}

#[test]
fn a_wrong_script_is_status_2_and_does_nothing() {
    let output = segvm(&["run", "-"], "map 0 0 1 rw priv fixed anon\nprotetc 0 0 1 r\n");
    let (out, err) = ended(&output, 2);
    assert_eq!(out, "");
    let want = "<stdin>:2:1: unknown statement `protetc` (did you mean `protect`?)\n \
                2 | protetc 0 0 1 r\n   | ^^^^^^^\n";
    assert_eq!(err, want);
}

#[test]
fn a_mistake_in_any_word_is_found_at_its_place() {
    let good = "map 0 0 4 rw priv fixed file 0 0 noreserve";
    let words: Vec<&str> = good.split(' ').collect();
    for wrong in 0..words.len() {
        let mut words = words.clone();
        words[wrong] = "%%";
        let column = words[..wrong].iter().map(|w| w.len() + 1).sum::<usize>() + 1;
        let output = segvm(&["run", "-"], &format!("verify\n{}\n", words.join(" ")));
        let (_, err) = ended(&output, 2);
        assert!(err.starts_with(&format!("<stdin>:2:{column}: ")), "word {wrong}: {err}");
    }
}

#[test]
fn what_is_no_text_is_a_mistake_with_a_place() {
    let path = std::env::temp_dir().join(format!("segvm-cli-bytes-{}.vmt", std::process::id()));
    std::fs::write(&path, b"verify\nex\xff").expect("written");
    let output = segvm(&["run", &path.display().to_string()], "");
    let (_, err) = ended(&output, 2);
    std::fs::remove_file(&path).expect("removed");
    assert!(err.contains(":2:3: this is not UTF-8"), "{err}");
}

#[test]
fn a_file_that_is_not_there_is_status_2() {
    let output = segvm(&["run", "/nonexistent/script"], "");
    let (_, err) = ended(&output, 2);
    assert!(err.contains("cannot read /nonexistent/script"), "{err}");
}

#[test]
fn a_machine_that_cannot_be_is_a_mistake_at_its_statement() {
    let script = "# a script\n  machine memory=1\nmap 0 0 1 rw priv fixed anon\n";
    let output = segvm(&["run", "-"], script);
    let (_, err) = ended(&output, 2);
    assert!(err.starts_with("<stdin>:2:3: no such machine: "), "{err}");
}

#[test]
fn an_unknown_counter_is_status_2_with_a_hint() {
    let script = "map 0 0 1 rw priv fixed anon\nexpect counter cow_falt 0\n";
    let output = segvm(&["run", "-"], script);
    let (_, err) = ended(&output, 2);
    assert!(err.contains("did you mean `cow_fault`?"), "{err}");
}

#[test]
fn result_is_the_format_of_the_trace_language() {
    let script = format!("{COW}echo \"a remark\"\nsetrlimit 0 vmem none\n");
    let output = segvm(&["run", "--result", "--verify", "-"], &script);
    let (out, _) = ended(&output, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1 ok", "2 ok"]);
    assert!(lines.contains(&"# a remark"), "{out}");
    assert!(lines.contains(&"P 0 live") && lines.contains(&"P 1 live"), "{out}");
    assert!(lines.contains(&"D 0 1 w zero"), "{out}");
    assert!(lines.last().expect("lines").starts_with("end ops=6 fingerprint="), "{out}");
}

#[test]
fn traces_give_their_stored_results() {
    for name in ["cow-illumos", "map", "prot", "file-illumos"] {
        let path = |ext| format!("{}/tests/traces/{name}.{ext}", env!("CARGO_MANIFEST_DIR"));
        let output = segvm(&["run", "--result", &path("vmt")], "");
        let (out, _) = ended(&output, 0);
        let want = std::fs::read_to_string(path("res")).expect("a stored result");
        assert_eq!(segvm::script::outcome::compare_results(out, &want), [], "{name}");
    }
}

#[test]
fn json_is_one_object_per_line() {
    let script = format!("{COW}::memstat\necho \"hi\"\n");
    let output = segvm(&["run", "--json", "-"], &script);
    let (out, _) = ended(&output, 0);
    let lines = json_lines(out);
    assert_eq!(lines[0]["event"], "operation");
    assert_eq!(lines[0]["number"], 1);
    assert_eq!(lines[5]["outcome"]["ok"]["b"], "5a424344");
    let view = lines.iter().find(|l| l["event"] == "view").expect("the view");
    assert_eq!(view["statement"], "::memstat");
    assert!(view["view"].is_object() || view["view"].is_array(), "{view}");
    assert_eq!(lines.last().expect("lines")["text"], "hi");
}

#[test]
fn json_of_views_does_not_change_what_is_expected_of_them() {
    let script = "map 0 0 4 rw priv fixed anon\n::pmap -x 0\nexpect \"Mapped File\"\n";
    ended(&segvm(&["run", "-"], script), 0);
    ended(&segvm(&["run", "--json", "-"], script), 0);
    let script = "map 0 0 4 rw priv fixed anon\n::pmap -x 0 --json\nexpect not \"Mapped File\"\n";
    ended(&segvm(&["run", "-"], script), 0);
}

#[test]
fn a_view_that_cannot_be_shown_is_status_2() {
    let output = segvm(&["run", "-"], "exit 0\n::pmap 0\n");
    let (_, err) = ended(&output, 2);
    assert!(err.starts_with("<stdin>:2:1: process 0 does not live"), "{err}");
}

#[test]
fn colour_only_when_asked_for() {
    let plain = segvm(&["run", "-"], "read 0 0 1");
    assert!(!ended(&plain, 0).0.contains('\x1b'));
    let painted = segvm(&["run", "--color", "always", "-"], "read 0 0 1");
    let (out, _) = ended(&painted, 0);
    assert!(out.contains("\x1b[1;31mSEGV at=0 code=maperr\x1b[0m"), "{out:?}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    use std::process::{Command, Stdio};
    let mut script = String::from("map 0 0 256 rw priv fixed anon\n");
    script.extend((0..20_000).map(|n| format!("read 0 {} 0+1\n", n % 256)));
    script.push_str("expect EINVAL\n");
    let path = std::env::temp_dir().join(format!("segvm-cli-reader-{}.vmt", std::process::id()));
    std::fs::write(&path, script).expect("written");
    let mut child = Command::new(env!("CARGO_BIN_EXE_segvm"))
        .arg("run")
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    std::fs::remove_file(&path).expect("removed");
    // The script is run to its end all the same, and its status is its own.
    let (_, err) = ended(&output, 1);
    assert!(err.contains("expected EINVAL") && !err.contains("cannot write"), "{err}");
}

#[test]
fn the_examples_of_the_language_hold() {
    let path = format!("{}/docs/script.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).expect("the page");
    let mut ran = 0;
    for (line, script) in segvm::script::script_blocks(&page) {
        let output = segvm(&["run", "--verify", "-"], &script);
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "docs/script.md:{line}: {err}");
        ran += 1;
    }
    assert_eq!(ran, 8, "examples of the page");
}
