//! What a model has on a GPU, for all its sessions there.

use crate::cuda::abi::Address;
use crate::cuda::{Context, DeviceBuffer, Stream};
use crate::error::Result;
use crate::plan::Store;
use crate::tensor::{Matrix, SharedBytes};
use std::cell::RefCell;
use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// What the GPUs of a process have of one model.
#[derive(Debug, Default)]
pub(crate) struct Residents(Mutex<Vec<(Context, Arc<Resident>)>>);

impl Residents {
    /// What there is in `context`.
    pub(crate) fn of(&self, context: &Context) -> Arc<Resident> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, resident)) = all.iter().find(|(of, _)| of.as_raw() == context.as_raw()) {
            return Arc::clone(resident);
        }
        let resident = Arc::default();
        all.push((context.clone(), Arc::clone(&resident)));
        resident
    }

    /// Bytes of all GPUs.
    pub(crate) fn bytes(&self) -> u64 {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(_, resident)| resident.bytes()).sum()
    }
}

/// A model's weights on one GPU, each brought there when a plan first needs it, and its finished shared blocks.
#[derive(Debug, Default)]
pub struct Resident {
    weights: Mutex<HashMap<Source, Uploaded>>,
    pub(super) blocks: Store<DeviceBuffer<u32>>,
}

/// Bytes of the host, and what was done to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Source {
    start: usize,
    len: usize,
    changed: bool,
}

/// Weights that a plan would bring to the GPU, and their bytes there.
#[derive(Debug, Default)]
pub(super) struct Missing(HashMap<Source, u64>);

impl Missing {
    /// All bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.0.values().sum()
    }
}

struct Uploaded {
    buffer: DeviceBuffer<u8>,
    /// Plans that use it. Those that kept it are counted for good.
    users: usize,
    /// While they are held, nothing else can come to lie at the same place.
    _held: SharedBytes,
}

impl std::fmt::Debug for Uploaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.buffer.fmt(f)
    }
}

impl Resident {
    /// Bytes on the GPU.
    fn bytes(&self) -> u64 {
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        weights.values().map(|w| w.buffer.bytes() as u64).sum::<u64>() + self.blocks.sum(|b| b.bytes() as u64)
    }

    /// Counts `bytes`, or the `changed` ones that are made of them, if they are not on the GPU.
    pub(super) fn count(&self, bytes: &[u8], changed: Option<u64>, missing: &mut Missing) {
        let source = Source { start: bytes.as_ptr().addr(), len: bytes.len(), changed: changed.is_some() };
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if !weights.contains_key(&source) {
            missing.0.insert(source, changed.unwrap_or(bytes.len() as u64));
        }
    }
}

/// The weights of one plan on a GPU. Until they are kept, those that no other plan uses leave it with this.
#[derive(Debug)]
pub(super) struct Used {
    resident: Arc<Resident>,
    /// Those that count this plan among their users, until they are kept.
    sources: RefCell<HashSet<Source>>,
}

impl Drop for Used {
    fn drop(&mut self) {
        let mut weights = self.resident.weights.lock().unwrap_or_else(PoisonError::into_inner);
        for source in self.sources.get_mut().drain() {
            if let Entry::Occupied(mut found) = weights.entry(source) {
                found.get_mut().users -= 1;
                if found.get().users == 0 {
                    found.remove();
                }
            }
        }
    }
}

impl Used {
    /// None yet, of those that `resident` has or will have.
    pub(super) fn new(resident: Arc<Resident>) -> Self {
        Self { resident, sources: RefCell::default() }
    }

    /// From now on they stay as long as the model.
    pub(super) fn keep(&mut self) {
        // Their users never become none.
        *self.sources.get_mut() = HashSet::new();
    }

    /// Where `bytes`, which `held` keeps, lie on the GPU: straight from where they are, a mapped file most often.
    pub(super) fn weight(&self, stream: &Stream, name: &str, bytes: &[u8], held: &SharedBytes) -> Result<Address> {
        self.get(stream, name, bytes, held, None)
    }

    /// Where what `change` makes of them lies.
    pub(super) fn changed(
        &self,
        stream: &Stream,
        name: &str,
        bytes: &[u8],
        held: &SharedBytes,
        change: &dyn Fn() -> Result<Matrix>,
    ) -> Result<Address> {
        self.get(stream, name, bytes, held, Some(change))
    }

    fn get(
        &self,
        stream: &Stream,
        name: &str,
        bytes: &[u8],
        held: &SharedBytes,
        change: Option<&dyn Fn() -> Result<Matrix>>,
    ) -> Result<Address> {
        let source = Source { start: bytes.as_ptr().addr(), len: bytes.len(), changed: change.is_some() };
        // Held while a weight goes up: two sessions that begin at once bring each only once.
        let mut weights = self.resident.weights.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match weights.entry(source) {
            Entry::Occupied(found) => found.into_mut(),
            Entry::Vacant(missing) => {
                let buffer = match change {
                    None => DeviceBuffer::from_slice(stream, name, bytes)?,
                    Some(change) => DeviceBuffer::from_slice(stream, name, change()?.stored())?,
                };
                missing.insert(Uploaded { buffer, users: 0, _held: Arc::clone(held) })
            }
        };
        if self.sources.borrow_mut().insert(source) {
            found.users += 1;
        }
        Ok(found.buffer.ptr().0)
    }
}
