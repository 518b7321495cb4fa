//! The contract of [`crate::Hat`], for anybody's hat. See [`page_db::contract`] for how suites work.

mod hat;

pub use hat::{HatCase, UseTranslation, check_hat, hat};
