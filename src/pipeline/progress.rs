//! Where a session is, and how long it will still take.

use crate::plan::{Cursor, Plan, Stage};
use std::time::Duration;

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The stage at work.
    pub stage: Stage,
    /// Its place (stage 1), round (stage 2), level (autoencoders), or how many shared blocks come before (prepare).
    pub index: usize,
    /// Share of the work done, by cost, from 0 to 1.
    pub fraction: f64,
    /// Whether all is done.
    pub finished: bool,
    /// About how much longer the session has to work, by the work done and the time it took since it began; only time
    /// inside [`Session::step`](super::Session::step) and [`Session::run`](super::Session::run) counts. None until a thousandth of the work is done. It falls as
    /// the work goes on at the same speed, and may rise where the machine, or what comes next, is slower for its cost than
    /// what came before. Zero once all is done.
    pub left: Option<Duration>,
}

/// How fast a session works.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Cost that was done when the request began.
    first: u64,
    /// Cost done.
    pub(super) done: u64,
    /// Working time until then.
    pub(super) spent: Duration,
}

impl Pace {
    pub(super) fn from(done: u64) -> Self {
        Self { first: done, done, spent: Duration::ZERO }
    }

    /// The least work to tell anything from.
    pub(super) fn least(plan: &Plan) -> u64 {
        plan.weight / 1000
    }

    pub(super) fn reached(&mut self, done: u64, spent: Duration) {
        (self.done, self.spent) = (done, spent);
    }

    /// About how long the rest of `plan` takes.
    pub(super) fn left(&self, plan: &Plan, cursor: &Cursor) -> Option<Duration> {
        if cursor.is_finished(plan) {
            return Some(Duration::ZERO);
        }
        let done = self.done - self.first;
        let rest = plan.weight.saturating_sub(cursor.done) as f64;
        let known = done > 0 && done >= Self::least(plan);
        known.then(|| Duration::try_from_secs_f64(self.spent.as_secs_f64() * rest / done as f64).ok()).flatten()
    }
}

pub(super) fn progress(plan: &Plan, cursor: &Cursor, pace: &Pace) -> Progress {
    let segment = plan.segments.get(cursor.segment).or(plan.segments.last());
    Progress {
        stage: segment.map_or(Stage::Decode, |s| s.stage),
        // Only stage 1 counts its turns: they are places. A turn of the head is a diffusion step of the round.
        index: segment.map_or(0, |s| s.index + if s.stage == Stage::Discrete { cursor.turn } else { 0 }),
        fraction: if plan.weight == 0 { 1.0 } else { cursor.done as f64 / plan.weight as f64 },
        finished: cursor.is_finished(plan),
        left: pace.left(plan, cursor),
    }
}
