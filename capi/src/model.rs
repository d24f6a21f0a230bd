//! Models: opened, and asked what they are.

use crate::request::Settings;
use crate::sized::{self, size_first};
use crate::status::{Result, Status, free, get, give, guard, put, slice, text};
use discon::tensor::{Limit, SharedBytes};
use discon::{Error, Model, Precision as Computed};
use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;

/// A model. Any number of threads may use it at once; sessions keep what they need of it, so it may be freed before them.
pub struct ModelHandle {
    pub(crate) model: Model,
    /// Names as C has them.
    classes: Vec<CString>,
    /// Bytes of files that were copied, for want of a `release`.
    files: u64,
}

/// How to open a model.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OpenOptions {
    /// Bytes of this struct: what `discon_open_options_init` puts here.
    pub size: usize,
    /// Bytes that the model may have of its own, as `own_bytes` of a discon_model_info; what lies in mapped files or in the caller's
    /// memory is not counted. 0 is what the system has left, UINT64_MAX leaves it to the system.
    pub memory_limit: u64,
    /// What products are computed in: a discon_precision.
    pub precision: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(OpenOptions, "open options", { memory_limit: 0, precision: 0, reserved: 0 });

impl OpenOptions {
    /// Null is the defaults.
    ///
    /// # Safety
    /// As of [`sized::read`].
    unsafe fn read(from: *const Self) -> Result<discon::OpenOptions> {
        if from.is_null() {
            return Ok(discon::OpenOptions::default());
        }
        // SAFETY: as the caller says.
        let given = unsafe { sized::read(from)? };
        sized::reserved(&given, given.reserved)?;
        Ok(discon::OpenOptions { precision: precision(given.precision)?, memory_limit: limit(given.memory_limit) })
    }
}

/// 0 is no limit of the caller's.
pub(crate) fn limit(bytes: u64) -> Option<u64> {
    (bytes > 0).then_some(bytes)
}

/// Makes options of `size` bytes (`sizeof`): the precision that the model was packed for, what memory there is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_open_options_init(options: *mut OpenOptions, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(options, size, &sized::SizeFirst::DEFAULT) })
}

/// What products are computed in.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum Precision {
    /// What the folder was packed for; f32 for any other.
    Stored = 0,
    /// f32: the reference.
    F32 = 1,
    /// bf16 with sums in f32.
    Bf16 = 2,
    /// 8-bit integers in blocks of 64.
    Q8 = 3,
}

/// A file of a model in memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct File {
    /// Its name in a model folder, as `discon.json`.
    pub name: *const c_char,
    /// What it holds. At a multiple of 64 bytes its weights are used in place.
    pub bytes: *const u8,
    /// How many bytes.
    pub length: usize,
}

/// What a model is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ModelInfo {
    /// Bytes of this struct: what `discon_model_info_init` puts here.
    pub size: usize,
    /// Pixels a side of its images.
    pub image_size: usize,
    /// Classes.
    pub classes: usize,
    /// Places of an image: its tokens.
    pub places: usize,
    /// Numbers of a continuous token.
    pub channels: usize,
    /// Codes that a discrete token may have.
    pub codes: usize,
    /// What its products are computed in: a discon_precision.
    pub precision: u32,
    /// Whether it can make coarse pictures of discrete tokens: 0 or 1.
    pub previews: u32,
    /// Bytes of weights that are used where they lie: in mapped files, or in the caller's memory.
    pub weights_in_place: u64,
    /// Bytes of weights that were copied: by themselves, or with their files.
    pub weights_copied: u64,
    /// Bytes of what its sessions have made for each other so far.
    pub shared_bytes: u64,
    /// Bytes that the model has of its own, which `memory_limit` limits: weights that were copied, what was made of weights, and
    /// files that `discon_model_from_memory` copied, each as a whole.
    pub own_bytes: u64,
}

size_first!(ModelInfo, "model info", {
    image_size: 0, classes: 0, places: 0, channels: 0, codes: 0, precision: 0, previews: 0, weights_in_place: 0, weights_copied: 0,
    shared_bytes: 0, own_bytes: 0,
});

fn precision(number: u32) -> Result<Option<Computed>> {
    match number {
        0 => Ok(None),
        1 => Ok(Some(Computed::F32)),
        2 => Ok(Some(Computed::Bf16)),
        3 => Ok(Some(Computed::Q8)),
        _ => Err(Error::input("precision", "a discon_precision", number).into()),
    }
}

impl ModelHandle {
    fn new(model: Model, files: u64) -> Self {
        let name = |name: &String| CString::new(name.replace('\0', "")).unwrap_or_default();
        Self { classes: model.config().classes.iter().map(name).collect(), model, files }
    }
}

/// The path of a folder in C's text: bytes where paths are bytes, else UTF-8.
///
/// # Safety
/// As of [`text`].
unsafe fn folder<'a>(pointer: *const c_char) -> Result<&'a std::path::Path> {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        if !pointer.is_null() {
            // SAFETY: as the caller says.
            let bytes = unsafe { std::ffi::CStr::from_ptr(pointer) }.to_bytes();
            return Ok(std::ffi::OsStr::from_bytes(bytes).as_ref());
        }
    }
    // SAFETY: as the caller says.
    unsafe { text(pointer, "folder") }.map(AsRef::as_ref)
}

/// Opens a model folder: `discon.json` beside the parts' `.safetensors`. Its files are mapped: they must not be written over
/// while the model or a session of it is there. `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_open(
    folder: *const c_char,
    options: *const OpenOptions,
    model: *mut *mut ModelHandle,
) -> Status {
    let make = || -> Result<_> {
        // SAFETY: as the header asks.
        let (folder, options) = unsafe { (self::folder(folder)?, OpenOptions::read(options)?) };
        Ok(ModelHandle::new(Model::open_with(folder, &options)?, 0))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(model, "model", make) })
}

/// Told when the memory of a model's files is no longer used, on whichever thread that is.
pub type Release = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// The caller's memory; the last who uses it lets go of it.
struct Lender {
    release: unsafe extern "C" fn(*mut c_void),
    user: *mut c_void,
}

// SAFETY: the header says that any thread may call `release` with `user`; it is called once.
unsafe impl Send for Lender {}
// SAFETY: nothing can be done with a shared one.
unsafe impl Sync for Lender {}

impl Drop for Lender {
    fn drop(&mut self) {
        // SAFETY: all bytes that were lent are out of use: each holds the lender.
        unsafe { (self.release)(self.user) };
    }
}

/// A file in the caller's memory.
struct Lent {
    bytes: &'static [u8],
    _lender: Arc<Lender>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

/// Opens a model whose files lie in memory: `count` of them. With `release` they are used where they lie, and must stay and
/// not change until `release(user)` is called: once, when the model and all its sessions are gone, or before this call returns if
/// it fails. Without it they are copied, within `memory_limit`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_from_memory(
    files: *const File,
    count: usize,
    options: *const OpenOptions,
    release: Release,
    user: *mut c_void,
    model: *mut *mut ModelHandle,
) -> Status {
    let lender = release.map(|release| Lender { release, user });
    let make = || -> Result<_> {
        let lender = lender.map(Arc::new);
        // SAFETY: as the header asks.
        let (files, options) = unsafe { (slice(files, count, "files")?, OpenOptions::read(options)?) };
        let copied = match &lender {
            Some(_) => 0,
            None => files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.length as u64)),
        };
        if let Some(limit) = Limit::new(options.memory_limit) {
            limit.check(|| "a copy of the model's files".to_owned(), copied)?;
        }
        let mut given: Vec<(String, SharedBytes)> = Vec::new();
        for file in files {
            // SAFETY: as the header asks; with a lender the bytes stay as long as it does.
            let (name, bytes) =
                unsafe { (text(file.name, "name of a file")?, slice(file.bytes, file.length, "bytes of a file")?) };
            given.push((
                name.to_owned(),
                match &lender {
                    Some(lender) => Arc::new(Lent { bytes, _lender: Arc::clone(lender) }),
                    None => copy(name, bytes)?,
                },
            ));
        }
        // What the system has left is less by now, without the copies.
        let memory_limit = options.memory_limit.map(|limit| limit - copied);
        let model = Model::from_bytes_with(given, &discon::OpenOptions { memory_limit, ..options });
        Ok(ModelHandle::new(model.map_err(|error| beside(copied, error))?, copied))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(model, "model", make) })
}

/// Says of memory that was refused what else there is within the limit.
fn beside(copied: u64, error: Error) -> Error {
    match error {
        Error::Memory { what, bytes, reason } if copied > 0 => {
            let reason = format!("{reason}, beside {copied} bytes of files that were copied");
            Error::Memory { what, bytes, reason }
        }
        other => other,
    }
}

/// Bytes of our own, in lines of 64.
fn copy(name: &str, bytes: &[u8]) -> Result<SharedBytes> {
    let mut copy = discon::tensor::AlignedBytes::zeroed(bytes.len(), name)?;
    copy.bytes_mut().copy_from_slice(bytes);
    Ok(Arc::new(copy))
}

/// Makes a struct of `size` bytes (`sizeof`) for `discon_model_get_info`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_info_init(info: *mut ModelInfo, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(info, size, &sized::SizeFirst::DEFAULT) })
}

/// Says what a model is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_get_info(model: *const ModelHandle, info: *mut ModelInfo) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let ModelHandle { model, files, .. } = unsafe { get(model, "model")? };
        let (config, memory) = (model.config(), model.weight_memory());
        let in_copies = if *files > 0 { memory.in_place } else { 0 };
        let codes = config.discon.as_ref().map(|c| c.codebook_size).or(config.vq.as_ref().map(|c| c.codebook_size));
        let made = ModelInfo {
            size: 0,
            image_size: model.image_size(),
            classes: config.classes.len(),
            places: model.places()?,
            channels: config.vae.as_ref().map_or(0, |vae| vae.z_channels),
            codes: codes.unwrap_or(0),
            precision: match model.precision() {
                Computed::F32 => Precision::F32,
                Computed::Bf16 => Precision::Bf16,
                Computed::Q8 => Precision::Q8,
            } as u32,
            previews: config.vq.is_some().into(),
            weights_in_place: memory.in_place - in_copies,
            weights_copied: memory.copied + in_copies,
            shared_bytes: model.shared_bytes(),
            own_bytes: memory.own() + files,
        };
        // SAFETY: as the header asks.
        unsafe { sized::write(info, &made) }
    })
}

/// The name of a class, by its number. It stays until the model is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_class_name(
    model: *const ModelHandle,
    class_: u32,
    name: *mut *const c_char,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let known = &unsafe { get(model, "model")? }.classes;
        let found = known.get(class_ as usize);
        let found = found.ok_or_else(|| Error::input("class", format!("a number below {}", known.len()), class_))?;
        // SAFETY: as the header asks.
        unsafe { put(name, "name", found.as_ptr()) }
    })
}

/// The number of the class of that name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_class(
    model: *const ModelHandle,
    name: *const c_char,
    class_: *mut u32,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        unsafe { put(class_, "class", get(model, "model")?.model.class(text(name, "name")?)? as u32) }
    })
}

/// Makes settings of `size` bytes (`sizeof`): those that the model asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_settings_init(
    settings: *mut Settings,
    size: usize,
    model: *const ModelHandle,
) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(settings, size, &Settings::of(&get(model, "model")?.model.settings())) })
}

/// Frees a model; its memory goes with the last session of it. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_free(model: *mut ModelHandle) -> Status {
    // SAFETY: as the header asks.
    unsafe { free(model) }
}
