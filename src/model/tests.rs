//! The model against results that an independent model, and where portable a real system, gave.

use super::Model;
use crate::machine::MachineWorld;
use crate::script::outcome::compare_results;
use crate::script::{ResultText, RunOptions, Runner, Silent, parse};

macro_rules! traces {
    ($($name:literal),* $(,)?) => {
        &[$((
            $name,
            include_str!(concat!("../../tests/traces/", $name, ".vmt")),
            include_str!(concat!("../../tests/traces/", $name, ".res")),
        )),*]
    };
}

const TRACES: &[(&str, &str, &str)] = traces![
    "map",
    "cow",
    "file",
    "prot",
    "sync",
    "err",
    "mix",
    "mix-illumos",
    "sync-illumos",
    "cow-illumos",
    "file-illumos",
    "cut-lock-illumos",
    "lock-untouched-illumos",
];

fn result_of(text: &str) -> String {
    let script = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let mut out = ResultText(String::new());
    Runner::new(Model::new(), RunOptions::default()).run(&script, &mut out).expect("runs");
    out.0
}

#[test]
fn every_trace_has_the_result_that_others_gave() {
    for (name, trace, result) in TRACES {
        assert_eq!(compare_results(&result_of(trace), result), [], "{name}");
    }
}

/// Situations in which illumos's documentation decides, line by line.
#[test]
fn refusals_are_those_of_illumos() {
    let text = "file 0 8192 ro\nmap 0 0 2 rw priv fixed anon\n\
                map 0 4 2 r priv fixed file 0 0\nlock 0 0 4\nsync 0 0 2 inval\nlock 0 1 1\n\
                sync 0 0 2 sync+inval\nadvise 0 0 2 dontneed\nlock 0 0 @wrap\nunlock 0 0+1 1\n\
                advise 0 0 @max normal\nsync 0 0 @max sync\nincore 0 0 @max\nprotect 0 0 1 bad\n\
                map 0 8 1 bad priv fixed anon\nmap 0 8 1 bad priv hint file 0 0\n\
                map 0 8 1 r priv fixed file 0 0x8000000000000000\n\
                map 0 8 1 r priv fixed file 0 0x7ffffffffffff000\n\
                map 0 8 1 rw shared fixed file 0 0\nremap 0 0 0 2 may\nprotect 0 1 2 r\n\
                write 0 1 1 1\nlockall 0 nothing\nsetrlimit 0 vmem 16k\nmap 0 9 1 r priv hint anon\n\
                setrlimit 0 memlock 4k\nlock 0 0 2\nfetch 0 0\n";
    let answers: Vec<String> = result_of(text)
        .lines()
        .take_while(|l| !l.starts_with("P "))
        .filter_map(|l| l.split_once(' '))
        .map(|(n, rest)| match n {
            "#" => rest.rsplit(": ").next().unwrap_or_default().to_owned(),
            _ => rest.to_owned(),
        })
        .collect();
    let expected = [
        "ok",
        "ok",
        "ok",
        "ENOMEM",
        "ok",
        "ok",
        "EBUSY",
        "EBUSY",
        "ENOMEM",
        "EINVAL",
        "ENOMEM",
        "ENOMEM",
        "EINVAL",
        "ENOTSUP",
        "ENOTSUP",
        "EACCES",
        "ENXIO",
        "EOVERFLOW",
        "EACCES",
        "EINVAL",
        "ENOMEM",
        "SEGV at=0 code=accerr",
        "EINVAL",
        "ok",
        "ENOMEM",
        "ok",
        "EAGAIN",
        "SEGV at=0 code=accerr",
    ];
    assert_eq!(answers, expected);
}

#[test]
fn huge_ranges_cost_nothing_and_nothing_panics() {
    let text = "read 0 0 @max\nwrite 0 @null 16t 1\nfread 0 0 0 0 @max\nunmap 0 0 1t\n\
                map 0 0 16t rw priv fixed anon\nmap 0 @kern+4096 1 rw priv hint anon\n\
                map 0 0xfffffffffffff000 1 rw priv hint anon\nread 0 0xffffffffffffffff 0+5\n\
                file 1 0xffffffffffffffff\nfile 2 1t\npwrite 2 0xfffffffffffffff 10 1\n\
                pwrite 2 0 2g 1\ntruncate 2 16t\nfwrite 0 2 0xffffffffffffffff 0 1\n\
                brk 0 0xffffffffffffffff\nbrk 0 16t\nprotect 0 0 16t r\ndigest 0\n\
                lock 0 @kern @max\nincore 0 @top 3";
    let result = result_of(text);
    assert!(result.contains("F 2 size=17592186044416"), "{result}");
}

/// illumos.md 3.7 and 3.8: the range is looked at before what is wanted of it, so nothing below the last user address changes. Found by the fuzz target `machine`.
#[test]
fn a_range_that_passes_the_last_user_address_is_refused_whole() {
    let text = "map 0 @top 1 rw priv fixed anon\nprotect 0 @top 2 bad\nprotect 0 @top 2 r\n\
                write 0 @top 0+1 7\nlock 0 @top 2\nadvise 0 @top 1 dontneed\n";
    let answers: Vec<String> = result_of(text).lines().take(6).map(str::to_owned).collect();
    assert_eq!(answers, ["1 ok", "2 ENOMEM", "3 ENOMEM", "4 ok", "5 ENOMEM", "6 ok"]);
}

/// A mapping that goes elsewhere counts against the limit of the address space as well. Found by the fuzz target `machine`.
#[test]
fn a_moved_mapping_over_the_limit_is_refused() {
    let text = "map 0 0 4 rw priv fixed anon\nsetrlimit 0 vmem 20k\nmap 0 0 1 rw priv hint anon\n\
                map 0 0 2 rw priv hint anon\n";
    let result = result_of(text);
    let answers: Vec<&str> = result.lines().filter(|l| !l.starts_with('#')).take(3).collect();
    assert_eq!(answers, ["1 ok", "2 ok moved", "3 ENOMEM"]);
}

/// illumos takes away what a fixed mapping goes over before it looks at the limit of the address space. Found by the fuzz target `machine`.
#[test]
fn a_fixed_mapping_over_the_limit_leaves_nothing_where_it_was_to_be() {
    let text = "map 0 0 4 rw priv fixed anon\nsetrlimit 0 vmem 8k\nmap 0 0 1 rw priv fixed anon\n\
                read 0 0 1\nread 0 1 1\n";
    let result = result_of(text);
    let answers: Vec<&str> = result.lines().filter(|l| !l.starts_with('#')).take(4).collect();
    assert_eq!(answers[..3], ["1 ok", "2 ENOMEM", "3 SEGV at=0 code=maperr"]);
    assert!(answers[3].starts_with("4 ok"), "{result}");
}

/// What the script expects is what the model answers, and the machine.
fn both_answer(text: &str) {
    let script = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let options = RunOptions::default();
    Runner::new(Model::new(), options.clone())
        .run(&script, &mut Silent)
        .expect("the model answers so");
    let machine = MachineWorld::new(&script.machine()).expect("a machine");
    Runner::new(machine, options).run(&script, &mut Silent).expect("the machine answers so");
}

/// Who uses one address space with others sees and makes the same memory, and leaves it to them.
#[test]
fn processes_that_share_an_address_space_have_the_same_pages_and_limits() {
    let text = "map 0 0 2 rw priv fixed anon\nvfork 0 1\nwrite 1 0 1 65\nvfork 1 2\nread 0 0 0+1\n\
                expect ok b=41\nunmap 2 0 1\nread 0 0 1\nexpect SEGV at=0\nwrite 0 1 1 66\n\
                fork 2 3\nwrite 2 1 1 67\nread 3 1 0+1\nexpect ok b=42\nexit 2\nread 1 1 0+1\n\
                expect ok b=43\nsetrlimit 0 data 4k\nbrk 1 2\nexpect ok\nbrk 0 3\nexpect ENOMEM\n\
                setrlimit 1 memlock 4k\nlock 0 1 1\nexpect ok\nlock 0 b:0 1\nexpect EAGAIN\n\
                exit 0\nread 1 1 0+1\nexpect ok b=43\nexit 1\nread 3 1 0+1\nexpect ok b=42\n";
    both_answer(text);
}

/// A break may go down whatever the limit is by now; and of several wrong arguments of a mapping the first in illumos's order gives the answer.
#[test]
fn a_lowered_limit_and_several_mistakes_are_answered_alike() {
    let text = "brk 0 10\nsetrlimit 0 data 20480\nbrk 0 8\nexpect ok\nbrk 0 9\nexpect ENOMEM\n\
                map 0 @kern 1 rw neither fixed anon\nexpect EINVAL\nmap 0 @kern+1 1 rw priv fixed anon\nexpect EINVAL\n\
                map 0 0 @max rw neither hint anon\nexpect EINVAL\nmap 0 @kern 1 bad priv fixed anon\nexpect ENOTSUP\n\
                map 0 0+1 1 bad priv fixed anon\nexpect EINVAL\nmap 0 0 1 rw priv fixed anon\nmap 0 0 1 rw neither noreplace anon\nexpect EINVAL\n\
                file 0 10000 ro\nmap 0 @kern 1 rw shared fixed file 0 0\nexpect EACCES\nmap 0 0+1 1 rw shared fixed file 0 0\nexpect EACCES\n\
                map 0 20 1 rw shared fixed file 0 2251799813685248\nexpect ENXIO\nmap 0 20 2 rw shared fixed file 0 2251799813685247\nexpect EOVERFLOW\n\
                map 0 0 @max r shared hint file 0 0\nexpect ENOMEM\nmap 0 @kern 1 bad priv fixed file 0 0\nexpect ENOTSUP\n\
                map 0 0 @max bad priv hint file 0 0\nexpect EACCES\n";
    both_answer(text);
}

/// What a move goes over has gone when what stays behind is asked for its limit; where that is passed nothing has.
#[test]
fn a_move_that_stays_mapped_counts_without_what_it_goes_over() {
    let text = "map 0 0 4 rw priv fixed anon\nwrite 0 0 4 65\nmap 0 10 4 rw priv fixed anon\nwrite 0 10 4 66\n\
                setrlimit 0 vmem 32k\nremap 0 0 4 4 may+fixed+dontunmap 20\nexpect ENOMEM\n\
                remap 0 0 4 4 may+fixed+dontunmap 12\nexpect ENOMEM\nread 0 12 0+1\nexpect ok b=42\n\
                remap 0 0 4 4 may+fixed+dontunmap 10\nexpect ok\nread 0 10 0+1\nexpect ok b=41\n\
                read 0 0 0+1\nexpect ok b=00\nmap 0 30 1 rw priv fixed anon\nexpect ENOMEM\n";
    both_answer(text);
}
