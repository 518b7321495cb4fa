//! UVM's behaviours of anonymous memory, under the eager fork policy and ([`lazy`]) under the lazy one: each with its fault cases, its copies, its translations.
//!
//! The lines of a story read: what is done; what every process has then (anon, references, rights); what it cost. Where loads are not
//! about neighbours the range is advised `random`, which turns fault-ahead off.
//!
//! Where illumos differs from UVM the test shows what illumos does, and says so (20, 21, 26, 27, 28, 29).
//!
//! Sources: uvm.md 9, whose numbers the tests carry; those of [`lazy`] are of the differences that it marks "L:". [UVM §4, §5].

mod borrowed;
mod lazy;
pub(crate) mod loans;
mod moves;
mod pressure;
mod private;
mod shared;
mod swap;

use crate::Scene;

/// Private anonymous memory of two pages in process 0, no fault-ahead.
const TWO: &str = "map 0 0 2 rw priv fixed anon; advise 0 0 2 random";
/// Both pages stored to: `A` in the first, `B` in the second; then a fork.
const TOUCHED: &str = "write 0 0 0+1 65; write 0 1 0+1 66";

fn scene(setup: &str) -> Scene {
    let mut s = Scene::new();
    s.run(setup);
    s
}

/// Two touched pages, forked into process 1.
fn forked() -> Scene {
    let mut s = scene(TWO);
    s.run(TOUCHED);
    s.story(
        2,
        "
        fork 0 1 | 0[a:2/r-- b:2/r--] 1[a:2/- b:2/-] |
    ",
    );
    s
}
