//! Writes plans: lays out the arena and lists the ops.

use super::{Key, Plan, Segment, SharedBlock, Space, Stage, Step, View};
use crate::error::{Error, Result};
use crate::ops::Op;
use crate::tensor::packed::LINE_WORDS;
use crate::tensor::{Layout, Limit, collected, no_room};

/// What the memory of the lists is for.
const WHAT: &str = "the plan";

/// Writes a [`Plan`]. Kept buffers live to the plan's end; scratch buffers to the end of the [`Builder::scope`] they
/// are made in.
#[derive(Debug, Default)]
pub struct Builder {
    kept: usize,
    scratch: usize,
    scratch_peak: usize,
    constants: Vec<(usize, Vec<u32>)>,
    segments: Vec<Segment>,
    shared: Vec<SharedBlock>,
    /// The segment that makes each shared block.
    prologue: Vec<Segment>,
    /// The shared block that ops are pushed for.
    making: Option<usize>,
    /// Bytes of the plan so far, about, and of how many there may be.
    bytes: u64,
    limit: Option<Limit>,
    /// The system had no memory for an op: this plan is none.
    refused: bool,
}

impl Builder {
    /// An empty plan. One that itself takes more memory than the system has left, if it says so, or than it gives, ends in
    /// [`Error::Memory`]: from the next buffer, or when it is finished.
    pub fn new() -> Self {
        Self { limit: Limit::new(None), ..Self::default() }
    }

    fn check(&self) -> Result<()> {
        if self.refused {
            return Err(no_room(WHAT, self.bytes));
        }
        self.limit.map_or(Ok(()), |limit| limit.check(|| WHAT.to_owned(), self.bytes))
    }

    /// `rows x cols` words that keep their contents to the end of the plan and into the next run; zeros in a new arena.
    pub fn kept(&mut self, rows: usize, cols: usize) -> Result<View> {
        self.check()?;
        let at = self.kept;
        self.kept = reserve(at, rows, cols)?;
        Ok(View { space: Space::Kept, at, step: 0, layout: Layout::dense(rows, cols) })
    }

    /// `rows x cols` words until the end of the current [`Builder::scope`]; their first contents are undefined.
    pub fn scratch(&mut self, rows: usize, cols: usize) -> Result<View> {
        self.check()?;
        let at = self.scratch;
        self.scratch = reserve(at, rows, cols)?;
        self.scratch_peak = self.scratch_peak.max(self.scratch);
        Ok(View { space: Space::Scratch, at, step: 0, layout: Layout::dense(rows, cols) })
    }

    /// `rows x cols` words of the block that the current [`Builder::once`] makes. Panics outside of one.
    pub fn shared(&mut self, rows: usize, cols: usize) -> Result<View> {
        let Some(block) = self.making else { panic!("a shared buffer outside of `once`") };
        let at = self.shared[block].words;
        self.shared[block].words = reserve(at, rows, cols)?;
        Ok(View { space: Space::Shared(block), at, step: 0, layout: Layout::dense(rows, cols) })
    }

    /// Runs `f`; scratch buffers made in it are free for others afterwards.
    pub fn scope<R>(&mut self, f: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let at = self.scratch;
        let result = f(self);
        self.scratch = at;
        result
    }

    /// Kept words with these contents at the plan's start.
    pub fn constant(&mut self, values: &[f32], cols: usize) -> Result<View> {
        self.constant_words(collected(WHAT, values.len(), values.iter().map(|v| v.to_bits()))?, cols)
    }

    /// Kept words with these contents at the plan's start.
    pub fn constant_i32(&mut self, values: &[i32], cols: usize) -> Result<View> {
        self.constant_words(collected(WHAT, values.len(), values.iter().map(|&v| v as u32))?, cols)
    }

    fn constant_words(&mut self, words: Vec<u32>, cols: usize) -> Result<View> {
        let view = self.kept(words.len() / cols.max(1), cols)?;
        self.bytes += 4 * words.capacity() as u64;
        self.constants.push((view.at, words));
        Ok(view)
    }

    /// Starts a segment whose ops run `repeat` times. If there is no memory for it, the plan ends as [`Builder::new`] says.
    pub fn segment(&mut self, stage: Stage, index: usize, repeat: usize) {
        self.refused |= self.segments.try_reserve(1).is_err();
        if !self.refused {
            self.segments.push(Segment { stage, index, repeat, makes: None, steps: Vec::new(), weight: 0 });
        }
    }

    /// Ops that `f` pushes make what `key` says, in [shared](Builder::shared) buffers, before all others and only where
    /// no other arena of the model has made it. They read weights, constants that follow from the key, and blocks made
    /// before; no inputs of a run. Panics inside another `once`.
    pub fn once<R>(&mut self, key: Key, f: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        let block = self.shared.len();
        if self.shared.try_reserve(1).is_err() || self.prologue.try_reserve(1).is_err() || self.refused {
            return Err(no_room(WHAT, self.bytes));
        }
        assert!(self.making.replace(block).is_none(), "{key:?} inside of another block");
        self.shared.push(SharedBlock { key, words: 0 });
        let (stage, makes) = (Stage::Prepare, Some(block));
        self.prologue.push(Segment { stage, index: block, repeat: 1, makes, steps: Vec::new(), weight: 0 });
        // What other segments have in scratch memory does not exist yet when these ops run.
        let outer = std::mem::take(&mut self.scratch);
        let result = f(self);
        (self.scratch, self.making) = (outer, None);
        result
    }

    /// Appends an op to the current segment. If there is no memory for it, the plan ends as [`Builder::new`] says.
    pub fn push(&mut self, op: impl Into<Op>) {
        let op = op.into();
        let segments = if self.making.is_some() { &mut self.prologue } else { &mut self.segments };
        if self.refused {
            return;
        }
        let Some(segment) = segments.last_mut() else {
            panic!("{} before the first segment", op.name());
        };
        let step = Step::new(op, segment.repeat);
        debug_assert!(step.out.view.layout.is_disjoint(), "{step:?}");
        if step.chunks > 0 {
            let (room, heap) = (segment.steps.capacity(), step.op.heap_bytes());
            if segment.steps.try_reserve(1).is_err() {
                self.refused = true;
                return;
            }
            segment.weight += step.weight;
            segment.steps.push(step);
            self.bytes += ((segment.steps.capacity() - room) * size_of::<Step>() + heap) as u64;
        }
    }

    /// The plan.
    pub fn finish(mut self) -> Result<Plan> {
        self.check()?;
        let works = |s: &Segment| s.repeat > 0 && !s.steps.is_empty();
        self.segments.retain(works);
        self.prologue.retain(works);
        let count = self.prologue.len() + self.segments.len();
        let segments = collected(WHAT, count, self.prologue.into_iter().chain(self.segments))?;
        let worker = |s: &Segment| s.steps.iter().map(|step| step.op.worker_words()).max();
        Ok(Plan {
            kept_words: self.kept,
            scratch_words: self.scratch_peak,
            worker_words: segments.iter().filter_map(worker).max().unwrap_or(0),
            constants: self.constants,
            weight: segments.iter().map(|s| s.weight * s.repeat as u64).sum(),
            segments,
            shared: self.shared,
        })
    }
}

/// The first free word behind `rows x cols` words at `at`.
fn reserve(at: usize, rows: usize, cols: usize) -> Result<usize> {
    // Words, and bytes of them, stay far from overflow: sums of a few such numbers fit.
    const MOST: usize = 1 << (usize::BITS - 18);
    rows.checked_mul(cols)
        // Buffers start on a line of the caches.
        .and_then(|n| n.checked_next_multiple_of(LINE_WORDS))
        .and_then(|n| at.checked_add(n))
        .filter(|&end| end < MOST)
        .ok_or_else(|| Error::Memory {
            what: format!("a buffer of {rows} x {cols} numbers"),
            bytes: (rows as u64).saturating_mul(cols as u64).saturating_mul(4),
            reason: "more than any machine addresses".to_owned(),
        })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::ops::SumRows;

    #[test]
    fn a_plan_that_is_too_long_ends_in_an_error() {
        let mut b = Builder { limit: Some(Limit::Set(100_000)), ..Builder::default() };
        let (one, to) = (b.constant(&[1.0], 1).unwrap(), b.kept(1, 1).unwrap());
        b.segment(Stage::Encode, 0, 1);
        let mut ops = 0;
        let error = loop {
            b.push(SumRows::copy(one, to));
            ops += 1;
            assert!(ops < 10_000, "no end");
            if let Err(error) = b.scratch(1, 1) {
                break error;
            }
        };
        assert!(error.to_string().contains("the plan needs") && error.to_string().contains("100000"), "{error}");
        assert!(b.kept(1, 1).is_err());
        // Not far from what the plan itself says.
        b.limit = None;
        let told = b.finish().unwrap().program_bytes();
        assert!((100_000..300_000).contains(&told) && ops > 50, "{told} bytes of {ops} ops");
    }

    #[test]
    fn a_plan_that_is_too_long_or_was_refused_an_op_is_not_finished() {
        let build = |limit, refused| {
            let mut b = Builder { limit, refused, ..Builder::default() };
            b.segment(Stage::Encode, 0, 1);
            b.bytes += 8;
            b.finish().map_err(|error| error.to_string())
        };
        assert!(build(Some(Limit::Set(8)), false).is_ok());
        assert_eq!(build(Some(Limit::Set(7)), false).unwrap_err(), "the plan needs 8 bytes: the limit is 7 bytes");
        assert_eq!(build(None, true).unwrap_err(), "the plan needs 8 bytes: the system has no more memory to give");
    }
}
