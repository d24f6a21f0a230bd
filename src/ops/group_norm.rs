//! Group normalisation over channels-last images: 32 groups of channels, statistics over all pixels of an image.
//!
//! Three ops. `GroupStats`: x `[B, P, C]` -> partial `[B, blocks, 2 C]`, mean and sum of squared deviations of each
//! channel over a block of pixels. `GroupFactors`: partial -> `[B, 2 C]`, what each channel is multiplied with and what
//! is added then. `GroupNorm`: out = f((x - mean) / sqrt(var + 1e-6) * weight + bias), f identity or SiLU; a
//! [`Conv`](super::Conv) does that by itself. Sums are of 64 pixels at most in f32, and those joined in f64, always in the
//! same order: where a channel is the same number all over, each addition rounds the same way. Error about 1e-6 of the
//! group's largest |x| / std. FLOPs: 4 B P C, then 2 B P C and the activation's.

use super::layer_norm::EPSILON;
#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, pieces, small};
use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::{Along, Job, Simd, along};
use crate::tensor::{TileMut, Weight};

/// Groups of channels, in all networks of the graph.
const GROUPS: usize = 32;

/// Pixels that are added up in f32.
const RUN: usize = 64;

/// Mean and squared deviations by channel and block of pixels.
#[derive(Debug, Clone)]
pub struct GroupStats {
    /// `[B, P, C]`
    pub x: View,
    /// `[B, blocks, 2 C]`
    pub out: View,
}

impl GroupStats {
    /// Blocks of an image of `pixels`: at most 16, of at least 64 pixels.
    pub fn blocks(pixels: usize) -> usize {
        (pixels / 64).clamp(1, 16)
    }

    /// The parts of a worker's memory: the sums of a run, and those of a block in f64.
    fn parts(&self) -> [usize; 2] {
        [self.x.cols(), 2 * self.x.cols()]
    }

    /// Pixels of block `i`.
    fn block(pixels: usize, i: usize) -> std::ops::Range<usize> {
        let n = Self::blocks(pixels);
        i * pixels / n..(i + 1) * pixels / n
    }
}

impl Kernel for GroupStats {
    const NAME: &'static str = "group_stats";

    fn out(&self) -> Out {
        Out::new(self.out, 1, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.x.count() * self.x.cols();
        Cost { bytes: words(n), flops: 4 * n as u64 }
    }

    fn worker_words(&self) -> usize {
        WorkerMemory::words(self.parts())
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        let (pixels, blocks) = (self.x.layout.rows, self.out.layout.rows);
        let mut memory = cx.worker_memory();
        let [run, sums] = memory.split(self.parts());
        let sums: &mut [f64] = bytemuck::cast_slice_mut(sums);
        for i in out.rows() {
            let (image, block) = (i / blocks, Self::block(pixels, i % blocks));
            let (means, squares) = out.row(i).split_at_mut(self.x.cols());
            let mut add_up = |mean: Option<&[f32]>, sums: &mut [f64]| {
                sums.fill(0.0);
                for first in block.clone().step_by(RUN) {
                    run.fill(0.0);
                    for pixel in first..block.end.min(first + RUN) {
                        cx.isa().run(Accumulate { row: x.row(image * pixels + pixel), mean, to: run });
                    }
                    sums.iter_mut().zip(&*run).for_each(|(sum, &run)| *sum += f64::from(run));
                }
            };
            add_up(None, sums);
            means.iter_mut().zip(&*sums).for_each(|(mean, &sum)| *mean = (sum / block.len() as f64) as f32);
            add_up(Some(means), sums);
            squares.iter_mut().zip(&*sums).for_each(|(square, &sum)| *square = sum as f32);
        }
    }
}

/// `to += row`, or `to += (row - mean)^2`.
struct Accumulate<'a> {
    row: &'a [f32],
    mean: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl Job for Accumulate<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, to) in self.to.chunks_mut(S::LANES).enumerate() {
            let at = i * S::LANES;
            let x = s.load_up_to(&self.row[at..]);
            let sum = match self.mean {
                None => s.add(s.load_up_to(to), x),
                Some(mean) => {
                    let d = s.sub(x, s.load_up_to(&mean[at..]));
                    s.fma(d, d, s.load_up_to(to))
                }
            };
            s.store_up_to(to, sum);
        }
    }
}

/// Joins the statistics of [`GroupStats`].
#[derive(Debug, Clone)]
pub struct GroupFactors {
    /// `[B, blocks, 2 C]`
    pub stats: View,
    /// P
    pub pixels: usize,
    /// `[C]`
    pub weight: Weight,
    /// `[C]`
    pub bias: Weight,
    /// `[B, 2 C]`: scales, then shifts.
    pub out: View,
}

impl Kernel for GroupFactors {
    const NAME: &'static str = "group_factors";

    fn out(&self) -> Out {
        Out::new(self.out, 1, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.stats.count() * self.stats.cols();
        Cost { bytes: words(n), flops: 6 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let stats = cx.mat::<f32>(&self.stats);
        let (channels, blocks) = (self.out.cols() / 2, self.stats.layout.rows);
        let each = channels / GROUPS;
        for image in out.rows() {
            let (scale, shift) = out.row(image).split_at_mut(channels);
            for group in 0..GROUPS {
                let channels_here = group * each..(group + 1) * each;
                let parts = || {
                    (0..blocks).flat_map(|b| {
                        let (mean, squares) = stats.row(image * blocks + b).split_at(channels);
                        let n = GroupStats::block(self.pixels, b).len() as f64;
                        channels_here.clone().map(move |c| (n, mean[c] as f64, squares[c] as f64))
                    })
                };
                let count = (self.pixels * each) as f64;
                let mean = parts().map(|(n, m, _)| n * m).sum::<f64>() / count;
                let var = parts().map(|(n, m, sq)| sq + n * (m - mean) * (m - mean)).sum::<f64>() / count;
                let rstd = 1.0 / (var + EPSILON as f64).sqrt();
                for c in channels_here.clone() {
                    let w = self.weight.f32()[c] as f64 * rstd;
                    scale[c] = w as f32;
                    shift[c] = (self.bias.f32()[c] as f64 - mean * w) as f32;
                }
            }
        }
    }
}

/// Normalises with the factors of [`GroupFactors`].
#[derive(Debug, Clone)]
pub struct GroupNorm {
    /// `[B, P, C]`
    pub x: View,
    /// `[B, 2 C]`
    pub factors: View,
    /// f
    pub activation: Activation,
    /// `[B, P, C]`
    pub out: View,
}

impl Kernel for GroupNorm {
    const NAME: &'static str = "group_norm";

    fn out(&self) -> Out {
        let pixels = self.x.layout.rows;
        Out::new(self.out, pixels.div_ceil(GroupStats::blocks(pixels)), self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.x.count() * self.x.cols();
        let activation = if self.activation == Activation::Identity { 0 } else { 20 * n as u64 };
        Cost { bytes: words(2 * n), flops: 2 * n as u64 + activation }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (x, factors) = (cx.mat::<f32>(&self.x), cx.mat::<f32>(&self.factors));
        for i in out.rows() {
            let (scale, shift) = factors.row(i / self.x.layout.rows).split_at(self.x.cols());
            cx.isa().run(Scale { x: x.row(i), scale, shift, activation: self.activation, out: out.row(i) });
        }
    }
}

/// `out = f(x * scale + shift)`
pub(super) struct Scale<'a> {
    pub(super) x: &'a [f32],
    pub(super) scale: &'a [f32],
    pub(super) shift: &'a [f32],
    pub(super) activation: Activation,
    pub(super) out: &'a mut [f32],
}

impl Job for Scale<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let n = self.out.len();
        [&mut self.x, &mut self.scale, &mut self.shift].into_iter().for_each(|row| *row = &row[..n]);
        along(s, n, &mut self);
    }
}

impl Along for Scale<'_> {
    #[inline(always)]
    fn vector<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize) {
        let (scale, shift) = (s.load_at::<WHOLE>(self.scale, at), s.load_at::<WHOLE>(self.shift, at));
        let y = s.fma(s.load_at::<WHOLE>(self.x, at), scale, shift);
        s.store_at::<WHOLE>(self.out, at, self.activation.apply(s, y));
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for GroupStats {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let l = self.out.layout;
        let p = abi::GroupStats { turn: to.turn(), x: to.view(&self.x)?, out: to.view(&self.out)? };
        to.call("group_norm", "group_stats", [self.x.cols().div_ceil(32), l.rows, l.groups], p)
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for GroupFactors {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let p = abi::GroupFactors {
            turn: to.turn(),
            stats: to.view(&self.stats)?,
            out: to.view(&self.out)?,
            weight: to.weight(&self.weight)?,
            bias: to.weight(&self.bias)?,
            pixels: small("pixels", self.pixels)?,
            unused: 0,
        };
        to.call("group_norm", "group_factors", [4, self.out.count(), 1], p)
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for GroupNorm {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let p = abi::GroupNorm {
            turn: to.turn(),
            x: to.view(&self.x)?,
            factors: to.view(&self.factors)?,
            out: to.view(&self.out)?,
            activation: self.activation as i32,
            form: 0,
        };
        to.call("group_norm", "group_norm", pieces(&self.out), p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn agrees_with_the_naive_one(b in 1usize..4, pixels in 1usize..300, each in 1usize..4, silu: bool, far in 0f32..30.0) {
            let c = 32 * each;
            let mut lab = Lab::new();
            let x: Vec<f32> = numbers(b * pixels * c, 1).iter().map(|x| x + far).collect();
            let (w, bias) = (numbers(c, 2), numbers(c, 3));
            let mut expected = vec![0.0; x.len()];
            for image in 0..b {
                for g in 0..32 {
                    let all = || (0..pixels * each).map(move |i| (image * pixels + i / each) * c + g * each + i % each);
                    let n = (pixels * each) as f64;
                    let mean = all().map(|i| x[i] as f64).sum::<f64>() / n;
                    let var = all().map(|i| (x[i] as f64 - mean).powi(2)).sum::<f64>() / n;
                    for i in all() {
                        let y = (x[i] as f64 - mean) / (var + 1e-6).sqrt() * w[i % c] as f64 + bias[i % c] as f64;
                        expected[i] = if silu { y / (1.0 + (-y).exp()) } else { y };
                    }
                }
            }
            // A group of one pixel and one channel has no spread: only rounding is left, times a thousand.
            prop_assume!(pixels * each > 4);
            let x = lab.input(b * pixels, c, &x).grouped(b);
            let blocks = GroupStats::blocks(pixels);
            let stats = lab.output(b * blocks, 2 * c).grouped(b);
            let out = lab.output(b * pixels, c).grouped(b);
            let activation = if silu { Activation::Silu } else { Activation::Identity };
            let factors = lab.output(b, 2 * c);
            let join = GroupFactors { stats, pixels, weight: weight(&[c], &w), bias: weight(&[c], &bias), out: factors };
            let norm = GroupNorm { x, factors, activation, out };
            for (isa, y) in lab.run_all(vec![GroupStats { x, out: stats }.into(), join.into(), norm.into()], out) {
                close(&y, &expected, 1e-5 + 2e-6 * far as f64, isa)?;
            }
        }
    }

    #[test]
    fn flat_areas_do_not_add_up_roundings() {
        // Blocks of 4,096 pixels. Half of a channel's are one number, which it takes one addition after the other.
        let (pixels, c) = (256 * 256, 32);
        let mut lab = Lab::new();
        let (flat, rest) = (numbers(c, 1), numbers(pixels * c, 2));
        let x: Vec<f32> =
            rest.iter().enumerate().map(|(i, &x)| if i / c % 4096 < 2048 { 1.5 + flat[i % c] } else { x }).collect();
        let expected = (0..c).map(|channel| {
            let all = || x.iter().skip(channel).step_by(c).map(|&x| f64::from(x));
            let mean = all().sum::<f64>() / pixels as f64;
            let rstd = 1.0 / (all().map(|x| (x - mean).powi(2)).sum::<f64>() / pixels as f64 + 1e-6).sqrt();
            (rstd, -mean * rstd)
        });
        let (scales, shifts): (Vec<f64>, Vec<f64>) = expected.unzip();
        let all = |v: f32| weight(&[c], &vec![v; c]);
        let x = lab.input(pixels, c, &x);
        let (stats, out) = (lab.output(GroupStats::blocks(pixels), 2 * c), lab.output(1, 2 * c));
        let join = GroupFactors { stats, pixels, weight: all(1.0), bias: all(0.0), out };
        for (isa, y) in lab.run_all(vec![GroupStats { x, out: stats }.into(), join.into()], out) {
            close(&y, &[scales.as_slice(), &shifts].concat(), 4e-6, isa).unwrap();
        }
    }
}
