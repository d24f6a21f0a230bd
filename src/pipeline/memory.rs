//! What memory a model takes, known before any is asked for.

use super::model::{Model, Networks};
use super::preview::Previewer;
use super::program::Program;
use super::{Device, Executor, Outputs, Settings};
use crate::error::Result;
use crate::plan::Plan;
use crate::tensor::{Limit, Precision};
use crate::weights::WeightMemory;

/// How a model is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// What products are computed in, as [`Model::open_as`] has it; without, what the folder was packed for, else f32.
    pub precision: Option<Precision>,
    /// Bytes of weights that the model may have of its own ([`WeightMemory::own`]); what lies in mapped files or in the
    /// caller's memory is not counted. A copy that would pass it is an [`Error::Memory`](crate::Error::Memory), and nothing stays.
    /// Without a limit it is what the system has left, if it says so (Linux: `MemAvailable`).
    pub memory_limit: Option<u64>,
}

/// How a session is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Bytes that the session may take, [`SessionMemory::bytes`]: more is an [`Error::Memory`](crate::Error::Memory) before
    /// any is allocated. Without a limit, what it takes of the host may not be more than the system has left, if it
    /// says so (Linux: `MemAvailable`, which knows nothing of limits of a container): Linux gives out more than it has, and
    /// ends processes afterwards. [`u64::MAX`] leaves it to the system, but for the plan, which has to fit into what is left in
    /// any case.
    pub memory_limit: Option<u64>,
}

/// Bytes that a session takes, known before any is allocated: [`Model::memory`]. Beside them are some kilobytes for
/// bookkeeping, and what the driver of a GPU keeps on the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionMemory {
    /// Inputs, results and everything in between: [`Plan::arena_bytes`] without workers'.
    pub arena: u64,
    /// The memory of the processor's threads; none on a GPU.
    pub workers: u64,
    /// What the session makes for all sessions of the model, and no other has made yet.
    pub shared: u64,
    /// All of what [`Outputs::partial_previews`] takes but its plan.
    pub previews: u64,
    /// Weights that a GPU has not yet; none on the processor, which uses the model's.
    pub weights: u64,
    /// The compiled plans, always in the host's memory.
    pub plan: u64,
    /// Whether all but the plans is in a GPU's memory.
    pub on_gpu: bool,
}

impl SessionMemory {
    /// Bytes of the host's memory.
    pub fn host(&self) -> u64 {
        if self.on_gpu { self.plan } else { self.bytes() }
    }

    /// Bytes of a GPU's memory.
    pub fn device(&self) -> u64 {
        self.bytes() - self.host()
    }

    /// All bytes.
    pub fn bytes(&self) -> u64 {
        self.arena + self.workers + self.shared + self.previews + self.weights + self.plan
    }

    /// What a session of these plans takes now.
    pub(super) fn of(device: &Device, nets: &Networks, plan: &Plan, preview: Option<&Plan>) -> Result<Self> {
        let mut memory = Executor::needs(device, nets, plan)?;
        memory.plan = plan.program_bytes();
        if let Some(preview) = preview {
            let more = Executor::needs(device, nets, preview)?;
            memory.previews = more.arena + more.workers + more.shared;
            // The decoder's weights are those of the session's plan too.
            memory.plan += preview.program_bytes();
        }
        Ok(memory)
    }

    /// Refuses it for `what` if it is more than that limit, or without one more of the host's than the system has left.
    pub(super) fn within(&self, limit: Option<u64>, what: &str) -> Result<()> {
        match Limit::new(limit) {
            Some(limit @ Limit::Set(_)) => limit.check(|| what.to_owned(), self.bytes()),
            Some(limit @ Limit::Left(_)) => limit.check(|| what.to_owned(), self.host()),
            None => Ok(()),
        }
    }
}

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
    /// stay until the model and its sessions are gone; a weight that only sessions use which never began goes with them.
    #[cfg(feature = "cuda")]
    pub fn gpu_bytes(&self) -> u64 {
        self.networks().on_gpus.bytes()
    }

    /// The plan of a [session](Model::session), without the memory to run it in: what it costs, and by
    /// [`Plan::arena_bytes`] and, if no session has made it yet, [`Plan::shared_bytes`] what it will need.
    pub fn plan(&self, batch: usize, settings: &Settings, outputs: Outputs) -> Result<Plan> {
        Ok(Program::new(self.networks(), batch, settings, outputs, false)?.plan)
    }

    /// What a [session](Model::session) would take now, to the byte, without taking it.
    pub fn memory(
        &self,
        device: impl Into<Device>,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
    ) -> Result<SessionMemory> {
        let plan = self.plan(batch, settings, outputs)?;
        let preview = outputs.partial_previews.then(|| Previewer::compile(self.networks(), batch)).transpose()?;
        SessionMemory::of(&device.into(), self.networks(), &plan, preview.as_ref().map(|preview| &preview.plan))
    }
}
