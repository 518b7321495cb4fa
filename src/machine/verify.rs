//! Checking a whole machine.

use super::Machine;

/// A broken invariant.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what}")]
pub struct Violation {
    /// Its short name.
    pub invariant: String,
    /// What was found.
    pub what: String,
}

impl Violation {
    fn new(invariant: impl Into<String>, what: impl Into<String>) -> Self {
        Self { invariant: invariant.into(), what: what.into() }
    }
    /// What a driver or an anon map says of itself; its text begins with the invariant's name.
    fn told(by: &str, text: String) -> Self {
        match text.split_once(": ") {
            Some((name, what)) if name.len() <= 4 => Self::new(name, what),
            _ => Self::new(by, text),
        }
    }
}

impl Machine {
    /// Checks every invariant; nothing else may run meanwhile. From the bottom up, because each floor is walked by means of those below.
    ///
    /// # Errors
    /// The first one found broken.
    pub fn verify(&self) -> Result<(), Violation> {
        let cx = self.cx();
        let held = cx.held();
        if !held.is_empty() {
            return Err(Violation::new("I15", format!("the thread still holds {held:?}")));
        }
        self.db().verify(cx).map_err(|d| Violation::new(d.invariant, d.what))?;
        self.swap().verify(cx).map_err(|d| Violation::new(d.invariant, d.what))?;
        self.hat().verify(cx).map_err(|d| Violation::new(d.invariant, d.what))?;
        for (_, space) in self.spaces() {
            space.verify(cx).map_err(|d| match d.invariant {
                driver if driver.starts_with("seg_") => Violation::told(driver, d.what),
                invariant => Violation::new(invariant, d.what),
            })?;
        }
        super::laws::check(self)?;
        for map in self.anon().maps() {
            map.verify(cx).map_err(|what| Violation::told("anon map", what))?;
        }
        self.anon().verify(cx).map_err(|what| Violation::told("anon layer", what))?;
        Ok(())
    }
}
