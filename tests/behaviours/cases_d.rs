//! D: partial pages.

scripts! {
    d01_behind_the_end_are_zeros: "file 0 100; pwrite 0 0 100 1; map 0 0 1 r shared fixed file 0 0; read 0 0+98 0+4; expect ok b=63640000";
    d02_stores_there_do_not_count: "file 0 100; map 0 0 1 rw shared fixed file 0 0; write 0 0+100 0+8 65; expect ok; unmap 0 0 1
        pread 0 0 200; expect ok n=100";
    d04_a_private_copy_is_not_cut: "file 0 4096; map 0 0 1 rw priv fixed file 0 0; write 0 0 1 1; truncate 0 100
        read 0 0+200 0+1; expect ok b=c9";
    d05_the_gap_is_zeros: "file 0 2048; map 0 0 3 rw shared fixed file 0 0; read 0 0 1; pwrite 0 8192 4 65
        read 0 0+2047 0+3; expect ok b=000000; read 0 1 0+1; expect ok b=00; read 0 2 0+2; expect ok b=4142";
    d07_a_page_and_a_byte_are_two: "map 0 0 1+1 rw priv fixed anon; write 0 1 1 1; expect ok; read 0 2 0+1; expect SEGV at=0 code=maperr";
    d08_a_failed_write_extends_nothing: "file 0 100; fwrite 0 0 200 40 0+8; expect EFAULT; pread 0 0 300; expect ok n=100";
}
