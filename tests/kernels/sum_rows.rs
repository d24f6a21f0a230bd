//! kernels/sum_rows.cu

use super::abi::{Source, SumRows, View};
use super::lab::*;
use half::{bf16, f16};

const ROWS: i32 = 0;
const TABLE_RANGE: i32 = 1;
const TABLE_TURN: i32 = 2;
const TABLE_GROUP: i32 = 3;
const TABLE_FROM: i32 = 4;
const GATHER: i32 = 5;
const MIX: i32 = 6;

const NONE: Source = Source { rows: View::NONE, ids: View::NONE, table: 0, kind: 0, table_type: 0, first: 0, step: 0 };

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// A table as bytes behind `lead` elements, and what its numbers became.
fn table(kind: usize, lead: usize, data: &[f32]) -> (Vec<u32>, usize, Vec<f32>) {
    let halves = |of: &dyn Fn(f32) -> u16| -> Vec<u32> {
        let all: Vec<u16> = (0..lead).map(|_| 0x7fff).chain(data.iter().map(|&x| of(x))).collect();
        all.chunks(2).map(|two| u32::from(two[0]) | u32::from(*two.get(1).unwrap_or(&0x7fff)) << 16).collect()
    };
    match kind {
        0 => ((0..lead).map(|_| u32::MAX).chain(bits(data)).collect(), 4 * lead, data.to_vec()),
        1 => {
            let back = data.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
            (halves(&|x| f16::from_f32(x).to_bits()), 2 * lead, back)
        }
        _ => (halves(&|x| bf16::from_f32(x).to_bits()), 2 * lead, rounded(data)),
    }
}

#[test]
fn rows_tables_and_broadcasts_add_up_in_their_order() {
    if !can_run() {
        return;
    }
    let (groups, rows) = (2, 3);
    let count = groups * rows;
    for (case, d) in [1, 3, 8, 21, 22, 64, 130, 513].into_iter().enumerate() {
        for activation in 0..2 {
            let (lie, kind, lead) = (case % 3, (case + activation as usize) % 3, case % 2);
            let (x, y) = (numbers(count * d, 1), numbers(rows * d, 2));
            let (words, offset, t) = table(kind, lead, &numbers(7 * d, 3));
            let (ids, picks) = ([5i32, 0, 3, 3, 1, 4], [2i32, 0, 2, 1, 1, 0]);
            let mut expected = Vec::new();
            for i in 0..count {
                for c in 0..d {
                    let row = |n: usize| t[n * d + c];
                    // The turn is 3: rows 1 + 3 and 0 + 3 * 2.
                    let terms = [
                        x[i * d + c],
                        y[i % rows * d + c],
                        x[(i / rows * rows + picks[i] as usize) * d + c],
                        row(1 + ids[i] as usize),
                        row(6 * usize::from(case % 2 == 0) + (2 + i % rows) * usize::from(case % 2 == 1)),
                        row(5 + i / rows),
                    ];
                    expected.push(terms[1..].iter().fold(terms[0], |sum, x| sum + x));
                }
            }
            let result = both(|order| {
                // Rows may be grouped otherwise than the result.
                let mut x_flat = Buffer::numbers(1, count, d, LIES[lie], &x);
                let mut x = Buffer::numbers(groups, rows, d, LIES[(lie + 1) % 3], &x);
                let mut y = Buffer::numbers(1, rows, d, LIES[lie], &y);
                let repeated = View { groups: groups as i32, group_stride: 0, ..y.view() };
                let [mut ids, mut picks] =
                    [&ids, &picks].map(|v| Buffer::new(groups, rows, 1, LIES[2], |i| v[i] as u32));
                let mut out = Buffer::new(groups, rows, d, LIES[lie], |_| 0);
                let of_table = |kind_of_index, first, step, ids| Source {
                    table: address(&words) + offset as u64,
                    table_type: kind as i32,
                    kind: kind_of_index,
                    first,
                    step,
                    ids,
                    ..NONE
                };
                let fifth = match case % 2 {
                    0 => of_table(TABLE_TURN, 0, 2, View::NONE),
                    _ => of_table(TABLE_RANGE, 2, 9, View::NONE),
                };
                let params = SumRows {
                    turn: turn(),
                    out: out.view(),
                    count: 6,
                    activation,
                    sources: [
                        Source { rows: x_flat.view(), kind: ROWS, ..NONE },
                        Source { rows: repeated, kind: ROWS, ..NONE },
                        Source { rows: x.view(), ids: picks.view(), kind: GATHER, ..NONE },
                        of_table(TABLE_FROM, 1, 0, ids.view()),
                        fifth,
                        of_table(TABLE_GROUP, 5, 0, View::NONE),
                        NONE,
                        NONE,
                    ],
                };
                launch("sum_rows", "sum_rows", &params, [1 + case % 3, 1, 1], order);
                out.result()
            });
            if activation == 0 {
                assert_eq!(bits(&result), bits(&expected), "{d}");
            } else {
                let exact: Vec<f64> = expected.iter().map(|&x| activated(activation, f64::from(x))).collect();
                close(&result, &exact, 1e-6, 0.0, d);
            }
        }
    }
}

#[test]
fn one_source_is_a_copy_whatever_its_bits() {
    if !can_run() {
        return;
    }
    for lie in 0..3 {
        for d in [1, 7, 300] {
            let data: Vec<u32> = (0..4 * d as u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
            let y = both(|order| {
                let mut x = Buffer::new(4, 1, d, LIES[(lie + 1) % 3], |i| data[i]);
                let mut out = Buffer::new(2, 2, d, LIES[lie], |_| 0);
                let mut sources = [NONE; 8];
                sources[0] = Source { rows: x.view(), kind: ROWS, ..NONE };
                let params = SumRows { turn: turn(), out: out.view(), count: 1, activation: 0, sources };
                launch("sum_rows", "sum_rows", &params, [2, 1, 1], order);
                out.result()
            });
            assert_eq!(bits(&y), data);
        }
    }
}

#[test]
fn mixed_rows_are_weighted_sums_and_one_alone_is_itself() {
    if !can_run() {
        return;
    }
    let (groups, rows, classes) = (2, 3, 3);
    let count = groups * rows;
    for (case, d) in [1, 3, 8, 22, 64, 513].into_iter().enumerate() {
        for first in [false, true] {
            let (kind, lie) = (case % 3, case % 3);
            let (words, offset, t) = table(kind, case % 2, &numbers(7 * d, 3));
            let x = numbers(count * d, 1);
            let ids: [i32; 18] = [6, 0, 2, 3, 3, 1, 5, 0, 0, 1, 6, 4, 2, 1, 0, 4, 4, 4];
            let mut weights = numbers(18, 5).iter().map(|w| w.abs() + 0.01).collect::<Vec<f32>>();
            weights[6..9].copy_from_slice(&[1.0, 0.0, 0.0]);
            weights[9..12].copy_from_slice(&[0.0, 1.0, 0.0]);
            let mixed = |i: usize, c: usize| {
                let terms = (i * classes..(i + 1) * classes).filter(|&j| weights[j] != 0.0);
                terms.map(|j| weights[j] * t[ids[j] as usize * d + c]).reduce(|a, b| a + b).unwrap()
            };
            let term = |i: usize, c: usize| if first { mixed(i, c) } else { x[i * d + c] + mixed(i, c) };
            let expected: Vec<f32> =
                (0..count).flat_map(|i| (0..d).map(move |c| (i, c))).map(|(i, c)| term(i, c)).collect();
            let result = both(|order| {
                let mut x = Buffer::numbers(groups, rows, d, LIES[(lie + 1) % 3], &x);
                let mut ids = Buffer::new(groups, rows, classes, LIES[lie], |i| ids[i] as u32);
                let mut weights = Buffer::numbers(groups, rows, classes, LIES[(lie + 2) % 3], &weights);
                let mut out = Buffer::new(groups, rows, d, LIES[lie], |_| 0);
                let mix = Source {
                    table: address(&words) + offset as u64,
                    table_type: kind as i32,
                    kind: MIX,
                    rows: weights.view(),
                    ids: ids.view(),
                    ..NONE
                };
                let mut sources = [NONE; 8];
                sources[0] = Source { rows: x.view(), kind: ROWS, ..NONE };
                sources[usize::from(!first)] = mix;
                let params =
                    SumRows { turn: turn(), out: out.view(), count: 2 - i32::from(first), activation: 0, sources };
                launch("sum_rows", "sum_rows", &params, [1 + case % 3, 1, 1], order);
                out.result()
            });
            assert_eq!(bits(&result), bits(&expected), "{d}");
        }
    }
}
