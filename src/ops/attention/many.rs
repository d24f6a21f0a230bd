//! Many queries: scores and results in register tiles of outer products.
//!
//! A product `a b` is computed for [`ROWS`] rows of `a` and up to 4 vectors of columns of `b` at a time, all sums in
//! registers: for each k in turn, `a[r][k] b[k][c]` is added to every sum of the tile. For that the columns of `b` lie in
//! panels, one vector or a few wide, of whole vectors: k^T with lanes along the keys, v with lanes along the head.

use super::Head;
use super::softmax::exponentials;
use crate::simd::{Job, Simd};
use crate::tensor::{Mat, TileMut};
use std::ops::Range;

/// Queries a register tile.
pub(super) const ROWS: usize = 6;

/// Queries that go through all keys together, so that a panel is read from the second-level cache once for several
/// tiles. Their scores should stay close: 55 KB for 576 keys.
pub(super) const STRIP: usize = 4 * ROWS;

/// The most lanes of a vector.
pub(super) const LANES: usize = 16;

/// Words of [`Packed`]'s parts for `keys` keys and heads of `d`.
pub(super) fn words(keys: usize, d: usize) -> [usize; 3] {
    let padded = keys.next_multiple_of(LANES);
    [padded * d, keys * d.next_multiple_of(LANES), STRIP * (padded + LANES)]
}

/// A worker's memory, [`words`] long.
pub(super) struct Packed<'a> {
    /// k^T in panels `[d, some vectors of keys]`.
    pub(super) keys: &'a mut [f32],
    /// v in panels `[keys, some vectors of columns]`.
    pub(super) values: &'a mut [f32],
    /// `[STRIP, keys]` in whole vectors, an odd number of them a row: rows a power of two apart would share few sets of
    /// a cache.
    pub(super) scores: &'a mut [f32],
}

/// Attention of one head with packed keys and values.
pub(super) struct Many<'a, 'b, 'c> {
    pub(super) head: Head<'a>,
    pub(super) packed: Packed<'b>,
    pub(super) out: &'b mut TileMut<'c, f32>,
}

impl Job for Many<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        if S::REGISTERS >= 32 { self.strips::<S, 4>(s) } else { self.strips::<S, 2>(s) }
    }
}

impl Many<'_, '_, '_> {
    /// All strips of queries, with panels of at most `WIDEST` vectors.
    #[inline(always)]
    fn strips<S: Simd, const WIDEST: usize>(self, s: S) {
        let Self { head: Head { q, k, v, rows, scale, at }, packed, out } = self;
        let (keys, d) = (k.layout().rows, k.layout().cols);
        pack_keys::<S, WIDEST>(s, k, packed.keys);
        pack_values::<S, WIDEST>(s, v, packed.values);
        let (across_keys, across_head) = (keys.div_ceil(S::LANES), d.div_ceil(S::LANES));
        let (padded, stride) = (across_keys * S::LANES, (across_keys | 1) * S::LANES);
        for first in rows.clone().step_by(STRIP) {
            let count = STRIP.min(rows.end - first);
            for panel in panels(across_keys, WIDEST) {
                let left = |i: usize| q.row(first + i);
                let to = Scores {
                    scores: packed.scores,
                    stride,
                    cols: panel.start * S::LANES..panel.end * S::LANES,
                    // The logarithms are to base 2.
                    factor: scale * std::f32::consts::LOG2_E,
                };
                let right = &packed.keys[panel.start * S::LANES * d..panel.end * S::LANES * d];
                product::<S, WIDEST>(s, count, left, right, d, to);
            }
            let mut norms = [0.0; STRIP];
            for (i, norm) in norms[..count].iter_mut().enumerate() {
                *norm = exponentials(s, &mut packed.scores[i * stride..][..padded], keys);
            }
            for panel in panels(across_head, WIDEST) {
                let left = |i: usize| &packed.scores[i * stride..][..keys];
                let cols = at + panel.start * S::LANES..at + d.min(panel.end * S::LANES);
                let to = Results { out, first, cols, norms: &norms };
                let right = &packed.values[panel.start * S::LANES * keys..panel.end * S::LANES * keys];
                product::<S, WIDEST>(s, count, left, right, keys, to);
            }
        }
    }
}

/// `vectors` vectors cut into panels of at most `widest`, as even as can be.
#[inline(always)]
pub(super) fn panels(vectors: usize, widest: usize) -> impl Iterator<Item = Range<usize>> {
    let count = vectors.div_ceil(widest);
    (0..count).map(move |i| vectors * i / count..vectors * (i + 1) / count)
}

/// k^T, lanes along the keys; zeros behind the last key.
#[inline(always)]
fn pack_keys<S: Simd, const WIDEST: usize>(s: S, k: Mat<'_, f32>, to: &mut [f32]) {
    let (keys, d) = (k.layout().rows, k.layout().cols);
    for panel in panels(keys.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * d..panel.end * S::LANES * d];
        for (c, vector) in panel.enumerate() {
            let first = vector * S::LANES;
            let count = S::LANES.min(keys - first);
            for at in (0..d).step_by(S::LANES) {
                let end = d.min(at + S::LANES);
                let mut block = [s.zero(); LANES];
                for (r, block) in block.iter_mut().enumerate().take(S::LANES) {
                    if r < count {
                        *block = s.load_up_to(&k.row(first + r)[at..end]);
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
pub(super) fn transposed<S: Simd>(s: S, mut block: [S::V; LANES]) -> [S::V; LANES] {
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

/// v, lanes along the head; zeros behind its last column.
#[inline(always)]
fn pack_values<S: Simd, const WIDEST: usize>(s: S, v: Mat<'_, f32>, to: &mut [f32]) {
    let (keys, d) = (v.layout().rows, v.layout().cols);
    for panel in panels(d.div_ceil(S::LANES), WIDEST) {
        let stride = panel.len() * S::LANES;
        let to = &mut to[panel.start * S::LANES * keys..panel.end * S::LANES * keys];
        for (j, to) in to.chunks_exact_mut(stride).enumerate() {
            let row = &v.row(j)[panel.start * S::LANES..];
            for (c, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                s.store_up_to(to, s.load_up_to(&row[c * S::LANES..]));
            }
        }
        debug_assert_eq!(to.len(), keys * stride);
    }
}

/// Where rows of a product go.
trait Sink {
    /// The place of row `i`, as wide as the panel or less, and what the row is multiplied with.
    fn row(&mut self, i: usize) -> (&mut [f32], f32);
}

/// Columns of the scores.
struct Scores<'a> {
    scores: &'a mut [f32],
    stride: usize,
    cols: Range<usize>,
    factor: f32,
}

impl Sink for Scores<'_> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> (&mut [f32], f32) {
        (&mut self.scores[i * self.stride..][self.cols.clone()], self.factor)
    }
}

/// Columns of the op's result.
struct Results<'a, 'c> {
    out: &'a mut TileMut<'c, f32>,
    first: usize,
    cols: Range<usize>,
    norms: &'a [f32],
}

impl Sink for Results<'_, '_> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> (&mut [f32], f32) {
        (&mut self.out.row(self.first + i)[self.cols.clone()], self.norms[i])
    }
}

/// `rows` rows of the product of `left`, rows of `n` numbers, with the panel `right`, `[n, whole vectors]`.
#[inline(always)]
fn product<'l, S: Simd, const WIDEST: usize>(
    s: S,
    rows: usize,
    left: impl Fn(usize) -> &'l [f32],
    right: &[f32],
    n: usize,
    to: impl Sink,
) {
    match right.len() / (n * S::LANES) {
        4 if WIDEST >= 4 => tiles::<S, 4>(s, rows, left, right, n, to),
        3 if WIDEST >= 3 => tiles::<S, 3>(s, rows, left, right, n, to),
        2 => tiles::<S, 2>(s, rows, left, right, n, to),
        _ => tiles::<S, 1>(s, rows, left, right, n, to),
    }
}

/// [`product`] with a panel of `C` vectors.
#[inline(always)]
fn tiles<'l, S: Simd, const C: usize>(
    s: S,
    rows: usize,
    left: impl Fn(usize) -> &'l [f32],
    right: &[f32],
    n: usize,
    mut to: impl Sink,
) {
    assert!(right.len() >= n * C * S::LANES);
    for first in (0..rows).step_by(ROWS) {
        // Rows past the end repeat the last one; their sums are dropped.
        let mut a = [right.as_ptr(); ROWS];
        for (r, a) in a.iter_mut().enumerate() {
            *a = left((first + r).min(rows - 1))[..n].as_ptr();
        }
        // SAFETY: the rows are slices of n numbers, and the panel was checked to hold n times C vectors.
        let sums: [[S::V; C]; ROWS] = unsafe { outer(s, a, right.as_ptr(), n) };
        for (r, &sums) in sums.iter().enumerate() {
            if first + r < rows {
                let (to, factor) = to.row(first + r);
                let factor = s.splat(factor);
                for (c, &sum) in sums.iter().enumerate() {
                    s.store_up_to(&mut to[c * S::LANES..], s.mul(sum, factor));
                }
            }
        }
    }
}

/// The sums over `n` of `a[r][i] b[i][c]`.
///
/// # Safety
/// Each of `a` is valid for reading `n` floats, `b` for `n` times `C` vectors.
#[inline(always)]
unsafe fn outer<S: Simd, const R: usize, const C: usize>(
    s: S,
    a: [*const f32; R],
    b: *const f32,
    n: usize,
) -> [[S::V; C]; R] {
    let mut sums = [[s.zero(); C]; R];
    for i in 0..n {
        // SAFETY: i < n.
        unsafe {
            let y: [S::V; C] = std::array::from_fn(|c| s.load_ptr(b.add((i * C + c) * S::LANES)));
            for r in 0..R {
                let x = s.splat(*a[r].add(i));
                for c in 0..C {
                    sums[r][c] = s.fma(x, y[c], sums[r][c]);
                }
            }
        }
    }
    sums
}
