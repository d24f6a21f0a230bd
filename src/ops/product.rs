//! A tile of a product with packed weights, and what is done to it on the way out: shared by all ops that multiply.

use super::Activation;
use crate::plan::{Cx, View};
use crate::simd::panels::{Prepare, Product, prepared_words};
use crate::simd::{Job, Simd};
use crate::tensor::packed::{Format, PANEL};
use crate::tensor::{Layout, Mat, Matrix, TileMut, Weight};
use std::ops::Range;

/// What happens to a product before it is stored: `out = (out if add) + gate * activation(product + bias)`.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// `[N]`, added first.
    pub bias: Option<Weight>,
    /// Applied then.
    pub activation: Activation,
    /// `[M, N]`, multiplied then.
    pub gate: Option<View>,
    /// Whether the result is added to what is there: the residual sum of a block.
    pub add: bool,
}

/// Whether the input of a product lies in the arena row by row or is gathered for each tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    Lying,
    Gathered,
}

/// The lengths of a worker's three parts of memory for a tile of `rows x cols`: sums, one gathered row, the input in
/// the form that the kernel reads.
pub(super) fn parts(w: &Matrix, input: Rows, rows: usize, cols: usize) -> [usize; 3] {
    let (k, words) = (w.cols(), prepared_words(w.format(), w.cols()));
    let (row, each) = match (input, words) {
        (Rows::Lying, words) => (0, words),
        (Rows::Gathered, 0) => (0, k),
        (Rows::Gathered, words) => (k, words),
    };
    // Columns that start inside a panel touch one more.
    let width = (cols.div_ceil(PANEL) + 1) * PANEL;
    [rows * width, row, rows * each]
}

/// Rows of a tile: its input stays in the second-level cache beside the weights; whole groups of the kernel's rows;
/// all tiles about the same.
pub(super) fn tile_rows(w: &Matrix, rows: usize) -> usize {
    const INPUT_WORDS: usize = 64 * 1024;
    const GROUP: usize = 6;
    let words = match prepared_words(w.format(), w.cols()) {
        0 => w.cols(),
        words => words,
    };
    let most = (INPUT_WORDS / words.max(1)).clamp(4 * GROUP, 16 * GROUP);
    rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(GROUP)
}

/// The input of a tile, in the form that the kernel reads.
pub(super) struct Input<'a> {
    words: Mat<'a, u32>,
    rows: Range<usize>,
}

impl<'a> Input<'a> {
    /// Rows `rows` of `x`; `memory` is the third of [`parts`].
    pub(super) fn lying(cx: &Cx<'_>, w: &Matrix, x: Mat<'a, f32>, rows: Range<usize>, memory: &'a mut [f32]) -> Self {
        match prepared_words(w.format(), w.cols()) {
            0 => Self { words: x.cast(), rows },
            words => {
                let memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
                for (to, i) in memory.chunks_exact_mut(words).zip(rows.clone()) {
                    cx.isa().run_dots(Prepare { format: w.format(), x: x.row(i), to });
                }
                Self { words: Mat::new(memory, Layout::dense(rows.len(), words)), rows: 0..rows.len() }
            }
        }
    }

    /// `count` rows that `write` writes in the form that the kernel reads; `memory` is the third of [`parts`].
    pub(super) fn ready(w: &Matrix, count: usize, memory: &'a mut [f32], write: impl Fn(usize, &mut [u32])) -> Self {
        let words = match prepared_words(w.format(), w.cols()) {
            0 => w.cols(),
            words => words,
        };
        let memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
        memory.chunks_exact_mut(words.max(1)).take(count).enumerate().for_each(|(i, to)| write(i, to));
        Self { words: Mat::new(memory, Layout::dense(count, words)), rows: 0..count }
    }

    /// Rows `rows` as `gather` writes them; `row` and `memory` are the second and third of [`parts`].
    pub(super) fn gathered(
        cx: &Cx<'_>,
        w: &Matrix,
        rows: Range<usize>,
        row: &mut [f32],
        memory: &'a mut [f32],
        gather: impl Fn(usize, &mut [f32]),
    ) -> Self {
        let words = match prepared_words(w.format(), w.cols()) {
            0 => {
                let each = memory.chunks_exact_mut(w.cols().max(1));
                each.zip(rows.clone()).for_each(|(to, i)| gather(i, to));
                w.cols()
            }
            words => {
                let each = bytemuck::cast_slice_mut::<f32, u32>(memory).chunks_exact_mut(words);
                for (to, i) in each.zip(rows.clone()) {
                    gather(i, row);
                    cx.isa().run_dots(Prepare { format: w.format(), x: row, to });
                }
                words
            }
        };
        let words = Mat::new(bytemuck::cast_slice(memory), Layout::dense(rows.len(), words));
        Self { words, rows: 0..rows.len() }
    }
}

/// The sums of a tile: dense rows of whole panels, of which the tile's columns start at `skip`.
pub(super) struct Sums<'a> {
    data: &'a [f32],
    width: usize,
    skip: usize,
    cols: usize,
}

impl<'a> Sums<'a> {
    /// The first `cols` of one row.
    pub(super) fn row(data: &'a [f32], cols: usize) -> Self {
        Self { data, width: data.len(), skip: 0, cols }
    }

    /// The tile's rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.data.chunks_exact(self.width).map(|row| &row[self.skip..self.skip + self.cols])
    }
}

/// `input w[cols]^T`; `memory` is the first of [`parts`].
pub(super) fn multiply<'a>(
    cx: &Cx<'_>,
    input: &Input<'_>,
    w: &Matrix,
    cols: Range<usize>,
    memory: &'a mut [f32],
) -> Sums<'a> {
    let (panels, rows) = (w.panels(cols.clone()), input.rows.clone());
    let width = panels.len() * PANEL;
    let out = &mut memory[..rows.len() * width];
    let (format, k) = (w.format(), w.cols());
    let product = Product { x: input.words, rows, w: w.words(), format, k, panels, out };
    match format {
        Format::F32 | Format::Wide => cx.isa().run(product),
        Format::Bf16 | Format::Q8 => cx.isa().run_dots(product),
    }
    Sums { data: &memory[..input.rows.len() * width], width, skip: w.skip(cols.start), cols: cols.len() }
}

impl Epilogue {
    /// Finishes the sums of `rows` (the tile's rows) into the tile.
    pub(super) fn store(&self, cx: &Cx<'_>, sums: &Sums<'_>, rows: Range<usize>, out: &mut TileMut<'_, f32>) {
        let cols = out.cols();
        self.store_columns(cx, sums, rows, cols, out);
    }

    /// Finishes the sums of `rows` and `cols` into their part of the tile.
    pub(super) fn store_columns(
        &self,
        cx: &Cx<'_>,
        sums: &Sums<'_>,
        rows: Range<usize>,
        cols: Range<usize>,
        out: &mut TileMut<'_, f32>,
    ) {
        let bias = self.bias.as_ref().map(|b| &b.f32()[cols.clone()]);
        let gate = self.gate.as_ref().map(|g| cx.mat::<f32>(g));
        let first = out.cols().start;
        let within = cols.start - first..cols.end - first;
        for (sums, i) in sums.rows().zip(rows) {
            let gate = gate.as_ref().map(|g| &g.row(i)[cols.clone()]);
            let out = &mut out.row(i)[within.clone()];
            cx.isa().run(Finish { sums, bias, activation: self.activation, gate, add: self.add, out });
        }
    }
}

struct Finish<'a> {
    sums: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    gate: Option<&'a [f32]>,
    add: bool,
    out: &'a mut [f32],
}

impl Job for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let n = self.out.len();
        self.sums = &self.sums[..n];
        [&mut self.bias, &mut self.gate].into_iter().flatten().for_each(|row| *row = &row[..n]);
        let mut at = 0;
        while at + S::LANES <= n {
            self.part::<S, true>(s, at);
            at += S::LANES;
        }
        if at < n {
            self.part::<S, false>(s, at);
        }
    }
}

impl Finish<'_> {
    #[inline(always)]
    fn part<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize) {
        let mut y = s.load_at::<WHOLE>(self.sums, at);
        if let Some(bias) = self.bias {
            y = s.add(y, s.load_at::<WHOLE>(bias, at));
        }
        y = self.activation.apply(s, y);
        if let Some(gate) = self.gate {
            y = s.mul(y, s.load_at::<WHOLE>(gate, at));
        }
        if self.add {
            y = s.add(s.load_at::<WHOLE>(self.out, at), y);
        }
        s.store_at::<WHOLE>(self.out, at, y);
    }
}
