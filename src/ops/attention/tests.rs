use super::*;
use crate::ops::testing::{Lab, close, numbers};
use half::bf16;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

/// Sizes of an attention; `spare` rows of k and v do not count.
#[derive(Debug, Clone, Copy)]
struct Case {
    groups: usize,
    queries: usize,
    keys: usize,
    spare: usize,
    heads: usize,
    d: usize,
    narrow: bool,
}

impl Case {
    fn width(self) -> usize {
        self.heads * self.d
    }

    fn len(self) -> usize {
        self.keys + self.spare
    }

    /// q, and k beside v.
    fn numbers(self) -> (Vec<f32>, Vec<f32>) {
        let q = numbers(self.groups * self.queries * self.width(), 1).iter().map(|x| 4.0 * x).collect();
        (q, numbers(self.groups * self.len() * 2 * self.width(), 2))
    }

    /// By instruction set.
    fn run(self, q: &[f32], kv: &[f32]) -> Vec<(String, Vec<f32>)> {
        let (mut lab, width, groups) = (Lab::new(), self.width(), self.groups);
        let q = lab.input(groups * self.queries, width, q).grouped(groups);
        let kv = lab.input(groups * self.len(), 2 * width, kv).grouped(groups);
        let out = lab.output(groups * self.queries, width).grouped(groups);
        let (k, v) = (kv.columns(0..width), kv.columns(width..2 * width));
        lab.run(Attention {
            q,
            k,
            v,
            keys: Keys { first: self.keys, step: 0 },
            heads: self.heads,
            narrow: self.narrow,
            out,
        })
    }

    /// Whether the products are of bf16.
    fn is_rounded(self) -> bool {
        self.narrow && self.queries >= MANY
    }

    /// The naive one, in `f64`, of what the products take, and with each result how far the values that it weighs lie
    /// from it, absolutely, on their weighted mean.
    fn exact(self, q: &[f32], kv: &[f32]) -> (Vec<f64>, Vec<f64>) {
        let Self { groups, queries, keys, heads, d, .. } = self;
        let (width, len) = (self.width(), self.len());
        let taken = |x: &[f32]| -> Vec<f32> {
            x.iter().map(|&x| if self.is_rounded() { bf16::from_f32(x).to_f32() } else { x }).collect()
        };
        let (q, kv) = (taken(q), taken(kv));
        let mut exact = vec![0.0f64; groups * queries * width];
        let mut spread = exact.clone();
        for g in 0..groups {
            for i in 0..queries {
                for h in 0..heads {
                    let at = (g * queries + i) * width + h * d;
                    let key = |j: usize| (g * len + j) * 2 * width + h * d;
                    let dot = |j: usize| (0..d).map(|c| q[at + c] as f64 * kv[key(j) + c] as f64).sum::<f64>();
                    let scores: Vec<f64> = (0..keys).map(|j| dot(j) / (d as f64).sqrt()).collect();
                    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let e: Vec<f64> = scores.iter().map(|x| (x - top).exp()).collect();
                    let norm: f64 = e.iter().sum();
                    for c in 0..d {
                        let value = |j: usize| kv[key(j) + width + c] as f64;
                        let y = (0..keys).map(|j| e[j] * value(j)).sum::<f64>() / norm;
                        exact[at + c] = y;
                        spread[at + c] = (0..keys).map(|j| e[j] * (value(j) - y).abs()).sum::<f64>() / norm;
                    }
                }
            }
        }
        (exact, spread)
    }

    fn check(self) -> Result<(), TestCaseError> {
        let (q, kv) = self.numbers();
        // Scores reach 4 sqrt(d) and carry d roundings each; the exponential turns absolute into relative error.
        self.check_within(5e-7 * (self.d as f64).sqrt(), &q, &kv)
    }

    /// Every result within `bound` of the exact one, and what rounding the weights may add.
    fn check_within(self, bound: f64, q: &[f32], kv: &[f32]) -> Result<(), TestCaseError> {
        let (exact, spread) = self.exact(q, kv);
        for (isa, y) in self.run(q, kv) {
            if self.is_rounded() {
                // Of weights w (1 + e), |e| <= 2^-8 and 7.6e-5 of the exponential, the mean is off by that of
                // e (v - mean), over a sum of weights that is as much less than one.
                let most = (1.0 / 256.0 + 7.6e-5) * 1.005;
                for (i, (&y, (&exact, &spread))) in y.iter().zip(exact.iter().zip(&spread)).enumerate() {
                    let bound = bound + most * spread;
                    let fine = (f64::from(y) - exact).abs() <= bound;
                    prop_assert!(fine, "{isa}: element {i}: {y}, exactly {exact}, bound {bound:e}");
                }
            } else {
                close(&y, &exact, bound, isa)?;
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn agrees_with_the_naive_one(
        groups in 1usize..4, queries in 1usize..60, keys in 1usize..100, spare in 0usize..5, heads in 1usize..4, d in 1usize..131,
        narrow: bool,
    ) {
        Case { groups, queries, keys, spare, heads, d, narrow }.check()?;
    }

    #[test]
    fn few_queries_agree_with_the_naive_one(
        groups in 1usize..4, queries in 1usize..MANY, keys in 1usize..600, spare in 0usize..5, heads in 1usize..7, d in 1usize..131,
        narrow: bool,
    ) {
        Case { groups, queries, keys, spare, heads, d, narrow }.check()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn several_blocks_of_queries_agree_with_the_naive_one(
        groups in 1usize..3, queries in 150usize..260, keys in 300usize..600, heads in 1usize..3, d in 30usize..70, narrow: bool,
    ) {
        let case = Case { groups, queries, keys, spare: 1, heads, d, narrow };
        prop_assume!(keys * d > CHUNK_WORK / 150);
        case.check()?;
    }

    #[test]
    fn wide_heads_agree_with_the_naive_one(queries in 1usize..100, keys in 1usize..200, d in 300usize..520, narrow: bool) {
        Case { groups: 1, queries, keys, spare: 0, heads: 1, d, narrow }.check()?;
    }
}

#[test]
fn a_row_is_the_same_whatever_its_company() {
    for (queries, few, d, narrow) in [
        (40, MANY, 20, false),
        (130, 31, 65, false),
        (40, MANY, 20, true),
        (130, 31, 65, true),
        (50, 7, 16, true),
        (MANY - 1, 1, 33, false),
    ] {
        let all = Case { groups: 3, queries, keys: 77, spare: 0, heads: 2, d, narrow };
        let (q, kv) = all.numbers();
        let (row, group) = (all.width(), all.len() * 2 * all.width());
        // The last `few` queries of the second group.
        let from = (2 * queries - few) * row;
        let alone = Case { groups: 1, queries: few, ..all }.run(&q[from..from + few * row], &kv[group..2 * group]);
        for ((isa, together), (_, alone)) in all.run(&q, &kv).iter().zip(&alone) {
            let same = together[from..].iter().zip(alone).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{isa}: {few} of {queries} queries, heads of {d}");
        }
    }
}

#[test]
fn scores_far_apart_and_far_from_zero_are_weighed_right() {
    // All scores of a row are large and of one sign: nothing else may pass for the largest one.
    for (queries, keys, d, narrow) in
        [(1, 37, 5, false), (9, 37, 5, false), (30, 21, 48, false), (9, 37, 5, true), (30, 21, 48, true)]
    {
        let case = Case { groups: 1, queries, keys, spare: 0, heads: 1, d, narrow };
        let (_, mut kv) = case.numbers();
        kv.chunks_mut(2 * d).for_each(|kv| kv[..d].iter_mut().for_each(|k| *k = 2.0 + *k / 1024.0));
        for size in [-100.0, 100.0] {
            let q: Vec<f32> = vec![size; queries * d];
            // Scores near 200 sqrt(d), with some 20 roundings each.
            case.check_within(20.0 * 6e-8 * 200.0 * (d as f64).sqrt(), &q, &kv).unwrap();
        }
    }
}
