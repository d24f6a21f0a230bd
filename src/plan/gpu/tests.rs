//! Which ops share a launch, and that they give what they give one after the other.

use super::*;
use crate::cuda::ComputeCapability;
use crate::error::{DeviceProblem, Error};
use crate::ops::testing::{gpu, numbers, weight_as};
use crate::ops::{Activation, HeadNorm, LayerNorm, Linear, Operand, SumRows};
use crate::plan::{Builder, Stage};
use crate::tensor::{DType, Form, Format, Layout, Matrix, Weight};

/// Names of the launches of the first segment's graph.
fn names(plan: &GpuPlan) -> Vec<&'static str> {
    plan.segments[0]._fused.iter().map(Call::name).collect()
}

/// A norm and the product behind it; `change` adds what may follow. The launches, and the product's result by the graph and
/// launch by launch.
fn normed(rows: usize, change: impl Fn(&mut Builder, View, View) -> Result<()>) -> Option<Vec<&'static str>> {
    let gpu = gpu()?;
    let (k, n) = (96, 48);
    let w = Matrix::pack(&weight_as(DType::BF16, &[n, k], &numbers(n * k, 1)), Format::Bf16).unwrap();
    let mut b = Builder::new();
    let x = b.constant(&numbers(rows * k, 2), k).unwrap();
    let out = b.kept(rows, n).unwrap();
    b.segment(Stage::Encode, 0, 1);
    let h = b.scratch(rows, k / 2).unwrap();
    let operand = Operand { view: h, form: Form::Pairs };
    b.push(LayerNorm { x, affine: None, modulation: None, out: operand });
    b.push(Linear::new(operand, &w, None, out));
    change(&mut b, h, out).unwrap();
    let plan = b.finish();
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

#[test]
fn a_norm_that_others_read_is_not() {
    let alone = |names: Option<Vec<&'static str>>| {
        names.is_none_or(|names| names[..2] == ["layer_norm_block", "linear_few_bf16"])
    };
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
        GpuPlan::new(gpu, Arc::default(), &b.finish()).map(|_| ())
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
        let plan = b.finish();
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
    let plan = b.finish();
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
