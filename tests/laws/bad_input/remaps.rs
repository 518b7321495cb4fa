//! `mremap`, and showing memory twice.

use super::{Ground, HOLE, HUGE, KERNEL, MAX, Row, TOP, row, run, said};
use crate::world::{PAGE, at};
use page_db::{Access, VirtRange};
use segvm::machine::{Limit, RemapFlags, STACK_TOP};

/// Asks for what is mapped at an address, with a length, to be moved or resized.
fn mremap(g: &Ground, old: (u64, u64), new_len: u64, flags: u32, to: u64) -> String {
    said(g.p.mremap(old.0, old.1, new_len, RemapFlags::from_bits_retain(flags), to))
}

/// Does something to the lowest of the guard below the stack, which stays as it is.
fn on_guard(g: &Ground, f: fn(&Ground, u64) -> String) -> String {
    g.p.grow_stack(STACK_TOP - 1).unwrap();
    let guard = g.p.stack_guard().unwrap();
    let said = f(g, guard.start().get());
    let is = g.p.space().range_at(g.cx(), guard.start());
    assert_eq!((is, g.p.stack_guard()), (Some(guard), Some(guard)));
    said
}

const MAY: u32 = 1;
const TO: u32 = 3;
const STAYS: u32 = 5;

const MREMAP: &[Row] = &[
    row("an unknown flag", |g| mremap(g, (at(0), PAGE), PAGE, 9, 0), "EINVAL: an unknown flag"),
    row(
        "to a place, and may not move",
        |g| mremap(g, (at(0), PAGE), PAGE, 2, at(40)),
        "EINVAL: a move that may not move",
    ),
    row(
        "stays mapped, and may not move",
        |g| mremap(g, (at(0), PAGE), PAGE, 4, 0),
        "EINVAL: a move that may not move",
    ),
    row(
        "off the page boundary",
        |g| mremap(g, (at(0) + 1, PAGE), PAGE, MAY, 0),
        "EINVAL: the old address is not on a page boundary",
    ),
    row(
        "old length 0",
        |g| mremap(g, (at(0), 0), PAGE, MAY, 0),
        "EINVAL: a length of 0, or of more than there is",
    ),
    row(
        "new length 0",
        |g| mremap(g, (at(0), PAGE), 0, MAY, 0),
        "EINVAL: a length of 0, or of more than there is",
    ),
    row(
        "a new length that rounds up to 2^64",
        |g| mremap(g, (at(0), PAGE), MAX, MAY, 0),
        "EINVAL: a length of 0, or of more than there is",
    ),
    row(
        "an old length of 2^63",
        |g| mremap(g, (at(0), HUGE), PAGE, MAY, 0),
        "EINVAL: a length of 0, or of more than there is",
    ),
    row(
        "all of the user's addresses",
        |g| mremap(g, (at(0), PAGE), TOP, MAY, 0),
        "ENOMEM: no gap of 0x7ffffffff000 bytes",
    ),
    row(
        "another length for what stays",
        |g| mremap(g, (at(0), 2 * PAGE), PAGE, STAYS, 0),
        "EINVAL: what stays mapped has the length of what moves",
    ),
    row(
        "to a place off the page boundary",
        |g| mremap(g, (at(0), PAGE), PAGE, TO, at(40) + 8),
        "EINVAL: the new address is not on a page boundary",
    ),
    row(
        "to the first address past the user's",
        |g| mremap(g, (at(0), PAGE), PAGE, TO, TOP),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "to the kernel's half",
        |g| mremap(g, (at(0), PAGE), PAGE, TO, KERNEL),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "to a place whose end wraps",
        |g| mremap(g, (at(0), PAGE), 2 * PAGE, TO, 0u64.wrapping_sub(PAGE)),
        "EINVAL: the range leaves the user's addresses",
    ),
    row(
        "onto itself",
        |g| mremap(g, (at(0), PAGE), PAGE, TO, at(0)),
        "EINVAL: the old and the new range overlap",
    ),
    row(
        "onto a page of itself that is cut off",
        |g| mremap(g, (at(0), 2 * PAGE), PAGE, TO, at(1)),
        "EINVAL: the old and the new range overlap",
    ),
    row(
        "an old range that wraps",
        |g| mremap(g, (0u64.wrapping_sub(PAGE), 2 * PAGE), PAGE, MAY, 0),
        "EINVAL: the old range wraps",
    ),
    row(
        "an old range in the hole",
        |g| mremap(g, (HOLE, PAGE), PAGE, MAY, 0),
        "EFAULT: the old range is no user range",
    ),
    row(
        "an old range in the kernel's half",
        |g| mremap(g, (KERNEL, PAGE), 2 * PAGE, MAY, 0),
        "EFAULT: the old range is no user range",
    ),
    row(
        "nothing mapped",
        |g| mremap(g, (at(40), PAGE), PAGE, MAY, 0),
        "EFAULT: nothing is mapped at 0x100000028000",
    ),
    row(
        "a hole behind",
        |g| mremap(g, (at(2), 4 * PAGE), PAGE, MAY, 0),
        "EFAULT: nothing is mapped at 0x100000004000",
    ),
    row(
        "a guard as it is",
        |g| on_guard(g, |g, guard| mremap(g, (guard, 2 * PAGE), 2 * PAGE, 0, 0)),
        "EFAULT: nothing is mapped at 0x7fffee600000",
    ),
    row(
        "a guard, less of it",
        |g| on_guard(g, |g, guard| mremap(g, (guard, 2 * PAGE), PAGE, 0, 0)),
        "EFAULT: nothing is mapped at 0x7fffee600000",
    ),
    row(
        "a guard, more of it",
        |g| on_guard(g, |g, guard| mremap(g, (guard, PAGE), 2 * PAGE, MAY, 0)),
        "EFAULT: nothing is mapped at 0x7fffee600000",
    ),
    row(
        "a guard elsewhere",
        |g| on_guard(g, |g, guard| mremap(g, (guard, PAGE), PAGE, TO, at(40))),
        "EFAULT: nothing is mapped at 0x7fffee600000",
    ),
    row(
        "a guard shown twice",
        |g| on_guard(g, |g, guard| said(g.p.share_range(guard, PAGE, &g.p))),
        "EFAULT: nothing is mapped at 0x7fffee600000",
    ),
    row(
        "no room, and may not move",
        |g| mremap(g, (at(8), PAGE), 2 * PAGE, 0, 0),
        "ENOMEM: something is mapped behind it",
    ),
    row(
        "pinned",
        |g| {
            let (space, range) = (g.p.space(), VirtRange::exact(at(0), PAGE).unwrap());
            let pinned = space.lock_pages(g.cx(), range, Access::Write).unwrap();
            let said = mremap(g, (at(2), PAGE), PAGE, TO, at(40));
            space.unlock_pages(g.cx(), pinned).expect("pinned here");
            said
        },
        "EAGAIN: pages of 0x100000002000..0x100000003000 are pinned",
    ),
    row(
        "more than may be mapped",
        |g| {
            g.p.set_limit(Limit::Vmem, 18 * PAGE);
            mremap(g, (at(0), PAGE), 5 * PAGE, MAY, 0)
        },
        "ENOMEM: 0x4000 bytes more would pass the address-space limit of 0x12000",
    ),
    row(
        "shown to a process of another machine",
        |g| {
            let other = Ground::new();
            said(g.p.share_range(at(0), PAGE, &other.p))
        },
        "EINVAL: a process of another machine",
    ),
    row(
        "shown twice, a hole behind",
        |g| said(g.p.share_range(at(2), 4 * PAGE, &g.p)),
        "EFAULT: nothing is mapped at 0x100000004000",
    ),
];

#[test]
fn wrong_remaps() {
    run(Ground::new, MREMAP);
}
