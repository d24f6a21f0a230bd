//! A convolution as a product of gathered neighbourhoods with the filters.

use super::{Conv, Pixels};
use crate::ops::product::{Input, Rows, TILE_ROWS, multiply, parts, tile_rows};
use crate::plan::Cx;
use crate::simd::panels::ROWS;
use crate::tensor::{Form, Matrix, TileMut};
use std::ops::Range;

/// Words of the neighbourhoods that are multiplied at once: they were written just before, into the second-level cache.
const GATHERED_WORDS: usize = 64 * 1024;

impl Conv {
    /// Output pixels multiplied at once.
    fn block(&self, w: &Matrix) -> usize {
        let words = w.format().form().words(w.cols());
        tile_rows(self.tile_lines() * self.out_width, (GATHERED_WORDS / words.max(1)).clamp(4 * ROWS, TILE_ROWS))
    }

    /// The parts of a worker's memory behind the copy of the pixels.
    pub(super) fn direct_parts(&self, w: &Matrix) -> [usize; 4] {
        parts(w, Rows::Gathered, self.block(w), self.tile_columns())
    }

    /// Computes lines `lines` of image `image` from lines `input` of `x`.
    pub(super) fn direct(
        &self,
        cx: &Cx<'_>,
        w: &Matrix,
        image: usize,
        lines: Range<usize>,
        input: Range<usize>,
        out: &mut TileMut<'_, f32>,
    ) {
        let mut memory = cx.worker_memory();
        let [sums, row, gathered, spread] = self.direct_parts(w);
        let copy = self.copy_words(self.tile_lines());
        let [copy, sums, row, gathered, spread] = memory.split([copy, sums, row, gathered, spread]);
        let pixels = self.pixels(cx, image, input, copy);
        let first = image * self.out.layout.rows;
        let all = lines.start * self.out_width..lines.end * self.out_width;
        // The pixels are in the kernel's form already, or are numbers that a row of them is made of.
        let ready = self.pixel_words().0 < self.x.cols() || w.format().form() == Form::Numbers;
        for start in all.clone().step_by(self.block(w)) {
            let block = start..all.end.min(start + self.block(w));
            let input = if ready {
                Input::ready(w, block.len(), gathered, |i, to| self.gather(&pixels, start + i, to))
            } else {
                Input::gathered(cx, w, 0..block.len(), row, gathered, |i, to| {
                    self.gather(&pixels, start + i, bytemuck::cast_slice_mut(to));
                })
            };
            let sums = multiply(cx, &input, w, out.cols(), [sums, spread]);
            self.epilogue.store(cx, &sums, first + block.start..first + block.end, out);
        }
    }

    /// The neighbourhood of output pixel `pixel`: k k pixels of the input, zeros outside of the image.
    fn gather(&self, pixels: &Pixels<'_>, pixel: usize, to: &mut [u32]) {
        let at = |i: usize| (i * self.stride) as isize - self.padding as isize;
        let (top, left) = (at(pixel / self.out_width), at(pixel % self.out_width));
        let words = to.len() / (self.kernel * self.kernel);
        for (tap, to) in to.chunks_exact_mut(words.max(1)).enumerate() {
            match pixels.at(top + (tap / self.kernel) as isize, left + (tap % self.kernel) as isize) {
                Some(pixel) => to.copy_from_slice(pixel),
                None => to.fill(0),
            }
        }
    }
}
