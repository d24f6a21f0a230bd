//! Layer normalisation, with the modulation of adaptive layers:
//! `out = (x - mean) / sqrt(var + 1e-6) * weight + bias`, then `* (1 + scale) + shift`.
//!
//! All `[M, D]`; weight and bias `[D]`. Mean and variance in two passes in f32: error about 1e-6 of the row's
//! largest |x - mean| / std. FLOPs: 8 M D.

use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::simd::{Job, Simd};
use crate::tensor::{TileMut, Weight};

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
    pub out: View,
}

/// Added to every variance, in all networks of the graph.
pub(super) const EPSILON: f32 = 1e-6;

impl Kernel for LayerNorm {
    const NAME: &'static str = "layer_norm";

    fn out(&self) -> Out {
        Out::new(self.out, (8192 / self.out.cols().max(1)).max(1), self.out.cols())
    }

    fn cost(&self) -> Cost {
        let n = self.out.count() * self.out.cols();
        let modulation = if self.modulation.is_some() { 2 * n } else { 0 };
        Cost { bytes: words(2 * n + modulation), flops: 8 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        let modulation = self.modulation.map(|m| (cx.mat::<f32>(&m.shift), cx.mat::<f32>(&m.scale)));
        for i in out.rows() {
            cx.isa().run(Normalise {
                x: x.row(i),
                affine: self.affine.as_ref().map(|(w, b)| (w.f32(), b.f32())),
                modulation: modulation.map(|(shift, scale)| (shift.row(i), scale.row(i))),
                out: out.row(i),
            });
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
        let x = self.x;
        let mut sum = s.zero();
        for x in x.chunks(S::LANES) {
            sum = s.add(sum, s.load_up_to(x));
        }
        let mean = s.sum(sum) / x.len() as f32;
        let mut sum = s.zero();
        let mut whole = x.chunks_exact(S::LANES);
        for x in whole.by_ref() {
            let d = s.sub(s.load(x), s.splat(mean));
            sum = s.fma(d, d, sum);
        }
        // The lanes behind a row's end would count as 0 - mean.
        let tail: f32 = whole.remainder().iter().map(|x| (x - mean) * (x - mean)).sum();
        let rstd = 1.0 / ((s.sum(sum) + tail) / x.len() as f32 + EPSILON).sqrt();
        for (i, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let at = i * S::LANES;
            let mut y = s.mul(s.sub(s.load_up_to(&x[at..]), s.splat(mean)), s.splat(rstd));
            if let Some((w, b)) = self.affine {
                y = s.fma(y, s.load_up_to(&w[at..]), s.load_up_to(&b[at..]));
            }
            if let Some((shift, scale)) = self.modulation {
                y = s.fma(y, s.add(s.splat(1.0), s.load_up_to(&scale[at..])), s.load_up_to(&shift[at..]));
            }
            s.store_up_to(out, y);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers};
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
            let weight = |v: &[f32]| Weight::owned("w", &[d], v).unwrap();
            let op = LayerNorm {
                x,
                affine: affine.then(|| (weight(&w), weight(&b))),
                modulation: modulated.then(|| Modulation { scale: mods.columns(0..d), shift: mods.columns(d..2 * d) }),
                out,
            };
            for (isa, y) in lab.run(op) {
                // The mean is rounded to half an ulp of `far`, then divided by a deviation of about a half.
                close(&y, &expected, 5e-6 + 2e-6 * far as f64, isa)?;
            }
        }
    }
}
