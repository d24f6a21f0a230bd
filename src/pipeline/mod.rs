//! The whole graph for a caller: [`Model`] (weights, shared), [`Session`] (a compiled plan and its memory),
//! [`Request`] and [`Image`].

mod autoencode;
mod background;
mod device;
mod edit;
mod events;
mod executor;
mod image;
mod memory;
mod model;
mod pack;
mod preview;
mod program;
mod progress;
mod session;
mod settings;
mod start;

pub use background::Background;
pub use device::{Cpu, Device};
pub use edit::{Edit, Tokens};
pub use events::{Event, Events};
pub use image::Image;
pub use memory::{OpenOptions, SessionMemory, SessionOptions};
pub use model::{Model, Request};
pub use pack::pack;
pub use progress::Progress;
pub use session::{Canceller, Session};
pub use settings::{Outputs, Settings};
pub use start::{Known, Start};

pub(crate) use executor::Executor;
pub(crate) use model::needed;
pub(crate) use program::Program;
