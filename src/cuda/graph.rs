//! Work of a stream, recorded once and launched as one.

use super::driver::{
    cuGraphDestroy, cuGraphExecDestroy, cuGraphInstantiateWithFlags, cuGraphLaunch, cuStreamBeginCapture_v2,
    cuStreamEndCapture,
};
use super::{Context, Stream, failed, problem, sort};
use crate::error::{DeviceProblem, Error, Result};
use cust::sys::{CUgraph, CUgraphExec};
use std::ptr::null_mut;

/// Recorded work, ready to launch: thousands of kernels for the price of one call.
#[derive(Debug)]
pub struct Graph {
    context: Context,
    exec: CUgraphExec,
}

// SAFETY: a graph is a handle that the driver takes from any thread, but from one at a time, so it is not `Sync`.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: it was instantiated in `record`. A launch that still runs is not stopped: the driver frees it after.
            unsafe { cuGraphExecDestroy(self.exec) };
        }
    }
}

impl Graph {
    /// Records what `work` puts into the stream, none of which happens yet. Waiting for the stream meanwhile is an error,
    /// and copies that wait for themselves with it; the stream works again afterwards. Of a host's stream that waits for the
    /// context's default stream (made without `CU_STREAM_NON_BLOCKING`) no thread may use that one meanwhile: the driver
    /// refuses its call and the recording. The graph may be launched in any stream.
    pub fn record(stream: &Stream, work: impl FnOnce(&Stream) -> Result<()>) -> Result<Self> {
        let recording = Recording::begin(stream)?;
        let done = work(stream);
        let graph = recording.end();
        // What went wrong first says more than that the recording is not valid.
        done?;
        let graph = graph?;
        let _entered = stream.context().enter()?;
        let mut exec = null_mut();
        // SAFETY: the graph is live; it writes one handle.
        unsafe { cuGraphInstantiateWithFlags(&mut exec, graph.0, 0) }.check(failed("instantiating a graph"))?;
        Ok(Self { context: stream.context().clone(), exec })
    }

    /// Puts the recorded work into a stream.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        let _entered = stream.context().enter()?;
        // SAFETY: both are live. That what the work uses is still there is the duty of who put it in.
        unsafe { cuGraphLaunch(self.exec, stream.raw()) }
            .check(|code| problem(sort(code, DeviceProblem::Launch), "graph", "that it can be launched", code))
    }
}

/// A graph before it is made ready to launch.
struct Recorded(CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        // SAFETY: it came from `cuStreamEndCapture`, and nobody has its handle but this. No context is needed for that.
        unsafe { cuGraphDestroy(self.0) };
    }
}

/// A stream that records. It stops when this is dropped, whatever happens in between.
struct Recording<'a>(Option<&'a Stream>);

impl<'a> Recording<'a> {
    fn begin(stream: &'a Stream) -> Result<Self> {
        /// Other threads of the host may do with the driver what they like meanwhile.
        const THREAD_LOCAL: u32 = 1;
        let _entered = stream.context().enter()?;
        // SAFETY: the stream is live.
        unsafe { cuStreamBeginCapture_v2(stream.raw(), THREAD_LOCAL) }.check(failed("recording a graph"))?;
        Ok(Self(Some(stream)))
    }

    fn end(mut self) -> Result<Recorded> {
        match self.0.take() {
            Some(stream) => Self::stop(stream),
            None => Err(Error::input("recording", "one that runs", "one that has ended")),
        }
    }

    fn stop(stream: &Stream) -> Result<Recorded> {
        let _entered = stream.context().enter()?;
        let mut graph = null_mut();
        // SAFETY: the stream is live and records, in this thread: `Stream` is not `Sync`. It writes one handle.
        unsafe { cuStreamEndCapture(stream.raw(), &mut graph) }.check(failed("recording a graph"))?;
        Ok(Recorded(graph))
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            // A graph that nobody asks for any more is freed.
            let _ = Self::stop(stream);
        }
    }
}
