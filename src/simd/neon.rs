//! The leaves for aarch64: four lanes, 32 registers, tails by lane loads.
//!
//! One register a vector rather than two: a tile of 6 rows and a panel of 16 columns then takes 24 of the 32 registers and
//! leaves room for its operands.
//!
//! All leaves compute alike on floats and differ in how they multiply pairs of bfloat16 and quads of bytes:
//! [`products`].

mod products;

use super::Simd;
use super::sealed::Sealed;
use products::Products;
pub(super) use products::{Baseline, Bf16, DotProd};
use std::arch::aarch64::*;

/// Proof that the processor has NEON, and the instructions that `P` multiplies with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Neon<P>(P);

/// A method that is one intrinsic.
macro_rules! intrinsic {
    ($($name:ident($($arg:ident),*) = $call:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: float32x4_t),*) -> float32x4_t {
                // SAFETY: self proves NEON.
                unsafe { $call }
            }
        )*
    };
}

impl<P> Sealed for Neon<P> {}

impl<P: Products> Simd for Neon<P> {
    type V = float32x4_t;
    type I = uint32x4_t;
    const LANES: usize = 4;
    const REGISTERS: usize = 32;
    const MULTIPLIES_PAIRS: bool = P::MULTIPLIES_PAIRS;

    intrinsic! {
        add(a, b) = vaddq_f32(a, b);
        sub(a, b) = vsubq_f32(a, b);
        mul(a, b) = vmulq_f32(a, b);
        div(a, b) = vdivq_f32(a, b);
        fma(a, b, c) = vfmaq_f32(c, a, b);
        max(a, b) = vmaxnmq_f32(a, b);
        min(a, b) = vminnmq_f32(a, b);
        round(a) = vrndnq_f32(a);
        scale2(a, n) = {
            let exponent = vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127));
            vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        };
        with_sign(a, sign) = vbslq_f32(vdupq_n_u32(1 << 31), sign, a);
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> float32x4_t {
        // SAFETY: four floats are readable at x; self proves NEON.
        unsafe { vld1q_f32(x) }
    }

    #[inline(always)]
    unsafe fn load_tail_ptr(self, x: *const f32, n: usize) -> float32x4_t {
        let zero = self.zero();
        // SAFETY: each arm reads n floats, the last one four, which n is there; self proves NEON.
        unsafe {
            match n {
                0 => zero,
                1 => vld1q_lane_f32::<0>(x, zero),
                2 => vcombine_f32(vld1_f32(x), vget_high_f32(zero)),
                3 => vld1q_lane_f32::<2>(x.add(2), vcombine_f32(vld1_f32(x), vget_high_f32(zero))),
                _ => vld1q_f32(x),
            }
        }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: float32x4_t) {
        // SAFETY: four floats are writable at x; self proves NEON.
        unsafe { vst1q_f32(x, v) }
    }

    #[inline(always)]
    unsafe fn store_tail_ptr(self, x: *mut f32, n: usize, v: float32x4_t) {
        // SAFETY: each arm writes n floats, the last one four, which n is there; self proves NEON.
        unsafe {
            match n {
                0 => {}
                1 => vst1q_lane_f32::<0>(x, v),
                2 => vst1_f32(x, vget_low_f32(v)),
                3 => {
                    vst1_f32(x, vget_low_f32(v));
                    vst1q_lane_f32::<2>(x.add(2), v);
                }
                _ => vst1q_f32(x, v),
            }
        }
    }

    #[inline(always)]
    unsafe fn load_words(self, x: *const u32) -> uint32x4_t {
        // SAFETY: four words are readable at x; self proves NEON.
        unsafe { vld1q_u32(x) }
    }

    #[inline(always)]
    fn splat_word(self, x: u32) -> uint32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vdupq_n_u32(x) }
    }

    #[inline(always)]
    fn pair_low(self, w: uint32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vreinterpretq_f32_u32(vshlq_n_u32::<16>(w)) }
    }

    #[inline(always)]
    fn pair_high(self, w: uint32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vreinterpretq_f32_u32(vandq_u32(w, vdupq_n_u32(0xffff_0000))) }
    }

    #[inline(always)]
    fn dot_pairs(self, acc: float32x4_t, x: uint32x4_t, w: uint32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { self.0.bf16_dot(acc, vreinterpretq_u16_u32(x), vreinterpretq_u16_u32(w)) }
    }

    #[inline(always)]
    fn dot_quads(self, acc: uint32x4_t, w: uint32x4_t, x: uint32x4_t) -> uint32x4_t {
        // SAFETY: self proves NEON.
        unsafe {
            let (acc, w, x) = (vreinterpretq_s32_u32(acc), vreinterpretq_u8_u32(w), vreinterpretq_s8_u32(x));
            vreinterpretq_u32_s32(self.0.i8_dot(acc, w, x))
        }
    }

    #[inline(always)]
    fn to_float(self, x: uint32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vcvtq_f32_s32(vreinterpretq_s32_u32(x)) }
    }

    #[inline(always)]
    fn pairs(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vreinterpretq_u32_u16(vcombine_u16(rounded(a), rounded(b))) }
    }

    #[inline(always)]
    fn with_bits(self, w: uint32x4_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { vreinterpretq_f32_u32(w) }
    }

    #[inline(always)]
    unsafe fn store_words(self, x: *mut u32, v: uint32x4_t) {
        // SAFETY: four words are writable at x; self proves NEON.
        unsafe { vst1q_u32(x, v) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, x: *mut i8, v: float32x4_t) {
        // SAFETY: four bytes are writable at x, which need not be aligned; self proves NEON.
        unsafe {
            let halves = vqmovn_s32(vcvtnq_s32_f32(v));
            let bytes = vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(halves, halves)));
            x.cast::<u32>().write_unaligned(vget_lane_u32::<0>(bytes));
        }
    }

    #[inline(always)]
    fn interleave(self, a: float32x4_t, b: float32x4_t) -> (float32x4_t, float32x4_t) {
        // SAFETY: self proves NEON.
        unsafe { (vzip1q_f32(a, b), vzip2q_f32(a, b)) }
    }

    #[inline(always)]
    fn sum(self, a: float32x4_t) -> f32 {
        self.sums([a])[0]
    }

    /// Four sums a tree of three pairwise additions: each level adds the same pairs of lanes of every vector, so a
    /// vector's sum does not depend on its place or company.
    #[inline(always)]
    fn sums<const N: usize>(self, v: [float32x4_t; N]) -> [f32; N] {
        const { assert!(N <= 16) };
        let at = |i: usize| if i < N { v[i] } else { self.zero() };
        let mut out = [0.0; 16];
        let mut i = 0;
        while i < N {
            // SAFETY: i is a multiple of 4 below 16, so four floats fit behind it; self proves NEON.
            unsafe {
                let (p, q) = (vpaddq_f32(at(i), at(i + 1)), vpaddq_f32(at(i + 2), at(i + 3)));
                vst1q_f32(out.as_mut_ptr().add(i), vpaddq_f32(p, q));
            }
            i += 4;
        }
        std::array::from_fn(|i| out[i])
    }

    #[inline(always)]
    fn largest(self, a: float32x4_t) -> f32 {
        // SAFETY: self proves NEON.
        unsafe { vmaxnmvq_f32(a) }
    }
}

/// The bf16 of each lane, rounded to the nearest, ties to even.
#[inline]
#[target_feature(enable = "neon")]
fn rounded(x: float32x4_t) -> uint16x4_t {
    let bits = vreinterpretq_u32_f32(x);
    let lowest = vandq_u32(vshrq_n_u32::<16>(bits), vdupq_n_u32(1));
    let sum = vaddq_u32(bits, vaddq_u32(lowest, vdupq_n_u32(0x7fff)));
    // What is not a number must not become an infinity, neither by rounding nor by losing its lower bits.
    let quiet = vorrq_u32(bits, vdupq_n_u32(1 << 22));
    vshrn_n_u32::<16>(vbslq_u32(vceqq_f32(x, x), sum, quiet))
}
