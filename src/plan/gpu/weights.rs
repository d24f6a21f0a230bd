//! What a model has on a GPU, for all its sessions there.

use crate::cuda::abi::Address;
use crate::cuda::{Context, DeviceBuffer, Stream};
use crate::error::Result;
use crate::plan::Store;
use crate::tensor::SharedBytes;
use std::collections::HashMap;
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

    /// Where `bytes`, which `held` keeps, lie on the GPU: straight from where they are, a mapped file most often.
    pub(super) fn weight(&self, stream: &Stream, name: &str, bytes: &[u8], held: &SharedBytes) -> Result<Address> {
        self.get(stream, name, bytes, held, None)
    }

    /// Where what `change` makes of `bytes` lies.
    pub(super) fn changed(
        &self,
        stream: &Stream,
        name: &str,
        bytes: &[u8],
        held: &SharedBytes,
        change: &dyn Fn() -> Result<Vec<u8>>,
    ) -> Result<Address> {
        self.get(stream, name, bytes, held, Some(change))
    }

    /// Counts `bytes`, or the `changed` ones that are made of them, if they are not on the GPU.
    pub(super) fn count(&self, bytes: &[u8], changed: Option<u64>, missing: &mut Missing) {
        let source = Source { start: bytes.as_ptr().addr(), len: bytes.len(), changed: changed.is_some() };
        let weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if !weights.contains_key(&source) {
            missing.0.insert(source, changed.unwrap_or(bytes.len() as u64));
        }
    }

    fn get(
        &self,
        stream: &Stream,
        name: &str,
        bytes: &[u8],
        held: &SharedBytes,
        change: Option<&dyn Fn() -> Result<Vec<u8>>>,
    ) -> Result<Address> {
        let source = Source { start: bytes.as_ptr().addr(), len: bytes.len(), changed: change.is_some() };
        // Held while a weight goes up: two sessions that begin at once bring each only once.
        let mut weights = self.weights.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = weights.get(&source) {
            return Ok(found.buffer.ptr().0);
        }
        let buffer = match change {
            None => DeviceBuffer::from_slice(stream, name, bytes)?,
            Some(change) => DeviceBuffer::from_slice(stream, name, &change()?)?,
        };
        let address = buffer.ptr().0;
        weights.insert(source, Uploaded { buffer, _held: Arc::clone(held) });
        Ok(address)
    }
}
