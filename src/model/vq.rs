//! The discrete tokens' autoencoder: the MaskGIT VQGAN (2202.04200). Its decoder gives the coarse picture that
//! DisCon only conditions on.

use super::autoencoder::{ConvLayer, Map, Output, ResBlock, Shortcut, Walk};
use crate::error::Result;
use crate::ops::{AvgPool, Index, NearestCode, Source, SumRows};
use crate::plan::{Builder, Stage, View};
use crate::tensor::{Format, Matrix, Weight};
use crate::weights::{Part, VqConfig};

/// The network.
#[derive(Debug)]
pub struct Vq {
    /// Its sizes.
    pub config: VqConfig,
    /// `[K, C]`, f32
    codebook: Weight,
    /// The same, packed.
    packed_codebook: Matrix,
    encoder: Coder,
    decoder: Coder,
}

#[derive(Debug)]
struct Coder {
    conv_in: ConvLayer,
    /// By resolution, the full one first.
    levels: Vec<Level>,
    mid: Vec<ResBlock>,
    output: Output,
}

#[derive(Debug)]
struct Level {
    blocks: Vec<ResBlock>,
    /// The decoder's way to the next larger resolution.
    upsample: Option<ConvLayer>,
}

impl Coder {
    fn take(part: &mut Part, config: &VqConfig, encode: bool) -> Result<Self> {
        let (side, way) = if encode { ("encoder", "down") } else { ("decoder", "up") };
        let width = |i: usize| config.hidden_channels * config.channel_mult[i];
        let count = config.channel_mult.len();
        let deepest = width(count - 1);
        let level = |part: &mut Part, i: usize| {
            let before = match (encode, i) {
                (true, 0) => config.hidden_channels,
                (true, i) => width(i - 1),
                (false, i) => width((i + 1).min(count - 1)),
            };
            let block = |part: &mut Part, j: usize| {
                let cin = if j == 0 { before } else { width(i) };
                let name = format!("{side}.{way}.{i}.block.{j}");
                ResBlock::take(part, &name, cin, width(i), false, Shortcut::OfOutput)
            };
            let blocks = (0..config.num_res_blocks).map(|j| block(part, j)).collect::<Result<_>>()?;
            let upsample = match !encode && i > 0 {
                true => {
                    let name = format!("{side}.{way}.{i}.upsample_conv");
                    Some(ConvLayer::take(part, &name, width(i), width(i), 3, true)?)
                }
                false => None,
            };
            Ok(Level { blocks, upsample })
        };
        let mid = |part: &mut Part, j: usize| {
            ResBlock::take(part, &format!("{side}.mid.{j}"), deepest, deepest, false, Shortcut::OfOutput)
        };
        let (first, inside, outer, last, last_kernel) = match encode {
            true => (3, config.hidden_channels, deepest, config.z_channels, 1),
            false => (config.z_channels, deepest, width(0), 3, 3),
        };
        Ok(Self {
            conv_in: ConvLayer::take(part, &format!("{side}.conv_in"), inside, first, 3, !encode)?,
            levels: (0..count).map(|i| level(part, i)).collect::<Result<_>>()?,
            mid: (0..config.num_res_blocks).map(|j| mid(part, j)).collect::<Result<_>>()?,
            output: Output::take(part, side, last, outer, last_kernel)?,
        })
    }
}

impl Vq {
    /// Takes the network's weights out of `part`.
    pub fn load(part: &mut Part, config: &VqConfig) -> Result<Self> {
        let codebook = part.take("quantize.embedding.weight", &[config.codebook_size, config.z_channels])?;
        let codebook = part.join("quantize.embedding.weight", &[codebook], config.z_channels)?;
        part.derives("quantize.embedding.weight", Format::F32.bytes(codebook.rows(), codebook.cols()))?;
        Ok(Self {
            packed_codebook: Matrix::pack(&codebook, Format::F32)?,
            codebook,
            encoder: Coder::take(part, config, true)?,
            decoder: Coder::take(part, config, false)?,
            config: config.clone(),
        })
    }

    /// Pixels a side of an image of `places` codes.
    pub fn image_size(&self, places: usize) -> usize {
        places.isqrt() << (self.config.channel_mult.len() - 1)
    }

    /// Writes the decoder: codes `[B, L, 1]` of i32 -> image `[B, H W, 3]`, nominally in `[0, 1]`.
    pub fn plan_decode(&self, b: &mut Builder, codes: View, image: View) -> Result<()> {
        let d = &self.decoder;
        let (batch, places) = (codes.layout.groups, codes.layout.rows);
        b.scope(|b| {
            b.segment(Stage::Preview, d.levels.len(), 1);
            let entries = Map::scratch(b, batch, places.isqrt(), self.config.z_channels)?;
            let index = Index::From { ids: codes, offset: 0 };
            b.push(SumRows::new([Source::Table(self.codebook.clone(), index)], entries.view));
            let mut h = entries.like(b, d.conv_in.outputs())?;
            d.conv_in.plan(b, entries, Walk::Same, false, h);
            for block in &d.mid {
                h = block.plan(b, h)?;
            }
            for (i, level) in d.levels.iter().enumerate().rev() {
                b.segment(Stage::Preview, i, 1);
                for block in &level.blocks {
                    h = block.plan(b, h)?;
                }
                if let Some(conv) = &level.upsample {
                    let up = Map::scratch(b, batch, 2 * h.width, conv.outputs())?;
                    conv.plan(b, h, Walk::Up, false, up);
                    h = up;
                }
            }
            d.output.plan(b, h, Map::square(image))
        })
    }

    /// Writes the encoder: image `[B, H W, 3]` in `[0, 1]` -> codes `[B, L, 1]` of i32.
    pub fn plan_encode(&self, b: &mut Builder, image: View, codes: View) -> Result<()> {
        let e = &self.encoder;
        let image = Map::square(image);
        b.scope(|b| {
            b.segment(Stage::Encode, 0, 1);
            let mut h = image.like(b, e.conv_in.outputs())?;
            e.conv_in.plan(b, image, Walk::Same, false, h);
            for (i, level) in e.levels.iter().enumerate() {
                b.segment(Stage::Encode, i, 1);
                for block in &level.blocks {
                    h = block.plan(b, h)?;
                }
                if i + 1 < e.levels.len() {
                    let down = Map::scratch(b, h.batch(), h.width / 2, h.channels())?;
                    b.push(AvgPool { x: h.view, out_width: down.width, out: down.view });
                    h = down;
                }
            }
            for block in &e.mid {
                h = block.plan(b, h)?;
            }
            let features = h.like(b, self.config.z_channels)?;
            e.output.plan(b, h, features)?;
            let (codebook, packed) = (self.codebook.clone(), self.packed_codebook.clone());
            b.push(NearestCode { x: features.view, codebook, packed, out: codes });
            Ok(())
        })
    }
}
