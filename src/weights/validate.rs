//! The bounds of every number in `discon.json`, held before anybody sizes an array or a loop by one.

use super::config::{Config, FORMAT, MaskedConfig, RarConfig, SamplingConfig, VaeConfig};
use crate::error::{Error, Result};
use std::fmt::Debug;
use std::ops::RangeInclusive;

const WIDTH: RangeInclusive<usize> = 1..=16384;
const MLP: RangeInclusive<usize> = 1..=65536;
const DEPTH: RangeInclusive<usize> = 1..=256;
const HEAD_SIZE: RangeInclusive<usize> = 1..=256;
const PLACES: RangeInclusive<usize> = 1..=65536;
const CODES: RangeInclusive<usize> = 1..=1 << 20;
const CLASSES: RangeInclusive<usize> = 1..=1 << 20;
const BUFFER: RangeInclusive<usize> = 0..=4096;
const LATENT: RangeInclusive<usize> = 1..=4096;
const LEVELS: RangeInclusive<usize> = 1..=8;
const FACTOR: RangeInclusive<usize> = 1..=64;
const RES_BLOCKS: RangeInclusive<usize> = 1..=16;
const IMAGE: RangeInclusive<usize> = 1..=8192;
const TRAIN_STEPS: RangeInclusive<usize> = 1..=100_000;
/// The groups of every GroupNorm: they divide all channel counts.
const GROUPS: usize = 32;
/// The highest guidance, its exponent and temperature: far beyond use, far below overflow.
pub(crate) const SETTING: f64 = 1000.0;
/// The highest bound of the head's estimate.
pub(crate) const CLIP: f32 = 1e6;

impl Config {
    /// Holds every number against its bounds and against the numbers that it has to agree with; `file` names the
    /// config in errors. What passes can size arrays.
    pub fn validate(&self, file: &str) -> Result<()> {
        let check = Check { file };
        if self.format != FORMAT {
            return check.fail("format", format!("{FORMAT:?}"), format!("{:?}", self.format));
        }
        check.range("image_size", self.image_size, IMAGE)?;
        if let Some(rar) = &self.rar {
            check.rar(rar)?;
            check.equal("rar.num_classes", rar.num_classes, "the length of `classes`", self.classes.len())?;
        }
        if let Some(masked) = &self.discon {
            check.masked(masked)?;
            check.equal("discon.num_classes", masked.num_classes, "the length of `classes`", self.classes.len())?;
        }
        if let (Some(rar), Some(masked)) = (&self.rar, &self.discon) {
            check.equal("discon.seq_len", masked.seq_len, "`rar.seq_len`", rar.seq_len)?;
            check.equal("discon.codebook_size", masked.codebook_size, "`rar.codebook_size`", rar.codebook_size)?;
        }
        if let Some(vae) = &self.vae {
            check.vae(vae)?;
            self.check_levels(&check, "vae.ch_mult", vae.ch_mult.len())?;
            if let Some(masked) = &self.discon {
                check.equal("vae.z_channels", vae.z_channels, "`discon.token_dim`", masked.token_dim)?;
            }
        }
        if let Some(vq) = &self.vq {
            check.channels("vq.hidden_channels", vq.hidden_channels, "vq.channel_mult", &vq.channel_mult)?;
            check.range("vq.num_res_blocks", vq.num_res_blocks, RES_BLOCKS)?;
            check.range("vq.z_channels", vq.z_channels, LATENT)?;
            check.range("vq.codebook_size", vq.codebook_size, CODES)?;
            self.check_levels(&check, "vq.channel_mult", vq.channel_mult.len())?;
            if let Some(rar) = &self.rar {
                check.equal("vq.codebook_size", vq.codebook_size, "`rar.codebook_size`", rar.codebook_size)?;
            }
            if let Some(masked) = &self.discon {
                check.equal("vq.codebook_size", vq.codebook_size, "`discon.codebook_size`", masked.codebook_size)?;
            }
        }
        check.sampling(&self.sampling, self.discon.as_ref())
    }

    /// L, the places of the sequence, where a part says it.
    pub fn seq_len(&self) -> Option<usize> {
        let masked = self.discon.as_ref().map(|c| c.seq_len);
        self.rar.as_ref().map(|c| c.seq_len).or(masked)
    }

    /// `levels` is at most 8 here. Each level but the first halves the image, down to the square of places.
    fn check_levels(&self, check: &Check<'_>, key: &str, levels: usize) -> Result<()> {
        let factor = 1usize << (levels - 1);
        match self.seq_len() {
            Some(places) => {
                let side = places.isqrt();
                let why = format!("{side} places a side, doubled at each of `{key}`'s levels but one");
                check.equal("image_size", self.image_size, &why, side * factor)
            }
            None if self.image_size.is_multiple_of(factor) => Ok(()),
            None => check.fail("image_size", format!("a multiple of {factor} (`{key}`)"), self.image_size.to_string()),
        }
    }
}

/// Writes errors about one file.
struct Check<'a> {
    file: &'a str,
}

impl Check<'_> {
    fn fail<T>(&self, key: &str, expected: String, found: String) -> Result<T> {
        Err(Error::Config { file: self.file.to_owned(), key: key.to_owned(), expected, found })
    }

    fn range<T: PartialOrd + Debug>(&self, key: &str, value: T, range: RangeInclusive<T>) -> Result<()> {
        if range.contains(&value) {
            return Ok(());
        }
        self.fail(key, format!("{:?} to {:?}", range.start(), range.end()), format!("{value:?}"))
    }

    fn equal(&self, key: &str, value: usize, what: &str, expected: usize) -> Result<()> {
        if value == expected {
            return Ok(());
        }
        self.fail(key, format!("{expected} ({what})"), value.to_string())
    }

    /// A number over 0, up to [`SETTING`]. NaN is in no range.
    fn positive(&self, key: &str, value: f64) -> Result<()> {
        if value > 0.0 && value <= SETTING {
            return Ok(());
        }
        self.fail(key, format!("over 0, up to {SETTING:?}"), format!("{value:?}"))
    }

    /// A transformer's width, depth, heads and MLP.
    fn transformer(&self, keys: [&str; 4], values: [usize; 4]) -> Result<()> {
        let [width, depth, heads, mlp] = values;
        self.range(keys[0], width, WIDTH)?;
        self.range(keys[1], depth, DEPTH)?;
        if heads == 0 || !width.is_multiple_of(heads) {
            return self.fail(keys[2], format!("a divisor of the width, {width}"), heads.to_string());
        }
        if !HEAD_SIZE.contains(&(width / heads)) {
            let expected = format!("heads of at most {} of the width {width}", HEAD_SIZE.end());
            return self.fail(keys[2], expected, format!("{heads} heads of {}", width / heads));
        }
        self.range(keys[3], mlp, MLP)
    }

    fn places(&self, key: &str, places: usize) -> Result<()> {
        self.range(key, places, PLACES)?;
        if places.isqrt().pow(2) == places {
            return Ok(());
        }
        self.fail(key, "a square number".to_owned(), places.to_string())
    }

    fn rar(&self, rar: &RarConfig) -> Result<()> {
        self.transformer(
            ["rar.hidden_size", "rar.depth", "rar.heads", "rar.mlp_size"],
            [rar.hidden_size, rar.depth, rar.heads, rar.mlp_size],
        )?;
        self.places("rar.seq_len", rar.seq_len)?;
        self.range("rar.codebook_size", rar.codebook_size, CODES)?;
        self.range("rar.num_classes", rar.num_classes, CLASSES)
    }

    fn masked(&self, masked: &MaskedConfig) -> Result<()> {
        self.transformer(
            ["discon.encoder_dim", "discon.encoder_depth", "discon.encoder_heads", "discon.encoder_mlp"],
            [masked.encoder_dim, masked.encoder_depth, masked.encoder_heads, masked.encoder_mlp],
        )?;
        self.transformer(
            ["discon.decoder_dim", "discon.decoder_depth", "discon.decoder_heads", "discon.decoder_mlp"],
            [masked.decoder_dim, masked.decoder_depth, masked.decoder_heads, masked.decoder_mlp],
        )?;
        self.range("discon.buffer_size", masked.buffer_size, BUFFER)?;
        if masked.buffer_size == 0 && !masked.discrete {
            let expected = "at least 1: without discrete tokens nothing else stands in front of the sequence";
            return self.fail("discon.buffer_size", expected.to_owned(), "0".to_owned());
        }
        self.places("discon.seq_len", masked.seq_len)?;
        self.range("discon.codebook_size", masked.codebook_size, CODES)?;
        self.range("discon.token_dim", masked.token_dim, LATENT)?;
        self.range("discon.num_classes", masked.num_classes, CLASSES)?;
        self.range("discon.head.width", masked.head.width, WIDTH)?;
        self.range("discon.head.depth", masked.head.depth, DEPTH)?;
        self.range("discon.head.train_steps", masked.head.train_steps, TRAIN_STEPS)
    }

    /// The channels of an autoencoder's levels.
    fn channels(&self, key: &str, channels: usize, mult_key: &str, mult: &[usize]) -> Result<()> {
        self.range(key, channels, WIDTH)?;
        if !LEVELS.contains(&mult.len()) {
            let expected = format!("{} to {} levels", LEVELS.start(), LEVELS.end());
            return self.fail(mult_key, expected, format!("{} levels", mult.len()));
        }
        for (level, &factor) in mult.iter().enumerate() {
            let mult_key = format!("{mult_key}[{level}]");
            self.range(&mult_key, factor, FACTOR)?;
            let width = channels * factor;
            if !width.is_multiple_of(GROUPS) || !WIDTH.contains(&width) {
                let expected = format!("`{key}` times this: a multiple of {GROUPS} up to {}", WIDTH.end());
                return self.fail(&mult_key, expected, format!("{channels} * {factor} = {width}"));
            }
        }
        // The first convolution's channels go through a GroupNorm before the first factor applies.
        if !channels.is_multiple_of(GROUPS) {
            return self.fail(key, format!("a multiple of {GROUPS}"), channels.to_string());
        }
        Ok(())
    }

    fn vae(&self, vae: &VaeConfig) -> Result<()> {
        self.range("vae.z_channels", vae.z_channels, LATENT)?;
        self.channels("vae.ch", vae.ch, "vae.ch_mult", &vae.ch_mult)?;
        self.range("vae.num_res_blocks", vae.num_res_blocks, RES_BLOCKS)?;
        for (key, values, lowest) in
            [("vae.latent_mean", &vae.latent_mean, f32::MIN), ("vae.latent_std", &vae.latent_std, f32::MIN_POSITIVE)]
        {
            if values.len() != vae.z_channels {
                let expected = format!("{} numbers (`vae.z_channels`)", vae.z_channels);
                return self.fail(key, expected, format!("{} numbers", values.len()));
            }
            if let Some(i) = values.iter().position(|v| !v.is_finite() || *v < lowest) {
                let expected = if lowest > 0.0 { "a finite number over 0" } else { "a finite number" };
                return self.fail(&format!("{key}[{i}]"), expected.to_owned(), format!("{:?}", values[i]));
            }
        }
        Ok(())
    }

    fn sampling(&self, sampling: &SamplingConfig, masked: Option<&MaskedConfig>) -> Result<()> {
        let (rar, discon) = (&sampling.rar, &sampling.discon);
        self.range("sampling.rar.guidance", rar.guidance, 0.0..=SETTING)?;
        self.positive("sampling.rar.guidance_pow", rar.guidance_pow)?;
        self.positive("sampling.rar.temperature", rar.temperature)?;
        // Where there is no stage 2 nobody asks: sessions check its settings only to run it.
        let places = masked.map_or(*PLACES.end(), |c| c.seq_len);
        self.range("sampling.discon.ar_steps", discon.ar_steps, 1..=places)?;
        let steps = masked.map_or(*TRAIN_STEPS.end(), |c| c.head.train_steps);
        self.range("sampling.discon.diffusion_steps", discon.diffusion_steps, 1..=steps)?;
        self.range("sampling.discon.guidance", discon.guidance, 0.0..=SETTING)?;
        self.range("sampling.discon.temperature", discon.temperature, 0.0..=SETTING)?;
        match discon.clip_x0 {
            Some(clip) if !(clip > 0.0 && clip <= CLIP) => {
                let expected = format!("over 0, up to {CLIP:?}, or null");
                self.fail("sampling.discon.clip_x0", expected, format!("{clip:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const TINY: &str = include_str!("../../tests/fixtures/tiny/discon.json");

    /// The error of the tiny fixture's config with `value` at `key`, or none.
    fn fault(key: &str, value: Value) -> Option<Error> {
        let mut config: Value = serde_json::from_str(TINY).unwrap();
        let pointer = format!("/{}", key.replace(['.', '['], "/").replace(']', ""));
        *config.pointer_mut(&pointer).unwrap() = value;
        Config::parse("f", config.to_string().as_bytes()).err()
    }

    #[test]
    fn every_number_has_bounds() {
        let far = json!(1u64 << 63);
        let counts = [
            ("image_size", 0),
            ("rar.hidden_size", 16385),
            ("rar.depth", 257),
            ("rar.heads", 65),
            ("rar.heads", 3),
            ("rar.mlp_size", 65537),
            ("rar.seq_len", 15),
            ("rar.codebook_size", (1 << 20) + 1),
            ("rar.num_classes", 8),
            ("discon.encoder_dim", 0),
            ("discon.encoder_depth", 0),
            ("discon.encoder_heads", 0),
            ("discon.encoder_mlp", 0),
            ("discon.decoder_dim", 0),
            ("discon.decoder_depth", 0),
            ("discon.decoder_heads", 7),
            ("discon.decoder_mlp", 0),
            ("discon.buffer_size", 4097),
            ("discon.seq_len", 25),
            ("discon.codebook_size", 41),
            ("discon.token_dim", 0),
            ("discon.num_classes", 6),
            ("discon.head.width", 0),
            ("discon.head.depth", 0),
            ("discon.head.train_steps", 100_001),
            ("vae.z_channels", 7),
            ("vae.ch", 33),
            ("vae.ch_mult[1]", 65),
            ("vae.num_res_blocks", 17),
            ("vq.hidden_channels", 16),
            ("vq.channel_mult[0]", 0),
            ("vq.num_res_blocks", 0),
            ("vq.z_channels", 0),
            ("vq.codebook_size", 39),
            ("sampling.discon.ar_steps", 17),
            ("sampling.discon.diffusion_steps", 1001),
        ];
        for (key, value) in counts {
            for value in [json!(value), json!(0), far.clone(), json!(10u64.pow(18))] {
                // No class tokens are fine beside discrete ones.
                if key == "discon.buffer_size" && value == json!(0) {
                    continue;
                }
                let what = format!("{key} = {value}");
                let e = fault(key, value).unwrap_or_else(|| panic!("{what} passes"));
                let Error::Config { key: named, .. } = &e else { panic!("{what}: {e}") };
                // Where two numbers disagree either may be named; a lone one is.
                let (key, named) = (key.split('[').next(), named.split('[').next());
                let pairs = [("vae.z_channels", "vae.latent_mean"), ("vae.ch", "vae.ch_mult")];
                let also = [("vq.hidden_channels", "vq.channel_mult"), ("discon.token_dim", "vae.z_channels")];
                let known = pairs.iter().chain(&also).any(|p| (Some(p.0), Some(p.1)) == (key, named));
                assert!(key == named || known, "{what}: {e}");
            }
        }
    }

    #[test]
    fn settings_are_finite_and_in_range() {
        for (key, bad) in [
            ("sampling.rar.guidance", [-0.1, 1e300]),
            ("sampling.rar.guidance_pow", [0.0, 1e300]),
            ("sampling.rar.temperature", [0.0, 1001.0]),
            ("sampling.discon.guidance", [-1.0, 1001.0]),
            ("sampling.discon.temperature", [-1.0, 1e300]),
            ("sampling.discon.clip_x0", [0.0, 1e300]),
            ("sampling.discon.clip_x0", [-1.0, 1e7]),
            ("vae.latent_std[3]", [0.0, 1e300]),
            ("vae.latent_mean[3]", [-1e300, 1e300]),
        ] {
            for value in bad {
                let e = fault(key, json!(value)).unwrap_or_else(|| panic!("{key} = {value} passes"));
                assert!(e.to_string().contains(&format!("`{key}`")), "{e}");
            }
        }
        assert!(fault("sampling.discon.temperature", json!(0)).is_none());
        assert!(fault("sampling.discon.clip_x0", json!(5)).is_none());
    }

    #[test]
    fn lists_have_the_lengths_that_the_counts_say() {
        for (key, value) in [
            ("classes", json!(["a"])),
            ("vae.latent_mean", json!([0.0])),
            ("vae.latent_std", json!([1, 1, 1, 1, 1, 1, 1, 1, 1])),
            ("vae.ch_mult", json!([])),
            ("vq.channel_mult", json!([1, 1, 1, 1, 1, 1, 1, 1, 1])),
        ] {
            let e = fault(key, value).unwrap_or_else(|| panic!("{key} passes"));
            assert!(e.to_string().contains(&format!("`{key}`")), "{e}");
        }
        let e = fault("vae.ch_mult", json!([1, 2, 4])).unwrap();
        assert!(e.to_string().contains("`image_size`: expected 16 (4 places a side"), "{e}");
    }

    #[test]
    fn a_model_without_places_bounds_its_image_by_its_levels() {
        let mut config: Config = serde_json::from_str(TINY).unwrap();
        (config.rar, config.discon, config.image_size) = (None, None, 22);
        assert!(config.validate("f").is_ok());
        config.image_size = 23;
        assert!(config.validate("f").unwrap_err().to_string().contains("a multiple of 2"));
    }
}
