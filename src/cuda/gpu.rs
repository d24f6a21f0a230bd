//! A GPU to compute on: a context with the kernels in it.

use super::kernels::Kernels;
use super::{ComputeCapability, Context, Device, Stream, problem};
use crate::error::{DeviceProblem, Error, Result};
use std::ffi::c_void;
use std::path::Path;
use std::sync::Arc;

/// A GPU to compute on. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Gpu {
    inner: Arc<Inner>,
    /// A host's own stream, for all sessions of this value.
    stream: Option<HostStream>,
    /// Whether large products go to kernels of its own generation, if there are any.
    wgmma: bool,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    kernels: Kernels,
}

/// A `CUstream` of the host.
#[derive(Debug, Clone, Copy)]
struct HostStream(*mut c_void);

// SAFETY: a stream is a handle that the driver takes from any thread; that it lives is the duty of who gave it.
unsafe impl Send for HostStream {}
// SAFETY: as above. Who puts work into it from several threads is told so by `Gpu::with_stream`.
unsafe impl Sync for HostStream {}

impl Gpu {
    /// GPU `ordinal` of this process, in its primary context.
    ///
    /// [`Error::Device`] says what is in the way: no driver, no GPU, one too old, a driver that refuses the kernels, too
    /// little memory.
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::in_context(Context::primary(&Device::open(ordinal)?)?, None)
    }

    /// The same in any context, a host's own among them. Where `kernels` names a folder, `NAME.ptx` in it is taken in the
    /// place of the embedded file of that name: to work on a kernel without building the crate anew.
    pub fn in_context(context: Context, kernels: Option<&Path>) -> Result<Self> {
        let device = context.device();
        let capability = device.compute_capability();
        if capability < ComputeCapability::NEEDED {
            let expected = format!("compute capability {} or above", ComputeCapability::NEEDED);
            return Err(problem(DeviceProblem::Kernel, device.name(), expected, capability));
        }
        let kernels = Kernels::load(&context, kernels)?;
        let wgmma = capability == ComputeCapability::HOPPER;
        Ok(Self { inner: Arc::new(Inner { context, kernels }), stream: None, wgmma })
    }

    /// The same GPU, whose new sessions have large bf16 products computed by Hopper's `wgmma` or, where `on` is false, by what
    /// all generations have, in another order of sums. On from the start where the GPU is a Hopper
    /// ([`ComputeCapability::HOPPER`]); without effect elsewhere.
    pub fn with_wgmma(mut self, on: bool) -> Self {
        self.wgmma = on && self.device().compute_capability() == ComputeCapability::HOPPER;
        self
    }

    /// Whether large bf16 products go to `wgmma`.
    pub fn has_wgmma(&self) -> bool {
        self.wgmma
    }

    /// The same GPU, whose sessions put their work into a host's own stream, a `CUstream`, instead of each into one of its
    /// own. It may be one that waits for the context's default stream: graphs are recorded elsewhere.
    ///
    /// # Safety
    /// It is a live stream of this context, not the default one (null), and lives as long as the sessions; only one thread
    /// at a time makes or steps a session of it, and nobody records a graph of it meanwhile.
    pub unsafe fn with_stream(mut self, stream: *mut c_void) -> Result<Self> {
        if stream.is_null() {
            return Err(Error::input("stream", "a CUstream of its own", "null, the context's default stream"));
        }
        self.stream = Some(HostStream(stream));
        Ok(self)
    }

    /// What it is.
    pub fn device(&self) -> &Device {
        self.inner.context.device()
    }

    /// Its context.
    pub fn context(&self) -> &Context {
        &self.inner.context
    }

    pub(crate) fn kernels(&self) -> &Kernels {
        &self.inner.kernels
    }

    /// The stream of a new session.
    pub(crate) fn stream(&self) -> Result<Stream> {
        match self.stream {
            None => Stream::new(self.context()),
            // SAFETY: the duty of who called `with_stream`.
            Some(HostStream(raw)) => Ok(unsafe { Stream::from_raw(self.context(), raw) }),
        }
    }
}
