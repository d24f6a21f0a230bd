//! Stage 1: discrete autoregression (RAR, 2411.00776).
//!
//! A causal transformer over `[cls, class, code 0, code 1, ...]`: place 0 is cls, place 1 the class, place p code p
//! - 2; place p >= 1 gives the logits of code p - 1. Its adaptive layers see class and place only, never a code. So
//!   the modulations of many places come from one tall product each before the places run, and a third of a block's
//!   weights stay out of the token loop. Those of "no class" are the same for every image: computed once.

use super::Mix;
use super::transformer::{Block, Dense, Norm};
use crate::error::Result;
use crate::ops::{Activation, Attention, HeadNorm, Index, Keys, LayerNorm, Modulation, Source, SumRows, TokenDraw};
use crate::plan::{Builder, Key, Stage, View};
use crate::sampling;
use crate::tensor::{Layout, Weight};
use crate::weights::{Part, RarConfig};

/// The network.
#[derive(Debug)]
pub struct Rar {
    /// Its sizes.
    pub config: RarConfig,
    embeddings: Weight,
    cls: Weight,
    positions: Weight,
    next_positions: Weight,
    steps: Weight,
    blocks: Vec<RarBlock>,
    head_modulation: Dense,
    head: Dense,
}

#[derive(Debug)]
struct RarBlock {
    block: Block,
    q_norm: Norm,
    k_norm: Norm,
    modulation: Dense,
}

/// The sequences that run side by side: `halves` times `batch`, conditional ones first.
#[derive(Debug, Clone, Copy)]
pub struct Sequences {
    /// Images.
    pub batch: usize,
    /// 2 with guidance, else 1.
    pub halves: usize,
    /// `[batch, (L + 1) halves]` of i32: entry (i, h) at column i halves + h; entry 0 is the class's row of the
    /// embedding table, entry i code i - 1.
    pub ids: View,
    /// What stands in the place of entry 0, by rows of the embedding table: `[halves batch, J]`.
    pub mix: Option<Mix>,
}

/// What follows the logits of a place.
#[derive(Debug, Clone, Copy)]
pub enum Tail {
    /// They are kept: `[batch, places, K]`.
    Keep(View),
    /// A code is drawn.
    Draw {
        /// `[batch, L]`
        uniforms: View,
        /// Guidance scale at the last place.
        guidance: f64,
        /// How late the guidance rises.
        guidance_pow: f64,
        /// Divides the logits.
        temperature: f64,
    },
}

/// The rows of the place at work.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// `[all, D]`
    x: View,
    /// The place in turn 0.
    first: usize,
}

/// What the places of all segments share.
#[derive(Debug, Clone, Copy)]
struct Shared<'a> {
    /// Keys and values by block, `[all, places, D]`.
    caches: &'a [(View, View)],
    null: Option<&'a Modulations>,
}

/// Modulations of every place, by block and before the logits: `[turns rows, 6 D]` each and `[turns rows, 2 D]`.
#[derive(Debug)]
struct Modulations {
    blocks: Vec<View>,
    last: View,
}

/// Modulations of so many numbers are made at once: they should stay in the last-level cache.
const MODULATIONS: usize = 4 << 20;

impl Sequences {
    /// Buffers for `batch` images of `places` codes.
    pub fn new(b: &mut Builder, batch: usize, halves: usize, places: usize) -> Result<Self> {
        Ok(Self { batch, halves, ids: b.kept(batch, (places + 1) * halves)?, mix: None })
    }

    /// The same with `classes` weighted classes in the place of one, if they are more.
    pub fn mixing(self, b: &mut Builder, classes: usize) -> Result<Self> {
        let mix = if classes > 1 { Some(Mix::new(b, self.all(), classes)?) } else { None };
        Ok(Self { mix, ..self })
    }

    fn all(&self) -> usize {
        self.batch * self.halves
    }

    /// A row of `ids` before the first turn: entry 0 is `class`, or `none` in the half without; the codes are zeros.
    pub fn start(&self, class: i32, none: i32) -> Vec<i32> {
        let mut row = vec![0; self.ids.cols()];
        row[..self.halves].fill(none);
        row[0] = class;
        row
    }

    /// Entry `i` of every sequence, `[halves, batch, 1]`, moving to the next entry each turn.
    fn entry(&self, i: usize) -> View {
        let layout =
            Layout { groups: self.halves, rows: self.batch, cols: 1, group_stride: 1, row_stride: self.ids.cols() };
        self.ids.offset(i * self.halves).relaid(layout).stepping(self.halves)
    }

    /// The codes of the images, `[batch, L, 1]`.
    pub fn codes(&self) -> View {
        let (row, rows) = (self.ids.cols(), self.ids.cols() / self.halves - 1);
        let layout = Layout { groups: self.batch, rows, cols: 1, group_stride: row, row_stride: self.halves };
        self.ids.offset(self.halves).relaid(layout)
    }
}

impl Rar {
    /// Takes the network's weights out of `part`.
    pub fn load(part: &mut Part, config: &RarConfig) -> Result<Self> {
        let (d, size) = (config.hidden_size, config.hidden_size / config.heads);
        let block = |part: &mut Part, i: usize| {
            let name = format!("blocks.{i}");
            Ok(RarBlock {
                block: Block::take(part, &name, d, config.mlp_size)?,
                q_norm: Norm::take(part, &format!("{name}.attn.q_norm"), size)?,
                k_norm: Norm::take(part, &format!("{name}.attn.k_norm"), size)?,
                modulation: Dense::take(part, &format!("{name}.adaLN_modulation.1"), 6 * d, d)?,
            })
        };
        let ids = config.codebook_size + 1 + config.num_classes + 1;
        Ok(Self {
            embeddings: part.take("embeddings.weight", &[ids, d])?,
            cls: part.take_rows("cls_token", 1, d)?,
            positions: part.take_rows("pos_embed", config.seq_len + 2, d)?,
            next_positions: part.take_rows("target_aware_pos_embed", config.seq_len + 2, d)?,
            steps: part.take_rows("timesteps_embeddings", config.seq_len + 2, d)?,
            blocks: (0..config.depth).map(|i| block(part, i)).collect::<Result<_>>()?,
            head_modulation: Dense::take(part, "adaln_before_head.adaLN_modulation.1", 2 * d, d)?,
            head: Dense::take(part, "lm_head", config.codebook_size, d)?,
            config: config.clone(),
        })
    }

    /// The row of the embedding table that stands for `class`; `num_classes` is "no class".
    pub fn class_id(&self, class: usize) -> i32 {
        (self.config.codebook_size + 1 + class) as i32
    }

    /// Writes places 0 to `places` (logits of `places` codes) over `sequences`.
    pub fn plan(&self, b: &mut Builder, sequences: &Sequences, places: usize, tail: Tail) -> Result<()> {
        let (d, all) = (self.config.hidden_size, sequences.all());
        let at_once = (MODULATIONS / (all * 6 * d * self.blocks.len())).clamp(1, places);
        b.scope(|b| {
            let mut cache = || b.scratch(all * (places + 1), d).map(|v| v.grouped(all));
            let caches = (0..self.blocks.len()).map(|_| Ok((cache()?, cache()?))).collect::<Result<Vec<_>>>()?;
            let null = if sequences.halves == 2 { Some(self.plan_null_modulations(b, places + 1)?) } else { None };
            let shared = Shared { caches: &caches, null: null.as_ref() };
            self.plan_places(b, sequences, &shared, 0..1, None)?;
            let mut next = 1;
            if sequences.mix.is_some() {
                // The place that reads the class: no row of a table, as the codes are.
                self.plan_places(b, sequences, &shared, 1..2, Some(tail))?;
                next = 2;
            }
            for first in (next..=places).step_by(at_once) {
                let range = first..(first + at_once).min(places + 1);
                self.plan_places(b, sequences, &shared, range, Some(tail))?;
            }
            Ok(())
        })
    }

    fn plan_places(
        &self,
        b: &mut Builder,
        sequences: &Sequences,
        shared: &Shared<'_>,
        places: std::ops::Range<usize>,
        tail: Option<Tail>,
    ) -> Result<()> {
        let (d, all, turns, first) = (self.config.hidden_size, sequences.all(), places.len(), places.start);
        b.scope(|b| {
            b.segment(Stage::Discrete, first, 1);
            let Modulations { blocks: modulations, last } =
                self.plan_modulations(b, sequences, shared.null, first, turns)?;

            b.segment(Stage::Discrete, first, turns);
            let x = b.scratch(all, d)?;
            let token = match (first, sequences.mix) {
                (0, _) => Source::Table(self.cls.clone(), Index::Turn { first: 0, step: 0 }),
                (1, Some(mix)) => mix.source(&self.embeddings, |view| view),
                (p, _) => {
                    Source::Table(self.embeddings.clone(), Index::From { ids: sequences.entry(p - 1), offset: 0 })
                }
            };
            let mut sources = vec![token, Source::Table(self.positions.clone(), Index::Turn { first, step: 1 })];
            if first > 0 {
                // Where the code that this place predicts will lie.
                sources.push(Source::Table(self.next_positions.clone(), Index::Turn { first: first + 1, step: 1 }));
            }
            b.push(SumRows::new(sources, x));
            for ((block, modulation), cache) in self.blocks.iter().zip(modulations).zip(shared.caches) {
                self.plan_block(b, block, Place { x, first }, modulation, *cache)?;
            }
            let Some(tail) = tail else { return Ok(()) };

            // Scale first here; every other modulation starts with the shift.
            let modulation = Modulation { scale: last.columns(0..d), shift: last.columns(d..2 * d) };
            let h = self.head.input(b, all)?;
            b.push(LayerNorm { x, affine: None, modulation: Some(modulation), out: h });
            let codes = self.config.codebook_size;
            match tail {
                Tail::Keep(out) => {
                    let rows = Layout {
                        groups: 1,
                        rows: all,
                        cols: codes,
                        group_stride: 0,
                        row_stride: out.layout.rows * codes,
                    };
                    b.push(self.head.op(h, out.offset((first - 1) * codes).relaid(rows).stepping(codes)));
                }
                Tail::Draw { uniforms, guidance, guidance_pow, temperature } => {
                    let logits = b.scratch(all, codes)?;
                    b.push(self.head.op(h, logits));
                    let scale = |p| sampling::guidance_at(guidance, guidance_pow, p - 1, self.config.seq_len) as f32;
                    let scales: Vec<f32> = places.map(scale).collect();
                    let column = Layout {
                        groups: 1,
                        rows: sequences.batch,
                        cols: 1,
                        group_stride: 0,
                        row_stride: uniforms.cols(),
                    };
                    let entry = Layout { cols: sequences.halves, row_stride: sequences.ids.cols(), ..column };
                    let op = TokenDraw {
                        logits: logits.grouped(sequences.halves),
                        scale: b.constant(&scales, 1)?.rows(0..1).stepping(1),
                        temperature,
                        uniforms: uniforms.offset(first - 1).relaid(column).stepping(1),
                        out: sequences.ids.offset(first * sequences.halves).relaid(entry).stepping(sequences.halves),
                    };
                    b.push(op);
                }
            }
            Ok(())
        })
    }

    /// Writes the modulations of "no class" at all places, once for all sessions.
    fn plan_null_modulations(&self, b: &mut Builder, places: usize) -> Result<Modulations> {
        let d = self.config.hidden_size;
        b.once(Key::NullModulations { places }, |b| {
            let mut rows = |width| b.shared(places, width);
            let blocks = (0..self.blocks.len()).map(|_| rows(6 * d)).collect::<Result<Vec<_>>>()?;
            let out = Modulations { blocks, last: rows(2 * d)? };
            let c = b.scratch(places, d)?;
            let class = Index::Turn { first: self.class_id(self.config.num_classes) as usize, step: 0 };
            b.push(SumRows {
                sources: vec![
                    Source::Table(self.embeddings.clone(), class),
                    Source::Table(self.steps.clone(), Index::Range { first: 0 }),
                ],
                activation: Activation::Silu,
                out: c,
            });
            let layers = self.blocks.iter().map(|block| &block.modulation).zip(&out.blocks);
            layers.for_each(|(layer, &out)| b.push(layer.op(c, out)));
            b.push(self.head_modulation.op(c, out.last));
            Ok(out)
        })
    }

    /// The modulations of `turns` places from `first` on: by block `[all, 6 D]` and, before the logits,
    /// `[all, 2 D]`, moving on each turn. Those of `null` are the second half.
    fn plan_modulations(
        &self,
        b: &mut Builder,
        sequences: &Sequences,
        null: Option<&Modulations>,
        first: usize,
        turns: usize,
    ) -> Result<Modulations> {
        let (d, all, batch) = (self.config.hidden_size, sequences.all(), sequences.batch);
        let mut rows = |width| b.scratch(turns * all, width);
        let blocks = (0..self.blocks.len()).map(|_| rows(6 * d)).collect::<Result<Vec<_>>>()?;
        let out = Modulations { blocks, last: rows(2 * d)? };
        // The rows of one half, by turn.
        let half = |v: View, half: usize| {
            let (cols, group_stride) = (v.cols(), all * v.cols());
            v.offset(half * batch * cols).relaid(Layout {
                groups: turns,
                rows: batch,
                cols,
                group_stride,
                row_stride: cols,
            })
        };
        b.scope(|b| {
            let c = b.scratch(turns * batch, d)?;
            let row_stride = sequences.ids.cols();
            let ids = Layout { groups: turns, rows: batch, cols: 1, group_stride: 0, row_stride };
            let class = match sequences.mix {
                None => {
                    Source::Table(self.embeddings.clone(), Index::From { ids: sequences.ids.relaid(ids), offset: 0 })
                }
                Some(mix) => mix.source(&self.embeddings, |view| view.rows(0..batch).repeated(turns)),
            };
            b.push(SumRows {
                sources: vec![class, Source::Table(self.steps.clone(), Index::Group { first })],
                activation: Activation::Silu,
                out: c.grouped(turns),
            });
            for (block, &out) in self.blocks.iter().zip(&out.blocks) {
                b.push(block.modulation.op(c, half(out, 0)));
            }
            b.push(self.head_modulation.op(c, half(out.last, 0)));
            Ok(())
        })?;
        if let Some(null) = null {
            let pairs = null.blocks.iter().zip(&out.blocks).chain([(&null.last, &out.last)]);
            pairs.for_each(|(from, &to)| {
                b.push(SumRows::copy(from.rows(first..first + turns).each_repeated(batch), half(to, 1)));
            });
        }
        let of_turn = |v: View| v.rows(0..all).stepping(all * v.cols());
        Ok(Modulations { blocks: out.blocks.into_iter().map(of_turn).collect(), last: of_turn(out.last) })
    }

    /// Writes one block over a place: x in place, keys and values into the cache.
    fn plan_block(
        &self,
        b: &mut Builder,
        RarBlock { block, q_norm, k_norm, .. }: &RarBlock,
        Place { x, first }: Place,
        modulation: View,
        (keys, values): (View, View),
    ) -> Result<()> {
        let (d, all) = (self.config.hidden_size, x.count());
        let part = |i: usize| modulation.columns(i * d..(i + 1) * d);
        b.scope(|b| {
            let h = block.qkv.input(b, all)?;
            let qkv = b.scratch(all, 3 * d)?;
            let [q, attended] = [b.scratch(all, d)?, b.scratch(all, d)?];
            let place = |cache: View| cache.rows(first..first + 1).stepping(d);
            b.push(block.norm1.op(x, Some(Modulation { shift: part(0), scale: part(1) }), h));
            b.push(block.qkv.op(h, qkv));
            b.push(HeadNorm { x: qkv.columns(0..d), norm: Some(q_norm.pair()), out: q });
            b.push(HeadNorm { x: qkv.columns(d..2 * d), norm: Some(k_norm.pair()), out: place(keys) });
            b.push(HeadNorm { x: qkv.columns(2 * d..3 * d), norm: None, out: place(values) });
            let keys_so_far = Keys { first: first + 1, step: 1 };
            let q = q.grouped(all);
            b.push(Attention {
                q,
                k: keys,
                v: values,
                keys: keys_so_far,
                heads: self.config.heads,
                narrow: block.qkv.w.format().is_narrow(),
                out: attended.grouped(all),
            });
            b.push(block.proj.op(attended, x).added(Some(part(2))));
            Ok(())
        })?;
        b.scope(|b| {
            let (h, hidden) = (block.fc1.input(b, all)?, block.fc2.input(b, all)?);
            b.push(block.norm2.op(x, Some(Modulation { shift: part(3), scale: part(4) }), h));
            b.push(block.fc1.op(h, hidden).then(Activation::Gelu));
            b.push(block.fc2.op(hidden, x).added(Some(part(5))));
            Ok(())
        })
    }
}
