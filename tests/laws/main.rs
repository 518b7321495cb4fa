//! The laws of the whole machine, attacked from outside.
//!
//! | file | law |
//! |---|---|
//! | [`damage`] | 3, 4, 5: `verify` sees every kind of damage, and names it |
//! | [`bad_input`] | 7: whatever is asked for, the answer is an errno or a signal |
//! | [`liars`] | 7: whatever objects and drivers answer, the caller has an errno or a signal |
//! | [`fail`] | 2: what fails leaves the state before or the state after |
//! | [`script_errors`] | what is wrong with a script is said with line and column |
//! | [`untouched`] | 1: 16 TiB that nobody touched cost what 16 KiB cost |

mod bad_input;
mod damage;
mod fail;
mod liars;
mod script_errors;
mod tally;
mod untouched;
mod world;
