//! What seg_vn does, as the truth table of a fault; its other behaviours are listed and tested by number (`tests/behaviours/illumos`).

use crate::Scene;

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

// ---- the truth table of a fault: kind of mapping, what the slot holds, access ----

#[test]
fn private_anonymous_memory() {
    let mut s = scene("map 0 0 2 rw priv fixed anon; advise 0 0 2 random");
    s.story(
        2,
        "
        # slot empty, load or store: a zero page of its own, full rights
        read 0 0 0+1             | 0[a:1/rw- .]                   | f1 2B1 zf1
        write 0 1 0+1 1          | 0[a:1/rw- b:1/rw-]             | f1 2B1 zf1
        fork 0 1                 | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-]     |
        # two references, load: the same page without write; store: a copy
        read 1 0 0+1             | 0[a:2/r-- b:2/r--] 1[a:2/r-- b:2/-]   | f1 1A1
        write 1 1 0+1 1          | 0[a:2/r-- b:1/r--] 1[a:2/r-- c:1/rw-] | f1 1B1 cp1
        # one reference, any access: the same page, full rights
        exit 0                   | 1[a:1/r-- c:1/rw-]             |
        write 1 0 0+1 1          | 1[a:1/rw- c:1/rw-]             | f1 1A1
    ",
    );
    s.end();
}

#[test]
fn a_private_file_mapping() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 1; map 0 0 2 rwx priv fixed file 0 0; advise 0 0 2 random",
    );
    s.story(
        2,
        "
        # slot empty, load or fetch: the page cache's page without write, no anon map
        read 0 0 0+1    | 0[file/r-x .]                         | f1 2A1
        fetch 0 1       | 0[file/r-x file/r-x]                  | f1 2A1
        # store: a copy
        write 0 0 0+1 9 | 0[a:1/rwx file/r-x]                   | f1 2B1 cp1
        # slot filled: as anonymous memory, the file is not asked again
        fork 0 1        | 0[a:2/r-x file/r-x] 1[a:2/- .]        |
        read 1 0 0+1    | 0[a:2/r-x file/r-x] 1[a:2/r-x .]      | f1 1A1
        write 1 0 0+1 8 | 0[a:1/r-x file/r-x] 1[b:1/rwx .]      | f1 1B1 cp1
    ",
    );
    s.end();
}

#[test]
fn a_shared_file_mapping() {
    let mut s = scene(
        "file 0 8192; pwrite 0 0 8192 1; map 0 0 2 rw shared fixed file 0 0; advise 0 0 2 random",
    );
    s.story(
        2,
        "
        read 0 0 0+1    | 0[file/rw- .]                  | f1 2A1
        write 0 1 0+1 9 | 0[file/rw- file/rw-]           | f1 2A1
        fork 0 1        | 0[file/rw- file/rw-] 1[. .]    |
        write 1 0 0+1 8 | 0[file/rw- file/rw-] 1[file/rw- .] | f1 2A1
        read 0 0 0+1; expect ok b=08 | 0[file/rw- file/rw-] 1[file/rw- .] |
    ",
    );
    s.end();
}

#[test]
fn shared_anonymous_memory() {
    let mut s = scene("map 0 0 1 rw shared fixed anon; fork 0 1; fork 0 2");
    s.story(
        1,
        "
        read 0 0 0+1    | 0[a:1/rw-] 1[a:1/-] 2[a:1/-]     | f1 2B1 zf1
        # full rights, however many see it
        read 1 0 0+1    | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/-]   | f1 1A1
        write 2 0 0+1 9 | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/rw-] | f1 1A1
        read 0 0 0+1; expect ok b=09 | 0[a:1/rw-] 1[a:1/rw-] 2[a:1/rw-] |
    ",
    );
    s.end();
}
