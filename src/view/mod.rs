//! Views: which tables there are, and how they are asked for.

use crate::machine::MachineWorld;
use crate::script::world::{View, ViewCall, ViewError};

/// Shows a view of a scripted machine.
///
/// # Errors
/// [`ViewError`].
pub fn show(_world: &MachineWorld, _call: &ViewCall) -> Result<View, ViewError> {
    Err(ViewError::NotSupported)
}
