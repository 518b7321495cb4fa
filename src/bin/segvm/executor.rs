//! What scripts drive here.

use anyhow::Result;
use segvm::model::Model;
use segvm::script::ast::MachineSettings;

/// The world behind `run` and `shell`.
pub(crate) type Executor = Model;

/// Makes the machine that a script asks for.
pub(crate) fn build(_settings: &MachineSettings) -> Result<Executor> {
    Ok(Model::new())
}
