//! Stage 3: the KL autoencoder between latents and pixels (latent diffusion's, 2112.10752; VA-VAE f16d32,
//! 2501.01423; KL-16 of MAR).

use super::autoencoder::{ConvLayer, Map, Output, ResBlock, Shortcut, Walk, plan_norm};
use super::transformer::Norm;
use crate::error::Result;
use crate::ops::{Activation, Affine, Attention, Keys};
use crate::plan::{Builder, Stage, View};
use crate::tensor::Weight;
use crate::weights::{Part, VaeConfig};

/// The network.
#[derive(Debug)]
pub struct Vae {
    /// Its sizes.
    pub config: VaeConfig,
    /// Scale and shift of tokens, to latents, and back.
    to_latents: (Weight, Weight),
    to_tokens: (Weight, Weight),
    /// Scale and shift of pixels in [0, 1], to [-1, 1].
    from_unit: (Weight, Weight),
    encoder: Coder,
    quant: ConvLayer,
    post_quant: ConvLayer,
    decoder: Coder,
}

/// Encoder or decoder: levels of blocks, each after the other, and a middle.
#[derive(Debug)]
struct Coder {
    conv_in: ConvLayer,
    /// By resolution, the full one first.
    levels: Vec<Level>,
    mid: (ResBlock, SelfAttention, ResBlock),
    output: Output,
}

#[derive(Debug)]
struct Level {
    blocks: Vec<(ResBlock, Option<SelfAttention>)>,
    /// To the next resolution.
    resample: Option<ConvLayer>,
}

/// One head over all pixels, as wide as the channels.
#[derive(Debug)]
struct SelfAttention {
    norm: Norm,
    q: ConvLayer,
    k: ConvLayer,
    v: ConvLayer,
    proj: ConvLayer,
}

impl SelfAttention {
    fn take(part: &mut Part, name: &str, channels: usize) -> Result<Self> {
        let mut conv = |n: &str| ConvLayer::take(part, &format!("{name}.{n}"), channels, channels, 1, true);
        let (q, k, v, proj) = (conv("q")?, conv("k")?, conv("v")?, conv("proj_out")?);
        Ok(Self { norm: Norm::take(part, &format!("{name}.norm"), channels)?, q, k, v, proj })
    }

    /// Writes `x += proj(attention(norm(x)))`.
    fn plan(&self, b: &mut Builder, x: Map) -> Result<()> {
        b.scope(|b| {
            let mut map = || x.like(b, x.channels());
            let [h, q, k, v] = [map()?, map()?, map()?, map()?];
            plan_norm(b, x, &self.norm, Activation::Identity, h)?;
            for (conv, out) in [(&self.q, q), (&self.k, k), (&self.v, v)] {
                conv.plan(b, h, Walk::Same, false, out);
            }
            let keys = Keys { first: x.view.layout.rows, step: 0 };
            let narrow = self.q.is_narrow();
            b.push(Attention { q: q.view, k: k.view, v: v.view, keys, heads: 1, narrow, out: h.view });
            self.proj.plan(b, h, Walk::Same, true, x);
            Ok(())
        })
    }
}

/// Which way a coder goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Encode,
    Decode,
}

impl Coder {
    fn take(part: &mut Part, config: &VaeConfig, way: Way) -> Result<Self> {
        let side = if way == Way::Encode { "encoder" } else { "decoder" };
        let width = |i: usize| config.ch * config.ch_mult[i];
        let count = config.ch_mult.len();
        let deepest = width(count - 1);
        let (first, last, inside, blocks, level_name) = match way {
            Way::Encode => (3, 2 * config.z_channels, config.ch, config.num_res_blocks, "down"),
            Way::Decode => (config.z_channels, 3, deepest, config.num_res_blocks + 1, "up"),
        };
        let level = |part: &mut Part, i: usize| {
            let name = format!("{side}.{level_name}.{i}");
            let before = match way {
                Way::Encode => {
                    if i == 0 {
                        config.ch
                    } else {
                        width(i - 1)
                    }
                }
                Way::Decode => {
                    if i + 1 == count {
                        deepest
                    } else {
                        width(i + 1)
                    }
                }
            };
            let block = |part: &mut Part, j: usize| {
                let cin = if j == 0 { before } else { width(i) };
                let block = ResBlock::take(part, &format!("{name}.block.{j}"), cin, width(i), true, Shortcut::OfInput)?;
                // Published decoders differ in where they attend: the tensors say.
                let attention = format!("{name}.attn.{j}");
                let attends = part.has(&format!("{attention}.q.weight"));
                Ok((block, if attends { Some(SelfAttention::take(part, &attention, width(i))?) } else { None }))
            };
            let blocks = (0..blocks).map(|j| block(part, j)).collect::<Result<_>>()?;
            let resample = match way {
                Way::Encode if i + 1 < count => Some("downsample"),
                Way::Decode if i > 0 => Some("upsample"),
                _ => None,
            };
            let resample = match resample {
                Some(n) if way == Way::Encode => {
                    Some(ConvLayer::take_down(part, &format!("{name}.{n}.conv"), width(i))?)
                }
                Some(n) => Some(ConvLayer::take(part, &format!("{name}.{n}.conv"), width(i), width(i), 3, true)?),
                None => None,
            };
            Ok(Level { blocks, resample })
        };
        let mid = |part: &mut Part, n: &str| {
            ResBlock::take(part, &format!("{side}.mid.{n}"), deepest, deepest, true, Shortcut::OfInput)
        };
        let outer = if way == Way::Encode { deepest } else { width(0) };
        Ok(Self {
            conv_in: ConvLayer::take(part, &format!("{side}.conv_in"), inside, first, 3, true)?,
            levels: (0..count).map(|i| level(part, i)).collect::<Result<_>>()?,
            mid: (
                mid(part, "block_1")?,
                SelfAttention::take(part, &format!("{side}.mid.attn_1"), deepest)?,
                mid(part, "block_2")?,
            ),
            output: Output::take(part, side, last, outer, 3)?,
        })
    }

    fn plan_level(&self, b: &mut Builder, i: usize, mut h: Map) -> Result<Map> {
        for (block, attention) in &self.levels[i].blocks {
            h = block.plan(b, h)?;
            if let Some(attention) = attention {
                attention.plan(b, h)?;
            }
        }
        Ok(h)
    }

    fn plan_mid(&self, b: &mut Builder, h: Map) -> Result<Map> {
        let h = self.mid.0.plan(b, h)?;
        self.mid.1.plan(b, h)?;
        self.mid.2.plan(b, h)
    }
}

impl Vae {
    /// Takes the network's weights out of `part`.
    pub fn load(part: &mut Part, config: &VaeConfig) -> Result<Self> {
        let mut owned = |name, x: &[f32]| {
            part.derives(name, size_of_val(x) as u64)?;
            Weight::owned(name, &[x.len()], x)
        };
        let pairs = config.latent_std.iter().zip(&config.latent_mean);
        let (scale, shift): (Vec<f32>, Vec<f32>) = pairs.map(|(s, m)| (1.0 / s, -m / s)).unzip();
        let to_latents = (owned("latent_std", &config.latent_std)?, owned("latent_mean", &config.latent_mean)?);
        let to_tokens = (owned("1 / latent_std", &scale)?, owned("-latent_mean / latent_std", &shift)?);
        let z = config.z_channels;
        let from_unit = (owned("twice", &[2.0; 3])?, owned("less 1", &[-1.0; 3])?);
        Ok(Self {
            to_latents,
            to_tokens,
            from_unit,
            encoder: Coder::take(part, config, Way::Encode)?,
            quant: ConvLayer::take(part, "quant_conv", 2 * z, 2 * z, 1, true)?,
            post_quant: ConvLayer::take(part, "post_quant_conv", z, z, 1, true)?,
            decoder: Coder::take(part, config, Way::Decode)?,
            config: config.clone(),
        })
    }

    /// Pixels a side of an image of `places` latents.
    pub fn image_size(&self, places: usize) -> usize {
        places.isqrt() << (self.config.ch_mult.len() - 1)
    }

    /// Writes `latent = token * std + mean`, `[B, L, C]` both.
    pub fn plan_latents(&self, b: &mut Builder, tokens: View, latents: View) {
        b.segment(Stage::Decode, 0, 1);
        b.push(Affine { x: tokens, factors: Some(self.to_latents.clone()), bounds: None, out: latents });
    }

    /// Writes `token = (latent - mean) / std`, `[B, L, C]` both.
    pub fn plan_tokens(&self, b: &mut Builder, latents: View, tokens: View) {
        b.segment(Stage::Encode, 0, 1);
        b.push(Affine { x: latents, factors: Some(self.to_tokens.clone()), bounds: None, out: tokens });
    }

    /// Writes the tokens of pictures of another decoder, `[B, H W, 3]` nominally in `[0, 1]`: `[B, L, C]`.
    pub fn plan_tokens_of(&self, b: &mut Builder, image: View, tokens: View) -> Result<()> {
        let groups = tokens.layout.groups;
        b.scope(|b| {
            let scaled = b.scratch(image.count(), image.cols())?.grouped(groups);
            b.segment(Stage::Encode, 0, 1);
            b.push(Affine { x: image, factors: Some(self.from_unit.clone()), bounds: Some((-1.0, 1.0)), out: scaled });
            let mut latents = || b.scratch(tokens.count(), tokens.cols()).map(|v| v.grouped(groups));
            let (mean, log_variance) = (latents()?, latents()?);
            self.plan_encode(b, scaled, mean, log_variance)?;
            self.plan_tokens(b, mean, tokens);
            Ok(())
        })
    }

    /// Writes the decoder: latents `[B, L, C]` -> image `[B, H W, 3]`, nominally in [-1, 1].
    pub fn plan_decode(&self, b: &mut Builder, latents: View, image: View) -> Result<()> {
        let d = &self.decoder;
        let latents = Map::square(latents);
        b.scope(|b| {
            b.segment(Stage::Decode, self.decoder.levels.len(), 1);
            let mut h = latents.like(b, d.conv_in.outputs())?;
            b.scope(|b| {
                let z = latents.like(b, latents.channels())?;
                self.post_quant.plan(b, latents, Walk::Same, false, z);
                d.conv_in.plan(b, z, Walk::Same, false, h);
                Ok(())
            })?;
            h = d.plan_mid(b, h)?;
            for (i, level) in d.levels.iter().enumerate().rev() {
                b.segment(Stage::Decode, i, 1);
                h = d.plan_level(b, i, h)?;
                if let Some(conv) = &level.resample {
                    let up = Map::scratch(b, h.batch(), 2 * h.width, conv.outputs())?;
                    conv.plan(b, h, Walk::Up, false, up);
                    h = up;
                }
            }
            d.output.plan(b, h, Map::square(image))
        })
    }

    /// Writes the encoder: image `[B, H W, 3]` in [-1, 1] -> mean and log-variance of the latents, `[B, L, C]` each,
    /// the latter in [-30, 20].
    pub fn plan_encode(&self, b: &mut Builder, image: View, mean: View, log_variance: View) -> Result<()> {
        let e = &self.encoder;
        let image = Map::square(image);
        b.scope(|b| {
            b.segment(Stage::Encode, 0, 1);
            let mut h = image.like(b, e.conv_in.outputs())?;
            e.conv_in.plan(b, image, Walk::Same, false, h);
            for (i, level) in e.levels.iter().enumerate() {
                b.segment(Stage::Encode, i, 1);
                h = e.plan_level(b, i, h)?;
                if let Some(conv) = &level.resample {
                    let down = Map::scratch(b, h.batch(), h.width / 2, conv.outputs())?;
                    conv.plan(b, h, Walk::Down, false, down);
                    h = down;
                }
            }
            h = e.plan_mid(b, h)?;
            let z = self.config.z_channels;
            let (raw, both) = (h.like(b, 2 * z)?, h.like(b, 2 * z)?);
            e.output.plan(b, h, raw)?;
            self.quant.plan(b, raw, Walk::Same, false, both);
            let half = |columns, bounds, out| Affine { x: both.view.columns(columns), factors: None, bounds, out };
            b.push(half(0..z, None, mean));
            b.push(half(z..2 * z, Some((-30.0, 20.0)), log_variance));
            Ok(())
        })
    }
}
