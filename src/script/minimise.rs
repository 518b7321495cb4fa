//! Making a failing script short.
//!
//! Any part of a script is again a script, so lines may be dropped freely while what is left still
//! fails: first halves, then quarters, down to single lines, until no single line can go.

/// Drops items for as long as `fails` says that what is left still fails, and returns what is left:
/// no single item of it can go. When `items` itself does not fail, it is returned as it is.
pub fn minimise<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = items.to_vec();
    if !fails(&left) {
        return left;
    }
    let mut piece = (left.len() / 2).max(1);
    loop {
        let mut cut = false;
        let mut at = 0;
        while at < left.len() {
            let end = (at + piece).min(left.len());
            let mut shorter = left[..at].to_vec();
            shorter.extend_from_slice(&left[end..]);
            if fails(&shorter) {
                left = shorter;
                cut = true;
            } else {
                at = end;
            }
        }
        if piece == 1 && !cut {
            return left;
        }
        piece = (piece / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_matters_is_left() {
        let items: Vec<u32> = (0..100).collect();
        let mut tries = 0;
        let short = minimise(&items, |part| {
            tries += 1;
            [7, 40, 93].iter().all(|n| part.contains(n))
        });
        assert_eq!(short, [7, 40, 93]);
        assert!(tries < 120, "{tries}");
    }

    #[test]
    fn what_does_not_fail_is_left_alone() {
        assert_eq!(minimise(&[1, 2], |_| false), [1, 2]);
        assert!(minimise::<u32>(&[], |_| true).is_empty());
    }
}
