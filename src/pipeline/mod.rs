//! The whole graph for a caller: [`Model`] (weights, shared), [`Session`] (a compiled plan and its memory),
//! [`Request`] and [`Image`].

mod autoencode;
mod image;
mod memory;
mod model;
mod pack;
mod program;
mod session;

pub use image::Image;
pub use model::{Cpu, Model, Request};
pub use pack::pack;
pub use program::{Outputs, Settings};
pub use session::{Canceller, Progress, Session};

pub(crate) use model::needed;
pub(crate) use program::Program;
pub(crate) use session::pictures;
