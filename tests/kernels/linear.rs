//! kernels/linear.cu, kernels/linear_wgmma.cu

use super::abi::{Epilogue, Linear};
use super::lab::*;
use discon::tensor::Format;

/// One product, by kernel.
#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    /// Outputs of the packed matrix before ours.
    first: usize,
    lie: usize,
    activation: i32,
    gated: bool,
    add: bool,
    out_pairs: bool,
    splits: usize,
}

fn check(kernel: &str, format: Format, x_pairs: bool, case: Case) {
    let Case { m, n, k, first, lie, activation, gated, add, out_pairs, splits } = case;
    // Two groups where the rows can be halved.
    let groups = if m % 2 == 0 && lie > 0 { 2 } else { 1 };
    let (x, old, gate, bias) = (numbers(m * k, 1), numbers(m * n, 2), numbers(m * n, 3), numbers(n, 4));
    let (w, wide) = packed(n, k, first, format, &numbers((n + first) * k, 5));
    let read = match format {
        Format::Bf16 => rounded(&x),
        Format::F16 => halved(&x),
        _ => x.clone(),
    };
    let mut exact = vec![0.0; m * n];
    for (i, exact) in exact.iter_mut().enumerate() {
        let (row, col) = (&read[i / n * k..][..k], &wide[i % n * k..][..k]);
        let sum: f64 = row.iter().zip(col).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let y = activated(activation, sum + f64::from(bias[i % n]));
        let y = if gated { y * f64::from(gate[i]) } else { y };
        *exact = if add { y + f64::from(old[i]) } else { y };
    }
    let panels = w.panels(0..n).len();
    let grid = match kernel {
        "linear_few_f32" => [panels, 1, 1],
        few if few.contains("few") => [panels.div_ceil(2), splits, 1],
        "linear_bf16_numbers" | "linear_bf16_pairs" | "linear_f16" => [panels.div_ceil(8) * m.div_ceil(128), 1, 1],
        "linear_bf16_pairs_wgmma" => [panels.div_ceil(8) * m.div_ceil(256), 1, 1],
        "linear_f32" => [panels.div_ceil(4) * m.div_ceil(64), 1, 1],
        _ => [panels.div_ceil(4) * m.div_ceil(64), 1, splits],
    };
    let tickets = grid[0];
    let tile = match kernel {
        "linear_few_bf16" | "linear_few_f16" => 512,
        "linear_few_bf16_32" | "linear_few_f16_32" => 1024,
        _ => 4096,
    };
    let y = both(|order| {
        let place = LIES[lie];
        let lay = if x_pairs { Buffer::pairs } else { Buffer::numbers };
        let mut x = lay(groups, m / groups, k, place, &x);
        let mut gate = Buffer::numbers(groups, m / groups, n, LIES[2], &gate);
        let mut out = match out_pairs {
            true => Buffer::new(groups, m / groups, n.div_ceil(2), place, |_| 0x7fc0_7fc0),
            false => Buffer::numbers(groups, m / groups, n, place, &old),
        };
        let mut partial = floats_on_16(splits * tickets * tile);
        let mut counts = vec![0u32; tickets];
        let epilogue = Epilogue {
            bias: address(&bias),
            gate: if gated { gate.view() } else { Epilogue::NONE.gate },
            activation,
            add: i32::from(add),
            form: i32::from(out_pairs),
            unused: 0,
        };
        let params = Linear {
            turn: turn(),
            x: x.view(),
            out: out.view(),
            w: packed_params(&w),
            epilogue,
            partial: address_mut(&mut partial),
            tickets: address_mut(&mut counts),
            form: i32::from(x_pairs),
            splits: splits as i32,
        };
        let file = if kernel.ends_with("_wgmma") { "linear_wgmma" } else { "linear" };
        launch(file, kernel, &params, grid, order);
        assert!(counts.iter().all(|&count| count == 0), "tickets are not ready for the next launch");
        if out_pairs { out.result_of_pairs(n) } else { out.result() }
    });
    close(&y, &exact, 1e-6 * k as f64, if out_pairs { 1.0 / 256.0 } else { 0.0 }, (kernel, format, case));
}

/// Odd sizes, every lie, every epilogue.
fn cases(rows: &[usize], widths: &[(usize, usize, usize)]) -> Vec<Case> {
    let mut all = Vec::new();
    for (i, &m) in rows.iter().enumerate() {
        for (j, &(n, k, first)) in widths.iter().enumerate() {
            let at = i * 7 + j;
            let out_pairs = first % 2 == 0 && at % 4 == 3;
            all.push(Case {
                m,
                n,
                k,
                first,
                lie: at % 3,
                activation: (at % 5 % 3) as i32,
                gated: at % 2 == 1,
                add: at % 3 == 0 && !out_pairs,
                out_pairs,
                splits: 1 + at % 3,
            });
        }
    }
    all
}

const WIDTHS: [(usize, usize, usize); 7] =
    [(1, 1, 0), (16, 32, 16), (37, 65, 3), (64, 127, 20), (150, 200, 0), (70, 34, 13), (129, 97, 6)];

#[test]
fn tall_products_of_pairs_and_numbers() {
    if can_run() {
        for case in cases(&[1, 17, 64, 130], &WIDTHS) {
            check("linear_bf16_pairs_small", Format::Bf16, true, case);
            check("linear_bf16_numbers_small", Format::Bf16, false, case);
        }
    }
}

/// Kernels of f16 take and leave numbers.
fn of_numbers(case: Case) -> Case {
    Case { out_pairs: false, ..case }
}

#[test]
fn products_of_f16() {
    if can_run() {
        for case in cases(&[1, 17, 64, 130], &WIDTHS) {
            check("linear_f16_small", Format::F16, false, of_numbers(case));
        }
        for case in cases(&[19, 140], &WIDTHS[2..]) {
            check("linear_f16", Format::F16, false, of_numbers(case));
        }
        let widths = [WIDTHS.as_slice(), &[(35, 1300, 5), (48, 2100, 0)]].concat();
        for case in cases(&[1, 2, 9, 16], &widths) {
            check("linear_few_f16", Format::F16, false, of_numbers(case));
        }
        for case in cases(&[1, 17, 32], &widths) {
            check("linear_few_f16_32", Format::F16, false, of_numbers(case));
        }
    }
}

#[test]
fn tall_products_in_large_tiles() {
    if can_run() {
        for case in cases(&[19, 140], &WIDTHS[2..]) {
            check("linear_bf16_pairs", Format::Bf16, true, case);
            check("linear_bf16_numbers", Format::Bf16, false, case);
        }
    }
}

/// Steps of K are 64, two at a time: from less than one to more than are in memory at once.
#[test]
fn tall_products_by_wgmma() {
    if can_run() {
        let widths = [&WIDTHS[2..], &[(33, 64, 0), (17, 129, 2), (64, 450, 4), (260, 641, 9)]].concat();
        for case in cases(&[1, 19, 140, 300, 512], &widths) {
            check("linear_bf16_pairs_wgmma", Format::Bf16, true, Case { splits: 1, ..case });
        }
    }
}

/// In one of the two orders products are done as late as they may be and copies arrive as early, in the other the other way round.
#[test]
fn a_wait_too_few_shows() {
    if !can_run() {
        return;
    }
    let (m, n, k) = (40, 33, 641);
    let (w, _) = packed(n, k, 0, Format::Bf16, &numbers(n * k, 1));
    let run = |file: &str, order: Order| {
        let mut x = Buffer::pairs(1, m, k, LIES[0], &numbers(m * k, 2));
        let mut out = Buffer::new(1, m, n, LIES[0], |_| 0);
        let params = Linear {
            turn: turn(),
            x: x.view(),
            out: out.view(),
            w: packed_params(&w),
            epilogue: Epilogue::NONE,
            partial: 0,
            tickets: 0,
            form: 1,
            splits: 1,
        };
        launch(file, "linear_bf16_pairs_wgmma", &params, [1, 1, 1], order);
        out.contents()
    };
    let right = run("linear_wgmma", Order::Forwards);
    assert!(right == run("linear_wgmma", Order::Backwards));
    let products = changed("linear_wgmma", "products", "wgmma_wait<1>();", "wgmma_wait<2>();");
    let copies =
        changed("linear_wgmma", "copies", "copies_wait<WIDE_STAGES - 3>();", "copies_wait<WIDE_STAGES - 2>();");
    for (changed, order) in [(products, Order::Backwards), (copies, Order::Forwards)] {
        assert!(right != run(&changed, order), "{changed}");
    }
}

#[test]
fn tall_products_in_f32() {
    if can_run() {
        for case in cases(&[1, 17, 70], &WIDTHS) {
            check("linear_f32", Format::F32, false, case);
            check("linear_f32", Format::Wide, false, case);
        }
    }
}

#[test]
fn products_of_few_rows() {
    if can_run() {
        let widths = [WIDTHS.as_slice(), &[(35, 1300, 5), (48, 2100, 0)]].concat();
        for case in cases(&[1, 2, 3, 9, 16], &widths) {
            check("linear_few_bf16", Format::Bf16, true, case);
            check("linear_few_bf16", Format::Bf16, false, case);
            check("linear_few_f32", Format::F32, false, case);
            check("linear_few_f32", Format::Wide, false, case);
        }
    }
}

#[test]
fn products_of_rows_that_are_not_quite_few() {
    if can_run() {
        let widths = [WIDTHS.as_slice(), &[(35, 1300, 5), (48, 2100, 0)]].concat();
        for case in cases(&[1, 17, 24, 32], &widths) {
            check("linear_few_bf16_32", Format::Bf16, true, case);
            check("linear_few_bf16_32", Format::Bf16, false, case);
        }
    }
}

/// So that a picture does not depend on its batch within a kernel.
#[test]
fn a_row_does_not_depend_on_its_company() {
    if !can_run() {
        return;
    }
    let (n, k) = (33, 300);
    let x = numbers(16 * k, 1);
    let (w, _) = packed(n, k, 0, Format::Bf16, &numbers(n * k, 2));
    let run = |rows: std::ops::Range<usize>, splits: usize| {
        let mut x = Buffer::numbers(1, rows.len(), k, LIES[0], &x[rows.start * k..rows.end * k]);
        let mut out = Buffer::new(1, rows.len(), n, LIES[0], |_| 0);
        let (mut partial, mut tickets) = (floats_on_16(splits * 1024), [0u32; 2]);
        let params = Linear {
            turn: turn(),
            x: x.view(),
            out: out.view(),
            w: packed_params(&w),
            epilogue: Epilogue::NONE,
            partial: address_mut(&mut partial),
            tickets: address_mut(&mut tickets),
            form: 0,
            splits: splits as i32,
        };
        launch("linear", "linear_few_bf16", &params, [2, splits, 1], Order::Forwards);
        out.result()
    };
    for splits in [1, 4] {
        let all = run(0..16, splits);
        for rows in [0..1, 3..12] {
            assert_eq!(run(rows.clone(), splits), all[rows.start * n..rows.end * n]);
        }
    }
}
