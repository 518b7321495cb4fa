//! What is done, and where it begins.

/// One process and two files of one page.
pub(crate) const NOTHING: &str = "
    arena 3
    file 0 4096
    file 1 4096
    pwrite 0 0 1 97
    pwrite 1 0 1 98
";

/// A page of each kind, and a child.
pub(crate) const FORKED: &str = "
    arena 3
    file 0 4096
    file 1 4096
    pwrite 0 0 1 97
    pwrite 1 0 1 98
    map 0 0 1 rw priv fixed anon
    map 0 1 1 rw priv fixed file 0 0
    map 0 2 1 rw shared fixed file 1 0
    write 0 0 1 65
    fork 0 1
";

/// For a world with nothing in it.
pub(crate) const FROM_NOTHING: &str = "
    map 0 0 2 rw priv fixed anon
    map 0 1 1 rw shared fixed anon
    map 0 1 1 rw priv fixed file 0 0
    map 0 2 1 rw shared fixed file 1 0
    unmap 0 1 1
    protect 0 0 2 r
    protect 0 1 1 rw
    write 0 0 1 65
    write 0 1 1 66
    write 0 2 1 67
    read 0 1 1
    fork 0 1
    write 1 0 1 68
    write 1 1 1 69
    read 1 1 1
    unmap 1 0 3
    exit 0
    pageout *
    sync 0 2 1 sync
    advise 0 1 1 dontneed
    lock 0 0 1
    unlock 0 0 1
    truncate 0 0
    remap 0 0 1 1 may+fixed 1
    remap 0 1 1 1 may+fixed+dontunmap 0
    advise 0 0 2 willneed
    advise 0 1 1 discard
    inherit 0 0 2 share
    vfork 0 1
";

/// For a world with everything in it.
pub(crate) const AFTER_FORK: &str = "
    write 0 0 1 66
    write 0 1 1 66
    write 0 2 1 67
    write 1 0 1 68
    write 1 1 1 69
    read 0 0 1
    read 0 1 1
    read 1 0 1
    read 1 2 1
    pageout *
    unmap 0 0 2
    unmap 1 0 3
    exit 0
    exit 1
    fork 0 1
    fork 1 0
    map 0 0 2 rw priv fixed anon
    map 1 1 1 rw shared fixed anon
    map 1 0 1 rw priv fixed file 1 0
    protect 0 0 2 r
    protect 1 1 1 rw
    protect 1 0 1 -
    sync 0 2 1 sync
    sync 1 1 1 inval
    advise 0 1 1 dontneed
    advise 0 0 1 inherit_zero
    lock 0 0 1
    unlock 0 0 1
    lock 1 1 1
    truncate 0 0
    truncate 0 4096
    pwrite 1 0 1 70
    remap 0 0 1 2 none
    remap 0 0 1 1 may+fixed 1
    remap 1 1 1 1 may+fixed+dontunmap 0
    remap 1 2 1 1 may
    advise 0 0 2 willneed
    advise 0 1 1 discard
    advise 1 0 1 discard
    inherit 0 0 2 share
    inherit 1 1 2 copy
    inherit 1 0 1 none
    vfork 0 1
";

/// The same world, with words that change what others do: few enough to go deep.
pub(crate) const DEEP: &str = "
    write 0 0 1 66
    write 1 0 1 68
    write 1 1 1 69
    write 1 2 1 67
    read 1 1 1
    pageout *
    map 0 0 2 rw priv fixed anon
    unmap 1 0 2
    protect 1 1 1 r
    truncate 0 0
    advise 1 0 1 discard
    remap 0 0 1 1 may+fixed 1
    inherit 1 0 2 share
    exit 0
    fork 1 0
";
