//! Vector instructions: one trait, one leaf a kind of processor.
//!
//! Code that computes is written once over [`Simd`] and put in a [`Job`]; [`Isa::run`] compiles it for every leaf and
//! picks the one asked for. Holding an [`Isa`] proves that this processor has its instructions. All processor
//! intrinsics of the crate are in this folder; the leaves share file names' roles: `scalar`, `avx2`, `avx512`, `neon`.
//!
//! The order of every sum is fixed by the leaf alone, never by the number of rows, chunks or threads, so that one
//! ISA gives the same bits for any batch and any thread count.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod dot;
pub mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

use crate::error::{Error, Result};
use bytemuck::Pod;
use half::{bf16, f16};
use std::fmt;

/// The vector operations that the engine computes with. A value of an implementing type is a proof that the
/// processor has the leaf's instructions.
///
/// # Safety of implementations
/// Methods that take slices check their lengths; those that take pointers say what they need.
pub trait Simd: Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] floats.
    type V: Copy;
    /// Floats a vector.
    const LANES: usize;
    /// Accumulators that [`dot`] keeps in registers: a tile has this many outputs.
    const ACCUMULATORS: usize;

    /// All lanes `x`.
    fn splat(self, x: f32) -> Self::V;
    /// `LANES` floats from `x`.
    ///
    /// # Safety
    /// `x` is valid for reading `LANES` floats.
    unsafe fn load_ptr(self, x: *const f32) -> Self::V;
    /// `n < LANES` floats from `x`, zeros behind.
    ///
    /// # Safety
    /// `x` is valid for reading `n` floats and `n <= LANES`.
    unsafe fn load_tail_ptr(self, x: *const f32, n: usize) -> Self::V;
    /// Stores `LANES` floats at `x`.
    ///
    /// # Safety
    /// `x` is valid for writing `LANES` floats.
    unsafe fn store_ptr(self, x: *mut f32, v: Self::V);
    /// Stores the first `n < LANES` floats at `x`.
    ///
    /// # Safety
    /// `x` is valid for writing `n` floats and `n <= LANES`.
    unsafe fn store_tail_ptr(self, x: *mut f32, n: usize, v: Self::V);
    /// `LANES` bfloat16 numbers, widened.
    ///
    /// # Safety
    /// `x` is valid for reading `LANES` elements.
    unsafe fn load_bf16(self, x: *const bf16) -> Self::V;
    /// `LANES` half-precision numbers, widened.
    ///
    /// # Safety
    /// `x` is valid for reading `LANES` elements.
    unsafe fn load_f16(self, x: *const f16) -> Self::V;

    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the processor can.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger of each lane.
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// The smaller of each lane.
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// The nearest whole number, ties to even.
    fn round(self, a: Self::V) -> Self::V;
    /// `a * 2^n` for whole `n` in -126..=127.
    fn scale2(self, a: Self::V, n: Self::V) -> Self::V;
    /// `|a|` with the sign of `sign`.
    fn with_sign(self, a: Self::V, sign: Self::V) -> Self::V;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, a: Self::V) -> f32;
    /// The largest lane.
    fn largest(self, a: Self::V) -> f32;

    /// The sums of the lanes of `N <= 16` vectors, each in one and the same fixed order for any `N`.
    #[inline(always)]
    fn sums<const N: usize>(self, v: [Self::V; N]) -> [f32; N] {
        v.map(|v| self.sum(v))
    }

    /// All lanes zero.
    #[inline(always)]
    fn zero(self) -> Self::V {
        self.splat(0.0)
    }

    /// The first `LANES` floats of `x`. Panics if it is shorter.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::V {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the slice holds LANES floats.
        unsafe { self.load_ptr(x.as_ptr()) }
    }

    /// Up to `LANES` floats of `x`, zeros behind.
    #[inline(always)]
    fn load_up_to(self, x: &[f32]) -> Self::V {
        // SAFETY: the slice holds as many floats as are read.
        unsafe {
            if x.len() >= Self::LANES { self.load_ptr(x.as_ptr()) } else { self.load_tail_ptr(x.as_ptr(), x.len()) }
        }
    }

    /// Stores as many lanes as `x` holds, at most `LANES`.
    #[inline(always)]
    fn store_up_to(self, x: &mut [f32], v: Self::V) {
        // SAFETY: the slice holds as many floats as are written.
        unsafe {
            if x.len() >= Self::LANES {
                self.store_ptr(x.as_mut_ptr(), v)
            } else {
                self.store_tail_ptr(x.as_mut_ptr(), x.len(), v)
            }
        }
    }
}

/// An element type that weights are stored in and that widens to `f32` exactly.
pub trait Element: Pod + Send + Sync {
    /// `LANES` elements from `x`, widened.
    ///
    /// # Safety
    /// `x` is valid for reading `LANES` elements.
    unsafe fn load<S: Simd>(s: S, x: *const Self) -> S::V;

    /// `n < LANES` elements from `x`, widened, zeros behind.
    ///
    /// # Safety
    /// `x` is valid for reading `n` elements and `n <= LANES`.
    unsafe fn load_tail<S: Simd>(s: S, x: *const Self, n: usize) -> S::V;

    /// The element as `f32`.
    fn widen(self) -> f32;
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, x: *const Self) -> S::V {
        // SAFETY: the caller's duty is the same.
        unsafe { s.load_ptr(x) }
    }

    #[inline(always)]
    unsafe fn load_tail<S: Simd>(s: S, x: *const Self, n: usize) -> S::V {
        // SAFETY: the caller's duty is the same.
        unsafe { s.load_tail_ptr(x, n) }
    }

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

macro_rules! narrow_element {
    ($type:ty, $load:ident) => {
        impl Element for $type {
            #[inline(always)]
            unsafe fn load<S: Simd>(s: S, x: *const Self) -> S::V {
                // SAFETY: the caller's duty is the same.
                unsafe { s.$load(x) }
            }

            #[inline(always)]
            unsafe fn load_tail<S: Simd>(s: S, x: *const Self, n: usize) -> S::V {
                let mut full = [<$type>::ZERO; 64];
                // SAFETY: n <= LANES <= 64 elements are readable at x and fit into the array, which holds LANES.
                unsafe {
                    std::ptr::copy_nonoverlapping(x, full.as_mut_ptr(), n);
                    s.$load(full.as_ptr())
                }
            }

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
        }
    };
}
narrow_element!(bf16, load_bf16);
narrow_element!(f16, load_f16);

/// Work that [`Isa::run`] compiles for each leaf. Implement `run` with `#[inline(always)]`: only code that is inlined
/// into the leaf's entry uses its instructions.
pub trait Job {
    /// What the work gives.
    type Out;
    /// Does the work with the leaf `s`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// An instruction set that this processor has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Isa(Leaf);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Scalar(scalar::Scalar),
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Avx2),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon<neon::Baseline>),
    #[cfg(target_arch = "aarch64")]
    NeonDotProd(neon::Neon<neon::DotProd>),
    #[cfg(target_arch = "aarch64")]
    NeonBf16(neon::Neon<neon::Bf16>),
}

impl Isa {
    /// The best instruction set of this processor.
    pub fn detect() -> Self {
        Self::available().pop().unwrap_or(Self(Leaf::Scalar(scalar::Scalar)))
    }

    /// All instruction sets of this processor, the best last.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self(Leaf::Scalar(scalar::Scalar))];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(avx2::Avx2::new().map(|s| Self(Leaf::Avx2(s))));
            all.extend(avx512::Avx512::new().map(|s| Self(Leaf::Avx512(s))));
        }
        #[cfg(target_arch = "aarch64")]
        {
            all.extend(neon::Neon::<neon::Baseline>::new().map(|s| Self(Leaf::Neon(s))));
            all.extend(neon::Neon::<neon::DotProd>::new().map(|s| Self(Leaf::NeonDotProd(s))));
            all.extend(neon::Neon::<neon::Bf16>::new().map(|s| Self(Leaf::NeonBf16(s))));
        }
        all
    }

    /// The instruction set of that name; [`Error::Isa`] if this processor or this build lacks it.
    pub fn named(name: &str) -> Result<Self> {
        let all = Self::available();
        all.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| Error::Isa {
            asked: name.to_owned(),
            available: all.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`; on x86-64 `avx2` or `avx512`; on aarch64 `neon`, `neon-dotprod` or `neon-bf16`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Leaf::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512(_) => "avx512",
            #[cfg(target_arch = "aarch64")]
            Leaf::Neon(_) => "neon",
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonDotProd(_) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(_) => "neon-bf16",
        }
    }

    /// Does `job` with this instruction set.
    #[inline]
    pub fn run<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            Leaf::Scalar(s) => job.run(s),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2(s) => s.run(job),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512(s) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::Neon(s) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonDotProd(s) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(s) => s.run(job),
        }
    }
}

impl fmt::Debug for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests;
