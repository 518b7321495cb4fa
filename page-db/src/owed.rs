//! What must be given back, and would be lost without a word.
//!
//! A pin or a loan is a value that its holder gives back with a [`crate::Cx`], so no `Drop` can do it for him; and `#[must_use]` does not see a value that is bound to a
//! name and forgotten. What comes of it shows much later and elsewhere: an unmap that sleeps for ever, frames that are nobody's.
//!
//! - O1: in a debug build with `std`, whoever drops such a value unpaid is told at once, by a panic that names it; not while another panic takes
//!   everything down.
//!
//! The other road, a list of what is to be given back that the next operation works off, hides the mistake, and gives pages back to whoever still uses them.

/// The debt that goes with a pin or a loan; a field of it, whose holder calls [`Owed::paid`] when all is given back (O1).
#[must_use = "a debt is kept with what it is for"]
#[derive(Debug)]
pub struct Owed {
    /// What is due, in one word: its holder travels in errors.
    due: Option<&'static &'static str>,
}

impl Owed {
    /// A debt; `what` was not given back if it is never paid.
    pub fn new(what: &'static &'static str) -> Self {
        Self { due: Some(what) }
    }
    /// It is given back.
    pub fn paid(mut self) {
        self.due = None;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        #[cfg(all(debug_assertions, feature = "std"))]
        if let Some(what) = self.due
            && !std::thread::panicking()
        {
            panic!("O1: dropped, and not given back: {what}");
        }
        let _ = self.due;
    }
}

#[cfg(test)]
mod tests {
    use super::Owed;

    #[test]
    fn what_is_given_back_is_forgotten() {
        Owed::new(&"a book").paid();
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic = "O1: dropped, and not given back: a book"]
    fn what_is_dropped_is_named() {
        let _book = Owed::new(&"a book");
    }

    #[test]
    fn a_panic_that_passes_by_is_left_its_say() {
        let said = std::panic::catch_unwind(|| {
            let _book = Owed::new(&"a book");
            panic!("fire");
        });
        let said = said.expect_err("fire");
        assert_eq!(said.downcast_ref::<&str>(), Some(&"fire"));
    }
}
