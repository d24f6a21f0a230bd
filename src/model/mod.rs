//! The networks of the graph: each loads its weights by the published names and writes itself into a plan. No
//! arithmetic here.
//!
//! Letters of shapes: B images, G groups of rows (the conditional and, with guidance, the null half of a batch), L
//! places, D width, C latent channels, K codes, H heads.

mod autoencoder;
mod head;
mod masked;
mod mix;
mod rar;
mod transformer;
mod vae;
mod vq;

pub use head::{Diffusion, Draws, Head, HeadSettings, HeadTurn};
pub use masked::{Masked, MaskedInputs, RoundSettings};
pub use mix::Mix;
pub use rar::{Rar, Sequences, Tail};
pub use vae::Vae;
pub use vq::Vq;
