//! Convolution over channels-last images, as a product of the pixels' neighbourhoods with the weights.
//!
//! x `[B, H W, Cin]`, weight `[Cout, k k Cin]` (channels innermost), out `[B, Ho Wo, Cout]`. The neighbourhoods of a
//! tile's pixels are gathered into a worker's memory; nearest upsampling (factor 2), stride and padding are only
//! other places to gather from. Accuracy as linear with K = k k Cin. FLOPs: 2 B Ho Wo Cout k k Cin.

use super::product::{Epilogue, Input, Rows, multiply, parts, tile_rows};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::tensor::{Mat, Matrix, TileMut};

/// The op.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[B, H W, Cin]`
    pub x: View,
    /// W: pixels a line of `x`.
    pub width: usize,
    /// `[Cout, k k Cin]`
    pub w: Matrix,
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

impl Conv {
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
        Out::new(self.out, tile_rows(&self.w, self.out.count()), 256)
    }

    fn cost(&self) -> Cost {
        let pixels = self.out.count();
        let moved = self.x.count() * self.x.cols() + pixels * self.out.cols();
        let flops = 2 * (pixels * self.out.cols() * self.w.cols()) as u64;
        Cost { bytes: words(moved) + self.w.byte_len() as u64, flops }
    }

    fn worker_words(&self) -> usize {
        let out = self.out();
        WorkerMemory::words(parts(&self.w, Rows::Gathered, out.tile_rows, out.tile_cols))
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (rows, cols, pixels) = (out.rows(), out.cols(), self.out.layout.rows);
        let x = cx.mat::<f32>(&self.x);
        let mut memory = cx.worker_memory();
        let [sums, row, input] = memory.split(parts(&self.w, Rows::Gathered, rows.len(), cols.len()));
        let gather = |i: usize, to: &mut [f32]| self.gather(&x, i / pixels, i % pixels, to);
        let input = Input::gathered(cx, &self.w, rows.clone(), row, input, gather);
        let sums = multiply(cx, &input, &self.w, cols, sums);
        self.epilogue.store(cx, &sums, rows, &mut out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight_as};
    use crate::tensor::{DType, Format, Weight};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_the_naive_one(
            b in 1usize..3, h in 1usize..9, width in 1usize..9, cin in 1usize..20, cout in 1usize..20, kind in 0usize..4, add: bool,
            format in 0usize..3,
        ) {
            // 3x3 padded; 1x1; 3x3 on the upsampled image; stride 2 padded right and below only.
            let (kernel, stride, padding, upsample) = [(3, 1, 1, false), (1, 1, 0, false), (3, 1, 1, true), (3, 2, 0, false)][kind];
            let up = if upsample { 2 } else { 1 };
            let (oh, ow) = if stride == 2 { (h.div_ceil(2), width.div_ceil(2)) } else { (h * up, width * up) };
            let mut lab = Lab::new();
            let format = [Format::F32, Format::Wide, Format::Bf16][format];
            let w = weight_as(DType::F32, &[cout, kernel * kernel * cin], &numbers(cout * kernel * kernel * cin, 2));
            let matrix = Matrix::pack(&w, format).unwrap();
            let (w, old) = (matrix.to_f32(), numbers(b * oh * ow * cout, 3));
            let mut x = numbers(b * h * width * cin, 1);
            if format == Format::Bf16 {
                x = weight_as(DType::BF16, &[x.len()], &x).to_f32();
            }
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
            let op = Conv { x, width, w: matrix, kernel, stride, padding, upsample, epilogue, out_width: ow, out };
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 1e-6 * (9 * cin) as f64, isa)?;
            }
        }
    }
}
