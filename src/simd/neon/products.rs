//! Products of pairs of bfloat16 and of quads of bytes, by what each kind of aarch64 processor has for them.
//!
//! The instructions are written in assembly: their intrinsics are not stable.

use super::Neon;
use crate::simd::Job;
use std::arch::aarch64::*;
use std::arch::asm;

/// How a leaf multiplies narrow numbers. A value is a proof that the processor has the leaf's instructions.
pub(in crate::simd) trait Products: Copy + Send + Sync + 'static {
    /// Whether [`Products::bf16_dot`] is an instruction.
    const MULTIPLIES_PAIRS: bool = false;

    /// `acc + x0 w0 + x1 w1` for each lane of `acc` and the pairs of bfloat16, given by their bits, at its place in `x`
    /// and `w`. Products and sums are rounded to `f32`, an instruction set in its own way, by at most one unit in the
    /// last place each; the smallest numbers (below 2^-126) may count as zero.
    fn bf16_dot(self, acc: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t;

    /// `acc + x0 w0 + x1 w1 + x2 w2 + x3 w3` for each lane of `acc` and the quads of bytes at its place in `x` and `w`:
    /// exact, and modulo 2^32 where it does not fit.
    fn i8_dot(self, acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t;
}

/// A proof of features, and the leaf with them.
macro_rules! level {
    ($(#[$doc:meta])* $name:ident: $($feature:tt)+) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(in crate::simd) struct $name(());

        impl Neon<$name> {
            /// The leaf, where the processor has its instructions.
            pub(in crate::simd) fn new() -> Option<Self> {
                let has = true $(&& std::arch::is_aarch64_feature_detected!($feature))+;
                has.then_some(Neon($name(())))
            }

            /// Does `job`, compiled for this leaf.
            #[inline]
            pub(in crate::simd) fn run<J: Job>(self, job: J) -> J::Out {
                #[target_feature($(enable = $feature),+)]
                fn entry<J: Job>(s: Neon<$name>, job: J) -> J::Out {
                    job.run(s)
                }
                // SAFETY: self proves that the processor has these features.
                unsafe { entry(self, job) }
            }
        }
    };
}

level! {
    /// Proof of NEON, which every aarch64 processor of today has.
    Baseline: "neon"
}
level! {
    /// Proof of NEON and of dot products of signed bytes: Cortex-A55, A76 and Apple's M1 have them, and what came later.
    DotProd: "neon" "dotprod"
}
level! {
    /// Proof of NEON, of dot products of bytes and of those of bfloat16: Neoverse V1 and N2, Apple's M2 and what came later.
    Bf16: "neon" "dotprod" "i8mm" "bf16"
}

impl Products for Baseline {
    #[inline(always)]
    fn bf16_dot(self, acc: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { bf16_dot_by_floats(acc, x, w) }
    }

    #[inline(always)]
    fn i8_dot(self, acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: self proves NEON.
        unsafe {
            let w = signed(w);
            // A product has at most 2^14, so it fits 16 bits, and the sum of two of them does not.
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(w, x));
            vaddq_s32(vaddq_s32(acc, sums_times_128(x)), vpaddq_s32(low, high))
        }
    }
}

impl Products for DotProd {
    #[inline(always)]
    fn bf16_dot(self, acc: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t {
        // SAFETY: self proves NEON.
        unsafe { bf16_dot_by_floats(acc, x, w) }
    }

    #[inline(always)]
    fn i8_dot(self, acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: self proves NEON and dot products.
        unsafe { sdot(vaddq_s32(acc, sums_times_128(x)), signed(w), x) }
    }
}

impl Products for Bf16 {
    const MULTIPLIES_PAIRS: bool = true;

    #[inline(always)]
    fn bf16_dot(self, acc: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t {
        // SAFETY: self proves products of bfloat16.
        unsafe { bfdot(acc, x, w) }
    }

    #[inline(always)]
    fn i8_dot(self, acc: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: self proves products of unsigned and signed bytes.
        unsafe { usdot(acc, w, x) }
    }
}

/// A bfloat16 is the upper half of a float, and a product of two of them is exact in one.
#[inline]
#[target_feature(enable = "neon")]
fn bf16_dot_by_floats(acc: float32x4_t, x: uint16x8_t, w: uint16x8_t) -> float32x4_t {
    let first = |pair| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_u16(pair)));
    let second = |pair| vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(pair), vdupq_n_u32(0xFFFF_0000)));
    vfmaq_f32(vfmaq_f32(acc, first(x), first(w)), second(x), second(w))
}

/// `w - 128`.
#[inline]
#[target_feature(enable = "neon")]
fn signed(w: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(w, vdupq_n_u8(128)))
}

/// 128 times the sum of each quad: what [`signed`] took from a product with `x`. The same for all `w`, so a compiler
/// may compute it once.
#[inline]
#[target_feature(enable = "neon")]
fn sums_times_128(x: int8x16_t) -> int32x4_t {
    vshlq_n_s32::<7>(vpaddlq_s16(vpaddlq_s8(x)))
}

/// A function that is one instruction on three registers, the first of which it adds to.
macro_rules! instruction {
    ($(#[$doc:meta])* $name:ident($acc:ty, $a:ty, $b:ty) = $feature:literal $text:literal) => {
        $(#[$doc])*
        #[inline]
        #[target_feature(enable = "neon", enable = $feature)]
        fn $name(mut acc: $acc, a: $a, b: $b) -> $acc {
            // SAFETY: the function's features have the instruction; it touches these registers and no flags.
            unsafe {
                asm!(
                    $text,
                    acc = inout(vreg) acc,
                    a = in(vreg) a,
                    b = in(vreg) b,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            acc
        }
    };
}
instruction! {
    /// Each lane of `acc` plus its pair of products, each of the three operations rounded to odd.
    bfdot(float32x4_t, uint16x8_t, uint16x8_t) = "bf16" "bfdot {acc:v}.4s, {a:v}.8h, {b:v}.8h"
}
instruction! {
    /// Each lane of `acc` plus its quad of products of unsigned with signed bytes.
    usdot(int32x4_t, uint8x16_t, int8x16_t) = "i8mm" "usdot {acc:v}.4s, {a:v}.16b, {b:v}.16b"
}
instruction! {
    /// Each lane of `acc` plus its quad of products of signed bytes.
    sdot(int32x4_t, int8x16_t, int8x16_t) = "dotprod" "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b"
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;
    use proptest::prelude::*;

    /// Does it with the products of every leaf that this processor has.
    macro_rules! every_leaf {
        ($products:ident, $name:ident => $body:expr) => {
            every_leaf!($products, $name => $body, Baseline DotProd Bf16);
        };
        ($products:ident, $name:ident => $body:expr, $($leaf:ident)*) => {
            $(if let Some(Neon($products)) = Neon::<$leaf>::new() {
                let $name = stringify!($leaf);
                $body
            })*
        };
    }

    fn bf16_dot(p: impl Products, acc: [f32; 4], x: [bf16; 8], w: [bf16; 8]) -> [f32; 4] {
        let mut out = [0.0; 4];
        // SAFETY: p proves NEON; every array is one register long.
        unsafe {
            let (x, w) = (vld1q_u16(x.as_ptr().cast()), vld1q_u16(w.as_ptr().cast()));
            vst1q_f32(out.as_mut_ptr(), p.bf16_dot(vld1q_f32(acc.as_ptr()), x, w));
        }
        out
    }

    fn i8_dot(p: impl Products, acc: [i32; 4], w: [u8; 16], x: [i8; 16]) -> [i32; 4] {
        let mut out = [0; 4];
        // SAFETY: p proves NEON; every array is one register long.
        unsafe {
            let (w, x) = (vld1q_u8(w.as_ptr()), vld1q_s8(x.as_ptr()));
            vst1q_s32(out.as_mut_ptr(), p.i8_dot(vld1q_s32(acc.as_ptr()), w, x));
        }
        out
    }

    fn naive_i8_dot(acc: [i32; 4], w: [u8; 16], x: [i8; 16]) -> [i32; 4] {
        let product = |i: usize| w[i] as i32 * x[i] as i32;
        std::array::from_fn(|l| (4 * l..4 * l + 4).fold(acc[l], |acc, i| acc.wrapping_add(product(i))))
    }

    proptest! {
        #[test]
        fn pairs_of_bfloat16_are_multiplied_and_added(
            acc in prop::array::uniform4(-1e3f32..1e3),
            x in prop::array::uniform8(-10f32..10.0),
            w in prop::array::uniform8(-10f32..10.0),
        ) {
            let (x, w) = (x.map(bf16::from_f32), w.map(bf16::from_f32));
            every_leaf!(p, name => {
                for (l, &y) in bf16_dot(p, acc, x, w).iter().enumerate() {
                    let terms = [acc[l] as f64, x[2 * l].to_f64() * w[2 * l].to_f64(), x[2 * l + 1].to_f64() * w[2 * l + 1].to_f64()];
                    // Two sums, each rounded by at most a unit in the last place; the products are exact.
                    let bound = terms.iter().map(|t| t.abs()).sum::<f64>() * 2.0 * f32::EPSILON as f64;
                    let apart = (y as f64 - terms.iter().sum::<f64>()).abs();
                    prop_assert!(apart <= bound, "{name} lane {l}: {y}, {apart:e} from {terms:?}");
                }
            });
        }

        #[test]
        fn quads_of_bytes_are_multiplied_and_added_exactly(acc: [i32; 4], w: [u8; 16], x: [i8; 16]) {
            every_leaf!(p, name => prop_assert_eq!(i8_dot(p, acc, w, x), naive_i8_dot(acc, w, x), "{}", name));
        }
    }

    #[test]
    fn the_extremes_of_bytes_do_not_overflow() {
        for (w, x) in [(0, -128), (0, 127), (255, -128), (255, 127), (128, -128), (127, -128)] {
            let (w, x) = ([w; 16], [x; 16]);
            every_leaf!(p, name => assert_eq!(i8_dot(p, [7; 4], w, x), naive_i8_dot([7; 4], w, x), "{name} {w:?} {x:?}"));
        }
    }
}
