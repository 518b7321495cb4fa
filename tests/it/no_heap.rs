//! What a heap that refuses leaves as it was.

use crate::allocations::refusing;
use page_db::{FileOffset, PAGE_SIZE, PutFlags, Vnode};
use segvm::Machine;
use segvm::files::{File, FileError};

/// Truncation lists the pages it destroys before it cuts anything.
#[test]
fn a_file_is_cut_whole_or_not_at_all() {
    const PAGES: u64 = 2000;
    let m = Machine::builder().frames(4096).build().expect("a machine");
    let (cx, db) = (m.cx(), m.db());
    let file = File::in_memory(cx, db, "f", 0).expect("a file");
    let bytes = vec![7; (PAGES * PAGE_SIZE) as usize];
    assert_eq!(file.pwrite(cx, db, 0, &bytes), Ok(bytes.len()));
    let refused = refusing(8 * 1024, || file.truncate(cx, db, 1));
    assert!(matches!(refused, Err(FileError::Vnode(_))), "{refused:?}");
    assert_eq!(refused.map_err(|e| e.errno()), Err(page_db::errno::ENOMEM));
    assert_eq!((file.size(), db.vnode_page_count(cx, file.id())), (PAGES * PAGE_SIZE, PAGES));
    // So it can be written back, and read again.
    file.put_page(cx, db, FileOffset(0), 0, PutFlags::INVAL).expect("written");
    let mut back = vec![0; bytes.len()];
    assert_eq!(file.pread(cx, db, 0, &mut back), Ok(bytes.len()));
    assert!(back == bytes);
    file.truncate(cx, db, 1).expect("cut");
    assert_eq!((file.size(), db.vnode_page_count(cx, file.id())), (1, 1));
    m.verify().expect("sound");
}
