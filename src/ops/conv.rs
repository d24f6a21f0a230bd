//! Convolution over channels-last images, as a product of the pixels' neighbourhoods with the weights.
//!
//! x `[B, H W, Cin]`, weight `[Cout, k k Cin]` (channels innermost), out `[B, Ho Wo, Cout]`. The neighbourhoods of a
//! tile's pixels are gathered into a worker's memory; nearest upsampling (factor 2), stride and padding are only
//! other places to gather from. Accuracy as linear with K = k k Cin. FLOPs: 2 B Ho Wo Cout k k Cin.

use super::linear::multiply;
use super::{Epilogue, Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::dot::WIDE_ROWS;
use crate::tensor::{Layout, Mat, TileMut, Weight};

/// The op.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[B, H W, Cin]`
    pub x: View,
    /// W: pixels a line of `x`.
    pub width: usize,
    /// `[Cout, k k Cin]`
    pub w: Weight,
    /// k
    pub kernel: usize,
    /// Pixels from one output's neighbourhood to the next's.
    pub stride: usize,
    /// Lines and columns of zeros above and left of the image; those below and right follow from the size of `out`.
    pub padding: usize,
    /// Whether each pixel of `x` is read as 2 x 2 pixels.
    pub upsample: bool,
    /// What follows.
    pub epilogue: Epilogue,
    /// Wo: pixels a line of `out`.
    pub out_width: usize,
    /// `[B, Ho Wo, Cout]`
    pub out: View,
}

/// Numbers of the gathered neighbourhoods of a tile: they stay in the second-level cache.
const TILE_INPUT: usize = 48 * 1024;

impl Conv {
    fn tile_rows(&self) -> usize {
        (TILE_INPUT / self.w.cols().max(1)).clamp(16, 64) / 4 * 4
    }

    /// The neighbourhood of output pixel `pixel` of image `image`: k k Cin numbers, zeros outside of the image.
    fn gather(&self, x: &Mat<'_, f32>, image: usize, pixel: usize, to: &mut [f32]) {
        let (cin, l) = (self.x.cols(), self.x.layout);
        let shift = usize::from(self.upsample);
        let (width, height) = (self.width << shift, (l.rows / self.width) << shift);
        let (top, left) = (pixel / self.out_width * self.stride, pixel % self.out_width * self.stride);
        for (tap, to) in to.chunks_mut(cin).enumerate() {
            let (y, x0) = (top + tap / self.kernel, left + tap % self.kernel);
            let inside = (self.padding..self.padding + height).contains(&y)
                && (self.padding..self.padding + width).contains(&x0);
            if inside {
                let at = ((y - self.padding) >> shift) * self.width + ((x0 - self.padding) >> shift);
                to.copy_from_slice(x.row(image * l.rows + at));
            } else {
                to.fill(0.0);
            }
        }
    }
}

impl Kernel for Conv {
    const NAME: &'static str = "conv";

    fn out(&self) -> Out {
        Out::new(self.out, self.tile_rows(), self.out.cols().min(256))
    }

    fn cost(&self) -> Cost {
        let pixels = self.out.count();
        let moved = self.x.count() * self.x.cols() + pixels * self.out.cols();
        let flops = 2 * (pixels * self.out.cols() * self.w.cols()) as u64;
        Cost { bytes: words(moved) + self.w.byte_len() as u64, flops }
    }

    fn worker_words(&self) -> usize {
        let (out, k) = (self.out(), self.w.cols());
        WorkerMemory::words([out.tile_rows * k, out.tile_rows * out.tile_cols, WIDE_ROWS * k])
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (rows, cols, k) = (out.rows(), out.cols(), self.w.cols());
        let x = cx.mat::<f32>(&self.x);
        let mut memory = cx.worker_memory();
        let [patches, sums, wide] = memory.split([rows.len() * k, rows.len() * cols.len(), WIDE_ROWS * k]);
        let pixels = self.out.layout.rows;
        for (i, patch) in rows.clone().zip(patches.chunks_mut(k)) {
            self.gather(&x, i / pixels, i % pixels, patch);
        }
        let a = Mat::new(patches, Layout::dense(rows.len(), k));
        multiply(cx, a, 0..rows.len(), &self.w, cols, sums, wide);
        self.epilogue.store(cx, sums, rows, &mut out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight_as};
    use crate::tensor::DType;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_the_naive_one(
            b in 1usize..3, h in 1usize..9, width in 1usize..9, cin in 1usize..20, cout in 1usize..20, kind in 0usize..4, add: bool,
        ) {
            // 3x3 padded; 1x1; 3x3 on the upsampled image; stride 2 padded right and below only.
            let (kernel, stride, padding, upsample) = [(3, 1, 1, false), (1, 1, 0, false), (3, 1, 1, true), (3, 2, 0, false)][kind];
            let up = if upsample { 2 } else { 1 };
            let (oh, ow) = if stride == 2 { (h.div_ceil(2), width.div_ceil(2)) } else { (h * up, width * up) };
            let mut lab = Lab::new();
            let (x, w, old) = (numbers(b * h * width * cin, 1), numbers(cout * kernel * kernel * cin, 2), numbers(b * oh * ow * cout, 3));
            let bias = numbers(cout, 4);
            let mut expected = Vec::new();
            for i in 0..b * oh * ow {
                let (image, y, x0) = (i / (oh * ow), i / ow % oh, i % ow);
                for o in 0..cout {
                    let mut sum = bias[o] as f64 + if add { old[i * cout + o] as f64 } else { 0.0 };
                    for (ky, kx) in (0..kernel).flat_map(|ky| (0..kernel).map(move |kx| (ky, kx))) {
                        let at = |p: usize, k: usize| (p * stride + k) as isize - padding as isize;
                        let (iy, ix) = (at(y, ky), at(x0, kx));
                        if iy < 0 || ix < 0 || iy >= (h * up) as isize || ix >= (width * up) as isize {
                            continue;
                        }
                        let from = ((image * h + iy as usize / up) * width + ix as usize / up) * cin;
                        let to = ((o * kernel + ky) * kernel + kx) * cin;
                        sum += (0..cin).map(|c| x[from + c] as f64 * w[to + c] as f64).sum::<f64>();
                    }
                    expected.push(sum);
                }
            }
            let x = lab.input(b * h * width, cin, &x).grouped(b);
            let out = lab.input(b * oh * ow, cout, &old).grouped(b);
            let epilogue = Epilogue { bias: Some(Weight::owned("b", &[cout], &bias).unwrap()), add, ..Epilogue::default() };
            let w = weight_as(DType::F32, &[cout, kernel * kernel * cin], &w);
            let op = Conv { x, width, w, kernel, stride, padding, upsample, epilogue, out_width: ow, out };
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 1e-6 * (9 * cin) as f64, isa)?;
            }
        }
    }
}
