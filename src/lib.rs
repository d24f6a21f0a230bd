//! discon: a from-scratch tensor engine that runs DisCon image generators.
//!
//! A class becomes discrete tokens (an autoregressive transformer), these *condition* continuous tokens (a masked
//! autoregressive transformer with a diffusion MLP head), and a VAE decodes them to pixels. The discrete tokens are
//! a guide and never the result, so nothing is lost to quantisation (Zheng et al., "Rethinking Discrete Tokens:
//! Treating Them as Conditions for Continuous Autoregressive Image Synthesis", ICCV 2025, arXiv 2507.01756).
//!
//! # The idea
//!
//! No shape in the graph depends on data: how many tokens, rounds and diffusion steps there are follows from config
//! and settings alone. So a request is compiled once into a [`plan::Plan`], a list of ops over one arena, and
//! everything else is reading it: to run is to walk it, to work inside a frame's budget is to walk it until the time
//! is over, progress is cost done over cost in all, cancelling is not taking the next chunk, and the memory needed
//! is known before a byte is allocated.
//!
//! # The way through the code
//!
//! ```text
//! simd      vectors: a trait, a leaf for each kind of processor, elementary functions, products with packed weights
//! tensor    dtypes, aligned memory, weights over shared bytes, matrices in kernel order, strided views and disjoint tiles
//! weights   model folders: discon.json and safetensors, checked, mapped, used in place or packed
//! pool      threads, the crate's own or a host's, which share an op's tiles
//! plan      the builder that lays out the arena, ops in segments, the walker that runs them
//! ops       one file an op: contract, naive reference, CPU code
//! model     the networks: they take weights and write plans, and do no arithmetic
//! sampling  random numbers, orders, schedules
//! pipeline  Model, Session, Request, Image: what a caller sees
//! verify    the engine against known answers
//! peak      what the machine can do at most
//! cuda      NVIDIA GPUs: the driver, memory, kernels, graphs (feature `cuda`); `plan::gpu` runs plans there
//! ```
//!
//! # An image from one call
//!
//! ```no_run
//! use discon::{Cpu, Model, Request};
//!
//! let model = Model::open("weights/avatars-64")?;
//! let cpu = Cpu::new(0)?; // a thread for each core
//! let request = Request { classes: vec![model.class("lorelei")?], seeds: vec![7], settings: model.settings() };
//! let images = model.generate(&cpu, &request)?;
//! println!("{} x {}", images[0].width(), images[0].height());
//! # Ok::<(), discon::Error>(())
//! ```
//!
//! The same seed gives the same picture for any batch and any number of threads, bit for bit on one instruction set.
//!
//! Products are computed in f32, or after [`Model::open_as`] in bf16 or 8-bit integers ([`Precision`]). [`pack`] writes a
//! folder whose matrices lie in the order in which the kernels read them: opening it copies nothing.
//!
//! # What it does not do
//!
//! It never ends the process: bad files, settings and inputs, and memory that cannot be had, are an [`Error`] that
//! names the thing, what was expected and what was found. It starts no threads but those of a [`Cpu`] and of
//! [`Session::in_background`], keeps no global state (but the handle of the GPU's driver, if that is used) and writes to
//! no stream: what it does it tells the logger of the `log` facade that the host has installed, if any.

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
pub mod model;
pub mod ops;
pub mod peak;
pub mod pipeline;
pub mod plan;
pub mod pool;
pub mod sampling;
pub mod simd;
pub mod tensor;
pub mod verify;
pub mod weights;

pub use error::{DeviceProblem, Error, ErrorKind, Result};
pub use pipeline::{
    Background, Canceller, Cpu, Device, Edit, Event, Events, Image, Known, Model, OpenOptions, Outputs, Progress,
    Request, Session, SessionMemory, SessionOptions, Settings, Start, Tokens, pack,
};
pub use pool::{Job, RawJob, Workers};
pub use sampling::Order;
pub use tensor::Precision;

/// The examples of the README compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
