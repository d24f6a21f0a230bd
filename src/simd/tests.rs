//! Every leaf of this machine, held against plain arithmetic in `f64`.

use super::*;
use half::bf16;

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
function!(RoughExp2, math::rough_exp2);
function!(Silu, math::silu);
function!(Gelu, math::gelu);
function!(GeluToRound, math::gelu_to_round);
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
        check("rough exp2", worst(isa, RoughExp2, f64::exp2, |_, y| y), 7.6e-5);
        check("erf", worst(isa, Erf, erf64, |_, _| 1.0), 2e-7);
        check("silu", worst(isa, Silu, |x| x / (1.0 + (-x).exp()), |x, _| x.abs().max(1.0)), 2e-7);
        let gelu = |x: f64| x * (1.0 + erf64(x / 2f64.sqrt())) / 2.0;
        check("gelu", worst(isa, Gelu, gelu, |x, _| x.abs().max(1.0)), 2e-7);
        check("gelu to round", worst(isa, GeluToRound, gelu, |x, _| x.abs().max(1.0)), 4.5e-5);
    }
}

/// Every method of a leaf on all lanes of `a`, `b` and `n`, one vector after another, by the method's name.
struct Methods<'a> {
    a: &'a [f32],
    b: &'a [f32],
    n: &'a [f32],
}

impl Job for Methods<'_> {
    type Out = Vec<(&'static str, Vec<f32>)>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let map = |f: &dyn Fn(S::V, S::V, S::V) -> S::V| {
            let mut out = vec![f32::NAN; self.a.len()];
            for at in (0..out.len()).step_by(S::LANES) {
                let [a, b, n] = [self.a, self.b, self.n].map(|x| s.load_up_to(&x[at..]));
                s.store_up_to(&mut out[at..], f(a, b, n));
            }
            out
        };
        vec![
            ("add", map(&|a, b, _| s.add(a, b))),
            ("sub", map(&|a, b, _| s.sub(a, b))),
            ("mul", map(&|a, b, _| s.mul(a, b))),
            ("div", map(&|a, b, _| s.div(a, b))),
            ("max", map(&|a, b, _| s.max(a, b))),
            ("min", map(&|a, b, _| s.min(a, b))),
            ("round", map(&|a, _, _| s.round(a))),
            ("scale2", map(&|a, _, n| s.scale2(a, n))),
            ("with_sign", map(&|a, b, _| s.with_sign(a, b))),
            ("splat", map(&|_, _, _| s.splat(self.a[0]))),
            ("zero", map(&|_, _, _| s.zero())),
        ]
    }
}

#[test]
fn every_method_does_what_it_says() {
    // Ties between whole numbers, signed zeros, and a length that no number of lanes divides.
    let mut a: Vec<f32> = numbers(253, 1).iter().map(|x| x * 100.0).collect();
    a.splice(..8, [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.0, -0.0]);
    let b: Vec<f32> = numbers(253, 2).iter().map(|x| x * 3.0).collect();
    let n: Vec<f32> = (-126..=126).map(|n| n as f32).collect();
    let expected = |name: &str, i: usize| match name {
        "add" => a[i] + b[i],
        "sub" => a[i] - b[i],
        "mul" => a[i] * b[i],
        "div" => a[i] / b[i],
        "max" => a[i].max(b[i]),
        "min" => a[i].min(b[i]),
        "round" => a[i].round_ties_even(),
        "scale2" => a[i] * f32::from_bits(((n[i] as i32 + 127) as u32) << 23),
        "with_sign" => a[i].copysign(b[i]),
        "splat" => a[0],
        _ => 0.0,
    };
    for isa in Isa::available() {
        for (name, out) in isa.run(Methods { a: &a, b: &b, n: &n }) {
            for (i, y) in out.iter().enumerate() {
                assert_eq!(y.to_bits(), expected(name, i).to_bits(), "{isa}: {name} of {} and {}", a[i], b[i]);
            }
        }
    }
}

/// For every length of a tail: what is loaded, summed, compared and stored.
struct Tails<'a>(&'a [f32]);

/// A stored tail with all that was around it, the sum and the largest of its vector, the sums of some vectors.
type Tail = (Vec<f32>, f32, f32, [f32; 7]);

impl Job for Tails<'_> {
    type Out = Vec<Tail>;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Vec<Tail> {
        let tail = |n: usize| {
            let v = s.load_up_to(&self.0[..n]);
            let mut room = vec![f32::NAN; S::LANES + 2];
            s.store_up_to(&mut room[1..n + 1], v);
            (room, s.sum(v), s.largest(v), s.sums([s.zero(), v, s.splat(1.0), v, v, s.zero(), v]))
        };
        (0..=S::LANES).map(tail).collect()
    }
}

#[test]
fn tails_are_zeros_behind_and_touch_nothing_around_them() {
    let x = numbers(64, 3);
    for isa in Isa::available() {
        let tails = isa.run(Tails(&x));
        let lanes = tails.len() - 1;
        for (n, (room, sum, largest, sums)) in tails.into_iter().enumerate() {
            let stored = |at: usize| if (1..=n).contains(&at) { x[at - 1].to_bits() } else { f32::NAN.to_bits() };
            assert!(room.iter().enumerate().all(|(i, y)| y.to_bits() == stored(i)), "{isa}: {n}: {room:?}");
            let exact: f64 = x[..n].iter().map(|&x| x as f64).sum();
            // At most 16 numbers below 1: 15 sums, each rounded by half a unit in the last place of 16 at most.
            assert!((sum as f64 - exact).abs() < 15.0 * 4.8e-7, "{isa}: {n}: sum {sum}, exactly {exact}");
            let zeros = if n < lanes { 0.0 } else { f32::NEG_INFINITY };
            assert_eq!(largest, x[..n].iter().copied().fold(zeros, f32::max), "{isa}: {n}");
            assert_eq!(sums, [0.0, sum, lanes as f32, sum, sum, 0.0, sum], "{isa}: {n}: sums depend on their company");
        }
    }
}

/// Words through the methods for narrow numbers: both halves widened, as a float, as its bits, rounded to pairs and bytes.
struct Narrow<'a> {
    words: &'a [u32],
    bytes: &'a [f32],
}

impl Job for Narrow<'_> {
    type Out = (Vec<f32>, Vec<f32>, Vec<f32>, Vec<f32>, Vec<u32>, Vec<i8>);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let n = self.words.len();
        let floats = || vec![0.0; n];
        let mut out = (floats(), floats(), floats(), floats(), vec![0; n / 2], vec![0; self.bytes.len()]);
        let floats: &[f32] = bytemuck::cast_slice(self.words);
        for at in (0..n).step_by(S::LANES) {
            // SAFETY: whole vectors of words are behind `at`.
            let w = unsafe { s.load_words(self.words[at..at + S::LANES].as_ptr()) };
            s.store_up_to(&mut out.0[at..], s.pair_low(w));
            s.store_up_to(&mut out.1[at..], s.pair_high(w));
            s.store_up_to(&mut out.2[at..], s.to_float(w));
            s.store_up_to(&mut out.3[at..], s.with_bits(w));
        }
        for at in (0..n).step_by(2 * S::LANES) {
            let pairs = s.pairs(s.load(&floats[at..]), s.load(&floats[at + S::LANES..]));
            // SAFETY: a vector of words fits behind half of `at`.
            unsafe { s.store_words(out.4[at / 2..at / 2 + S::LANES].as_mut_ptr(), pairs) };
        }
        for at in (0..self.bytes.len()).step_by(S::LANES) {
            // SAFETY: a vector of bytes fits behind `at`.
            unsafe { s.store_bytes(out.5[at..at + S::LANES].as_mut_ptr(), s.load(&self.bytes[at..])) };
        }
        out
    }
}

#[test]
fn narrow_numbers_are_widened_exactly_and_rounded_to_the_nearest() {
    // Every bf16 in both halves; ties to both sides; bits all over.
    let bits = |i: u32| i << 16 | [0x8000, 0x7fff, 0x8001, 0, i & 0xffff][i as usize % 5];
    let words: Vec<u32> = (0..=0xffff).map(bits).collect();
    let bytes: Vec<f32> = (-128..128).map(|i| i as f32).collect();
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
    for isa in Isa::available() {
        for (low, high, float, bits, pairs, out) in
            [isa.run(Narrow { words: &words, bytes: &bytes }), isa.run_pairs(Narrow { words: &words, bytes: &bytes })]
        {
            for (i, &w) in words.iter().enumerate() {
                let [lower, upper] = [w as u16, (w >> 16) as u16].map(|h| bf16::from_bits(h).to_f32());
                assert!(same(low[i], lower) && same(high[i], upper), "{isa}: {w:#x}: {} {}", low[i], high[i]);
                assert_eq!(float[i], w as i32 as f32, "{isa}: {w:#x}");
                assert_eq!(bits[i].to_bits(), w, "{isa}: {w:#x} as bits");
                let rounded = bf16::from_f32(f32::from_bits(w)).to_f32();
                let found = bf16::from_bits((pairs[i / 2] >> (i % 2 * 16)) as u16).to_f32();
                // The smallest numbers may count as zero.
                let small = f32::from_bits(w).abs() < f32::MIN_POSITIVE && found.abs() <= f32::MIN_POSITIVE;
                assert!(same(found, rounded) || small, "{isa}: {w:#x}: {found}, rightly {rounded}");
            }
            assert!(out.iter().map(|&b| f32::from(b)).eq(bytes.iter().copied()), "{isa}: {out:?}");
        }
    }
}

/// For each lane what its quad of bytes and its pair of bfloat16 add to it; two vectors by turns.
struct Dots<'a> {
    words: &'a [u32],
    quads: [&'a [u32]; 2],
    floats: &'a [f32],
    pairs: [&'a [u32]; 2],
}

impl Job for Dots<'_> {
    type Out = ([Vec<u32>; 2], Vec<f32>, Vec<f32>);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Self::Out {
        let n = self.words.len();
        let mut out = ([vec![0; n], vec![0; n]], vec![0.0; n], vec![0.0; 2 * n]);
        for at in (0..n).step_by(S::LANES) {
            // SAFETY: whole vectors of words are behind `at`.
            let load = |words: &[u32]| unsafe { s.load_words(words[at..at + S::LANES].as_ptr()) };
            let (sum, w, x) = (load(self.words), load(self.quads[0]), load(self.quads[1]));
            let ([w_even, w_odd], [x_even, x_odd]) = (s.unsigned_halves(w), s.signed_halves(x));
            let halves = s.dot_halves(s.dot_halves(sum, w_even, x_even), w_odd, x_odd);
            for (out, v) in out.0.iter_mut().zip([s.dot_quads(sum, w, x), halves]) {
                // SAFETY: a vector of words fits behind `at`.
                unsafe { s.store_words(out[at..at + S::LANES].as_mut_ptr(), v) };
            }
            let (a, b) = (s.load(&self.floats[at..]), s.load(&self.floats[at + n..]));
            s.store_up_to(&mut out.1[at..], s.dot_pairs(a, load(self.pairs[0]), load(self.pairs[1])));
            let turns = s.interleave(a, b);
            s.store_up_to(&mut out.2[2 * at..], turns.0);
            s.store_up_to(&mut out.2[2 * at + S::LANES..], turns.1);
        }
        out
    }
}

#[test]
fn products_of_narrow_numbers_are_added_and_vectors_taken_by_turns() {
    const N: usize = 256;
    let bits =
        |seed| -> Vec<u32> { numbers(N, seed).iter().map(|x| x.to_bits().wrapping_mul(2_654_435_769)).collect() };
    let (words, mut w, mut x) = (bits(4), bits(5), bits(6));
    // The extremes of unsigned and signed bytes: such sums fit no 16 bits.
    w.splice(..4, [u32::MAX; 4]);
    x.splice(..4, [0x8080_8080, 0x7f7f_7f7f, 0x7f7f_8080, 0x807f_807f]);
    let pairs = |seed| -> Vec<u32> {
        let half = |x: f32| u32::from(bf16::from_f32(x).to_bits());
        numbers(2 * N, seed).chunks(2).map(|x| half(x[0]) | half(x[1]) << 16).collect()
    };
    let (floats, p, q) = (numbers(2 * N, 7), pairs(8), pairs(9));
    for isa in Isa::available() {
        let dots = || Dots { words: &words, quads: [&w, &x], floats: &floats, pairs: [&p, &q] };
        for (quads, sums, turns) in [isa.run(dots()), isa.run_pairs(dots()), isa.run_quads(dots())] {
            for i in 0..N {
                let product = |b| i32::from(w[i].to_le_bytes()[b]) * i32::from(x[i].to_le_bytes()[b] as i8);
                let exact = (0..4).fold(words[i], |sum, b| sum.wrapping_add(product(b) as u32));
                let found = [quads[0][i], quads[1][i]];
                assert_eq!(found, [exact; 2], "{isa}: quads {:#x} and {:#x}, whole and in halves", w[i], x[i]);

                let [p, q] = [p[i], q[i]].map(|w| [w as u16, (w >> 16) as u16].map(|h| bf16::from_bits(h).to_f64()));
                let exact = f64::from(floats[i]) + p[0] * q[0] + p[1] * q[1];
                // Three numbers below 1: two sums and, where nothing is fused, two products, each rounded by a unit in
                // the last place of 2 at most.
                assert!((f64::from(sums[i]) - exact).abs() < 4.0 * 2.4e-7, "{isa}: pairs {p:?} and {q:?}: {}", sums[i]);

                assert_eq!(turns[2 * i..2 * i + 2], [floats[i], floats[N + i]], "{isa}: turns of {i}");
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn products_of_bfloat16_are_left_alone_where_they_are_slow() {
    use super::avx512::{fast_bf16, vendor};
    assert!(!fast_bf16(*b"GenuineIntel") && fast_bf16(*b"AuthenticAMD"));
    assert!(vendor().iter().all(u8::is_ascii_graphic), "{:?}", vendor());
    assert!(fast_bf16(vendor()) || Isa::detect().name() != "avx512bf16");
    assert!(Isa::available().contains(&Isa::detect()));
}

/// An emulated processor's leaves are known: whoever runs the tests on one names them, the best last.
#[test]
fn a_known_processor_has_the_leaves_it_should() {
    if let Ok(expected) = std::env::var("DISCON_TEST_ISAS") {
        let found: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        assert_eq!(found.join(" "), expected);
        assert_eq!(Some(Isa::detect()), Isa::available().pop());
    }
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

#[test]
fn an_isa_that_is_not_there_is_an_error_that_names_those_that_are() {
    let error = Isa::named("sse9").unwrap_err().to_string();
    assert!(error.contains("sse9") && error.contains("scalar"), "{error}");
    assert_eq!(Isa::named("scalar").unwrap().name(), "scalar");
}
