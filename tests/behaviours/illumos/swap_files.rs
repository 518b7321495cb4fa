//! Swap in files of the host: one file has many names, and its bytes are in use under all of them (illumos.md 6.5).

use crate::Scene;
use std::path::{Path, PathBuf};

/// A directory of this test's own.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("segvm-swap-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        Self(dir)
    }
    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A machine with 64 pages of swap in `file`, and 32 pages of a process on it.
fn swapped(file: &Path) -> Scene {
    let mut s = Scene::on(&format!("machine memory=256 swap=file:{file:?}:64"));
    s.run("map 0 0 128 rw priv fixed anon; write 0 0 32 7; expect ok; pageout *; squeeze 400");
    s.run("release");
    assert_eq!(s.machine().swap().list()[0].free, 32, "the rest of the file is free");
    s
}

/// What `write 0 0 32 7` stored is there still.
fn intact(s: &mut Scene) {
    for page in [0, 1, 20, 31] {
        s.run(&format!("read 0 {page} 0+1; expect ok b=07"));
    }
}

#[test]
fn a_refused_swapadd_leaves_the_file_in_use_as_it_is() {
    let dir = Dir::new("refused");
    let file = dir.join("x");
    let mut s = swapped(&file);
    let before = std::fs::read(&file).expect("the file");
    assert_eq!(before.len(), 64 * 4096);
    for pages in [4, 64, 100] {
        s.run(&format!("swapadd file {file:?} {pages}; expect EEXIST"));
        assert!(std::fs::read(&file).expect("the file") == before, "{pages} pages");
    }
    s.run(&format!("swapadd file {file:?} 0; expect EINVAL"));
    assert!(std::fs::read(&file).expect("the file") == before);
    intact(&mut s);
    s.end();
}

#[test]
fn one_file_under_many_names_is_one_area() {
    let dir = Dir::new("names");
    let file = dir.join("y");
    let mut s = swapped(&file);
    std::fs::create_dir(dir.join("sub")).expect("a directory");
    std::os::unix::fs::symlink(&file, dir.join("soft")).expect("a symbolic link");
    std::fs::hard_link(&file, dir.join("hard")).expect("a hard link");
    for name in ["y", "./y", "sub/../y", "soft", "hard"] {
        s.run(&format!("swapadd file {:?} 64 pri=5; expect EEXIST", dir.join(name)));
    }
    s.run("write 0 64 32 107; expect ok; pageout *; squeeze 400; release");
    intact(&mut s);
    // Another file in the same directory is another matter; and a name that leads to another file by now is that file's.
    s.run(&format!("swapadd file {:?} 8; expect ok n=2", dir.join("z")));
    std::fs::rename(dir.join("z"), &file).expect("renamed");
    s.run(&format!("swapadd file {file:?} 8; expect EEXIST; swapdel 2; expect ok"));
    s.run(&format!("swapadd file {file:?} 8; expect ok n=3"));
    intact(&mut s);
    s.end();
}

#[test]
fn a_file_is_made_longer_and_never_cut() {
    let dir = Dir::new("longer");
    let (long, short) = (dir.join("long"), dir.join("short"));
    std::fs::write(&long, vec![9; 40 * 4096 + 100]).expect("written");
    std::fs::write(&short, [9; 100]).expect("written");
    let len = |file: &Path| std::fs::metadata(file).expect("there").len();
    let mut s = Scene::on("machine memory=256 swap=mem:64");
    s.run(&format!("swapadd file {long:?} 8; expect ok n=2"));
    assert_eq!(len(&long), 40 * 4096 + 100);
    s.run(&format!("swapadd file {short:?} 8; expect ok n=3"));
    assert_eq!(len(&short), 8 * 4096);
    assert_eq!(s.machine().swap().info().max, 64 + 8 + 8);
    s.end();
}
