//! NVIDIA's driver, as `discon::cuda` and `discon devices` meet it: not there, too old, without a device, with one.
//!
//! Most of it runs over a driver of our own making (`tests/fake_driver`), with kernels compiled for the host; [`hardware`] runs
//! what makes sense there on a GPU, where there is one.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../fake_driver/mod.rs"]
mod fake_driver;

#[cfg(feature = "cli")]
mod devices;

#[cfg(feature = "cuda")]
mod errors;
#[cfg(feature = "cuda")]
mod foreign;
#[cfg(all(feature = "cuda", feature = "cli"))]
mod generate;
#[cfg(feature = "cuda")]
mod graphs;
#[cfg(feature = "cuda")]
mod hardware;
#[cfg(all(feature = "cuda", target_os = "linux"))]
mod linking;
#[cfg(feature = "cuda")]
mod memory;
#[cfg(feature = "cuda")]
mod modules;
#[cfg(feature = "cuda")]
mod sessions;
#[cfg(feature = "cuda")]
mod streams;
#[cfg(feature = "cuda")]
mod work;
