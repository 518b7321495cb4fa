//! The README's tables of differences: every row names a test that holds it, and every such test is there. Those that no other list has are here.

use crate::Scene;
use page_db::PAGE_SIZE;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

scripts! {
    a_sync_writes_anonymous_pages_to_swap: "map 0 0 2 rw priv fixed anon; write 0 0 2 65; sync 0 0 2 sync; expect ok
        expect counter anonpgout +2; read 0 0 0+1; expect ok b=41";
    an_unlock_of_what_is_not_locked_is_ok: "map 0 0 3 rw priv fixed anon; lock 0 0 1; unlock 0 0 3; expect ok; unlock 0 0 3; expect ok";
    a_transfer_is_looked_at_whole_before_a_byte_moves: "file 0 10000 rw; map 0 0 1 rw priv fixed anon; fread 0 0 10000 @kern 1; expect EFAULT
        fread 0 0 0 @kern 0; expect EFAULT; fread 0 0 0x8000000000000000 0 0; expect EINVAL; fread 0 0 0 0 @max; expect EFAULT
        fwrite 0 0 0x7ffffffffffff800 0 1; expect EFBIG; personality 0 linux; fread 0 0 10000 @kern 1; expect EFAULT";
    any_file_may_be_mapped_to_be_run: "file 0 4096; map 0 0 1 rx priv fixed file 0 0; expect ok; fetch 0 0; expect ok
        map 0 1 1 r shared fixed file 0 0; protect 0 1 1 rx; expect ok";
    stores_alone_allow_loads: "map 0 0 1 w priv fixed anon; map 0 1 1 x priv fixed anon; write 0 0 0+1 65; expect ok
        read 0 0 0+1; expect ok b=41; read 0 1 0+1; expect ok b=00; write 0 1 0+1 1; expect SEGV at=0 code=accerr";
    what_will_be_needed_ends_with_the_file: "file 0 4096; map 0 0 2 r priv fixed file 0 0; advise 0 0 1 willneed; expect ok
        advise 0 0 2 willneed; expect EFAULT; map 0 8 2 rw priv fixed file 0 0; advise 0 9 1 willneed; expect EFAULT";
}

#[test]
fn what_is_written_stays_mapped_however_short_memory_is() {
    let mut s = Scene::on("machine memory=96 swap=mem:256");
    s.run("map 0 0 8 rw priv fixed anon; write 0 0 8 65");
    let lotsfree = s.machine().db().free_mem().thresholds().lotsfree;
    s.run(&format!("squeeze {}", s.machine().db().freemem() - lotsfree + 1));
    assert!(s.machine().db().freemem() < lotsfree);
    let before: Vec<_> = (0..8).map(|page| s.frame(0, page)).collect();
    s.run("sync 0 0 8 sync; expect ok; expect counter anonpgout +8; expect counter dfree +0");
    assert!(before.iter().all(Option::is_some));
    assert_eq!((0..8).map(|page| s.frame(0, page)).collect::<Vec<_>>(), before);
    s.run("release");
    s.end();
}

#[test]
fn the_highest_hole_is_taken_whatever_was_mapped_before() {
    let s = Scene::new();
    let map = || s.process(0).map_anon(4 * PAGE_SIZE).expect("room");
    let (first, second, third) = (map(), map(), map());
    assert!(first > second && second > third);
    s.process(0).munmap(first, 4 * PAGE_SIZE).expect("mapped");
    assert_eq!(map(), first);
    s.end();
}

#[test]
fn a_fault_without_memory_is_a_bus_error() {
    let mut s = Scene::on("machine memory=96 swap=mem:256");
    s.run("map 0 0 2 rw priv fixed anon; write 0 0 1 65");
    let (db, cx) = (s.machine().db(), s.machine().cx());
    let take = || cx.freeing_memory(|| db.alloc(cx, 0, page_db::Reserve::Normal)).ok();
    let all: Vec<_> = std::iter::from_fn(take).collect();
    let refused = s.process(0).store(crate::addr(1).get(), &[1]).expect_err("no frame at all");
    assert_eq!(refused.signal, addr_space::Signal::BusObjErr(page_db::errno::ENOMEM));
    all.into_iter().for_each(|page| db.free(cx, page, false));
    s.run("write 0 1 0+1 66; expect ok");
    s.end();
}

#[test]
fn more_than_a_third_of_memory_may_be_locked() {
    let mut s = Scene::on("machine memory=512 swap=mem:512");
    s.run("map 0 0 256 rw priv fixed anon; lock 0 0 256; expect ok; unlock 0 0 256");
    s.end();
}

#[test]
fn two_openings_of_a_host_file_are_two_files() {
    let s = Scene::new();
    let path = std::env::current_exe().expect("a path");
    let open = || s.machine().open_host_file(&path, false).expect("readable");
    let (one, two) = (open(), open());
    assert_ne!(page_db::Vnode::id(&*one), page_db::Vnode::id(&*two));
    drop((one, two));
    s.end();
}

#[test]
fn a_fork_without_swap_for_the_child_is_enomem_and_a_mapping_eagain() {
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    let room = s.machine().swap().info();
    let rest = room.max + room.avail_mem - room.reserved();
    s.run(&format!(
        "map 0 0 {} rw priv fixed anon; expect ok; fork 0 1; expect ENOMEM",
        rest * 3 / 4
    ));
    s.run(&format!("map 0 0x7f0000000000 {} rw priv fixed anon; expect EAGAIN", rest * 3 / 4));
    s.end();
}

/// The sources of tests: what is behind `fn` or stands as a name of a script.
fn names() -> BTreeSet<String> {
    fn walk(at: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(at).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => walk(&path, files),
                false if path.extension().is_some_and(|e| e == "rs") => files.push(path),
                false => {}
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for part in ["page-db/src", "as/src", "swapfs/src", "hat-x86/src", "seg-drivers/src", "src"] {
        walk(&root.join(part), &mut files);
    }
    for target in ["it", "behaviours", "laws", "sim", "contract", "cli", "linux", "small", "heap"] {
        walk(&root.join("tests").join(target), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = std::fs::read_to_string(file).expect("text");
        let tests =
            text.split("#[test]").skip(1).filter_map(|t| t.split_once("fn ")?.1.split_once('('));
        names.extend(tests.map(|(name, _)| name.to_owned()));
        names.extend(scripts_of(&text));
    }
    names
}

/// The names in the `scripts!` blocks of a source: `name: "..." ;` each, a block ends with a brace at a line's start.
fn scripts_of(text: &str) -> impl Iterator<Item = String> {
    let blocks = text.split("\nscripts! {\n").skip(1).filter_map(|b| b.split("\n}").next());
    let named = blocks.flat_map(str::lines).filter_map(|l| l.strip_prefix("    ")?.split_once(':'));
    let word = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    named.filter(move |(name, _)| word(name)).map(|(name, _)| name.to_owned())
}

#[test]
fn only_scripts_and_tests_are_names() {
    let source = "struct S {\n    field: u32,\n}\nscripts! {\n    one: \"a\n        : b\";\n    two:\n        \"c\";\n}\nstruct T {\n    other: u8,\n}\n";
    assert_eq!(scripts_of(source).collect::<Vec<_>>(), ["one", "two"]);
    let names = names();
    assert!(names.contains("stores_alone_allow_loads") && !names.contains("softlocks"));
}

#[test]
fn each_difference_names_a_test_that_is_there() {
    let (names, mut rows) = (names(), 0);
    let mut section = "";
    for line in include_str!("../../README.md").lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title;
        }
        if !section.starts_with("Differences from") || !line.starts_with("| ") {
            continue;
        }
        let here = line.trim_matches(['|', ' ']);
        if here.starts_with("here |") {
            continue;
        }
        // What is not built has a list of its own ([`crate::not_built`]); a name that is none of a test is one of the library's.
        let named = line.split('`').skip(1).step_by(2).filter(|name| names.contains(*name)).count();
        assert!(named != 0 || here.starts_with("Not built"), "no test holds this: {line}");
        // The last column has nothing but tests.
        let last = here.rsplit(" | ").next().unwrap_or_default();
        for test in last.split('`').skip(1).step_by(2).filter(|_| last.starts_with('`')) {
            assert!(names.contains(test), "there is no test {test}: {line}");
        }
        rows += 1;
    }
    assert!(rows > 40, "{rows} rows");
}
