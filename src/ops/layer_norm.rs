//! Layer normalisation, with the modulation of adaptive layers:
//! `out = (x - mean) / sqrt(var + 1e-6) * weight + bias`, then `* (1 + scale) + shift`.
//!
//! All `[M, D]`; weight and bias `[D]`. Mean and variance in two passes in f32: error about 1e-6 of the row's
//! largest |x - mean| / std. FLOPs: 8 M D.

#[cfg(feature = "cuda")]
use super::on_gpu::{FEW, Launcher, Result, abi};
use super::{Kernel, Operand, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::panels::prepare;
use crate::simd::{Along, Job, Simd, along};
use crate::tensor::{Form, Mat, TileMut, Weight};

/// Shift and scale of an adaptive layer (Peebles and Xie, 2212.09748, section 3.2), one row for each row of `x`.
#[derive(Debug, Clone, Copy)]
pub struct Modulation {
    /// `[M, D]`
    pub shift: View,
    /// `[M, D]`
    pub scale: View,
}

/// The op.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    /// `[M, D]`
    pub x: View,
    /// Weight and bias, `[D]` each.
    pub affine: Option<(Weight, Weight)>,
    /// Shift and scale by row.
    pub modulation: Option<Modulation>,
    /// `[M, D]`
    pub out: Operand,
}

/// Numbers of a tile, about.
const TILE: usize = 1024;

/// Added to every variance, in all networks of the graph.
pub(super) const EPSILON: f32 = 1e-6;

impl LayerNorm {
    /// Words of a worker's memory: a row of numbers before it is brought into another form.
    fn row(&self) -> usize {
        if self.out.form == Form::Numbers { 0 } else { self.x.cols() }
    }
}

impl Kernel for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn out(&self) -> Out {
        Out::new(self.out.view, (TILE / self.x.cols().max(1)).max(1), self.out.view.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.x.count() * self.x.cols();
        let modulation = if self.modulation.is_some() { 2 * n } else { 0 };
        Cost { bytes: words(n + self.out.view.count() * self.out.view.cols() + modulation), flops: 8 * n as u64 }
    }

    fn worker_words(&self) -> usize {
        WorkerMemory::words([self.row()])
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        let mut memory = cx.worker_memory();
        let [row] = memory.split([self.row()]);
        let modulation = self.modulation.map(|m| (cx.mat::<f32>(&m.shift), cx.mat::<f32>(&m.scale)));
        let affine = self.affine.as_ref().map(|(w, b)| (w.f32(), b.f32()));
        let tile = Tile { x, affine, modulation, form: self.out.form, row, out: &mut out };
        cx.isa().run_writing(self.out.form, tile);
    }
}

/// Rows of a tile.
struct Tile<'a, 'b> {
    x: Mat<'a, f32>,
    affine: Option<(&'a [f32], &'a [f32])>,
    modulation: Option<(Mat<'a, f32>, Mat<'a, f32>)>,
    form: Form,
    /// A row on its way to another form.
    row: &'a mut [f32],
    out: &'a mut TileMut<'b, f32>,
}

impl Job for Tile<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        /// Rows whose means and deviations are found together: a row's sums need not wait for the row before.
        const ROWS: usize = 8;
        let Self { x, affine, modulation, form, row, out } = self;
        let rows = out.rows();
        for first in rows.clone().step_by(ROWS) {
            let some = first..rows.end.min(first + ROWS);
            let mut all = [(0.0, 0.0); ROWS];
            for (found, i) in all.iter_mut().zip(some.clone()) {
                *found = moments(s, x.row(i));
            }
            for (moments, i) in all.into_iter().zip(some) {
                let modulation = modulation.map(|(shift, scale)| (shift.row(i), scale.row(i)));
                let to = out.row(i);
                let out = if form == Form::Numbers { &mut *to } else { &mut *row };
                scale(s, moments, Normalise { x: x.row(i), affine, modulation, out });
                if form != Form::Numbers {
                    prepare(s, form, row, bytemuck::cast_slice_mut(to));
                }
            }
        }
    }
}

/// One row.
pub(super) struct Normalise<'a> {
    pub(super) x: &'a [f32],
    pub(super) affine: Option<(&'a [f32], &'a [f32])>,
    pub(super) modulation: Option<(&'a [f32], &'a [f32])>,
    pub(super) out: &'a mut [f32],
}

impl Job for Normalise<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        scale(s, moments(s, self.x), self);
    }
}

/// Mean of a row, and the reciprocal of its deviation.
#[inline(always)]
fn moments<S: Simd>(s: S, x: &[f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let (whole, tail) = x.split_at(x.len() / S::LANES * S::LANES);
    // Four sums side by side, or each addition would wait for the one before it.
    let mut sums = [s.zero(); 4];
    for x in whole.chunks(4 * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks_exact(S::LANES)) {
            *sum = s.add(*sum, s.load(x));
        }
    }
    let mean = (joined(s, sums) + tail.iter().sum::<f32>()) / n;
    let mut squares = [s.zero(); 4];
    for x in whole.chunks(4 * S::LANES) {
        for (sum, x) in squares.iter_mut().zip(x.chunks_exact(S::LANES)) {
            let d = s.sub(s.load(x), s.splat(mean));
            *sum = s.fma(d, d, *sum);
        }
    }
    // The lanes behind a row's end would count as 0 - mean.
    let tail: f32 = tail.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, 1.0 / ((joined(s, squares) + tail) / n + EPSILON).sqrt())
}

/// The second pass over a row of that mean and that reciprocal of a deviation.
#[inline(always)]
fn scale<S: Simd>(s: S, (mean, rstd): (f32, f32), mut row: Normalise<'_>) {
    let n = row.out.len();
    row.x = &row.x[..n];
    let pairs = [&mut row.affine, &mut row.modulation];
    pairs.into_iter().flatten().for_each(|(a, b)| (*a, *b) = (&a[..n], &b[..n]));
    along(s, n, &mut Scaled { row, mean, rstd });
}

/// The sum of all lanes.
#[inline(always)]
fn joined<S: Simd>(s: S, sums: [S::V; 4]) -> f32 {
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}

/// [`scale`]
struct Scaled<'a> {
    row: Normalise<'a>,
    mean: f32,
    rstd: f32,
}

impl Along for Scaled<'_> {
    #[inline(always)]
    fn vector<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize) {
        let Self { row, mean, rstd } = self;
        let mut y = s.mul(s.sub(s.load_at::<WHOLE>(row.x, at), s.splat(*mean)), s.splat(*rstd));
        if let Some((w, b)) = row.affine {
            y = s.fma(y, s.load_at::<WHOLE>(w, at), s.load_at::<WHOLE>(b, at));
        }
        if let Some((shift, scale)) = row.modulation {
            let factor = s.add(s.splat(1.0), s.load_at::<WHOLE>(scale, at));
            y = s.fma(y, factor, s.load_at::<WHOLE>(shift, at));
        }
        s.store_at::<WHOLE>(row.out, at, y);
    }
}

#[cfg(feature = "cuda")]
impl LayerNorm {
    /// As the kernel takes it.
    pub(super) fn on(&self, to: &Launcher<'_>) -> Result<abi::LayerNorm> {
        let (weight, bias) = match &self.affine {
            Some((weight, bias)) => (to.weight(weight)?, to.weight(bias)?),
            None => (0, 0),
        };
        Ok(abi::LayerNorm {
            turn: to.turn(),
            x: to.view(&self.x)?,
            out: to.view(&self.out.view)?,
            weight,
            bias,
            shift: to.maybe(self.modulation.as_ref().map(|m| &m.shift))?,
            scale: to.maybe(self.modulation.as_ref().map(|m| &m.scale))?,
            form: to.form(self.out.form)?,
            unused: 0,
        })
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for LayerNorm {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        /// Rows that give every multiprocessor some, a row a warp.
        const MANY: usize = 1024;
        let (p, rows) = (self.on(to)?, self.x.count());
        // Few rows are a row a warp, as in a product that takes a norm over (`Linear::takes`): so they are summed up in the
        // same order, in whatever form and whoever reads them.
        match rows <= FEW || rows >= MANY && self.x.cols() <= 1024 {
            true => to.call("layer_norm", "layer_norm", [rows.div_ceil(8), 1, 1], p),
            false => to.call("layer_norm", "layer_norm_block", [rows, 1, 1], p),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight};
    use half::bf16;
    use proptest::prelude::*;

    /// The reference: one row in f64.
    pub(in crate::ops) fn normalised(x: &[f32]) -> Vec<f64> {
        let n = x.len() as f64;
        let mean = x.iter().map(|&x| x as f64).sum::<f64>() / n;
        let var = x.iter().map(|&x| (x as f64 - mean).powi(2)).sum::<f64>() / n;
        x.iter().map(|&x| (x as f64 - mean) / (var + 1e-6).sqrt()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_the_naive_one(m in 1usize..9, d in 2usize..200, affine: bool, modulated: bool, far in 0f32..100.0) {
            let mut lab = Lab::new();
            let x: Vec<f32> = numbers(m * d, 1).iter().map(|x| x + far).collect();
            let (w, b, mods) = (numbers(d, 2), numbers(d, 3), numbers(m * 2 * d, 4));
            let mut expected = Vec::new();
            for (i, row) in x.chunks(d).enumerate() {
                for (j, mut y) in normalised(row).into_iter().enumerate() {
                    if affine {
                        y = y * w[j] as f64 + b[j] as f64;
                    }
                    if modulated {
                        y = y * (1.0 + mods[i * 2 * d + j] as f64) + mods[i * 2 * d + d + j] as f64;
                    }
                    expected.push(y);
                }
            }
            let (x, mods, out) = (lab.input(m, d, &x), lab.input(m, 2 * d, &mods), lab.output(m, d));
            let op = LayerNorm {
                x,
                affine: affine.then(|| (weight(&[d], &w), weight(&[d], &b))),
                modulation: modulated.then(|| Modulation { scale: mods.columns(0..d), shift: mods.columns(d..2 * d) }),
                out: out.into(),
            };
            for (isa, y) in lab.run(op) {
                // The mean is rounded to half an ulp of `far`, then divided by a deviation of about a half.
                close(&y, &expected, 5e-6 + 2e-6 * far as f64, isa)?;
            }
        }

        #[test]
        fn pairs_are_the_numbers_rounded(m in 1usize..40, d in 2usize..400) {
            // Far from zero: another order of sums is another mean.
            let x: Vec<f32> = numbers(m * d, 1).iter().map(|x| x + 10.0).collect();
            let run = |form: Form| {
                let mut lab = Lab::new();
                let (x, out) = (lab.input(m, d, &x), Operand { view: lab.output(m, form.words(d)), form });
                lab.run(LayerNorm { x, affine: None, modulation: None, out })
            };
            for ((isa, y), (_, pairs)) in run(Form::Numbers).iter().zip(&run(Form::Pairs)) {
                let pairs: &[[bf16; 2]] = bytemuck::cast_slice(pairs);
                for (y, pairs) in y.chunks(d).zip(pairs.chunks(Form::Pairs.words(d))) {
                    let rounded: Vec<_> = y.iter().map(|&y| bf16::from_f32(y)).collect();
                    prop_assert!(pairs.as_flattened().starts_with(&rounded), "{isa}");
                }
            }
        }
    }
}
