//! A tile of a product with packed weights, and what is done to it on the way out: shared by all ops that multiply.

use super::Activation;
#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi};
use crate::plan::{Cx, View};
use crate::simd::panels::{Prepare, Product, ROWS, Spread, prepare};
use crate::simd::{Along, Job, Simd, along};
use crate::tensor::packed::{BLOCK, PANEL};
use crate::tensor::{Form, Layout, Mat, Matrix, TileMut, Weight};
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

/// A matrix in the arena and the form of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    /// `[M, words of a row]`
    pub view: View,
    /// Of its rows.
    pub form: Form,
}

impl From<View> for Operand {
    fn from(view: View) -> Self {
        Self { view, form: Form::Numbers }
    }
}

impl Operand {
    /// Rows `rows` of each group.
    pub fn rows(self, rows: Range<usize>) -> Self {
        Self { view: self.view.rows(rows), ..self }
    }

    /// One group for each of `groups` equal runs of rows, as [`View::grouped`].
    pub fn grouped(self, groups: usize) -> Self {
        Self { view: self.view.grouped(groups), ..self }
    }

    /// Whether its rows are of `k` numbers.
    pub(super) fn holds(&self, k: usize) -> bool {
        self.view.cols() == self.form.words(k)
    }

    /// The numbers, of `all`, that the words `words` of a row are.
    pub(super) fn numbers(&self, words: &Range<usize>, all: usize) -> Range<usize> {
        let (numbers, unit) = self.form.unit();
        words.start / unit * numbers..all.min(words.end / unit * numbers)
    }
}

/// Where a product's input comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// It lies in the arena in the form that the kernel reads.
    Ready,
    /// It lies in the arena as numbers.
    Lying,
    /// It is gathered for each tile.
    Gathered,
}

impl Rows {
    /// How `x` lies for a product with `w`.
    pub(super) fn of(x: &Operand, w: &Matrix) -> Self {
        if x.form == w.format().form() { Self::Ready } else { Self::Lying }
    }
}

/// The lengths of a worker's four parts of memory for a tile of `rows x cols`: sums, one gathered row, the input in
/// its form, and that taken apart, which only some processors touch.
pub(super) fn parts(w: &Matrix, input: Rows, rows: usize, cols: usize) -> [usize; 4] {
    let (k, form) = (w.cols(), w.format().form());
    let (row, each) = match input {
        Rows::Ready => (0, 0),
        Rows::Lying => (0, form.words(k)),
        Rows::Gathered if form == Form::Numbers => (0, k),
        Rows::Gathered => (k, form.words(k)),
    };
    // Columns that start inside a panel touch one more.
    let width = (cols.div_ceil(PANEL) + 1) * PANEL;
    [rows * width, row, rows * each, rows * form.spread_words(k)]
}

/// Rows of an op's tile at most: the more there are, the less often weights come from memory, and the fewer tiles for threads to share.
pub(super) const TILE_ROWS: usize = 16 * ROWS;

/// Rows of a tile, of `rows` and at most `most`: whole tiles of the kernel, all about the same.
pub(super) fn tile_rows(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(ROWS)
}

/// The input of a tile, in the form that the kernel reads.
pub(super) struct Input<'a> {
    words: Mat<'a, u32>,
    rows: Range<usize>,
}

impl<'a> Input<'a> {
    /// Rows `rows` of `x`; `memory` is the third of [`parts`].
    pub(super) fn of(cx: &Cx<'a>, w: &Matrix, x: &Operand, rows: Range<usize>, memory: &'a mut [f32]) -> Self {
        if Rows::of(x, w) == Rows::Ready {
            return Self { words: cx.mat(&x.view), rows };
        }
        let (form, x) = (w.format().form(), cx.mat::<f32>(&x.view));
        let words = form.words(w.cols());
        let memory: &mut [u32] = bytemuck::cast_slice_mut(memory);
        for (to, i) in memory.chunks_exact_mut(words.max(1)).zip(rows.clone()) {
            Prepare { form, x: x.row(i), to }.run(cx.isa());
        }
        Self { words: Mat::new(memory, Layout::dense(rows.len(), words)), rows: 0..rows.len() }
    }

    /// `count` rows that `write` writes in the form that the kernel reads; `memory` is the third of [`parts`].
    pub(super) fn ready(w: &Matrix, count: usize, memory: &'a mut [f32], write: impl Fn(usize, &mut [u32])) -> Self {
        let words = w.format().form().words(w.cols());
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
        let form = w.format().form();
        let words = form.words(w.cols());
        if form == Form::Numbers {
            memory.chunks_exact_mut(words.max(1)).zip(rows.clone()).for_each(|(to, i)| gather(i, to));
        } else {
            let each = bytemuck::cast_slice_mut::<f32, u32>(memory).chunks_exact_mut(words.max(1));
            for (to, i) in each.zip(rows.clone()) {
                gather(i, row);
                Prepare { form, x: row, to }.run(cx.isa());
            }
        }
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

/// `input w[cols]^T`; `sums` and `spread` are the first and the last of [`parts`].
pub(super) fn multiply<'a>(
    cx: &Cx<'_>,
    input: &Input<'_>,
    w: &Matrix,
    cols: Range<usize>,
    [sums, spread]: [&'a mut [f32]; 2],
) -> Sums<'a> {
    let panels = w.panels(cols.clone());
    let width = panels.len() * PANEL;
    let out = &mut sums[..input.rows.len() * width];
    let (format, k) = (w.format(), w.cols());
    let (mut x, mut rows) = (input.words, input.rows.clone());
    let (isa, form) = (cx.isa(), format.form());
    if isa.spreads(form) {
        let words = form.spread_words(k);
        let spread: &mut [u32] = bytemuck::cast_slice_mut(spread);
        for (to, i) in spread.chunks_exact_mut(words.max(1)).zip(rows.clone()) {
            isa.run(Spread { form, x: x.row(i), to });
        }
        rows = 0..rows.len();
        x = Mat::new(spread, Layout::dense(rows.len(), words));
    }
    Product { x, rows, w: w.words(), format, k, panels, out }.run(isa);
    Sums { data: &sums[..input.rows.len() * width], width, skip: w.skip(cols.start), cols: cols.len() }
}

impl Epilogue {
    /// Finishes the sums of `rows` (the tile's rows) into the tile.
    pub(super) fn store(&self, cx: &Cx<'_>, sums: &Sums<'_>, rows: Range<usize>, out: &mut TileMut<'_, f32>) {
        let cols = out.cols();
        self.store_columns(cx, sums, rows, cols, Form::Numbers, out);
    }

    /// Finishes the sums of `rows` and `cols` into their part of the tile, whose rows are in that form.
    pub(super) fn store_columns(
        &self,
        cx: &Cx<'_>,
        sums: &Sums<'_>,
        rows: Range<usize>,
        cols: Range<usize>,
        form: Form,
        out: &mut TileMut<'_, f32>,
    ) {
        let bias = self.bias.as_ref().map(|b| &b.f32()[cols.clone()]);
        let gate = self.gate.as_ref().map(|g| cx.mat::<f32>(g).columns(cols.clone()));
        let (numbers, words) = form.unit();
        let first = cols.start / numbers * words - out.cols().start;
        let place = first..first + form.words(cols.len());
        let finish = Finish { sums, rows, bias, gate, activation: self.activation, add: self.add, form, place, out };
        cx.isa().run_writing(form, finish);
    }
}

/// What follows the sums, for all rows of a tile.
struct Finish<'a, 'b> {
    sums: &'a Sums<'a>,
    /// The rows of the result that the sums are of.
    rows: Range<usize>,
    bias: Option<&'a [f32]>,
    /// The columns of the sums.
    gate: Option<Mat<'a, f32>>,
    activation: Activation,
    add: bool,
    form: Form,
    /// Words of the tile's rows.
    place: Range<usize>,
    out: &'a mut TileMut<'b, f32>,
}

impl Job for Finish<'_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { sums, rows, bias, gate, activation, add, form, place, out } = self;
        for (sums, i) in sums.rows().zip(rows) {
            let out = &mut out.row(i)[place.clone()];
            let gate = gate.as_ref().map(|g| g.row(i));
            if form == Form::Numbers {
                finish(s, Line { sums, bias, gate, activation, add, rounds: false, out });
                continue;
            }
            // A few vectors at a time, on the stack.
            let mut some = [0.0; BLOCK];
            let words = bytemuck::cast_slice_mut::<f32, u32>(out).chunks_mut(form.words(BLOCK));
            for (k, (sums, words)) in sums.chunks(BLOCK).zip(words).enumerate() {
                let part = k * BLOCK..k * BLOCK + sums.len();
                let [bias, gate] = [bias, gate].map(|row| row.map(|row| &row[part.clone()]));
                let out = &mut some[..sums.len()];
                finish(s, Line { sums, bias, gate, activation, add: false, rounds: true, out });
                prepare(s, form, &some[..sums.len()], words);
            }
        }
    }
}

/// One row of [`Finish`], or some of it.
struct Line<'a> {
    sums: &'a [f32],
    bias: Option<&'a [f32]>,
    gate: Option<&'a [f32]>,
    activation: Activation,
    add: bool,
    /// Whether the result is on its way to a coarser form.
    rounds: bool,
    out: &'a mut [f32],
}

#[inline(always)]
fn finish<S: Simd>(s: S, mut line: Line<'_>) {
    let n = line.out.len();
    line.sums = &line.sums[..n];
    [&mut line.bias, &mut line.gate].into_iter().flatten().for_each(|row| *row = &row[..n]);
    along(s, n, &mut line);
}

impl Along for Line<'_> {
    #[inline(always)]
    fn vector<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize) {
        let mut y = s.load_at::<WHOLE>(self.sums, at);
        if let Some(bias) = self.bias {
            y = s.add(y, s.load_at::<WHOLE>(bias, at));
        }
        y = if self.rounds { self.activation.apply_to_round(s, y) } else { self.activation.apply(s, y) };
        if let Some(gate) = self.gate {
            y = s.mul(y, s.load_at::<WHOLE>(gate, at));
        }
        if self.add {
            y = s.add(s.load_at::<WHOLE>(self.out, at), y);
        }
        s.store_at::<WHOLE>(self.out, at, y);
    }
}

#[cfg(feature = "cuda")]
impl Epilogue {
    /// As kernels take it, for a result in that form.
    pub(super) fn on(&self, to: &Launcher<'_>, form: Form) -> Result<abi::Epilogue> {
        Ok(abi::Epilogue {
            bias: to.maybe_weight(self.bias.as_ref())?,
            gate: to.maybe(self.gate.as_ref())?,
            activation: self.activation as i32,
            add: i32::from(self.add),
            form: to.form(form)?,
            unused: 0,
        })
    }
}
