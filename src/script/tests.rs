//! The language as a whole: every statement, every mistake, the documentation's examples.

use super::ast::*;
use super::outcome::{FNV_OFFSET, fnv};
use super::*;
use crate::model::Model;

/// What must have come before: names that the samples use.
const BEFORE: &str = "proc $p = 0\nfile $f 10";

/// At least one sample of every statement, with every optional word.
const SAMPLES: &[&str] = &[
    "file 0 8192",
    "file $g 64k ro",
    "truncate $f 0x2000",
    "pwrite 3 0 100 65",
    "pread $f 0 100",
    "fclose 3",
    "map $p 12+0 4 rw priv fixed anon",
    "map 0 0x7f00_0000 64k r shared hint file $f 2 noreserve populate locked",
    "map 7 b:3 @max bad both noreplace file 15 0x1000",
    "unmap $p 12 0+1",
    "protect 0 1 2 -",
    "advise 0 1 2 inherit_zero",
    "sync 0 1 2 async+inval",
    "lock 0 @null @wrap",
    "unlock 0 @top+1 @maxpg",
    "lockall $p both",
    "unlockall $p",
    "incore 0 @kern 1g",
    "brk 0 3+5",
    "remap 0 1 2 3 may+fixed 40",
    "read $p 1+4090 0+10 cpu=1",
    "write 0 1 16t 255 cpu=0",
    "fread 0 $f 5 1 0+3 cpu=2",
    "fwrite $p 0 5 1 0+3",
    "fork $p $child",
    "exit 3",
    "pageout *",
    "pageout $p",
    "digest 0",
    "hostfile $h \"/a path/with \\\"quotes\\\"\" rw",
    "exec $p $f",
    "spawn $q \"/bin/true\"",
    "fetch 0 0x1000 cpu=3",
    "scan 100",
    "squeeze 5",
    "release",
    "pin $p 12 3 w",
    "pin 0 1 2 r",
    "pinned 1",
    "unpin 1",
    "retire $p 12+5",
    "unretire",
    "swapadd mem 100 pri=-3",
    "swapadd file \"/tmp/x\" 100",
    "swapdel 1",
    "vfork $p $borrower",
    "inherit $p 1 2 share",
    "personality $p linux",
    "share $p 12 3 0 40+0",
    "memcntl $p 12 3 lock 0 rw+shared",
    "memcntl 0 @null 0 lockas 3 all",
    "memcntl 0 1 2 sync 4 r",
    "memcntl 0 1 2 bad 0x10 bad",
    "meminfo $p 12+5 physical+replicas",
    "meminfo 0 1 none",
    "grow 0 0x7ffe_0000",
    "setrlimit $p vmem 16m",
    "setrlimit 0 stack none",
    "watch $p 12+5 0+3 rw+after",
    "unwatch 0 12+5 0+3",
    "lend $p 12 3",
    "lent 1",
    "unlend 1",
    "lendanon $p 12 3",
    "borrow $p 20 2",
    "::pmap -x $p --json",
    "::pmap kas",
    "::seg 0",
    "::segtree kas --json",
    "::anon $p 12 --json",
    "::page",
    "::page $f --json",
    "::page pfn 0x20",
    "::memstat --json",
    "::vnode $f",
    "::hash",
    "::vatopfn 0 12+5",
    "::htable 0",
    "::swapinfo --json",
    "::vmstat zfod cow_fault --json",
    "::walk $p 12",
    "expect ok moved n=3 h=00000000000000ab b=0102",
    "expect ENOMEM",
    "expect SEGV at=0 code=maperr",
    "expect BUS at=17 code=objerr",
    "expect TRAP at=3 code=wwatch",
    "expect skip",
    "expect \"4K rw\"",
    "expect not \"8K\"",
    "expect counter cow_fault +>=2",
    "expect counter zfod 7",
    "echo \"hello; # world\"",
    "verify",
];

/// Statements that may only stand before the first operation.
const HEADERS: &[&str] = &[
    "vmtrace 1",
    "arena 64",
    "proc $sh = 3",
    "machine memory=64m cpus=2 colours=4 seed=9 hash=dashmap fork=lazy locked=copy kluster=8 swap=mem:10 \
     swap=file:\"/a b\":20:-1",
];

fn parser(before: &str) -> Parser {
    let mut parser = Parser::new();
    parser.feed(before, 1).expect("what comes before parses");
    parser
}

fn parse_one(before: &str, line: &str) -> Result<Operation, ParseError> {
    let mut statements = parser(before).feed(line, 1)?;
    assert_eq!(statements.len(), 1, "{line}");
    Ok(statements.remove(0).operation)
}

/// Samples with what must come before them.
fn samples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let bodies = SAMPLES.iter().map(|s| (BEFORE, *s));
    bodies.chain(HEADERS.iter().map(|s| ("", *s)))
}

#[test]
fn every_statement_has_a_sample() {
    for (word, _) in STATEMENTS {
        let sampled = samples().any(|(_, s)| s.split(' ').next() == Some(word));
        assert!(sampled, "no sample of {word}");
    }
}

#[test]
fn printing_gives_the_same_value_again() {
    for (before, line) in samples() {
        let value = parse_one(before, line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let text = value.to_string();
        let again = parse_one(before, &text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(value, again, "{line} printed as {text}");
        assert_eq!(text, again.to_string());
    }
}

#[test]
fn a_mistake_in_any_word_is_reported_at_that_word() {
    for (before, line) in samples() {
        let words: Vec<String> = words_of(line);
        for i in 0..words.len() {
            let mut broken = words.clone();
            broken[i] = "~?".into();
            let column = broken[..i].iter().map(|w| w.chars().count() + 1).sum::<usize>() + 1;
            let text = broken.join(" ");
            let error = parse_one(before, &text).expect_err(&text);
            assert_eq!(error.span.column as usize, column, "{text}: {error}");
            assert_eq!((error.span.line, error.span.len), (1, 2), "{text}: {error}");
            assert!(error.to_string().contains("~?"), "{text}: {error}");
        }
    }
}

#[test]
fn a_missing_word_is_reported_where_it_should_stand() {
    for (before, line) in samples() {
        let words = words_of(line);
        for i in 1..words.len() {
            let text = words[..i].join(" ");
            if let Err(error) = parse_one(before, &text) {
                assert_eq!(error.span.column as usize, text.chars().count() + 1, "{text}");
                assert!(error.to_string().contains("the end of the statement"), "{text}: {error}");
            }
        }
    }
}

#[test]
fn a_word_too_many_is_reported_at_that_word() {
    for (before, line) in samples() {
        let text = format!("{line} ~?");
        let error = parse_one(before, &text).expect_err(&text);
        assert_eq!(error.span.column as usize, line.chars().count() + 2, "{text}: {error}");
    }
}

/// The words of a sample, quotes kept together.
fn words_of(line: &str) -> Vec<String> {
    let mut words = token::statements(line, 1).expect("samples can be cut");
    words.remove(0).tokens.into_iter().map(|t| t.text).collect()
}

#[test]
fn messages_say_what_was_expected() {
    for (line, message) in [
        (
            "map 0 0 1 rq priv fixed anon",
            "1:11: expected protection letters of rwx, `-` or `bad`, found `rq` (did you mean `rw`?)",
        ),
        ("protetc 0 0 1 r", "1:1: unknown statement `protetc` (did you mean `protect`?)"),
        (
            "map 0 0 1 rw privat fixed anon",
            "1:14: expected `priv`, `shared`, `both` or `neither`, found `privat` (did you mean `priv`?)",
        ),
        ("read 9 0 1", "1:6: expected a process, 0 to 7 or `$name`, found `9`"),
        ("read $chid 0 1", "1:6: no process is called `$chid` yet"),
        ("read $data 0 1", "1:6: `$data` already names another file"),
        ("exit $sj", "1:6: no process is called `$sj` yet (did you mean `$sh`?)"),
        ("write 0 0 1 256", "1:13: `256` is too large: a byte is 0 to 255"),
        (
            "read 0 0 99999999999999999999",
            "1:10: `99999999999999999999` is too large: numbers end at 2^64 - 1",
        ),
        ("verify now", "1:8: `verify` is complete here, found `now`"),
        ("verify; vmtrace 1", "1:9: `vmtrace` may stand only as the first statement"),
        ("digest 0; arena 5", "1:11: `arena` may stand only before the first operation"),
        ("digest 0; machine cpus=2", "1:11: `machine` may stand only before the first operation"),
        ("arena 5; arena 5", "1:10: `arena` may stand only once"),
        ("arena 4096", "1:7: expected a number of pages, 1 to 2048, found `4096`"),
        ("echo \"x", "1:6: this quote is not closed in its line"),
        (
            "expect ENOMEN",
            "1:8: expected `ok`, an errno, `SEGV`, `BUS`, `skip`, a quoted text, `not` or `counter`, found `ENOMEN` (did you mean `ENOMEM`?)",
        ),
    ] {
        let error = parser("proc $sh = 0\nfile $data 1").feed(line, 1);
        // The names above are operations; settings need a parser that has met none.
        let error = match line {
            l if l.starts_with("arena") => parse(l).map(|_| Vec::new()),
            _ => error,
        };
        assert_eq!(error.expect_err(line).to_string(), message, "{line}");
    }
}

#[test]
fn a_piece_with_a_mistake_declares_nothing() {
    let mut parser = Parser::new();
    parser.feed("file $a 1; nonsense", 4).expect_err("nonsense");
    assert!(parser.feed("truncate $a 1", 5).is_err());
    let statements = parser.feed("file $a 1\n truncate $a 2", 7).expect("parses");
    assert_eq!(statements[1].words[1], Span { line: 8, column: 11, len: 2 });
}

#[test]
fn every_example_of_the_documentation_parses_and_runs() {
    let markdown = include_str!("../../docs/script.md");
    let blocks = script_blocks(markdown);
    assert!(blocks.len() >= 8, "{}", blocks.len());
    for (line, text) in blocks {
        let script = Parser::new().feed(&text, line).unwrap_or_else(|e| panic!("script.md:{e}"));
        let options = RunOptions {
            file: Some("script.md".into()),
            ignore_views: true,
            ..RunOptions::default()
        };
        Runner::new(Model::new(), options)
            .run(&Script { statements: script }, &mut Silent)
            .unwrap_or_else(|e| panic!("{e}"));
    }
}

#[test]
fn every_statement_is_documented() {
    let markdown = include_str!("../../docs/script.md");
    for (word, _) in STATEMENTS {
        assert!(markdown.contains(&format!("`{word}")), "{word}");
    }
}

fn run(text: &str) -> Result<String, RunError> {
    let script = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let mut out = ResultText(String::new());
    let options = RunOptions { file: Some("t".into()), ..RunOptions::default() };
    Runner::new(Model::new(), options).run(&script, &mut out)?;
    Ok(out.0)
}

#[test]
fn results_have_the_format_of_the_trace_language() {
    let text = "vmtrace 1\narena 2\nfile 0 3\nmap 0 0 1 rw priv fixed anon\nwrite 0 0 0+2 65\n\
                read 0 0 0+2\nread 0 1 1\nexit 5\nfile 0 9\necho \"hi\"\nscan 3\n\
                pwrite 0 1 1 66\nmap 0 1 1 - shared fixed file 0 0\n";
    let expected = "1 ok\n2 ok\n3 ok\n4 ok h=089bec07b544bc4e b=4142\n\
                    5 SEGV at=0 code=maperr\n6 skip\n7 skip\n# hi\n# scan 3: ENOSYS\n\
                    8 ok n=1\n9 ok\nP 0 live\nD 0 0 w 28d96a1a7e68b7f2\nD 0 1 -\nF 0 size=3\n\
                    G 0 0 e7c8c4e4e22e9aa7\n";
    let got = run(text).expect("runs");
    let (body, last) = got.split_at(got.rfind("end ").expect("ends"));
    let hash = |bytes: &[(usize, u8)]| {
        let mut page = [0; 4096];
        bytes.iter().for_each(|(i, b)| page[*i] = *b);
        format!("{:016x}", outcome::page_hash(&page))
    };
    let expected = expected
        .replace("089bec07b544bc4e", &format!("{:016x}", outcome::fnv(outcome::FNV_OFFSET, b"AB")))
        .replace("28d96a1a7e68b7f2", &hash(&[(0, 65), (1, 66)]))
        .replace("e7c8c4e4e22e9aa7", &hash(&[(1, 66)]));
    assert_eq!(body, expected);
    assert!(last.starts_with("end ops=9 fingerprint="), "{last}");
}

#[test]
fn names_get_slots_of_their_own() {
    let text = "proc $p = 0\nfile $f 5\nfile $g 6\nfork $p $c\nfork 0 1\nfork $p $d\nexit $c\n\
                fork $d $c\ndigest $c";
    let got = run(text).expect("runs");
    assert!(got.contains("P 0 live\nP 1 live\nP 8 live\nP 9 live\nF 16 size=5\nF 17 size=6"));
}

#[test]
fn a_failed_expectation_names_its_place() {
    for (text, message) in [
        ("read 0 5 1\n expect ok", "t:2:2: expected ok, got SEGV at=0 code=maperr"),
        (
            "read 0 5 1; expect SEGV code=accerr",
            "t:1:13: expected SEGV code=accerr, got SEGV at=0 code=maperr",
        ),
        ("expect ok", "t:1:1: nothing came before that this could be about"),
        ("digest 0\nexpect counter zfod 1", "t:2:1: there is no counter `zfod`"),
        ("::pmap 0", "t:1:1: there is no such view of this world"),
        ("::pmap 4", "t:1:1: process 4 does not live"),
        ("::vnode 4", "t:1:1: file 4 was not made"),
    ] {
        assert_eq!(run(text).expect_err(text).to_string(), message);
    }
}

#[test]
fn with_keep_going_every_failure_is_told() {
    let script = parse("digest 0\nexpect skip\nexpect ok\nexpect EIO").expect("parses");
    let options = RunOptions { keep_going: true, ..RunOptions::default() };
    let report = Runner::new(Model::new(), options).run(&script, &mut Silent).expect("goes on");
    let lines: Vec<u32> = report.failures.iter().map(|f| f.span.line).collect();
    assert_eq!(lines, [2, 4]);
}

#[test]
fn generated_scripts_are_the_same_from_one_seed_and_round_trip() {
    for profile in Profile::ALL.into_iter().chain([Profile::Remap, Profile::Held]) {
        for seed in 0..5 {
            let mut options = GenerateOptions::small(profile, seed);
            options.cpus = 3;
            options.pressure = seed % 2 == 0;
            let script = generate(&options);
            let text = script.to_string();
            assert_eq!(text, generate(&options).to_string());
            assert!(script.statements.len() > options.operations, "{profile:?} {seed}");
            let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
            assert!(script.operations().eq(again.operations()));
        }
    }
}

/// A seed that failed once is worth something only as long as it says the same.
#[test]
fn a_seed_says_what_it_has_always_said() {
    let said = |profiles: &[Profile]| {
        let mut all = FNV_OFFSET;
        for &profile in profiles {
            for seed in 0..40 {
                let mut options = GenerateOptions::small(profile, seed);
                (options.cpus, options.pressure) = (1 + seed as u32 % 3, seed % 2 == 0);
                options.portable = seed % 5 == 0;
                all = fnv(all, generate(&options).to_string().as_bytes());
            }
        }
        all
    };
    let first = [&Profile::ALL[..], &[Profile::Remap]].concat();
    assert_eq!(said(&first), 0xa678_f32e_9095_92cf);
}

#[test]
fn two_models_stay_in_step_and_a_broken_one_is_found_and_minimised() {
    let options = GenerateOptions { operations: 150, ..GenerateOptions::small(Profile::Mix, 11) };
    let script = generate(&options);
    let run = |statements: &[Statement]| {
        let script = Script { statements: statements.to_vec() };
        Lockstep::new(Model::new(), Model::new(), 1, true).run(&script)
    };
    assert_eq!(run(&script.statements), Ok(()));

    // One world that lies about page 3 once it has been stored to.
    let fails = |statements: &[Statement]| {
        let mut pair = Lockstep::new(Model::new(), Model::new(), 1, false);
        statements.iter().any(|s| {
            let stored = matches!(&s.operation, Operation::Write(a, _)
                if a.range.addr == Addr::arena(3));
            if stored {
                pair.left().step(s, &mut Silent).expect("stores");
                return pair.compare_contents().is_err();
            }
            pair.step(s).is_err()
        })
    };
    let text = "arena 8\nmap 0 0 8 rw priv fixed anon\nfile 0 100\nwrite 0 1 1 1\nread 0 1 1\n\
                write 0 3 1 5\ndigest 0";
    let statements = parse(text).expect("parses").statements;
    let short = minimise(&statements, fails);
    let short: Vec<String> = short.iter().map(|s| s.operation.to_string()).collect();
    assert_eq!(short, ["map 0 0 8 rw priv fixed anon", "write 0 3 1 5"]);
}

#[test]
fn no_text_makes_parser_or_completion_panic() {
    let mut lot = Lot::new(5);
    let bits = [
        "0", "$p", "@max", "b:", "+", "\"", "\\", ";", "#", " ", "0x", "9", "k", "é", "=", ":",
        "\t",
    ];
    for (before, line) in samples() {
        let parser = parser(before);
        for column in 0..line.len() + 3 {
            parser.complete(line, column);
        }
        for _ in 0..200 {
            let mut chars: Vec<char> = line.chars().collect();
            for _ in 0..lot.between(1, 4) {
                let at = lot.below(chars.len() as u64 + 1) as usize;
                let end = (at + lot.below(4) as usize).min(chars.len());
                chars.splice(at..end, lot.pick(&bits).chars());
            }
            let text: String = chars.into_iter().collect();
            if let Ok(statements) = parser.clone().feed(&text, 1) {
                for s in statements {
                    let printed = s.operation.to_string();
                    let again = parse_one(before, &printed);
                    // A name may have been made by an earlier statement of the same line.
                    if let Ok(again) = again {
                        assert_eq!(again, s.operation, "{text}");
                    }
                }
            }
            parser.complete(&text, lot.below(text.len() as u64 + 2) as usize);
        }
    }
}

/// Found by the fuzz target `machine`.
#[test]
fn a_transfer_past_all_offsets_is_judged() {
    let text =
        "file 0 8192; map 0 0 2 rw shared fixed file 0 0; fwrite 0 0 18446744073709551615 1 1";
    let script = parse(text).expect("parses");
    assert!(
        objection(&script).is_some_and(|o| o.statement == 2),
        "a file gets no longer than that"
    );
}

/// Found in a world of held memory: the segment below the pinned one had been discarded when the answer was EAGAIN.
#[test]
fn how_much_is_discarded_beside_a_pin_is_not_defined() {
    let script = parse("map 0 0 2 rw priv fixed anon; pin 0 0 1 r; advise 0 0 2 discard");
    let mut statements = script.expect("parses").statements;
    let discard = statements.pop().expect("a statement").operation;
    let mut runner = Runner::new(Model::new(), RunOptions::default());
    runner.run_statements(&statements, &mut Silent).expect("runs");
    let why = |model: &Model| undefined(model, &discard);
    assert_eq!(why(runner.world()), Some("discarding beside what a device has"));
    runner
        .run_statements(&parse("unpin 1").expect("parses").statements, &mut Silent)
        .expect("runs");
    assert_eq!(why(runner.world()), None);
}

/// Found by bytes by lot: what is to move to a fixed place that nobody names moves to 0, where a script has nothing to look for.
#[test]
fn a_move_to_place_0_is_not_defined() {
    let why = |remap: &str| {
        let script = parse(&format!("map 0 0 2 rw priv fixed anon; {remap}")).expect("parses");
        objection(&script).map(|o| o.reason)
    };
    for remap in ["remap 0 0 1 1 may+fixed", "remap 0 0 1 1 may+fixed @null"] {
        assert_eq!(why(remap), Some("a mapping at address 0"), "{remap}");
    }
    assert_eq!(why("remap 0 0 1 1 may+fixed 4"), None);
}

/// Which of several wrong arguments of a mapping is told first depends on the system; of one alone all say the same.
#[test]
fn several_wrong_arguments_are_not_portable() {
    let why = |map: &str| {
        let script = parse(&format!("file 0 8192 ro; {map}")).expect("parses");
        objection(&script).map(|o| o.reason)
    };
    for map in [
        "map 0 @kern+1 1 rw priv fixed anon",
        "map 0 @kern 1 rw neither fixed anon",
        "map 0 0 @max rw neither hint anon",
        "map 0 @kern 1 rw shared fixed file 0 0",
        "map 0 0+1 1 rw shared fixed file 0 0",
    ] {
        assert_eq!(why(map), Some("several wrong arguments"), "{map}");
    }
    for map in [
        "map 0 @kern 1 rw priv fixed anon",
        "map 0 0+1 1 rw neither fixed anon",
        "map 0 0 1 rw shared fixed file 0 0",
        "map 0 0+1 1 r shared fixed file 0 0",
    ] {
        assert_eq!(why(map), None, "{map}");
    }
}
