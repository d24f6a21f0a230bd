//! `discon.json`: what a model is made of, and the settings it was made for.

use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

/// The value of [`Config::format`].
pub const FORMAT: &str = "discon/1";

/// The longest `discon.json` that is read.
pub const MAX_CONFIG_BYTES: usize = 4 << 20;

/// A whole `discon.json`. Unknown keys are errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Exactly [`FORMAT`].
    pub format: String,
    /// The model's name.
    pub name: String,
    /// Width and height of an image, in pixels.
    pub image_size: usize,
    /// The classes' names; a class id is a place in this list.
    pub classes: Vec<String>,
    /// Stage 1: discrete tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rar: Option<RarConfig>,
    /// Stage 2: continuous tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discon: Option<MaskedConfig>,
    /// Stage 3: the autoencoder of the continuous tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vae: Option<VaeConfig>,
    /// The autoencoder of the discrete tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vq: Option<VqConfig>,
    /// The settings of a request that names none.
    pub sampling: SamplingConfig,
    /// The weights' licence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub licence: Option<String>,
    /// Whom the weights' licence asks to be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<String>,
}

/// Stage 1: a RAR transformer over L places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RarConfig {
    /// D, the width.
    pub hidden_size: usize,
    /// Blocks.
    pub depth: usize,
    /// H, the attention heads; they divide the width.
    pub heads: usize,
    /// The hidden width of a block's MLP.
    pub mlp_size: usize,
    /// L, the places: a square number.
    pub seq_len: usize,
    /// K, the codes.
    pub codebook_size: usize,
    /// The classes, without "no class".
    pub num_classes: usize,
}

/// Stage 2: masked autoregression over L continuous tokens, with a diffusion head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedConfig {
    /// The encoder's width.
    pub encoder_dim: usize,
    /// The encoder's blocks.
    pub encoder_depth: usize,
    /// The encoder's attention heads.
    pub encoder_heads: usize,
    /// The hidden width of an encoder block's MLP.
    pub encoder_mlp: usize,
    /// The decoder's width.
    pub decoder_dim: usize,
    /// The decoder's blocks.
    pub decoder_depth: usize,
    /// The decoder's attention heads.
    pub decoder_heads: usize,
    /// The hidden width of a decoder block's MLP.
    pub decoder_mlp: usize,
    /// Class tokens in front of the sequence.
    pub buffer_size: usize,
    /// Whether the discrete tokens stand in front of the sequence too.
    pub discrete: bool,
    /// K, the codes of the discrete tokens.
    pub codebook_size: usize,
    /// L, the places: a square number.
    pub seq_len: usize,
    /// C, the numbers a continuous token.
    pub token_dim: usize,
    /// The classes, without "no class".
    pub num_classes: usize,
    /// The diffusion head.
    pub head: HeadConfig,
}

impl MaskedConfig {
    /// Places in front of the sequence: class tokens and, if there are any, discrete ones.
    pub fn prefix_len(&self) -> usize {
        self.buffer_size + if self.discrete { self.seq_len } else { 0 }
    }
}

/// The diffusion MLP of stage 2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadConfig {
    /// The width.
    pub width: usize,
    /// Residual blocks.
    pub depth: usize,
    /// Steps of the schedule it was trained with.
    pub train_steps: usize,
}

/// A KL autoencoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaeConfig {
    /// Latent channels.
    pub z_channels: usize,
    /// Channels at factor 1.
    pub ch: usize,
    /// The factor of each level, full resolution first.
    pub ch_mult: Vec<usize>,
    /// Residual blocks a level of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    /// Mean of each latent channel: latent = token * std + mean.
    pub latent_mean: Vec<f32>,
    /// Standard deviation of each latent channel.
    pub latent_std: Vec<f32>,
}

/// A MaskGIT VQGAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VqConfig {
    /// Channels at factor 1.
    pub hidden_channels: usize,
    /// The factor of each level, full resolution first.
    pub channel_mult: Vec<usize>,
    /// Residual blocks a level, and in the middle.
    pub num_res_blocks: usize,
    /// Numbers a codebook entry.
    pub z_channels: usize,
    /// K, the codes.
    pub codebook_size: usize,
}

/// The settings of a request that names none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplingConfig {
    /// Stage 1.
    pub rar: RarSampling,
    /// Stage 2.
    pub discon: MaskedSampling,
}

/// How stage 1 draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RarSampling {
    /// Guidance at the last place; 0 turns it off.
    pub guidance: f64,
    /// How late guidance grows.
    pub guidance_pow: f64,
    /// Divides the logits.
    pub temperature: f64,
}

/// How stage 2 draws.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskedSampling {
    /// Rounds.
    pub ar_steps: usize,
    /// Diffusion steps of a token.
    pub diffusion_steps: usize,
    /// Guidance of the head; 1 turns it off.
    pub guidance: f64,
    /// How guidance goes over the rounds.
    pub guidance_schedule: GuidanceSchedule,
    /// Multiplies the head's noise.
    pub temperature: f64,
    /// The bound of the head's estimate of the clean token; none if absent.
    #[serde(default)]
    pub clip_x0: Option<f32>,
}

/// How guidance goes over the rounds of stage 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuidanceSchedule {
    /// Grows with the share of places that are known.
    Linear,
    /// The same in every round.
    Constant,
}

impl Config {
    /// Reads and [validates](Config::validate) a `discon.json`; `file` names it in errors.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Self> {
        let format_error = |what: String, expected: String, found: String| Error::Format {
            file: file.to_owned(),
            what,
            expected,
            found,
        };
        if bytes.len() > MAX_CONFIG_BYTES {
            return Err(format_error(
                "size".to_owned(),
                format!("at most {MAX_CONFIG_BYTES} bytes"),
                format!("{} bytes", bytes.len()),
            ));
        }
        // A config of another format has other keys: say that it is another format, not which keys are unknown.
        if let Ok(Version { format }) = serde_json::from_slice(bytes)
            && format != FORMAT
        {
            return Err(Error::Config {
                file: file.to_owned(),
                key: "format".to_owned(),
                expected: format!("{FORMAT:?}"),
                found: format!("{format:?}"),
            });
        }
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let config: Config = serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let path = e.path().to_string();
            let message = e.inner().to_string();
            match e.inner().classify() {
                Category::Data => data_error(file, path, &message),
                _ if matches!(path.as_str(), "." | "?") => {
                    format_error("JSON".to_owned(), "one JSON object".to_owned(), message)
                }
                _ => format_error(format!("JSON at `{path}`"), "one JSON object".to_owned(), message),
            }
        })?;
        json.end().map_err(|e| format_error("JSON".to_owned(), "one JSON object".to_owned(), e.to_string()))?;
        config.validate(file)?;
        Ok(config)
    }
}

/// The one key that every format has.
#[derive(Deserialize)]
struct Version {
    format: String,
}

/// Turns serde's sentence into key, expected and found.
fn data_error(file: &str, path: String, message: &str) -> Error {
    let sentence = message.rsplit_once(" at line ").map_or(message, |(s, _)| s);
    let child = |quoted: &str| match (path.as_str(), quoted.trim_matches('`')) {
        (".", name) => name.to_owned(),
        (path, name) if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    };
    let (start, expected) = sentence.split_once(", expected ").unwrap_or((sentence, "another value"));
    let (key, expected, found) = if let Some(name) = start.strip_prefix("missing field ") {
        (child(name), "a value", "nothing")
    } else if let Some(name) = start.strip_prefix("unknown field ") {
        (child(name), expected, "an unknown key")
    } else if let Some(name) = start.strip_prefix("duplicate field ") {
        (child(name), "one value", "the key twice")
    } else {
        let prefixes = ["invalid type: ", "invalid value: ", "invalid length ", "unknown variant "];
        let found = prefixes.iter().find_map(|p| start.strip_prefix(p)).unwrap_or(start);
        (path, expected, found)
    };
    Error::Config { file: file.to_owned(), key, expected: expected.to_owned(), found: found.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const TINY: &str = include_str!("../../tests/fixtures/tiny/discon.json");
    const ODD: &str = include_str!("../../tests/fixtures/odd/discon.json");

    fn error(text: &str) -> (String, String, String) {
        match Config::parse("f", text.as_bytes()).unwrap_err() {
            Error::Config { key, expected, found, .. } => (key, expected, found),
            e => panic!("{e}"),
        }
    }

    #[test]
    fn the_fixtures_parse_and_survive_a_round_trip() {
        for text in [TINY, ODD] {
            let config = Config::parse("f", text.as_bytes()).unwrap();
            let again = serde_json::to_vec(&config).unwrap();
            assert_eq!(Config::parse("f", &again).unwrap(), config);
        }
    }

    #[test]
    fn errors_name_the_whole_key() {
        let width = "\"width\": 80,";
        assert_eq!(
            error(&TINY.replace(width, "")),
            ("discon.head.width".to_owned(), "a value".to_owned(), "nothing".to_owned())
        );
        let (key, expected, found) = error(&TINY.replace(width, "\"width\": 80, \"wdith\": 1,"));
        assert_eq!((key.as_str(), found.as_str()), ("discon.head.wdith", "an unknown key"));
        assert!(expected.contains("`train_steps`"), "{expected}");
        let (key, expected, found) = error(&TINY.replace(width, "\"width\": \"80\","));
        assert_eq!((key.as_str(), expected.as_str(), found.as_str()), ("discon.head.width", "usize", "string \"80\""));
        let (key, _, found) = error(&TINY.replace(width, "\"width\": 80, \"width\": 81,"));
        assert_eq!((key.as_str(), found.as_str()), ("discon.head.width", "the key twice"));
        let (key, expected, found) = error(&TINY.replace("\"linear\"", "\"cubic\""));
        assert_eq!(key, "sampling.discon.guidance_schedule");
        assert_eq!((expected.as_str(), found.as_str()), ("`linear` or `constant`", "`cubic`"));
        let (key, ..) = error(&TINY.replacen("\"name\"", "\"nmae\"", 1));
        assert_eq!(key, "nmae");
    }

    #[test]
    fn another_format_is_said_to_be_another_format() {
        let (key, expected, found) = error("{\"format\": \"discon/2\", \"parts\": []}");
        assert_eq!((key.as_str(), expected.as_str(), found.as_str()), ("format", "\"discon/1\"", "\"discon/2\""));
    }

    #[test]
    fn text_that_is_not_one_json_object_is_a_format_error() {
        let huge = TINY.replace("\"guidance\": 4.0", "\"guidance\": 1e400");
        let twice = format!("{TINY}{TINY}");
        for (text, part) in [("", "JSON"), ("{", "JSON"), (twice.as_str(), "JSON"), (huge.as_str(), "rar.guidance")] {
            let e = Config::parse("f", text.as_bytes()).unwrap_err();
            assert!(matches!(e, Error::Format { .. }), "{e}");
            assert!(e.to_string().contains(part), "{e}");
        }
        let e = Config::parse("f", &vec![b' '; MAX_CONFIG_BYTES + 1]).unwrap_err();
        assert!(e.to_string().contains("size"), "{e}");
    }
}
