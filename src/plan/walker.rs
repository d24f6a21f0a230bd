//! Runs a plan on the CPU, chunk by chunk.

use super::arena::SharedArena;
use super::{Arena, Cost, Cx, Plan, Segment, Stage, Step};
use crate::pool::Pool;
use crate::simd::Isa;
use std::ops::Range;
use std::time::{Duration, Instant};

/// A place in a plan: all that a paused run needs to go on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Segment.
    pub segment: usize,
    /// Turn of the segment.
    pub turn: usize,
    /// Op of the segment.
    pub op: usize,
    /// Chunks of the op that are done, from the first one on.
    pub front: usize,
    /// Chunks of the op that are done, up to the last one.
    pub back: usize,
    /// Cost done before this op, by [`Cost::weight`].
    pub done: u64,
}

impl Cursor {
    /// Where a run over `arena` starts: at the first segment whose shared block is not there.
    pub fn start(plan: &Plan, arena: &Arena) -> Self {
        let mut cursor = Self::default();
        cursor.pass_made(plan, |block| arena.has(block));
        cursor
    }

    /// At the start of a segment, goes past those whose shared blocks are there.
    pub(super) fn pass_made(&mut self, plan: &Plan, has: impl Fn(usize) -> bool) {
        let made = |segment: &&Segment| segment.makes.is_some_and(&has);
        let at_start = (self.turn, self.op, self.front, self.back) == (0, 0, 0, 0);
        while let Some(segment) = plan.segments.get(self.segment).filter(|s| at_start && made(s)) {
            self.segment += 1;
            self.done += segment.weight * segment.repeat as u64;
        }
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self, plan: &Plan) -> bool {
        self.segment >= plan.segments.len()
    }

    /// Goes to the next turn of `segment`, or to the next segment.
    #[cfg(feature = "cuda")]
    pub(super) fn next_turn(&mut self, segment: &Segment) {
        self.done += segment.weight;
        self.op = segment.steps.len() - 1;
        self.next_op(segment);
    }

    /// Goes to the op after the current one of `segment`: in this turn, the next turn or the next segment.
    fn next_op(&mut self, segment: &Segment) {
        (self.front, self.back) = (0, 0);
        self.op += 1;
        if self.op == segment.steps.len() {
            self.op = 0;
            self.turn += 1;
        }
        if self.turn == segment.repeat {
            self.turn = 0;
            self.segment += 1;
        }
    }
}

/// Time, calls and cost by stage and op and, on a GPU, by kernel.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// One entry for each stage and kind of op, in the order of their first use.
    pub ops: Vec<OpProfile>,
    /// One entry for each kernel that ops launched, in the order of their first use; on a processor none.
    pub kernels: Vec<KernelProfile>,
}

/// Time, calls and cost of one kind of op in one stage.
#[derive(Debug, Clone, Copy)]
pub struct OpProfile {
    /// The stage.
    pub stage: Stage,
    /// The op's name.
    pub name: &'static str,
    /// How often it ran.
    pub calls: u64,
    /// Wall time.
    pub time: Duration,
    /// Bytes and FLOPs of all calls.
    pub cost: Cost,
}

/// Time, calls and cost of one kernel of a GPU, in all stages.
#[derive(Debug, Clone, Copy)]
pub struct KernelProfile {
    /// Its name, as in its PTX.
    pub name: &'static str,
    /// How often it was launched.
    pub calls: u64,
    /// Time on the GPU.
    pub time: Duration,
    /// Bytes and FLOPs of the ops that launched it, each counted with the last of its kernels.
    pub cost: Cost,
}

impl Profile {
    /// A launch; with `cost` where it is the last of its op.
    #[cfg(feature = "cuda")]
    pub(super) fn add_kernel(&mut self, name: &'static str, time: Duration, cost: Option<Cost>) {
        let at = self.kernels.iter().position(|k| k.name == name).unwrap_or_else(|| {
            self.kernels.push(KernelProfile { name, calls: 0, time: Duration::ZERO, cost: Cost::default() });
            self.kernels.len() - 1
        });
        let entry = &mut self.kernels[at];
        entry.calls += 1;
        entry.time += time;
        entry.cost = entry.cost + cost.unwrap_or_default();
    }

    pub(super) fn add(&mut self, stage: Stage, step: &Step, time: Duration, ended: bool) {
        let name = step.op.name();
        let at = self.ops.iter().position(|o| o.stage == stage && o.name == name).unwrap_or_else(|| {
            let new = OpProfile { stage, name, calls: 0, time: Duration::ZERO, cost: Cost::default() };
            self.ops.push(new);
            self.ops.len() - 1
        });
        let entry = &mut self.ops[at];
        entry.time += time;
        if ended {
            entry.calls += 1;
            entry.cost = entry.cost + step.cost;
        }
    }
}

/// What a plan runs with.
#[derive(Debug)]
pub struct Walker<'a> {
    /// The program.
    pub plan: &'a Plan,
    /// Its memory.
    pub arena: &'a mut Arena,
    /// The threads.
    pub pool: &'a Pool,
    /// The instructions.
    pub isa: Isa,
    /// Where times are added, if they are wanted.
    pub profile: Option<&'a mut Profile>,
}

impl Walker<'_> {
    /// Runs from `cursor` on until the plan's end or until `pause` says so, asked after each op and, within an op, each
    /// time that this thread looks for more to do. Something is done before `pause` is asked, so a caller with any
    /// budget gets to the end. Where `pause` or the host of the pool panics, chunks of the op at `cursor` are done that it
    /// does not count, so the run must start anew.
    pub fn run(&mut self, cursor: &mut Cursor, mut pause: impl FnMut(&Cursor) -> bool) {
        let Self { plan, arena, pool, isa, profile } = self;
        cursor.pass_made(plan, |block| arena.has(block));
        pool.enter(|| {
            while let Some(segment) = plan.segments.get(cursor.segment) {
                let step = &segment.steps[cursor.op];
                let start = profile.is_some().then(Instant::now);
                let range = cursor.front..step.chunks - cursor.back;
                let shared = arena.shared(segment.makes);
                let left = run_chunks(shared, step, cursor.turn, range, pool, *isa, || pause(cursor));
                if let (Some(start), Some(profile)) = (start, profile.as_deref_mut()) {
                    profile.add(segment.stage, step, start.elapsed(), left.is_empty());
                }
                if !left.is_empty() {
                    (cursor.front, cursor.back) = (left.start, step.chunks - left.end);
                    return;
                }
                cursor.done += step.weight;
                let at = cursor.segment;
                cursor.next_op(segment);
                if let Some(block) = segment.makes.filter(|_| cursor.segment > at) {
                    arena.finish(block);
                    cursor.pass_made(plan, |block| arena.has(block));
                }
                if pause(cursor) {
                    return;
                }
            }
        });
    }
}

/// Computes some chunks (tiles of the output) of one op: those left when `pause` agreed.
fn run_chunks(
    arena: SharedArena<'_>,
    step: &Step,
    turn: usize,
    range: Range<usize>,
    pool: &Pool,
    isa: Isa,
    pause: impl FnMut() -> bool,
) -> Range<usize> {
    let Step { op, out, .. } = step;
    pool.until(range, step.split, pause, |worker, chunk| {
        let (rows, cols) = out.chunk(chunk);
        let cx = Cx::new(arena, &out.view, turn, isa, worker);
        // SAFETY: chunks are disjoint rectangles of one view (`Out::chunk`), `for_each` gives each to one call, and
        // `Walker::run` borrows the arena exclusively and runs one op at a time.
        let tile = unsafe { arena.tile(&out.view, turn, rows, cols) };
        op.tile(&cx, tile);
    })
}
