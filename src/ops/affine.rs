//! A scale and a shift by channel, then bounds: tokens to latents, log-variances to their range.
//!
//! x, out `[M, C]`; scale and shift `[C]`; out = clamp(x * scale + shift). Rounded once or twice. FLOPs: 2 M C.

use super::group_norm::Scale;
#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, pieces};
use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::tensor::{TileMut, Weight};

/// The op.
#[derive(Debug, Clone)]
pub struct Affine {
    /// `[M, C]`
    pub x: View,
    /// Scale and shift, `[C]` each.
    pub factors: Option<(Weight, Weight)>,
    /// Smallest and largest result.
    pub bounds: Option<(f32, f32)>,
    /// `[M, C]`
    pub out: View,
}

impl Kernel for Affine {
    const NAME: &'static str = "affine";

    fn out(&self) -> Out {
        Out::new(self.out, (16_384 / self.out.cols().max(1)).max(1), self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.out.count() * self.out.cols();
        Cost { bytes: words(2 * n), flops: 2 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        for i in out.rows() {
            match &self.factors {
                None => out.row(i).copy_from_slice(x.row(i)),
                Some((scale, shift)) => cx.isa().run(Scale {
                    x: x.row(i),
                    scale: scale.f32(),
                    shift: shift.f32(),
                    activation: Activation::Identity,
                    out: out.row(i),
                }),
            }
            if let Some((low, high)) = self.bounds {
                out.row(i).iter_mut().for_each(|y| *y = y.clamp(low, high));
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for Affine {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let (scale, shift) = match &self.factors {
            Some((scale, shift)) => (to.weight(scale)?, to.weight(shift)?),
            None => (0, 0),
        };
        let (low, high) = self.bounds.unwrap_or_default();
        let bounded = i32::from(self.bounds.is_some());
        let p = abi::Affine {
            turn: to.turn(),
            x: to.view(&self.x)?,
            out: to.view(&self.out)?,
            scale,
            shift,
            low,
            high,
            bounded,
            unused: 0,
        };
        to.call("affine", "affine", pieces(&self.out), p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight};

    #[test]
    fn scales_shifts_and_bounds_each_channel() {
        let (m, c) = (5, 19);
        for (with_factors, bounds) in [(true, None), (true, Some((-0.25, 0.5))), (false, Some((-0.5, 0.1)))] {
            let mut lab = Lab::new();
            let (x, scale, shift) = (numbers(m * c, 1), numbers(c, 2), numbers(c, 3));
            let exact = |(i, &x): (usize, &f32)| {
                let y = if with_factors { x as f64 * scale[i % c] as f64 + shift[i % c] as f64 } else { x as f64 };
                bounds.map_or(y, |(low, high): (f32, f32)| y.clamp(low as f64, high as f64))
            };
            let expected: Vec<f64> = x.iter().enumerate().map(exact).collect();
            let (x, out) = (lab.input(m, c, &x), lab.output(m, c));
            let op =
                Affine { x, factors: with_factors.then(|| (weight(&[c], &scale), weight(&[c], &shift))), bounds, out };
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 2e-7, isa).unwrap();
            }
        }
    }
}
