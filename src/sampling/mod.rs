//! What is drawn and when: random numbers, the order of the places, how many are predicted each round, the diffusion
//! schedule.

mod order;
pub mod philox;
mod schedule;

pub use order::{Order, guidance_at, kept_masked, order, rounds, uniforms};
pub use schedule::Schedule;
