//! C: files, shared and private, truncation, the end of a file.

use crate::scene;
use page_db::{RefMod, errno};

scripts! {
    c01_shared_stores_are_in_the_file: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 0+2 65
        map 0 4 1 r shared fixed file 0 0; read 0 4 0+2; expect ok b=4142
        map 0 8 1 rw priv fixed anon; fread 0 0 0 8 0+2; expect ok n=2; read 0 8 0+2; expect ok b=4142";
    c02_private_stores_are_not: "file 0 4096; map 0 0 1 rw priv fixed file 0 0; write 0 0 0+2 65; sync 0 0 1 sync
        map 0 4 1 r shared fixed file 0 0; read 0 4 0+2; expect ok b=0000";
    c04_a_write_shows_at_once: "file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1
        pwrite 0 1 2 65; read 0 0 0+4; expect ok b=00414200";
    c05_a_write_shows_in_a_private_page: "file 0 4096; map 0 0 1 rw priv fixed file 0 0; read 0 0 1
        pwrite 0 0 1 65; read 0 0 0+1; expect ok b=41";
    c07_past_the_end: "file 0 4096; map 0 0 2 rw shared fixed file 0 0; map 0 4 2 rw priv fixed file 0 0
        read 0 1 0+1; expect BUS at=0; write 0 1 0+1 1; expect BUS at=0
        read 0 5 0+1; expect BUS at=0; write 0 5 0+1 1; expect BUS at=0";
    c08_its_code_is_objerr: "file 0 4096; map 0 0 2 rw shared fixed file 0 0
        read 0 0 2; expect BUS at=4096 code=objerr; write 0 1 0+1 1; expect BUS at=0 code=objerr";
    c10_wholly_past_the_end: "file 0 4096; map 0 0 1 r priv fixed file 0 4; expect ok; read 0 0 0+1; expect BUS at=0";
    c11_cut_off_after_the_touch: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1; truncate 0 0
        read 0 0 0+1; expect BUS at=0; write 0 0 0+1 1; expect BUS at=0";
    c13_down_and_up_is_zeros: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1
        truncate 0 0; truncate 0 4096; read 0 0 0+2; expect ok b=0000
        map 0 4 1 rw priv fixed anon; fread 0 0 0 4 1; read 0 4 0+2; expect ok b=0000";
    c14_to_half_a_page: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1; truncate 0 2048
        read 0 0 0+2; expect ok b=0102; read 0 0+2047 0+3; expect ok b=000000";
    c16_grown_to_a_page: "file 0 2048; map 0 0 1 rw shared fixed file 0 0; read 0 0 1; truncate 0 4096
        write 0 0+3000 0+1 65; map 0 4 1 rw priv fixed anon; fread 0 0 3000 4 0+1; expect ok n=1; read 0 4 0+1; expect ok b=41";
    c17_a_dirty_private_page_and_six_sizes: "file 0 4096; map 0 0 1 rw priv fixed file 0 0; write 0 0 1 1
        truncate 0 0; expect ok; truncate 0 512; expect ok; truncate 0 1024; expect ok; truncate 0 2048; expect ok
        truncate 0 341; expect ok; truncate 0 64; expect ok; read 0 0 0+2; expect ok b=0102";
    c19_locked_cut_off_and_grown: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 1; lock 0 0 1; expect ok
        truncate 0 0; truncate 0 4096; read 0 0 0+2; expect ok b=0000; unlock 0 0 1; expect ok";
    c20_locked_and_cut_off: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; lock 0 0 1; truncate 0 0; unlock 0 0 1; expect ok";
    c22_a_descriptor_that_only_reads: "file 0 4096 ro; map 0 0 1 rw shared fixed file 0 0; expect EACCES
        map 0 0 1 rw priv fixed file 0 0; expect ok; write 0 0 1 1; expect ok";
    c23_a_write_from_past_the_end: "file 0 4096; file 1 0; map 0 0 2 r shared fixed file 0 0; fwrite 0 1 0 1 0+8; expect EFAULT";
    c25_a_file_over_its_own_mapping: "file 0 8192; map 0 0 2 rw shared fixed file 0 0; write 0 0 0+3 97
        fread 0 0 0 0 2; expect ok n=8192; fwrite 0 0 0 0 2; expect ok n=8192; read 0 0 0+3; expect ok b=616263";
    c26_a_load_first: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; read 0 0 1; expect ok; write 0 0 1 1; expect ok";
    c31_writes_and_stores_by_turns: "file 0 4096; map 0 0 1 rw shared fixed file 0 0
        pwrite 0 0 2 65; write 0 0+2 0+2 67; pwrite 0 4 2 69; write 0 0+6 0+2 71; read 0 0 0+8; expect ok b=4142434445464748";
    c32_rights_raised_keep_track_of_stores: "file 0 4096; map 0 0 1 r shared fixed file 0 0; read 0 0 1
        protect 0 0 1 rwx; write 0 0 0+1 65; expect ok; sync 0 0 1 sync; expect counter pgpgout +1
        map 0 4 1 rw priv fixed anon; fread 0 0 0 4 0+1; read 0 4 0+1; expect ok b=41";
    c34_mappings_outlive_the_descriptor: "file 0 4096; map 0 0 1 rw shared fixed file 0 0; fclose 0; write 0 0 0+1 65; expect ok
        read 0 0 0+1; expect ok b=41";
    c35_a_copy_between_pages_of_the_file: "file 0 12288; pwrite 0 0 1 97; pwrite 0 4096 1 98; pwrite 0 8192 1 99
        map 0 0 3 rw priv fixed file 0 0; write 0 1 0+1 100; protect 0 1 1 r; protect 0 2 1 -; protect 0 2 1 rw; unmap 0 0 1
        map 0 0 1 rw priv fixed file 0 0
        read 0 0 0+1; expect ok b=61; read 0 1 0+1; expect ok b=64; read 0 2 0+1; expect ok b=63
        remap 0 1 1 2 may+fixed 8; expect ok; read 0 8 0+1; expect ok b=64; read 0 9 0+1; expect ok b=63; read 0 2 0+1; expect ok b=63
        remap 0 8 1 1 may+fixed 1; expect ok; read 0 0 0+1; expect ok b=61; read 0 1 0+1; expect ok b=64; read 0 9 0+1; expect ok b=63";
}

#[test]
fn c29_a_store_that_cannot_be_written_is_not_lost() {
    let mut s = scene("file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 0+1 65");
    s.file(0).fail_write(s.machine().cx(), 1, errno::ENOSPC);
    s.run("sync 0 0 1 sync; expect ENOSPC");
    assert!(crate::page(&s, 0, 0).ref_mod().contains(RefMod::MOD), "kept, and kept dirty");
    s.run("sync 0 0 1 sync; expect ok; expect counter pgpgout +1; read 0 0 0+1; expect ok b=41");
    s.end();
}

#[test]
fn c28_files_carry_no_times() {
    crate::not_built::no_word_for("stat 0");
    // Nothing of the whole machine says when, or whether, the same bytes were stored, written out or read.
    let mut s = scene(
        "file 0 4096; map 0 0 1 rw shared fixed file 0 0; write 0 0 1 65; sync 0 0 1 sync; read 0 0 1",
    );
    let before = s.machine().dump();
    for again in ["write 0 0 1 65; sync 0 0 1 sync; read 0 0 1", "pwrite 0 0 1 65; sync 0 0 1 sync"]
    {
        s.run(again);
        assert_eq!(s.machine().dump().visible(), before.visible(), "{again}");
    }
    s.end();
}
