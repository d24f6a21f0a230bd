//! Model folders: `discon.json`, the safetensors files of the parts, and what is taken from them by name.
//!
//! Every byte read here may have been written by somebody hostile. So counts are capped before they size anything,
//! sums and products are checked, and no tensor is handed out whose dtype and shape are not exactly those that the
//! config asks for. What is *not* looked at is the numbers themselves: a file is mapped, and reading all of it to hunt
//! for NaN would fetch gigabytes that a run may never touch. A NaN weight gives NaN pixels, never unsafety.
//!
//! The flow: [`ModelFiles`] opens a folder (or a host's pack file), [`Config`] says what it is made of, each [`Part`]
//! hands out weights from its [`TensorFile`]. [`tensors()`] lists the names and shapes of every part, and
//! [`synth`](fn@synth) writes folders of random weights by that list.

mod config;
mod file;
mod folder;
mod header;
mod part;
mod synth;
mod tensors;
mod validate;
mod write;

pub use config::{
    Config, FORMAT, GuidanceSchedule, HeadConfig, MAX_CONFIG_BYTES, MaskedConfig, MaskedSampling, RarConfig,
    RarSampling, SamplingConfig, VaeConfig, VqConfig,
};
pub(crate) use file::check_regular;
pub use file::{TensorFile, TensorView};
pub(crate) use folder::CASES;
pub use folder::{CONFIG_FILE, DISCON_FILE, ModelFiles, RAR_FILE, VAE_FILE, VQ_FILE};
pub use header::{MAX_DIMS, MAX_HEADER_BYTES, MAX_TENSORS};
pub use part::{PACKED, Part, Taken, WeightMemory, concat_rows};
pub use synth::{SynthSize, synth};
pub use tensors::{TensorList, TensorSpec, VaeAttention, tensors};
pub(crate) use validate::{CLIP, SETTING};
pub(crate) use write::{clear, write_config, write_tensors, write_whole};

#[cfg(target_endian = "big")]
compile_error!("weights are used in place as they lie in the file, and safetensors files are little-endian");
