//! Every kernel's own source, compiled for the host (`kernels/emulate`), against naive references in f64: odd sizes,
//! strided views, turns. `tests/sanitized-kernels` runs them under the address and undefined-behaviour sanitizers.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

// The kernels with tests do not need all of it.
#[allow(dead_code)]
#[path = "../../src/cuda/abi.rs"]
mod abi;
mod attention;
mod conv;
mod diffusion;
mod group_norm;
mod lab;
mod linear;
mod noise;
mod norm_linear;
mod norms;
mod peak;
mod pixels;
mod sum_rows;
mod token_draw;
