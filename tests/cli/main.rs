//! The `segvm` command as its users run it: a process with arguments, streams and a status.

mod run;
mod shell;
mod sizes;
mod tour;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Runs the command with this on its standard input.
fn segvm(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_segvm"))
        .args(args)
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // A command that does not read its input may be gone by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

/// What a command wrote and how it ended.
#[track_caller]
fn ended(output: &Output, status: i32) -> (&str, &str) {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "stdout:\n{out}\nstderr:\n{err}");
    assert!(!err.contains("panicked"), "{err}");
    (out, err)
}

/// Every line as JSON.
#[track_caller]
fn json_lines(out: &str) -> Vec<serde_json::Value> {
    out.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

#[test]
fn help_names_every_command() {
    let output = segvm(&["help"], "");
    let (out, _) = ended(&output, 0);
    assert!(out.contains("tour") && out.contains("run") && out.contains("shell"), "{out}");
    assert!(out.contains("sizes"), "{out}");
}

#[test]
fn an_unknown_option_is_status_2() {
    ended(&segvm(&["run", "--frobnicate", "-"], ""), 2);
}
