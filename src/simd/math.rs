//! Elementary functions over any [`Simd`] leaf. Accuracies are the worst found by the tests over the stated range.

use super::Simd;

/// `e^x`, relative error below 3e-7 for x in [-87, 88]; 0-like (1.2e-38) below, clamped above.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::V) -> S::V {
    let x = s.min(s.max(x, s.splat(-87.3)), s.splat(88.3));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    // x - n ln 2 in two steps: the first constant has few bits, so its product is exact.
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let e = s.fma(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    s.scale2(e, n)
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

/// The error function, absolute error below 5e-7 (Abramowitz and Stegun, 7.1.26).
#[inline(always)]
pub fn erf<S: Simd>(s: S, x: S::V) -> S::V {
    let one = s.splat(1.0);
    let a = s.with_sign(x, one);
    let t = s.div(one, s.fma(a, s.splat(0.327_591_1), one));
    let mut p = s.splat(1.061_405_4);
    for c in [-1.453_152, 1.421_413_8, -0.284_496_74, 0.254_829_6] {
        p = s.fma(p, t, s.splat(c));
    }
    let e = exp(s, s.mul(a, s.sub(s.zero(), a)));
    s.with_sign(s.sub(one, s.mul(s.mul(p, t), e)), x)
}

/// `x (1 + erf(x / sqrt 2)) / 2`: GELU in its erf form, absolute error below 5e-7 max(1, |x|).
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}
