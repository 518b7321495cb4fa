//! G: mremap, which exists on Linux alone. Not built: every way is answered `ENOTSUP`, and changes nothing.

scripts! {
    g01_the_same_size: "map 0 0 1 rw priv fixed anon; remap 0 0 1 1 none; expect ENOTSUP; write 0 0 1 1; expect ok";
    g02_shrunk_in_place: "map 0 0 3 rw priv fixed anon; remap 0 0 2 1 none; expect ENOTSUP; write 0 0 3 1; expect ok";
    g04_grown_in_place: "map 0 0 1 rw priv fixed anon; remap 0 0 1 2 none; expect ENOTSUP; read 0 1 0+1; expect SEGV at=0 code=maperr";
    g05_moved_to_grow: "map 0 0 2 rw priv fixed anon; write 0 1 0+1 65; remap 0 0 1 4 may; expect ENOTSUP; read 0 1 0+1; expect ok b=41";
    g07_moved_to_a_place: "map 0 0 1 rw priv fixed anon; write 0 0 0+1 65; remap 0 0 1 1 may+fixed 8; expect ENOTSUP
        read 0 0 0+1; expect ok b=41; read 0 8 0+1; expect SEGV at=0 code=maperr";
    g08_moved_and_shrunk: "map 0 0 2 rw priv fixed anon; remap 0 0 2 1 may+fixed 8; expect ENOTSUP; read 0 1 0+1; expect ok";
    g10_a_second_mapping: "map 0 0 1 rw shared fixed anon; remap 0 0 0 1 may; expect ENOTSUP";
    g11_copies_and_growth: "file 0 12288; map 0 0 2 rw priv fixed file 0 0; write 0 1 0+1 100; remap 0 0 2 3 may; expect ENOTSUP
        read 0 1 0+1; expect ok b=64";
    g13_wrong_ranges: "remap 0 0+1 1 1 none; expect ENOTSUP; remap 0 0 1 1 none; expect ENOTSUP";
    g14_back_and_forth: "file 0 8192; map 0 0 2 r shared fixed file 0 0; remap 0 1 1 1 may+fixed 8; expect ENOTSUP; read 0 1 1; expect ok";
    g16_locked: "map 0 0 1 rw priv fixed anon; lock 0 0 1; remap 0 0 1 2 may; expect ENOTSUP";
}
