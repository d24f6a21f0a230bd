//! The leaf for x86-64 processors with AVX-512 F, BW, DQ and VL: sixteen lanes, tails by mask. Those with VNNI multiply
//! bytes faster, those with BF16 bfloat16.

use super::sealed::Sealed;
use super::{Job, Simd};
use std::arch::x86_64::*;

/// Proof that the processor has AVX-512 F, BW, DQ and VL, and all of the AVX2 leaf; with `VNNI` and `BF16` those too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Leaf<const VNNI: bool, const BF16: bool>(());

/// Without more.
pub(super) type Avx512 = Leaf<false, false>;

/// With VNNI.
pub(super) type Avx512Vnni = Leaf<true, false>;

/// With VNNI and BF16.
pub(super) type Avx512Bf16 = Leaf<true, true>;

impl Avx512 {
    /// The proof, where it holds.
    pub(super) fn new() -> Option<Self> {
        let has = super::avx2::Avx2::new().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        has.then_some(Leaf(()))
    }

    /// Does `job`, compiled for this leaf.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn entry<J: Job>(s: Avx512, job: J) -> J::Out {
            job.run(s)
        }
        // SAFETY: self proves that the processor has these features.
        unsafe { entry(self, job) }
    }
}

impl Avx512Vnni {
    /// The proof, where it holds.
    pub(super) fn new() -> Option<Self> {
        (Avx512::new().is_some() && is_x86_feature_detected!("avx512vnni")).then_some(Leaf(()))
    }

    /// Does `job`, compiled for this leaf.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni")]
        fn entry<J: Job>(s: Avx512Vnni, job: J) -> J::Out {
            job.run(s)
        }
        // SAFETY: self proves that the processor has these features.
        unsafe { entry(self, job) }
    }
}

impl Avx512Bf16 {
    /// The leaf that multiplies bytes as this one does.
    pub(super) fn without_bf16(self) -> Avx512Vnni {
        Leaf(())
    }

    /// The proof, where it holds.
    pub(super) fn new() -> Option<Self> {
        (Avx512Vnni::new().is_some() && is_x86_feature_detected!("avx512bf16")).then_some(Leaf(()))
    }

    /// Does `job`, compiled for this leaf.
    #[inline]
    pub(super) fn run<J: Job>(self, job: J) -> J::Out {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,avx512vnni,avx512bf16")]
        fn entry<J: Job>(s: Avx512Bf16, job: J) -> J::Out {
            job.run(s)
        }
        // SAFETY: self proves that the processor has these features.
        unsafe { entry(self, job) }
    }
}

/// Whether products of pairs of bfloat16 are faster than the multiply-adds of f32 that do the same. On Intel's processors
/// they are not: an Emerald Rapids (family 6, model 207) took 210 ms a picture with them and 185 without.
pub(super) fn fast_bf16(vendor: [u8; 12]) -> bool {
    vendor != *b"GenuineIntel"
}

/// The name that the maker gave the processor.
pub(super) fn vendor() -> [u8; 12] {
    let leaf = __cpuid(0);
    let mut name = [0; 12];
    for (to, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.edx, leaf.ecx]) {
        to.copy_from_slice(&register.to_le_bytes());
    }
    name
}

// Not closures of `sums`: those the compiler may compile apart, without the features.
impl<const VNNI: bool, const BF16: bool> Leaf<VNNI, BF16> {
    /// Within each 128-bit quarter: lanes 0+2 and 1+3 of two vectors, then their sum, four vectors a register.
    #[inline(always)]
    fn quarters(self, v: [__m512; 4]) -> __m512 {
        // SAFETY: self proves the features.
        unsafe {
            let x = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
            let y = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
            let (x, y) = (_mm512_castps_pd(x), _mm512_castps_pd(y));
            _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)))
        }
    }

    /// Across the quarters of each of two vectors: 0+2 and 1+3.
    #[inline(always)]
    fn halves(self, p: __m512, q: __m512) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(p, q), _mm512_shuffle_f32x4::<0xEE>(p, q)) }
    }
}

/// The first `n` lanes.
#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n.min(16)) - 1) as __mmask16
}

// A function rather than a closure: those the compiler may compile apart, without the features.

/// The bf16 of each lane, rounded to the nearest, ties to even.
///
/// # Safety
/// The processor has AVX-512 F.
#[inline(always)]
unsafe fn rounded(x: __m512) -> __m256i {
    // SAFETY: the caller's duty is the same.
    unsafe {
        let bits = _mm512_castps_si512(x);
        let lowest = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(lowest, _mm512_set1_epi32(0x7fff));
        // What is not a number must not become an infinity, neither by rounding nor by losing its lower bits.
        let number = _mm512_cmp_ps_mask::<_CMP_ORD_Q>(x, x);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(1 << 22));
        _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(_mm512_mask_add_epi32(quiet, number, bits, up)))
    }
}

/// A method that is one intrinsic.
macro_rules! intrinsic {
    ($($name:ident($($arg:ident),*) = $call:expr;)*) => {
        $(
            #[inline(always)]
            fn $name(self, $($arg: __m512),*) -> __m512 {
                // SAFETY: self proves the features.
                unsafe { $call }
            }
        )*
    };
}

impl<const VNNI: bool, const BF16: bool> Sealed for Leaf<VNNI, BF16> {}

impl<const VNNI: bool, const BF16: bool> Simd for Leaf<VNNI, BF16> {
    type V = __m512;
    type I = __m512i;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;
    const MULTIPLIES_PAIRS: bool = BF16;

    intrinsic! {
        add(a, b) = _mm512_add_ps(a, b);
        sub(a, b) = _mm512_sub_ps(a, b);
        mul(a, b) = _mm512_mul_ps(a, b);
        div(a, b) = _mm512_div_ps(a, b);
        fma(a, b, c) = _mm512_fmadd_ps(a, b, c);
        max(a, b) = _mm512_max_ps(a, b);
        min(a, b) = _mm512_min_ps(a, b);
        round(a) = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
        scale2(a, n) = _mm512_scalef_ps(a, n);
        with_sign(a, sign) = {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, a), _mm512_and_ps(bit, sign))
        };
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_ptr(self, x: *const f32) -> __m512 {
        // SAFETY: sixteen floats are readable at x; self proves the features.
        unsafe { _mm512_loadu_ps(x) }
    }

    #[inline(always)]
    unsafe fn load_tail_ptr(self, x: *const f32, n: usize) -> __m512 {
        // SAFETY: only the n lanes of the mask are read; self proves the features.
        unsafe { _mm512_maskz_loadu_ps(mask(n), x) }
    }

    #[inline(always)]
    unsafe fn store_ptr(self, x: *mut f32, v: __m512) {
        // SAFETY: sixteen floats are writable at x; self proves the features.
        unsafe { _mm512_storeu_ps(x, v) }
    }

    #[inline(always)]
    unsafe fn store_tail_ptr(self, x: *mut f32, n: usize, v: __m512) {
        // SAFETY: only the n lanes of the mask are written; self proves the features.
        unsafe { _mm512_mask_storeu_ps(x, mask(n), v) }
    }

    #[inline(always)]
    unsafe fn load_words(self, x: *const u32) -> __m512i {
        // SAFETY: sixteen words are readable at x; self proves the features.
        unsafe { _mm512_loadu_si512(x.cast()) }
    }

    #[inline(always)]
    fn splat_word(self, x: u32) -> __m512i {
        // SAFETY: self proves the features.
        unsafe { _mm512_set1_epi32(x as i32) }
    }

    #[inline(always)]
    fn pair_low(self, w: __m512i) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(w)) }
    }

    #[inline(always)]
    fn pair_high(self, w: __m512i) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32(0xffff_0000u32 as i32))) }
    }

    #[inline(always)]
    fn dot_pairs(self, acc: __m512, x: __m512i, w: __m512i) -> __m512 {
        if !BF16 {
            let acc = self.fma(self.pair_low(x), self.pair_low(w), acc);
            return self.fma(self.pair_high(x), self.pair_high(w), acc);
        }
        // SAFETY: self proves the features; the types are the same 64 bytes.
        unsafe {
            _mm512_dpbf16_ps(
                acc,
                std::mem::transmute::<__m512i, __m512bh>(x),
                std::mem::transmute::<__m512i, __m512bh>(w),
            )
        }
    }

    #[inline(always)]
    fn dot_quads(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: self proves the features. Without VNNI, bytes are widened to 16 bits, the odd and the even ones by
        // themselves: a sum of two products is at most 2 * 255 * 128 and exact.
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(acc, w, x);
            }
            let even = _mm512_madd_epi16(
                _mm512_and_si512(w, _mm512_set1_epi16(0xff)),
                _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(x)),
            );
            let odd = _mm512_madd_epi16(_mm512_srli_epi16::<8>(w), _mm512_srai_epi16::<8>(x));
            _mm512_add_epi32(acc, _mm512_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    fn to_float(self, x: __m512i) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_cvtepi32_ps(x) }
    }

    #[inline(always)]
    fn pairs(self, a: __m512, b: __m512) -> __m512i {
        // SAFETY: self proves the features; the types are the same 64 bytes.
        unsafe {
            if BF16 {
                return std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
            }
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(rounded(a)), rounded(b))
        }
    }

    #[inline(always)]
    fn with_bits(self, w: __m512i) -> __m512 {
        // SAFETY: self proves the features.
        unsafe { _mm512_castsi512_ps(w) }
    }

    #[inline(always)]
    unsafe fn store_words(self, x: *mut u32, v: __m512i) {
        // SAFETY: sixteen words are writable at x; self proves the features.
        unsafe { _mm512_storeu_si512(x.cast(), v) }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, x: *mut i8, v: __m512) {
        // SAFETY: sixteen bytes are writable at x; self proves the features.
        unsafe { _mm_storeu_si128(x.cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }

    #[inline(always)]
    fn prefetch(self, x: *const u32) {
        // SAFETY: prefetching faults nowhere.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.cast()) }
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        self.sums([a])[0]
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        // SAFETY: self proves the features.
        unsafe { _mm512_reduce_max_ps(a) }
    }

    #[inline(always)]
    fn interleave(self, a: __m512, b: __m512) -> (__m512, __m512) {
        // SAFETY: self proves the features.
        unsafe {
            // Lane 16 + i is lane i of `b`.
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            (_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b))
        }
    }

    /// Sixteen sums in one tree of 15 additions: each level adds the same pairs of lanes of every vector, so a
    /// vector's sum does not depend on its place or company.
    #[inline(always)]
    fn sums<const N: usize>(self, v: [__m512; N]) -> [f32; N] {
        const { assert!(N <= 16) };
        let mut x = [self.zero(); 16];
        x[..N].copy_from_slice(&v);
        let u = self.halves(self.quarters([x[0], x[1], x[2], x[3]]), self.quarters([x[4], x[5], x[6], x[7]]));
        let w = self.halves(self.quarters([x[8], x[9], x[10], x[11]]), self.quarters([x[12], x[13], x[14], x[15]]));
        // SAFETY: self proves the features; the array is as long as the store.
        unsafe {
            let all = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(u, w), _mm512_shuffle_f32x4::<0xDD>(u, w));
            let mut out = [0.0; 16];
            _mm512_storeu_ps(out.as_mut_ptr(), all);
            std::array::from_fn(|i| out[i])
        }
    }
}
