//! A bench for one op: inputs, every instruction set of the machine, one and three threads, and a GPU where there is one.

use super::Op;
#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
#[cfg(feature = "cuda")]
use crate::error::{DeviceProblem, Error};
#[cfg(feature = "cuda")]
use crate::plan::gpu::GpuPlan;
use crate::plan::{Arena, Builder, Cursor, Plan, Space, Stage, Step, View, Walker};
use crate::pool::{Pool, Split};
use crate::simd::Isa;
use crate::tensor::packed::LINE_WORDS;
use crate::tensor::{AlignedBytes, DType, Layout, Weight, fence};
use half::{bf16, f16};
use proptest::test_runner::TestCaseError;
use std::sync::Arc;
#[cfg(feature = "cuda")]
use std::sync::OnceLock;

/// Words of a page.
const PAGE_WORDS: usize = fence::PAGE / 4;

/// Operands of ops. Each ends where a fence is: an op that touches as much as a number behind one of its operands ends the tests. Not
/// where there is a GPU, whose kernels are given operands that start on a line.
pub(crate) struct Lab {
    builder: Builder,
    /// The words that fences start at.
    fences: Vec<usize>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self { builder: Builder::new(), fences: Vec::new() }
    }

    pub(crate) fn input(&mut self, rows: usize, cols: usize, data: &[f32]) -> View {
        assert_eq!(data.len(), rows * cols);
        self.fenced(rows, cols, |b, front| b.constant(&[&vec![0.0; front][..], data].concat(), 1).unwrap())
    }

    pub(crate) fn input_i32(&mut self, cols: usize, data: &[i32]) -> View {
        let put = |b: &mut Builder, front| b.constant_i32(&[&vec![0; front][..], data].concat(), 1).unwrap();
        self.fenced(data.len() / cols, cols, put)
    }

    pub(crate) fn output(&mut self, rows: usize, cols: usize) -> View {
        self.fenced(rows, cols, |b, front| b.kept(front + rows * cols, 1).unwrap())
    }

    /// A matrix as the last words of what `reserve` reserves, that many more than it has, and a fence behind it.
    fn fenced(&mut self, rows: usize, cols: usize, reserve: impl Fn(&mut Builder, usize) -> View) -> View {
        #[cfg(feature = "cuda")]
        if gpu().is_some() {
            return View { layout: Layout::dense(rows, cols), ..reserve(&mut self.builder, 0) };
        }
        let mut kept = |words| self.builder.kept(words, 1).unwrap().at;
        let next = kept(LINE_WORDS) + LINE_WORDS;
        let front = (next + rows * cols).next_multiple_of(PAGE_WORDS) - (next + rows * cols);
        let View { at, .. } = reserve(&mut self.builder, front);
        let fence = self.builder.kept(PAGE_WORDS, 1).unwrap().at;
        assert_eq!((at, fence), (next, next + front + rows * cols));
        self.fences.push(fence);
        let layout = Layout::dense(rows, cols);
        View { space: Space::Kept, at: at + front, step: 0, layout }
    }

    /// What the op leaves in its output, by what computed it; the same bits in smaller tiles on any number of threads and
    /// with any pauses.
    pub(crate) fn run(self, op: impl Into<Op>) -> Vec<(String, Vec<f32>)> {
        let op = op.into();
        let out = op.out().view;
        self.run_all(vec![op], out)
    }

    pub(crate) fn run_all(mut self, ops: Vec<Op>, out: View) -> Vec<(String, Vec<f32>)> {
        self.builder.segment(Stage::Encode, 0, 1);
        ops.into_iter().for_each(|op| self.builder.push(op));
        let mut plan = self.builder.finish().unwrap();
        let one = |plan: &Plan, isa, threads, pausing: bool| {
            let pool = Pool::new(threads).unwrap();
            let mut arena = Arena::new(plan, threads).unwrap();
            #[cfg(unix)]
            self.fences.iter().for_each(|&at| arena.fence(at));
            let mut cursor = Cursor::default();
            while !cursor.is_finished(plan) {
                Walker { plan, arena: &mut arena, pool: &pool, isa, profile: None }.run(&mut cursor, |_| pausing);
            }
            let result = arena.mat::<f32>(out);
            (0..out.count()).flat_map(|i| result.row(i).to_vec()).collect::<Vec<f32>>()
        };
        let all: Vec<_> = Isa::available().into_iter().map(|isa| (isa, one(&plan, isa, 1, false))).collect();
        #[cfg(feature = "cuda")]
        let on_gpu = on_gpu(&plan, out);
        plan.segments.iter_mut().flat_map(|segment| &mut segment.steps).for_each(share);
        for (isa, y) in &all {
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(y), bits(&one(&plan, *isa, 3, true)), "{isa}: the result depends on tiles or threads");
        }
        let all = all.into_iter().map(|(isa, y)| (isa.to_string(), y));
        #[cfg(feature = "cuda")]
        let all = all.chain(on_gpu);
        all.collect()
    }
}

/// Cuts what the op writes into some tiles, at the sizes of tests too, and has all threads take them one by one.
fn share(step: &mut Step) {
    let Step { op, out, chunks, split, .. } = step;
    let rows = match op {
        // Pairs of lines from an image's first on, where it has pairs.
        Op::Conv(conv) if conv.out.layout.rows.is_multiple_of(2 * conv.out_width) => 2 * conv.out_width,
        Op::Conv(conv) => conv.out.layout.rows,
        _ => out.view.count().div_ceil(8),
    };
    out.tile_rows = out.tile_rows.min(rows);
    (*chunks, *split) = (out.chunks(), Split::EACH);
    assert!(*chunks > 1 || out.view.count() <= rows, "{op:?} is one tile");
}

/// The GPU to test on; says aloud if there is none.
#[cfg(feature = "cuda")]
pub(crate) fn gpu() -> Option<&'static Gpu> {
    static FOUND: OnceLock<Option<Gpu>> = OnceLock::new();
    let find = || match Gpu::new(0) {
        Ok(gpu) => Some(gpu),
        Err(Error::Device { problem: DeviceProblem::NoDriver | DeviceProblem::NoDevice, found, .. }) => {
            eprintln!("NOT TESTED on a GPU: {found}");
            None
        }
        Err(e) => panic!("{e}"),
    };
    FOUND.get_or_init(find).as_ref()
}

/// What a plan leaves in `out` on the GPU, if there is one and its kernels do that.
#[cfg(feature = "cuda")]
fn on_gpu(plan: &Plan, out: View) -> Option<(String, Vec<f32>)> {
    let gpu = gpu()?;
    let mut on_gpu = match GpuPlan::new(gpu, Arc::default(), plan) {
        Err(Error::Device { problem: DeviceProblem::Unsupported, .. }) => return None,
        made => made.unwrap(),
    };
    let mut cursor = on_gpu.start(plan).unwrap();
    while !cursor.is_finished(plan) {
        on_gpu.run(plan, &mut cursor, None, |_| true).unwrap();
    }
    Some((gpu.device().name().to_owned(), on_gpu.read(out).unwrap()))
}

/// Numbers in [-1, 1).
pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let next = |_| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(next).collect()
}

/// A weight of `f32`.
pub(crate) fn weight(shape: &[usize], data: &[f32]) -> Weight {
    weight_as(DType::F32, shape, data)
}

/// A weight of that dtype, rounded from `data`. It ends where its memory does, as the last of a mapped file may.
pub(crate) fn weight_as(dtype: DType, shape: &[usize], data: &[f32]) -> Weight {
    let len = data.len() * dtype.size();
    let mut bytes = AlignedBytes::zeroed(len.next_multiple_of(4 * LINE_WORDS), "test").unwrap();
    let range = bytes.len() - len..bytes.len();
    let to = &mut bytes.bytes_mut()[range.clone()];
    match dtype {
        DType::F16 => {
            let to: &mut [f16] = bytemuck::cast_slice_mut(to);
            to.iter_mut().zip(data).for_each(|(to, &x)| *to = f16::from_f32(x));
        }
        DType::BF16 => {
            let to: &mut [bf16] = bytemuck::cast_slice_mut(to);
            to.iter_mut().zip(data).for_each(|(to, &x)| *to = bf16::from_f32(x));
        }
        _ => to.copy_from_slice(bytemuck::cast_slice(data)),
    }
    Weight::in_place("test", dtype, shape, Arc::new(bytes), range).unwrap()
}

/// Every element within `bound` of the exact one, absolutely; NaN is not.
pub(crate) fn close(y: &[f32], exact: &[f64], bound: f64, on: impl std::fmt::Display) -> Result<(), TestCaseError> {
    assert_eq!(y.len(), exact.len());
    for (i, (&y, &e)) in y.iter().zip(exact).enumerate() {
        let fine = (y as f64 - e).abs() <= bound;
        if !fine {
            return Err(TestCaseError::fail(format!("{on}: element {i}: {y}, exactly {e}, bound {bound:e}")));
        }
    }
    Ok(())
}

/// GELU in f64 through erf's power series; |x| below 6 or so.
pub(crate) fn gelu(x: f64) -> f64 {
    let z = x / 2f64.sqrt();
    let (mut term, mut sum) = (z, z);
    for n in 1..150 {
        term *= -z * z / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    let erf = if z.abs() > 5.0 { z.signum() } else { sum * std::f64::consts::FRAC_2_SQRT_PI };
    x * (1.0 + erf) / 2.0
}
