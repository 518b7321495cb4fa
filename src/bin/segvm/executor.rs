//! What scripts drive here: a machine.

use anyhow::Result;
use segvm::machine::MachineWorld;
use segvm::script::ast::MachineSettings;

/// The world behind every command.
pub(crate) type Executor = MachineWorld;

/// Makes the machine that a script asks for.
pub(crate) fn build(settings: &MachineSettings) -> Result<Executor> {
    Ok(MachineWorld::new(settings)?)
}
