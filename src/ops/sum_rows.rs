//! Sums of rows from buffers and tables: embeddings, positions, the assembly of sequences.
//! `out[i] = f(sum of sources' rows for i)`.
//!
//! out `[G, N, D]`; a source is a matrix with as many rows, or a table `[rows, D]` in any weight dtype and an index
//! for each row, or several with weights. Exact but for the rounding of products and sums, taken in the order of the
//! sources. FLOPs: G N D for each term after the first, and as many for each weight.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, pieces, small};
use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::simd::{Job, Simd};
use crate::tensor::{Elements, TileMut, Weight};

/// Which row of a table belongs to row `r` of group `g`.
#[derive(Debug, Clone, Copy)]
pub enum Index {
    /// `first + r`, the same in every group: positions.
    Range {
        /// Row for r = 0.
        first: usize,
    },
    /// `first + turn * step` for all.
    Turn {
        /// Row in turn 0.
        first: usize,
        /// More each turn.
        step: usize,
    },
    /// `first + g`: one row a group.
    Group {
        /// Row of group 0.
        first: usize,
    },
    /// What this matrix of i32 `[G, N, 1]` says, plus `offset`.
    From {
        /// The indices.
        ids: View,
        /// Added to each.
        offset: usize,
    },
}

/// One term of the sum.
#[derive(Debug, Clone)]
pub enum Source {
    /// `[G, N, D]`
    Rows(View),
    /// A row of the table.
    Table(Weight, Index),
    /// Of `rows` `[G, R, D]`, in each group the row that `ids` `[G, N, 1]` of i32 names.
    Gather {
        /// `[G, R, D]`
        rows: View,
        /// `[G, N, 1]`
        ids: View,
    },
    /// A weighted sum of J rows of the table, added up by itself. A term of weight 0 is left out, so a weight of 1 alone
    /// gives the bits of its row.
    Mix {
        /// `[rows, D]`
        table: Weight,
        /// `[G, N, J]` of i32: the rows.
        ids: View,
        /// `[G, N, J]`
        weights: View,
    },
}

/// The op.
#[derive(Debug, Clone)]
pub struct SumRows {
    /// The terms.
    pub sources: Vec<Source>,
    /// f
    pub activation: Activation,
    /// `[G, N, D]`
    pub out: View,
}

impl SumRows {
    /// The plain sum.
    pub fn new(sources: impl Into<Vec<Source>>, out: View) -> Self {
        Self { sources: sources.into(), activation: Activation::Identity, out }
    }

    /// A copy.
    pub fn copy(from: View, out: View) -> Self {
        Self::new([Source::Rows(from)], out)
    }
}

impl Kernel for SumRows {
    const NAME: &'static str = "sum_rows";

    fn out(&self) -> Out {
        Out::new(self.out, (16_384 / self.out.cols().max(1)).max(1), self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.out.count() * self.out.cols();
        let mixed = |s: &Source| if let Source::Mix { ids, .. } = s { ids.cols() } else { 0 };
        let weights: usize = self.sources.iter().map(mixed).sum();
        let terms: usize = self.sources.iter().map(|s| mixed(s).max(1)).sum();
        Cost { bytes: words(n * (terms + 1)), flops: (n * (terms - 1 + weights)) as u64 }
    }

    fn heap_bytes(&self) -> usize {
        self.sources.capacity() * size_of::<Source>()
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let rows_a_group = self.out.layout.rows;
        for (nth, source) in self.sources.iter().enumerate() {
            match source {
                Source::Rows(view) => {
                    let from = cx.mat::<f32>(view);
                    out.rows().for_each(|i| put(out.row(i), from.row(i).iter().copied(), nth > 0));
                }
                Source::Gather { rows, ids } => {
                    let (from, ids) = (cx.mat::<f32>(rows), cx.mat::<i32>(ids));
                    for i in out.rows() {
                        let row = i / rows_a_group * rows.layout.rows + ids.row(i)[0] as usize;
                        put(out.row(i), from.row(row).iter().copied(), nth > 0);
                    }
                }
                Source::Mix { table, ids, weights } => {
                    let (ids, weights, d) = (cx.mat::<i32>(ids), cx.mat::<f32>(weights), table.cols());
                    for i in out.rows() {
                        let pairs = ids.row(i).iter().zip(weights.row(i)).filter(|(_, weight)| **weight != 0.0);
                        let number = |c: usize| {
                            let term = |(&id, &weight): (&i32, &f32)| weight * table.number(id as usize * d + c);
                            pairs.clone().map(term).reduce(|sum, term| sum + term).unwrap_or(0.0)
                        };
                        put(out.row(i), (0..d).map(number), nth > 0);
                    }
                }
                Source::Table(table, index) => {
                    let ids = if let Index::From { ids, .. } = index { Some(cx.mat::<i32>(ids)) } else { None };
                    for i in out.rows() {
                        let row = match index {
                            Index::Range { first } => first + i % rows_a_group,
                            Index::Turn { first, step } => first + cx.turn() * step,
                            Index::Group { first } => first + i / rows_a_group,
                            Index::From { offset, .. } => ids.map_or(0, |ids| ids.row(i)[0]) as usize + offset,
                        };
                        let range = row * table.cols()..(row + 1) * table.cols();
                        match table.elements() {
                            Elements::F32(t) => put(out.row(i), t[range].iter().copied(), nth > 0),
                            Elements::F16(t) => put(out.row(i), t[range].iter().map(|x| x.to_f32()), nth > 0),
                            Elements::BF16(t) => put(out.row(i), t[range].iter().map(|x| x.to_f32()), nth > 0),
                        }
                    }
                }
            }
        }
        if self.activation != Activation::Identity {
            out.rows().for_each(|i| cx.isa().run(Apply(self.activation, out.row(i))));
        }
    }
}

#[inline(always)]
fn put(out: &mut [f32], from: impl ExactSizeIterator<Item = f32>, add: bool) {
    assert_eq!(out.len(), from.len());
    let pairs = out.iter_mut().zip(from);
    if add { pairs.for_each(|(out, x)| *out += x) } else { pairs.for_each(|(out, x)| *out = x) }
}

struct Apply<'a>(Activation, &'a mut [f32]);

impl Job for Apply<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.1.chunks_mut(S::LANES) {
            let y = self.0.apply(s, s.load_up_to(x));
            s.store_up_to(x, y);
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for SumRows {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let mut sources = [abi::Source::NONE; 8];
        assert!(self.sources.len() <= sources.len(), "{} sources", self.sources.len());
        for (to_source, source) in sources.iter_mut().zip(&self.sources) {
            *to_source = source.on(to)?;
        }
        let p = abi::SumRows {
            turn: to.turn(),
            out: to.view(&self.out)?,
            count: self.sources.len() as i32,
            activation: self.activation as i32,
            sources,
        };
        to.call("sum_rows", "sum_rows", pieces(&self.out), p)
    }
}

/// The number that the kernel knows the table's dtype by.
#[cfg(feature = "cuda")]
fn table_type(table: &Weight) -> i32 {
    match table.elements() {
        Elements::F32(_) => 0,
        Elements::F16(_) => 1,
        Elements::BF16(_) => 2,
    }
}

#[cfg(feature = "cuda")]
impl Source {
    /// As the kernel takes it.
    fn on(&self, to: &Launcher<'_>) -> Result<abi::Source> {
        const NONE: abi::Source = abi::Source::NONE;
        let row = |n: usize| small("a row of a table", n);
        Ok(match self {
            Self::Rows(rows) => abi::Source { rows: to.view(rows)?, kind: 0, ..NONE },
            Self::Gather { rows, ids } => abi::Source { rows: to.view(rows)?, ids: to.view(ids)?, kind: 5, ..NONE },
            Self::Mix { table, ids, weights } => {
                let (rows, ids) = (to.view(weights)?, to.view(ids)?);
                abi::Source { rows, ids, table: to.weight(table)?, table_type: table_type(table), kind: 6, ..NONE }
            }
            Self::Table(table, index) => {
                let source = abi::Source { table: to.weight(table)?, table_type: table_type(table), ..NONE };
                match index {
                    Index::Range { first } => abi::Source { kind: 1, first: row(*first)?, ..source },
                    Index::Turn { first, step } => {
                        abi::Source { kind: 2, first: row(*first)?, step: row(*step)?, ..source }
                    }
                    Index::Group { first } => abi::Source { kind: 3, first: row(*first)?, ..source },
                    Index::From { ids, offset } => {
                        abi::Source { kind: 4, ids: to.view(ids)?, first: row(*offset)?, ..source }
                    }
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers, weight_as};
    use crate::tensor::DType;

    #[test]
    fn rows_tables_and_broadcasts_add_up() {
        let (groups, rows, d) = (2, 3, 21);
        let mut lab = Lab::new();
        let (x, y) = (numbers(groups * rows * d, 1), numbers(rows * d, 2));
        let table = weight_as(DType::BF16, &[7, d], &numbers(7 * d, 3));
        let (t, ids, picks) = (table.to_f32(), [6, 0, 3, 3, 1, 5], [2, 0, 2, 1, 1, 0]);
        let mut expected = Vec::new();
        for i in 0..groups * rows {
            for c in 0..d {
                let row = |n: usize| t[n * d + c] as f64;
                let sum = x[i * d + c] as f64
                    + y[i % rows * d + c] as f64
                    + row(ids[i] as usize)
                    + row(2 + i % rows)
                    + row(4)
                    + row(5 + i / rows);
                let sum = sum + x[(i / rows * rows + picks[i] as usize) * d + c] as f64;
                expected.push(sum / (1.0 + (-sum).exp()));
            }
        }
        let (x, y) = (lab.input(groups * rows, d, &x).grouped(groups), lab.input(rows, d, &y).repeated(groups));
        let [ids, picks] = [ids, picks].map(|v| lab.input_i32(1, &v).grouped(groups));
        let out = lab.output(groups * rows, d).grouped(groups);
        let op = SumRows {
            sources: vec![
                Source::Rows(x),
                Source::Rows(y),
                Source::Gather { rows: x, ids: picks },
                Source::Table(table.clone(), Index::From { ids, offset: 0 }),
                Source::Table(table.clone(), Index::Range { first: 2 }),
                Source::Table(table.clone(), Index::Turn { first: 4, step: 9 }),
                Source::Table(table, Index::Group { first: 5 }),
            ],
            activation: Activation::Silu,
            out,
        };
        for (isa, y) in lab.run(op) {
            close(&y, &expected, 2e-6, isa).unwrap();
        }
    }

    #[test]
    fn mixed_rows_are_weighted_sums_and_one_alone_is_itself() {
        let (groups, rows, d, classes) = (2, 3, 37, 3);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let table = weight_as(dtype, &[7, d], &numbers(7 * d, 3));
            let (t, x) = (table.to_f32(), numbers(groups * rows * d, 1));
            let ids: [i32; 18] = [6, 0, 2, 3, 3, 1, 5, 0, 0, 1, 6, 4, 2, 1, 0, 4, 4, 4];
            let mut weights = numbers(18, 5).iter().map(|w| w.abs() + 0.01).collect::<Vec<f32>>();
            // One alone, first and in between; the others' numbers do not count.
            weights[6..9].copy_from_slice(&[1.0, 0.0, 0.0]);
            weights[9..12].copy_from_slice(&[0.0, 1.0, 0.0]);
            let sum = |i: usize, c: usize| {
                let term = |j: usize| weights[i * classes + j] as f64 * t[ids[i * classes + j] as usize * d + c] as f64;
                (0..classes).map(term).sum::<f64>()
            };
            let pairs = || (0..groups * rows).flat_map(|i| (0..d).map(move |c| (i, c)));
            let mixed: Vec<f64> = pairs().map(|(i, c)| sum(i, c)).collect();
            let added: Vec<f64> = pairs().map(|(i, c)| x[i * d + c] as f64 + sum(i, c)).collect();
            for added_to in [false, true] {
                let mut lab = Lab::new();
                let x = lab.input(groups * rows, d, &x).grouped(groups);
                let weights = lab.input(groups * rows, classes, &weights).grouped(groups);
                let ids = lab.input_i32(classes, &ids).grouped(groups);
                let out = lab.output(groups * rows, d).grouped(groups);
                let mix = Source::Mix { table: table.clone(), ids, weights };
                let sources = if added_to { vec![Source::Rows(x), mix] } else { vec![mix] };
                for (isa, y) in lab.run(SumRows::new(sources, out)) {
                    for (i, row) in [(2, 5), (3, 6)].into_iter().filter(|_| !added_to) {
                        assert_eq!(y[i * d..(i + 1) * d], t[row * d..(row + 1) * d], "{isa}");
                    }
                    close(&y, if added_to { &added } else { &mixed }, 5e-7, isa).unwrap();
                }
            }
        }
    }
}
