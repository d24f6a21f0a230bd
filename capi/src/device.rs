//! What computes.

use crate::sized::{self, size_first};
use crate::status::{Result, Status, free, get, give, guard, text};
use discon::Cpu;
use std::ffi::c_char;

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
}

size_first!(CpuOptions, "cpu options", { threads: 0, isa: std::ptr::null() });

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
        let CpuOptions { threads, isa, .. } = options;
        // The name first: it starts no threads.
        // SAFETY: as the header asks.
        let isa = if isa.is_null() { None } else { Some(discon::simd::Isa::named(unsafe { text(isa, "isa")? })?) };
        let cpu = Cpu::new(threads)?;
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
    Err(crate::status::Failure::Unsupported(
        "device: expected a library built with the feature `cuda`, found one without",
    ))
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
