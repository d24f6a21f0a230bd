//! What the products of many queries are made of: words of numbers, by how they are rounded and multiplied.

use crate::simd::{Simd, math};

/// A kind of words. All of them lie in memory as the bits of floats.
pub(super) trait Words {
    /// Neighbours along the sums of a product that share a word.
    const NUMBERS: usize;

    /// The numbers of `x`, up to a vector of words, zeros behind.
    fn along<S: Simd>(s: S, x: &[f32]) -> S::V;

    /// The numbers of `x` from `at` on, each in a word with its neighbour in `y` if words have two; zeros behind.
    fn across<S: Simd>(s: S, x: &[f32], y: &[f32], at: usize) -> S::V;

    /// Adds to each sum the product of a row's word and a column's.
    ///
    /// # Safety
    /// `a` is readable at `R` places `LANES` words apart, `b` for `C` vectors.
    unsafe fn multiply<S: Simd, const R: usize, const C: usize>(
        s: S,
        a: *const f32,
        b: *const f32,
        sums: [[S::V; C]; R],
    ) -> [[S::V; C]; R];

    /// `2^(factor (score - top))` for the scores of two vectors, as words in the first of `to` that there are, and their
    /// sum added to `sum`.
    fn exponentials<S: Simd>(s: S, scores: [S::V; 2], factor: f32, top: f32, sum: S::V, to: [&mut [f32]; 2]) -> S::V;
}

/// What is left of `x` from `at` on.
#[inline(always)]
fn from(x: &[f32], at: usize) -> &[f32] {
    &x[x.len().min(at)..]
}

/// f32, one a word; if `ROUNDED`, each rounded to bf16: for leaves that would take [`Pairs`] apart for every product.
pub(super) struct Singles<const ROUNDED: bool>;

impl<const ROUNDED: bool> Singles<ROUNDED> {
    #[inline(always)]
    fn rounded<S: Simd>(s: S, x: [S::V; 2]) -> [S::V; 2] {
        if !ROUNDED {
            return x;
        }
        let pairs = s.pairs(x[0], x[1]);
        let (x, y) = s.interleave(s.pair_low(pairs), s.pair_high(pairs));
        [x, y]
    }
}

impl<const ROUNDED: bool> Words for Singles<ROUNDED> {
    const NUMBERS: usize = 1;

    #[inline(always)]
    fn along<S: Simd>(s: S, x: &[f32]) -> S::V {
        Self::rounded(s, [s.load_up_to(x), s.zero()])[0]
    }

    #[inline(always)]
    fn across<S: Simd>(s: S, x: &[f32], _: &[f32], at: usize) -> S::V {
        Self::along(s, from(x, at))
    }

    #[inline(always)]
    unsafe fn multiply<S: Simd, const R: usize, const C: usize>(
        s: S,
        a: *const f32,
        b: *const f32,
        mut sums: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        let mut y = [s.zero(); C];
        // SAFETY: the caller's duty is the same.
        unsafe {
            for (c, y) in y.iter_mut().enumerate() {
                *y = s.load_ptr(b.add(c * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = s.splat(*a.add(r * S::LANES));
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = s.fma(x, y, *sum);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn exponentials<S: Simd>(
        s: S,
        [x, y]: [S::V; 2],
        factor: f32,
        top: f32,
        sum: S::V,
        [first, second]: [&mut [f32]; 2],
    ) -> S::V {
        let (factor, top) = (s.splat(factor), s.splat(factor * top));
        let (x, y) = (s.sub(s.mul(x, factor), top), s.sub(s.mul(y, factor), top));
        let [x, y] = match ROUNDED {
            true => Self::rounded(s, [math::rough_exp2(s, x), math::rough_exp2(s, y)]),
            false => [math::exp2(s, x), math::exp2(s, y)],
        };
        s.store_up_to(first, x);
        s.store_up_to(second, y);
        s.add(s.add(sum, x), y)
    }
}

/// bf16, two a word: the first in its lower half.
pub(super) struct Pairs;

impl Words for Pairs {
    const NUMBERS: usize = 2;

    #[inline(always)]
    fn along<S: Simd>(s: S, x: &[f32]) -> S::V {
        s.with_bits(s.pairs(s.load_up_to(x), s.load_up_to(from(x, S::LANES))))
    }

    #[inline(always)]
    fn across<S: Simd>(s: S, x: &[f32], y: &[f32], at: usize) -> S::V {
        let (a, b) = s.interleave(s.load_up_to(from(x, at)), s.load_up_to(from(y, at)));
        s.with_bits(s.pairs(a, b))
    }

    #[inline(always)]
    unsafe fn multiply<S: Simd, const R: usize, const C: usize>(
        s: S,
        a: *const f32,
        b: *const f32,
        mut sums: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        let (a, b): (*const u32, *const u32) = (a.cast(), b.cast());
        let mut y = [s.splat_word(0); C];
        // SAFETY: the caller's duty is the same.
        unsafe {
            for (c, y) in y.iter_mut().enumerate() {
                *y = s.load_words(b.add(c * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let x = s.splat_word(*a.add(r * S::LANES));
                for (sum, y) in sums.iter_mut().zip(y) {
                    *sum = s.dot_pairs(*sum, x, y);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn exponentials<S: Simd>(
        s: S,
        [x, y]: [S::V; 2],
        factor: f32,
        top: f32,
        sum: S::V,
        [to, _]: [&mut [f32]; 2],
    ) -> S::V {
        let (factor, offset) = (s.splat(factor), s.splat(-factor * top));
        let (x, y) = (s.fma(x, factor, offset), s.fma(y, factor, offset));
        let pairs = s.pairs(math::rough_exp2(s, x), math::rough_exp2(s, y));
        s.store_up_to(to, s.with_bits(pairs));
        s.dot_pairs(sum, pairs, s.pairs(s.splat(1.0), s.splat(1.0)))
    }
}
