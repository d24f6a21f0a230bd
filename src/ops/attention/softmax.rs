//! The exponentials of a row of scores.

use crate::simd::{Simd, math};

/// Turns the first `keys` scores of `row`, which already are logarithms to base 2, into `2^(score - largest)`, the
/// rest of the row into numbers of no weight, and gives the reciprocal of the sum. The row is a whole number of
/// vectors.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(s: S, row: &mut [f32], keys: usize) -> f32 {
    row[keys..].fill(f32::NEG_INFINITY);
    let top = s.splat(largest(s, row));
    let mut sum = s.zero();
    for x in row.chunks_exact_mut(S::LANES) {
        let e = math::exp2(s, s.sub(s.load(x), top));
        s.store_up_to(x, e);
        sum = s.add(sum, e);
    }
    1.0 / s.sum(sum)
}

/// The largest of a row of whole vectors.
#[inline(always)]
pub(super) fn largest<S: Simd>(s: S, row: &[f32]) -> f32 {
    // Four maxima, so that one need not wait for the other.
    let mut tops = [s.splat(f32::NEG_INFINITY); 4];
    for some in row.chunks(4 * S::LANES) {
        for (top, x) in tops.iter_mut().zip(some.chunks_exact(S::LANES)) {
            *top = s.max(*top, s.load(x));
        }
    }
    s.largest(s.max(s.max(tops[0], tops[1]), s.max(tops[2], tops[3])))
}
