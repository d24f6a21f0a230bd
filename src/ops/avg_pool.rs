//! Mean over 2 x 2 pixels of channels-last images.
//!
//! x `[B, 2h 2w, C]`, out `[B, h w, C]`. Exact but for three roundings. FLOPs: 4 B h w C.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, pieces, small};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::tensor::TileMut;

/// The op.
#[derive(Debug, Clone)]
pub struct AvgPool {
    /// `[B, 2h 2w, C]`
    pub x: View,
    /// w: pixels a line of `out`.
    pub out_width: usize,
    /// `[B, h w, C]`
    pub out: View,
}

impl Kernel for AvgPool {
    const NAME: &'static str = "avg_pool";

    fn out(&self) -> Out {
        Out::new(self.out, 64, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.out.count() * self.out.cols();
        Cost { bytes: words(5 * n), flops: 4 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        let width = 2 * self.out_width;
        for i in out.rows() {
            let (image, pixel) = (i / self.out.layout.rows, i % self.out.layout.rows);
            let first = image * self.x.layout.rows + pixel / self.out_width * 2 * width + pixel % self.out_width * 2;
            let [a, b, c, d] = [first, first + 1, first + width, first + width + 1].map(|i| x.row(i));
            for (j, out) in out.row(i).iter_mut().enumerate() {
                *out = ((a[j] + b[j]) + (c[j] + d[j])) * 0.25;
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for AvgPool {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let out_width = small("pixels a line", self.out_width)?;
        let p = abi::AvgPool { turn: to.turn(), x: to.view(&self.x)?, out: to.view(&self.out)?, out_width, unused: 0 };
        to.call("avg_pool", "avg_pool", pieces(&self.out), p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers};

    #[test]
    fn takes_the_mean_of_four() {
        let (b, h, w, c) = (2, 3, 5, 7);
        let mut lab = Lab::new();
        let x = numbers(b * 4 * h * w * c, 1);
        let mut expected = Vec::new();
        for i in 0..b * h * w {
            let (image, y, x0) = (i / (h * w), i / w % h, i % w);
            for ch in 0..c {
                let at = |dy, dx| x[((image * 2 * h + 2 * y + dy) * 2 * w + 2 * x0 + dx) * c + ch] as f64;
                expected.push((at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0);
            }
        }
        let (x, out) = (lab.input(b * 4 * h * w, c, &x).grouped(b), lab.output(b * h * w, c).grouped(b));
        for (isa, y) in lab.run(AvgPool { x, out_width: w, out }) {
            close(&y, &expected, 2e-7, isa).unwrap();
        }
    }
}
