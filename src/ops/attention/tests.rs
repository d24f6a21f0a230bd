use super::*;
use crate::ops::testing::{Lab, close, numbers};
use crate::simd::Isa;
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
    fn run(self, q: &[f32], kv: &[f32]) -> Vec<(Isa, Vec<f32>)> {
        let (mut lab, width, groups) = (Lab::new(), self.width(), self.groups);
        let q = lab.input(groups * self.queries, width, q).grouped(groups);
        let kv = lab.input(groups * self.len(), 2 * width, kv).grouped(groups);
        let out = lab.output(groups * self.queries, width).grouped(groups);
        let (k, v) = (kv.columns(0..width), kv.columns(width..2 * width));
        lab.run(Attention { q, k, v, keys: Keys { first: self.keys, step: 0 }, heads: self.heads, out })
    }

    /// The naive one, in `f64`.
    fn exact(self, q: &[f32], kv: &[f32]) -> Vec<f64> {
        let Self { groups, queries, keys, heads, d, .. } = self;
        let (width, len) = (self.width(), self.len());
        let mut exact = vec![0.0f64; groups * queries * width];
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
                        let y: f64 = (0..keys).map(|j| e[j] * kv[key(j) + width + c] as f64).sum();
                        exact[at + c] = y / norm;
                    }
                }
            }
        }
        exact
    }

    fn check(self) -> Result<(), TestCaseError> {
        let (q, kv) = self.numbers();
        let exact = self.exact(&q, &kv);
        for (isa, y) in self.run(&q, &kv) {
            // Scores reach 4 sqrt(d) and carry d roundings each; the exponential turns absolute into relative error.
            close(&y, &exact, 5e-7 * (self.d as f64).sqrt(), isa)?;
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn agrees_with_the_naive_one(
        groups in 1usize..4, queries in 1usize..60, keys in 1usize..100, spare in 0usize..5, heads in 1usize..4, d in 1usize..131,
    ) {
        Case { groups, queries, keys, spare, heads, d }.check()?;
    }

    #[test]
    fn few_queries_agree_with_the_naive_one(
        groups in 1usize..4, queries in 1usize..MANY, keys in 1usize..600, spare in 0usize..5, heads in 1usize..7, d in 1usize..131,
    ) {
        Case { groups, queries, keys, spare, heads, d }.check()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn several_blocks_of_queries_agree_with_the_naive_one(
        groups in 1usize..3, queries in 150usize..260, keys in 300usize..600, heads in 1usize..3, d in 30usize..70,
    ) {
        let case = Case { groups, queries, keys, spare: 1, heads, d };
        prop_assume!(keys * d > CHUNK_WORK / 150);
        case.check()?;
    }

    #[test]
    fn wide_heads_agree_with_the_naive_one(queries in 1usize..100, keys in 1usize..200, d in 300usize..520) {
        Case { groups: 1, queries, keys, spare: 0, heads: 1, d }.check()?;
    }
}

#[test]
fn a_row_is_the_same_whatever_its_company() {
    for (queries, few, d) in [(40, MANY, 20), (130, 31, 65), (MANY - 1, 1, 33)] {
        let all = Case { groups: 3, queries, keys: 77, spare: 0, heads: 2, d };
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
    for (queries, keys, d) in [(1, 37, 5), (9, 37, 5), (30, 21, 48)] {
        let case = Case { groups: 1, queries, keys, spare: 0, heads: 1, d };
        let (_, mut kv) = case.numbers();
        kv.chunks_mut(2 * d).for_each(|kv| kv[..d].iter_mut().for_each(|k| *k = 2.0 + *k / 1024.0));
        for size in [-100.0, 100.0] {
            let q: Vec<f32> = vec![size; queries * d];
            let exact = case.exact(&q, &kv);
            for (isa, y) in case.run(&q, &kv) {
                // Scores near 200 sqrt(d), with some 20 roundings each.
                close(&y, &exact, 20.0 * 6e-8 * 200.0 * (d as f64).sqrt(), isa).unwrap();
            }
        }
    }
}
