//! The behaviours of illumos.md 12, by its sections.

mod anon;
mod pageout_hat;
mod pages;
mod seg_vn;
mod space;
mod swap_files;
