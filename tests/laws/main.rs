//! The laws of the whole machine, attacked from outside.
//!
//! | file | law |
//! |---|---|
//! | [`untouched`] | 1: 16 TiB that nobody touched cost what 16 KiB cost |

mod tally;
mod untouched;
mod world;
