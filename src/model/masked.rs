//! Stage 2: masked autoregression over continuous tokens (MAR, 2406.11838) with the discrete tokens in front
//! (DisCon, 2507.01756).
//!
//! Attention runs both ways and knows a place by its position embedding alone, so rows may stand in any order. Here
//! they stand in *slots*: slot s of an image is place `order[s]`. The places still masked are slots 0..m, the known
//! ones m..L, those predicted in a round keep..m: always contiguous, and nothing is gathered but position embeddings.

use super::Mix;
use super::head::{Draws, Head, HeadSettings, HeadTurn};
use super::transformer::{Block, Dense, Norm};
use crate::error::Result;
use crate::ops::{Index, Source, SumRows};
use crate::plan::{Builder, Key, Stage, View};
use crate::sampling;
use crate::tensor::Weight;
use crate::weights::{GuidanceSchedule, MaskedConfig, Part};
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
    /// What stands in the place of the class, by rows of the table of classes: `[B, J]`.
    pub mix: Option<Mix>,
    /// `[B, L, 1]` of i32: discrete tokens by place; `codebook_size` is "no code".
    pub codes: View,
    /// `[halves B, L, 1]` of i32: the place of each slot, the same in both halves.
    pub order: View,
}

/// Settings of the rounds.
#[derive(Debug, Clone, Copy)]
pub struct RoundSettings {
    /// Rounds, at most as many as there are places to draw.
    pub rounds: usize,
    /// Places that are not drawn: their tokens are there before.
    pub known: usize,
    /// Guidance scale; 1 is none.
    pub guidance: f64,
    /// Whether it rises with the share of known places.
    pub schedule: GuidanceSchedule,
    /// The head's.
    pub head: HeadSettings,
}

/// Stage 2 at work on a batch: the rows that all rounds read.
#[derive(Clone, Copy)]
struct Work<'a> {
    net: &'a Masked,
    /// Images.
    batch: usize,
    /// `[G, L + P, D]`, what the encoder reads: the known tokens by slot, then class and codes. What it reads in a round is
    /// always contiguous.
    input: View,
    /// `[G, L + P, 3 D]`: the same rows' queries, keys and values of its first block, made once.
    projected: View,
    places: Places,
}

/// The place of each slot.
#[derive(Debug, Clone, Copy)]
enum Places {
    /// The slot's own number.
    Same,
    /// `[G, L, 1]` of i32
    Of(View),
}

impl Places {
    /// Rows of a table of places that starts at row `offset`: those of `slots`.
    fn index(self, slots: Range<usize>, offset: usize) -> Index {
        match self {
            Self::Same => Index::Range { first: slots.start + offset },
            Self::Of(order) => Index::From { ids: order.rows(slots), offset },
        }
    }
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
            classes: part.join("class_emb", &[classes, no_class], e)?,
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

    /// Writes all rounds; the tokens come out by slot, `[B, L, C]`, in `tokens`. Where places are known, the last slots are
    /// theirs, and hold their tokens before.
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
            // What no request changes is the first round's condition with nothing known.
            let shares = inputs.halves == 2 && settings.known == 0;
            let null = if shares { Some(self.plan_first_null(b)?) } else { None };
            let work = Work::start(self, b, inputs)?;
            let diffusion = self.head.plan_diffusion(b, settings.head)?;
            let drawn = places - settings.known;
            if settings.known > 0 {
                b.segment(Stage::Condition, 0, 1);
                work.plan_known(b, drawn..places, tokens.rows(drawn..places))?;
            }
            for (round, (keep, slots)) in sampling::rounds(drawn, settings.rounds).into_iter().enumerate() {
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
                    b.segment(Stage::Condition, round, 1);
                    match null.filter(|_| round == 0) {
                        None => work.plan_condition(b, slots.end, slots.clone(), z)?,
                        Some(null) => {
                            let (given, rest) = (0..inputs.batch, inputs.batch..groups);
                            work.given_half().plan_condition(b, slots.end, slots.clone(), z.groups(given))?;
                            let ids = inputs.order.groups(rest.clone()).rows(slots.clone());
                            let rows = null.repeated(inputs.batch);
                            b.push(SumRows::new([Source::Gather { rows, ids }], z.groups(rest)));
                        }
                    }
                    self.head.plan(b, &diffusion, turn, z, &draws.slots(slots.clone()), drawn)
                })?;
                if slots.start == 0 {
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
            work.plan_condition(b, masked, 0..places, z)
        })
    }

    /// Writes z of "no class" and "no codes" of all places while none is known, once for all sessions: `[L, D]` by place.
    fn plan_first_null(&self, b: &mut Builder) -> Result<View> {
        let (front, places) = (self.config.prefix_len(), self.config.seq_len);
        b.once(Key::FirstNullCondition, |b| {
            let z = b.shared(places, self.config.decoder_dim)?;
            let work = Work::over(self, b, 1, 1, Places::Same)?;
            self.plan_null_prefix(b, work.front())?;
            work.plan_projected(b, places..places + front)?;
            work.plan_condition(b, places, 0..places, z)?;
            Ok(z)
        })
    }

    /// Writes the prefix of "no class" and "no codes".
    fn plan_null_prefix(&self, b: &mut Builder, out: View) -> Result<()> {
        let [class, codes] =
            [self.config.num_classes, self.config.codebook_size].map(|first| Index::Turn { first, step: 0 });
        self.plan_prefix(b, Source::Table(self.classes.clone(), class), codes, out)
    }

    /// Writes what stands in front of the places, `[B, P, D]`: class, codes, their positions, normalised.
    fn plan_prefix(&self, b: &mut Builder, class: Source, codes: Index, out: View) -> Result<()> {
        let (buffer, rows) = (self.config.buffer_size, out.layout.rows);
        b.scope(|b| {
            let sum = b.scratch(out.count(), out.cols())?.grouped(out.layout.groups);
            let mut put = |source, rows: Range<usize>| {
                let position = Index::Range { first: rows.start };
                let sources = [source, Source::Table(self.encoder_positions.clone(), position)];
                b.push(SumRows::new(sources, sum.rows(rows)));
            };
            put(class, 0..buffer);
            if let Some(table) = &self.codes {
                put(Source::Table(table.clone(), codes), buffer..rows);
            }
            b.push(self.token_norm.op(sum, None, out));
            Ok(())
        })
    }
}

impl<'a> Work<'a> {
    /// Writes the rows that all rounds start from.
    fn start(net: &'a Masked, b: &mut Builder, inputs: &MaskedInputs) -> Result<Self> {
        let MaskedInputs { batch, halves, classes, mix, codes, order } = *inputs;
        b.segment(Stage::Condition, 0, 1);
        let work = Self::over(net, b, batch, halves, Places::Of(order))?;
        // An image's class in all of its rows.
        let one = |mut view: View| {
            (view.layout.rows, view.layout.row_stride) = (net.config.buffer_size, 0);
            view
        };
        let from = |ids| Index::From { ids, offset: 0 };
        let class = match mix {
            None => Source::Table(net.classes.clone(), from(one(classes))),
            Some(mix) => mix.source(&net.classes, |view| one(view.grouped(batch))),
        };
        let front = work.front();
        net.plan_prefix(b, class, from(codes), front.groups(0..batch))?;
        if halves == 2 {
            net.plan_null_prefix(b, front.groups(batch..2 * batch))?;
        }
        let places = net.config.seq_len;
        work.plan_projected(b, places..work.input.layout.rows)?;
        Ok(work)
    }

    /// Memory for the rows, nothing in it yet.
    fn over(net: &'a Masked, b: &mut Builder, batch: usize, halves: usize, places: Places) -> Result<Self> {
        let (groups, rows, d) = (batch * halves, net.config.seq_len + net.config.prefix_len(), net.config.encoder_dim);
        let input = b.scratch(groups * rows, d)?.grouped(groups);
        let projected = b.scratch(groups * rows, 3 * d)?.grouped(groups);
        Ok(Self { net, batch, input, projected, places })
    }

    /// `[G, P, D]`: the rows of class and codes.
    fn front(&self) -> View {
        self.input.rows(self.net.config.seq_len..self.input.layout.rows)
    }

    /// The first half, with class and codes, only.
    fn given_half(self) -> Self {
        let groups = 0..self.batch;
        let places = match self.places {
            Places::Same => Places::Same,
            Places::Of(order) => Places::Of(order.groups(groups.clone())),
        };
        let [input, projected] = [self.input, self.projected].map(|rows| rows.groups(groups.clone()));
        Self { input, projected, places, ..self }
    }

    /// Writes the encoder's rows of the known tokens `[B, slots, C]` of slots `slots`: the same in both halves.
    fn plan_known(&self, b: &mut Builder, slots: Range<usize>, tokens: View) -> Result<()> {
        let (net, batch, d) = (self.net, self.batch, self.input.cols());
        let given = self.given_half();
        b.scope(|b| {
            let x = b.scratch(batch * slots.len(), d)?.grouped(batch);
            let sum = b.scratch(batch * slots.len(), d)?.grouped(batch);
            b.push(net.token_in.op(tokens, x));
            let index = given.places.index(slots.clone(), net.config.prefix_len());
            b.push(SumRows::new([Source::Rows(x), Source::Table(net.encoder_positions.clone(), index)], sum));
            b.push(net.token_norm.op(sum, None, given.input.rows(slots.clone())));
            Ok(())
        })?;
        given.plan_projected(b, slots.clone())?;
        for rows in [self.input, self.projected].map(|rows| rows.rows(slots.clone())) {
            if rows.layout.groups > batch {
                b.push(SumRows::copy(rows.groups(0..batch), rows.groups(batch..2 * batch)));
            }
        }
        Ok(())
    }

    /// Writes the first block's queries, keys and values of `rows`.
    fn plan_projected(&self, b: &mut Builder, rows: Range<usize>) -> Result<()> {
        let first = self.net.encoder.first();
        first.map_or(Ok(()), |block| block.plan_qkv(b, self.input.rows(rows.clone()), self.projected.rows(rows)))
    }

    /// Writes encoder and decoder with slots `masked..` known; z `[G, wanted, D]` of the slots `wanted`.
    fn plan_condition(&self, b: &mut Builder, masked: usize, wanted: Range<usize>, z: View) -> Result<()> {
        let net = self.net;
        let groups = self.input.layout.groups;
        let (front, places) = (net.config.prefix_len(), net.config.seq_len);
        let known = places - masked;
        b.scope(|b| {
            let full = b.scratch(groups * (front + places), net.config.decoder_dim)?.grouped(groups);
            b.scope(|b| {
                let x = b.scratch(groups * (front + known), net.config.encoder_dim)?.grouped(groups);
                let seen = masked..places + front;
                b.push(SumRows::copy(self.input.rows(seen.clone()), x));
                for (i, block) in net.encoder.iter().enumerate() {
                    match i {
                        0 => block.plan_projected(b, self.projected.rows(seen.clone()), x, net.config.encoder_heads)?,
                        _ => block.plan(b, x, 0..front + known, net.config.encoder_heads)?,
                    }
                }
                let h = net.decoder_in.input(b, groups * (front + known))?.grouped(groups);
                let y = b.scratch(groups * (front + known), net.config.decoder_dim)?.grouped(groups);
                b.push(net.encoder_norm.op(x, None, h));
                b.push(net.decoder_in.op(h, y));
                let position = |index| Source::Table(net.decoder_positions.clone(), index);
                let of = |slots| position(self.places.index(slots, front));
                let mask = Source::Table(net.mask_token.clone(), Index::Turn { first: 0, step: 0 });
                let seen = [Source::Rows(y.rows(known..known + front)), position(Index::Range { first: 0 })];
                b.push(SumRows::new(seen, full.rows(0..front)));
                b.push(SumRows::new([mask, of(0..masked)], full.rows(front..front + masked)));
                let seen = [Source::Rows(y.rows(0..known)), of(masked..places)];
                b.push(SumRows::new(seen, full.rows(front + masked..front + places)));
                Ok(())
            })?;
            let wanted_rows = front + wanted.start..front + wanted.end;
            for (i, block) in net.decoder.iter().enumerate() {
                let rows = if i + 1 == net.decoder.len() { wanted_rows.clone() } else { 0..front + places };
                block.plan(b, full, rows, net.config.decoder_heads)?;
            }
            let h = b.scratch(groups * wanted.len(), net.config.decoder_dim)?.grouped(groups);
            b.push(net.decoder_norm.op(full.rows(wanted_rows), None, h));
            let index = self.places.index(wanted, 0);
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

    /// The null half's first z, shared, beside that of images whose slots are the places, and of others.
    #[test]
    fn the_first_null_condition_is_the_one_it_stands_for() {
        for name in ["tiny", "odd"] {
            let folder = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
            let model = Model::open(folder).unwrap();
            let net = model.networks().masked.as_ref().unwrap();
            let (batch, places, d) = (2, net.config.seq_len, net.config.decoder_dim);
            let mut b = Builder::new();
            let turned = |by| (0..places).map(move |slot| ((slot + by) % places) as i32);
            let order: Vec<i32> = [0, 3, 0, 3].into_iter().flat_map(turned).collect();
            let inputs = MaskedInputs {
                batch,
                halves: 2,
                classes: b.constant_i32(&[1, 0], 1).unwrap().grouped(batch),
                mix: None,
                codes: b.constant_i32(&vec![2; batch * places], 1).unwrap().grouped(batch),
                order: b.constant_i32(&order, 1).unwrap().grouped(2 * batch),
            };
            let z = b.kept(2 * batch * places, d).unwrap().grouped(2 * batch);
            let work = Work::start(net, &mut b, &inputs).unwrap();
            work.plan_condition(&mut b, places, 0..places, z).unwrap();
            let null = net.plan_first_null(&mut b).unwrap();
            let (plan, pool) = (b.finish().unwrap(), Pool::new(2).unwrap());
            for isa in Isa::distinct(model.precision()) {
                let mut arena = Arena::new(&plan, 2).unwrap();
                Walker { plan: &plan, arena: &mut arena, pool: &pool, isa, profile: None }
                    .run(&mut Cursor::default(), |_| false);
                let (z, null) = (arena.mat::<f32>(z), arena.mat::<f32>(null));
                for (row, &place) in order.iter().enumerate().skip(batch * places) {
                    let place = place as usize;
                    // Where keys stand in another order, their sums round otherwise.
                    let bound = if row - batch * places == place { 0.0 } else { 1e-5 };
                    let pairs = z.row(row).iter().zip(null.row(place));
                    let error = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(error <= bound, "{name} on {isa}: row {row}, place {place}: {error:e}");
                }
                assert!(z.row(0) != z.row(batch * places), "the halves differ");
            }
        }
    }

    #[test]
    fn the_first_round_computes_one_half() {
        let model = Model::open(format!("{}/tests/fixtures/tiny", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let settings = crate::Settings { rounds: 2, ..model.settings() };
        let flops = |guidance| {
            let settings = crate::Settings { guidance, ..settings };
            let cpu = crate::Cpu::new(1).unwrap();
            let session = model.session(&cpu, 1, &settings, crate::Outputs::IMAGE).unwrap();
            let of = |s: &&crate::plan::Segment| s.stage == Stage::Condition && s.index == 0;
            session.plan().segments.iter().filter(of).map(|s| s.weight * s.repeat as u64).sum::<u64>()
        };
        let (alone, guided) = (flops(1.0), flops(3.0));
        assert!(alone > 0 && guided < alone * 3 / 2, "{guided} with guidance, {alone} without");
    }
}
