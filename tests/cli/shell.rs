//! `segvm shell`, fed from a pipe.

use super::{ended, json_lines, segvm};

#[test]
fn mistakes_do_not_end_the_session() {
    let input = "map 0 0 4 rw priv fixed anon\n\
                 frob\n\
                 write 0 0 0+2 65; expect EINVAL; exit 0\n\
                 \n\
                 read 0 0 0+2; read 0 9 1\n";
    let output = segvm(&["shell"], input);
    let (out, err) = ended(&output, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert!(lines[2].ends_with("b=4142"), "{out}");
    assert!(lines[3].ends_with("SEGV at=0 code=maperr"), "{out}");
    assert!(err.contains("<stdin>:2:1: unknown statement `frob`"), "{err}");
    assert!(err.contains("<stdin>:3:19: expected EINVAL, got ok"), "{err}");
    assert_eq!(err.matches('^').count(), 4 + 6, "{err}");
}

#[test]
fn settings_come_before_the_machine() {
    let input = "machine memory=512 cpus=2\narena 16\nproc $a = 0\nmap $a 0 1 rw priv fixed anon\n\
                 machine memory=64\n::memstat\nquit\nfrob\n";
    let output = segvm(&["shell"], input);
    let (out, err) = ended(&output, 0);
    assert!(out.contains("512"), "{out}");
    assert!(err.contains("`machine` may stand only before the first operation"), "{err}");
    assert!(!err.contains("frob"), "{err}");
}

#[test]
fn a_machine_that_cannot_be_may_be_asked_for_again() {
    let input = "machine memory=1\nmap 0 0 1 rw priv fixed anon\nmachine memory=512\nread 0 0 1\n";
    let output = segvm(&["shell"], input);
    let (out, err) = ended(&output, 0);
    assert!(err.contains("<stdin>:2:1: no such machine"), "{err}");
    assert!(out.contains("SEGV"), "{out}");
}

#[test]
fn counters_since_the_last_operation() {
    let input = "map 0 0 1 rw priv fixed anon\nwrite 0 0 0+1 1\nexpect counter zfod +1\n\
                 expect counter zfod +2\n";
    let output = segvm(&["shell"], input);
    let (_, err) = ended(&output, 0);
    assert!(err.contains("<stdin>:4:1: expected zfod +2, got zfod +1"), "{err}");
    assert!(!err.contains("<stdin>:3"), "{err}");
}

#[test]
fn help_names_every_statement() {
    let output = segvm(&["shell"], "help\nhelp pmap\nhelp quux\n");
    let (out, _) = ended(&output, 0);
    for (word, _) in segvm::script::STATEMENTS {
        assert!(out.lines().any(|l| l.split_whitespace().next() == Some(word)), "{word}");
    }
    assert!(out.contains("there is no statement `quux`"), "{out}");
}

#[test]
fn json_here_too() {
    let output = segvm(&["shell", "--json"], "map 0 0 1 rw priv fixed anon\n::seg 0\n");
    let (out, _) = ended(&output, 0);
    let lines = json_lines(out);
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["event"], "view");
}

#[test]
fn a_last_line_without_an_end_counts() {
    let output = segvm(&["shell"], "echo \"one\"\necho \"two\"");
    assert_eq!(ended(&output, 0).0, "one\ntwo\n");
}
