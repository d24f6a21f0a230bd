//! An op in a plan.

use super::Cost;
use crate::ops::{Op, Out};
use crate::pool::Split;

/// An op, with all that the walker asks of it: worked out once, for all turns. Where a turn costs more than the one
/// before, as attention over a cache that grows, the costs are the mean turn's.
#[derive(Debug)]
pub struct Step {
    /// The op.
    pub op: Op,
    /// [`Op::out`]
    pub out: Out,
    /// Tiles of `out`.
    pub chunks: usize,
    /// Bytes and FLOPs of one run.
    pub cost: Cost,
    /// The same by [`Cost::weight`].
    pub weight: u64,
    /// How its chunks are shared out.
    pub split: Split,
}

/// Cost of what a thread claims at once, unless one chunk costs more. Products do some 200,000 a microsecond on a core
/// with AVX-512, norms and attention of few rows 20,000: so 10 microseconds, and up to 100, are what a frame waits, and
/// at most what one thread has left to do when the others are through; twice that in the last turns over a cache that
/// grows.
const CLAIM_WEIGHT: u64 = 2_000_000;

/// Ops that cost less run on the caller's thread. Sharing costs a quarter of a microsecond once the threads are awake:
/// four chunks of 0.9 microseconds in all took 0.7 on two threads, of 2.5 they took 1.5. So it pays from about one
/// microsecond on, which is this much of a product and several microseconds of all else.
const PARALLEL_WEIGHT: u64 = 250_000;

impl Step {
    /// What `op` answers, in a segment of `turns` turns.
    pub fn new(op: Op, turns: usize) -> Self {
        let (out, cost) = (op.out(), op.cost(turns));
        let weight = cost.weight();
        let chunks = out.chunks();
        let each = (weight / chunks.max(1) as u64).max(1);
        let claim = (CLAIM_WEIGHT / each).max(1) as usize;
        let split = Split { parallel: chunks > 1 && weight > PARALLEL_WEIGHT, claim };
        Self { op, out, chunks, cost, weight, split }
    }
}
