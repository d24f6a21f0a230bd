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

/// The finished blocks of a model. They stay as long as the store, whether an arena uses them or not.
#[derive(Debug, Default)]
pub struct Store(Mutex<Vec<(Isa, Key, Arc<Slot>)>>);

/// Where the arenas of a model look for a block: empty until one of them has made it.
type Slot = OnceLock<Arc<AlignedBytes>>;

impl Store {
    /// Bytes of the finished blocks.
    pub fn bytes(&self) -> u64 {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().filter_map(|(_, _, slot)| slot.get()).map(|bytes| bytes.len() as u64).sum()
    }

    /// The slot of a block. Instruction sets have their own, since they round differently.
    fn slot(&self, isa: Isa, key: Key) -> Arc<Slot> {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, _, slot)) = slots.iter().find(|(of, is, _)| (*of, *is) == (isa, key)) {
            return slot.clone();
        }
        let slot = Arc::default();
        slots.push((isa, key, Arc::clone(&slot)));
        slot
    }
}

/// A block in an arena: its own while it makes it, everybody's and read only once it is finished.
#[derive(Debug)]
pub(super) struct Block {
    slot: Arc<Slot>,
    /// Nobody else's until `ready`.
    bytes: Arc<AlignedBytes>,
    ready: bool,
}

impl Block {
    /// The finished block of `store`, or memory to make it in.
    pub(super) fn new(store: &Store, isa: Isa, SharedBlock { key, words }: SharedBlock) -> Result<Self> {
        let slot = store.slot(isa, key);
        let done = slot.get().cloned();
        let ready = done.is_some();
        let bytes = match done {
            Some(bytes) => bytes,
            None => Arc::new(AlignedBytes::zeroed(words * 4, "what a model's sessions share")?),
        };
        assert_eq!(bytes.len(), words * 4, "{key:?} in two sizes");
        Ok(Self { slot, bytes, ready })
    }

    /// Whether it is finished.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The words of a finished block. Panics before.
    pub(super) fn words(&self) -> &[f32] {
        assert!(self.ready, "a shared block is read before it is made");
        bytemuck::cast_slice(self.bytes.as_ref().as_ref())
    }

    /// The words of a block that is not finished. Panics after.
    pub(super) fn words_mut(&mut self) -> &mut [f32] {
        match Arc::get_mut(&mut self.bytes) {
            Some(bytes) if !self.ready => bytemuck::cast_slice_mut(bytes.bytes_mut()),
            _ => panic!("a shared block is written after it is made"),
        }
    }

    /// The block is made: others may have it, unless they have another's already. Neither allocates nor frees.
    pub(super) fn finish(&mut self) {
        self.ready = true;
        // An error says that another arena was faster; `adopt` will take that one's.
        let _ = self.slot.set(self.bytes.clone());
    }

    /// Takes the block that others share, if there is one, and frees its own.
    pub(super) fn adopt(&mut self) {
        if let Some(bytes) = self.slot.get() {
            self.bytes.clone_from(bytes);
            self.ready = true;
        }
    }

    /// Bytes that nobody else has.
    pub(super) fn own_bytes(&self) -> u64 {
        let shared = self.slot.get().is_some_and(|bytes| Arc::ptr_eq(bytes, &self.bytes));
        if shared { 0 } else { self.bytes.len() as u64 }
    }
}
