//! Sums of rows from buffers and tables: embeddings, positions, the assembly of sequences.
//! `out[i] = f(sum of sources' rows for i)`.
//!
//! out `[G, N, D]`; a source is a matrix with as many rows, or a table `[rows, D]` in any weight dtype and an index
//! for each row. Exact but for the rounding of the sums, taken in the order of the sources. FLOPs: G N D for each
//! source after the first.

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

    fn cost(&self) -> Cost {
        let n = self.out.count() * self.out.cols();
        Cost { bytes: words(n * (self.sources.len() + 1)), flops: (n * (self.sources.len() - 1)) as u64 }
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

#[cfg(feature = "cuda")]
impl Source {
    /// As the kernel takes it.
    fn on(&self, to: &Launcher<'_>) -> Result<abi::Source> {
        const NONE: abi::Source = abi::Source::NONE;
        let row = |n: usize| small("a row of a table", n);
        Ok(match self {
            Self::Rows(rows) => abi::Source { rows: to.view(rows)?, kind: 0, ..NONE },
            Self::Gather { rows, ids } => abi::Source { rows: to.view(rows)?, ids: to.view(ids)?, kind: 5, ..NONE },
            Self::Table(table, index) => {
                let table_type = match table.elements() {
                    Elements::F32(_) => 0,
                    Elements::F16(_) => 1,
                    Elements::BF16(_) => 2,
                };
                let source = abi::Source { table: to.weight(table)?, table_type, ..NONE };
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
}
