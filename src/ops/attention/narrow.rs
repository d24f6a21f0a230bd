//! Many queries with products of bf16: the way of [`super::many`], a word of two numbers at a time.
//!
//! Both products run over pairs, those of q and k along the head, those of weights and v along the keys; where there is
//! no second number, it is zero. A tile's rows lie in blocks of a vector of words each, all rows of a strip one below the
//! other, so that one pointer reaches them all. Sums are in f32, as are the exponentials; the reciprocal of a row's sum
//! is that of its rounded weights, which so add up to one.

use super::Head;
use super::many::{LANES, STRIP, panels, transposed};
use super::softmax::largest;
use crate::simd::{Job, Simd, math};
use crate::tensor::{Mat, TileMut};
use std::ops::Range;

/// Words of [`Packed`]'s parts for `keys` keys and heads of `d`.
pub(super) fn words(keys: usize, d: usize) -> [usize; 5] {
    let (padded, pairs) = (keys.next_multiple_of(LANES), [d, keys].map(|n| n.div_ceil(2)));
    let blocks = |pairs: usize| STRIP * pairs.next_multiple_of(LANES);
    // An odd vector of scores has a partner without weight, and a row one vector more than it needs.
    let row = padded.next_multiple_of(2 * LANES) + LANES;
    [padded * pairs[0], pairs[1] * d.next_multiple_of(LANES), blocks(pairs[0]), STRIP * row, blocks(pairs[1])]
}

/// A worker's memory, [`words`] long.
pub(super) struct Packed<'a> {
    /// k^T in panels `[pairs of d, some vectors of keys]`.
    keys: &'a mut [f32],
    /// v in panels `[pairs of keys, some vectors of columns]`.
    values: &'a mut [u32],
    /// q in blocks `[STRIP, a vector of pairs of d]`.
    queries: &'a mut [u32],
    /// `[STRIP, keys]` in pairs of vectors, an odd number of vectors a row: rows a power of two apart would share few
    /// sets of a cache.
    scores: &'a mut [f32],
    /// What the values are weighed with, in blocks `[STRIP, a vector of pairs of keys]`.
    weights: &'a mut [u32],
}

impl<'a> Packed<'a> {
    pub(super) fn new([keys, values, queries, scores, weights]: [&'a mut [f32]; 5]) -> Self {
        let [values, queries, weights] = [values, queries, weights].map(bytemuck::cast_slice_mut);
        Self { keys, values, queries, scores, weights }
    }
}

/// Attention of one head with products of packed pairs.
pub(super) struct Narrow<'a, 'b, 'c> {
    pub(super) head: Head<'a>,
    pub(super) packed: Packed<'b>,
    pub(super) out: &'b mut TileMut<'c, f32>,
}

impl Job for Narrow<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::REGISTERS >= 32 { self.strips::<S, 4>(s) } else { self.strips::<S, 2>(s) }
    }
}

impl Narrow<'_, '_, '_> {
    /// All strips of queries, with panels of at most `WIDEST` vectors.
    #[inline(always)]
    fn strips<S: Simd, const WIDEST: usize>(self, s: S) {
        let Self { head: Head { q, k, v, rows, scale, at }, packed, out } = self;
        let Packed { keys: packed_keys, values, queries, scores, weights } = packed;
        let (keys, d) = (k.layout().rows, k.layout().cols);
        let (pairs_of_d, pairs_of_keys) = (d.div_ceil(2), keys.div_ceil(2));
        pack_keys::<S, WIDEST>(s, k, packed_keys);
        pack_values::<S, WIDEST>(s, v, values);
        let packed_keys: &[u32] = bytemuck::cast_slice(packed_keys);
        let (across_keys, across_head) = (keys.div_ceil(S::LANES), d.div_ceil(S::LANES));
        let padded = across_keys.next_multiple_of(2) * S::LANES;
        let stride = padded + S::LANES;
        for first in rows.clone().step_by(STRIP) {
            let count = STRIP.min(rows.end - first);
            for i in 0..count {
                pack_row(s, q.row(first + i), &mut queries[i * S::LANES..]);
            }
            for panel in panels(across_keys, WIDEST) {
                let to = Scores { scores, stride, first: panel.start * S::LANES };
                let right = &packed_keys[panel.start * S::LANES * pairs_of_d..panel.end * S::LANES * pairs_of_d];
                product::<S, WIDEST>(s, count, queries, right, pairs_of_d, to);
            }
            let mut norms = [0.0; STRIP];
            for (i, norm) in norms[..count].iter_mut().enumerate() {
                let row = &mut scores[i * stride..][..padded];
                // The logarithms are to base 2.
                let factor = scale * std::f32::consts::LOG2_E;
                *norm = exponentials(s, row, keys, factor, &mut weights[i * S::LANES..]);
            }
            for panel in panels(across_head, WIDEST) {
                let cols = at + panel.start * S::LANES..at + d.min(panel.end * S::LANES);
                let right = &values[panel.start * S::LANES * pairs_of_keys..panel.end * S::LANES * pairs_of_keys];
                let to = Results { out, first, cols, norms: &norms };
                product::<S, WIDEST>(s, count, weights, right, pairs_of_keys, to);
            }
        }
    }
}

/// The numbers of `x` from `at` on, up to two vectors, as pairs; zeros behind.
#[inline(always)]
fn pairs_at<S: Simd>(s: S, x: &[f32], at: usize) -> S::I {
    let second = x.len().min(at + S::LANES);
    s.pairs(s.load_up_to(&x[at..]), s.load_up_to(&x[second..]))
}

/// Stores a vector of words at the start of `to`.
#[inline(always)]
fn store<S: Simd>(s: S, to: &mut [u32], v: S::I) {
    let to = &mut to[..S::LANES];
    // SAFETY: the slice holds LANES words.
    unsafe { s.store_words(to.as_mut_ptr(), v) };
}

/// A row of q in its place of each block.
#[inline(always)]
fn pack_row<S: Simd>(s: S, x: &[f32], to: &mut [u32]) {
    for (block, at) in (0..x.len()).step_by(2 * S::LANES).enumerate() {
        store(s, &mut to[block * STRIP * S::LANES..], pairs_at(s, x, at));
    }
}

/// k^T, lanes along the keys; zeros behind the last key.
#[inline(always)]
fn pack_keys<S: Simd, const WIDEST: usize>(s: S, k: Mat<'_, f32>, to: &mut [f32]) {
    let (keys, d) = (k.layout().rows, k.layout().cols);
    let pairs = d.div_ceil(2);
    for panel in panels(keys.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * pairs..panel.end * S::LANES * pairs];
        for (c, vector) in panel.enumerate() {
            let first = vector * S::LANES;
            let count = S::LANES.min(keys - first);
            for at in (0..pairs).step_by(S::LANES) {
                let mut block = [s.zero(); LANES];
                for (r, block) in block.iter_mut().enumerate().take(S::LANES) {
                    if r < count {
                        *block = s.with_bits(pairs_at(s, k.row(first + r), 2 * at));
                    }
                }
                let block = transposed(s, block);
                for (j, &block) in block.iter().enumerate().take(pairs - at) {
                    s.store_up_to(&mut to[(at + j) * stride + c * S::LANES..][..S::LANES], block);
                }
            }
        }
    }
}

/// v, lanes along the head; zeros behind its last column and its last key.
#[inline(always)]
fn pack_values<S: Simd, const WIDEST: usize>(s: S, v: Mat<'_, f32>, to: &mut [u32]) {
    let (keys, d) = (v.layout().rows, v.layout().cols);
    let pairs = keys.div_ceil(2);
    for panel in panels(d.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * pairs..panel.end * S::LANES * pairs];
        for (j, to) in to.chunks_exact_mut(stride).enumerate() {
            let a = &v.row(2 * j)[panel.start * S::LANES..];
            // The last of an odd number of keys has no partner.
            let b = if 2 * j + 1 < keys { &v.row(2 * j + 1)[panel.start * S::LANES..] } else { &[] };
            for (c, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                let (at, b_at) = (c * S::LANES, b.len().min(c * S::LANES));
                let (x, y) = s.interleave(s.load_up_to(&a[at..]), s.load_up_to(&b[b_at..]));
                store(s, to, s.pairs(x, y));
            }
        }
    }
}

/// Writes `2^(factor (score - largest))` of the first `keys` scores of `row` as pairs, into its place of each block, and
/// gives the reciprocal of their sum. Scores are whole pairs of vectors; the rest of them is overwritten and gets no
/// weight.
#[inline(always)]
fn exponentials<S: Simd>(s: S, row: &mut [f32], keys: usize, factor: f32, to: &mut [u32]) -> f32 {
    row[keys..].fill(f32::NEG_INFINITY);
    let (factor, offset) = (s.splat(factor), s.splat(-factor * largest(s, row)));
    let ones = s.pairs(s.splat(1.0), s.splat(1.0));
    let mut sum = s.zero();
    for (x, to) in row.chunks_exact(2 * S::LANES).zip(to.chunks_mut(STRIP * S::LANES)) {
        let (a, b) = (s.fma(s.load(x), factor, offset), s.fma(s.load(&x[S::LANES..]), factor, offset));
        let pairs = s.pairs(math::rough_exp2(s, a), math::rough_exp2(s, b));
        sum = s.dot_pairs(sum, pairs, ones);
        store(s, to, pairs);
    }
    1.0 / s.sum(sum)
}

/// Where rows of a product go.
trait Sink<S: Simd> {
    /// Stores `C` vectors of row `i`.
    fn store<const C: usize>(&mut self, s: S, i: usize, sums: [S::V; C]);
}

/// Columns of the scores.
struct Scores<'a> {
    scores: &'a mut [f32],
    stride: usize,
    first: usize,
}

impl<S: Simd> Sink<S> for Scores<'_> {
    #[inline(always)]
    fn store<const C: usize>(&mut self, s: S, i: usize, sums: [S::V; C]) {
        let to = &mut self.scores[i * self.stride + self.first..][..C * S::LANES];
        for (to, sum) in to.chunks_exact_mut(S::LANES).zip(sums) {
            s.store_up_to(to, sum);
        }
    }
}

/// Columns of the op's result.
struct Results<'a, 'c> {
    out: &'a mut TileMut<'c, f32>,
    first: usize,
    cols: Range<usize>,
    norms: &'a [f32],
}

impl<S: Simd> Sink<S> for Results<'_, '_> {
    #[inline(always)]
    fn store<const C: usize>(&mut self, s: S, i: usize, sums: [S::V; C]) {
        let to = &mut self.out.row(self.first + i)[self.cols.clone()];
        let norm = s.splat(self.norms[i]);
        for (to, sum) in to.chunks_mut(S::LANES).zip(sums) {
            s.store_up_to(to, s.mul(sum, norm));
        }
    }
}

/// `rows` rows of the product of `left`, blocks of rows of `n` pairs, with the panel `right`, `[n, whole vectors]`.
#[inline(always)]
fn product<S: Simd, const WIDEST: usize>(s: S, rows: usize, left: &[u32], right: &[u32], n: usize, to: impl Sink<S>) {
    // As many rows as there are registers for.
    match (right.len() / (n * S::LANES), WIDEST >= 4) {
        (4, true) => tiles::<S, 6, 4>(s, rows, left, right, n, to),
        (3, true) => tiles::<S, 8, 3>(s, rows, left, right, n, to),
        (2, true) => tiles::<S, 12, 2>(s, rows, left, right, n, to),
        (_, true) => tiles::<S, 24, 1>(s, rows, left, right, n, to),
        (2, false) => tiles::<S, 6, 2>(s, rows, left, right, n, to),
        (_, false) => tiles::<S, 12, 1>(s, rows, left, right, n, to),
    }
}

/// [`product`] with a panel of `C` vectors, `R` rows at a time.
#[inline(always)]
fn tiles<S: Simd, const R: usize, const C: usize>(
    s: S,
    rows: usize,
    left: &[u32],
    right: &[u32],
    n: usize,
    mut to: impl Sink<S>,
) {
    const { assert!(STRIP.is_multiple_of(R)) };
    assert!(rows <= STRIP && right.len() >= n * C * S::LANES);
    assert!(left.len() >= n.div_ceil(S::LANES) * STRIP * S::LANES);
    for first in (0..rows).step_by(R) {
        // SAFETY: R divides STRIP, so R rows from `first` are in each block; the blocks were checked to hold n pairs, the
        // panel to hold n times C vectors. Rows past the end are what an earlier strip left; their sums are dropped.
        let sums: [[S::V; C]; R] = unsafe { outer(s, left[first * S::LANES..].as_ptr(), right.as_ptr(), n) };
        for (r, &sums) in sums.iter().enumerate() {
            if first + r < rows {
                to.store(s, first + r, sums);
            }
        }
    }
}

/// The sums over `n` pairs of `a[r][i] b[i][c]`.
///
/// # Safety
/// `a` is the first of `R` rows of the first of some blocks that hold `n` pairs, `b` valid for reading `n` times `C`
/// vectors.
#[inline(always)]
unsafe fn outer<S: Simd, const R: usize, const C: usize>(
    s: S,
    mut a: *const u32,
    mut b: *const u32,
    n: usize,
) -> [[S::V; C]; R] {
    let mut sums = [[s.zero(); C]; R];
    let mut left = n;
    while left > 0 {
        let count = left.min(S::LANES);
        for i in 0..count {
            let mut y = [s.splat_word(0); C];
            // SAFETY: i is below the pairs of this block, and as many lines of the panel are left.
            unsafe {
                for (c, y) in y.iter_mut().enumerate() {
                    *y = s.load_words(b.add(c * S::LANES));
                }
                b = b.add(C * S::LANES);
                for r in 0..R {
                    let x = s.splat_word(*a.add(r * S::LANES + i));
                    for c in 0..C {
                        sums[r][c] = s.dot_pairs(sums[r][c], x, y[c]);
                    }
                }
            }
        }
        left -= count;
        // Wrapping, for behind the last block there may be less than another.
        a = a.wrapping_add(STRIP * S::LANES);
    }
    sums
}
