//! What the engine's numbers lie in: element types, aligned memory, weights, strided matrices and tiles of them.

mod aligned;
mod dtype;
#[cfg(test)]
pub mod fence;
mod filter;
mod limit;
mod matrix;
pub mod packed;
mod weight;

pub use aligned::AlignedBytes;
pub use dtype::DType;
pub use filter::Filter;
pub use limit::Limit;
pub(crate) use limit::{collected, no_room};
pub use matrix::{Layout, Mat, TileMut};
pub use packed::{Form, Format, Matrix, Precision};
pub use weight::{Elements, SharedBytes, Weight};
