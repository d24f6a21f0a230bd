//! The memory that a plan runs over, and how ops reach it: one rectangle written, everything else read.

use super::shared::{Block, Maker};
use super::{Plan, SharedBlock, Space, Store, View};
use crate::error::Result;
use crate::simd::Isa;
#[cfg(not(all(test, unix)))]
use crate::tensor::packed::LINE_WORDS;
use crate::tensor::{AlignedBytes, Mat, TileMut};
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The memory of one running plan.
#[derive(Debug)]
pub struct Arena {
    kept: AlignedBytes,
    scratch: AlignedBytes,
    blocks: Vec<Block>,
    /// No lock is ever waited for: one run has the arena, and no two of its threads the same number
    /// ([`Pool::for_each`](crate::pool::Pool::for_each)).
    workers: Vec<Mutex<AlignedBytes>>,
}

impl Arena {
    /// Memory for `plan` on `threads` threads, with the plan's constants in place, all of it its own.
    /// [`Error::Memory`](crate::Error::Memory) if it cannot be had.
    pub fn new(plan: &Plan, threads: usize) -> Result<Self> {
        Self::sharing(plan, threads, &Store::default(), Isa::detect())
    }

    /// The same, but blocks that `store` has for `isa` are taken from there, and those that a walker makes in this arena
    /// become the store's. The walker's instruction set must be `isa`. No arena ever waits for another to make a block.
    pub fn sharing(plan: &Plan, threads: usize, store: &Store, isa: Isa) -> Result<Self> {
        let worker = |_| AlignedBytes::zeroed(plan.worker_words * 4, "the arena of a worker").map(Mutex::new);
        let block = |&SharedBlock { key, words }: &SharedBlock| {
            let memory = || AlignedBytes::zeroed(words * 4, Block::<AlignedBytes>::WHAT);
            let block = Block::new(store, Maker::Cpu(isa), key, memory)?;
            assert_eq!(block.memory().len(), words * 4, "{key:?} in two sizes");
            Ok(block)
        };
        let mut arena = Self {
            kept: AlignedBytes::zeroed(plan.kept_words * 4, "the arena")?,
            scratch: AlignedBytes::zeroed(plan.scratch_words * 4, "the arena")?,
            blocks: plan.shared.iter().map(block).collect::<Result<_>>()?,
            workers: (0..threads).map(worker).collect::<Result<_>>()?,
        };
        for (at, words) in &plan.constants {
            let bytes: &[u8] = bytemuck::cast_slice(words);
            arena.kept.bytes_mut()[at * 4..at * 4 + bytes.len()].copy_from_slice(bytes);
        }
        Ok(arena)
    }

    /// Bytes that an arena of [`Arena::sharing`] would take now, in this order: for the plan's ops, for its workers, for the
    /// shared blocks that it would have to make.
    pub fn needs(plan: &Plan, threads: usize, store: &Store, isa: Isa) -> [u64; 3] {
        let shared = 4 * store.missing(Maker::Cpu(isa), &plan.shared);
        [plan.arena_bytes(0), plan.arena_bytes(threads) - plan.arena_bytes(0), shared]
    }

    /// Takes the shared blocks that others have made since, and frees its own of them: what a run does not do, since it
    /// neither allocates nor frees. Not for an arena in the middle of a run.
    pub fn adopt(&mut self) {
        self.blocks.iter_mut().for_each(Block::adopt);
    }

    /// Bytes that this arena has alone: all but the shared blocks that are in the store.
    pub fn own_bytes(&self) -> u64 {
        let worker = |bytes: &Mutex<AlignedBytes>| bytes.lock().unwrap_or_else(PoisonError::into_inner).len();
        let of_run = self.kept.len() + self.scratch.len() + self.workers.iter().map(worker).sum::<usize>();
        of_run as u64 + self.blocks.iter().filter(|b| b.is_own()).map(|b| b.memory().len() as u64).sum::<u64>()
    }

    /// Puts a fence on the page of kept memory that starts at word `at`.
    #[cfg(all(test, unix))]
    pub(crate) fn fence(&mut self, at: usize) {
        self.kept.fence(4 * at);
    }

    /// Whether the shared block of that number is made.
    pub(super) fn has(&self, block: usize) -> bool {
        self.blocks[block].is_ready()
    }

    /// The shared block of that number is made.
    pub(super) fn finish(&mut self, block: usize) {
        self.blocks[block].finish();
    }

    /// The contents of a dense view, for inputs. Panics if the view is not dense or not of this arena, or shared.
    pub fn slice_mut<T: bytemuck::Pod>(&mut self, view: View) -> &mut [T] {
        assert!(view.is_dense() && size_of::<T>() == 4);
        let bytes = match view.space {
            Space::Kept => self.kept.bytes_mut(),
            Space::Scratch => self.scratch.bytes_mut(),
            Space::Shared(_) => panic!("inputs are never shared"),
        };
        &mut bytemuck::cast_slice_mut(bytes)[view.span(0)]
    }

    /// The contents of a view, for results. Panics if the view is not of this arena or of a block not made.
    pub fn mat<T: bytemuck::Pod>(&self, view: View) -> Mat<'_, T> {
        let bytes = match view.space {
            Space::Kept => self.kept.as_ref(),
            Space::Scratch => self.scratch.as_ref(),
            Space::Shared(block) => bytemuck::cast_slice(self.blocks[block].words()),
        };
        Mat::new(&bytemuck::cast_slice(bytes)[view.span(0)], view.layout)
    }

    /// Access for an op of a segment that makes the shared block `makes`, or none.
    pub(super) fn shared(&mut self, makes: Option<usize>) -> SharedArena<'_> {
        let base = |words: &mut [f32]| (words.as_mut_ptr(), words.len());
        let bytes = |bytes: &mut AlignedBytes| base(bytemuck::cast_slice_mut(bytes.bytes_mut()));
        let (blocks, making) = match makes {
            None => (&self.blocks[..], None),
            Some(block) => {
                let (before, from) = self.blocks.split_at_mut(block);
                (&*before, from.first_mut().map(|block| base(block.words_mut())))
            }
        };
        SharedArena {
            kept: bytes(&mut self.kept),
            scratch: bytes(&mut self.scratch),
            blocks,
            making,
            workers: &self.workers,
            life: PhantomData,
        }
    }
}

/// An exclusive borrow of an arena that several threads use at once, each writing its own tile of one matrix.
#[derive(Clone, Copy)]
pub(super) struct SharedArena<'a> {
    kept: (*mut f32, usize),
    scratch: (*mut f32, usize),
    /// The shared blocks that can be read: all, or those before the one that is being made.
    blocks: &'a [Block],
    /// The shared block that is being made: its number is `blocks.len()`.
    making: Option<(*mut f32, usize)>,
    workers: &'a [Mutex<AlignedBytes>],
    life: PhantomData<&'a mut Arena>,
}

// SAFETY: what is reached through the pointers is either read by all or written by one: see `Cx::mat` and
// `SharedArena::tile`.
unsafe impl Send for SharedArena<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedArena<'_> {}

impl<'a> SharedArena<'a> {
    /// A memory that this run has alone: it may be written. Panics for a shared block other than the one being made.
    fn own(&self, space: Space) -> (*mut f32, usize) {
        match (space, self.making) {
            (Space::Kept, _) => self.kept,
            (Space::Scratch, _) => self.scratch,
            (Space::Shared(block), Some(making)) if block == self.blocks.len() => making,
            (Space::Shared(block), _) => panic!("shared block {block} is written where it is not made"),
        }
    }

    /// A memory to read. Panics for a shared block that is neither made nor being made.
    fn read(&self, space: Space) -> (*const f32, usize) {
        match space {
            Space::Shared(block) if block < self.blocks.len() => {
                let words = self.blocks[block].words();
                (words.as_ptr(), words.len())
            }
            _ => {
                let (base, len) = self.own(space);
                (base.cast_const(), len)
            }
        }
    }

    /// The rectangle `rows` x `cols` of `view`.
    ///
    /// # Safety
    /// While the tile lives, all other tiles are of the same view and turn and do not overlap it, and every [`Cx`]
    /// of this arena was made for that view and turn.
    pub(super) unsafe fn tile(
        self,
        view: &View,
        turn: usize,
        rows: Range<usize>,
        cols: Range<usize>,
    ) -> TileMut<'a, f32> {
        let (base, len) = self.own(view.space);
        let span = view.span(turn);
        // A matrix of nothing has no tiles. In one whose span fits no product of its sizes and strides has wrapped.
        let fits = span.start < span.end && span.end <= len;
        assert!(fits && view.layout.is_disjoint(), "{view:?} turn {turn} in {len} words");
        assert!(rows.end <= view.count() && cols.start <= cols.end && cols.end <= view.cols());
        // SAFETY: the span, the layout's extent from its start on, is inside memory that `self` borrows exclusively (`own`: of
        // the shared blocks only the one that no other arena has yet), and the rectangle is inside of it; by the caller's duty
        // nobody else writes the rectangle, and `Cx::mat` refuses to read anything of the span.
        unsafe { TileMut::new(base.add(span.start), view.layout, rows, cols) }
    }
}

/// What an op computes a tile with: the matrices it reads, the turn, the instruction set, a worker's own memory.
pub struct Cx<'a> {
    arena: SharedArena<'a>,
    written: (Space, Range<usize>),
    turn: usize,
    isa: Isa,
    worker: usize,
}

impl<'a> Cx<'a> {
    /// A context for tiles of `written` in `turn`, for thread `worker`.
    pub(super) fn new(arena: SharedArena<'a>, written: &View, turn: usize, isa: Isa, worker: usize) -> Self {
        Self { arena, written: (written.space, written.span(turn)), turn, isa, worker }
    }

    /// How often the segment has run before.
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// The instruction set to compute with.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// A matrix that the op reads. Panics if it overlaps the matrix that the op writes, which no plan does.
    pub fn mat<T: bytemuck::Pod>(&self, view: &View) -> Mat<'a, T> {
        const { assert!(size_of::<T>() == 4 && align_of::<T>() == 4) };
        let (base, len) = self.arena.read(view.space);
        let span = view.span(self.turn);
        let (space, written) = &self.written;
        assert!(span.start <= span.end && span.end <= len, "{view:?} in {len} words");
        assert!(
            *space != view.space || span.end <= written.start || written.end <= span.start,
            "{view:?} is read and written"
        );
        // SAFETY: the span is inside the memory borrowed by the arena's handle for 'a; only the span `written` is
        // written meanwhile (`SharedArena::tile`), and the two do not overlap. A shared block that is made is written by
        // nobody: it has left the hands of the one arena that could (`Block::words_mut`). Every word is a valid T (Pod).
        Mat::new(unsafe { std::slice::from_raw_parts(base.add(span.start).cast(), span.len()) }, view.layout)
    }

    /// This worker's own memory, as long as the op's `worker_words` asked for.
    pub fn worker_memory(&self) -> WorkerMemory<'a> {
        let lock = &self.arena.workers[self.worker];
        WorkerMemory(lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A worker's memory, borrowed for one tile.
pub struct WorkerMemory<'a>(MutexGuard<'a, AlignedBytes>);

impl WorkerMemory<'_> {
    /// The first `lens` floats as separate slices. Panics if the plan reserved fewer.
    pub fn split<const N: usize>(&mut self, lens: [usize; N]) -> [&mut [f32]; N] {
        #[cfg(all(test, unix))]
        self.fence(lens);
        let mut rest: &mut [f32] = bytemuck::cast_slice_mut(self.0.bytes_mut());
        lens.map(|len| {
            let (room, start) = Self::room(len);
            let (part, tail) = std::mem::take(&mut rest).split_at_mut(room);
            rest = tail;
            &mut part[start..][..len]
        })
    }

    /// Words that [`WorkerMemory::split`] takes for `lens`.
    pub fn words<const N: usize>(lens: [usize; N]) -> usize {
        lens.into_iter().map(|len| Self::room(len).0).sum()
    }

    /// Words that a part of `len` takes, and where in them it starts: on a cache line.
    #[cfg(not(all(test, unix)))]
    fn room(len: usize) -> (usize, usize) {
        (len.next_multiple_of(LINE_WORDS), 0)
    }
}

/// In the tests of this crate each part ends at a fence.
#[cfg(all(test, unix))]
impl WorkerMemory<'_> {
    const PAGE_WORDS: usize = crate::tensor::fence::PAGE / 4;

    fn room(len: usize) -> (usize, usize) {
        let room = len.next_multiple_of(Self::PAGE_WORDS);
        (room + Self::PAGE_WORDS, room - len)
    }

    /// Puts the fences up, and takes those behind the parts before away.
    fn fence<const N: usize>(&mut self, lens: [usize; N]) {
        self.0.unfence();
        let mut end = 0;
        for len in lens {
            end += Self::room(len).0;
            self.0.fence(4 * (end - Self::PAGE_WORDS));
        }
    }
}
