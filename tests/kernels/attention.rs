//! kernels/attention.cu

use super::abi::{Attention, View};
use super::lab::*;

/// Attention of `groups` groups of `queries`, over the first keys of `places`.
#[derive(Debug, Clone, Copy)]
struct Case {
    groups: usize,
    queries: usize,
    places: usize,
    /// In the turn of the tests; fewer before it.
    keys: usize,
    heads: usize,
    d: usize,
    lie: usize,
    pairs: bool,
    out_pairs: bool,
    /// What scores are about, times `sqrt(d)`: large ones leave one key that counts.
    size: f32,
}

/// Softmax of the scores times the values, in f64, and for each number how far the values lie from it, weighted.
fn reference(case: Case, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f64>, Vec<f64>) {
    let Case { groups, queries, places, keys, heads, d, .. } = case;
    let cols = heads * d;
    let (mut exact, mut spread) = (vec![0.0; groups * queries * cols], vec![0.0; groups * queries * cols]);
    for (row, head) in (0..groups * queries).flat_map(|row| (0..heads).map(move |head| (row, head))) {
        let at = |x: &[f32], row: usize, i: usize| f64::from(x[row * cols + head * d + i]);
        let key = |key: usize| row / queries * places + key;
        let scores: Vec<f64> = (0..keys)
            .map(|j| (0..d).map(|i| at(q, row, i) * at(k, key(j), i)).sum::<f64>() / (d as f64).sqrt())
            .collect();
        let most = scores.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
        let all: f64 = weights.iter().sum();
        for i in 0..d {
            let weighted = |of: &dyn Fn(f64) -> f64| {
                weights.iter().enumerate().map(|(j, w)| w / all * of(at(v, key(j), i))).sum::<f64>()
            };
            let mean = weighted(&|v| v);
            let to = row * cols + head * d + i;
            (exact[to], spread[to]) = (mean, weighted(&|v| (v - mean).abs()));
        }
    }
    (exact, spread)
}

fn check(kernel: &str, case: Case) {
    let Case { groups, queries, places, keys, heads, d, lie, pairs, out_pairs, size } = case;
    let cols = heads * d;
    let scaled = |n, seed| numbers(n, seed).into_iter().map(|x| x * size).collect::<Vec<f32>>();
    let (q, k) = (scaled(groups * queries * cols, 1), scaled(groups * places * cols, 2));
    let mut v = numbers(groups * places * cols, 3);
    let narrow = kernel.contains("bf16");
    let read = |x: &[f32]| if narrow { rounded(x) } else { x.to_vec() };
    let (exact, spread) = reference(case, &read(&q), &read(&k), &read(&v));
    // What does not count yet may be anything.
    for group in 0..groups {
        v[(group * places + keys) * cols..(group + 1) * places * cols].fill(f32::NAN);
    }
    let y = both(|order| {
        let lay = if pairs { Buffer::pairs } else { Buffer::numbers };
        let mut q = lay(groups, queries, cols, LIES[lie], &q);
        let mut k = lay(groups, places, cols, LIES[(lie + 1) % 3], &k);
        let mut v = lay(groups, places, cols, LIES[lie], &v);
        let words = if out_pairs { cols / 2 } else { cols };
        let mut out = Buffer::new(groups, queries, words, LIES[(lie + 2) % 3], |_| 0x7fc0_7fc0);
        let step = i32::from(keys > TURN as usize);
        let params = Attention {
            turn: turn(),
            q: q.view(),
            k: k.view(),
            v: v.view(),
            out: out.view(),
            heads: heads as i32,
            head_size: d as i32,
            keys_first: keys as i32 - TURN * step,
            keys_step: step,
            form: i32::from(pairs),
            out_form: i32::from(out_pairs),
        };
        let grid = match kernel {
            "attention_few" => [heads, queries, groups],
            "attention_f32" => [queries.div_ceil(32), heads, groups],
            "attention_wide" | "attention_wide_bf16" => [queries.div_ceil(4), heads, groups],
            _ => [queries.div_ceil(64), heads, groups],
        };
        launch("attention", kernel, &params, grid, order);
        if out_pairs { out.result_of_pairs(cols) } else { out.result() }
    });
    // As src/ops/attention/mod.rs reckons: scores to some roundings of sqrt(d) terms each, weights rounded to bf16.
    let bound = 5e-7 * (d as f64).sqrt() * f64::from(size * size).max(1.0);
    for (i, (&y, (&exact, &spread))) in y.iter().zip(exact.iter().zip(&spread)).enumerate() {
        let weights = if narrow { (1.0 / 256.0 + 7.6e-5) * spread } else { 0.0 };
        let stored = if out_pairs { exact.abs() / 256.0 } else { 0.0 };
        let error = (f64::from(y) - exact).abs();
        assert!(error <= bound + weights + stored, "{kernel} {case:?}: element {i}: {y}, exactly {exact}");
    }
}

/// Sizes, lies and forms by turns. Pairs want an even d.
fn cases(d: usize, sizes: &[(usize, usize, usize, usize, usize)]) -> impl Iterator<Item = Case> {
    sizes.iter().enumerate().flat_map(move |(i, &(groups, queries, places, keys, heads))| {
        (0..3).map(move |lie| {
            let pairs = d.is_multiple_of(2) && (i + lie) % 2 == 1;
            let out_pairs = d.is_multiple_of(2) && (i + lie) % 3 == 1;
            let size = if (i + lie) % 4 == 3 { 3.0 } else { 1.0 };
            Case { groups, queries, places, keys, heads, d, lie, pairs, out_pairs, size }
        })
    })
}

const SIZES: [(usize, usize, usize, usize, usize); 5] =
    [(1, 1, 1, 1, 1), (2, 5, 9, 7, 3), (1, 65, 70, 65, 1), (2, 33, 129, 128, 2), (1, 64, 64, 64, 2)];

#[test]
fn of_bf16_in_heads_of_all_widths() {
    if can_run() {
        let wide = [(1, 2, 3, 3, 2), (1, 70, 67, 66, 2)];
        for (width, sizes) in
            [(32, vec![1, 5, 16, 31, 32]), (48, vec![34, 40, 48]), (64, vec![50, 64]), (80, vec![66, 72, 80])]
                .into_iter()
                .chain([(96, vec![81, 88, 96]), (128, vec![98, 100, 127, 128])])
        {
            for d in sizes {
                let sizes = if d == width || d == 88 { SIZES.as_slice() } else { &wide };
                cases(d, sizes).for_each(|case| check(&format!("attention_bf16_{width}"), case));
            }
        }
    }
}

#[test]
fn of_f32() {
    if can_run() {
        for d in [1, 3, 32, 48, 63, 80, 88, 128] {
            for case in cases(d, &SIZES) {
                check("attention_f32", Case { pairs: false, out_pairs: false, ..case });
            }
        }
    }
}

#[test]
fn of_few_queries_over_a_cache() {
    if can_run() {
        let sizes = [(1, 1, 1, 1, 1), (3, 1, 9, 6, 2), (2, 4, 300, 259, 2), (1, 2, 77, 33, 5)];
        for d in [1, 5, 16, 48, 64, 80, 88, 101, 128] {
            for case in cases(d, &sizes) {
                check("attention_few", Case { pairs: false, out_pairs: false, ..case });
            }
        }
    }
}

#[test]
fn of_wide_heads() {
    if can_run() {
        let sizes = [(1, 1, 1, 1, 1), (2, 6, 40, 37, 1), (1, 9, 70, 65, 2)];
        for d in [130, 257, 512] {
            for case in cases(d, &sizes) {
                let case = Case { pairs: false, out_pairs: false, ..case };
                check("attention_wide", case);
                check("attention_wide_bf16", case);
            }
        }
        let most = Case {
            groups: 1,
            queries: 3,
            places: 1536,
            keys: 1536,
            heads: 1,
            d: 1024,
            lie: 1,
            pairs: false,
            out_pairs: false,
            size: 1.0,
        };
        check("attention_wide", most);
        check("attention_wide_bf16", most);
    }
}

/// As the networks have them: q, k and v side by side in one matrix.
#[test]
fn of_columns_of_one_product() {
    if !can_run() {
        return;
    }
    let (groups, places, heads, d) = (2, 70, 2, 48);
    let cols = heads * d;
    let x = numbers(groups * places * 3 * cols, 1);
    let part = |which: usize| -> Vec<f32> {
        x.chunks(3 * cols).flat_map(|row| rounded(&row[which * cols..(which + 1) * cols])).collect()
    };
    let case = Case {
        groups,
        queries: places,
        places,
        keys: places,
        heads,
        d,
        lie: 0,
        pairs: false,
        out_pairs: false,
        size: 1.0,
    };
    let (exact, spread) = reference(case, &part(0), &part(1), &part(2));
    for pairs in [false, true] {
        let y = both(|order| {
            let lay = if pairs { Buffer::pairs } else { Buffer::numbers };
            let mut x = lay(groups, places, 3 * cols, LIES[0], &x);
            let mut out = Buffer::new(groups, places, cols, LIES[1], |_| 0x7fc0_7fc0);
            let (all, words) = (x.view(), if pairs { cols / 2 } else { cols });
            let part = |i: usize| View { base: all.base + 4 * (i * words) as u64, cols: words as i32, ..all };
            let params = Attention {
                turn: turn(),
                q: part(0),
                k: part(1),
                v: part(2),
                out: out.view(),
                heads: heads as i32,
                head_size: d as i32,
                keys_first: places as i32,
                keys_step: 0,
                form: i32::from(pairs),
                out_form: 0,
            };
            launch("attention", "attention_bf16_48", &params, [places.div_ceil(64), heads, groups], order);
            out.result()
        });
        for (i, (&y, (&exact, &spread))) in y.iter().zip(exact.iter().zip(&spread)).enumerate() {
            let bound = 5e-7 * (d as f64).sqrt() + (1.0 / 256.0 + 7.6e-5) * spread;
            assert!((f64::from(y) - exact).abs() <= bound, "pairs {pairs}: element {i}: {y}, exactly {exact}");
        }
    }
}
