//! The laws of the whole machine, attacked from outside.
//!
//! | file | law |
//! |---|---|
//! | [`damage`] | 3, 4, 5: `verify` sees every kind of damage, and names it |
//! | [`untouched`] | 1: 16 TiB that nobody touched cost what 16 KiB cost |

mod damage;
mod tally;
mod untouched;
mod world;
