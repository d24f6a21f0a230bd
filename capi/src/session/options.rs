//! What a session is for, and what it takes.

use crate::device::DeviceHandle;
use crate::model::{ModelHandle, limit};
use crate::request::{self, Settings};
use crate::sized::{self, size_first};
use crate::status::{Result, Status, get, guard};
use discon::{Error, Outputs};

/// What a session is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionOptions {
    /// Bytes of this struct: what `discon_session_options_init` puts here.
    pub size: usize,
    /// Images at a time.
    pub batch: usize,
    /// So many places of each image are not drawn, but given in a discon_start.
    pub known_places: usize,
    /// Each image may be mixed of so many classes.
    pub mix: usize,
    /// Bytes that it may take. 0 is what the system has left, UINT64_MAX leaves it to the system.
    pub memory_limit: u64,
    /// Whether it makes images: 0 or 1.
    pub image: u32,
    /// Whether it makes coarse pictures after stage 1: 0 or 1.
    pub preview: u32,
    /// Whether all discrete tokens are given in a discon_start, and stage 1 is left out: 0 or 1.
    pub given_codes: u32,
    /// Whether it can make pictures of what is drawn so far: 0 or 1. They take memory of their own.
    pub partial_previews: u32,
}

size_first!(SessionOptions, "session options", {
    batch: 1, known_places: 0, mix: 1, memory_limit: 0, image: 1, preview: 0, given_codes: 0, partial_previews: 0,
});

/// Bytes that a session takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memory {
    /// Bytes of this struct: what `discon_memory_init` puts here.
    pub size: usize,
    /// Of the host's memory, all in all.
    pub host: u64,
    /// Of a GPU's memory, all in all.
    pub device: u64,
    /// Inputs, results and all in between.
    pub arena: u64,
    /// Of the processor's threads.
    pub workers: u64,
    /// What sessions share, and no other has made yet.
    pub shared: u64,
    /// Of pictures of what is drawn so far.
    pub previews: u64,
    /// Weights that a GPU has not yet.
    pub weights: u64,
    /// The compiled plan.
    pub plan: u64,
}

size_first!(Memory, "memory", { host: 0, device: 0, arena: 0, workers: 0, shared: 0, previews: 0, weights: 0, plan: 0 });

fn flag(value: u32, name: &'static str) -> Result<bool> {
    match value {
        0 | 1 => Ok(value == 1),
        _ => Err(Error::setting(name, "0 or 1", value).into()),
    }
}

impl SessionOptions {
    /// Batch and outputs. Null is one image.
    ///
    /// # Safety
    /// As of [`sized::read`].
    pub(super) unsafe fn read(from: *const Self) -> Result<(usize, Outputs, discon::SessionOptions)> {
        if from.is_null() {
            return Ok((1, Outputs::IMAGE, discon::SessionOptions::default()));
        }
        // SAFETY: as the caller says.
        let given = unsafe { sized::read(from)? };
        let outputs = Outputs {
            image: flag(given.image, "image")?,
            preview: flag(given.preview, "preview")?,
            given_codes: flag(given.given_codes, "given_codes")?,
            partial_previews: flag(given.partial_previews, "partial_previews")?,
            known_places: given.known_places,
            mix: given.mix,
            ..Outputs::IMAGE
        };
        Ok((given.batch, outputs, discon::SessionOptions { memory_limit: limit(given.memory_limit) }))
    }
}

/// Makes options of `size` bytes (`sizeof`): one image, no preview.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_options_init(options: *mut SessionOptions, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(options, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a struct of `size` bytes (`sizeof`) for what a session costs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_memory_init(memory: *mut Memory, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(memory, size, &sized::SizeFirst::DEFAULT) })
}

/// What a session with these options and settings would take on that device now, to the byte, without taking it. `options` may be null for one image, `settings`
/// for what the model asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_memory(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    options: *const SessionOptions,
    settings: *const Settings,
    memory: *mut Memory,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        unsafe {
            let model = request::model(model)?;
            let (batch, outputs, _) = SessionOptions::read(options)?;
            let m = model.memory(&get(device, "device")?.0, batch, &Settings::read(settings, model)?, outputs)?;
            let made = Memory {
                size: 0,
                host: m.host(),
                device: m.device(),
                arena: m.arena,
                workers: m.workers,
                shared: m.shared,
                previews: m.previews,
                weights: m.weights,
                plan: m.plan,
            };
            sized::write(memory, &made)
        }
    })
}
