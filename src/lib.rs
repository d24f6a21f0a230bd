//! discon: a from-scratch engine for DisCon image generators.
pub mod error;
pub mod simd;
pub mod tensor;

pub use error::{Error, ErrorKind, Result};
