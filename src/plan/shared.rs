//! What no request changes: made once and shared by all arenas of a model.

use crate::error::Result;
use crate::simd::Isa;
use crate::tensor::AlignedBytes;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What a block holds, and what it depends on beside the weights and the instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Stage 1's modulations of "no class".
    NullModulations {
        /// Of the places from 0 on, so many.
        places: usize,
    },
    /// The time embeddings of the head's diffusion.
    TimeEmbeddings {
        /// Its steps.
        steps: usize,
    },
    /// Stage 2's condition of "no class" and "no codes" while no place is known.
    FirstNullCondition,
}

/// A block as a plan has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedBlock {
    /// What it holds. Blocks of one key are the same in all plans of a model.
    pub key: Key,
    /// Its size in words (4 bytes).
    pub words: usize,
}

/// The finished blocks of a model in memory of kind `M`. They stay as long as the store, whether an arena uses them or
/// not.
#[derive(Debug)]
pub struct Store<M = AlignedBytes>(Mutex<Vec<Entry<M>>>);

/// A block: what computes it, what it holds, where it is.
type Entry<M> = (Maker, Key, Arc<Slot<M>>);

/// Where the arenas of a model look for a block: empty until one of them has made it.
type Slot<M> = OnceLock<Arc<M>>;

/// What computes a block. Each has blocks of its own, since each rounds differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    Cpu(Isa),
    /// The one GPU that the store is for, with `wgmma` or without.
    #[cfg(feature = "cuda")]
    Gpu {
        wgmma: bool,
    },
}

impl<M> Default for Store<M> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl Store {
    /// Bytes of the finished blocks.
    pub fn bytes(&self) -> u64 {
        self.sum(|bytes| bytes.len() as u64)
    }
}

impl<M> Store<M> {
    /// The sum of something over the finished blocks.
    pub(super) fn sum(&self, of: impl Fn(&M) -> u64) -> u64 {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter_map(|(_, _, slot)| slot.get()).map(|memory| of(memory)).sum()
    }

    /// Words of those of `blocks` that are not finished yet.
    pub(super) fn missing(&self, maker: Maker, blocks: &[SharedBlock]) -> u64 {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there = |block: &SharedBlock| {
            slots.iter().any(|(of, key, slot)| (*of, *key) == (maker, block.key) && slot.get().is_some())
        };
        blocks.iter().filter(|block| !there(block)).map(|block| block.words as u64).sum()
    }

    fn slot(&self, maker: Maker, key: Key) -> Arc<Slot<M>> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, slot)) = slots.iter().find(|(of, is, _)| (*of, *is) == (maker, key)) {
            return slot.clone();
        }
        let slot = Arc::default();
        slots.push((maker, key, Arc::clone(&slot)));
        slot
    }
}

/// A block in an arena: its own while it makes it, everybody's and read only once it is finished.
#[derive(Debug)]
pub(super) struct Block<M = AlignedBytes> {
    slot: Arc<Slot<M>>,
    /// Nobody else's until `ready`.
    memory: Arc<M>,
    ready: bool,
}

impl Block {
    /// The words of a finished block. Panics before.
    pub(super) fn words(&self) -> &[f32] {
        assert!(self.ready, "a shared block is read before it is made");
        bytemuck::cast_slice(self.memory.as_ref().as_ref())
    }

    /// The words of a block that is not finished. Panics after.
    pub(super) fn words_mut(&mut self) -> &mut [f32] {
        match Arc::get_mut(&mut self.memory) {
            Some(bytes) if !self.ready => bytemuck::cast_slice_mut(bytes.bytes_mut()),
            _ => panic!("a shared block is written after it is made"),
        }
    }
}

impl<M> Block<M> {
    /// What the memory of a block is called in errors.
    pub(super) const WHAT: &'static str = "what a model's sessions share";

    /// The finished block `key` of `store`, or memory to make it in.
    pub(super) fn new(store: &Store<M>, maker: Maker, key: Key, memory: impl FnOnce() -> Result<M>) -> Result<Self> {
        let slot = store.slot(maker, key);
        let done = slot.get().cloned();
        let ready = done.is_some();
        let memory = match done {
            Some(memory) => memory,
            None => Arc::new(memory()?),
        };
        Ok(Self { slot, memory, ready })
    }

    /// Whether it is finished.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Its memory.
    pub(super) fn memory(&self) -> &M {
        &self.memory
    }

    /// The block is made: others may have it, unless they have another's already. Neither allocates nor frees.
    pub(super) fn finish(&mut self) {
        self.ready = true;
        // An error says that another arena was faster; `adopt` will take that one's.
        let _ = self.slot.set(self.memory.clone());
    }

    /// Takes the block that others share, if there is one, and frees its own.
    pub(super) fn adopt(&mut self) {
        *self = self.adopted();
    }

    /// What it is once it has taken the block that others share, if there is one.
    pub(super) fn adopted(&self) -> Self {
        let done = self.slot.get();
        let memory = Arc::clone(done.unwrap_or(&self.memory));
        Self { slot: Arc::clone(&self.slot), memory, ready: self.ready || done.is_some() }
    }

    /// Whether nobody else has its memory.
    pub(super) fn is_own(&self) -> bool {
        !self.slot.get().is_some_and(|memory| Arc::ptr_eq(memory, &self.memory))
    }
}
