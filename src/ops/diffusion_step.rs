//! One step of ancestral sampling with guidance and learned variance (2102.09672; MAR, 2406.11838, section 3).
//!
//! x `[N, C]` in place; eps `[N, 2 C]` or, with guidance, `[2 N, 2 C]` (conditional rows first): noise estimate and
//! variance logits; noise `[N, C]`. `e = null + guidance (cond - null)`, `clean = clamp(recip x - recipm1 e)`,
//! `x = c1 clean + c2 x + exp(log variance / 2) temperature noise`. The variance comes from the conditional rows.
//! Error about 1e-6 of the terms. FLOPs: some 30 N C.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::simd::{Job, Simd, math};
use crate::tensor::TileMut;

/// Numbers of a row of [`DiffusionStep::factors`].
pub const COEFFICIENTS: usize = 7;

/// The op.
#[derive(Debug, Clone)]
pub struct DiffusionStep {
    /// `[N, 2 C]` or `[2 N, 2 C]`
    pub eps: View,
    /// `[1, 7]`: recip, recipm1, c1, c2, smallest and largest log variance, 1 or (in the last step) 0 times noise.
    pub factors: View,
    /// `[N, C]`
    pub noise: View,
    /// Guidance scale, if there are null rows.
    pub guidance: Option<f32>,
    /// Factor of the noise.
    pub temperature: f32,
    /// Bound of the clean estimate.
    pub clip: Option<f32>,
    /// `[N, C]`
    pub x: View,
}

impl Kernel for DiffusionStep {
    const NAME: &'static str = "diffusion_step";

    fn out(&self) -> Out {
        Out::new(self.x, 64, self.x.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.x.count() * self.x.cols();
        let halves = if self.guidance.is_some() { 2 } else { 1 };
        Cost { bytes: words(n * (3 + 2 * halves)), flops: 30 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (eps, noise) = (cx.mat::<f32>(&self.eps), cx.mat::<f32>(&self.noise));
        let n = self.x.count();
        for i in out.rows() {
            cx.isa().run(Step {
                eps: eps.row(i),
                null: self.guidance.map(|g| (g, eps.row(n + i))),
                factors: cx.mat::<f32>(&self.factors).row(0),
                noise: noise.row(i),
                temperature: self.temperature,
                clip: self.clip,
                x: out.row(i),
            });
        }
    }
}

struct Step<'a> {
    eps: &'a [f32],
    null: Option<(f32, &'a [f32])>,
    factors: &'a [f32],
    noise: &'a [f32],
    temperature: f32,
    clip: Option<f32>,
    x: &'a mut [f32],
}

impl Job for Step<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let c = self.x.len();
        let f: [S::V; COEFFICIENTS] = std::array::from_fn(|i| s.splat(self.factors[i]));
        let [recip, recip_minus_one, mean_clean, mean_noisy, min_log, max_log, noisy] = f;
        for (i, out) in self.x.chunks_mut(S::LANES).enumerate() {
            let at = i * S::LANES;
            let x = s.load_up_to(out);
            let mut e = s.load_up_to(&self.eps[at..c]);
            if let Some((guidance, null)) = self.null {
                let null = s.load_up_to(&null[at..c]);
                e = s.fma(s.splat(guidance), s.sub(e, null), null);
            }
            let mut clean = s.sub(s.mul(recip, x), s.mul(recip_minus_one, e));
            if let Some(clip) = self.clip {
                clean = s.min(s.max(clean, s.splat(-clip)), s.splat(clip));
            }
            let mean = s.fma(mean_clean, clean, s.mul(mean_noisy, x));
            let share = s.mul(s.add(s.load_up_to(&self.eps[c + at..]), s.splat(1.0)), s.splat(0.5));
            let log_variance = s.fma(share, s.sub(max_log, min_log), min_log);
            let deviation = math::exp(s, s.mul(log_variance, s.splat(0.5)));
            let factor = s.mul(noisy, s.mul(deviation, s.splat(self.temperature)));
            s.store_up_to(out, s.fma(factor, s.load_up_to(&self.noise[at..]), mean));
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for DiffusionStep {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let p = abi::DiffusionStep {
            turn: to.turn(),
            eps: to.view(&self.eps)?,
            factors: to.view(&self.factors)?,
            noise: to.view(&self.noise)?,
            x: to.view(&self.x)?,
            guidance: self.guidance.unwrap_or(1.0),
            temperature: self.temperature,
            clip: self.clip.unwrap_or(0.0),
            guided: i32::from(self.guidance.is_some()),
            clipped: i32::from(self.clip.is_some()),
            unused: 0,
        };
        let blocks = (self.x.count() * self.x.cols()).div_ceil(256);
        to.call("diffusion_step", "diffusion_step", [blocks, 1, 1], p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers};

    #[test]
    fn agrees_with_the_formula() {
        for (n, c, guidance, clip) in [(1, 1, None, None), (5, 16, Some(3.0), None), (3, 21, Some(0.5), Some(0.7))] {
            let mut lab = Lab::new();
            let (x, eps, noise) = (numbers(n * c, 1), numbers(2 * n * 2 * c, 2), numbers(n * c, 3));
            let f = [1.3f32, 0.8, 0.4, 0.55, -2.5, -1.25, 1.0];
            let mut expected = Vec::new();
            for i in 0..n * c {
                let at = i / c * 2 * c + i % c;
                let cond = eps[at] as f64;
                let e = guidance.map_or(cond, |g: f32| {
                    let null = eps[at + n * 2 * c] as f64;
                    null + g as f64 * (cond - null)
                });
                let f = f.map(f64::from);
                let clean = f[0] * x[i] as f64 - f[1] * e;
                let clean = clip.map_or(clean, |b: f32| clean.clamp(-b as f64, b as f64));
                let share = (eps[at + c] as f64 + 1.0) / 2.0;
                let log_variance = share * f[5] + (1.0 - share) * f[4];
                let drawn = (0.5 * log_variance).exp() * noise[i] as f64 * 0.9f32 as f64;
                expected.push(f[2] * clean + f[3] * x[i] as f64 + drawn);
            }
            let rows = if guidance.is_some() { 2 * n } else { n };
            let (x, eps) = (lab.input(n, c, &x), lab.input(2 * n, 2 * c, &eps).rows(0..rows));
            let (noise, factors) = (lab.input(n, c, &noise), lab.input(1, COEFFICIENTS, &f));
            for (isa, y) in lab.run(DiffusionStep { eps, factors, noise, guidance, temperature: 0.9, clip, x }) {
                close(&y, &expected, 2e-6, isa).unwrap();
            }
        }
    }
}
