//! Stage 2: masked autoregression over continuous tokens (MAR, 2406.11838) with the discrete tokens in front
//! (DisCon, 2507.01756).
//!
//! Attention runs both ways and knows a place by its position embedding alone, so rows may stand in any order. Here
//! they stand in *slots*: slot s of an image is place `order[s]`. The places still masked are slots 0..m, the known
//! ones m..L, those predicted in a round keep..m: always contiguous, and nothing is gathered but position embeddings.

use super::head::{Draws, Head, HeadSettings, HeadTurn};
use super::transformer::{Block, Dense, Norm};
use crate::error::Result;
use crate::ops::{Index, Source, SumRows};
use crate::plan::{Builder, Key, Stage, View};
use crate::sampling;
use crate::tensor::Weight;
use crate::weights::{GuidanceSchedule, MaskedConfig, Part, concat_rows};
use std::ops::Range;

/// The network.
#[derive(Debug)]
pub struct Masked {
    /// Its sizes.
    pub config: MaskedConfig,
    /// The diffusion head.
    pub head: Head,
    /// Classes, then "no class".
    classes: Weight,
    codes: Option<Weight>,
    token_in: Dense,
    token_norm: Norm,
    encoder_positions: Weight,
    encoder: Vec<Block>,
    encoder_norm: Norm,
    decoder_in: Dense,
    mask_token: Weight,
    decoder_positions: Weight,
    decoder: Vec<Block>,
    decoder_norm: Norm,
    condition_positions: Weight,
}

/// What stage 2 reads.
#[derive(Debug, Clone, Copy)]
pub struct MaskedInputs {
    /// Images.
    pub batch: usize,
    /// 2 with guidance, else 1.
    pub halves: usize,
    /// `[B, 1, 1]` of i32: class; `num_classes` is "no class".
    pub classes: View,
    /// `[B, L, 1]` of i32: discrete tokens by place; `codebook_size` is "no code".
    pub codes: View,
    /// `[halves B, L, 1]` of i32: the place of each slot, the same in both halves.
    pub order: View,
}

/// Settings of the rounds.
#[derive(Debug, Clone, Copy)]
pub struct RoundSettings {
    /// Rounds.
    pub rounds: usize,
    /// Guidance scale; 1 is none.
    pub guidance: f64,
    /// Whether it rises with the share of known places.
    pub schedule: GuidanceSchedule,
    /// The head's.
    pub head: HeadSettings,
}

/// Stage 2 at work on a batch: the rows that all rounds read.
struct Work<'a> {
    net: &'a Masked,
    inputs: &'a MaskedInputs,
    /// `[G, P, D]`: class and codes
    prefix: View,
    /// `[B, L, D]`, by slot: the known tokens
    known: View,
    /// `[P, D]`: what the encoder makes of the null half while no place is known, if that is shared
    first_null: Option<View>,
}

impl Masked {
    /// Takes the network's weights out of `part`.
    pub fn load(part: &mut Part, config: &MaskedConfig) -> Result<Self> {
        let (e, d) = (config.encoder_dim, config.decoder_dim);
        let rows = config.prefix_len() + config.seq_len;
        let blocks = |part: &mut Part, name: &str, depth: usize, width: usize, mlp: usize| {
            (0..depth).map(|i| Block::take(part, &format!("{name}_blocks.{i}"), width, mlp)).collect::<Result<Vec<_>>>()
        };
        let classes = part.take("class_emb.weight", &[config.num_classes, e])?;
        let no_class = part.take("fake_latent", &[1, e])?;
        let codes = match config.discrete {
            true => Some(part.take("discrete_emb.weight", &[config.codebook_size + 1, e])?),
            false => None,
        };
        Ok(Self {
            classes: concat_rows("class_emb", &[classes, no_class], e)?,
            codes,
            token_in: Dense::take(part, "z_proj", e, config.token_dim)?,
            token_norm: Norm::take(part, "z_proj_ln", e)?,
            encoder_positions: part.take_rows("encoder_pos_embed_learned", rows, e)?,
            encoder: blocks(part, "encoder", config.encoder_depth, e, config.encoder_mlp)?,
            encoder_norm: Norm::take(part, "encoder_norm", e)?,
            decoder_in: Dense::take(part, "decoder_embed", d, e)?,
            mask_token: part.take_rows("mask_token", 1, d)?,
            decoder_positions: part.take_rows("decoder_pos_embed_learned", rows, d)?,
            decoder: blocks(part, "decoder", config.decoder_depth, d, config.decoder_mlp)?,
            decoder_norm: Norm::take(part, "decoder_norm", d)?,
            condition_positions: part.take_rows("diffusion_pos_embed_learned", config.seq_len, d)?,
            head: Head::load(part, config)?,
            config: config.clone(),
        })
    }

    /// Writes all rounds; the tokens come out by slot, `[B, L, C]`, in `tokens`.
    pub fn plan(
        &self,
        b: &mut Builder,
        inputs: &MaskedInputs,
        draws: &Draws,
        settings: &RoundSettings,
        tokens: View,
    ) -> Result<()> {
        let (places, groups) = (self.config.seq_len, inputs.batch * inputs.halves);
        b.scope(|b| {
            let mut work = Work::start(self, b, inputs)?;
            if inputs.halves == 2 {
                work.first_null = Some(self.plan_first_null(b)?);
            }
            let diffusion = self.head.plan_diffusion(b, settings.head)?;
            let mut left = places;
            for round in 0..settings.rounds {
                let keep = sampling::kept_masked(places, left, round, settings.rounds);
                let slots = if round + 1 == settings.rounds { 0..left } else { keep..left };
                let guidance = match settings.schedule {
                    GuidanceSchedule::Linear => {
                        1.0 + (settings.guidance - 1.0) * (places - keep) as f64 / places as f64
                    }
                    GuidanceSchedule::Constant => settings.guidance,
                };
                let turn = HeadTurn { round, guidance: (inputs.halves == 2).then_some(guidance as f32) };
                let drawn = tokens.rows(slots.clone());
                b.scope(|b| {
                    let z = b.scratch(groups * slots.len(), self.config.decoder_dim)?.grouped(groups);
                    work.plan_condition(b, round, left, slots.clone(), z)?;
                    self.head.plan(b, &diffusion, turn, z, &draws.slots(slots.clone()), drawn)
                })?;
                left = slots.start;
                if left == 0 {
                    break;
                }
                b.segment(Stage::Condition, round, 1);
                work.plan_known(b, slots, drawn)?;
            }
            Ok(())
        })
    }

    /// Writes z of all places, `[B, L, D]` by slot, where slots `masked..` are known tokens, `[B, L, C]` by slot.
    pub fn plan_z(&self, b: &mut Builder, inputs: &MaskedInputs, tokens: View, masked: usize, z: View) -> Result<()> {
        let places = self.config.seq_len;
        b.scope(|b| {
            let work = Work::start(self, b, inputs)?;
            work.plan_known(b, masked..places, tokens.rows(masked..places))?;
            work.plan_condition(b, 0, masked, 0..places, z)
        })
    }

    /// Writes what the encoder makes of the null half while no place is known, `[P, D]`, once for all sessions.
    fn plan_first_null(&self, b: &mut Builder) -> Result<View> {
        let front = self.config.prefix_len();
        b.once(Key::FirstNullEncoding, |b| {
            let y = b.shared(front, self.config.decoder_dim)?;
            let x = b.scratch(front, self.config.encoder_dim)?;
            self.plan_prefix(b, self.null_prefix(), x)?;
            self.plan_encoder(b, x, y)?;
            Ok(y)
        })
    }

    /// The rows of the tables that stand for "no class" and "no codes".
    fn null_prefix(&self) -> [Index; 2] {
        [self.config.num_classes, self.config.codebook_size].map(|first| Index::Turn { first, step: 0 })
    }

    /// Writes the encoder's input rows of class and codes `[G, P, D]`: these rows of their tables and their positions,
    /// normalised.
    fn plan_prefix(&self, b: &mut Builder, [class, codes]: [Index; 2], out: View) -> Result<()> {
        let (buffer, front) = (self.config.buffer_size, self.config.prefix_len());
        b.scope(|b| {
            let sum = b.scratch(out.count(), out.cols())?.grouped(out.layout.groups);
            let mut put = |table: &Weight, index, rows: Range<usize>| {
                let position = Index::Range { first: rows.start };
                let sources =
                    [Source::Table(table.clone(), index), Source::Table(self.encoder_positions.clone(), position)];
                b.push(SumRows::new(sources, sum.rows(rows)));
            };
            put(&self.classes, class, 0..buffer);
            if let Some(table) = &self.codes {
                put(table, codes, buffer..front);
            }
            b.push(self.token_norm.op(sum, None, out));
            Ok(())
        })
    }

    /// Writes the encoder from its input rows `x` `[G, N, D]`, which it changes, to the decoder's `[G, N, D]`, without
    /// their positions.
    fn plan_encoder(&self, b: &mut Builder, x: View, y: View) -> Result<()> {
        for block in &self.encoder {
            block.plan(b, x, 0..x.layout.rows, self.config.encoder_heads)?;
        }
        b.scope(|b| {
            let h = b.scratch(x.count(), x.cols())?.grouped(x.layout.groups);
            b.push(self.encoder_norm.op(x, None, h));
            b.push(self.decoder_in.op(h, y));
            Ok(())
        })
    }
}

impl<'a> Work<'a> {
    /// Writes the rows that all rounds start from.
    fn start(net: &'a Masked, b: &mut Builder, inputs: &'a MaskedInputs) -> Result<Self> {
        let MaskedInputs { batch, halves, classes, codes, .. } = *inputs;
        let (d, front, places) = (net.config.encoder_dim, net.config.prefix_len(), net.config.seq_len);
        b.segment(Stage::Condition, 0, 1);
        let prefix = b.scratch(batch * halves * front, d)?.grouped(batch * halves);
        let known = b.scratch(batch * places, d)?.grouped(batch);
        let mut one_class = classes;
        (one_class.layout.rows, one_class.layout.row_stride) = (net.config.buffer_size, 0);
        let given = [one_class, codes].map(|ids| Index::From { ids, offset: 0 });
        net.plan_prefix(b, given, prefix.groups(0..batch))?;
        if halves == 2 {
            net.plan_prefix(b, net.null_prefix(), prefix.groups(batch..2 * batch))?;
        }
        Ok(Self { net, inputs, prefix, known, first_null: None })
    }

    /// Writes the encoder's input rows of the known tokens `[B, slots, C]` of slots `slots`.
    fn plan_known(&self, b: &mut Builder, slots: Range<usize>, tokens: View) -> Result<()> {
        let (net, inputs) = (self.net, self.inputs);
        let (batch, d) = (inputs.batch, net.config.encoder_dim);
        b.scope(|b| {
            let x = b.scratch(batch * slots.len(), d)?.grouped(batch);
            let sum = b.scratch(batch * slots.len(), d)?.grouped(batch);
            b.push(net.token_in.op(tokens, x));
            let ids = inputs.order.groups(0..batch).rows(slots.clone());
            let position =
                Source::Table(net.encoder_positions.clone(), Index::From { ids, offset: net.config.prefix_len() });
            b.push(SumRows::new([Source::Rows(x), position], sum));
            b.push(net.token_norm.op(sum, None, self.known.rows(slots)));
            Ok(())
        })
    }

    /// Writes encoder and decoder with slots `masked..` known; z `[G, wanted, D]` of the slots `wanted`.
    fn plan_condition(
        &self,
        b: &mut Builder,
        round: usize,
        masked: usize,
        wanted: Range<usize>,
        z: View,
    ) -> Result<()> {
        let (net, inputs) = (self.net, self.inputs);
        let (batch, groups) = (inputs.batch, inputs.batch * inputs.halves);
        let (front, places) = (net.config.prefix_len(), net.config.seq_len);
        let known = places - masked;
        let first_null = self.first_null.filter(|_| known == 0);
        let halves = if first_null.is_some() { 1 } else { inputs.halves };
        b.segment(Stage::Condition, round, 1);
        b.scope(|b| {
            let full = b.scratch(groups * (front + places), net.config.decoder_dim)?.grouped(groups);
            b.scope(|b| {
                let encoded = halves * batch;
                let y = b.scratch(encoded * (front + known), net.config.decoder_dim)?.grouped(encoded);
                let x = b.scratch(encoded * (front + known), net.config.encoder_dim)?.grouped(encoded);
                b.push(SumRows::copy(self.prefix.groups(0..encoded), x.rows(0..front)));
                for half in 0..halves {
                    let to = x.groups(half * batch..(half + 1) * batch).rows(front..front + known);
                    b.push(SumRows::copy(self.known.rows(masked..places), to));
                }
                net.plan_encoder(b, x, y)?;
                let position = |index| Source::Table(net.decoder_positions.clone(), index);
                let of = |slots| position(Index::From { ids: inputs.order.rows(slots), offset: front });
                let mask = Source::Table(net.mask_token.clone(), Index::Turn { first: 0, step: 0 });
                let mut put_front = |y: View, groups: Range<usize>| {
                    let seen = [Source::Rows(y), position(Index::Range { first: 0 })];
                    b.push(SumRows::new(seen, full.groups(groups).rows(0..front)));
                };
                put_front(y.rows(0..front), 0..encoded);
                if let Some(first_null) = first_null {
                    put_front(first_null.repeated(groups - encoded), encoded..groups);
                }
                b.push(SumRows::new([mask, of(0..masked)], full.rows(front..front + masked)));
                if known > 0 {
                    let seen = [Source::Rows(y.rows(front..front + known)), of(masked..places)];
                    b.push(SumRows::new(seen, full.rows(front + masked..front + places)));
                }
                Ok(())
            })?;
            let wanted_rows = front + wanted.start..front + wanted.end;
            for (i, block) in net.decoder.iter().enumerate() {
                let rows = if i + 1 == net.decoder.len() { wanted_rows.clone() } else { 0..front + places };
                block.plan(b, full, rows, net.config.decoder_heads)?;
            }
            let h = b.scratch(groups * wanted.len(), net.config.decoder_dim)?.grouped(groups);
            b.push(net.decoder_norm.op(full.rows(wanted_rows), None, h));
            let index = Index::From { ids: inputs.order.rows(wanted), offset: 0 };
            b.push(SumRows::new([Source::Rows(h), Source::Table(net.condition_positions.clone(), index)], z));
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use crate::plan::{Arena, Cursor, Walker};
    use crate::pool::Pool;
    use crate::simd::Isa;

    /// z of the first round, with the null half's encoding shared and with all computed.
    #[test]
    fn the_shared_encoding_is_the_one_it_stands_for() {
        for name in ["tiny", "odd"] {
            let folder = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
            let model = Model::open(folder).unwrap();
            let net = model.networks().masked.as_ref().unwrap();
            let (batch, places, d) = (2, net.config.seq_len, net.config.decoder_dim);
            let mut b = Builder::new();
            let turned = |by| (0..places).map(move |slot| ((slot + by) % places) as i32);
            let order: Vec<i32> = [1, 3, 1, 3].into_iter().flat_map(turned).collect();
            let inputs = MaskedInputs {
                batch,
                halves: 2,
                classes: b.constant_i32(&[1, 0], 1).unwrap().grouped(batch),
                codes: b.constant_i32(&vec![2; batch * places], 1).unwrap().grouped(batch),
                order: b.constant_i32(&order, 1).unwrap().grouped(2 * batch),
            };
            let z = [(); 2].map(|()| b.kept(2 * batch * places, d).unwrap().grouped(2 * batch));
            let mut work = Work::start(net, &mut b, &inputs).unwrap();
            work.plan_condition(&mut b, 0, places, 0..places, z[0]).unwrap();
            work.first_null = Some(net.plan_first_null(&mut b).unwrap());
            work.plan_condition(&mut b, 1, places, 0..places, z[1]).unwrap();
            let (plan, pool) = (b.finish(), Pool::new(2).unwrap());
            let flops = |round| {
                let segments = plan.segments.iter().filter(|s| s.stage == Stage::Condition && s.index == round);
                segments.map(|s| s.weight).sum::<u64>()
            };
            assert!(flops(1) < flops(0), "{name}");
            for isa in Isa::distinct(model.precision()) {
                let mut arena = Arena::new(&plan, 2).unwrap();
                Walker { plan: &plan, arena: &mut arena, pool: &pool, isa, profile: None }
                    .run(&mut Cursor::default(), |_| false);
                let [all, shared] = z.map(|z| arena.mat::<u32>(z));
                for i in 0..2 * batch * places {
                    assert!(all.row(i) == shared.row(i), "{name} on {isa}: row {i}");
                }
                assert!(all.row(0) != all.row(batch * places), "the halves differ");
            }
        }
    }
}
