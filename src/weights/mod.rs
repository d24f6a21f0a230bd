//! Model folders: `discon.json` and the bounds of what it may say.

mod config;
mod validate;

pub use config::{
    Config, FORMAT, GuidanceSchedule, HeadConfig, MAX_CONFIG_BYTES, MaskedConfig, MaskedSampling, RarConfig,
    RarSampling, SamplingConfig, VaeConfig, VqConfig,
};
