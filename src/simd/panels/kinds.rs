//! How each format's numbers meet the input.

use super::AHEAD;
use crate::simd::Simd;
use crate::tensor::packed::{BLOCK, Form, LINE_WORDS, PANEL};
use half::f16;

// Loops rather than closures over arrays, which nothing forces into the leaf's entry: outside of it the instructions are
// lost.

/// A vector of floats from each place.
///
/// # Safety
/// `LANES` floats are readable at each.
#[inline(always)]
unsafe fn floats<S: Simd, const C: usize>(s: S, from: [*const u32; C]) -> [S::V; C] {
    let mut all = [s.zero(); C];
    for (v, from) in all.iter_mut().zip(from) {
        // SAFETY: the caller's duty is the same.
        *v = unsafe { s.load_ptr(from.cast()) };
    }
    all
}

/// A vector of words from each place.
///
/// # Safety
/// `LANES` words are readable at each.
#[inline(always)]
unsafe fn words<S: Simd, const C: usize>(s: S, from: [*const u32; C]) -> [S::I; C] {
    let mut all = [s.splat_word(0); C];
    for (v, from) in all.iter_mut().zip(from) {
        // SAFETY: the caller's duty is the same.
        *v = unsafe { s.load_words(from) };
    }
    all
}

/// Each place `words` further.
///
/// # Safety
/// So many words lie behind each, in one slice.
#[inline(always)]
pub(super) unsafe fn moved<const N: usize>(mut from: [*const u32; N], words: usize) -> [*const u32; N] {
    for from in &mut from {
        // SAFETY: the caller's duty is the same.
        *from = unsafe { from.add(words) };
    }
    from
}

/// How a format's numbers meet the input, a unit of lines at a time.
pub(super) trait Kind {
    /// Numbers along K a unit.
    const NUMBERS: usize;
    /// Words of an input row a unit.
    const WORDS: usize;
    /// Lines of a panel a unit.
    const LINES: usize;

    /// Whether the leaf multiplies so.
    #[inline(always)]
    fn is_for<S: Simd>() -> bool {
        true
    }

    /// Adds the products of one unit. With `HALF` only the first of a unit's two numbers is there.
    ///
    /// # Safety
    /// `WORDS` words are readable behind each `x` (one with `HALF`), `LINES` lines' share of a vector each behind
    /// each `w`.
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R];
}

/// [`Format::F32`](crate::tensor::Format::F32)
pub(super) struct Single;

impl Kind for Single {
    const NUMBERS: usize = 1;
    const WORDS: usize = 1;
    const LINES: usize = 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: a word of each row and a vector of each panel are readable.
        unsafe {
            let w = floats(s, w);
            for r in 0..R {
                let x = s.splat(*x[r].cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, w[c], acc[r][c]);
                }
            }
        }
        acc
    }
}

/// How two numbers of a word are widened, the lower first.
pub(super) trait Widen {
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V);
}

/// [`Format::Wide`](crate::tensor::Format::Wide)
pub(super) struct WidePair;

impl Widen for WidePair {
    #[inline(always)]
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V) {
        (s.pair_low(w), s.pair_high(w))
    }
}

/// [`Format::F16`](crate::tensor::Format::F16)
pub(super) struct HalfPair;

impl Widen for HalfPair {
    #[inline(always)]
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V) {
        let (mut words, mut low, mut high) = ([0u32; LINE_WORDS], [0.0f32; LINE_WORDS], [0.0f32; LINE_WORDS]);
        const { assert!(S::LANES <= LINE_WORDS) };
        // SAFETY: a vector has no more words than there is room for.
        unsafe { s.store_words(words.as_mut_ptr(), w) };
        for (word, (low, high)) in words.iter().zip(low.iter_mut().zip(&mut high)) {
            (*low, *high) = (f16::from_bits(*word as u16).to_f32(), f16::from_bits((*word >> 16) as u16).to_f32());
        }
        // SAFETY: as above.
        unsafe { (s.load_ptr(low.as_ptr()), s.load_ptr(high.as_ptr())) }
    }
}

impl<W: Widen> Kind for W {
    const NUMBERS: usize = 2;
    const WORDS: usize = 2;
    const LINES: usize = 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: two words of each row (one with HALF) and a vector of each panel are readable.
        unsafe {
            let w = words(s, w);
            let (mut low, mut high) = ([s.zero(); C], [s.zero(); C]);
            for ((low, high), w) in low.iter_mut().zip(&mut high).zip(w) {
                (*low, *high) = W::widen(s, w);
            }
            for r in 0..R {
                let x = s.splat(*x[r].cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, low[c], acc[r][c]);
                }
            }
            if HALF {
                return acc;
            }
            for r in 0..R {
                let x = s.splat(*x[r].add(1).cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, high[c], acc[r][c]);
                }
            }
        }
        acc
    }
}

/// [`Format::Bf16`](crate::tensor::Format::Bf16)
pub(super) struct Pair;

impl Kind for Pair {
    const NUMBERS: usize = 2;
    const WORDS: usize = 1;
    const LINES: usize = 1;

    #[inline(always)]
    fn is_for<S: Simd>() -> bool {
        S::MULTIPLIES_PAIRS
    }

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: a word of each row and a vector of each panel are readable.
        unsafe {
            let w = words(s, w);
            for r in 0..R {
                let x = s.splat_word(*x[r]);
                for c in 0..C {
                    acc[r][c] = s.dot_pairs(acc[r][c], x, w[c]);
                }
            }
        }
        acc
    }
}

/// Lines of a block's bytes, and words of a row's.
pub(super) const QUADS: usize = BLOCK / 4;

/// Adds the sums of a block of each output, of which the input's scales lie in word `scale` of `x` and the weights' in the last
/// line.
///
/// # Safety
/// `scale + 1` words are readable behind each `x`, a vector of `QUADS + 1` lines behind each `w`.
#[inline(always)]
unsafe fn scaled<S: Simd, const R: usize, const C: usize>(
    s: S,
    (x, scale): ([*const u32; R], usize),
    w: [*const u32; C],
    sums: [[S::I; C]; R],
    mut acc: [[S::V; C]; R],
) -> [[S::V; C]; R] {
    // SAFETY: the caller's duty is the same.
    unsafe {
        let scales = floats(s, moved(w, QUADS * LINE_WORDS));
        for r in 0..R {
            let scale = s.splat(*x[r].add(scale).cast());
            for c in 0..C {
                acc[r][c] = s.fma(s.to_float(sums[r][c]), s.mul(scale, scales[c]), acc[r][c]);
            }
        }
    }
    acc
}

/// What the sums of a block start with: word `at` of `x`, -128 times the inputs' sum, as the weights carry 128 too much.
///
/// # Safety
/// `at + 1` words are readable behind each `x`.
#[inline(always)]
unsafe fn starts<S: Simd, const R: usize, const C: usize>(s: S, x: [*const u32; R], at: usize) -> [[S::I; C]; R] {
    let mut sums = [[s.splat_word(0); C]; R];
    for (sums, x) in sums.iter_mut().zip(x) {
        // SAFETY: the caller's duty is the same.
        *sums = [s.splat_word(unsafe { *x.add(at) }); C];
    }
    sums
}

/// Asks for the line of each panel that comes a while after line `line`.
#[inline(always)]
pub(super) fn fetch_ahead<S: Simd, const C: usize>(s: S, w: [*const u32; C], line: usize) {
    let panels = w.iter().step_by(PANEL / S::LANES);
    let line = line + AHEAD / panels.len();
    for w in panels {
        s.prefetch(w.wrapping_add(line * LINE_WORDS));
    }
}

/// [`Format::Q8`](crate::tensor::Format::Q8)
pub(super) struct Block;

impl Kind for Block {
    const NUMBERS: usize = BLOCK;
    const WORDS: usize = Form::Blocks.unit().1;
    const LINES: usize = QUADS + 1;

    #[inline(always)]
    fn is_for<S: Simd>() -> bool {
        !S::SPREADS_QUADS
    }

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: QUADS + 2 words of each row and a vector of QUADS + 1 lines of each panel are readable.
        unsafe {
            let mut sums = starts(s, x, QUADS + 1);
            for quad in 0..QUADS {
                fetch_ahead(s, w, quad);
                let w = words(s, moved(w, quad * LINE_WORDS));
                for r in 0..R {
                    let x = s.splat_word(*x[r].add(quad));
                    for c in 0..C {
                        sums[r][c] = s.dot_quads(sums[r][c], w[c], x);
                    }
                }
            }
            scaled(s, (x, QUADS), w, sums, acc)
        }
    }
}

/// [`Format::Q8`](crate::tensor::Format::Q8) with the input taken apart.
pub(super) struct SpreadBlock;

impl Kind for SpreadBlock {
    const NUMBERS: usize = BLOCK;
    const WORDS: usize = Form::Blocks.spread_words(BLOCK);
    const LINES: usize = QUADS + 1;

    #[inline(always)]
    fn is_for<S: Simd>() -> bool {
        S::SPREADS_QUADS
    }

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: 2 QUADS + 2 words of each row and a vector of QUADS + 1 lines of each panel are readable.
        unsafe {
            let mut sums = starts(s, x, 2 * QUADS + 1);
            for quad in 0..QUADS {
                fetch_ahead(s, w, quad);
                let w = words(s, moved(w, quad * LINE_WORDS));
                let (mut even, mut odd) = (w, w);
                for (w, (even, odd)) in w.into_iter().zip(even.iter_mut().zip(&mut odd)) {
                    [*even, *odd] = s.unsigned_halves(w);
                }
                for r in 0..R {
                    let x_even = s.splat_word(*x[r].add(quad));
                    for c in 0..C {
                        sums[r][c] = s.dot_halves(sums[r][c], even[c], x_even);
                    }
                    let x_odd = s.splat_word(*x[r].add(QUADS + quad));
                    for c in 0..C {
                        sums[r][c] = s.dot_halves(sums[r][c], odd[c], x_odd);
                    }
                }
            }
            scaled(s, (x, 2 * QUADS), w, sums, acc)
        }
    }
}
