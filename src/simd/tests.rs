//! Every leaf of this machine, held against plain arithmetic in `f64`.

use super::dot::{Product, WIDE_ROWS, WeightRows};
use super::*;
use crate::tensor::{Layout, Mat};
use proptest::prelude::*;
use std::ops::Range;

struct Map<'a, F>(F, &'a [f32], &'a mut [f32]);

trait Function {
    fn call<S: Simd>(&self, s: S, x: S::V) -> S::V;
}

impl<F: Function> Job for Map<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (x, y) in self.1.chunks(S::LANES).zip(self.2.chunks_mut(S::LANES)) {
            let v = self.0.call(s, s.load_up_to(x));
            s.store_up_to(y, v);
        }
    }
}

macro_rules! function {
    ($name:ident, $call:path) => {
        struct $name;
        impl Function for $name {
            #[inline(always)]
            fn call<S: Simd>(&self, s: S, x: S::V) -> S::V {
                $call(s, x)
            }
        }
    };
}
function!(Exp, math::exp);
function!(Exp2, math::exp2);
function!(Silu, math::silu);
function!(Gelu, math::gelu);
function!(Erf, math::erf);

/// erf by its power series (|x| < 3) or continued fraction, in f64.
fn erf64(x: f64) -> f64 {
    if x.abs() < 3.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let f = (1..60).rev().fold(0.0, |f, n| n as f64 / 2.0 / (x.abs() + f));
        x.signum() * (1.0 - (-x * x).exp() / ((x.abs() + f) * std::f64::consts::PI.sqrt()))
    }
}

fn worst(isa: Isa, f: impl Function, exact: impl Fn(f64) -> f64, weigh: impl Fn(f64, f64) -> f64) -> f64 {
    let x: Vec<f32> = (-87_003..=88_007).map(|i| i as f32 * 1e-3).chain([0.0, 1e-30, -1e-8]).collect();
    let mut y = vec![0.0; x.len()];
    isa.run(Map(f, &x, &mut y));
    let err = |(x, y): (&f32, &f32)| ((*y as f64 - exact(*x as f64)) / weigh(*x as f64, exact(*x as f64))).abs();
    x.iter().zip(&y).map(err).fold(0.0, f64::max)
}

#[test]
fn functions_keep_their_stated_accuracy() {
    for isa in Isa::available() {
        let check = |name: &str, worst: f64, bound: f64| {
            println!("{isa}: {name} {worst:.2e}");
            assert!(worst < bound, "{isa}: {name} {worst:e}");
        };
        check("exp", worst(isa, Exp, f64::exp, |_, y| y), 2.5e-7);
        check("exp2", worst(isa, Exp2, f64::exp2, |_, y| y), 2.5e-7);
        check("erf", worst(isa, Erf, erf64, |_, _| 1.0), 2e-7);
        check("silu", worst(isa, Silu, |x| x / (1.0 + (-x).exp()), |x, _| x.abs().max(1.0)), 2e-7);
        let gelu = |x: f64| x * (1.0 + erf64(x / 2f64.sqrt())) / 2.0;
        check("gelu", worst(isa, Gelu, gelu, |x, _| x.abs().max(1.0)), 2e-7);
    }
}

fn product<W: Element>(isa: Isa, a: &[f32], w: &[W], k: usize, rows: Range<usize>, cols: Range<usize>) -> Vec<f32> {
    let mut out = vec![f32::NAN; rows.len() * cols.len()];
    let mut wide = vec![0.0; WIDE_ROWS * k];
    isa.run(Product {
        a: Mat::new(a, Layout::dense(a.len() / k, k)),
        rows,
        w: WeightRows::new(w, k),
        cols,
        out: &mut out,
        wide: &mut wide,
    });
    out
}

fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    (0..n)
        .map(|_| {
            x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn products_of_any_size_are_right(m in 1usize..20, n in 1usize..40, k in 1usize..130, seed: u32) {
        let (a, w) = (numbers(m * k, seed), numbers(n * k, seed ^ 1));
        let bf: Vec<bf16> = w.iter().map(|&x| bf16::from_f32(x)).collect();
        let hf: Vec<f16> = w.iter().map(|&x| f16::from_f32(x)).collect();
        for isa in Isa::available() {
            let check = |out: &[f32], w: &dyn Fn(usize) -> f64| {
                for (i, row) in out.chunks(n).enumerate() {
                    for (j, &y) in row.iter().enumerate() {
                        let exact: f64 = (0..k).map(|l| a[i * k + l] as f64 * w(j * k + l)).sum();
                        // k products of numbers below 1, each sum rounded: k half-ulps of at most k.
                        prop_assert!((y as f64 - exact).abs() <= 1e-7 * k as f64, "{isa} {i} {j}: {y} {exact}");
                    }
                }
                Ok(())
            };
            let out = product(isa, &a, &w, k, 0..m, 0..n);
            check(&out, &|i| w[i] as f64)?;
            check(&product(isa, &a, &bf, k, 0..m, 0..n), &|i| bf[i].to_f64())?;
            check(&product(isa, &a, &hf, k, 0..m, 0..n), &|i| hf[i].to_f64())?;
            // The same bits whatever the company of a row or column.
            for i in 0..m {
                let alone = product(isa, &a, &w, k, i..i + 1, n / 2..n);
                let same = alone.iter().zip(&out[i * n + n / 2..]).all(|(a, b)| a.to_bits() == b.to_bits());
                prop_assert!(same, "{isa}: row {i} depends on its company");
                let few = product(isa, &a, &bf, k, i..i + 1, 0..n);
                let all = product(isa, &a, &bf, k, 0..m, 0..n);
                prop_assert_eq!(&few[..], &all[i * n..(i + 1) * n]);
            }
        }
    }
}

#[test]
fn an_isa_that_is_not_there_is_an_error_that_names_those_that_are() {
    let error = Isa::named("sse9").unwrap_err().to_string();
    assert!(error.contains("sse9") && error.contains("scalar"), "{error}");
    assert_eq!(Isa::named("scalar").unwrap().name(), "scalar");
}
