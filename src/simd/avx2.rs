//! The leaf for x86-64 processors with AVX2, FMA and F16C (2013 and later): eight lanes. Those with AVX-VNNI (2021 and
//! later) multiply bytes faster.

use super::sealed::Sealed;
use super::{Job, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX2, FMA and F16C; with `VNNI` AVX-VNNI too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf<const VNNI: bool>(());

/// Without AVX-VNNI.
pub(super) type Avx2 = Leaf<false>;

/// With AVX-VNNI.
pub(super) type AvxVnni = Leaf<true>;

impl Avx2 {
    /// The proof, where it holds.
    pub(super) fn new() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Leaf(()))
    }

    /// Does `job`, compiled for this leaf.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn entry<J: Job>(s: Avx2, job: J) -> J::Out {
            job.run(s)
        }
        // SAFETY: self proves that the processor has these features.
        unsafe { entry(self, job) }
    }
}

impl AvxVnni {
    /// The proof, where it holds.
    pub(super) fn new() -> Option<Self> {
        (Avx2::new().is_some() && is_x86_feature_detected!("avxvnni")).then_some(Leaf(()))
    }

    /// Does `job`, compiled for this leaf.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn entry<J: Job>(s: AvxVnni, job: J) -> J::Out {
            job.run(s)
        }
        // SAFETY: self proves that the processor has these features.
        unsafe { entry(self, job) }
    }
}

impl<const VNNI: bool> Leaf<VNNI> {
    /// A mask whose first `n` lanes are set.
    #[inline(always)]
    fn mask(self, n: usize) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }
}

// Not closures of `sums`: those the compiler may compile apart, without the features.
impl<const VNNI: bool> Leaf<VNNI> {
    /// Within each half: lanes 0+1 and 2+3, then their sum, four vectors a register.
    #[inline(always)]
    fn halves(self, v: [__m256; 4]) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3])) }
    }

    /// The sums of eight vectors.
    #[inline(always)]
    fn eight(self, v: [__m256; 8], out: &mut [f32]) {
        let (p, q) = (self.halves([v[0], v[1], v[2], v[3]]), self.halves([v[4], v[5], v[6], v[7]]));
        assert!(out.len() >= 8);
        // SAFETY: self proves the features; eight floats fit into `out`.
        unsafe {
            let sums = _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(p, q), _mm256_permute2f128_ps::<0x31>(p, q));
            _mm256_storeu_ps(out.as_mut_ptr(), sums);
        }
    }
}

/// The bf16 of each lane, rounded to the nearest, ties to even, in its lower half; the upper is 0.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn rounded(x: __m256) -> __m256i {
    // SAFETY: the caller's duty is the same.
    unsafe {
        let bits = _mm256_castps_si256(x);
        let lowest = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(lowest, _mm256_set1_epi32(0x7fff));
        // What is not a number must not become an infinity, neither by rounding nor by losing its lower bits.
        let number = _mm256_cmp_ps::<_CMP_ORD_Q>(x, x);
        let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(1 << 22));
        let sum = _mm256_castsi256_ps(_mm256_add_epi32(bits, up));
        _mm256_srli_epi32::<16>(_mm256_castps_si256(_mm256_blendv_ps(_mm256_castsi256_ps(quiet), sum, number)))
    }
}

/// A method that is one intrinsic.
macro_rules! intrinsic {
    ($($name:ident($($arg:ident),*) = $call:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: __m256),*) -> __m256 {
                // SAFETY: self proves the features.
                unsafe { $call }
            }
        )*
    };
}

impl<const VNNI: bool> Sealed for Leaf<VNNI> {}

impl<const VNNI: bool> Simd for Leaf<VNNI> {
    type V = __m256;
    type I = __m256i;
    const LANES: usize = 8;
    const REGISTERS: usize = 16;
    const SPREADS_QUADS: bool = !VNNI;

    intrinsic! {
        add(a, b) = _mm256_add_ps(a, b);
        sub(a, b) = _mm256_sub_ps(a, b);
        mul(a, b) = _mm256_mul_ps(a, b);
        div(a, b) = _mm256_div_ps(a, b);
        fma(a, b, c) = _mm256_fmadd_ps(a, b, c);
        max(a, b) = _mm256_max_ps(a, b);
        min(a, b) = _mm256_min_ps(a, b);
        round(a) = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale2(a, n) = {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        };
        with_sign(a, sign) = {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, a), _mm256_and_ps(bit, sign))
        };
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m256 {
        // SAFETY: eight floats are readable at x; self proves the features.
        unsafe { _mm256_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_tail_ptr(self, x: *const f32, n: usize) -> __m256 {
        // SAFETY: only the n lanes of the mask are read; self proves the features.
        unsafe { _mm256_maskload_ps(x, self.mask(n)) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: __m256) {
        // SAFETY: eight floats are writable at x; self proves the features.
        unsafe { _mm256_storeu_ps(x, v) }
    }

    #[inline(always)]
    unsafe fn store_tail_ptr(self, x: *mut f32, n: usize, v: __m256) {
        // SAFETY: only the n lanes of the mask are written; self proves the features.
        unsafe { _mm256_maskstore_ps(x, self.mask(n), v) }
    }

    #[inline(always)]
    unsafe fn load_words(self, x: *const u32) -> __m256i {
        // SAFETY: eight words are readable at x; self proves the features.
        unsafe { _mm256_loadu_si256(x.cast()) }
    }

    #[inline(always)]
    fn splat_word(self, x: u32) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_set1_epi32(x as i32) }
    }

    #[inline(always)]
    fn pair_low(self, w: __m256i) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(w)) }
    }

    #[inline(always)]
    fn pair_high(self, w: __m256i) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_castsi256_ps(_mm256_and_si256(w, _mm256_set1_epi32(0xffff_0000u32 as i32))) }
    }

    #[inline(always)]
    fn dot_quads(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        if VNNI {
            // SAFETY: self proves the features.
            return unsafe { _mm256_dpbusd_avx_epi32(acc, w, x) };
        }
        let ([w_even, w_odd], [x_even, x_odd]) = (self.unsigned_halves(w), self.signed_halves(x));
        self.dot_halves(self.dot_halves(acc, w_even, x_even), w_odd, x_odd)
    }

    #[inline(always)]
    fn dot_halves(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: self proves the features.
        unsafe { _mm256_add_epi32(acc, _mm256_madd_epi16(w, x)) }
    }

    #[inline(always)]
    fn unsigned_halves(self, w: __m256i) -> [__m256i; 2] {
        // SAFETY: self proves the features.
        unsafe { [_mm256_and_si256(w, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(w)] }
    }

    #[inline(always)]
    fn signed_halves(self, x: __m256i) -> [__m256i; 2] {
        // SAFETY: self proves the features.
        unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)), _mm256_srai_epi16::<8>(x)] }
    }

    #[inline(always)]
    fn to_float(self, x: __m256i) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn pairs(self, a: __m256, b: __m256) -> __m256i {
        // SAFETY: self proves the features.
        unsafe {
            // Packing interleaves the 128-bit halves of its arguments.
            _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(rounded(a), rounded(b)))
        }
    }

    #[inline(always)]
    fn with_bits(self, w: __m256i) -> __m256 {
        // SAFETY: self proves the features.
        unsafe { _mm256_castsi256_ps(w) }
    }

    #[inline(always)]
    unsafe fn store_words(self, x: *mut u32, v: __m256i) {
        // SAFETY: eight words are writable at x; self proves the features.
        unsafe { _mm256_storeu_si256(x.cast(), v) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, x: *mut i8, v: __m256) {
        // SAFETY: eight bytes are writable at x; self proves the features.
        unsafe {
            let words = _mm256_cvtps_epi32(v);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storel_epi64(x.cast(), _mm_packs_epi16(halves, halves));
        }
    }

    #[inline(always)]
    fn prefetch(self, x: *const u32) {
        // SAFETY: prefetching faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn sum(self, a: __m256) -> f32 {
        self.sums([a])[0]
    }

    #[inline(always)]
    fn interleave(self, a: __m256, b: __m256) -> (__m256, __m256) {
        // SAFETY: self proves the features.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            (_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
        }
    }

    /// Eight sums in one tree: each level adds the same pairs of lanes of every vector, so a vector's sum does not
    /// depend on its place or company.
    #[inline(always)]
    fn sums<const N: usize>(self, v: [__m256; N]) -> [f32; N] {
        const { assert!(N <= 16) };
        let mut x = [self.zero(); 16];
        x[..N].copy_from_slice(&v);
        let mut out = [0.0; 16];
        self.eight([x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]], &mut out[..8]);
        if N > 8 {
            self.eight([x[8], x[9], x[10], x[11], x[12], x[13], x[14], x[15]], &mut out[8..]);
        }
        std::array::from_fn(|i| out[i])
    }

    #[inline(always)]
    fn largest(self, a: __m256) -> f32 {
        // SAFETY: self proves the features.
        unsafe {
            let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
        }
    }
}
