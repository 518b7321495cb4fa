//! The page layer's own tests, one file for each subject.

mod claims;
mod create;
mod damage;
mod foreign;
mod free;
mod lend;
mod locks;
mod lookup;
mod place;
mod random;
mod retire;
mod run;
mod threads;
