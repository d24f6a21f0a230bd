//! Model folders of random weights at published sizes, for speed and for tests: they make noise, not pictures.

use super::config::{
    Config, FORMAT, GuidanceSchedule, HeadConfig, MaskedConfig, MaskedSampling, RarConfig, RarSampling, SamplingConfig,
    VaeConfig, VqConfig,
};
use super::folder::{DISCON_FILE, RAR_FILE, VAE_FILE, VQ_FILE};
use super::tensors::{TensorSpec, VaeAttention, tensors};
use super::write::{clear, write_config, write_tensors, write_whole};
use crate::error::{Error, Result};
use crate::tensor::DType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Elements drawn and written at a time.
const CHUNK: usize = 1 << 16;
/// The classes of ImageNet.
const CLASSES: usize = 1000;
/// The codes of the published VQGAN.
const CODES: usize = 1024;
/// Latent channels of VA-VAE f16d32.
const LATENT: usize = 32;

/// The sizes that [`synth`](fn@synth) writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SynthSize {
    /// 64 places, 32x32 pixels.
    Tiny,
    /// RAR-B, MAR-B and VA-VAE f16d32: 256 places, 256x256 pixels.
    B,
    /// RAR-L, MAR-L and VA-VAE f16d32: 256 places, 256x256 pixels.
    L,
}

impl SynthSize {
    /// All sizes, small to large.
    pub const ALL: [Self; 3] = [Self::Tiny, Self::B, Self::L];

    /// Lower-case name, as on the command line: `tiny`, `b`, `l`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::B => "b",
            Self::L => "l",
        }
    }

    /// The config of a model of that size. `clip_x0` is set: an untrained head needs it to keep its tokens small.
    pub fn config(self) -> Config {
        // Width, depth and heads of stage 1 and of each half of stage 2; width and depth of the head.
        let (rar, stage2, head) = match self {
            Self::Tiny => ([256, 8, 8], [256, 6, 8], [384, 3]),
            Self::B => ([768, 24, 16], [768, 12, 12], [1024, 6]),
            Self::L => ([1024, 24, 16], [1024, 16, 16], [1280, 8]),
        };
        let (places, channels, mult) = match self {
            Self::Tiny => (64usize, 64, vec![1, 2, 4]),
            Self::B | Self::L => (256, 128, vec![1, 1, 2, 2, 4]),
        };
        let tiny = self == Self::Tiny;
        Config {
            format: FORMAT.to_owned(),
            name: format!("synth-{}", self.name()),
            image_size: places.isqrt() << (mult.len() - 1),
            classes: (0..CLASSES).map(|i| format!("class-{i}")).collect(),
            rar: Some(RarConfig {
                hidden_size: rar[0],
                depth: rar[1],
                heads: rar[2],
                mlp_size: 4 * rar[0],
                seq_len: places,
                codebook_size: CODES,
                num_classes: CLASSES,
            }),
            discon: Some(MaskedConfig {
                encoder_dim: stage2[0],
                encoder_depth: stage2[1],
                encoder_heads: stage2[2],
                encoder_mlp: 4 * stage2[0],
                decoder_dim: stage2[0],
                decoder_depth: stage2[1],
                decoder_heads: stage2[2],
                decoder_mlp: 4 * stage2[0],
                buffer_size: 64,
                discrete: true,
                codebook_size: CODES,
                seq_len: places,
                token_dim: LATENT,
                num_classes: CLASSES,
                head: HeadConfig { width: head[0], depth: head[1], train_steps: 1000 },
            }),
            vae: Some(VaeConfig {
                z_channels: LATENT,
                ch: channels,
                ch_mult: mult.clone(),
                num_res_blocks: 2,
                latent_mean: vec![0.0; LATENT],
                latent_std: vec![1.0; LATENT],
            }),
            vq: Some(VqConfig {
                hidden_channels: channels,
                channel_mult: mult,
                num_res_blocks: 2,
                z_channels: if tiny { 64 } else { 256 },
                codebook_size: CODES,
            }),
            sampling: SamplingConfig {
                rar: RarSampling { guidance: 4.0, guidance_pow: 2.5, temperature: 1.0 },
                discon: MaskedSampling {
                    ar_steps: if tiny { 8 } else { 32 },
                    diffusion_steps: if tiny { 25 } else { 50 },
                    guidance: 3.0,
                    guidance_schedule: GuidanceSchedule::Linear,
                    temperature: 1.0,
                    clip_x0: Some(5.0),
                },
            },
            licence: None,
            attribution: None,
        }
    }
}

/// Writes a model folder of random weights into `dir`, which is made if it is not there.
///
/// The weights depend on size, part, name and seed alone; `dtype` only rounds them. They are drawn so that
/// activations keep their scale. No more than a chunk of a tensor is in memory. `progress` is called with bytes
/// written and bytes in all. A model that is there goes first, its known answers (`cases/`) with it. Files take their names
/// only when they are whole, the config last: a folder cut short is no model, and a model that somebody has mapped stays as
/// it is for them.
pub fn synth(size: SynthSize, dir: &Path, dtype: DType, seed: u64, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
    let config = size.config();
    let list = tensors(&config, VaeAttention { encoder: true, decoder: true });
    let parts = [(RAR_FILE, list.rar), (DISCON_FILE, list.masked), (VAE_FILE, list.vae), (VQ_FILE, list.vq)];
    write_folder(&config, parts.map(|(file, list)| (file, list.unwrap_or_default())), dir, dtype, seed, progress)
}

fn write_folder<const N: usize>(
    config: &Config,
    parts: [(&str, Vec<TensorSpec>); N],
    dir: &Path,
    dtype: DType,
    seed: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Error::setting("dtype", "f32, f16 or bf16", dtype));
    }
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let total = parts.iter().flat_map(|(_, list)| list).map(|t| (count(t) * dtype.size()) as u64).sum();
    let mut done = 0;
    progress(done, total);
    clear(dir, &parts.each_ref().map(|(file, _)| *file))?;
    for (file, list) in parts {
        write_whole(dir, file, |out| {
            write_part(out, &list, dtype, seed ^ hash(file), &mut |bytes| {
                done += bytes;
                progress(done, total);
            })
        })?;
    }
    write_config(dir, config)
}

fn write_part(
    out: &mut File,
    list: &[TensorSpec],
    dtype: DType,
    seed: u64,
    wrote: &mut dyn FnMut(u64),
) -> io::Result<()> {
    let list = list.iter().map(|t| (t.name.as_str(), dtype, t.shape.clone())).collect();
    let mut numbers = vec![0.0; CHUNK];
    let mut halves = vec![0u16; CHUNK];
    write_tensors(out, list, &HashMap::new(), |name, shape, out| {
        let mut source = Source::new(name, shape, seed);
        let mut left: usize = shape.iter().product();
        while left > 0 {
            let n = left.min(CHUNK);
            let (numbers, halves) = (&mut numbers[..n], &mut halves[..n]);
            source.fill(numbers);
            let bytes: &[u8] = match dtype {
                DType::F16 => {
                    bytemuck::cast_slice_mut::<u16, f16>(halves).convert_from_f32_slice(numbers);
                    bytemuck::cast_slice(halves)
                }
                DType::BF16 => {
                    bytemuck::cast_slice_mut::<u16, bf16>(halves).convert_from_f32_slice(numbers);
                    bytemuck::cast_slice(halves)
                }
                _ => bytemuck::cast_slice(numbers),
            };
            out.write_all(bytes)?;
            wrote(bytes.len() as u64);
            left -= n;
        }
        Ok(())
    })
}

/// The elements of a tensor.
fn count(tensor: &TensorSpec) -> usize {
    tensor.shape.iter().product()
}

/// FNV-1a, 64 bits.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// The numbers of one tensor: uniform about a mean, by splitmix64.
struct Source {
    state: u64,
    mean: f32,
    /// Half the width of the interval.
    reach: f32,
}

impl Source {
    fn new(name: &str, shape: &[usize], seed: u64) -> Self {
        let (mean, deviation) = match shape {
            [_] if name.ends_with(".weight") => (1.0, 0.05),
            [_] => (0.0, 0.02),
            // Tables that rows are looked up in, or that are added to a sequence.
            _ if !name.ends_with(".weight") || name.contains("emb.") || name.contains("embedding") => (0.0, 0.5),
            [_, fan_in @ ..] => (0.0, (fan_in.iter().product::<usize>().max(1) as f32).sqrt().recip()),
            [] => (0.0, 0.02),
        };
        Self { state: seed ^ hash(name), mean, reach: deviation * 3f32.sqrt() }
    }

    fn fill(&mut self, numbers: &mut [f32]) {
        let Self { mean, reach, .. } = *self;
        // 24 bits a number, as many as an f32 holds, to -1 up to 1.
        let number = |bits: u64| mean + reach * ((bits & 0xff_ffff) as f32 * (1.0 / (1 << 23) as f32) - 1.0);
        for pair in numbers.chunks_mut(2) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            for (n, bits) in pair.iter_mut().zip([z, z >> 32]) {
                *n = number(bits);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::weights::{ModelFiles, Part};

    #[test]
    fn every_size_has_a_valid_config() {
        for size in SynthSize::ALL {
            size.config().validate(size.name()).unwrap();
        }
    }

    /// Takes everything, and returns a digest of the numbers.
    fn take_all(part: Option<Part>, list: Option<Vec<TensorSpec>>) -> u64 {
        let (mut part, mut digest) = (part.unwrap(), 0u64);
        for t in list.unwrap() {
            let weight = part.take(&t.name, &t.shape).unwrap();
            let numbers = weight.to_f32();
            let rms = (numbers.iter().map(|x| x * x).sum::<f32>() / numbers.len() as f32).sqrt();
            assert!(rms > 1e-3 && rms < 1.1, "{}: {rms}", t.name);
            digest = numbers.iter().fold(digest, |d, x| d.rotate_left(7) ^ u64::from(x.to_bits()));
            let aligned = weight.byte_len().is_multiple_of(64);
            assert!(weight.is_in_place() || !aligned, "{} was copied", t.name);
        }
        part.finish().unwrap();
        digest
    }

    #[test]
    fn a_folder_loads_with_all_its_tensors_and_depends_on_the_seed_alone() {
        let digest = |dtype, seed| {
            let dir = tempfile::tempdir().unwrap();
            let (mut last, mut total) = (0, 0);
            synth(SynthSize::Tiny, dir.path(), dtype, seed, &mut |done, all| {
                assert!(done >= last);
                (last, total) = (done, all);
            })
            .unwrap();
            assert_eq!(last, total);
            let model = ModelFiles::open(dir.path()).unwrap();
            let list = tensors(&model.config, VaeAttention { encoder: true, decoder: true });
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5);
            [
                take_all(model.rar, list.rar),
                take_all(model.masked, list.masked),
                take_all(model.vae, list.vae),
                take_all(model.vq, list.vq),
            ]
        };
        let first = digest(DType::BF16, 1);
        assert_eq!(first, digest(DType::BF16, 1));
        for other in [digest(DType::BF16, 2), digest(DType::F16, 1), digest(DType::F32, 1)] {
            assert!(first.iter().zip(other).all(|(a, b)| *a != b));
        }
    }

    #[test]
    fn integers_are_no_weights() {
        let e = synth(SynthSize::Tiny, Path::new("/nowhere"), DType::I32, 0, &mut |_, _| ()).unwrap_err();
        assert!(matches!(e, Error::Setting { name: "dtype", .. }), "{e}");
    }
}
