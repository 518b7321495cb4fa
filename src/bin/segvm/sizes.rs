//! `segvm sizes`: what a page and a segment cost, counted by the allocator of this very process.

use std::alloc::System;
use std::process::ExitCode;

use anyhow::Result;
use clap::ColorChoice;
use segvm::sizes::Sizes;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use crate::output::Out;

/// The system's allocator, which also says how much it has given out.
#[global_allocator]
static HEAP: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures bytes of metadata per page and per segment, beside illumos's and Linux's
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One JSON document instead of the table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn sizes(args: &Args, color: ColorChoice) -> Result<ExitCode> {
    let sizes = Sizes::measure(&|| {
        let stats = HEAP.stats();
        (stats.bytes_allocated - stats.bytes_deallocated) as u64
    })?;
    let mut out = Out::new(color);
    if args.json {
        out.json(&serde_json::to_value(&sizes)?);
    } else {
        out.put(&sizes.to_string());
    }
    out.finish()?;
    Ok(ExitCode::SUCCESS)
}
