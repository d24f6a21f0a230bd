//! Attention: `out = softmax(scale q k^T) v`, head by head, with `scale = 1 / sqrt(d)`.
//!
//! q `[G, N, H d]`, k and v `[G, L, H d]` of which the first `keys` rows count, at least one; out `[G, N, H d]`. The
//! heads lie side by side in a row, so q, k and v may be columns of one product. FLOPs: 4 G N keys H d; where
//! each turn has more keys, the mean turn's.
//!
//! Two ways to compute it, chosen by N alone: [`Many`] packs keys and values into a worker's memory and multiplies in
//! register tiles, f32 or bf16 ([`Attention::narrow`]); [`Few`] reads them where they lie, once. Either way a row of the result is the same sums in the same
//! order whatever its company: a score adds up along the head (many) or lane by lane along the head (few), a result
//! along the keys.
//!
//! Accuracy: a score carries some roundings of `sqrt(d)` terms, the exponential (2.5e-7 relative) turns the absolute
//! error of a score into a relative one, and weights and result are summed in `f32`. The tests hold the error below
//! `5e-7 sqrt(d)` of the largest |v|, for scores up to `4 sqrt(d)`.
//!
//! Narrow products round q, k, v and the weights to bf16, the nearest; sums, scores and exponentials stay f32, and the
//! weights are divided by the sum of the rounded ones. Beside the exact result of the rounded q, k and v that costs
//! `(2^-8 + 7.6e-5) m` at most, m the weighted mean of how far the values lie from the result: the tests hold the error
//! below that and the bound above. A leaf without an instruction for pairs of bf16 multiplies the same rounded numbers
//! in f32.

mod few;
mod many;
mod numbers;
mod softmax;

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, small};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::tensor::{Layout, Mat, TileMut};
use few::Few;
use many::{Many, Packed};
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
    /// Whether the products of many queries are of bf16 numbers rather than f32: in models whose matrices are bf16 or
    /// 8-bit. Those of few are f32 in any case.
    pub narrow: bool,
    /// `[G, N, H d]`
    pub out: View,
}

/// From this many queries a group on, packing keys and values pays.
const MANY: usize = 5;

/// Multiply-adds of a chunk of many queries, about: 100 microseconds of a core. A chunk packs keys and values for
/// itself, so it has [`CHUNK_QUERIES`] even where that is more.
const CHUNK_WORK: usize = 1 << 22;

/// Queries a chunk, at least and at most.
const CHUNK_QUERIES: (usize, usize) = (48, 192);

/// Smaller heads share a chunk up to about this many multiply-adds.
const SHARED_WORK: usize = 1 << 19;

/// Words of keys and values that a chunk of few queries reads, about: fewer are not worth waking a thread.
const FEW_WORDS: usize = 1 << 14;

impl Attention {
    fn head_size(&self) -> usize {
        self.out.cols() / self.heads
    }

    fn is_few(&self) -> bool {
        self.q.layout.rows < MANY
    }

    /// Queries and heads a chunk.
    fn chunk(&self) -> (usize, usize) {
        let (n, size) = (self.q.layout.rows, self.k.layout.rows * self.head_size());
        if self.is_few() {
            return (n, (FEW_WORDS / size.max(1)).clamp(1, self.heads));
        }
        let most = (CHUNK_WORK / size.max(1)).clamp(CHUNK_QUERIES.0, CHUNK_QUERIES.1);
        let blocks = n.div_ceil(most);
        let heads = if blocks == 1 { (SHARED_WORK / (n * size).max(1)).clamp(1, self.heads) } else { 1 };
        (n.div_ceil(blocks).next_multiple_of(many::ROWS), heads)
    }
}

impl Kernel for Attention {
    const NAME: &'static str = "attention";

    fn out(&self) -> Out {
        let (queries, heads) = self.chunk();
        Out::new(self.out, queries, heads * self.head_size()).in_runs_of(self.q.layout.rows)
    }

    fn cost(&self, turns: usize) -> Cost {
        // Of the first turn and of the last one: twice the mean.
        let keys = 2 * self.keys.first + turns.saturating_sub(1) * self.keys.step;
        let (g, n, d) = (self.q.layout.groups, self.q.layout.rows, self.q.cols());
        Cost { bytes: words(g * (2 * n + keys) * d), flops: 2 * (g * n * keys * d) as u64 }
    }

    fn worker_words(&self) -> usize {
        let keys = self.k.layout.rows;
        match self.is_few() {
            true => WorkerMemory::words([few::words(keys)]),
            false => WorkerMemory::words(many::words(keys, self.head_size())),
        }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let keys = self.keys.first + cx.turn() * self.keys.step;
        let (rows, cols, d) = (out.rows(), out.cols(), self.head_size());
        // One group by the choice of tiles.
        let group = rows.start / self.q.layout.rows;
        let q = cx.mat::<f32>(&self.q);
        let [k, v] = [&self.k, &self.v].map(|m| {
            let m = cx.mat::<f32>(m);
            Mat::new(m.group(group), Layout { groups: 1, rows: keys, ..m.layout() })
        });
        let mut memory = cx.worker_memory();
        for at in cols.clone().step_by(d) {
            let head = Head {
                q: q.columns(at..at + d),
                k: k.columns(at..at + d),
                v: v.columns(at..at + d),
                rows: rows.clone(),
                scale: 1.0 / (d as f32).sqrt(),
                at: at - cols.start,
            };
            if self.is_few() {
                let [scores] = memory.split([few::words(keys)]);
                cx.isa().run(Few { head, scores, out: &mut out });
            } else {
                let packed = Packed::new(memory.split(many::words(keys, d)));
                match self.narrow {
                    true => cx.isa().run_pairs(Many::<true> { head, packed, out: &mut out }),
                    false => cx.isa().run(Many::<false> { head, packed, out: &mut out }),
                }
            }
        }
    }
}

/// One head of some queries of one group.
struct Head<'a> {
    /// All queries, `[G N, d]`.
    q: Mat<'a, f32>,
    /// The keys that count, `[keys, d]`.
    k: Mat<'a, f32>,
    /// Their values, `[keys, d]`.
    v: Mat<'a, f32>,
    /// The rows of `q` and of the result.
    rows: Range<usize>,
    /// What scores are multiplied with.
    scale: f32,
    /// First column of the head in the tile of the result.
    at: usize,
}

#[cfg(feature = "cuda")]
impl super::Launch for Attention {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        // What the kernels have room for: numbers of a head, and of wide heads how many and how many keys.
        const HEAD: usize = 128;
        const WIDE: (usize, usize) = (1024, 1536);
        let (groups, queries, d) = (self.q.layout.groups, self.q.layout.rows, self.head_size());
        if d > HEAD && (d > WIDE.0 || self.k.layout.rows > WIDE.1) {
            let expected =
                format!("heads of at most {HEAD} numbers, or of at most {} with at most {} keys", WIDE.0, WIDE.1);
            let found = format!("heads of {d} with {} keys", self.k.layout.rows);
            return Err(to.unsupported("attention", &expected, found));
        }
        let p = abi::Attention {
            turn: to.turn(),
            q: to.view(&self.q)?,
            k: to.view(&self.k)?,
            v: to.view(&self.v)?,
            out: to.view(&self.out)?,
            heads: small("heads", self.heads)?,
            head_size: small("a head", d)?,
            keys_first: small("keys", self.keys.first)?,
            keys_step: small("keys a turn", self.keys.step)?,
            form: 0,
            out_form: 0,
        };
        let tall = match d {
            0..=32 => "attention_bf16_32",
            33..=48 => "attention_bf16_48",
            49..=64 => "attention_bf16_64",
            65..=80 => "attention_bf16_80",
            81..=96 => "attention_bf16_96",
            _ => "attention_bf16_128",
        };
        match (self.is_few(), self.narrow) {
            (few, narrow) if d > HEAD => {
                let kernel = if narrow && !few { "attention_wide_bf16" } else { "attention_wide" };
                to.call("attention", kernel, [queries.div_ceil(4), self.heads, groups], p)
            }
            (true, _) => to.call("attention", "attention_few", [self.heads, queries, groups], p),
            (false, true) => to.call("attention", tall, [queries.div_ceil(64), self.heads, groups], p),
            (false, false) => to.call("attention", "attention_f32", [queries.div_ceil(32), self.heads, groups], p),
        }
    }
}

#[cfg(test)]
mod tests;
