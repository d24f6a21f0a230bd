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
pub mod math;
#[cfg(target_arch = "aarch64")]
mod neon;
pub mod panels;
mod scalar;

use crate::error::{Error, Result};
use crate::tensor::Precision;
use crate::tensor::packed::Form;
use std::fmt;

/// The vector operations that the engine computes with. A value of an implementing type is a proof that the
/// processor has the leaf's instructions.
///
/// The leaves alone implement it: code around it relies on what they say of themselves.
///
/// # Safety of implementations
/// Methods that take slices check their lengths; those that take pointers say what they need.
pub trait Simd: sealed::Sealed + Copy + Send + Sync + 'static {
    /// A vector of [`Simd::LANES`] floats.
    type V: Copy;
    /// A vector of as many 32-bit words.
    type I: Copy;
    /// Floats a vector.
    const LANES: usize;
    /// Vector registers of the processor: what tiles are sized by.
    const REGISTERS: usize;
    /// Whether [`Simd::dot_pairs`] is an instruction. Elsewhere, what multiplies the same pairs again and again had better
    /// take them apart once.
    const MULTIPLIES_PAIRS: bool = false;
    /// Whether [`Simd::dot_quads`] had better be taken apart too, into [`Simd::dot_halves`].
    const SPREADS_QUADS: bool = false;

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
    /// `LANES` words from `x`.
    ///
    /// # Safety
    /// `x` is valid for reading `LANES` words.
    unsafe fn load_words(self, x: *const u32) -> Self::I;
    /// All lanes `x`.
    fn splat_word(self, x: u32) -> Self::I;
    /// The bfloat16 in the lower half of each word, widened.
    fn pair_low(self, w: Self::I) -> Self::V;
    /// The bfloat16 in the upper half of each word, widened.
    fn pair_high(self, w: Self::I) -> Self::V;
    /// In each lane `acc + x0 w0 + x1 w1`, x and w pairs of bfloat16. Roundings, their order and what becomes of
    /// numbers below 1.2e-38 are the leaf's.
    #[inline(always)]
    fn dot_pairs(self, acc: Self::V, x: Self::I, w: Self::I) -> Self::V {
        let acc = self.fma(self.pair_low(x), self.pair_low(w), acc);
        self.fma(self.pair_high(x), self.pair_high(w), acc)
    }
    /// In each lane `acc + w0 x0 + w1 x1 + w2 x2 + w3 x3`, w unsigned and x signed bytes, exactly.
    fn dot_quads(self, acc: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// In each lane `acc + w0 x0 + w1 x1`, w and x signed integers of 16 bits, exactly.
    #[inline(always)]
    fn dot_halves(self, acc: Self::I, w: Self::I, x: Self::I) -> Self::I {
        let product = |w: u32, x: u32| i32::from(w as i16).wrapping_mul(i32::from(x as i16)) as u32;
        let dot = |w, x| product(w, x).wrapping_add(product(w >> 16, x >> 16));
        self.word_by_word([acc, w, x], |[acc, w, x]| acc.wrapping_add(dot(w, x)))
    }
    /// Bytes 0 and 2 of each word as 16-bit integers, and bytes 1 and 3: of unsigned bytes.
    #[inline(always)]
    fn unsigned_halves(self, w: Self::I) -> [Self::I; 2] {
        [0, 8].map(|by| self.word_by_word([w], |[w]| w >> by & 0x00ff_00ff))
    }
    /// The same of signed bytes.
    #[inline(always)]
    fn signed_halves(self, x: Self::I) -> [Self::I; 2] {
        let signed = |x: u32| u32::from(i16::from(x as i8) as u16);
        [0, 8].map(|by| self.word_by_word([x], |[x]| signed(x >> by) | signed(x >> by >> 16) << 16))
    }
    /// What no instruction does.
    #[inline(always)]
    fn word_by_word<const N: usize>(self, x: [Self::I; N], f: impl Fn([u32; N]) -> u32) -> Self::I {
        const { assert!(Self::LANES <= 64) };
        let (mut words, mut out) = ([[0; 64]; N], [0; 64]);
        // SAFETY: LANES words fit into each array.
        unsafe {
            for (words, x) in words.iter_mut().zip(x) {
                self.store_words(words.as_mut_ptr(), x);
            }
            for (i, out) in out.iter_mut().enumerate().take(Self::LANES) {
                *out = f(std::array::from_fn(|n| words[n][i]));
            }
            self.load_words(out.as_ptr())
        }
    }
    /// Signed words as floats, rounded to the nearest.
    fn to_float(self, x: Self::I) -> Self::V;
    /// The numbers of `a` and then of `b`, rounded to bfloat16 (the nearest, ties to even), two neighbours a word. What
    /// becomes of numbers below 1.2e-38 is the leaf's.
    fn pairs(self, a: Self::V, b: Self::V) -> Self::I;
    /// The floats with these bits.
    fn with_bits(self, w: Self::I) -> Self::V;
    /// Stores `LANES` words at `x`.
    ///
    /// # Safety
    /// `x` is valid for writing `LANES` words.
    unsafe fn store_words(self, x: *mut u32, v: Self::I);
    /// Stores `LANES` whole numbers from -128 to 127 as bytes at `x`.
    ///
    /// # Safety
    /// `x` is valid for writing `LANES` bytes.
    unsafe fn store_bytes(self, x: *mut i8, v: Self::V);
    /// Asks for the cache line at `x`, which need not be valid.
    #[inline(always)]
    fn prefetch(self, x: *const u32) {
        let _ = x;
    }

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

    /// The lanes of `a` and `b` by turns, `a`'s first: the first halves of both, then the second halves.
    #[inline(always)]
    fn interleave(self, a: Self::V, b: Self::V) -> (Self::V, Self::V) {
        const { assert!(Self::LANES <= 64) };
        let (mut x, mut y) = ([0.0; 64], [0.0; 128]);
        // SAFETY: LANES floats fit into `x` and twice as many into `y`.
        unsafe {
            for (first, v) in [(0, a), (1, b)] {
                self.store_ptr(x.as_mut_ptr(), v);
                for i in 0..Self::LANES {
                    y[2 * i + first] = x[i];
                }
            }
            (self.load_ptr(y.as_ptr()), self.load_ptr(y.as_ptr().add(Self::LANES)))
        }
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

    /// The floats of `x` from `at` on: `LANES` of them if `WHOLE` (panics if there are fewer), else those that are left,
    /// zeros behind. See [`along`].
    #[inline(always)]
    fn load_at<const WHOLE: bool>(self, x: &[f32], at: usize) -> Self::V {
        if WHOLE { self.load(&x[at..at + Self::LANES]) } else { self.load_up_to(&x[at..]) }
    }

    /// Stores what [`Simd::load_at`] loads.
    #[inline(always)]
    fn store_at<const WHOLE: bool>(self, x: &mut [f32], at: usize, v: Self::V) {
        if WHOLE { self.store_up_to(&mut x[at..at + Self::LANES], v) } else { self.store_up_to(&mut x[at..], v) }
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

/// What keeps [`Simd`] among the leaves.
mod sealed {
    pub trait Sealed {}
}

/// The bits of `x` rounded to bfloat16 (the nearest, ties to even) in the upper half, rubbish in the lower.
#[inline(always)]
fn rounded(x: f32) -> u32 {
    let bits = x.to_bits();
    // What is not a number must not become an infinity, neither by rounding nor by losing its lower bits.
    if x.is_nan() { bits | 1 << 22 } else { bits.wrapping_add(0x7fff + (bits >> 16 & 1)) }
}

/// Work that [`Isa::run`] compiles for each leaf. Implement `run` with `#[inline(always)]`: only code that is inlined
/// into the leaf's entry uses its instructions.
pub trait Job {
    /// What the work gives.
    type Out;
    /// Does the work with the leaf `s`.
    fn run<S: Simd>(self, s: S) -> Self::Out;
}

/// Something done along rows of floats, a vector at a time, with [`Simd::load_at`] and [`Simd::store_at`].
pub trait Along {
    /// Does it for the vector from float `at` on: a whole one if `WHOLE`, else what is left of the rows.
    fn vector<S: Simd, const WHOLE: bool>(&mut self, s: S, at: usize);
}

/// Does it for all vectors of rows of `n` floats: so nothing is asked for each but the last.
#[inline(always)]
pub fn along<S: Simd>(s: S, n: usize, job: &mut impl Along) {
    let mut at = 0;
    while at + S::LANES <= n {
        job.vector::<S, true>(s, at);
        at += S::LANES;
    }
    if at < n {
        job.vector::<S, false>(s, at);
    }
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
    AvxVnni(avx2::Avx2, avx2::AvxVnni),
    #[cfg(target_arch = "x86_64")]
    Avx512(avx512::Avx512),
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni(avx512::Avx512, avx512::Avx512Vnni),
    #[cfg(target_arch = "x86_64")]
    Avx512Bf16(avx512::Avx512, avx512::Avx512Bf16),
    #[cfg(target_arch = "aarch64")]
    Neon(neon::Neon<neon::Baseline>),
    #[cfg(target_arch = "aarch64")]
    NeonDotProd(neon::Neon<neon::Baseline>, neon::Neon<neon::DotProd>),
    #[cfg(target_arch = "aarch64")]
    NeonBf16(neon::Neon<neon::Baseline>, neon::Neon<neon::Bf16>),
}

impl Isa {
    /// The fastest instruction set of this processor: the last of [`Isa::available`], without `avx512bf16` on Intel's. It
    /// depends on the processor alone, never on a measurement, since it decides bits.
    pub fn detect() -> Self {
        let mut all = Self::available();
        all.retain(|isa| isa.is_fast());
        all.pop().unwrap_or(Self(Leaf::Scalar(scalar::Scalar)))
    }

    /// Whether its instructions are faster than what they stand for.
    fn is_fast(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Bf16(..) => avx512::fast_bf16(avx512::vendor()),
            _ => true,
        }
    }

    /// All instruction sets of this processor, each with more instructions than those before it.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self(Leaf::Scalar(scalar::Scalar))];
        #[cfg(target_arch = "x86_64")]
        {
            let (avx2, avx512) = (avx2::Avx2::new(), avx512::Avx512::new());
            all.extend(avx2.map(|s| Self(Leaf::Avx2(s))));
            all.extend(avx2.zip(avx2::AvxVnni::new()).map(|(s, dots)| Self(Leaf::AvxVnni(s, dots))));
            all.extend(avx512.map(|s| Self(Leaf::Avx512(s))));
            all.extend(avx512.zip(avx512::Avx512Vnni::new()).map(|(s, dots)| Self(Leaf::Avx512Vnni(s, dots))));
            all.extend(avx512.zip(avx512::Avx512Bf16::new()).map(|(s, dots)| Self(Leaf::Avx512Bf16(s, dots))));
        }
        #[cfg(target_arch = "aarch64")]
        {
            let neon = neon::Neon::<neon::Baseline>::new();
            let (dots, bf16) = (neon::Neon::<neon::DotProd>::new(), neon::Neon::<neon::Bf16>::new());
            all.extend(neon.map(|s| Self(Leaf::Neon(s))));
            all.extend(neon.zip(dots).map(|(s, dots)| Self(Leaf::NeonDotProd(s, dots))));
            all.extend(neon.zip(bf16).map(|(s, bf16)| Self(Leaf::NeonBf16(s, bf16))));
        }
        all
    }

    /// Of all instruction sets of this processor those that have code of their own for models in `precision`. Each of the
    /// others does all that with the code of the last one before it that has, to the same bits.
    pub fn distinct(precision: Precision) -> Vec<Self> {
        let mut all = Self::available();
        all.retain(|isa| isa.own().contains(&precision));
        all
    }

    /// The precisions that this one has code of its own for.
    fn own(self) -> &'static [Precision] {
        match self.0 {
            Leaf::Scalar(_) => &Precision::ALL,
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2(_) | Leaf::Avx512(_) => &Precision::ALL,
            #[cfg(target_arch = "aarch64")]
            Leaf::Neon(_) => &Precision::ALL,
            // What `run_quads` does otherwise ...
            #[cfg(target_arch = "x86_64")]
            Leaf::AvxVnni(..) | Leaf::Avx512Vnni(..) => &[Precision::Q8],
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonDotProd(..) => &[Precision::Q8],
            // ... and `run_pairs`: a model of bytes has products of bfloat16 too.
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Bf16(..) => &[Precision::Bf16, Precision::Q8],
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(..) => &[Precision::Bf16, Precision::Q8],
        }
    }

    /// The instruction set of that name; [`Error::Isa`] if this processor or this build lacks it.
    pub fn named(name: &str) -> Result<Self> {
        let all = Self::available();
        all.iter().copied().find(|isa| isa.name() == name).ok_or_else(|| Error::Isa {
            asked: name.to_owned(),
            available: all.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", "),
        })
    }

    /// `scalar`; on x86-64 `avx2`, `avxvnni` (avx2 with 8-bit products), `avx512`, `avx512vnni` or `avx512bf16` (with
    /// both); on aarch64 `neon`, `neon-dotprod` (with 8-bit products) or `neon-bf16` (with both).
    pub fn name(self) -> &'static str {
        match self.0 {
            Leaf::Scalar(_) => "scalar",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Leaf::AvxVnni(..) => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512(_) => "avx512",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Vnni(..) => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Bf16(..) => "avx512bf16",
            #[cfg(target_arch = "aarch64")]
            Leaf::Neon(..) => "neon",
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonDotProd(..) => "neon-dotprod",
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(..) => "neon-bf16",
        }
    }

    /// Does `job` with this instruction set.
    #[inline]
    pub fn run<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            Leaf::Scalar(s) => job.run(s),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx2(s) | Leaf::AvxVnni(s, _) => s.run(job),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512(s) | Leaf::Avx512Vnni(s, _) | Leaf::Avx512Bf16(s, _) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::Neon(s) | Leaf::NeonDotProd(s, _) | Leaf::NeonBf16(s, _) => s.run(job),
        }
    }

    /// Does `job`, which writes rows in `form`, with this instruction set: there is one for [`Form::Pairs`] alone.
    #[inline]
    pub fn run_writing<J: Job>(self, form: Form, job: J) -> J::Out {
        match form {
            Form::Numbers | Form::Blocks => self.run(job),
            Form::Pairs => self.run_pairs(job),
        }
    }

    /// Does `job`, which lives by [`Simd::dot_pairs`] or [`Simd::pairs`], with this instruction set: compiled once more for
    /// the leaf that has instructions for them, which [`Isa::run`] leaves unused.
    #[inline]
    pub fn run_pairs<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Bf16(_, s) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(_, s) => s.run(job),
            _ => self.run(job),
        }
    }

    /// The same of [`Simd::dot_quads`].
    #[inline]
    pub fn run_quads<J: Job>(self, job: J) -> J::Out {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Leaf::AvxVnni(_, s) => s.run(job),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Vnni(_, s) => s.run(job),
            #[cfg(target_arch = "x86_64")]
            Leaf::Avx512Bf16(_, s) => s.without_bf16().run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonDotProd(_, s) => s.run(job),
            #[cfg(target_arch = "aarch64")]
            Leaf::NeonBf16(_, s) => s.run(job),
            _ => self.run(job),
        }
    }

    /// Whether products read rows of that form taken apart ([`Form::spread_words`]): this processor has no instruction for
    /// what is in their words.
    #[inline]
    pub fn spreads(self, form: Form) -> bool {
        match form {
            Form::Numbers => false,
            Form::Pairs => self.run_pairs(Spreads(form)),
            Form::Blocks => self.run_quads(Spreads(form)),
        }
    }
}

/// Asks a leaf how its products read rows of a form.
struct Spreads(Form);

impl Job for Spreads {
    type Out = bool;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        match self.0 {
            Form::Numbers => false,
            Form::Pairs => !S::MULTIPLIES_PAIRS,
            Form::Blocks => S::SPREADS_QUADS,
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
