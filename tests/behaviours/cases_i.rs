//! I: limits and overflow.

use crate::{Scene, addr};
use page_db::{PAGE_SIZE, errno};
use segvm::machine::{MapFlags, MapRequest};

scripts! {
    i01_almost_all_of_64_bits: "map 0 0 1 rw priv fixed anon; map 0 8 @maxpg rw priv fixed anon; expect ENOMEM; unmap 0 0 @maxpg; expect EINVAL
        protect 0 0 @maxpg r; expect ENOMEM; advise 0 0 @maxpg normal; expect ENOMEM; sync 0 0 @maxpg async; expect ENOMEM; read 0 0 1; expect ok";
    i02_up_to_the_wrap_and_over_it: "map 0 0 1 rw priv fixed anon; map 0 0 @wrap rw priv fixed anon; expect ENOMEM; unmap 0 0 @wrap; expect EINVAL
        protect 0 0 @wrap r; expect ENOMEM; advise 0 0 @wrap normal; expect ENOMEM; sync 0 0 @wrap async; expect ENOMEM
        map 0 0 @max rw priv fixed anon; expect ENOMEM; unmap 0 0 @max; expect EINVAL; read 0 0 1; expect ok";
    i04_the_first_page: "unmap 0 @null 1; expect ok; protect 0 @null 1 r; expect ENOMEM; lock 0 @null 1; expect ENOMEM; incore 0 @null 1; expect ENOMEM";
    i07_past_the_largest_offset: "file 0 4096; map 0 0 2 r shared fixed file 0 0x7ffffffffffff000; expect EOVERFLOW";
    i10_the_limit_of_the_address_space: "setrlimit 0 vmem 16384; map 0 0 4 rw priv fixed anon; expect ok; map 0 8 1 rw priv fixed anon; expect ENOMEM
        unmap 0 3 1; map 0 8 1 rw priv fixed anon; expect ok";
    i11_data_is_the_break: "setrlimit 0 data 8192; map 0 0 16 rw priv fixed anon; expect ok; protect 0 0 16 r; protect 0 0 16 rw; expect ok
        brk 0 2; expect ok; brk 0 3; expect ENOMEM";
    i13_growth_that_wraps_the_offset: "file 0 4096; map 0 0 1 r shared fixed file 0 2251799813685246; remap 0 0 1 2 none; expect EINVAL
        map 0 4 1 r shared fixed file 0 0; remap 0 4 1 @maxpg may; expect EINVAL; remap 0 4 1 @max may; expect EINVAL; read 0 4 1; expect ok";
    i16_locks_at_0_and_at_the_end: "lock 0 @null 1; expect ENOMEM; lock 0 0xffffffffffffffff 1; expect EINVAL; lock 0 0xfffffffffffff000 1; expect ENOMEM";
    i17_rights_by_page_of_a_huge_mapping: "map 0 0 16t rw priv fixed anon noreserve; expect ok; protect 0 1 1 r; expect ok; protect 0 1000000000 1 -; expect ok
        write 0 1 0+1 1; expect SEGV at=0 code=accerr; write 0 2 0+1 1; expect ok";
}

#[test]
fn i05_a_file_up_to_its_last_positive_page() {
    let s = Scene::new();
    let file = s.machine().create_file("f", PAGE_SIZE).expect("a file");
    let handle = segvm::files::FileHandle::new(file, segvm::files::OpenMode::ReadWrite);
    let at = |offset, len| MapRequest {
        addr: addr(0).get(),
        len,
        prot: 1,
        flags: MapFlags::SHARED | MapFlags::FIXED,
        file: Some(&handle),
        offset,
    };
    let last = (1 << 63) - PAGE_SIZE;
    let map = |offset, len| s.process(0).mmap(&at(offset, len)).map_err(|e| e.errno);
    assert_eq!(map(last, 2 * PAGE_SIZE), Err(errno::EOVERFLOW));
    assert_eq!(map(last - PAGE_SIZE, PAGE_SIZE), Ok(addr(0).get()));
    s.end();
}

#[test]
fn i08_mapping_until_nothing_more_goes() {
    let mut s = Scene::new();
    s.run("setrlimit 0 vmem 128k");
    let mut n = 0;
    while s.run(&format!("map 0 {} 1 rw priv fixed anon", 2 * n)).contains("-> ok") {
        n += 1;
    }
    assert_eq!(n, 32);
    s.run("unmap 0 0 64; expect ok; map 0 0 1 rw priv fixed anon; expect ok; write 0 0 1 1; expect ok");
    s.end();
}

#[test]
fn i14_the_last_pages_of_the_users_half() {
    // The same at the ends of page tables: hat-x86 `ranges`, as `edges`.
    let mut s = Scene::new();
    s.run("map 0 @top 1 rw priv fixed anon; expect ok; write 0 @top 1 65; expect ok; write 0 @top+4096 0+1 1; expect SEGV at=0 code=maperr");
    s.run("fork 0 1; read 1 @top 0+1; expect ok b=41; protect 0 @top 1 r; expect ok; unmap 0 @top 1; expect ok");
    s.end();
}
