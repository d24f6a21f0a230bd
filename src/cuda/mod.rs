//! NVIDIA GPUs: the driver and what it manages. All of the crate's calls of the driver are in this folder.
//!
//! ```text
//! driver    the driver's library, found while the program runs; its functions, its error codes
//! device    what GPUs there are
//! context   where memory and kernels of one GPU live: this crate's, or a host's own
//! stream    work in order: this crate's, or a host's own; events between pieces of it
//! buffer    memory of a GPU
//! module    PTX, compiled by the driver; its kernels, which a stream launches
//! graph     work of a stream, recorded once and launched as one
//! kernels   the crate's kernels, embedded or from a folder; abi: the structs that they take
//! gpu       a GPU to compute on: a context with the kernels in it; peak: what it can do at most
//! ```
//!
//! A context of the driver is current in a thread or it is not. Everything here makes its own context current for the
//! length of a call and then puts back what was: a host that uses CUDA itself finds its threads as it left them, and any
//! thread may call anything.
//!
//! Safe functions wait until the GPU is done with the host's memory. Launching a kernel is `unsafe`: nobody checks what it
//! does with the addresses it gets.

#[allow(dead_code)] // the tests of the kernels use all of it
pub(crate) mod abi;
mod buffer;
mod context;
mod device;
mod driver;
mod gpu;
mod graph;
mod kernels;
mod module;
mod peak;
mod stream;

pub use buffer::{DeviceBuffer, DevicePtr};
pub use context::{Context, MemoryInfo};
pub use device::{ComputeCapability, Device, DriverVersion};
pub use gpu::Gpu;
pub use graph::Graph;
pub use module::{Function, FunctionAttributes, Launch, Module};
pub use stream::{Event, Stream};

pub(crate) use kernels::Kernel;

use crate::error::{DeviceProblem, Error};
use driver::Code;

/// An [`Error::Device`].
fn problem(
    problem: DeviceProblem,
    what: impl Into<String>,
    expected: impl Into<String>,
    found: impl ToString,
) -> Error {
    Error::Device { problem, what: what.into(), expected: expected.into(), found: found.to_string() }
}

/// The error of a call that has no reason of its own to fail. Errors of kernels come to light in whichever call is next.
fn failed(what: impl Into<String>) -> impl FnOnce(Code) -> Error {
    move |code| problem(sort(code, DeviceProblem::Call), what, "success", code)
}

/// What sort of trouble a code is, if the code says so; else `otherwise`.
fn sort(code: Code, otherwise: DeviceProblem) -> DeviceProblem {
    match code {
        Code::OUT_OF_MEMORY => DeviceProblem::Memory,
        code if code.is_of_kernels() => DeviceProblem::Launch,
        _ => otherwise,
    }
}
