//! Many queries: scores and results in register tiles of outer products.
//!
//! A product `a b` is computed for some rows of `a` and up to 4 vectors of columns of `b` at a time, all sums in
//! registers: for each k in turn, `a[r][k] b[k][c]` is added to every sum of the tile. For that the columns of `b` lie in
//! panels, one vector or a few wide, of whole vectors: k^T with lanes along the keys, v with lanes along the head. The
//! rows of `a`, queries or weights, lie in blocks: a vector of the first row of a strip, of the second and so on, then the
//! next vector of each. So one pointer reaches all rows of a tile, however many.
//!
//! All are [`Words`] of one number or two: what `k` counts above.

use super::Head;
use super::numbers::{Pairs, Singles, Words};
use super::softmax::largest;
use crate::simd::{Job, Simd};
use crate::tensor::{Mat, TileMut};
use std::ops::Range;

/// Queries that go through all keys together, so that a panel is read from the second-level cache once for two tiles.
/// Their scores and weights should stay in the first-level cache: 42 KB for 576 keys.
const STRIP: usize = 2 * ROWS;

/// Queries that a chunk has a multiple of: fewest rows of a tile.
pub(super) const ROWS: usize = 6;

/// Words from the first of a group's keys to the last from which on rows are asked for ahead: about a second-level cache.
/// Where they are near, asking costs more than it gains.
const FAR: usize = 1 << 18;

/// The most lanes of a vector.
const LANES: usize = 16;

/// Words of [`Packed`]'s parts for `keys` keys and heads of `d`, with pairs or without.
pub(super) fn words(keys: usize, d: usize) -> [usize; 5] {
    let (across_keys, across_head) = (keys.next_multiple_of(LANES), d.next_multiple_of(LANES));
    let pairs_of_vectors = keys.next_multiple_of(2 * LANES);
    [
        across_keys * d,
        keys * across_head,
        STRIP * across_head,
        STRIP * (pairs_of_vectors + LANES),
        STRIP * pairs_of_vectors,
    ]
}

/// A worker's memory, [`words`] long.
pub(super) struct Packed<'a> {
    /// k^T in panels `[words of d, some vectors of keys]`.
    keys: &'a mut [f32],
    /// v in panels `[words of keys, some vectors of columns]`.
    values: &'a mut [f32],
    /// Blocks `[STRIP, a vector of words of d]`.
    queries: &'a mut [f32],
    /// `[STRIP, keys]` in pairs of vectors, an odd number of vectors a row: rows a power of two apart would share few
    /// sets of a cache.
    scores: &'a mut [f32],
    /// What values are weighed with, not yet divided by their sum: blocks `[STRIP, a vector of words of keys]`.
    weights: &'a mut [f32],
}

impl<'a> Packed<'a> {
    pub(super) fn new([keys, values, queries, scores, weights]: [&'a mut [f32]; 5]) -> Self {
        Self { keys, values, queries, scores, weights }
    }
}

/// Attention of one head with packed keys and values. If `NARROW`, products are of bf16.
pub(super) struct Many<'a, 'b, 'c, const NARROW: bool> {
    pub(super) head: Head<'a>,
    pub(super) packed: Packed<'b>,
    pub(super) out: &'b mut TileMut<'c, f32>,
}

impl<const NARROW: bool> Job for Many<'_, '_, '_, NARROW> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (NARROW, S::MULTIPLIES_PAIRS) {
            (false, _) => self.compute::<S, Singles<false>>(s),
            (true, false) => self.compute::<S, Singles<true>>(s),
            (true, true) => self.compute::<S, Pairs>(s),
        }
    }
}

impl<const NARROW: bool> Many<'_, '_, '_, NARROW> {
    #[inline(always)]
    fn compute<S: Simd, W: Words>(self, s: S) {
        if S::REGISTERS >= 32 { self.strips::<S, W, 4>(s) } else { self.strips::<S, W, 2>(s) }
    }

    /// All strips of queries, with panels of at most `WIDEST` vectors.
    #[inline(always)]
    fn strips<S: Simd, W: Words, const WIDEST: usize>(self, s: S) {
        let Self { head: Head { q, k, v, rows, scale, at }, packed, out } = self;
        let (keys, d) = (k.layout().rows, k.layout().cols);
        pack_keys::<S, W, WIDEST>(s, k, v, packed.keys);
        pack_values::<S, W, WIDEST>(s, v, packed.values);
        let (along_head, along_keys) = (d.div_ceil(W::NUMBERS), keys.div_ceil(W::NUMBERS));
        let (across_keys, across_head) = (keys.div_ceil(S::LANES), d.div_ceil(S::LANES));
        let padded = across_keys.next_multiple_of(2) * S::LANES;
        let stride = padded + S::LANES;
        for first in rows.clone().step_by(STRIP) {
            let count = STRIP.min(rows.end - first);
            for i in 0..count {
                pack_query::<S, W>(s, q.row(first + i), &mut packed.queries[i * S::LANES..]);
            }
            fetch(s, q, first + count..rows.end.min(first + 2 * STRIP));
            for panel in panels(across_keys, WIDEST) {
                let to = Scores { scores: packed.scores, stride, first: panel.start * S::LANES };
                let right = &packed.keys[panel.start * S::LANES * along_head..panel.end * S::LANES * along_head];
                product::<S, W, WIDEST>(s, count, packed.queries, right, along_head, to);
            }
            // All rows' largest first: a row's exponentials would wait for it.
            let (mut tops, mut norms) = ([0.0; STRIP], [0.0; STRIP]);
            for (top, row) in tops[..count].iter_mut().zip(packed.scores.chunks_exact_mut(stride)) {
                row[keys..padded].fill(f32::NEG_INFINITY);
                *top = largest(s, &row[..padded]);
            }
            for (i, norm) in norms[..count].iter_mut().enumerate() {
                let row = &packed.scores[i * stride..][..padded];
                // The logarithms are to base 2.
                let factor = scale * std::f32::consts::LOG2_E;
                *norm = exponentials::<S, W>(s, row, tops[i], factor, &mut packed.weights[i * S::LANES..]);
            }
            for panel in panels(across_head, WIDEST) {
                let cols = at + panel.start * S::LANES..at + d.min(panel.end * S::LANES);
                let right = &packed.values[panel.start * S::LANES * along_keys..panel.end * S::LANES * along_keys];
                let to = Results { out, first, cols, norms: &norms };
                product::<S, W, WIDEST>(s, count, packed.weights, right, along_keys, to);
            }
        }
    }
}

/// `vectors` vectors cut into panels of at most `widest`, as even as can be.
#[inline(always)]
fn panels(vectors: usize, widest: usize) -> impl Iterator<Item = Range<usize>> {
    let count = vectors.div_ceil(widest);
    (0..count).map(move |i| vectors * i / count..vectors * (i + 1) / count)
}

/// Asks for rows that are read soon, if they lie far apart: then no processor foresees the next one.
#[inline(always)]
fn fetch<S: Simd>(s: S, x: Mat<'_, f32>, rows: Range<usize>) {
    if x.layout().row_stride * x.layout().rows >= FAR {
        for row in rows {
            for line in x.row(row).chunks(16) {
                s.prefetch(line.as_ptr().cast());
            }
        }
    }
}

/// A row of q in its place of each block.
#[inline(always)]
fn pack_query<S: Simd, W: Words>(s: S, x: &[f32], to: &mut [f32]) {
    for (x, to) in x.chunks(W::NUMBERS * S::LANES).zip(to.chunks_mut(STRIP * S::LANES)) {
        s.store_up_to(&mut to[..S::LANES], W::along(s, x));
    }
}

/// k^T, lanes along the keys; zeros behind the last key. Asks for the values, which are next.
#[inline(always)]
fn pack_keys<S: Simd, W: Words, const WIDEST: usize>(s: S, k: Mat<'_, f32>, v: Mat<'_, f32>, to: &mut [f32]) {
    let (keys, d) = (k.layout().rows, k.layout().cols);
    let words = d.div_ceil(W::NUMBERS);
    for panel in panels(keys.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * words..panel.end * S::LANES * words];
        for (c, vector) in panel.enumerate() {
            let first = vector * S::LANES;
            let count = S::LANES.min(keys - first);
            fetch(s, v, first..first + count);
            for at in (0..words).step_by(S::LANES) {
                let end = words.min(at + S::LANES);
                let mut block = [s.zero(); LANES];
                for (r, block) in block.iter_mut().enumerate().take(S::LANES) {
                    if r < count {
                        *block = W::along(s, &k.row(first + r)[W::NUMBERS * at..d.min(W::NUMBERS * end)]);
                    }
                }
                let block = transposed(s, block);
                for (j, &block) in block.iter().enumerate().take(end - at) {
                    s.store_up_to(&mut to[(at + j) * stride + c * S::LANES..][..S::LANES], block);
                }
            }
        }
    }
}

/// The block of `LANES` vectors, transposed.
#[inline(always)]
fn transposed<S: Simd>(s: S, mut block: [S::V; LANES]) -> [S::V; LANES] {
    const { assert!(S::LANES <= LANES && S::LANES.is_power_of_two()) };
    let mut round = 1;
    while round < S::LANES {
        // Seen as one row of numbers, a round turns the bits of a number's place by one.
        let old = block;
        for i in 0..S::LANES / 2 {
            (block[2 * i], block[2 * i + 1]) = s.interleave(old[i], old[i + S::LANES / 2]);
        }
        round *= 2;
    }
    block
}

/// v, lanes along the head; zeros behind its last column, and in the last key's words if it has no partner.
#[inline(always)]
fn pack_values<S: Simd, W: Words, const WIDEST: usize>(s: S, v: Mat<'_, f32>, to: &mut [f32]) {
    let (keys, d) = (v.layout().rows, v.layout().cols);
    let words = keys.div_ceil(W::NUMBERS);
    for panel in panels(d.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * words..panel.end * S::LANES * words];
        for (j, to) in to.chunks_exact_mut(stride).enumerate() {
            let next = W::NUMBERS * j + 1;
            let (x, y) = (v.row(next - 1), if next < keys { v.row(next) } else { &[] });
            for (c, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                s.store_up_to(to, W::across(s, x, y, (panel.start + c) * S::LANES));
            }
        }
        debug_assert_eq!(to.len(), words * stride);
    }
}

/// Writes `2^(factor (score - top))` of a row of scores, whole pairs of vectors, in its place of each block, and gives
/// the reciprocal of their sum.
#[inline(always)]
fn exponentials<S: Simd, W: Words>(s: S, row: &[f32], top: f32, factor: f32, to: &mut [f32]) -> f32 {
    let block = STRIP * S::LANES;
    let mut sum = s.zero();
    for (x, to) in row.chunks_exact(2 * S::LANES).zip(to.chunks_mut(2 / W::NUMBERS * block)) {
        let (first, second) = to.split_at_mut(to.len().min(block));
        let to = [&mut first[..S::LANES], if W::NUMBERS == 1 { &mut second[..S::LANES] } else { second }];
        sum = W::exponentials(s, [s.load(x), s.load(&x[S::LANES..])], factor, top, sum, to);
    }
    1.0 / s.sum(sum)
}

/// Where rows of a product go.
trait Sink<S: Simd> {
    /// Stores row `i`.
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

/// `rows` rows of the product of `left`, blocks of rows of `n` words, with the panel `right`, `[n, whole vectors]`.
#[inline(always)]
fn product<S: Simd, W: Words, const WIDEST: usize>(
    s: S,
    rows: usize,
    left: &[f32],
    right: &[f32],
    n: usize,
    to: impl Sink<S>,
) {
    // As many sums as registers can hold: enough that none waits for itself.
    match (right.len() / (n * S::LANES), WIDEST >= 4) {
        (4, true) => tiles::<S, W, 6, 4>(s, rows, left, right, n, to),
        (3, true) => tiles::<S, W, 6, 3>(s, rows, left, right, n, to),
        (2, true) => tiles::<S, W, 12, 2>(s, rows, left, right, n, to),
        (_, true) => tiles::<S, W, 12, 1>(s, rows, left, right, n, to),
        (2, false) => tiles::<S, W, 6, 2>(s, rows, left, right, n, to),
        (_, false) => tiles::<S, W, 12, 1>(s, rows, left, right, n, to),
    }
}

/// [`product`] with a panel of `C` vectors, `R` rows at a time.
#[inline(always)]
fn tiles<S: Simd, W: Words, const R: usize, const C: usize>(
    s: S,
    rows: usize,
    left: &[f32],
    right: &[f32],
    n: usize,
    mut to: impl Sink<S>,
) {
    const { assert!(STRIP.is_multiple_of(R)) };
    assert!(rows <= STRIP && right.len() >= n * C * S::LANES);
    assert!(left.len() >= n.div_ceil(S::LANES) * STRIP * S::LANES);
    for first in (0..rows).step_by(R) {
        // Rows past the end are what an earlier strip left; their sums are dropped.
        // SAFETY: R divides STRIP, so R rows from `first` on are in each block; the blocks were checked to hold n words,
        // the panel n times C vectors.
        let sums: [[S::V; C]; R] = unsafe { outer::<S, W, R, C>(s, left[first * S::LANES..].as_ptr(), right, n) };
        for (r, &sums) in sums.iter().enumerate() {
            if first + r < rows {
                to.store(s, first + r, sums);
            }
        }
    }
}

/// The sums over `n` of `a[r][i] b[i][c]`.
///
/// # Safety
/// `a` is the first of `R` rows in the first of enough blocks for `n` words, and `b` holds `n` times `C` vectors.
#[inline(always)]
unsafe fn outer<S: Simd, W: Words, const R: usize, const C: usize>(
    s: S,
    mut a: *const f32,
    b: &[f32],
    n: usize,
) -> [[S::V; C]; R] {
    let mut sums = [[s.zero(); C]; R];
    let mut b = b.as_ptr();
    let mut left = n;
    while left > 0 {
        let count = left.min(S::LANES);
        for i in 0..count {
            // SAFETY: this block has more than i words of each row, and as many lines of the panel are left.
            unsafe {
                sums = W::multiply(s, a.add(i), b, sums);
                b = b.add(C * S::LANES);
            }
        }
        left -= count;
        // Wrapping, for behind the last block there need not be as much.
        a = a.wrapping_add(STRIP * S::LANES);
    }
    sums
}
