//! Asking the heap, and taking no for an answer.
//!
//! What a caller can make as large or as many as he likes is asked for here, or by `try_reserve`, so that a refusal is an error he is told and not
//! the end of the program. What is not, and why, is listed in `docs/heap.md`.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The heap refused; nothing has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the heap refuses")]
pub struct NoHeap;

/// `n` values, made in order.
///
/// # Errors
/// [`NoHeap`]; none has been made.
pub fn boxed<T>(n: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, NoHeap> {
    let mut all = room(n)?;
    all.extend((0..n).map(make));
    Ok(all.into_boxed_slice()) // its capacity is its length: nothing is moved
}

/// `n` values, made in order, each of which may want heap of its own.
///
/// # Errors
/// [`NoHeap`]; those made are dropped.
pub fn try_boxed<T>(
    n: usize,
    make: impl FnMut(usize) -> Result<T, NoHeap>,
) -> Result<Box<[T]>, NoHeap> {
    let mut all = room(n)?;
    for one in (0..n).map(make) {
        all.push(one?);
    }
    Ok(all.into_boxed_slice())
}

/// An empty list with room for `n`.
///
/// # Errors
/// [`NoHeap`].
pub fn room<T>(n: usize) -> Result<Vec<T>, NoHeap> {
    let mut all = Vec::new();
    all.try_reserve_exact(n).map_err(|_| NoHeap)?;
    Ok(all)
}

/// Puts one more into a list.
///
/// # Errors
/// [`NoHeap`]; the list is as it was.
pub fn push<T>(list: &mut Vec<T>, one: T) -> Result<(), NoHeap> {
    list.try_reserve(1).map_err(|_| NoHeap)?;
    list.push(one);
    Ok(())
}
