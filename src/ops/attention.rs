//! Attention: `out = softmax(scale q k^T) v`, head by head.
//!
//! q `[G, N, H d]`, k and v `[G, L, H d]` of which the first `keys` rows count, out `[G, N, H d]`; the heads lie
//! side by side in a row, so q, k and v may be columns of one product. Scores of a tile stay in a worker's memory.
//! Error about 1e-6 of the largest |v|. FLOPs: 4 G N L H d.

use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::dot::{Product, WeightRows};
use crate::simd::{Job, Simd, math};
use crate::tensor::{Layout, Mat, TileMut};
use std::ops::Range;

/// How many keys count: `first` in turn 0, `step` more each turn.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Keys in turn 0.
    pub first: usize,
    /// More each turn: 1 where a cache grows by a place.
    pub step: usize,
}

/// The op.
#[derive(Debug, Clone)]
pub struct Attention {
    /// `[G, N, H d]`
    pub q: View,
    /// `[G, L, H d]`
    pub k: View,
    /// `[G, L, H d]`
    pub v: View,
    /// Rows of `k` and `v` that count.
    pub keys: Keys,
    /// H
    pub heads: usize,
    /// `[G, N, H d]`
    pub out: View,
}

/// Queries a tile.
const QUERIES: usize = 16;

impl Attention {
    fn head_size(&self) -> usize {
        self.out.cols() / self.heads
    }
}

impl Kernel for Attention {
    const NAME: &'static str = "attention";

    fn out(&self) -> Out {
        Out::new(self.out, QUERIES, self.head_size())
    }

    fn cost(&self) -> Cost {
        let keys = self.keys.first;
        let (g, n, d) = (self.q.layout.groups, self.q.layout.rows, self.q.cols());
        Cost { bytes: words(2 * g * (n + keys) * d), flops: 4 * (g * n * keys * d) as u64 }
    }

    fn worker_words(&self) -> usize {
        WorkerMemory::words([QUERIES * self.k.layout.rows])
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let keys = self.keys.first + cx.turn() * self.keys.step;
        let cols = out.cols();
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|m| cx.mat::<f32>(m).columns(cols.clone()));
        let scale = 1.0 / (cols.len() as f32).sqrt();
        let mut memory = cx.worker_memory();
        let [scores] = memory.split([QUERIES * keys]);
        for (group, rows) in self.q.layout.by_group(out.rows()) {
            let first = group * self.q.layout.rows;
            let rows = first + rows.start..first + rows.end;
            let scores = &mut scores[..rows.len() * keys];
            cx.isa().run(Product {
                a: q,
                rows: rows.clone(),
                w: WeightRows::new(k.group(group), k.layout().row_stride),
                cols: 0..keys,
                out: scores,
                wide: &mut [],
            });
            cx.isa().run(Softmax { scores, keys, scale });
            let v = Mat::new(v.group(group), Layout { groups: 1, rows: keys, ..v.layout() });
            cx.isa().run(Weigh { scores, v, rows, out: &mut out });
        }
    }
}

/// `softmax(scale x)` of each row of `keys`, in place.
struct Softmax<'a> {
    scores: &'a mut [f32],
    keys: usize,
    scale: f32,
}

impl Job for Softmax<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for row in self.scores.chunks_mut(self.keys) {
            let mut top = s.splat(f32::NEG_INFINITY);
            let mut whole = row.chunks_exact(S::LANES);
            for x in whole.by_ref() {
                top = s.max(top, s.load(x));
            }
            let top = whole.remainder().iter().copied().fold(s.largest(top), f32::max);
            let (scale, top) = (s.splat(self.scale), s.splat(-top * self.scale));
            let mut sum = s.zero();
            let mut tail = 0.0;
            for x in row.chunks_mut(S::LANES) {
                let e = math::exp(s, s.fma(s.load_up_to(x), scale, top));
                s.store_up_to(x, e);
                if x.len() == S::LANES {
                    sum = s.add(sum, e);
                } else {
                    tail = x.iter().sum();
                }
            }
            let norm = s.splat(1.0 / (s.sum(sum) + tail));
            for x in row.chunks_mut(S::LANES) {
                let y = s.mul(s.load_up_to(x), norm);
                s.store_up_to(x, y);
            }
        }
    }
}

/// `out[i] = sum over j of scores[i][j] v[j]`.
struct Weigh<'a, 'b, 'c> {
    scores: &'a [f32],
    v: Mat<'a, f32>,
    rows: Range<usize>,
    out: &'b mut TileMut<'c, f32>,
}

impl Job for Weigh<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { scores, v, rows, out } = self;
        let (keys, d) = (v.layout().rows, v.layout().cols);
        let mut i = 0;
        while i < rows.len() {
            let four = i + 4 <= rows.len();
            let mut col = 0;
            while col < d {
                let width = (d - col).min(2 * S::LANES);
                if four {
                    weigh::<S, 4>(s, &scores[i * keys..], v, rows.start + i, col, width, out);
                } else {
                    weigh::<S, 1>(s, &scores[i * keys..], v, rows.start + i, col, width, out);
                }
                col += width;
            }
            i += if four { 4 } else { 1 };
        }
    }
}

/// `R` rows of the result from `row` on, `width <= 2 LANES` columns from `col` on.
#[inline(always)]
fn weigh<S: Simd, const R: usize>(
    s: S,
    scores: &[f32],
    v: Mat<'_, f32>,
    row: usize,
    col: usize,
    width: usize,
    out: &mut TileMut<'_, f32>,
) {
    let keys = v.layout().rows;
    let scores: [&[f32]; R] = std::array::from_fn(|r| &scores[r * keys..(r + 1) * keys]);
    let split = width.min(S::LANES);
    let mut acc = [[s.zero(); 2]; R];
    for j in 0..keys {
        let (left, right) = v.row(j)[col..col + width].split_at(split);
        let (left, right) = (s.load_up_to(left), s.load_up_to(right));
        for (acc, scores) in acc.iter_mut().zip(scores) {
            let p = s.splat(scores[j]);
            *acc = [s.fma(p, left, acc[0]), s.fma(p, right, acc[1])];
        }
    }
    for (r, acc) in acc.into_iter().enumerate() {
        let (left, right) = out.row(row + r)[col..col + width].split_at_mut(split);
        s.store_up_to(left, acc[0]);
        s.store_up_to(right, acc[1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, numbers};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn agrees_with_the_naive_one(
            groups in 1usize..4, queries in 1usize..40, keys in 1usize..60, spare in 0usize..5, heads in 1usize..4, d in 1usize..70,
        ) {
            let mut lab = Lab::new();
            let (width, len) = (heads * d, keys + spare);
            let q: Vec<f32> = numbers(groups * queries * width, 1).iter().map(|x| 4.0 * x).collect();
            let kv = numbers(groups * len * 2 * width, 2);
            let mut expected = vec![0.0f64; groups * queries * width];
            for g in 0..groups {
                for i in 0..queries {
                    for h in 0..heads {
                        let at = (g * queries + i) * width + h * d;
                        let key = |j: usize| (g * len + j) * 2 * width + h * d;
                        let dot = |j: usize| (0..d).map(|c| q[at + c] as f64 * kv[key(j) + c] as f64).sum::<f64>();
                        let e: Vec<f64> = (0..keys).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
                        let norm: f64 = e.iter().sum();
                        for c in 0..d {
                            let y: f64 = (0..keys).map(|j| e[j] * kv[key(j) + width + c] as f64).sum();
                            expected[at + c] = y / norm;
                        }
                    }
                }
            }
            let q = lab.input(groups * queries, width, &q).grouped(groups);
            let kv = lab.input(groups * len, 2 * width, &kv).grouped(groups);
            let out = lab.output(groups * queries, width).grouped(groups);
            let (k, v) = (kv.columns(0..width), kv.columns(width..2 * width));
            let op = Attention { q, k, v, keys: Keys { first: keys, step: 0 }, heads, out };
            for (isa, y) in lab.run(op) {
                // Scores reach 4 sqrt(d) and carry d roundings each; the exponential turns absolute into relative
                // error.
                close(&y, &expected, 2e-6 * (d as f64).sqrt(), isa)?;
            }
        }
    }
}
