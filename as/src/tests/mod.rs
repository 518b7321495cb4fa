//! What address spaces do, told by toys: a driver that notes every call and fails on order, and a hat that is a map.

mod callbacks;
mod contract;
mod edges;
mod errs;
mod faults;
mod forks;
mod gaps;
mod locks;
mod maps;
mod moves;
mod views;
mod watch;
