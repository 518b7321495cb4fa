//! Bytes, made into a script by the grammar, run on a machine.

#![no_main]

#[path = "../src/grammar.rs"]
mod grammar;
#[path = "../src/machine.rs"]
mod machine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| machine::run(data));
