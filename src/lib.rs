//! discon: a from-scratch engine for DisCon image generators.
pub mod error;
pub mod tensor;
pub mod weights;

pub use error::{Error, ErrorKind, Result};
