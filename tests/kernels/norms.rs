//! kernels/layer_norm.cu, kernels/head_norm.cu

use super::abi::{HeadNorm, HeadNorms, LayerNorm, View};
use super::lab::*;

/// The reference: one row in f64.
fn normalised(x: &[f32]) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let var = x.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n;
    x.iter().map(|&x| (f64::from(x) - mean) / (var + 1e-6).sqrt()).collect()
}

/// One layer norm.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    d: usize,
    lie: usize,
    affine: bool,
    modulated: bool,
    out_pairs: bool,
    in_place: bool,
    /// The mean of all numbers, about.
    far: f32,
}

fn check(kernel: &str, case: Case) {
    let Case { m, d, lie, affine, modulated, out_pairs, in_place, far } = case;
    let groups = if m % 2 == 0 && lie > 0 { 2 } else { 1 };
    let x: Vec<f32> = numbers(m * d, 1).iter().map(|x| x + far).collect();
    // Behind the first element: the vectors themselves start on 4 bytes, with lie 2.
    let (w, b) = (numbers(d + 4, 2), numbers(d + 4, 3));
    let (w, b) = if lie == 2 { (&w[1..=d], &b[1..=d]) } else { (&w[..d], &b[..d]) };
    let (shift, scale) = (numbers(m * d, 4), numbers(m * d, 5));
    let mut exact = Vec::new();
    for (i, row) in x.chunks(d).enumerate() {
        for (j, y) in normalised(row).into_iter().enumerate() {
            let y = if affine { y * f64::from(w[j]) + f64::from(b[j]) } else { y };
            let at = i * d + j;
            exact.push(if modulated { y * (1.0 + f64::from(scale[at])) + f64::from(shift[at]) } else { y });
        }
    }
    let y = both(|order| {
        let lay = |data: &[f32], lie: usize| Buffer::numbers(groups, m / groups, d, LIES[lie], data);
        let mut x = lay(&x, lie);
        let (mut shift, mut scale) = (lay(&shift, lie), lay(&scale, (lie + 1) % 3));
        let mut out = match out_pairs {
            true => Buffer::new(groups, m / groups, d.div_ceil(2), LIES[lie], |_| 0x7fc0_7fc0),
            false => lay(&vec![f32::NAN; m * d], lie),
        };
        let params = LayerNorm {
            turn: turn(),
            x: x.view(),
            out: if in_place { x.view() } else { out.view() },
            weight: if affine { address(w) } else { 0 },
            bias: if affine { address(b) } else { 0 },
            shift: if modulated { shift.view() } else { View::NONE },
            scale: if modulated { scale.view() } else { View::NONE },
            form: i32::from(out_pairs),
            unused: 0,
        };
        let grid = if kernel == "layer_norm" { m.div_ceil(8) } else { m };
        launch("layer_norm", kernel, &params, [grid, 1, 1], order);
        match (in_place, out_pairs) {
            (true, _) => x.result(),
            (_, true) => out.result_of_pairs(d),
            _ => out.result(),
        }
    });
    // The mean is rounded to half an ulp of `far`, then divided by a deviation of about a half.
    let bound = 5e-6 + 2e-6 * f64::from(far);
    close(&y, &exact, bound, if out_pairs { 1.0 / 256.0 } else { 0.0 }, (kernel, case));
}

#[test]
fn rows_are_normalised_and_modulated() {
    if !can_run() {
        return;
    }
    let widths = [2, 5, 48, 63, 64, 127, 130, 768, 1024, 1027, 1300, 2048, 2051, 4100];
    for (i, &d) in widths.iter().enumerate() {
        for (j, m) in [1, 3, 10].into_iter().enumerate() {
            let at = i * 3 + j;
            let out_pairs = at % 2 == 1;
            let case = Case {
                m,
                d,
                lie: (i + j) % 3,
                affine: at % 3 != 0,
                modulated: at % 4 < 2,
                out_pairs,
                in_place: !out_pairs && at % 5 == 0,
                far: if at % 7 == 3 { 30.0 } else { 0.0 },
            };
            check("layer_norm", case);
            check("layer_norm_block", case);
            check("layer_norm", Case { lie: (case.lie + 1) % 3, affine: !case.affine, ..case });
            check("layer_norm_block", Case { lie: (case.lie + 2) % 3, modulated: !case.modulated, ..case });
        }
    }
}

/// Columns `first..first + cols` of a view.
fn columns(view: View, first: usize, cols: usize) -> View {
    View { base: view.base + 4 * first as u64, cols: cols as i32, ..view }
}

#[test]
fn each_head_is_normalised_by_itself() {
    if !can_run() {
        return;
    }
    for (m, heads, d) in [(1, 1, 5), (3, 4, 16), (2, 3, 48), (4, 2, 88), (1, 5, 128), (2, 2, 202)] {
        for lie in 0..3 {
            let cols = heads * d;
            let (x, w, b) = (numbers(m * cols, 1), numbers(d, 2), numbers(d, 3));
            let affine = |(j, y): (usize, f64)| y * f64::from(w[j]) + f64::from(b[j]);
            let head = |x: &[f32]| normalised(x).into_iter().enumerate().map(affine).collect::<Vec<_>>();
            let exact: Vec<f64> = x.chunks(d).flat_map(head).collect();
            let y = both(|order| {
                let mut x = Buffer::numbers(1, m, cols, LIES[lie], &x);
                let mut out = Buffer::new(m, 1, cols, LIES[(lie + 1) % 3], |_| 0);
                let params = HeadNorm {
                    turn: turn(),
                    x: x.view(),
                    out: out.view(),
                    weight: address(&w),
                    bias: address(&b),
                    head_size: d as i32,
                    unused: 0,
                };
                launch("head_norm", "head_norm", &params, [(m * heads).div_ceil(8), 1, 1], order);
                out.result()
            });
            close(&y, &exact, 5e-6, 0.0, (m, heads, d, lie));
        }
    }
}

/// As a place of stage 1 does it: norms of queries and keys, values as they are; keys and values into caches.
#[test]
fn queries_keys_and_values_at_once() {
    if !can_run() {
        return;
    }
    for (m, heads, d, lie) in [(1, 12, 64, 0), (3, 2, 48, 1), (2, 3, 5, 2)] {
        let cols = heads * d;
        let (x, w, b) = (numbers(m * 3 * cols, 1), numbers(2 * d, 2), numbers(2 * d, 3));
        let mut exact = [vec![], vec![], vec![]];
        for row in x.chunks(3 * cols) {
            for (which, part) in row.chunks(cols).enumerate() {
                for head in part.chunks(d) {
                    let normed = normalised(head).into_iter().enumerate();
                    exact[which].extend(normed.map(|(j, y)| match which {
                        2 => f64::from(head[j]),
                        _ => y * f64::from(w[which * d + j]) + f64::from(b[which * d + j]),
                    }));
                }
            }
        }
        let y = both(|order| {
            let mut x = Buffer::numbers(1, m, 3 * cols, LIES[lie], &x);
            let mut outs = [0, 1, 2].map(|i| Buffer::new(m, 1, cols, LIES[i], |_| 0));
            let mut each = 0..3;
            let params = HeadNorms {
                each: [(); 3].map(|()| {
                    let i = each.next().unwrap();
                    HeadNorm {
                        turn: turn(),
                        x: columns(x.view(), i * cols, cols),
                        out: outs[i].view(),
                        weight: if i < 2 { address(&w[i * d..]) } else { 0 },
                        bias: if i < 2 { address(&b[i * d..]) } else { 0 },
                        // A copy knows no heads.
                        head_size: if i < 2 { d as i32 } else { cols as i32 },
                        unused: 0,
                    }
                }),
            };
            launch("head_norm", "head_norms", &params, [(m * heads).div_ceil(8), 3, 1], order);
            outs.iter().flat_map(Buffer::result).collect()
        });
        close(&y, &exact.concat(), 5e-6, 0.0, (m, heads, d));
        let copied = &y[2 * m * cols..];
        assert!(copied.iter().zip(&exact[2]).all(|(&y, &e)| f64::from(y) == e));
    }
}
