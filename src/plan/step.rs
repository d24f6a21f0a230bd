//! An op in a plan.

use crate::ops::{Op, Out};

/// An op, with all that the walker asks of it: the same each time it runs, so worked out once.
#[derive(Debug)]
pub struct Step {
    /// The op.
    pub op: Op,
    /// [`Op::out`]
    pub out: Out,
    /// Tiles of `out`.
    pub chunks: usize,
    /// Cost of one run, by [`Cost::weight`](super::Cost::weight).
    pub weight: u64,
    /// Chunks between two looks at the clock, for each thread.
    pub slice: usize,
    /// Whether it is worth sharing out.
    pub parallel: bool,
}

/// Cost of a slice of chunks between two looks at the clock: some 100 microseconds of one core.
const SLICE_WEIGHT: u64 = 4_000_000;

/// Ops that cost less run on the caller's thread: waking others takes longer.
const PARALLEL_WEIGHT: u64 = 400_000;

impl Step {
    /// What `op` answers.
    pub fn new(op: Op) -> Self {
        let (out, weight) = (op.out(), op.cost().weight());
        let chunks = out.chunks();
        let each = (weight / chunks.max(1) as u64).max(1);
        let slice = (SLICE_WEIGHT / each).max(1) as usize;
        Self { op, out, chunks, weight, slice, parallel: chunks > 1 && weight > PARALLEL_WEIGHT }
    }
}
