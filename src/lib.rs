//! segvm: the illumos virtual memory system as a framework of trait objects, assembled.

#![forbid(unsafe_code)]

pub mod files;
pub mod machine;
pub mod model;
pub mod script;
pub mod view;

pub use machine::{BootError, Machine, MachineBuilder, MapFlags, MapRequest, Pid, Process, SysError};
