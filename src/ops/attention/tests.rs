use super::*;
use crate::ops::testing::{Lab, close, numbers};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn agrees_with_the_naive_one(
        groups in 1usize..4, queries in 1usize..40, keys in 1usize..60, spare in 0usize..5, heads in 1usize..4, d in 1usize..70,
    ) {
        let mut lab = Lab::new();
        let (width, len) = (heads * d, keys + spare);
        let q: Vec<f32> = numbers(groups * queries * width, 1).iter().map(|x| 4.0 * x).collect();
        let kv = numbers(groups * len * 2 * width, 2);
        let mut expected = vec![0.0f64; groups * queries * width];
        for g in 0..groups {
            for i in 0..queries {
                for h in 0..heads {
                    let at = (g * queries + i) * width + h * d;
                    let key = |j: usize| (g * len + j) * 2 * width + h * d;
                    let dot = |j: usize| (0..d).map(|c| q[at + c] as f64 * kv[key(j) + c] as f64).sum::<f64>();
                    let e: Vec<f64> = (0..keys).map(|j| (dot(j) / (d as f64).sqrt()).exp()).collect();
                    let norm: f64 = e.iter().sum();
                    for c in 0..d {
                        let y: f64 = (0..keys).map(|j| e[j] * kv[key(j) + width + c] as f64).sum();
                        expected[at + c] = y / norm;
                    }
                }
            }
        }
        let q = lab.input(groups * queries, width, &q).grouped(groups);
        let kv = lab.input(groups * len, 2 * width, &kv).grouped(groups);
        let out = lab.output(groups * queries, width).grouped(groups);
        let (k, v) = (kv.columns(0..width), kv.columns(width..2 * width));
        let op = Attention { q, k, v, keys: Keys { first: keys, step: 0 }, heads, out };
        for (isa, y) in lab.run(op) {
            // Scores reach 4 sqrt(d) and carry d roundings each; the exponential turns absolute into relative
            // error.
            close(&y, &expected, 2e-6 * (d as f64).sqrt(), isa)?;
        }
    }
}
