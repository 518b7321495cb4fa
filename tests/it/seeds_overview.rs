//! The illumos overview: what each of its sentences says, shown from live structures.
//!
//! | the note | here |
//! |---|---|
//! | top-down: proc_t, as, AVL of segs, drivers, vnodes and anons | `top_down` |
//! | what seg_vn does for files and anonymous memory | `seg_vn` |
//! | bottom-up: page_t, page_hash, v_pages, freelist, cachelist | `bottom_up` |
//!
//! The figures the note cites are drawn in `textbook`.
//!
//! Sources: the illumos overview note; illumos.md 1.3 (its concept rows), 4.5, 12.

mod bottom_up;
mod seg_vn;
mod top_down;
