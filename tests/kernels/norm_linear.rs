//! kernels/norm_linear.cu

use super::abi::{Epilogue, LayerNorm, Linear, NormLinear, View};
use super::lab::*;
use discon::tensor::Format;

#[derive(Debug, Clone, Copy)]
struct Case {
    m: usize,
    n: usize,
    k: usize,
    splits: usize,
    lie: usize,
    affine: bool,
    modulated: bool,
}

/// The fused kernel's result, then that of the two which it stands for.
fn both_ways(case: Case, order: Order) -> [Vec<f32>; 2] {
    let Case { m, n, k, splits, lie, affine, modulated } = case;
    let [mut x, mut shift, mut scale] =
        [1, 2, 3].map(|seed| Buffer::numbers(1, m, k, LIES[(lie + seed) % 3], &numbers(m * k, seed as u32)));
    let (weight, bias) = (numbers(k, 4), numbers(k, 5));
    let (w, _) = packed(n, k, 7, Format::Bf16, &numbers((n + 7) * k, 6));
    let (old, gate, added) = (numbers(m * n, 7), numbers(m * n, 8), numbers(n, 9));
    let mut gate = Buffer::numbers(1, m, n, LIES[lie], &gate);
    let norm = LayerNorm {
        turn: turn(),
        x: x.view(),
        out: View::NONE,
        weight: if affine { address(&weight) } else { 0 },
        bias: if affine { address(&bias) } else { 0 },
        shift: if modulated { shift.view() } else { View::NONE },
        scale: if modulated { scale.view() } else { View::NONE },
        form: 1,
        unused: 0,
    };
    let more = if m > 16 { "_32" } else { "" };
    let tiles = w.panels(0..n).len().div_ceil(2);
    let epilogue = Epilogue { bias: address(&added), gate: gate.view(), activation: 1, add: 1, form: 0, unused: 0 };
    [true, false].map(|fused| {
        let mut out = Buffer::numbers(1, m, n, LIES[lie], &old);
        let mut normed = Buffer::new(1, m, k.div_ceil(2), LIES[lie], |_| 0x7fc0_7fc0);
        let (mut partial, mut tickets) = (floats_on_16(splits * tiles * 1024), vec![0u32; tiles]);
        let linear = Linear {
            turn: turn(),
            x: if fused { x.view() } else { normed.view() },
            out: out.view(),
            w: packed_params(&w),
            epilogue,
            partial: address_mut(&mut partial),
            tickets: address_mut(&mut tickets),
            form: i32::from(!fused),
            splits: splits as i32,
        };
        let grid = [tiles, splits, 1];
        if fused {
            let LayerNorm { weight, bias, shift, scale, .. } = norm;
            let params = NormLinear { linear, weight, bias, shift, scale };
            launch("norm_linear", &format!("norm_linear_few_bf16{more}"), &params, grid, order);
        } else {
            let norm = LayerNorm { out: linear.x, ..norm };
            launch("layer_norm", "layer_norm", &norm, [m.div_ceil(8), 1, 1], order);
            launch("linear", &format!("linear_few_bf16{more}"), &linear, grid, order);
        }
        assert!(tickets.iter().all(|&count| count == 0));
        out.result()
    })
}

#[test]
fn a_norm_and_its_product_are_what_they_are_one_after_the_other() {
    if !can_run() {
        return;
    }
    let widths =
        [(1, 2), (33, 5), (40, 64), (70, 129), (31, 300), (64, 768), (20, 1027), (9, 1280), (35, 1408), (33, 2700)];
    for (i, (n, k)) in widths.into_iter().enumerate() {
        for (j, m) in [1, 2, 9, 16, 17, 32].into_iter().enumerate() {
            let at = i * 6 + j;
            let case = Case {
                m,
                n,
                k, // As many as the rows want to lie in shared memory.
                splits: k.div_ceil(if m > 16 { 640 } else { 1408 }) + at % 4,
                lie: at % 3,
                affine: at % 3 != 1,
                modulated: at % 5 != 2,
            };
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            let y = both(|order| {
                let [fused, apart] = both_ways(case, order);
                assert_eq!(bits(&fused), bits(&apart), "{case:?}");
                fused
            });
            assert!(y.iter().all(|y| y.is_finite()), "{case:?}");
        }
    }
}
