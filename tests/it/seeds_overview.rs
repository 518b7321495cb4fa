//! The illumos overview: what each of its sentences says, shown from live structures.
//!
//! | the note says | shown in |
//! |---|---|
//! | proc_t leads to an as, that to an AVL tree of segs; kas is another as | `top_down` |
//! | a seg has data and methods of its driver, a class derived from seg | `top_down` |
//! | a file mapping is a vnode and an offset; anonymous memory has anons, anon maps, places in swapfs, names in page_hash | `top_down` |
//! | identity vnodes are made where none is natural; text, data, heap and stack all lead to vnodes and offsets; everything is a file | `top_down` |
//! | seg_vn does the work of mapping files and anonymous memory | `seg_vn` |
//! | one page_t for each page, serving many lists at once: page_hash with its collision chains, v_pages, the freelist by colour and size | `bottom_up` |
//! | the cachelist: contents kept, and found again without i/o | `bottom_up` |
//!
//! One page size is populated so far, and there is no segmap: of these two rows only what exists is shown.
//!
//! The figures the note cites are drawn in `textbook`.
//!
//! Sources: the illumos overview note; illumos.md 1.3 (its concept rows), 4.5, 12.

mod bottom_up;
mod seg_vn;
mod top_down;
