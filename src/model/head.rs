//! Stage 2's head: a diffusion MLP that draws a continuous token given its condition z (MAR, 2406.11838, section 3.2).
//!
//! `y = SiLU(time(t) + cond(z))` does not depend on the token. So the modulations of many diffusion steps come from
//! one tall product each before the steps run, and only 2 of a block's 5 squares of weights stay in the sequential
//! loop.

use super::transformer::{Dense, Norm};
use crate::error::Result;
use crate::ops::{Activation, COEFFICIENTS, DiffusionStep, LayerNorm, Modulation, Noise, Source, SumRows};
use crate::plan::{Builder, Key, Stage, View};
use crate::sampling::Schedule;
use crate::sampling::philox::Stream;
use crate::weights::{MaskedConfig, Part};
use std::ops::Range;

/// The network.
#[derive(Debug)]
pub struct Head {
    width: usize,
    token_dim: usize,
    train_steps: usize,
    time_in: Dense,
    time_out: Dense,
    condition: Dense,
    token_in: Dense,
    blocks: Vec<HeadBlock>,
    last_modulation: Dense,
    last: Dense,
}

#[derive(Debug)]
struct HeadBlock {
    norm: Norm,
    fc1: Dense,
    fc2: Dense,
    modulation: Dense,
}

/// Settings of the diffusion.
#[derive(Debug, Clone, Copy)]
pub struct HeadSettings {
    /// Steps, at least 1.
    pub steps: usize,
    /// Factor of the noise.
    pub temperature: f32,
    /// Bound of the estimate of the clean token.
    pub clip_x0: Option<f32>,
}

/// A diffusion set up: its settings, the schedule of its steps and their time embeddings.
#[derive(Debug, Clone)]
pub struct Diffusion {
    settings: HeadSettings,
    /// Steps made; a schedule may have fewer than were asked for.
    steps: usize,
    /// `[steps, W]`, in the order they are made
    embeddings: View,
    /// `[steps, COEFFICIENTS]`, likewise
    factors: View,
}

/// One use of the head in a plan.
#[derive(Debug, Clone, Copy)]
pub struct HeadTurn {
    /// The round of stage 2.
    pub round: usize,
    /// Guidance scale, if there is a null half.
    pub guidance: Option<f32>,
}

/// Where starts and noise of the diffusion come from.
#[derive(Debug, Clone)]
pub enum Draws {
    /// From the seeds.
    Seeded {
        /// `[B, 1, 2]` of i32: low and high word of each image's seed.
        seeds: View,
        /// `[B, N, 1]` of i32: the places.
        places: View,
    },
    /// From outside, for checks against known answers.
    Given {
        /// `[B, N, C]`
        start: View,
        /// `[B, N, C]` of the first step made, all steps' behind each other.
        noise: View,
        /// Words from one step's noise to the next's.
        step_words: usize,
    },
}

impl Draws {
    /// Those of the slots `slots` of each image.
    pub fn slots(&self, slots: Range<usize>) -> Self {
        match *self {
            Self::Seeded { seeds, places } => Self::Seeded { seeds, places: places.rows(slots) },
            Self::Given { start, noise, step_words } => {
                Self::Given { start: start.rows(slots.clone()), noise: noise.rows(slots), step_words }
            }
        }
    }

    /// `[B, N, C]`: the shape to put them in.
    fn shape(&self, token_dim: usize) -> (usize, usize, usize) {
        let l = match self {
            Self::Seeded { places, .. } => places.layout,
            Self::Given { start, .. } => start.layout,
        };
        (l.groups, l.rows, token_dim)
    }

    fn push_start(&self, b: &mut Builder, out: View) {
        match *self {
            Self::Seeded { seeds, places } => {
                b.push(Noise { seeds, places, stream: Stream::Start, first_step: 0, out })
            }
            Self::Given { start, .. } => b.push(SumRows::copy(start, out)),
        }
    }

    /// `[B N, C]`: the noise of step `first`, of the next of `turns` steps each turn.
    fn plan_noise(&self, b: &mut Builder, first: usize, turns: usize, token_dim: usize) -> Result<View> {
        match *self {
            Self::Seeded { seeds, places } => {
                let (images, rows) = (places.layout.groups, places.count());
                let all = b.scratch(turns * rows, token_dim)?;
                let out = all.grouped(turns * images);
                b.push(Noise { seeds, places, stream: Stream::Noise, first_step: first, out });
                Ok(all.rows(0..rows).stepping(rows * token_dim))
            }
            Self::Given { noise, step_words, .. } => Ok(noise.offset(first * step_words).stepping(step_words)),
        }
    }
}

/// Width of the time features: half cosines, half sines.
const TIME_FEATURES: usize = 256;

/// Numbers of modulations that are made at once, about: they are read again from the second-level caches.
const MODULATIONS: usize = 1 << 19;

/// Rows of modulations that are made at once, at least: fewer would read the weights too often.
const MODULATED_ROWS: usize = 96;

impl Head {
    /// Takes the network's weights out of `part`.
    pub(super) fn load(part: &mut Part, config: &MaskedConfig) -> Result<Self> {
        let (w, c) = (config.head.width, config.token_dim);
        let net = "diffloss.net";
        let block = |part: &mut Part, i: usize| {
            let name = format!("{net}.res_blocks.{i}");
            Ok(HeadBlock {
                norm: Norm::take(part, &format!("{name}.in_ln"), w)?,
                fc1: Dense::take(part, &format!("{name}.mlp.0"), w, w)?,
                fc2: Dense::take(part, &format!("{name}.mlp.2"), w, w)?,
                modulation: Dense::take(part, &format!("{name}.adaLN_modulation.1"), 3 * w, w)?,
            })
        };
        Ok(Self {
            width: w,
            token_dim: c,
            train_steps: config.head.train_steps,
            time_in: Dense::take(part, &format!("{net}.time_embed.mlp.0"), w, TIME_FEATURES)?,
            time_out: Dense::take(part, &format!("{net}.time_embed.mlp.2"), w, w)?,
            condition: Dense::take(part, &format!("{net}.cond_embed"), w, config.decoder_dim)?,
            token_in: Dense::take(part, &format!("{net}.input_proj"), w, c)?,
            blocks: (0..config.head.depth).map(|i| block(part, i)).collect::<Result<_>>()?,
            last_modulation: Dense::take(part, &format!("{net}.final_layer.adaLN_modulation.1"), 2 * w, w)?,
            last: Dense::take(part, &format!("{net}.final_layer.linear"), 2 * c, w)?,
        })
    }

    /// Writes the time embeddings of a diffusion, once for all sessions.
    pub fn plan_diffusion(&self, b: &mut Builder, settings: HeadSettings) -> Result<Diffusion> {
        let s = Schedule::new(self.train_steps, settings.steps);
        let (mut features, mut factors) = (Vec::new(), Vec::new());
        for i in (0..s.len()).rev() {
            let half = TIME_FEATURES / 2;
            let angle = |k: usize| s.t[i] as f64 * (-(10_000f64.ln()) * k as f64 / half as f64).exp();
            features.extend((0..half).map(|k| angle(k).cos() as f32));
            features.extend((0..half).map(|k| angle(k).sin() as f32));
            let noisy = if i > 0 { 1.0 } else { 0.0 };
            let row: [f64; COEFFICIENTS] =
                [s.recip[i], s.recip_minus_one[i], s.mean_clean[i], s.mean_noisy[i], s.min_log[i], s.max_log[i], noisy];
            factors.extend(row.map(|x| x as f32));
        }
        let features = b.constant(&features, TIME_FEATURES)?;
        let factors = b.constant(&factors, COEFFICIENTS)?;
        let embeddings = b.once(Key::TimeEmbeddings { steps: settings.steps }, |b| {
            let embeddings = b.shared(s.len(), self.width)?;
            let hidden = b.scratch(s.len(), self.width)?;
            b.push(self.time_in.op(features, hidden).then(Activation::Silu));
            b.push(self.time_out.op(hidden, embeddings));
            Ok(embeddings)
        })?;
        Ok(Diffusion { settings, steps: s.len(), embeddings, factors })
    }

    /// Writes the drawing of N tokens an image: z `[G, N, D]` (the conditional half first, then with guidance the
    /// null half), tokens into `out` `[B, N, C]`.
    pub fn plan(
        &self,
        b: &mut Builder,
        diffusion: &Diffusion,
        HeadTurn { round, guidance }: HeadTurn,
        z: View,
        draws: &Draws,
        out: View,
    ) -> Result<()> {
        let rows = z.count();
        let (images, places, c) = draws.shape(self.token_dim);
        let halves = if guidance.is_some() { 2 } else { 1 };
        debug_assert_eq!(rows, halves * images * places);
        let a_step = rows * (3 * self.width * self.blocks.len() + 2 * self.width);
        let at_once = (MODULATIONS / a_step).max(MODULATED_ROWS.div_ceil(rows)).clamp(1, diffusion.steps.max(1));
        b.scope(|b| {
            b.segment(Stage::Head, round, 1);
            let condition = b.scratch(rows, self.width)?;
            b.push(self.condition.op(z, condition));
            let x = b.scratch(images * places, c)?;
            draws.push_start(b, x.grouped(images));
            for first in (0..diffusion.steps).step_by(at_once) {
                let turns = at_once.min(diffusion.steps - first);
                b.scope(|b| {
                    b.segment(Stage::Head, round, 1);
                    let (modulations, last) = self.plan_modulations(b, condition, diffusion, first, turns)?;
                    let noise = draws.plan_noise(b, first, turns, c)?;
                    b.segment(Stage::Head, round, turns);
                    let eps = b.scratch(rows, 2 * c)?;
                    self.plan_eps(b, x.repeated(halves), &modulations, last, eps)?;
                    b.push(DiffusionStep {
                        eps,
                        factors: diffusion.factors.rows(first..first + 1).stepping(COEFFICIENTS),
                        noise,
                        guidance,
                        temperature: diffusion.settings.temperature,
                        clip: diffusion.settings.clip_x0,
                        x,
                    });
                    Ok(())
                })?;
            }
            b.segment(Stage::Head, round, 1);
            b.push(SumRows::copy(x.grouped(images), out));
            Ok(())
        })
    }

    /// The modulations of `turns` steps from `first` on: by block `[rows, 3 W]` and for the last layer
    /// `[rows, 2 W]`, moving on each turn.
    fn plan_modulations(
        &self,
        b: &mut Builder,
        condition: View,
        diffusion: &Diffusion,
        first: usize,
        turns: usize,
    ) -> Result<(Vec<View>, View)> {
        let (rows, w) = (condition.count(), self.width);
        let mut of = |width| b.scratch(turns * rows, width);
        let (outs, last) = ((0..self.blocks.len()).map(|_| of(3 * w)).collect::<Result<Vec<_>>>()?, of(2 * w)?);
        b.scope(|b| {
            let y = b.scratch(turns * rows, w)?;
            let time = diffusion.embeddings.rows(first..first + turns).each_repeated(rows);
            b.push(SumRows {
                sources: vec![Source::Rows(time), Source::Rows(condition.repeated(turns))],
                activation: Activation::Silu,
                out: y.grouped(turns),
            });
            for (block, &out) in self.blocks.iter().zip(&outs) {
                b.push(block.modulation.op(y, out));
            }
            b.push(self.last_modulation.op(y, last));
            Ok(())
        })?;
        let of_turn = |v: View| v.rows(0..rows).stepping(rows * v.cols());
        Ok((outs.into_iter().map(of_turn).collect(), of_turn(last)))
    }

    /// The network itself: x `[halves, N, C]` -> eps `[rows, 2 C]`.
    fn plan_eps(&self, b: &mut Builder, x: View, modulations: &[View], last: View, eps: View) -> Result<()> {
        let (rows, w) = (x.count(), self.width);
        b.scope(|b| {
            let h = b.scratch(rows, w)?;
            b.push(self.token_in.op(x, h));
            let part = |m: View, i: usize| m.columns(i * w..(i + 1) * w);
            for (block, &m) in self.blocks.iter().zip(modulations) {
                b.scope(|b| {
                    let (u, hidden) = (block.fc1.input(b, rows)?, block.fc2.input(b, rows)?);
                    b.push(block.norm.op(h, Some(Modulation { shift: part(m, 0), scale: part(m, 1) }), u));
                    b.push(block.fc1.op(u, hidden).then(Activation::Silu));
                    b.push(block.fc2.op(hidden, h).added(Some(part(m, 2))));
                    Ok(())
                })?;
            }
            let modulation = Some(Modulation { shift: part(last, 0), scale: part(last, 1) });
            let u = self.last.input(b, rows)?;
            b.push(LayerNorm { x: h, affine: None, modulation, out: u });
            b.push(self.last.op(u, eps));
            Ok(())
        })
    }
}
