//! Work in order, and marks in it.

use super::driver::{
    Code, cuEventCreate, cuEventDestroy_v2, cuEventElapsedTime, cuEventQuery, cuEventRecord, cuEventSynchronize,
    cuStreamCreateWithPriority, cuStreamDestroy_v2, cuStreamQuery, cuStreamSynchronize, cuStreamWaitEvent,
};
use super::{Context, failed};
use crate::error::Result;
use cust::sys::{CUevent, CUstream};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::time::Duration;

/// A stream: the GPU does what is put into it in that order, beside what other streams do.
#[derive(Debug)]
pub struct Stream {
    context: Context,
    raw: CUstream,
    owned: bool,
}

// SAFETY: a stream is a handle that the driver takes from any thread. It is not `Sync`: what one thread puts into a stream
// that another is recording a graph of would become part of that graph.
unsafe impl Send for Stream {}

impl Drop for Stream {
    fn drop(&mut self) {
        if let (true, Ok(_entered)) = (self.owned, self.context.enter()) {
            // SAFETY: it was created in `new`. Work that is still in it is done before the driver frees it.
            unsafe { cuStreamDestroy_v2(self.raw) };
        }
    }
}

impl Stream {
    /// A stream of its own, which does not wait for the context's default stream.
    pub fn new(context: &Context) -> Result<Self> {
        const NON_BLOCKING: u32 = 1;
        let _entered = context.enter()?;
        let mut raw = null_mut();
        // SAFETY: it writes one handle.
        unsafe { cuStreamCreateWithPriority(&mut raw, NON_BLOCKING, 0) }.check(failed("a stream"))?;
        Ok(Self { context: context.clone(), raw, owned: true })
    }

    /// A host's own stream, a `CUstream`; null is the context's default stream, of which no graph can be recorded. It is
    /// used and never destroyed.
    ///
    /// # Safety
    /// It is a live stream of that context, and lives as long as this value.
    pub unsafe fn from_raw(context: &Context, raw: *mut c_void) -> Self {
        Self { context: context.clone(), raw: raw.cast(), owned: false }
    }

    /// The driver's handle, a `CUstream`.
    pub fn as_raw(&self) -> *mut c_void {
        self.raw.cast()
    }

    pub(super) fn raw(&self) -> CUstream {
        self.raw
    }

    /// Where it lives.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Waits until all that was put into it is done. An error may be that of a kernel.
    pub fn synchronize(&self) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: the stream is live.
        unsafe { cuStreamSynchronize(self.raw) }.check(failed("work of a stream"))
    }

    /// Whether all that was put into it is done. An error may be that of a kernel.
    pub fn is_done(&self) -> Result<bool> {
        let _entered = self.context.enter()?;
        // SAFETY: the stream is live.
        is_done(unsafe { cuStreamQuery(self.raw) })
    }

    /// What is put into it from now on waits until the GPU has passed `event`.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: both are live. The driver keeps what it needs of the event.
        unsafe { cuStreamWaitEvent(self.raw, event.raw, 0) }.check(failed("waiting for an event"))
    }
}

fn is_done(code: Code) -> Result<bool> {
    match code {
        Code::NOT_READY => Ok(false),
        code => code.check(failed("work of a stream")).map(|()| true),
    }
}

/// A mark in a stream's work, with the time at which the GPU passed it.
#[derive(Debug)]
pub struct Event {
    context: Context,
    raw: CUevent,
}

// SAFETY: an event is a handle that the driver takes from any thread.
unsafe impl Send for Event {}
// SAFETY: the driver takes it from several threads at once; recording it twice leaves the later of the two.
unsafe impl Sync for Event {}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: it was created in `new`. The driver keeps it until nobody waits for it.
            unsafe { cuEventDestroy_v2(self.raw) };
        }
    }
}

impl Event {
    /// A mark that is nowhere yet.
    pub fn new(context: &Context) -> Result<Self> {
        let _entered = context.enter()?;
        let mut raw = null_mut();
        // SAFETY: it writes one handle. 0: with the time.
        unsafe { cuEventCreate(&mut raw, 0) }.check(failed("an event"))?;
        Ok(Self { context: context.clone(), raw })
    }

    /// Puts the mark behind all that is in the stream now.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        let _entered = stream.context.enter()?;
        // SAFETY: both are live.
        unsafe { cuEventRecord(self.raw, stream.raw) }.check(failed("recording an event"))
    }

    /// Waits until the GPU has passed it.
    pub fn synchronize(&self) -> Result<()> {
        let _entered = self.context.enter()?;
        // SAFETY: the event is live.
        unsafe { cuEventSynchronize(self.raw) }.check(failed("work of a stream"))
    }

    /// Whether the GPU has passed it.
    pub fn is_done(&self) -> Result<bool> {
        let _entered = self.context.enter()?;
        // SAFETY: the event is live.
        is_done(unsafe { cuEventQuery(self.raw) })
    }

    /// The time on the GPU between two events that it has passed.
    pub fn since(&self, earlier: &Self) -> Result<Duration> {
        let _entered = self.context.enter()?;
        let mut milliseconds = 0.0;
        // SAFETY: it writes one float; both events are live.
        unsafe { cuEventElapsedTime(&mut milliseconds, earlier.raw, self.raw) }
            .check(failed("time between two events"))?;
        Ok(Duration::try_from_secs_f64(f64::from(milliseconds) / 1e3).unwrap_or_default())
    }
}
