//! What is wrong with a script is said with line and column, before it runs and while it does.
//!
//! The parser has its own tests, word by word; here whole scripts go in where everybody's do. A mistake is put into each word of each
//! statement of a script in turn, the statements standing anywhere in their lines, and the answer must name that word.

use segvm::machine::MachineWorld;
use segvm::script::{PlainText, RunError, RunOptions, Runner, parse};
use swapfs::Plant;

/// A statement of every kind, with its optional words. Each stands on a line of its own.
const SCRIPT: &str = r#"machine memory=512 cpus=2 swap=mem:64
arena 128
file 0 8192 ro
proc $p = 0
hostfile $h "/etc/hostname" ro
map $p 1+0 4 rw priv fixed anon noreserve
map 0 8 2 r shared hint file 0 1 populate
protect 0 1 2 -
unmap 0 2 1
advise 0 1 1 willneed
sync 0 8 1 sync+inval
lock 0 1 1
unlockall 0
incore 0 1 1
brk 0 2+5
read 0 1 0+16 cpu=1
write 0 1 0+16 65
fread 0 0 5 1 0+3
truncate 0 4096
pwrite 0 0 10 65
fork 0 $child
exit 3
pageout *
scan 10
squeeze 3
swapadd mem 10 pri=2
swapdel 2
setrlimit 0 stack 64k
grow 0 0x7ffe_0000
watch 0 1+4 0+8 rw
::pmap -x 0 --json
::vatopfn 0 1
::vmstat zfod
expect ok n=3
expect SEGV at=0 code=maperr
expect counter zfod +>=1
digest 0
"#;

/// The words of a line: column, text.
fn words(line: &str) -> Vec<(usize, &str)> {
    let mut all = Vec::new();
    let mut rest = line;
    while let Some(word) = rest.split_whitespace().next() {
        let at = rest.find(word).expect("just found");
        let column = line.len() - rest.len() + at;
        all.push((column, word));
        rest = &rest[at + word.len()..];
    }
    all
}

#[test]
fn a_mistake_in_any_word_of_any_line_is_named_with_its_place() {
    parse(SCRIPT).unwrap_or_else(|e| panic!("{e}"));
    let lines: Vec<_> = SCRIPT.lines().collect();
    let mut mistakes = 0;
    for (n, line) in lines.iter().enumerate() {
        for (column, word) in words(line) {
            // The statement may stand deep in its line, behind others and what is not ASCII.
            for before in ["", "  \t ", "echo \"näher; ran\"; "] {
                let headers = n < 2; // which nothing may stand before
                if headers && before.contains("echo") {
                    continue;
                }
                let spoilt = format!("{}¿{}", &line[..column], &line[column + word.len()..]);
                let place = before.chars().count() + column + 1;
                let mine = format!("{before}{spoilt}");
                let mut all = lines.clone();
                all[n] = &mine;
                let (text, want) = (all.join("\n"), format!("{}:{place}: ", n + 1));
                let said = parse(&text).expect_err(&spoilt).to_string();
                assert!(
                    said.starts_with(&want) && said.contains('¿'),
                    "{spoilt}: {want}, not {said}"
                );
                mistakes += 1;
            }
        }
    }
    assert!(mistakes > 400, "{mistakes}");
}

#[test]
fn a_word_that_is_missing_is_asked_for_at_the_end_of_its_line() {
    for (script, said) in [
        ("map", "1:4: expected a process, 0 to 7 or `$name`, found the end of the statement"),
        (
            "file 0 4096\nmap 0 0 1 rw priv fixed",
            "2:24: expected `anon` or `file`, found the end of the statement",
        ),
        (
            "map 0 0 1 rw priv fixed file",
            "1:29: expected a file, 0 to 15 or `$name`, found the end of the statement",
        ),
        ("verify; protect 0 0 1 # all", "1:22: expected protection letters of rwx"),
        ("expect", "1:7: expected `ok`, an errno"),
        ("proc $x", "1:8: expected `=`, found the end of the statement"),
        ("map 0 0 1 rw priv fixed anon\n\n  read 0\n", "3:9: expected an address"),
    ] {
        let error = parse(script).expect_err(script).to_string();
        assert!(error.starts_with(said), "{script:?}:\n    want {said}\n    said {error}");
    }
}

#[test]
fn what_cannot_be_is_said_with_its_place() {
    for (script, said) in [
        ("verify\nnonsense", "2:1: unknown statement `nonsense`"),
        ("verify\n maap 0", "2:2: unknown statement `maap` (did you mean `map`?)"),
        ("read 8 0 1", "1:6: expected a process, 0 to 7 or `$name`, found `8`"),
        ("read $who 0 1", "1:6: no process is called `$who` yet"),
        ("write 0 0 1 256", "1:13: `256` is too large: a byte is 0 to 255"),
        (
            "read 0 0 18446744073709551616",
            "1:10: `18446744073709551616` is too large: numbers end at 2^64 - 1",
        ),
        ("verify\narena 5", "2:1: `arena` may stand only before the first operation"),
        ("digest 0; machine cpus=2", "1:11: `machine` may stand only before the first operation"),
        ("verify here", "1:8: `verify` is complete here, found `here`"),
        ("echo \"open", "1:6: this quote is not closed in its line"),
        ("file $f 1\nfile $f 2\nproc $f = 1", "3:6: `$f` already names another file"),
    ] {
        assert_eq!(parse(script).expect_err(script).to_string(), said, "{script:?}");
    }
}

/// Runs a script on a machine; answers what is said when it fails.
fn run(script: &str) -> Result<(), RunError> {
    let script = parse(script).unwrap_or_else(|e| panic!("{e}"));
    let world = MachineWorld::new(&script.machine()).expect("a machine");
    let options =
        RunOptions { file: Some("t.vm".into()), verify_each: true, ..RunOptions::default() };
    Runner::new(world, options).run(&script, &mut PlainText(String::new())).map(drop)
}

#[test]
fn what_goes_wrong_while_a_script_runs_is_said_with_its_place() {
    let start = "map 0 0 2 rw priv fixed anon\n";
    for (script, said) in [
        ("expect ok", "t.vm:1:1: nothing came before that this could be about"),
        ("write 0 0 1 1; expect EACCES", "t.vm:2:16: expected EACCES, got ok"),
        ("read 0 9 1\n  expect ok", "t.vm:3:3: expected ok, got SEGV at=0 code=maperr"),
        ("expect counter zfood 1", "t.vm:2:1: there is no counter `zfood` (did you mean `zfod`?)"),
        ("expect counter zfod 7", "t.vm:2:1: expected zfod 7, got zfod 0"),
        ("::vmstat cow_fautl", "t.vm:2:1: there is no counter `cow_fautl`"),
        ("::pmap 3", "t.vm:2:1: process 3 does not live"),
        ("::vatopfn 0 0x8000_0000_0000", "t.vm:2:1: "),
        ("::segtree 0; expect \"no such text\"", "t.vm:2:14: expected "),
    ] {
        let start = if script == "expect ok" { "" } else { start };
        let error = run(&format!("{start}{script}")).expect_err(script).to_string();
        assert!(error.starts_with(said), "{script:?}:\n    want {said}\n    said {error}");
    }
}

/// The statement after which an invariant is found broken is named.
#[test]
fn a_broken_invariant_is_said_with_its_place() {
    let script = parse("map 0 0 1 rw priv fixed anon\nwrite 0 0 1 7\n\n read 0 0 1\n").unwrap();
    let options = RunOptions { verify_each: true, ..RunOptions::default() };
    let mut runner = Runner::new(MachineWorld::new(&script.machine()).unwrap(), options);
    let mut out = PlainText(String::new());
    runner.run_statements(&script.statements[..2], &mut out).unwrap();
    let machine = runner.world().machine();
    machine.swap().plant(machine.cx(), Plant::OverPromise);
    let error = runner.run_statements(&script.statements[2..], &mut out).unwrap_err().to_string();
    assert!(error.starts_with("4:2: invariant violated: V1: "), "{error}");
}
