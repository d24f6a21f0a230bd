//! The memory plan, the cursor, and what keeps ops from reading what they write.

use super::*;
use crate::ops::{Out, Source, SumRows};
use crate::pool::Pool;
use crate::simd::Isa;
use crate::tensor::Layout;

#[test]
fn scratch_is_reused_after_its_scope_and_kept_memory_never() {
    let mut b = Builder::new();
    let kept = b.kept(3, 5).unwrap();
    let (first, inner) = b
        .scope(|b| {
            let first = b.scratch(10, 10)?;
            let inner = b.scope(|b| b.scratch(20, 10))?;
            Ok((first, inner))
        })
        .unwrap();
    let second = b.scratch(4, 4).unwrap();
    assert_eq!((first.at, inner.at, second.at), (0, 112, 0));
    assert_ne!(b.kept(1, 1).unwrap().at, kept.at);
    let plan = b.finish();
    assert_eq!((plan.kept_words, plan.scratch_words), (32, 112 + 208));
    assert_eq!(plan.arena_bytes(3), 4 * (32 + 320));
}

#[test]
fn buffers_beyond_any_machine_are_an_error() {
    let mut b = Builder::new();
    for (rows, cols) in [(usize::MAX, 2), (1 << 40, 1 << 40), (1 << 45, 2), (usize::MAX, 1)] {
        let error = b.scratch(rows, cols).unwrap_err();
        assert!(error.to_string().contains(&rows.to_string()), "{error}");
        b.kept(rows, cols).unwrap_err();
    }
    b.kept(1, 1).unwrap();
}

#[test]
fn views_move_as_they_say() {
    let mut b = Builder::new();
    b.kept(1, 16).unwrap();
    let v = b.kept(6, 10).unwrap();
    assert_eq!(v.span(5), 16..76);
    let part = v.grouped(2).rows(1..2).columns(3..7).stepping(2);
    assert_eq!((part.at, part.count(), part.cols(), part.span(3)), (29, 2, 4, 35..69));
    assert_eq!(v.grouped(3).groups(1..2).span(0), 36..56);
    assert_eq!(
        v.rows(0..2).repeated(4).layout,
        Layout { groups: 4, rows: 2, cols: 10, group_stride: 0, row_stride: 10 }
    );
    let each = v.rows(0..2).each_repeated(3).layout;
    assert_eq!((each.count(), each.start(2), each.start(3)), (6, 0, 10));
    assert!(v.is_dense() && v.grouped(3).is_dense() && !part.is_dense());
}

#[test]
fn tiles_cover_a_matrix_once() {
    let mut b = Builder::new();
    let sizes = [(1, 1, 1, 1, 1), (7, 13, 3, 5, 7), (16, 16, 16, 4, 16), (5, 9, 64, 64, 5)];
    let in_runs = [(21, 3, 3, 2, 7), (12, 4, 8, 4, 3), (20, 1, 4, 1, 10), (11, 2, 2, 2, 4)];
    for (rows, cols, tile_rows, tile_cols, run) in sizes.into_iter().chain(in_runs) {
        let out = Out::new(b.kept(rows, cols).unwrap(), tile_rows, tile_cols).in_runs_of(run);
        let mut seen = vec![0; rows * cols];
        for i in 0..out.chunks() {
            let (r, c) = out.chunk(i);
            assert!(r.len() <= tile_rows && c.len() <= tile_cols);
            assert_eq!(r.start / run, (r.end - 1) / run);
            r.for_each(|r| c.clone().for_each(|c| seen[r * cols + c] += 1));
        }
        assert!(seen.iter().all(|&n| n == 1));
    }
}

/// Adds `x` to itself, turn by turn into the next row: 1, 2, 4, ...
fn doubling(turns: usize) -> (Plan, View) {
    let mut b = Builder::new();
    let rows = b.kept(turns + 1, 1).unwrap();
    let one = b.constant(&[1.0], 1).unwrap();
    b.segment(Stage::Encode, 0, 1);
    b.push(SumRows::copy(one, rows.rows(0..1)));
    b.segment(Stage::Decode, 0, 0);
    b.push(SumRows::copy(one, rows.rows(0..1)));
    b.segment(Stage::Preview, 0, 1);
    b.segment(Stage::Decode, 0, turns);
    let x = Source::Rows(rows.rows(0..1).stepping(1));
    b.push(SumRows::new([x.clone(), x], rows.rows(1..2).stepping(1)));
    (b.finish(), rows)
}

#[test]
fn a_run_can_pause_anywhere_and_counts_what_it_did() {
    let (plan, rows) = doubling(6);
    assert_eq!(plan.segments.len(), 2, "segments without work are left out");
    let pool = Pool::new(1).unwrap();
    let mut arena = Arena::new(&plan, 1).unwrap();
    let (mut cursor, mut pauses, mut profile) = (Cursor::default(), 0, Profile::default());
    while !cursor.is_finished(&plan) {
        let profile = Some(&mut profile);
        Walker { plan: &plan, arena: &mut arena, pool: &pool, isa: Isa::detect(), profile }.run(&mut cursor, |_| true);
        pauses += 1;
    }
    assert_eq!((pauses, cursor.done), (7, plan.weight));
    assert_eq!((profile.ops.len(), profile.ops[1].calls), (2, 6));
    assert_eq!(profile.ops[1].cost, plan.cost(Stage::Decode));
    let result = arena.mat::<f32>(rows);
    assert_eq!((0..7).map(|i| result.row(i)[0]).collect::<Vec<_>>(), [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
}

#[test]
fn the_prologue_comes_first_and_can_be_left_out_of_the_next_run() {
    let mut b = Builder::new();
    let (one, out) = (b.constant(&[1.0], 1).unwrap(), b.kept(1, 1).unwrap());
    b.segment(Stage::Decode, 0, 3);
    let shared = b
        .once(|b| {
            let (shared, x) = (b.kept(1, 1)?, b.scratch(1, 1)?);
            b.push(SumRows::copy(one, x));
            b.push(SumRows::new([Source::Rows(x), Source::Rows(one)], shared));
            Ok(shared)
        })
        .unwrap();
    b.push(SumRows::copy(shared, out));
    let plan = b.finish();
    assert_eq!((plan.prologue, plan.segments.len(), plan.segments[0].stage), (1, 2, Stage::Prepare));
    let (mut arena, pool) = (Arena::new(&plan, 1).unwrap(), Pool::new(1).unwrap());
    for mut cursor in [Cursor::default(), Cursor::after_prologue(&plan)] {
        arena.slice_mut::<f32>(out)[0] = 0.0;
        let isa = Isa::detect();
        Walker { plan: &plan, arena: &mut arena, pool: &pool, isa, profile: None }.run(&mut cursor, |_| false);
        assert_eq!((arena.mat::<f32>(out).row(0)[0], cursor.done), (2.0, plan.weight));
    }
}

#[test]
#[should_panic(expected = "is read and written")]
fn what_is_written_cannot_be_read() {
    let mut b = Builder::new();
    let x = b.kept(4, 4).unwrap();
    b.segment(Stage::Encode, 0, 1);
    b.push(SumRows::copy(x.rows(0..2), x.rows(1..3)));
    let plan = b.finish();
    let (mut arena, pool) = (Arena::new(&plan, 1).unwrap(), Pool::new(1).unwrap());
    Walker { plan: &plan, arena: &mut arena, pool: &pool, isa: Isa::detect(), profile: None }
        .run(&mut Cursor::default(), |_| false);
}
