//! What computes.

use crate::sized::{self, size_first};
use crate::status::{Failure, Result, Status, free, get, give, guard, text};
use discon::{Cpu, RawJob, Workers};
use std::ffi::{c_char, c_void};

/// What computes: threads of the processor, or a GPU. Sessions share it; it may be freed before them.
pub struct DeviceHandle(pub(crate) discon::Device);

/// How to use the processor.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CpuOptions {
    /// Bytes of this struct: what `discon_cpu_options_init` puts here.
    pub size: usize,
    /// Threads that compute, the calling one among them; 0 is one a core. 1 starts none.
    pub threads: usize,
    /// The instruction set by name, as `avx2` or `scalar`; null is the best there is.
    pub isa: *const c_char,
    /// Has a thread of the host do a job, soon, and does not wait for it: then the library starts no threads, and asks for
    /// `threads - 1` at most at a time. Called from inside of steps. Jobs that come late or never hold nobody up. Null: threads of
    /// the library's own.
    pub spawn: Option<unsafe extern "C" fn(user: *mut c_void, job: Job)>,
    /// Called by each thread of the library's own when it starts, with its number from 1 on: to set its priority, its cores or its name.
    /// Null: nothing. Not together with `spawn`.
    pub thread_start: Option<unsafe extern "C" fn(user: *mut c_void, thread: usize)>,
    /// Handed to both functions; it must stay until the device and all sessions on it are freed.
    pub user: *mut c_void,
}

/// Work for a thread of the host. Either `run` or `discard` is called with `data`, once, at any time, by any thread: also when the
/// session and the device are gone. `run` returns when the step that asked for help is over, or when there was nothing to do for a while.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Job {
    /// Does the job.
    pub run: Option<unsafe extern "C" fn(data: *mut c_void)>,
    /// Gives the job up.
    pub discard: Option<unsafe extern "C" fn(data: *mut c_void)>,
    /// For either.
    pub data: *mut c_void,
}

/// The host's side of a device.
struct Host<F> {
    call: F,
    user: *mut c_void,
}

// SAFETY: the header says that any thread may call the function with `user`.
unsafe impl<F: Send> Send for Host<F> {}
// SAFETY: the same.
unsafe impl<F: Sync> Sync for Host<F> {}

impl Workers for Host<unsafe extern "C" fn(*mut c_void, Job)> {
    fn spawn(&self, job: discon::Job) {
        let RawJob { run, discard, data } = job.into_raw();
        // SAFETY: as the header asks.
        unsafe { (self.call)(self.user, Job { run: Some(run), discard: Some(discard), data }) };
    }
}

size_first!(CpuOptions, "cpu options", { threads: 0, isa: std::ptr::null(), spawn: None, thread_start: None, user: std::ptr::null_mut() });

impl Host<unsafe extern "C" fn(*mut c_void, usize)> {
    fn start(&self, thread: usize) {
        // SAFETY: as the header asks.
        unsafe { (self.call)(self.user, thread) };
    }
}

/// Makes options of `size` bytes (`sizeof`): a thread a core, the best instruction set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_cpu_options_init(options: *mut CpuOptions, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(options, size, &sized::SizeFirst::DEFAULT) })
}

/// The processor. `options` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_device_cpu(options: *const CpuOptions, device: *mut *mut DeviceHandle) -> Status {
    let make = || -> Result<_> {
        // SAFETY: as the header asks.
        let options = if options.is_null() { sized::SizeFirst::DEFAULT } else { unsafe { sized::read(options)? } };
        let CpuOptions { threads, isa, spawn, thread_start, user, .. } = options;
        // The name first: it starts no threads.
        // SAFETY: as the header asks.
        let isa = if isa.is_null() { None } else { Some(discon::simd::Isa::named(unsafe { text(isa, "isa")? })?) };
        let cpu = match (spawn, thread_start) {
            (None, None) => Cpu::new(threads)?,
            (Some(call), None) => Cpu::on(Host { call, user }, threads)?,
            (None, Some(call)) => {
                let host = Host { call, user };
                Cpu::new_with(threads, move |thread| host.start(thread))?
            }
            (Some(_), Some(_)) => {
                return Err(Failure::Misuse("cpu options: expected `spawn` or `thread_start`, found both"));
            }
        };
        Ok(DeviceHandle(match isa {
            Some(isa) => cpu.with_isa(isa.name())?.into(),
            None => cpu.into(),
        }))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(device, "device", make) })
}

/// NVIDIA's GPU of that number, from 0. DISCON_STATUS_UNSUPPORTED in a library that was built without them,
/// DISCON_STATUS_DEVICE where there is no driver or no GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_device_cuda(ordinal: usize, device: *mut *mut DeviceHandle) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { give(device, "device", || gpu(ordinal)) })
}

#[cfg(feature = "cuda")]
fn gpu(ordinal: usize) -> Result<DeviceHandle> {
    Ok(DeviceHandle(discon::cuda::Gpu::new(ordinal)?.into()))
}

#[cfg(not(feature = "cuda"))]
fn gpu(_: usize) -> Result<DeviceHandle> {
    Err(Failure::Unsupported("device: expected a library built with the feature `cuda`, found one without"))
}

/// Threads of the processor that compute; 0 on a GPU.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_device_threads(device: *const DeviceHandle, threads: *mut usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { crate::status::put(threads, "threads", get(device, "device")?.0.threads()) })
}

/// Frees a device; its threads end with the last session that uses them. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_device_free(device: *mut DeviceHandle) -> Status {
    // SAFETY: as the header asks.
    unsafe { free(device) }
}
