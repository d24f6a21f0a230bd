//! Where the memory and the kernels of one GPU live.

use super::driver::{
    self, Code, cuCtxGetCurrent, cuCtxGetDevice, cuCtxPopCurrent_v2, cuCtxPushCurrent_v2, cuDevicePrimaryCtxRelease_v2,
    cuDevicePrimaryCtxRetain, cuMemGetInfo_v2,
};
use super::{Device, failed, problem, sort};
use crate::error::{DeviceProblem, Error, Result};
use cust::sys::CUcontext;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::null_mut;
use std::sync::Arc;

/// Bytes of a GPU's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Nobody's.
    pub free: u64,
    /// All.
    pub total: u64,
}

/// A context of the driver. Cloning shares it; whatever lives in it keeps it alive.
#[derive(Debug, Clone)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    raw: CUcontext,
    device: Device,
    /// Of the device's primary context this holds one count, of a host's own none.
    retained: bool,
}

// SAFETY: a context is a handle; the driver's functions take it from any thread, and from several at once.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.retained {
            // SAFETY: it was retained once, in `Context::primary`. What it returns can be of use to nobody any more.
            unsafe { cuDevicePrimaryCtxRelease_v2(self.device.raw.as_raw()) };
        }
    }
}

impl Context {
    /// The device's primary context, which all libraries that use CUDA's runtime share.
    pub fn primary(device: &Device) -> Result<Self> {
        let what = || format!("a context on {}", device.name());
        let mut raw = null_mut();
        // SAFETY: it writes one handle.
        unsafe { cuDevicePrimaryCtxRetain(&mut raw, device.raw.as_raw()) }.check(|code| match code {
            Code::OUT_OF_MEMORY => problem(DeviceProblem::Memory, what(), "enough free memory", code),
            // Another process may have it for itself, or it may have fallen off the bus.
            _ => problem(sort(code, DeviceProblem::Call), what(), "that the GPU takes this process", code),
        })?;
        Ok(Self(Arc::new(Inner { raw, device: device.clone(), retained: true })))
    }

    /// A host's own context, a `CUcontext`. It is used and never destroyed.
    ///
    /// # Safety
    /// It is a live context, and lives as long as what is made from this one: clones, streams, buffers, modules, graphs.
    pub unsafe fn from_raw(raw: *mut c_void) -> Result<Self> {
        let driver = driver::start()?;
        if raw.is_null() {
            return Err(Error::input("context", "a CUcontext", "null"));
        }
        let raw: CUcontext = raw.cast();
        let mut device = 0;
        {
            let _entered = Entered::new(raw)?;
            // SAFETY: it writes one number.
            unsafe { cuCtxGetDevice(&mut device) }.check(failed("device of a context"))?;
        }
        // The handle of a device is its number.
        let device = Device::at(device.unsigned_abs(), driver)?;
        Ok(Self(Arc::new(Inner { raw, device, retained: false })))
    }

    /// The context that the host has made current in this thread, or none.
    ///
    /// # Safety
    /// As [`Context::from_raw`].
    pub unsafe fn current() -> Result<Option<Self>> {
        driver::start()?;
        let mut raw = null_mut();
        // SAFETY: it writes one handle.
        unsafe { cuCtxGetCurrent(&mut raw) }.check(failed("current context"))?;
        // SAFETY: the caller's duty; that it is live follows from being current.
        if raw.is_null() { Ok(None) } else { unsafe { Self::from_raw(raw.cast()) }.map(Some) }
    }

    /// The driver's handle, a `CUcontext`.
    pub fn as_raw(&self) -> *mut c_void {
        self.0.raw.cast()
    }

    /// The GPU.
    pub fn device(&self) -> &Device {
        &self.0.device
    }

    /// The GPU's streaming multiprocessors: blocks of threads that run at once are a multiple of them.
    pub fn multiprocessors(&self) -> usize {
        self.device().multiprocessors()
    }

    /// The GPU's memory now.
    pub fn memory(&self) -> Result<MemoryInfo> {
        let _entered = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: it writes two numbers.
        unsafe { cuMemGetInfo_v2(&mut free, &mut total) }.check(failed("free memory of a GPU"))?;
        Ok(MemoryInfo { free: free as u64, total: total as u64 })
    }

    /// Makes it current in this thread until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Entered> {
        Entered::new(self.0.raw)
    }
}

/// A context is current in this thread, over the one that was. Guards end in the reverse of the order they began in: none
/// leaves the function that made it.
#[must_use]
pub(super) struct Entered {
    /// What is current belongs to a thread, so the guard stays there.
    _not_send: PhantomData<*mut ()>,
}

impl Entered {
    fn new(raw: CUcontext) -> Result<Self> {
        // SAFETY: the context is live: retained, or by the duty of `Context::from_raw`.
        unsafe { cuCtxPushCurrent_v2(raw) }.check(failed("making a context current"))?;
        Ok(Self { _not_send: PhantomData })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut popped = null_mut();
        // SAFETY: the topmost context of this thread is the one that `new` pushed.
        unsafe { cuCtxPopCurrent_v2(&mut popped) };
    }
}
