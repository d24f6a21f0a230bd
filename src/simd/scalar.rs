//! The leaf for any processor: four lanes in an array, plain Rust. The compiler may use what every processor of the
//! target has.

use super::sealed::Sealed;
use super::{Simd, rounded};

/// Proof of nothing: every processor has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Scalar;

type V = [f32; 4];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Sealed for Scalar {}

impl Simd for Scalar {
    type V = V;
    type I = [u32; 4];
    const LANES: usize = 4;
    const REGISTERS: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        [x; 4]
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> V {
        // SAFETY: four floats are readable at x; the array type has their alignment.
        unsafe { x.cast::<V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_tail_ptr(self, x: *const f32, n: usize) -> V {
        // SAFETY: only the first n <= 4 floats are read.
        std::array::from_fn(|i| if i < n { unsafe { *x.add(i) } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: V) {
        // SAFETY: four floats are writable at x.
        unsafe { x.cast::<V>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_tail_ptr(self, x: *mut f32, n: usize, v: V) {
        for (i, v) in v.into_iter().enumerate().take(n) {
            // SAFETY: i < n floats are writable at x.
            unsafe { *x.add(i) = v };
        }
    }

    #[inline(always)]
    unsafe fn load_words(self, x: *const u32) -> [u32; 4] {
        // SAFETY: four words are readable at x; the array type has their alignment.
        unsafe { x.cast::<[u32; 4]>().read_unaligned() }
    }

    #[inline(always)]
    fn splat_word(self, x: u32) -> [u32; 4] {
        [x; 4]
    }

    #[inline(always)]
    fn pair_low(self, w: [u32; 4]) -> V {
        w.map(|w| f32::from_bits(w << 16))
    }

    #[inline(always)]
    fn pair_high(self, w: [u32; 4]) -> V {
        w.map(|w| f32::from_bits(w & 0xffff_0000))
    }

    #[inline(always)]
    fn dot_quads(self, acc: [u32; 4], w: [u32; 4], x: [u32; 4]) -> [u32; 4] {
        let byte = |i: u32, w: u32, x: u32| i32::from((w >> i) as u8) * i32::from((x >> i) as i8);
        let dot = |w, x| byte(0, w, x) + byte(8, w, x) + byte(16, w, x) + byte(24, w, x);
        std::array::from_fn(|i| acc[i].wrapping_add(dot(w[i], x[i]) as u32))
    }

    #[inline(always)]
    fn to_float(self, x: [u32; 4]) -> V {
        x.map(|x| x as i32 as f32)
    }

    #[inline(always)]
    fn pairs(self, a: V, b: V) -> [u32; 4] {
        let pair = |x: f32, y: f32| rounded(x) >> 16 | rounded(y) & 0xffff_0000;
        [pair(a[0], a[1]), pair(a[2], a[3]), pair(b[0], b[1]), pair(b[2], b[3])]
    }

    #[inline(always)]
    fn with_bits(self, w: [u32; 4]) -> V {
        w.map(f32::from_bits)
    }

    #[inline(always)]
    unsafe fn store_words(self, x: *mut u32, v: [u32; 4]) {
        // SAFETY: four words are writable at x.
        unsafe { x.cast::<[u32; 4]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, x: *mut i8, v: V) {
        // SAFETY: four bytes are writable at x.
        unsafe { x.cast::<[i8; 4]>().write_unaligned(v.map(|v| v as i8)) }
    }

    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }

    /// Rounded twice: a fused product in software costs some fifty times more.
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn round(self, a: V) -> V {
        a.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn scale2(self, a: V, n: V) -> V {
        zip(a, n, |a, n| a * f32::from_bits(((n as i32 + 127) << 23) as u32))
    }

    #[inline(always)]
    fn with_sign(self, a: V, sign: V) -> V {
        zip(a, sign, f32::copysign)
    }

    #[inline(always)]
    fn sum(self, a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }

    #[inline(always)]
    fn largest(self, a: V) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}
