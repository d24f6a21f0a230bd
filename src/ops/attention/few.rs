//! Few queries: keys and values are read where they lie, once from far away.

use super::Head;
use super::softmax::exponentials;
use crate::simd::{Job, Simd};
use crate::tensor::{Mat, TileMut};

/// Keys whose scores are summed together, at most.
const BLOCK: usize = 16;

/// Words of a worker's memory for `keys` keys.
pub(super) fn words(keys: usize) -> usize {
    keys.next_multiple_of(BLOCK)
}

/// Attention of one head, query by query.
pub(super) struct Few<'a, 'b, 'c> {
    pub(super) head: Head<'a>,
    /// A worker's memory, [`words`] long.
    pub(super) scores: &'b mut [f32],
    pub(super) out: &'b mut TileMut<'c, f32>,
}

impl Job for Few<'_, '_, '_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { head: Head { q, k, v, rows, scale, at }, scores, out } = self;
        let (keys, d) = (k.layout().rows, k.layout().cols);
        // The logarithms are to base 2.
        let factor = scale * std::f32::consts::LOG2_E;
        for row in rows {
            if S::REGISTERS >= 2 * BLOCK {
                score::<S, BLOCK>(s, q.row(row), k, factor, scores);
            } else {
                score::<S, { BLOCK / 2 }>(s, q.row(row), k, factor, scores);
            }
            let norm = exponentials(s, &mut scores[..keys.next_multiple_of(S::LANES)], keys);
            weigh(s, &scores[..keys], v, norm, &mut out.row(row)[at..at + d]);
        }
    }
}

/// The scores of `q`, `C` keys at a time, times `factor`.
#[inline(always)]
fn score<S: Simd, const C: usize>(s: S, q: &[f32], k: Mat<'_, f32>, factor: f32, scores: &mut [f32]) {
    let (keys, d) = (k.layout().rows, k.layout().cols);
    let q = &q[..d];
    for first in (0..keys).step_by(C) {
        // Keys past the end repeat the last one; their scores are dropped.
        let mut rows = [q.as_ptr(); C];
        for (c, row) in rows.iter_mut().enumerate() {
            *row = k.row((first + c).min(keys - 1)).as_ptr();
        }
        // SAFETY: q and the rows hold d numbers.
        let sums = unsafe { dots(s, q.as_ptr(), rows, d) };
        let sums = s.sums(sums);
        for (score, sum) in scores[first..first + C].iter_mut().zip(sums) {
            *score = sum * factor;
        }
    }
}

/// The products of `q` with each of `k`, lane by lane.
///
/// # Safety
/// Each pointer is valid for reading `d` floats.
#[inline(always)]
unsafe fn dots<S: Simd, const C: usize>(s: S, q: *const f32, k: [*const f32; C], d: usize) -> [S::V; C] {
    let mut sums = [s.zero(); C];
    let mut at = 0;
    while at + S::LANES <= d {
        // SAFETY: LANES floats from `at` on are among the d.
        unsafe {
            let x = s.load_ptr(q.add(at));
            for c in 0..C {
                sums[c] = s.fma(x, s.load_ptr(k[c].add(at)), sums[c]);
            }
        }
        at += S::LANES;
    }
    if at < d {
        // SAFETY: d - at < LANES floats are left.
        unsafe {
            let x = s.load_tail_ptr(q.add(at), d - at);
            for c in 0..C {
                sums[c] = s.fma(x, s.load_tail_ptr(k[c].add(at), d - at), sums[c]);
            }
        }
    }
    sums
}

/// `out = norm sum over j of weights[j] v[j]`, up to four vectors of columns at a time.
#[inline(always)]
fn weigh<S: Simd>(s: S, weights: &[f32], v: Mat<'_, f32>, norm: f32, out: &mut [f32]) {
    let whole = out.len() / S::LANES;
    let (vectors, tail) = out.split_at_mut(whole * S::LANES);
    let mut at = 0;
    for out in vectors.chunks_mut(4 * S::LANES) {
        match out.len() / S::LANES {
            4 => columns::<S, 4>(s, weights, v, at, norm, out),
            3 => columns::<S, 3>(s, weights, v, at, norm, out),
            2 => columns::<S, 2>(s, weights, v, at, norm, out),
            _ => columns::<S, 1>(s, weights, v, at, norm, out),
        }
        at += out.len();
    }
    if !tail.is_empty() {
        columns::<S, 1>(s, weights, v, at, norm, tail);
    }
}

/// The columns of [`weigh`] from `at` on: `C` vectors, or one that is not whole. Even and odd keys have a sum each, so
/// that one need not wait for the other.
#[inline(always)]
fn columns<S: Simd, const C: usize>(
    s: S,
    weights: &[f32],
    values: Mat<'_, f32>,
    at: usize,
    norm: f32,
    out: &mut [f32],
) {
    let width = out.len();
    assert!(width == C * S::LANES || C == 1 && width < S::LANES);
    let (mut even, mut odd) = ([s.zero(); C], [s.zero(); C]);
    let mut pairs = weights.chunks_exact(2);
    for (i, p) in pairs.by_ref().enumerate() {
        let (x, y) = (s.splat(p[0]), s.splat(p[1]));
        let (v, w): ([_; C], [_; C]) =
            (load(s, values.row(2 * i), at, width), load(s, values.row(2 * i + 1), at, width));
        for c in 0..C {
            even[c] = s.fma(x, v[c], even[c]);
            odd[c] = s.fma(y, w[c], odd[c]);
        }
    }
    if let [p] = pairs.remainder() {
        let v: [_; C] = load(s, values.row(weights.len() - 1), at, width);
        for c in 0..C {
            even[c] = s.fma(s.splat(*p), v[c], even[c]);
        }
    }
    let norm = s.splat(norm);
    for c in 0..C {
        s.store_up_to(&mut out[c * S::LANES..], s.mul(s.add(even[c], odd[c]), norm));
    }
}

/// `C` vectors of `row` from `at` on, or one of `width` lanes where that is less than a vector.
#[inline(always)]
fn load<S: Simd, const C: usize>(s: S, row: &[f32], at: usize, width: usize) -> [S::V; C] {
    if width < S::LANES {
        return [s.load_up_to(&row[at..at + width]); C];
    }
    let row = &row[at..at + C * S::LANES];
    let mut v = [s.zero(); C];
    for (c, v) in v.iter_mut().enumerate() {
        *v = s.load(&row[c * S::LANES..]);
    }
    v
}
