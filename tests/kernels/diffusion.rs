//! kernels/diffusion_step.cu, kernels/advance.cu

use super::abi::{Advance, DiffusionStep};
use super::lab::*;

#[derive(Debug, Clone, Copy)]
struct Case {
    n: usize,
    c: usize,
    guidance: Option<f32>,
    clip: Option<f32>,
    noisy: f32,
    lie: usize,
}

fn check(case: Case) {
    let Case { n, c, guidance, clip, noisy, lie } = case;
    let rows = if guidance.is_some() { 2 * n } else { n };
    let (x, eps, noise) = (numbers(n * c, 1), numbers(rows * 2 * c, 2), numbers(n * c, 3));
    let f = [1.3f32, 0.8, 0.4, 0.55, -2.5, -1.25, noisy];
    let mut exact = Vec::new();
    for i in 0..n * c {
        let at = i / c * 2 * c + i % c;
        let cond = f64::from(eps[at]);
        let e = guidance.map_or(cond, |g| {
            let null = f64::from(eps[at + n * 2 * c]);
            null + f64::from(g) * (cond - null)
        });
        let f = f.map(f64::from);
        let clean = f[0] * f64::from(x[i]) - f[1] * e;
        let clean = clip.map_or(clean, |b| clean.clamp(f64::from(-b), f64::from(b)));
        let share = (f64::from(eps[at + c]) + 1.0) / 2.0;
        let log_variance = share * f[5] + (1.0 - share) * f[4];
        let drawn = f[6] * (0.5 * log_variance).exp() * f64::from(noise[i]) * f64::from(0.9f32);
        exact.push(f[2] * clean + f[3] * f64::from(x[i]) + drawn);
    }
    let y = both(|order| {
        let mut x = Buffer::numbers(1, n, c, LIES[lie], &x);
        let mut eps = Buffer::numbers(1, rows, 2 * c, LIES[(lie + 1) % 3], &eps);
        let mut noise = Buffer::numbers(1, n, c, LIES[(lie + 2) % 3], &noise);
        let mut factors = Buffer::numbers(1, 1, 7, LIES[lie], &f);
        let params = DiffusionStep {
            turn: turn(),
            eps: eps.view(),
            factors: factors.view(),
            noise: noise.view(),
            x: x.view(),
            guidance: guidance.unwrap_or(0.1),
            temperature: 0.9,
            clip: clip.unwrap_or(0.1),
            guided: i32::from(guidance.is_some()),
            clipped: i32::from(clip.is_some()),
            unused: 0,
        };
        launch("diffusion_step", "diffusion_step", &params, [3, 1, 1], order);
        x.result()
    });
    close(&y, &exact, 2e-6, 0.0, case);
}

#[test]
fn a_step_agrees_with_the_formula() {
    if !can_run() {
        return;
    }
    for (i, (n, c)) in [(1, 1), (5, 16), (3, 21), (40, 16), (61, 33)].into_iter().enumerate() {
        for (j, (guidance, clip)) in
            [(None, None), (Some(3.0), None), (Some(0.5), Some(0.7)), (None, Some(0.2))].into_iter().enumerate()
        {
            let noisy = if j == 3 { 0.0 } else { 1.0 };
            check(Case { n, c, guidance, clip, noisy, lie: (i + j) % 3 });
        }
    }
}

#[test]
fn the_turn_advances_and_starts_again() {
    if !can_run() {
        return;
    }
    for order in [Order::Forwards, Order::Backwards] {
        let mut now = [41];
        let turn = address_mut(&mut now);
        launch("advance", "advance", &Advance { turn, turns: 43, unused: 0 }, [1, 1, 1], order);
        assert_eq!(std::hint::black_box(now), [42]);
        launch("advance", "advance", &Advance { turn, turns: 43, unused: 0 }, [1, 1, 1], order);
        assert_eq!(std::hint::black_box(now), [0]);
    }
}
