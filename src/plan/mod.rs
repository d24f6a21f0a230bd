//! Generation as a static program.
//!
//! No shape in the graph depends on data, so a request is compiled once into a [`Plan`]: segments of ops, each op
//! with its weights, its place in the arena and its cost. A segment may repeat (a token, a diffusion step); what
//! changes from one turn to the next is where a [`View`] starts, by a fixed step. Everything else is reading the
//! plan: running walks it ([`Walker`]), progress is cost done over cost in all, cancelling is not taking the next
//! chunk, the memory needed is the arena's size, a profile is time an op beside its bytes and FLOPs.

mod arena;
mod builder;
#[cfg(feature = "cuda")]
pub(crate) mod gpu;
mod shared;
mod step;
mod view;
mod walker;

pub use arena::{Arena, Cx, WorkerMemory};
pub use builder::Builder;
#[cfg(feature = "cuda")]
pub use gpu::{GpuPlan, Resident};
pub use shared::{Key, SharedBlock, Store};
pub use step::Step;
pub use view::{Space, View};
pub use walker::{Cursor, KernelProfile, OpProfile, Profile, Walker};

use std::fmt;

/// What an op moves and computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes read and written, every buffer and weight once.
    pub bytes: u64,
    /// Floating-point operations; a multiply-add counts two.
    pub flops: u64,
}

impl Cost {
    /// One number to weigh ops against each other: FLOPs, a byte moved as dear as 4 of them.
    pub fn weight(self) -> u64 {
        self.flops + self.bytes * Self::FLOPS_A_BYTE + Self::CALL
    }

    /// What a core computes while it reads a byte, about.
    const FLOPS_A_BYTE: u64 = 4;
    /// What a core computes while an op starts and ends, about.
    const CALL: u64 = 2_000;
}

impl std::ops::Add for Cost {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, flops: self.flops + other.flops }
    }
}

/// The part of the graph that a segment belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// What no request changes, computed by a model's first session.
    Prepare,
    /// Image to latents or codes.
    Encode,
    /// Stage 1: discrete autoregression.
    Discrete,
    /// The coarse picture that the codes' own decoder makes.
    Preview,
    /// Stage 2: encoder and decoder of the masked autoregression.
    Condition,
    /// Stage 2: the diffusion head.
    Head,
    /// Stage 3: latents to pixels.
    Decode,
}

impl Stage {
    /// Lower-case name.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Prepare => "prepare",
            Stage::Encode => "encode",
            Stage::Discrete => "discrete",
            Stage::Preview => "preview",
            Stage::Condition => "condition",
            Stage::Head => "head",
            Stage::Decode => "decode",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Ops that run one after the other, `repeat` times.
#[derive(Debug)]
pub struct Segment {
    /// The part of the graph.
    pub stage: Stage,
    /// Round of stage 2, place of stage 1 at which the segment starts, level of the decoder, number of the shared block.
    pub index: usize,
    /// How often the ops run.
    pub repeat: usize,
    /// The block of [`Plan::shared`] that the segment makes. It is left out where the block is there already.
    pub makes: Option<usize>,
    /// The ops.
    pub steps: Vec<Step>,
    /// Cost of one turn, by [`Cost::weight`]: of the mean one where they differ.
    pub weight: u64,
}

/// A compiled request: what runs, in which order, over how much memory.
#[derive(Debug, Default)]
pub struct Plan {
    /// The program. The segments that make shared blocks come first.
    pub segments: Vec<Segment>,
    /// What no request changes: blocks in memory of their own, made by the first that needs them and shared by all
    /// arenas over one [`Store`].
    pub shared: Vec<SharedBlock>,
    /// Words (4 bytes) of memory that keeps its contents from start to end: inputs, constants, results, caches.
    pub kept_words: usize,
    /// Words of memory that ops share one after the other.
    pub scratch_words: usize,
    /// Words of memory a worker needs besides.
    pub worker_words: usize,
    /// Contents of kept memory before the first op: where, and the words.
    pub constants: Vec<(usize, Vec<u32>)>,
    /// Cost of all, by [`Cost::weight`].
    pub weight: u64,
}

impl Plan {
    /// Bytes of an arena on `threads` threads, without [`Plan::shared_bytes`].
    pub fn arena_bytes(&self, threads: usize) -> u64 {
        4 * (self.kept_words as u64 + self.scratch_words as u64 + self.worker_words as u64 * threads as u64)
    }

    /// Bytes of the plan itself, constants among them.
    pub fn program_bytes(&self) -> u64 {
        let words = |(_, words): &(usize, Vec<u32>)| 4 * words.capacity();
        let constants = self.constants.capacity() * size_of::<(usize, Vec<u32>)>();
        let steps = |s: &Segment| {
            s.steps.capacity() * size_of::<Step>() + s.steps.iter().map(|step| step.op.heap_bytes()).sum::<usize>()
        };
        let segments = self.segments.capacity() * size_of::<Segment>();
        let shared = self.shared.capacity() * size_of::<SharedBlock>();
        let each = self.constants.iter().map(words).sum::<usize>() + self.segments.iter().map(steps).sum::<usize>();
        (each + constants + segments + shared) as u64
    }

    /// Bytes of the shared blocks: once for all arenas over one [`Store`]. Arenas that make the same block at the same
    /// time have it twice for so long.
    pub fn shared_bytes(&self) -> u64 {
        self.shared.iter().map(|block| 4 * block.words as u64).sum()
    }

    /// Bytes and FLOPs of all segments of `stage`.
    pub fn cost(&self, stage: Stage) -> Cost {
        let of = |s: &Segment| {
            let once = s.steps.iter().fold(Cost::default(), |sum, step| sum + step.cost);
            Cost { bytes: once.bytes * s.repeat as u64, flops: once.flops * s.repeat as u64 }
        };
        self.segments.iter().filter(|s| s.stage == stage).map(of).fold(Cost::default(), |a, b| a + b)
    }
}

#[cfg(test)]
mod tests;
