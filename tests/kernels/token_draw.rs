//! kernels/token_draw.cu

use super::abi::{TokenDraw, View};
use super::lab::*;

struct Draw<'a> {
    groups: usize,
    codes: usize,
    logits: &'a [f32],
    scale: f32,
    temperature: f64,
    uniforms: &'a [f32],
    lie: usize,
}

/// The CPU's arithmetic, in its order.
fn expected(draw: &Draw<'_>) -> Vec<u32> {
    let (batch, k) = (draw.uniforms.len(), draw.codes);
    let code = |i: usize| {
        let guided = |c: usize| {
            let cond = draw.logits[i * k + c];
            if draw.groups == 1 {
                return f64::from(cond);
            }
            let null = draw.logits[(batch + i) * k + c];
            f64::from(null + (cond - null) * draw.scale)
        };
        let top = (0..k).map(guided).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = (0..k).map(|c| ((guided(c) - top) / draw.temperature).exp()).collect();
        let aim = f64::from(draw.uniforms[i]) * weights.iter().sum::<f64>();
        let mut sum = 0.0;
        let passed = weights.iter().take_while(|&w| {
            sum += w;
            sum <= aim
        });
        passed.count().min(k - 1) as u32
    };
    (0..batch).flat_map(|i| vec![code(i); draw.groups]).collect()
}

fn drawn(draw: &Draw<'_>) -> Vec<u32> {
    let (batch, k, lie) = (draw.uniforms.len(), draw.codes, LIES[draw.lie]);
    let y = both(|order| {
        let mut logits = Buffer::numbers(draw.groups, batch, k, lie, draw.logits);
        let mut scale = Buffer::numbers(1, 1, 1, lie, &[draw.scale]);
        let mut uniforms = Buffer::numbers(1, batch, 1, lie, draw.uniforms);
        let mut out = Buffer::new(1, batch, draw.groups, lie, |_| u32::MAX);
        let params = TokenDraw {
            turn: turn(),
            logits: logits.view(),
            scale: if draw.groups == 2 { scale.view() } else { View { groups: 1, ..scale.view() } },
            uniforms: uniforms.view(),
            out: out.view(),
            temperature: draw.temperature,
        };
        launch("token_draw", "token_draw", &params, [batch, 1, 1], order);
        out.result()
    });
    y.into_iter().map(f32::to_bits).collect()
}

#[test]
fn codes_are_the_hosts() {
    if !can_run() {
        return;
    }
    for (case, codes) in [1, 2, 31, 33, 500, 512, 513, 1024, 3000].into_iter().enumerate() {
        for groups in [1, 2] {
            let batch = 9;
            let logits: Vec<f32> = numbers(groups * batch * codes, case as u32).iter().map(|x| 6.0 * x).collect();
            let mut uniforms: Vec<f32> = numbers(batch, 77).iter().map(|x| (x + 1.0) / 2.0).collect();
            (uniforms[0], uniforms[1]) = (0.0, 0.999_999_94);
            let temperature = if case % 2 == 0 { 1.0 } else { 1.3 };
            let draw =
                Draw { groups, codes, logits: &logits, scale: 2.5, temperature, uniforms: &uniforms, lie: case % 3 };
            assert_eq!(drawn(&draw), expected(&draw), "{codes} {groups}");
        }
    }
}

#[test]
fn a_cumulative_probability_equal_to_the_uniform_is_passed() {
    if !can_run() {
        return;
    }
    for codes in [4, 64, 1024] {
        let uniforms: Vec<f32> = (0..=8).map(|i| i as f32 / 8.0).collect();
        let logits = vec![0.5; uniforms.len() * codes];
        let draw =
            Draw { groups: 1, codes, logits: &logits, scale: 1.0, temperature: 1.0, uniforms: &uniforms, lie: 0 };
        let exact: Vec<u32> = (0..=8).map(|i| (i * codes / 8).min(codes - 1) as u32).collect();
        assert_eq!(drawn(&draw), exact);
    }
}

#[test]
fn codes_of_no_weight_are_passed_where_their_cumulative_probability_equals_the_uniform() {
    if !can_run() {
        return;
    }
    // A run of 64 codes is a warp's: once the codes of no weight start with one, once within one.
    for (gap, code) in [(256..768, 768), (272..784, 784)] {
        let mut logits = vec![0.5; 1024];
        let uniform = gap.start as f32 / 512.0;
        logits[gap].fill(f32::NEG_INFINITY);
        let draw = Draw {
            groups: 1,
            codes: 1024,
            logits: &logits,
            scale: 1.0,
            temperature: 1.0,
            uniforms: &[uniform],
            lie: 0,
        };
        assert_eq!((drawn(&draw), expected(&draw)), (vec![code], vec![code]));
    }
}

#[test]
fn logits_that_are_not_numbers_give_the_code_that_the_host_gives() {
    if !can_run() {
        return;
    }
    let codes = 700;
    let plain = numbers(codes, 1);
    let with = |at: std::ops::Range<usize>, value: f32| {
        let mut logits = plain.clone();
        logits[at].fill(value);
        logits
    };
    for logits in [
        with(0..700, f32::NAN),
        with(300..301, f32::NAN),
        with(0..700, f32::NEG_INFINITY),
        with(0..699, f32::NEG_INFINITY),
        with(650..660, f32::INFINITY),
        with(0..350, -1e30),
        with(350..700, f32::NEG_INFINITY),
    ] {
        let draw = Draw { groups: 1, codes, logits: &logits, scale: 1.0, temperature: 0.9, uniforms: &[0.75], lie: 0 };
        assert_eq!(drawn(&draw), expected(&draw));
    }
}
