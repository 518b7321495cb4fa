//! segvm: the illumos virtual memory system as a framework of trait objects, assembled.

#![forbid(unsafe_code)]

pub mod files;
pub mod model;
pub mod script;
