//! discon: a from-scratch engine for DisCon image generators.
pub mod error;
pub mod model;
pub mod ops;
pub mod pipeline;
pub mod plan;
pub mod pool;
pub mod sampling;
pub mod simd;
pub mod tensor;
pub mod verify;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
pub use pipeline::{Canceller, Cpu, Image, Model, Outputs, Progress, Request, Session, Settings};
