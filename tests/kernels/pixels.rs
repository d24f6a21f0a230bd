//! kernels/affine.cu, kernels/avg_pool.cu, kernels/nearest_code.cu, kernels/rgb8.cu

use super::abi::{Affine, AvgPool, NearestCode, Rgb8};
use super::lab::*;

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn affine_scales_shifts_and_bounds_each_channel() {
    if !can_run() {
        return;
    }
    for (i, (m, c)) in [(1, 1), (5, 19), (7, 16), (130, 12), (3, 600)].into_iter().enumerate() {
        for (j, (with_factors, bounds)) in
            [(true, None), (true, Some((-0.25f32, 0.5f32))), (false, Some((-0.5, 0.1))), (false, None)]
                .into_iter()
                .enumerate()
        {
            let (lie, in_place) = ((i + j) % 3, (i + j) % 2 == 1);
            let (mut x, scale, shift) = (numbers(m * c, 1), numbers(c, 2), numbers(c, 3));
            x[m * c / 2] = f32::NAN;
            let exact = |(i, &x): (usize, &f32)| {
                let y = f64::from(x);
                let y = if with_factors { y * f64::from(scale[i % c]) + f64::from(shift[i % c]) } else { y };
                bounds.map_or(y, |(low, high)| y.clamp(f64::from(low), f64::from(high)))
            };
            let mut exact: Vec<f64> = x.iter().enumerate().map(exact).collect();
            let mut y = both(|order| {
                let mut x = Buffer::numbers(1, m, c, LIES[lie], &x);
                let mut out = Buffer::new(1, m, c, LIES[(lie + 1) % 3], |_| 0);
                let params = Affine {
                    turn: turn(),
                    x: x.view(),
                    out: if in_place { x.view() } else { out.view() },
                    scale: if with_factors { address(&scale) } else { 0 },
                    shift: if with_factors { address(&shift) } else { 0 },
                    low: bounds.map_or(0.1, |b| b.0),
                    high: bounds.map_or(0.2, |b| b.1),
                    bounded: i32::from(bounds.is_some()),
                    unused: 0,
                };
                launch("affine", "affine", &params, [1 + i, 1, 1], order);
                if in_place { x.result() } else { out.result() }
            });
            assert!(y[m * c / 2].is_nan());
            (y[m * c / 2], exact[m * c / 2]) = (0.0, 0.0);
            close(&y, &exact, 2e-7, 0.0, (m, c, with_factors, bounds));
        }
    }
}

#[test]
fn avg_pool_has_the_bits_of_the_host() {
    if !can_run() {
        return;
    }
    for (i, (b, h, w, c)) in [(1, 1, 1, 1), (2, 3, 5, 7), (3, 2, 1, 32), (1, 4, 4, 130)].into_iter().enumerate() {
        let x = numbers(b * 4 * h * w * c, 1);
        let mut expected = Vec::new();
        for at in 0..b * h * w {
            let (image, y, x0) = (at / (h * w), at / w % h, at % w);
            for channel in 0..c {
                let at = |dy, dx| x[((image * 2 * h + 2 * y + dy) * 2 * w + 2 * x0 + dx) * c + channel];
                expected.push(((at(0, 0) + at(0, 1)) + (at(1, 0) + at(1, 1))) * 0.25);
            }
        }
        for lie in 0..3 {
            let y = both(|order| {
                let mut x = Buffer::numbers(b, 4 * h * w, c, LIES[lie], &x);
                let mut out = Buffer::new(b, h * w, c, LIES[(lie + 1) % 3], |_| 0);
                let params = AvgPool { turn: turn(), x: x.view(), out: out.view(), out_width: w as i32, unused: 0 };
                launch("avg_pool", "avg_pool", &params, [1 + i, 1, 1], order);
                out.result()
            });
            assert_eq!(bits(&y), bits(&expected));
        }
    }
}

#[test]
fn the_nearest_code_and_the_lowest_of_equals() {
    if !can_run() {
        return;
    }
    for (case, (m, codes, c)) in [(1, 1, 1), (37, 33, 9), (20, 500, 32), (4, 130, 70)].into_iter().enumerate() {
        let (mut x, mut table) = (numbers(m * c, 1), numbers(codes * c, 2));
        if codes > 20 {
            table.copy_within(5 * c..6 * c, 17 * c);
            table.copy_within(5 * c..6 * c, 13 * c);
            x[..c].copy_from_slice(&table[5 * c..6 * c]);
            // Nothing is near what is no number; the CPU then says 0.
            x[c..2 * c].fill(f32::NAN);
        }
        let nearest = |x: &[f32]| {
            let d = |e: &[f32]| x.iter().zip(e).map(|(&x, &e)| (f64::from(x) - f64::from(e)).powi(2)).sum::<f64>();
            let all: Vec<f64> = table.chunks(c).map(d).collect();
            (0..codes).fold(0, |best, i| if all[i] < all[best] { i } else { best }) as u32
        };
        let expected: Vec<u32> = x.chunks(c).map(nearest).collect();
        let y = both(|order| {
            let mut x = Buffer::numbers(1, m, c, LIES[case % 3], &x);
            let mut out = Buffer::new(1, m, 1, LIES[(case + 1) % 3], |_| u32::MAX);
            let params = NearestCode {
                turn: turn(),
                x: x.view(),
                out: out.view(),
                codebook: address(&table),
                codes: codes as i32,
                unused: 0,
            };
            launch("nearest_code", "nearest_code", &params, [m.div_ceil(2), 1, 1], order);
            out.result()
        });
        assert_eq!(bits(&y), expected, "{m} {codes} {c}");
    }
}

/// [`discon::Image`] of pixels, by its own formula.
fn byte(x: f32, low: f32, high: f32) -> u8 {
    let scale = 255.0 / (high - low);
    ((x.clamp(low, high) - low) * scale + 0.5).floor() as u8
}

#[test]
fn pixels_become_the_bytes_of_the_host() {
    if !can_run() {
        return;
    }
    for (case, (b, pixels)) in [(1, 1), (2, 4), (3, 9), (2, 300), (1, 1024)].into_iter().enumerate() {
        for (low, high) in [(-1.0f32, 1.0f32), (0.0, 1.0)] {
            let mut x: Vec<f32> = numbers(b * pixels * 3, 1).iter().map(|x| x * 1.2).collect();
            // Values that round, the half itself, the bounds, and what is no number.
            for (i, x) in x.iter_mut().enumerate().skip(2).step_by(5) {
                *x = match i % 7 {
                    0 => f32::NAN,
                    1 => f32::INFINITY,
                    2 => low,
                    3 => high,
                    4 => f32::NEG_INFINITY,
                    _ => (i % 255) as f32 / 255.0 * (high - low) + low + 0.5 / 255.0 * (high - low),
                };
            }
            let words = (pixels * 3).div_ceil(4);
            let y = both(|order| {
                let mut x = Buffer::numbers(b, pixels, 3, LIES[case % 3], &x);
                let mut out = Buffer::new(1, b, words, LIES[(case + 1) % 3], |_| 0xffff_dead);
                let params = Rgb8 { turn: turn(), x: x.view(), out: out.view(), low, high };
                launch("rgb8", "rgb8", &params, [1 + case, 1, 1], order);
                out.result()
            });
            let bytes: Vec<u8> = bits(&y).into_iter().flat_map(u32::to_le_bytes).collect();
            for (image, bytes) in bytes.chunks(4 * words).enumerate() {
                let of = &x[image * pixels * 3..][..pixels * 3];
                let expected: Vec<u8> = of.iter().map(|&x| byte(x, low, high)).collect();
                assert_eq!(bytes[..pixels * 3], expected);
                assert!(bytes[pixels * 3..].iter().all(|&byte| byte == 0));
            }
        }
    }
}
