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

    /// Bytes of what the model's sessions have made for each other so far, as stage 1's modulations of no class and the
    /// time embeddings of each number of diffusion steps. It stays until the model and its sessions are gone.
    pub fn shared_bytes(&self) -> u64 {
        self.networks().shared.bytes()
    }

    /// Bytes that GPUs have of this model for all its sessions: weights, and what sessions have made for each other. They
    /// stay until the model and its sessions are gone.
    #[cfg(feature = "cuda")]
    pub fn gpu_bytes(&self) -> u64 {
        self.networks().on_gpus.bytes()
    }

    /// The plan of a [session](Model::session), without the memory to run it in: what it costs, and by
    /// [`Plan::arena_bytes`] and, if no session has made it yet, [`Plan::shared_bytes`] what it will need.
    pub fn plan(&self, batch: usize, settings: &Settings, outputs: Outputs) -> Result<Plan> {
        Ok(Program::new(self.networks(), batch, settings, outputs, false)?.plan)
    }
}
