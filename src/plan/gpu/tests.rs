//! Which ops share a launch, and that they give what they give one after the other; what plans share.

use super::*;
use crate::cuda::ComputeCapability;
use crate::error::{DeviceProblem, Error};
use crate::ops::testing::{gpu, numbers, weight_as};
use crate::ops::{Activation, Attention, HeadNorm, Keys, LayerNorm, Linear, Operand, SumRows};
use crate::plan::tests::five;
use crate::plan::{Builder, Stage};
use crate::tensor::{DType, Form, Format, Layout, Matrix, Precision, Weight};
use crate::{Cpu, Model, Outputs, Settings};

/// Names of the launches of the first segment's graph.
fn names(plan: &GpuPlan) -> Vec<&'static str> {
    plan.segments[0]._fused.iter().map(Call::name).collect()
}

/// [`normed_of`] of 96 numbers a row.
fn normed(rows: usize, change: impl Fn(&mut Builder, View, View) -> Result<()>) -> Option<Vec<&'static str>> {
    normed_of([rows, 96], change)
}

/// A norm and the product behind it; `change` adds what may follow. The launches; the product's result is the same by the graph
/// and launch by launch.
fn normed_of(
    [rows, k]: [usize; 2],
    change: impl Fn(&mut Builder, View, View) -> Result<()>,
) -> Option<Vec<&'static str>> {
    let (gpu, n) = (gpu()?, 48);
    let w = Matrix::pack(&weight_as(DType::BF16, &[n, k], &numbers(n * k, 1)), Format::Bf16).unwrap();
    let mut b = Builder::new();
    // Far from zero: another order of sums is another mean.
    let x = numbers(rows * k, 2).iter().map(|x| x + 10.0).collect::<Vec<_>>();
    let x = b.constant(&x, k).unwrap();
    let out = b.kept(rows, n).unwrap();
    b.segment(Stage::Encode, 0, 1);
    let h = b.scratch(rows, k / 2).unwrap();
    let operand = Operand { view: h, form: Form::Pairs };
    b.push(LayerNorm { x, affine: None, modulation: None, out: operand });
    b.push(Linear::new(operand, &w, None, out));
    change(&mut b, h, out).unwrap();
    let plan = b.finish().unwrap();
    let mut made = [false, true].map(|single| {
        let mut on_gpu = GpuPlan::new(gpu, Arc::default(), &plan).unwrap();
        let mut cursor = on_gpu.start(&plan).unwrap();
        let mut profile = Profile::default();
        on_gpu.run(&plan, &mut cursor, single.then_some(&mut profile), |_| false).unwrap();
        (names(&on_gpu), on_gpu.read::<u32>(out).unwrap())
    });
    assert_eq!(made[0].1, made[1].1);
    Some(std::mem::take(&mut made[0].0))
}

/// Writes over a whole view.
fn write_over(b: &mut Builder, h: View) -> Result<()> {
    let other = b.constant(&numbers(h.count() * h.cols(), 3), h.cols())?;
    b.push(SumRows::copy(other, h));
    Ok(())
}

#[test]
fn a_norm_that_one_product_reads_is_part_of_it() {
    let Some(names) = normed(4, |b, h, _| write_over(b, h)) else { return };
    assert_eq!(names, ["norm_linear_few_bf16", "sum_rows"]);
    let names = normed(20, |b, h, _| write_over(b, h)).unwrap_or_default();
    assert_eq!(names, ["norm_linear_few_bf16_32", "sum_rows"]);
}

/// A norm of its own would share out rows that long among several warps, if it were not one that a product may take over.
#[test]
fn long_rows_are_normed_alike_in_a_product_and_before_it() {
    for (rows, kernel) in [(4, "norm_linear_few_bf16"), (20, "norm_linear_few_bf16_32")] {
        for k in [768, 1280] {
            let names = normed_of([rows, k], |b, h, _| write_over(b, h));
            assert!(names.is_none_or(|names| names == [kernel, "sum_rows"]));
        }
    }
}

#[test]
fn a_norm_that_others_read_is_not() {
    let alone =
        |names: Option<Vec<&'static str>>| names.is_none_or(|names| names[..2] == ["layer_norm", "linear_few_bf16"]);
    // By an op after, that reads it, or some of it, before it is written over; and who knows who comes after the segment.
    assert!(alone(normed(4, |b, h, _| {
        let copy = b.kept(4, h.cols())?;
        b.push(SumRows::copy(h, copy));
        write_over(b, h)
    })));
    assert!(alone(normed(4, |b, h, _| write_over(b, h.rows(0..3)))));
    assert!(alone(normed(4, |b, h, _| write_over(b, h.columns(0..40)))));
    // From its first word to its last, but not every row between.
    assert!(alone(normed(5, |b, h, _| {
        let every_other = Layout { rows: 3, row_stride: 2 * h.cols(), ..h.layout };
        let other = b.constant(&numbers(3 * h.cols(), 3), h.cols())?;
        b.push(SumRows::copy(other, h.relaid(every_other)));
        Ok(())
    })));
    assert!(alone(normed(4, |_, _, _| Ok(()))));
}

#[test]
fn a_norm_of_many_rows_is_not() {
    let names = normed(33, |b, h, _| write_over(b, h));
    assert!(names.is_none_or(|names| names[..2] == ["layer_norm_block", "linear_bf16_pairs_small"]));
}

/// A word of pairs would have a number of the matrix and one of before it.
#[test]
fn pairs_of_rows_from_an_odd_one_on_are_an_error() {
    let Some(gpu) = gpu() else { return };
    let (k, n) = (32, 16);
    let w = Matrix::pack(&weight_as(DType::BF16, &[n + 3, k], &numbers((n + 3) * k, 1)), Format::Bf16).unwrap();
    let made = |first: usize| {
        let mut b = Builder::new();
        let x = b.constant(&numbers(2 * k, 2), k).unwrap();
        let out = Operand { view: b.kept(2, n / 2).unwrap(), form: Form::Pairs };
        b.segment(Stage::Encode, 0, 1);
        b.push(Linear::new(x, &w.slice_rows(first..first + n), None, out));
        GpuPlan::new(gpu, Arc::default(), &b.finish().unwrap()).map(|_| ())
    };
    let error = made(3).unwrap_err();
    assert!(matches!(error, Error::Device { problem: DeviceProblem::Unsupported, .. }), "{error}");
    made(2).unwrap();
}

#[test]
fn norms_of_heads_share_a_launch_unless_they_follow_from_each_other() {
    let Some(gpu) = gpu() else { return };
    let launches = |from: [usize; 4]| {
        let mut b = Builder::new();
        let mut views = vec![b.constant(&numbers(3 * 8, 1), 8).unwrap()];
        (0..4).for_each(|_| views.push(b.kept(3, 8).unwrap()));
        b.segment(Stage::Encode, 0, 1);
        for (i, from) in from.into_iter().enumerate() {
            b.push(HeadNorm { x: views[from], norm: None, out: views[i + 1] });
        }
        let plan = b.finish().unwrap();
        let mut on_gpu = GpuPlan::new(gpu, Arc::default(), &plan).unwrap();
        let mut cursor = on_gpu.start(&plan).unwrap();
        on_gpu.run(&plan, &mut cursor, None, |_| false).unwrap();
        assert!(views[1..].iter().all(|v| on_gpu.read::<f32>(*v).unwrap() == numbers(3 * 8, 1)));
        names(&on_gpu)
    };
    assert_eq!(launches([0, 0, 0, 0]), ["head_norms", "head_norm"]);
    assert_eq!(launches([0, 1, 0, 0]), ["head_norm", "head_norms"]);
    assert_eq!(launches([0, 0, 2, 3]), ["head_norms", "head_norm", "head_norm"]);
}

/// What a product of that size gives on that GPU, and by which kernel.
fn product([m, k, n]: [usize; 3], form: Form, gpu: &Gpu) -> (&'static str, Vec<f32>) {
    let w = Matrix::pack(&weight_as(DType::BF16, &[n, k], &numbers(n * k, 1)), Format::Bf16).unwrap();
    let bias = Weight::owned("bias", &[n], &numbers(n, 2)).unwrap();
    let mut b = Builder::new();
    let x = b.constant(&numbers(m * k, 3), k).unwrap();
    let out = b.kept(m, n).unwrap();
    let lying = Operand { view: b.kept(m, form.words(k)).unwrap(), form };
    b.segment(Stage::Encode, 0, 1);
    b.push(LayerNorm { x, affine: None, modulation: None, out: lying });
    b.push(Linear::new(lying, &w, Some(&bias), out).then(Activation::Gelu));
    let plan = b.finish().unwrap();
    let mut on_gpu = GpuPlan::new(gpu, Arc::default(), &plan).unwrap();
    let mut cursor = on_gpu.start(&plan).unwrap();
    on_gpu.run(&plan, &mut cursor, None, |_| false).unwrap();
    (names(&on_gpu)[1], on_gpu.read(out).unwrap())
}

#[test]
fn large_products_on_a_hopper_are_by_wgmma_and_give_what_others_give() {
    let Some(gpu) = gpu() else { return };
    let (on, off) = (gpu.clone().with_wgmma(true), gpu.clone().with_wgmma(false));
    let [usual, small] = ["linear_bf16_pairs", "linear_bf16_pairs_small"];
    // 99 tiles of 256 x 128, most of those at the edges not whole.
    let size = [9 * 256 - 5, 300, 11 * 128 - 24];
    let ((with, y), (without, z)) = (product(size, Form::Pairs, &on), product(size, Form::Pairs, &off));
    assert_eq!((with, without), (if on.has_wgmma() { "linear_bf16_pairs_wgmma" } else { usual }, usual));
    let most = y.iter().zip(&z).map(|(y, z)| (y - z).abs()).fold(0.0, f32::max);
    assert!(most <= 1e-6 * size[1] as f32, "{most}");
    assert_eq!(on.has_wgmma(), gpu.device().compute_capability() == ComputeCapability::HOPPER);
    assert!(!off.has_wgmma());
    // Numbers, and what is too small, are as anywhere.
    assert_eq!(product([9 * 256, 256, 11 * 128], Form::Numbers, &on).0, "linear_bf16_numbers");
    assert_eq!(product([257, 256, 11 * 128], Form::Pairs, &on).0, small);
}

/// The launches of a turn of the tiny model's stage, one picture.
fn turn_of(stage: Stage, precision: Precision) -> Option<Vec<&'static str>> {
    let gpu = gpu()?;
    let model = Model::open_as(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny"), precision).unwrap();
    // A place a round: few rows.
    let settings = Settings { rounds: model.places().unwrap(), steps: 3, ..model.settings() };
    let session = model.session(Cpu::new(1).unwrap(), 1, &settings, Outputs::IMAGE).unwrap();
    let plan = session.plan();
    let on_gpu = GpuPlan::new(gpu, Arc::default(), plan).unwrap();
    let turns = |(segment, _): &(&Segment, &Recorded)| segment.stage == stage && segment.repeat > 1;
    let (_, turn) = plan.segments.iter().zip(&on_gpu.segments).find(turns).unwrap();
    Some(turn._fused.iter().map(Call::name).collect())
}

/// How many launches are between one of that kernel and the next; of all the same number.
fn apart(launches: &[&str], kernel: &str) -> usize {
    let at: Vec<_> = launches.iter().enumerate().filter(|(_, name)| **name == kernel).map(|(i, _)| i).collect();
    assert!(at.len() > 1 && at.windows(2).all(|two| two[1] - two[0] == at[1] - at[0]), "{launches:?}");
    at[1] - at[0]
}

/// `docs/cuda-kernels.md` counts them.
#[test]
fn a_layer_of_stage_1_and_a_block_of_the_head_are_so_many_launches() {
    for (precision, expected) in [(Precision::Bf16, 6), (Precision::F32, 8)] {
        let Some(launches) = turn_of(Stage::Discrete, precision) else { return };
        assert_eq!(apart(&launches, "attention_few"), expected, "{precision}: {launches:?}");
    }
    for (precision, kernel, expected) in
        [(Precision::Bf16, "norm_linear_few_bf16", 2), (Precision::F32, "layer_norm", 3)]
    {
        let Some(launches) = turn_of(Stage::Head, precision) else { return };
        assert_eq!(apart(&launches, kernel), expected, "{precision}: {launches:?}");
    }
}

#[test]
fn a_plan_takes_the_blocks_that_another_made_when_it_next_starts() {
    let Some(gpu) = gpu() else { return };
    let (plan, _, out) = five();
    let resident = Arc::<Resident>::default();
    let new = |gpu: &Gpu| GpuPlan::new(gpu, Arc::clone(&resident), &plan).unwrap();
    let run = |on_gpu: &mut GpuPlan, cursor: &mut Cursor, until: usize| {
        on_gpu.run(&plan, cursor, None, |cursor| cursor.segment == until).unwrap();
    };
    let (mut first, mut half, mut late, mut also) = (new(gpu), new(gpu), new(gpu), new(gpu));
    let whole = late.own_bytes();
    // The first of two blocks.
    let mut cursor = half.start(&plan).unwrap();
    run(&mut half, &mut cursor, 1);
    for (on_gpu, first_segment) in [(&mut first, 1), (&mut late, 2), (&mut half, 2)] {
        let mut cursor = on_gpu.start(&plan).unwrap();
        assert_eq!(cursor.segment, first_segment);
        run(on_gpu, &mut cursor, usize::MAX);
        assert_eq!((on_gpu.own_bytes(), on_gpu.read::<f32>(out).unwrap()), (whole - 128, vec![5.0]));
    }
    assert_eq!(GpuPlan::needs(gpu, &resident, &plan).unwrap()[1], 0);
    // One that does not start again keeps its own.
    run(&mut also, &mut Cursor::default(), usize::MAX);
    assert_eq!((also.own_bytes(), also.read::<f32>(out).unwrap()), (whole, vec![5.0]));
    // With `wgmma` and without, products of blocks round differently: each has blocks of its own.
    let other = gpu.clone().with_wgmma(!gpu.has_wgmma());
    let of_other = if other.has_wgmma() == gpu.has_wgmma() { 0 } else { 128 };
    assert_eq!(GpuPlan::needs(&other, &resident, &plan).unwrap()[1], of_other);
    assert_eq!(new(&other).own_bytes(), whole - 128 + of_other);
}

#[test]
fn attention_that_kernels_have_no_room_for_is_an_error() {
    let Some(gpu) = gpu() else { return };
    let made = |d: usize, keys: usize| {
        let mut b = Builder::new();
        let [q, k, v, out] = [4, keys, keys, 4].map(|rows| b.kept(rows, d).unwrap());
        b.segment(Stage::Encode, 0, 1);
        b.push(Attention { q, k, v, keys: Keys { first: keys, step: 0 }, heads: 1, narrow: false, out });
        GpuPlan::new(gpu, Arc::default(), &b.finish().unwrap()).map(drop)
    };
    for (d, keys) in [(136, 1537), (1032, 2)] {
        let error = made(d, keys).unwrap_err();
        assert!(matches!(error, Error::Device { problem: DeviceProblem::Unsupported, .. }), "{error}");
        let text = format!(
            "expected heads of at most 128 numbers, or of at most 1024 with at most 1536 keys, found heads of {d} with {keys} keys"
        );
        assert!(error.to_string().contains(&text), "{error}");
    }
    for (d, keys) in [(128, 1537), (1024, 1536)] {
        made(d, keys).unwrap();
    }
}
