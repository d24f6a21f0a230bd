//! Convolution over channels-last images, with the normalisation before it and what follows it done on the way.
//!
//! x `[B, H W, Cin]`, weight `[Cout, k k Cin]` (channels innermost), out `[B, Ho Wo, Cout]`. A tile is some lines of the
//! output. First the lines of the input that it reads are normalised into a worker's memory (GroupNorm and SiLU, where
//! asked for), then one of two ways gives the products: the neighbourhoods of pixels are gathered and multiplied
//! ([`direct`]), or 3x3 neighbourhoods are multiplied four outputs at a time in Winograd's domain ([`winograd`]).
//! Nearest upsampling (factor 2), stride and padding are only other places to read from.
//!
//! Accuracy as linear with K = k k Cin; Winograd's sums of differences add a factor of two or so. FLOPs: 2 B Ho Wo
//! Cout k k Cin, counted so for both ways.

mod direct;
mod winograd;

use super::group_norm::Scale;
#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, Splits, Tall, abi, small};
use super::product::Epilogue;
use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::panels::Prepare;
use crate::tensor::packed::PANEL;
use crate::tensor::{Filter, Form, Format, Layout, Mat, TileMut};
use std::ops::Range;

/// The op.
#[derive(Debug, Clone)]
pub struct Conv {
    /// `[B, H W, Cin]`
    pub x: View,
    /// W: pixels a line of `x`.
    pub width: usize,
    /// What is done to `x` first.
    pub norm: Option<Normalised>,
    /// Cout filters of k k Cin.
    pub filter: Filter,
    /// k
    pub kernel: usize,
    /// Pixels from one output's neighbourhood to the next's: 1 or 2.
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

/// `f(x * scale + shift)` by image and channel: a group norm.
#[derive(Debug, Clone, Copy)]
pub struct Normalised {
    /// `[B, 2 Cin]`: scales, then shifts, as of [`GroupFactors`](super::GroupFactors).
    pub factors: View,
    /// f
    pub activation: Activation,
}

/// Output pixels that a tile should have at least, and lines that it should have where they are wide, which is what Winograd's
/// form makes at once: a tile's borders are normalised by its neighbours too.
const TILE_PIXELS: usize = 256;
const TILE_LINES: usize = 2;

/// Tiles that a convolution is cut into at least, if it has the columns: every thread should find some.
const TILES: usize = 8;

/// Multiply-adds of a tile, at most, about: a millisecond of a core, or two of a busy one, which is what a frame may have to wait
/// for. Fewer lines cost less than fewer columns, for which each tile prepares the same pixels anew.
const TILE_WORK: usize = 80 << 20;

/// Columns of a tile are a multiple of what the widest kernel takes at once.
const STRIP: usize = 4 * PANEL;

/// The input pixels that a tile reads, in the form that its products take.
struct Pixels<'a> {
    rows: Mat<'a, u32>,
    /// Row of the first pixel of line `lines.start`.
    first: usize,
    width: usize,
    lines: Range<usize>,
    upsample: bool,
}

impl<'a> Pixels<'a> {
    /// The pixel at that place of the (upsampled) image; `None` outside of it.
    #[inline(always)]
    fn at(&self, line: isize, column: isize) -> Option<&'a [u32]> {
        let shift = usize::from(self.upsample);
        let (line, column) = ((line >> shift) as usize, (column >> shift) as usize);
        // What was negative is huge now.
        let inside = self.lines.contains(&line) && column < self.width;
        inside.then(|| self.rows.row(self.first + (line - self.lines.start) * self.width + column))
    }
}

impl Conv {
    /// Lines a tile: an even number where an image has that, so that no image's tiles depend on those before it.
    fn tile_lines(&self) -> usize {
        let width = self.out_width.max(1);
        let lines = self.out.layout.rows / width;
        let enough = (TILE_PIXELS / width).max(TILE_LINES).next_multiple_of(2);
        if lines.is_multiple_of(2) { enough.min(lines.max(2)) } else { lines }
    }

    /// Columns a tile. An image alone says how many, lest a picture depends on its batch.
    fn tile_columns(&self) -> usize {
        let lines = self.out.layout.rows / self.out_width.max(1);
        let work = self.tile_lines() * self.out_width * self.out.cols() * self.kernel.pow(2) * self.x.cols();
        let across = TILES.div_ceil(lines.div_ceil(self.tile_lines()).max(1)).max(work.div_ceil(TILE_WORK));
        self.out.cols().div_ceil(across).next_multiple_of(STRIP)
    }

    /// Lines of the input that `lines` of the output read.
    fn input_lines(&self, lines: &Range<usize>) -> Range<usize> {
        let height = self.x.layout.rows / self.width.max(1);
        let shift = usize::from(self.upsample);
        let first = (lines.start * self.stride).saturating_sub(self.padding) >> shift;
        let last = ((lines.end.max(1) - 1) * self.stride + self.kernel).saturating_sub(self.padding + 1) >> shift;
        first.min(height)..(last + 1).min(height)
    }

    /// Words of a pixel in the form that the products take, and whether the pixels have to be brought into it.
    fn pixel_words(&self) -> (usize, bool) {
        let cin = self.x.cols();
        match &self.filter {
            Filter::Taps(w) if w.format() == Format::Bf16 && cin.is_multiple_of(2) => (cin / 2, true),
            _ => (cin, self.norm.is_some()),
        }
    }

    /// Words of the worker's copy of the pixels of a tile of `lines` lines.
    fn copy_words(&self, lines: usize) -> usize {
        let (words, copied) = self.pixel_words();
        let height = self.x.layout.rows / self.width.max(1);
        let most = lines * self.stride + self.kernel;
        // The last part is one pixel of f32, on its way to another form.
        if copied { most.min(height) * self.width * words + self.x.cols() } else { 0 }
    }

    /// Lines `lines` of image `image`, normalised and in the form that the products take.
    fn pixels<'a>(&self, cx: &Cx<'a>, image: usize, lines: Range<usize>, memory: &'a mut [f32]) -> Pixels<'a> {
        let x = cx.mat::<f32>(&self.x);
        let (words, copied) = self.pixel_words();
        let (width, upsample, first) =
            (self.width, self.upsample, image * self.x.layout.rows + lines.start * self.width);
        if !copied {
            return Pixels { rows: x.cast(), first, width, lines, upsample };
        }
        let count = lines.len() * width;
        let (copy, pixel) = memory.split_at_mut(count * words);
        let pixel = &mut pixel[..self.x.cols()];
        let norm = self.norm.map(|n| (cx.mat::<f32>(&n.factors).row(image).split_at(self.x.cols()), n.activation));
        for (i, to) in copy.chunks_exact_mut(words.max(1)).enumerate() {
            let x = x.row(first + i);
            let prepare = |x: &[f32], to: &mut [f32]| {
                Prepare { form: Form::Pairs, x, to: bytemuck::cast_slice_mut(to) }.run(cx.isa());
            };
            match norm {
                Some(((scale, shift), activation)) if words == x.len() => {
                    cx.isa().run(Scale { x, scale, shift, activation, out: to });
                }
                Some(((scale, shift), activation)) => {
                    cx.isa().run(Scale { x, scale, shift, activation, out: pixel });
                    prepare(pixel, to);
                }
                None => prepare(x, to),
            }
        }
        let rows = Mat::new(bytemuck::cast_slice(copy), Layout::dense(count, words));
        Pixels { rows, first: 0, width, lines, upsample }
    }
}

impl Kernel for Conv {
    const NAME: &'static str = "conv";

    fn out(&self) -> Out {
        Out::new(self.out, self.tile_lines() * self.out_width, self.tile_columns())
    }

    fn cost(&self, _: usize) -> Cost {
        let (pixels, taps) = (self.out.count(), self.kernel * self.kernel * self.x.cols());
        let moved = self.x.count() * self.x.cols() + pixels * self.out.cols();
        let flops = 2 * (pixels * self.out.cols() * taps) as u64;
        Cost { bytes: words(moved) + self.filter.matrix().byte_len() as u64, flops }
    }

    fn worker_words(&self) -> usize {
        let copy = WorkerMemory::words([self.copy_words(self.tile_lines())]);
        copy + match &self.filter {
            Filter::Taps(w) => WorkerMemory::words(self.direct_parts(w)),
            Filter::Winograd(_) => WorkerMemory::words(self.winograd_parts()),
        }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (width, rows) = (self.out_width, out.rows());
        for (image, rows) in self.out.layout.by_group(rows) {
            let lines = rows.start / width..rows.end / width;
            let input = self.input_lines(&lines);
            match &self.filter {
                Filter::Taps(w) => self.direct(cx, w, image, lines, input, &mut out),
                Filter::Winograd(w) => self.winograd(cx, w, image, lines, input, &mut out),
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl Conv {
    fn on_gpu(&self) -> Tall {
        let k = self.kernel * self.kernel * self.x.cols();
        Tall::of(self.out.cols().div_ceil(PANEL), self.out.count(), k)
    }

    fn is_f32(&self) -> bool {
        self.filter.matrix().format() != Format::Bf16
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for Conv {
    fn splits(&self) -> Splits {
        if self.is_f32() { Splits::default() } else { self.on_gpu().memory }
    }

    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let norm = self.norm.as_ref();
        let pixels = |n| small("pixels", n);
        let Tall { large, grid, splits, memory } = self.on_gpu();
        let (kernel, grid, memory) = match (self.is_f32(), large) {
            (true, _) => {
                ("conv_f32", Tall::small(self.out.cols().div_ceil(PANEL), self.out.count()), Splits::default())
            }
            (false, true) => ("conv_bf16", grid, memory),
            (false, false) => ("conv_bf16_small", grid, memory),
        };
        let [partial, tickets] = to.splits(memory);
        let p = abi::Conv {
            turn: to.turn(),
            x: to.view(&self.x)?,
            factors: to.maybe(norm.map(|norm| &norm.factors))?,
            out: to.view(&self.out)?,
            w: to.taps(&self.filter, self.out.cols())?,
            epilogue: self.epilogue.on(to, Form::Numbers)?,
            partial,
            tickets,
            activation: norm.map_or(Activation::Identity, |norm| norm.activation) as i32,
            unused: 0,
            cin: small("channels", self.x.cols())?,
            width: pixels(self.width)?,
            kernel: pixels(self.kernel)?,
            stride: pixels(self.stride)?,
            padding: pixels(self.padding)?,
            upsample: i32::from(self.upsample),
            out_width: pixels(self.out_width)?,
            splits: small("runs of K", splits)?,
        };
        to.call("conv", kernel, grid, p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight, weight_as};
    use crate::tensor::{DType, Matrix};
    use proptest::prelude::*;

    /// What the convolution is made in.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Way {
        Taps(Format),
        Winograd,
    }

    const WAYS: [Way; 4] = [Way::Taps(Format::F32), Way::Taps(Format::Wide), Way::Taps(Format::Bf16), Way::Winograd];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn agrees_with_the_naive_one(
            b in 1usize..3, h in 1usize..14, width in 1usize..40, cin in 1usize..37, cout in 1usize..37, kind in 0usize..4,
            add: bool, norm: bool, way in 0..WAYS.len(),
        ) {
            // 3x3 padded; 3x3 on the upsampled image; 1x1; stride 2 padded right and below only.
            let (kernel, stride, padding, upsample) = [(3, 1, 1, false), (3, 1, 1, true), (1, 1, 0, false), (3, 2, 0, false)][kind];
            let way = if WAYS[way] == Way::Winograd && kind > 1 { Way::Taps(Format::F32) } else { WAYS[way] };
            let up = if upsample { 2 } else { 1 };
            let (oh, ow) = if stride == 2 { (h.div_ceil(2), width.div_ceil(2)) } else { (h * up, width * up) };
            let mut lab = Lab::new();
            let w = weight_as(DType::F32, &[cout, kernel * kernel * cin], &numbers(cout * kernel * kernel * cin, 2));
            let (filter, w) = match way {
                Way::Winograd => (Filter::winograd(&w).unwrap(), w.to_f32()),
                Way::Taps(format) => {
                    let matrix = Matrix::pack(&w, format).unwrap();
                    let w = matrix.to_f32();
                    (Filter::Taps(matrix), w)
                }
            };
            let (x, factors) = (numbers(b * h * width * cin, 1), numbers(b * 2 * cin, 5));
            let (bias, old) = (numbers(cout, 4), numbers(b * oh * ow * cout, 3));
            let read: Vec<f32> = x.iter().enumerate().map(|(i, &x)| {
                let (image, c) = (i / (h * width * cin), i % cin);
                let [scale, shift] = [0, cin].map(|at| factors[image * 2 * cin + at + c]);
                let y = x * scale + shift;
                if norm { y / (1.0 + (-y).exp()) } else { x }
            }).collect();
            let rounds = way == Way::Taps(Format::Bf16);
            let rounded = if rounds { weight_as(DType::BF16, &[read.len()], &read).to_f32() } else { read };
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
                        sum += (0..cin).map(|c| rounded[from + c] as f64 * w[to + c] as f64).sum::<f64>();
                    }
                    expected.push(sum);
                }
            }
            let x = lab.input(b * h * width, cin, &x).grouped(b);
            let factors = lab.input(b, 2 * cin, &factors);
            let norm = norm.then_some(Normalised { factors, activation: Activation::Silu });
            let out = lab.input(b * oh * ow, cout, &old).grouped(b);
            let epilogue = Epilogue { bias: Some(weight(&[cout], &bias)), add, ..Epilogue::default() };
            let op = Conv { x, width, norm, filter, kernel, stride, padding, upsample, epilogue, out_width: ow, out };
            // Where the normalisation rounds differently, the rounding to bf16 may go the other way.
            let flips = if rounds && norm.is_some() { (9 * cin) as f64 * 2e-4 } else { 0.0 };
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 1e-6 * (9 * cin) as f64 + flips, isa)?;
            }
        }
    }

    /// A 3x3 convolution over an image of `height` lines, and its weights.
    fn of_size(lab: &mut Lab, [height, width, cin, cout]: [usize; 4], upsample: bool, w: &[f32]) -> Conv {
        let up = if upsample { 2 } else { 1 };
        let x = lab.input(height * width, cin, &numbers(height * width * cin, 1)).grouped(1);
        let out = lab.output(height * width * up * up, cout).grouped(1);
        let w = weight_as(DType::F32, &[cout, 9 * cin], w);
        let filter = Filter::Taps(Matrix::pack(&w, Format::F32).unwrap());
        let epilogue = Epilogue::default();
        let (norm, out_width) = (None, width * up);
        Conv { x, width, norm, filter, kernel: 3, stride: 1, padding: 1, upsample, epilogue, out_width, out }
    }

    #[test]
    fn a_tile_is_no_more_than_a_frame_can_wait_for() {
        // Of a decoder to 256 x 256 pixels.
        let sizes = [
            ([16, 16, 512, 512], true, 1),
            ([32, 32, 512, 512], false, 4),
            ([64, 64, 256, 256], true, 2),
            ([128, 128, 128, 128], true, 1),
            ([256, 256, 128, 128], false, 1),
        ];
        for (size, upsample, least) in sizes {
            let (mut lab, [.., cin, cout]) = (Lab::new(), size);
            let op = of_size(&mut lab, size, upsample, &vec![0.0; 9 * cin * cout]);
            let out = op.out();
            let work = out.tile_rows * out.tile_cols * 9 * cin;
            assert!(work <= TILE_WORK, "{size:?}: {work} multiply-adds in a tile");
            assert!(cout.div_ceil(out.tile_cols) >= least, "{size:?}: tiles of {} columns", out.tile_cols);
            // Nor so little that preparing the pixels counts.
            assert!(work >= TILE_WORK / 4, "{size:?}: {work} multiply-adds in a tile");
        }
    }

    #[test]
    fn columns_do_not_know_in_which_tile_they_are() {
        let (cin, cout, strip) = (24, 200, 64);
        let w = numbers(9 * cin * cout, 2);
        let mut lab = Lab::new();
        let op = of_size(&mut lab, [4, 8, cin, cout], false, &w);
        assert_eq!(op.out().tile_cols, strip);
        let all = lab.run(op);
        for first in (0..cout).step_by(strip) {
            let some = first..cout.min(first + strip);
            let mut lab = Lab::new();
            let w = &w[some.start * 9 * cin..some.end * 9 * cin];
            let op = of_size(&mut lab, [4, 8, cin, some.len()], false, w);
            for ((isa, all), (_, part)) in all.iter().zip(lab.run(op)) {
                let rows = all.chunks(cout).flat_map(|row| &row[some.clone()]);
                assert!(rows.eq(&part), "{some:?} on {isa}");
            }
        }
    }
}
