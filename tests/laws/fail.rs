//! Law 2: what fails leaves the state before or the state after.
//!
//! Each operation is done on a small world in which everything occurs, in each of several [`world::Situation`]s, with one request refused: the first, the
//! second, ... frame, record, number, promise, slot or transfer that it asks for ([`page_db::fail`]). Then every invariant is checked, and the state of the
//! whole machine ([`segvm::machine::WorldDump`]) is compared with the state before and the state after. What failed is done again when nothing fails any more, and
//! must now succeed; and when everybody has exited nothing is left.
//!
//! | file | |
//! |---|---|
//! | [`world`] | the world, and the situations it can be in |
//! | [`deeds`] | the operations |
//! | [`sweep`] | every deed, in every situation, with every request refused |
//! | [`starve`] | every deed, with few frames or few promises left: nothing is refused, there is no more |
//!
//! Exceptions, all of illumos's or of the device's making: bytes of a swap page that could not be read are lost ([`swapfs`] asks no device
//! twice); an operation that goes page by page (an access, a transfer, a write-out) has done the pages before; a fixed mapping
//! that fails has unmapped what was there.
//!
//! `SEGVM_FAIL_WIDE=1` also tries two failures in one operation: each request of any kind with each early request of each kind.

mod deeds;
mod starve;
mod sweep;
mod world;
