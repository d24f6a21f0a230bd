//! 3x3 convolutions with stride 1 by Winograd's minimal filtering F(2x2, 3x3) (Lavin and Gray, 1509.09308): four
//! outputs from sixteen products a channel instead of thirty-six.
//!
//! A patch d of 4 x 4 pixels becomes `B^T d B`, is multiplied channel by channel with the filters transformed alike
//! ([`crate::tensor::Filter`]), and the sums m become 2 x 2 outputs `A^T m A`. So sixteen products of [patches, Cin]
//! with [Cin, Cout], one for each place of a patch.

use super::{Conv, Pixels};
use crate::ops::product::Sums;
use crate::plan::Cx;
use crate::simd::panels::Product;
use crate::simd::{Along, Job, Simd, along};
use crate::tensor::Form;
use crate::tensor::packed::{LINE_WORDS, PANEL};
use crate::tensor::{Format, Layout, Mat, Matrix, TileMut};
use std::ops::Range;

/// Places of a patch.
const PLACES: usize = 16;

/// Patches transformed and multiplied at once.
const PATCHES: usize = 48;

/// Columns of the result multiplied at once.
const COLUMNS: usize = 128;

/// Words from one place's matrix of so many words to the next's: an odd number of cache lines, since a transform reaches into all
/// matrices by turns, and at multiples of 4 KiB, as many channels are, they would share a set of the cache.
fn stride(words: usize) -> usize {
    (words.div_ceil(LINE_WORDS) | 1) * LINE_WORDS
}

impl Conv {
    fn columns(&self) -> usize {
        self.tile_columns().min(COLUMNS)
    }

    /// The parts of a worker's memory behind the copy of the pixels: transformed patches, products, four outputs,
    /// a pixel of zeros.
    pub(super) fn winograd_parts(&self) -> [usize; 4] {
        let (cin, columns) = (self.x.cols(), self.columns());
        [PLACES * stride(PATCHES * cin), PLACES * stride(PATCHES * columns), 4 * columns, cin]
    }

    /// Computes lines `lines` (from an even one on) of image `image` from lines `input` of `x`.
    pub(super) fn winograd(
        &self,
        cx: &Cx<'_>,
        w: &Matrix,
        image: usize,
        lines: Range<usize>,
        input: Range<usize>,
        out: &mut TileMut<'_, f32>,
    ) {
        let mut memory = cx.worker_memory();
        let [patches, products, outputs, zeros] = self.winograd_parts();
        let [copy, patches, products, outputs, zeros] =
            memory.split([self.copy_words(self.tile_lines()), patches, products, outputs, zeros]);
        zeros.fill(0.0);
        let pixels = self.pixels(cx, image, input, copy);
        let across = self.out_width.div_ceil(2);
        let all = lines.len().div_ceil(2) * across;
        let corner = |patch: usize| (lines.start + patch / across * 2, patch % across * 2);
        for start in (0..all).step_by(PATCHES) {
            let some = start..all.min(start + PATCHES);
            let step = stride(some.len() * self.x.cols());
            for (i, patch) in some.clone().enumerate() {
                let pixels = self.patch(&pixels, corner(patch), zeros);
                cx.isa().run(TransformPatch { pixels, step, index: i, to: patches });
            }
            for first in out.cols().step_by(COLUMNS) {
                let columns = first..out.cols().end.min(first + COLUMNS);
                let width = columns.len().next_multiple_of(PANEL);
                let step = stride(some.len() * width);
                self.multiply(cx, w, &columns, some.len(), patches, products);
                for (i, patch) in some.clone().enumerate() {
                    let products = &products[i * width..];
                    cx.isa().run(TransformSums { products, step, width, to: outputs });
                    let (line, column) = corner(patch);
                    for (j, sums) in outputs.chunks_exact(width).take(4).enumerate() {
                        let (line, column) = (line + j / 2, column + j % 2);
                        if line < lines.end && column < self.out_width {
                            let row = image * self.out.layout.rows + line * self.out_width + column;
                            let sums = Sums::row(sums, columns.len());
                            self.epilogue.store_columns(cx, &sums, row..row + 1, columns.clone(), Form::Numbers, out);
                        }
                    }
                }
            }
        }
    }

    /// The sixteen pixels that the outputs at `corner` and its three neighbours are made of.
    fn patch<'a>(&self, pixels: &Pixels<'a>, corner: (usize, usize), zeros: &'a [f32]) -> [&'a [f32]; PLACES] {
        let at = |i: usize, d: usize| (i + d) as isize - self.padding as isize;
        std::array::from_fn(|i| {
            let pixel = pixels.at(at(corner.0, i / 4), at(corner.1, i % 4));
            pixel.map_or(zeros, bytemuck::cast_slice)
        })
    }

    /// All places' products of `count` patches with columns `columns`.
    fn multiply(
        &self,
        cx: &Cx<'_>,
        w: &Matrix,
        columns: &Range<usize>,
        count: usize,
        patches: &[f32],
        products: &mut [f32],
    ) {
        let cin = self.x.cols();
        let (panels, width) = (w.rows() / PLACES / PANEL, columns.len().next_multiple_of(PANEL));
        let [from, to] = [cin, width].map(|cols| stride(count * cols));
        for place in 0..PLACES {
            let x = Mat::new(&patches[place * from..][..count * cin], Layout::dense(count, cin)).cast();
            let out = &mut products[place * to..][..count * width];
            let first = place * panels + columns.start / PANEL;
            let panels = first..first + width / PANEL;
            Product { x, rows: 0..count, w: w.words(), format: Format::F32, k: cin, panels, out }.run(cx.isa());
        }
    }
}

// Functions rather than closures, which nothing forces into the leaf's entry: outside of it the instructions are lost.

/// `B^T` times a column.
#[inline(always)]
fn differences<S: Simd>(s: S, [a, b, c, d]: [S::V; 4]) -> [S::V; 4] {
    [s.sub(a, c), s.add(b, c), s.sub(c, b), s.sub(b, d)]
}

/// `A^T` times a column.
#[inline(always)]
fn sums<S: Simd>(s: S, [a, b, c, d]: [S::V; 4]) -> [S::V; 2] {
    [s.add(s.add(a, b), c), s.sub(s.sub(b, c), d)]
}

/// `B^T d B` of one patch: place p to row `index` of the matrix from `p step` on.
struct TransformPatch<'a> {
    pixels: [&'a [f32]; PLACES],
    step: usize,
    index: usize,
    to: &'a mut [f32],
}

impl Job for TransformPatch<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let cin = self.pixels[0].len();
        along(s, cin, &mut self);
    }
}

impl Along for TransformPatch<'_> {
    #[inline(always)]
    fn vector<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize) {
        let cin = self.pixels[0].len();
        let mut d = [s.zero(); PLACES];
        for (d, pixel) in d.iter_mut().zip(self.pixels) {
            *d = s.load_at::<WHOLE>(&pixel[..cin], at);
        }
        for x in [0, 1, 2, 3] {
            [d[x], d[4 + x], d[8 + x], d[12 + x]] = differences(s, [d[x], d[4 + x], d[8 + x], d[12 + x]]);
        }
        for y in [0, 4, 8, 12] {
            [d[y], d[y + 1], d[y + 2], d[y + 3]] = differences(s, [d[y], d[y + 1], d[y + 2], d[y + 3]]);
        }
        for (place, d) in d.into_iter().enumerate() {
            let row = place * self.step + self.index * cin;
            s.store_at::<WHOLE>(&mut self.to[row..row + cin], at, d);
        }
    }
}

/// `A^T m A` of one patch: place p from `p step` on, `width` numbers each, to four rows of `width`.
struct TransformSums<'a> {
    products: &'a [f32],
    step: usize,
    width: usize,
    to: &'a mut [f32],
}

impl Job for TransformSums<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { products, step, width, to } = self;
        // Whole panels, so whole vectors.
        for at in (0..width).step_by(S::LANES) {
            let mut m = [s.zero(); PLACES];
            for (place, m) in m.iter_mut().enumerate() {
                *m = s.load_at::<true>(products, place * step + at);
            }
            let mut half = [[s.zero(); 4]; 2];
            for x in [0, 1, 2, 3] {
                [half[0][x], half[1][x]] = sums(s, [m[x], m[4 + x], m[8 + x], m[12 + x]]);
            }
            for (y, half) in half.into_iter().enumerate() {
                for (x, v) in sums(s, half).into_iter().enumerate() {
                    s.store_at::<true>(to, (2 * y + x) * width + at, v);
                }
            }
        }
    }
}
