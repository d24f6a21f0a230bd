//! kernels/conv.cu

use super::abi::{Conv, Epilogue, View};
use super::lab::*;
use discon::tensor::Format;

/// One convolution.
#[derive(Debug, Clone, Copy)]
struct Case {
    b: usize,
    /// Of the input.
    height: usize,
    width: usize,
    cin: usize,
    cout: usize,
    kind: Kind,
    lie: usize,
    /// GroupNorm's factors and SiLU on the way.
    normed: bool,
    activation: i32,
    gated: bool,
    add: bool,
    splits: usize,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// 3 x 3, padded.
    Padded,
    /// The same of the upsampled image.
    Upsampled,
    /// 1 x 1.
    Pixel,
    /// 3 x 3 of stride 2, padded right and below only.
    Halving,
}

fn check(kernel: &str, format: Format, case: Case) {
    let Case { b, height, width, cin, cout, kind, lie, normed, activation, gated, add, splits } = case;
    let (kernel_size, stride, padding, up) = match kind {
        Kind::Padded => (3, 1, 1, 1),
        Kind::Upsampled => (3, 1, 1, 2),
        Kind::Pixel => (1, 1, 0, 1),
        Kind::Halving => (3, 2, 0, 1),
    };
    let (oh, ow) = if stride == 2 { (height.div_ceil(2), width.div_ceil(2)) } else { (height * up, width * up) };
    let k = kernel_size * kernel_size * cin;
    let pixels = b * oh * ow;
    let (x, factors) = (numbers(b * height * width * cin, 1), numbers(b * 2 * cin, 2));
    let (old, gate, bias) = (numbers(pixels * cout, 3), numbers(pixels * cout, 4), numbers(cout, 5));
    let (w, wide) = packed(cout, k, 0, format, &numbers(cout * k, 6));
    let read = |image: usize, line: usize, column: usize, c: usize| {
        let x = x[((image * height + line) * width + column) * cin + c];
        let factor = |half: usize| factors[(image * 2 + half) * cin + c];
        let y = if normed { activated(1, f64::from(x.mul_add(factor(0), factor(1)))) as f32 } else { x };
        f64::from(if format == Format::Bf16 { rounded(&[y])[0] } else { y })
    };
    let mut exact = Vec::new();
    for i in 0..pixels {
        let (image, line, column) = (i / (oh * ow), i / ow % oh, i % ow);
        for o in 0..cout {
            let mut sum = f64::from(bias[o]);
            for tap in 0..kernel_size * kernel_size {
                let at = |place: usize, tap: usize, most: usize| {
                    (place * stride + tap).checked_sub(padding).filter(|&at| at < most * up).map(|at| at / up)
                };
                let places = at(line, tap / kernel_size, height).zip(at(column, tap % kernel_size, width));
                let Some((iy, ix)) = places else { continue };
                let weights = &wide[o * k + tap * cin..][..cin];
                sum += weights.iter().enumerate().map(|(c, &w)| read(image, iy, ix, c) * f64::from(w)).sum::<f64>();
            }
            let y = activated(activation, sum);
            let y = if gated { y * f64::from(gate[i * cout + o]) } else { y };
            exact.push(if add { y + f64::from(old[i * cout + o]) } else { y });
        }
    }
    let panels = cout.div_ceil(16);
    let grid = match kernel {
        "conv_bf16" => [panels.div_ceil(8) * pixels.div_ceil(128), 1, 1],
        "conv_f32" => [panels.div_ceil(4) * pixels.div_ceil(64), 1, 1],
        _ => [panels.div_ceil(4) * pixels.div_ceil(64), 1, splits],
    };
    let y = both(|order| {
        let mut x = Buffer::numbers(b, height * width, cin, LIES[lie], &x);
        let mut factors = Buffer::numbers(1, b, 2 * cin, LIES[(lie + 1) % 3], &factors);
        let mut gate = Buffer::numbers(b, oh * ow, cout, LIES[2], &gate);
        let mut out = Buffer::numbers(b, oh * ow, cout, LIES[lie], &old);
        let mut partial = floats_on_16(splits * grid[0] * 4096);
        let mut tickets = vec![0u32; grid[0]];
        let params = Conv {
            turn: turn(),
            x: x.view(),
            factors: if normed { factors.view() } else { View::NONE },
            out: out.view(),
            w: packed_params(&w),
            epilogue: Epilogue {
                bias: address(&bias),
                gate: if gated { gate.view() } else { View::NONE },
                activation,
                add: i32::from(add),
                form: 0,
                unused: 0,
            },
            partial: address_mut(&mut partial),
            tickets: address_mut(&mut tickets),
            activation: 1,
            unused: 0,
            cin: cin as i32,
            width: width as i32,
            kernel: kernel_size as i32,
            stride: stride as i32,
            padding: padding as i32,
            upsample: i32::from(up == 2),
            out_width: ow as i32,
            splits: splits as i32,
        };
        launch("conv", kernel, &params, grid, order);
        assert!(tickets.iter().all(|&count| count == 0), "tickets are not ready for the next launch");
        out.result()
    });
    // Where the normalisation rounds differently, the rounding to bf16 may go the other way.
    let flips = if format == Format::Bf16 && normed { k as f64 * 2e-4 } else { 0.0 };
    close(&y, &exact, 1e-6 * k as f64 + flips, 0.0, (kernel, format, case));
}

/// Odd sizes, every kind, lie and epilogue.
fn cases() -> Vec<Case> {
    let sizes = [
        (1, 1, 1, 1, 1),
        (2, 5, 7, 3, 19),
        (1, 9, 8, 4, 16),
        (2, 6, 5, 32, 3),
        (1, 11, 13, 20, 70),
        (3, 4, 4, 37, 33),
        (1, 3, 12, 64, 150),
    ];
    let kinds = [Kind::Padded, Kind::Upsampled, Kind::Pixel, Kind::Halving];
    let mut all = Vec::new();
    for (i, (b, height, width, cin, cout)) in sizes.into_iter().enumerate() {
        for (j, kind) in kinds.into_iter().enumerate() {
            let at = i * 5 + j;
            all.push(Case {
                b,
                height,
                width,
                cin,
                cout,
                kind,
                lie: at % 3,
                normed: at % 2 == 1,
                activation: (at % 4 % 3) as i32,
                gated: at % 3 == 2,
                add: at % 5 < 2,
                splits: 1 + at % 3,
            });
        }
    }
    all
}

#[test]
fn convolutions_of_bf16() {
    if can_run() {
        for case in cases() {
            check("conv_bf16_small", Format::Bf16, case);
            check("conv_bf16", Format::Bf16, Case { lie: (case.lie + 1) % 3, normed: !case.normed, splits: 1, ..case });
        }
    }
}

#[test]
fn convolutions_of_f32() {
    if can_run() {
        for case in cases() {
            check("conv_f32", Format::F32, case);
            check("conv_f32", Format::Wide, Case { lie: (case.lie + 1) % 3, normed: !case.normed, ..case });
        }
    }
}
