//! The memory plan, the cursor, and what keeps ops from reading what they write.

use super::*;
use crate::ops::{Attention, Keys, Out, Source, SumRows};
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
    let plan = b.finish().unwrap();
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
    (b.finish().unwrap(), rows)
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
fn attention_over_a_cache_that_grows_costs_what_its_turns_do() {
    // Stage 1 of `tiny` from its third place on.
    let (heads, d, places, first) = (8, 256, 65, 2);
    let mut b = Builder::new();
    let [k, v] = [(); 2].map(|()| b.kept(2 * places, d).unwrap().grouped(2));
    let [q, out] = [(); 2].map(|()| b.kept(2, d).unwrap().grouped(2));
    let op = |keys| Attention { q, k, v, keys, heads, narrow: false, out };
    b.segment(Stage::Discrete, first, places - first);
    b.push(op(Keys { first: first + 1, step: 1 }));
    let plan = b.finish().unwrap();
    let alone: Vec<Step> =
        (first..places).map(|place| Step::new(op(Keys { first: place + 1, step: 0 }).into(), 1)).collect();
    assert_eq!(plan.cost(Stage::Discrete), alone.iter().fold(Cost::default(), |all, step| all + step.cost));
    assert_eq!(plan.weight, alone.iter().map(|step| step.weight).sum::<u64>());
    // The first turn is too small to be shared out. All of them are not.
    assert!(!alone[0].split.parallel && plan.segments[0].steps[0].split.parallel);

    let (pool, mut arena, mut profile) = (Pool::new(1).unwrap(), Arena::new(&plan, 1).unwrap(), Profile::default());
    let mut cursor = Cursor::default();
    let walker =
        Walker { plan: &plan, arena: &mut arena, pool: &pool, isa: Isa::detect(), profile: Some(&mut profile) };
    { walker }.run(&mut cursor, |_| false);
    assert_eq!((cursor.done, profile.ops[0].cost), (plan.weight, plan.cost(Stage::Discrete)));
}

const TWO: Key = Key::TimeEmbeddings { steps: 2 };
const THREE: Key = Key::NullModulations { places: 3 };

/// A plan that adds what two blocks hold, 2 and 2 + 1; the first block and the sum.
pub(super) fn five() -> (Plan, View, View) {
    let mut b = Builder::new();
    let (one, out) = (b.constant(&[1.0], 1).unwrap(), b.kept(1, 1).unwrap());
    b.segment(Stage::Decode, 0, 3);
    let plus_one = |b: &mut Builder, key, from| {
        b.once(key, |b| {
            let (shared, x) = (b.shared(1, 1)?, b.scratch(1, 1)?);
            b.push(SumRows::copy(one, x));
            b.push(SumRows::new([Source::Rows(x), Source::Rows(from)], shared));
            Ok(shared)
        })
        .unwrap()
    };
    let two = plus_one(&mut b, TWO, one);
    let three = plus_one(&mut b, THREE, two);
    b.push(SumRows::new([Source::Rows(two), Source::Rows(three)], out));
    (b.finish().unwrap(), two, out)
}

fn run(plan: &Plan, arena: &mut Arena, cursor: &mut Cursor, pause: impl FnMut(&Cursor) -> bool) {
    let (pool, isa) = (Pool::new(1).unwrap(), Isa::detect());
    Walker { plan, arena, pool: &pool, isa, profile: None }.run(cursor, pause);
}

#[test]
fn shared_blocks_are_made_first_and_once() {
    let (plan, _, out) = five();
    assert_eq!(
        plan.segments.iter().map(|s| (s.stage, s.makes)).collect::<Vec<_>>(),
        [(Stage::Prepare, Some(0)), (Stage::Prepare, Some(1)), (Stage::Decode, None)]
    );
    assert_eq!((plan.shared[0], plan.shared_bytes()), (SharedBlock { key: TWO, words: 16 }, 128));
    let store = Store::default();
    let new = || Arena::sharing(&plan, 1, &store, Isa::detect()).unwrap();
    let (mut first, mut early) = (new(), new());
    assert_eq!((first.own_bytes(), store.bytes()), (plan.arena_bytes(1) + 128, 0));
    // The last is from before the blocks were made and makes its own.
    let check = |arena: &mut Arena, ops| {
        for (mut cursor, ops) in [(Cursor::start(&plan, arena), ops), (Cursor::default(), 3)] {
            let mut pauses = 0;
            arena.slice_mut::<f32>(out)[0] = 0.0;
            while !cursor.is_finished(&plan) {
                run(&plan, arena, &mut cursor, |_| true);
                pauses += 1;
            }
            assert_eq!((arena.mat::<f32>(out).row(0)[0], cursor.done, pauses), (5.0, plan.weight, ops));
        }
        assert_eq!(store.bytes(), 128);
    };
    check(&mut first, 7);
    check(&mut new(), 3);
    check(&mut early, 7);
    assert_eq!((first.own_bytes(), early.own_bytes()), (plan.arena_bytes(1), plan.arena_bytes(1) + 128));
    early.adopt();
    assert_eq!(early.own_bytes(), plan.arena_bytes(1));
}

#[test]
fn a_block_that_another_made_meanwhile_takes_the_place_of_half_a_one() {
    let (plan, two, out) = five();
    let store = Store::default();
    let new = || Arena::sharing(&plan, 1, &store, Isa::detect()).unwrap();
    let (mut slow, mut fast) = (new(), new());
    // The first block and half of the second.
    let mut half = Cursor::default();
    run(&plan, &mut slow, &mut half, |cursor| (cursor.segment, cursor.op) == (1, 1));
    assert_eq!((store.bytes(), slow.own_bytes()), (64, plan.arena_bytes(1) + 64));
    run(&plan, &mut fast, &mut Cursor::default(), |_| false);
    slow.adopt();
    assert_eq!((slow.own_bytes(), slow.mat::<f32>(two).row(0)[0]), (plan.arena_bytes(1), 2.0));
    let mut cursor = Cursor::start(&plan, &slow);
    assert_eq!(cursor.segment, 2);
    run(&plan, &mut slow, &mut cursor, |_| false);
    assert_eq!(slow.mat::<f32>(out).row(0)[0], 5.0);
    // Another instruction set rounds differently: it has blocks of its own.
    let other = Isa::available().into_iter().find(|isa| *isa != Isa::detect());
    if let Some(isa) = other {
        assert_eq!(Arena::sharing(&plan, 1, &store, isa).unwrap().own_bytes(), plan.arena_bytes(1) + 128);
    }
}

#[test]
fn a_block_that_no_memory_holds_is_an_error() {
    let mut b = Builder::new();
    b.segment(Stage::Decode, 0, 1);
    b.once(TWO, |b| b.shared(1 << 45, 1)).unwrap();
    let error = Arena::new(&b.finish().unwrap(), 1).unwrap_err();
    assert!(error.to_string().contains(&(1u64 << 47).to_string()), "{error}");
}

#[test]
#[should_panic(expected = "shared block 0 is written where it is not made")]
fn a_block_that_is_made_cannot_be_written() {
    let mut b = Builder::new();
    let one = b.constant(&[1.0], 1).unwrap();
    b.segment(Stage::Decode, 0, 1);
    let shared = b.once(TWO, |b| b.shared(1, 1)).unwrap();
    b.push(SumRows::copy(one, shared));
    let plan = b.finish().unwrap();
    run(&plan, &mut Arena::new(&plan, 1).unwrap(), &mut Cursor::default(), |_| false);
}

#[test]
#[should_panic(expected = "shared block 0 is written where it is not made")]
fn a_block_cannot_be_written_while_another_is_made() {
    let mut b = Builder::new();
    let one = b.constant(&[1.0], 1).unwrap();
    let two = b.once(TWO, |b| b.shared(1, 1)).unwrap();
    b.once(THREE, |b| {
        b.shared(1, 1)?;
        b.push(SumRows::copy(one, two));
        Ok(())
    })
    .unwrap();
    let plan = b.finish().unwrap();
    run(&plan, &mut Arena::new(&plan, 1).unwrap(), &mut Cursor::default(), |_| false);
}

#[test]
#[should_panic(expected = "written after it is made")]
fn a_block_that_is_made_cannot_be_made_again() {
    let (plan, ..) = five();
    let mut arena = Arena::new(&plan, 1).unwrap();
    run(&plan, &mut arena, &mut Cursor::default(), |_| false);
    run(&plan, &mut arena, &mut Cursor { op: 1, ..Cursor::default() }, |_| false);
}

#[test]
#[should_panic(expected = "read before it is made")]
fn a_block_that_is_not_made_cannot_be_read() {
    let (plan, ..) = five();
    run(&plan, &mut Arena::new(&plan, 1).unwrap(), &mut Cursor { segment: 2, ..Cursor::default() }, |_| false);
}

#[test]
#[should_panic(expected = "is read and written")]
fn what_is_written_cannot_be_read() {
    let mut b = Builder::new();
    let x = b.kept(4, 4).unwrap();
    b.segment(Stage::Encode, 0, 1);
    b.push(SumRows::copy(x.rows(0..2), x.rows(1..3)));
    let plan = b.finish().unwrap();
    let (mut arena, pool) = (Arena::new(&plan, 1).unwrap(), Pool::new(1).unwrap());
    Walker { plan: &plan, arena: &mut arena, pool: &pool, isa: Isa::detect(), profile: None }
        .run(&mut Cursor::default(), |_| false);
}

/// A copy of one word into a view that no arena has.
fn writing(view: View) {
    let mut b = Builder::new();
    let one = b.constant(&[1.0], 1).unwrap();
    b.kept(4, 1).unwrap();
    b.segment(Stage::Encode, 0, 1);
    b.push(SumRows::copy(one, view));
    let plan = b.finish().unwrap();
    run(&plan, &mut Arena::new(&plan, 1).unwrap(), &mut Cursor::default(), |_| false);
}

#[test]
#[should_panic(expected = "turn 0 in 32 words")]
fn what_lies_beyond_all_memory_cannot_be_written() {
    writing(View { space: Space::Kept, at: usize::MAX, step: 0, layout: Layout::dense(1, 1) });
}

#[test]
fn sizes_that_no_memory_holds_do_not_wrap() {
    let most = Layout { groups: 3, rows: 5, cols: 2, group_stride: usize::MAX / 2 + 1, row_stride: usize::MAX / 4 + 1 };
    assert_eq!((most.extent(), Layout { groups: 1, ..most }.extent()), (usize::MAX, usize::MAX));
    let view = View { space: Space::Kept, at: 7, step: usize::MAX / 2, layout: Layout::dense(2, 3) };
    assert_eq!((view.span(0), view.span(3)), (7..13, usize::MAX..usize::MAX));
    let far = View { at: usize::MAX - 2, ..view };
    assert_eq!(far.span(0), usize::MAX - 2..usize::MAX);
}
