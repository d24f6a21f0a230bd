//! Elementary functions over any [`Simd`] leaf. Accuracies are the worst found by the tests over the stated range.

use super::Simd;

/// `e^x`, relative error below 2.5e-7 for x in [-87, 88]; 0-like (1.2e-38) below, clamped above.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.max(x, s.splat(-87.3)), s.splat(88.3));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // x - n ln 2 in two steps: the first constant has few bits, so its product is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    // The minimax fit of e^r with constant term 1 in relative error for |r| <= ln 2 / 2: 9.2e-8 before rounding.
    let e = polynomial(s, r, [8.290_272e-3, 4.189_816e-2, 1.666_763_9e-1, 4.999_914_8e-1, 9.999_997e-1, 1.0]);
    s.scale2(e, n)
}

/// `2^x`, relative error below 2.5e-7 for x in [-126, 127]; 0-like (1.2e-38) below. Larger x are not allowed.
#[inline(always)]
pub fn exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(x, s.splat(-126.0));
    let n = s.round(x);
    // The minimax fit of 2^r, first two terms given, in relative error for |r| <= 1/2: 1.05e-7 before rounding.
    let c = [1.330_059e-3, 9.669_712e-3, 5.550_558_5e-2, 2.402_228_1e-1, std::f32::consts::LN_2, 1.0];
    s.scale2(polynomial(s, s.sub(x, n), c), n)
}

/// `2^x` for what is rounded to bfloat16 next, relative error below 7.6e-5 for x in [-126, 127]; 0-like (1.2e-38) below.
/// Larger x are not allowed.
#[inline(always)]
pub fn rough_exp2<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.max(x, s.splat(-126.0));
    let n = s.round(x);
    // The minimax fit of 2^r in relative error for |r| <= 1/2: 7.48e-5 before rounding.
    let c = [5.517_167e-2, 2.426_111_2e-1, 6.932_61e-1, 9.999_280_6e-1];
    s.scale2(polynomial(s, s.sub(x, n), c), n)
}

/// The polynomial in `x` with these coefficients, the highest power's first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::V, coefficients: [f32; N]) -> S::V {
    let mut p = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        p = s.fma(p, x, s.splat(c));
    }
    p
}

/// `1 / (1 + e^-x)`, absolute error below 2e-7.
#[inline(always)]
pub fn sigmoid<S: Simd>(s: S, x: S::V) -> S::V {
    let e = exp(s, s.sub(s.zero(), x));
    s.div(s.splat(1.0), s.add(s.splat(1.0), e))
}

/// `x sigmoid(x)`, absolute error below 2e-7 max(1, |x|).
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::V) -> S::V {
    s.mul(x, sigmoid(s, x))
}

/// The error function, absolute error below 2e-7: `1 - 2^(a q(a))` with `a = |x|`, which needs no division.
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    // From 4 on the result rounds to 1.
    let a = s.min(s.with_sign(x, one), s.splat(4.0));
    // a q(a) is log2(1 - erf a) for 0 <= a <= 4, fitted so that the largest error of 2^(a q(a)) is least: 1.6e-8 before
    // rounding (least squares, reweighted by their errors until these are level).
    let q = polynomial(
        s,
        a,
        [
            -4.535_858_6e-5,
            4.455_077_4e-4,
            -1.489_442e-3,
            -7.746_29e-4,
            2.825_368e-2,
            -1.484_816e-1,
            -9.184_164e-1,
            -1.627_908_6,
        ],
    );
    s.with_sign(s.sub(one, exp2(s, s.mul(a, q))), x)
}

/// `x (1 + erf(x / sqrt 2)) / 2`: GELU in its erf form, absolute error below 2e-7 max(1, |x|).
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// [`gelu`] for results that are rounded to bf16 or coarser: absolute error below 4.5e-5 max(1, |x|), at half the work.
#[inline(always)]
pub fn gelu_to_round<S: Simd>(s: S, x: S::V) -> S::V {
    // Beyond 4 the normal distribution is 0 or 1 up to 3.2e-5.
    let u = s.min(s.max(x, s.splat(-4.0)), s.splat(4.0));
    // The distribution less a half is u p(u^2), fitted so that the largest error of max(u, 1/4) times it is least: 3.8e-5
    // (least squares, reweighted by their errors until these are level).
    let p = polynomial(
        s,
        s.mul(u, u),
        [
            -1.301_296e-9,
            1.041_961_5e-7,
            -3.657_135_5e-6,
            7.485_508e-5,
            -1.006_490_7e-3,
            9.505_4e-3,
            -6.588_785e-2,
            3.986_734e-1,
        ],
    );
    s.mul(x, s.fma(u, p, s.splat(0.5)))
}
