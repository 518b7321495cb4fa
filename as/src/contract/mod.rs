//! The contracts of [`crate::Hat`] and [`crate::SegOps`], for anybody's hat and anybody's driver. See [`page_db::contract`] for how suites work.

mod hat;
mod seg;

pub use hat::{HatCase, UseTranslation, check_hat, hat};
pub use seg::{SegCan, SegCase, check_seg_ops, seg_ops};
