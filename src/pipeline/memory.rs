//! What memory a model takes, known before any is asked for.

use super::model::Model;
use super::program::Program;
use super::{Outputs, Settings};
use crate::error::Result;
use crate::plan::Plan;
use crate::weights::WeightMemory;

impl Model {
    /// Where the model's weights lie: used in place in their files, or copied.
    pub fn weight_memory(&self) -> WeightMemory {
        self.networks().memory
    }

    /// The plan of a [session](Model::session), without the memory to run it in: what it costs, and by
    /// [`Plan::arena_bytes`] what it will need.
    pub fn plan(&self, batch: usize, settings: &Settings, outputs: Outputs) -> Result<Plan> {
        Ok(Program::new(self.networks(), batch, settings, outputs, false)?.plan)
    }
}
