//! Small things this crate's own tests share.

use crate::{Counters, CpuId, Cx, ThreadId, cx::SpinHooks};
use alloc::sync::Arc;

pub(crate) fn cx() -> Cx {
    Cx::new(&Counters::new(1), CpuId(0), ThreadId(0), Arc::new(SpinHooks))
}
