//! Runs a plan on the CPU, a slice of chunks at a time.

use super::arena::SharedArena;
use super::{Arena, Cost, Cx, Plan, Segment, Stage, Step};
use crate::ops::Op;
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
    /// Chunk of the op.
    pub chunk: usize,
    /// Cost done before this op, by [`Cost::weight`].
    pub done: u64,
}

impl Cursor {
    /// Behind the prologue of `plan`: where a run starts in an arena in which another got that far.
    pub fn after_prologue(plan: &Plan) -> Self {
        let done = plan.segments[..plan.prologue].iter().map(|s| s.weight * s.repeat as u64).sum();
        Self { segment: plan.prologue, done, ..Self::default() }
    }

    /// Whether nothing is left to do.
    pub fn is_finished(&self, plan: &Plan) -> bool {
        self.segment >= plan.segments.len()
    }

    /// Goes to the op after the current one of `segment`: in this turn, the next turn or the next segment.
    fn next_op(&mut self, segment: &Segment) {
        self.chunk = 0;
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

/// Time, calls and cost by stage and op.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// One entry for each stage and kind of op, in the order of their first use.
    pub ops: Vec<OpProfile>,
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

impl Profile {
    fn add(&mut self, stage: Stage, op: &Op, time: Duration, ended: bool) {
        let at = self.ops.iter().position(|o| o.stage == stage && o.name == op.name()).unwrap_or_else(|| {
            let new = OpProfile { stage, name: op.name(), calls: 0, time: Duration::ZERO, cost: Cost::default() };
            self.ops.push(new);
            self.ops.len() - 1
        });
        let entry = &mut self.ops[at];
        entry.time += time;
        if ended {
            entry.calls += 1;
            entry.cost = entry.cost + op.cost();
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
    /// Runs from `cursor` on until the plan's end or until `pause` says so, asked after each slice of chunks. At
    /// least one slice is done, so a caller with any budget gets there.
    pub fn run(&mut self, cursor: &mut Cursor, mut pause: impl FnMut(&Cursor) -> bool) {
        let Self { plan, arena, pool, isa, profile } = self;
        let shared = arena.shared();
        pool.enter(|| {
            while let Some(segment) = plan.segments.get(cursor.segment) {
                let step = &segment.steps[cursor.op];
                let range = cursor.chunk..step.chunks.min(cursor.chunk + step.slice * pool.threads());
                let ended = range.end == step.chunks;
                let start = profile.is_some().then(Instant::now);
                run_chunks(shared, step, cursor.turn, range.clone(), pool, *isa);
                if let (Some(start), Some(profile)) = (start, profile.as_deref_mut()) {
                    profile.add(segment.stage, &step.op, start.elapsed(), ended);
                }
                if ended {
                    cursor.done += step.weight;
                    cursor.next_op(segment);
                } else {
                    cursor.chunk = range.end;
                }
                if pause(cursor) {
                    return;
                }
            }
        });
    }
}

/// Computes some chunks (tiles of the output) of one op.
fn run_chunks(arena: SharedArena<'_>, step: &Step, turn: usize, range: Range<usize>, pool: &Pool, isa: Isa) {
    let Step { op, out, .. } = step;
    pool.for_each(range, step.parallel, |worker, chunk| {
        let (rows, cols) = out.chunk(chunk);
        let cx = Cx::new(arena, &out.view, turn, isa, worker);
        // SAFETY: chunks are disjoint rectangles of one view (`Out::chunk`), `for_each` gives each to one call, and
        // `Walker::run` borrows the arena exclusively and runs one op at a time.
        let tile = unsafe { arena.tile(&out.view, turn, rows, cols) };
        op.tile(&cx, tile);
    });
}
