//! discon for C: every function, struct and number of `include/discon.h`, which `capi/header` makes of these files.
//!
//! A crate of its own, since what it does to a process is right in a library that brings its own copy of Rust's standard
//! library, and wrong in a crate that a Rust program links: it sets the allocator (`allocator`) and keeps the panic hook
//! silent (`status`). It uses the engine by the engine's public API alone.
//!
//! ```text
//! status     what a call returns, the last error's text, the wall that no panic passes
//! sized      structs that start with their size
//! allocator  the host's memory
//! device     what computes
//! model      models: opened, asked
//! request    settings, requests, what is given beside them
//! session    sessions: begun, stepped, cancelled, read
//! picture    pixels in and out
//! edit       pictures from one call, and of pictures: generated, edited, encoded, decoded
//! log        what the library does, for a host's log
//! ```

// What holds for all pointers is said once, at the head of the header: they are null, which is refused or has its meaning, or they point to
// what their type says, and handles were made by this library and are not freed yet.
#![allow(clippy::missing_safety_doc)]

mod allocator;
mod device;
mod edit;
mod log;
mod model;
mod picture;
mod request;
mod session;
mod sized;
mod status;
#[cfg(test)]
mod tests;

pub use allocator::*;
pub use device::*;
pub use edit::*;
pub use log::*;
pub use model::*;
pub use picture::*;
pub use request::*;
pub use session::*;
pub use status::*;
