//! kernels/group_norm.cu

use super::abi::{GroupFactors, GroupNorm, GroupStats};
use super::lab::*;

/// Images of `b`, `pixels` each of 32 groups of `each` channels, statistics over `blocks` blocks.
#[derive(Debug, Clone, Copy)]
struct Case {
    b: usize,
    pixels: usize,
    each: usize,
    blocks: usize,
    lie: usize,
    silu: bool,
    out_pairs: bool,
    far: f32,
}

fn check(case: Case) {
    let Case { b, pixels, each, blocks, lie, silu, out_pairs, far } = case;
    let c = 32 * each;
    let x: Vec<f32> = numbers(b * pixels * c, 1).iter().map(|x| x + far).collect();
    let (w, bias) = (numbers(c, 2), numbers(c, 3));
    let mut exact = vec![0.0; x.len()];
    for image in 0..b {
        for g in 0..32 {
            let all = || (0..pixels * each).map(move |i| (image * pixels + i / each) * c + g * each + i % each);
            let n = (pixels * each) as f64;
            let mean = all().map(|i| f64::from(x[i])).sum::<f64>() / n;
            let var = all().map(|i| (f64::from(x[i]) - mean).powi(2)).sum::<f64>() / n;
            for i in all() {
                let y = (f64::from(x[i]) - mean) / (var + 1e-6).sqrt() * f64::from(w[i % c]) + f64::from(bias[i % c]);
                exact[i] = activated(i32::from(silu), y);
            }
        }
    }
    let y = both(|order| {
        let mut x = Buffer::numbers(b, pixels, c, LIES[lie], &x);
        let mut stats = Buffer::new(b, blocks, 2 * c, LIES[lie], |_| 0xffff_0000);
        let mut factors = Buffer::new(1, b, 2 * c, LIES[lie], |_| 0xffff_0000);
        let cols = if out_pairs { c / 2 } else { c };
        let mut out = Buffer::new(b, pixels, cols, LIES[(lie + 1) % 3], |_| 0xffff_0000);
        let params = GroupStats { turn: turn(), x: x.view(), out: stats.view() };
        launch("group_norm", "group_stats", &params, [each, blocks, b], order);
        let params = GroupFactors {
            turn: turn(),
            stats: stats.view(),
            out: factors.view(),
            weight: address(&w),
            bias: address(&bias),
            pixels: pixels as i32,
            unused: 0,
        };
        launch("group_norm", "group_factors", &params, [4, b, 1], order);
        let params = GroupNorm {
            turn: turn(),
            x: x.view(),
            factors: factors.view(),
            out: out.view(),
            activation: i32::from(silu),
            form: i32::from(out_pairs),
        };
        launch("group_norm", "group_norm", &params, [3, 1, 1], order);
        let _ = (stats.contents(), factors.contents(), x.contents());
        if out_pairs { out.result_of_pairs(c) } else { out.result() }
    });
    close(&y, &exact, 1e-5 + 2e-6 * f64::from(far), if out_pairs { 1.0 / 256.0 } else { 0.0 }, case);
}

#[test]
fn three_kernels_are_a_group_norm() {
    if !can_run() {
        return;
    }
    // A group of one pixel and one channel has no spread: only rounding is left, times a thousand.
    for (i, (pixels, each, blocks)) in
        [(5, 1, 1), (9, 1, 4), (3, 2, 3), (64, 1, 1), (100, 3, 7), (300, 2, 4), (530, 1, 1), (256, 4, 16)]
            .into_iter()
            .enumerate()
    {
        let (lie, silu, out_pairs) = (i % 3, i % 2 == 0, i % 4 == 1);
        check(Case { b: 1 + i % 3, pixels, each, blocks, lie, silu, out_pairs, far: [0.0, 30.0][i / 2 % 2] });
        check(Case { b: 2, pixels, each, blocks, lie: (i + 1) % 3, silu: !silu, out_pairs: !out_pairs, far: 0.0 });
    }
}

/// Means far from 0 cost no digits of the spread around them.
#[test]
fn blocks_have_the_moments_of_their_pixels() {
    if !can_run() {
        return;
    }
    for (pixels, c, blocks, far) in [(1, 3, 1, 0.0), (70, 40, 1, 100.0), (71, 33, 5, 3.0), (200, 1, 3, 1000.0)] {
        let x: Vec<f32> = numbers(2 * pixels * c, 1).iter().map(|x| x + far).collect();
        let mut exact = Vec::new();
        for at in 0..2 * blocks {
            let (image, i) = (at / blocks, at % blocks);
            let block = || i * pixels / blocks..(i + 1) * pixels / blocks;
            let of = |p: usize, channel: usize| f64::from(x[(image * pixels + p) * c + channel]);
            let mean = |channel| block().map(|p| of(p, channel)).sum::<f64>() / block().len() as f64;
            let squares = |channel| block().map(|p| (of(p, channel) - mean(channel)).powi(2)).sum::<f64>();
            exact.extend((0..c).map(mean).chain((0..c).map(squares)));
        }
        let y = both(|order| {
            let mut x = Buffer::numbers(2, pixels, c, LIES[2], &x);
            let mut out = Buffer::new(2, blocks, 2 * c, LIES[1], |_| 0);
            let params = GroupStats { turn: turn(), x: x.view(), out: out.view() };
            launch("group_norm", "group_stats", &params, [c.div_ceil(32), blocks, 2], order);
            out.result()
        });
        // Some roundings of numbers of size `far`, seen against a spread of 1, and of sums.
        close(&y, &exact, 3e-7 * f64::from(far) + 1e-6, 2e-6, (pixels, c, blocks));
    }
}
