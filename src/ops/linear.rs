//! Linear: `out = f(x W^T + bias)`, with what follows it in the graph done on the way out.
//!
//! `x` `[M, K]`, `W` `[N, K]` in f32, f16 or bf16 (read where it lies, widened on the way), `out` `[M, N]`. Sums are
//! f32, in the order of [`crate::simd::dot`]: relative error of a sum of K products about K / 2^25 of their absolute
//! sum. Bytes: every operand once. FLOPs: 2 M N K.

use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::simd::dot::{Product, WIDE_ROWS, WeightRows};
use crate::simd::{Job, Simd};
use crate::tensor::{Elements, Mat, TileMut, Weight};
use std::ops::Range;

/// What happens to a product before it is stored: `out = (out if add) + gate * activation(product + bias)`.
#[derive(Debug, Clone, Default)]
pub struct Epilogue {
    /// `[N]`, added first.
    pub bias: Option<Weight>,
    /// Applied then.
    pub activation: Activation,
    /// `[M, N]`, multiplied then.
    pub gate: Option<View>,
    /// Whether the result is added to what is there: the residual sum of a block.
    pub add: bool,
}

/// The op.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[M, K]`
    pub x: View,
    /// `[N, K]`
    pub w: Weight,
    /// What follows.
    pub epilogue: Epilogue,
    /// `[M, N]`
    pub out: View,
}

impl Linear {
    /// `out = x W^T + bias`
    pub fn new(x: View, w: &Weight, bias: Option<&Weight>, out: View) -> Self {
        let epilogue = Epilogue { bias: bias.cloned(), ..Epilogue::default() };
        assert_eq!((x.cols(), w.rows(), x.count()), (w.cols(), out.cols(), out.count()), "{w:?}");
        Self { x, w: w.clone(), epilogue, out }
    }

    /// With an activation.
    pub fn then(mut self, activation: Activation) -> Self {
        self.epilogue.activation = activation;
        self
    }

    /// Added to what `out` holds, each element times `gate` if there is one.
    pub fn added(mut self, gate: Option<View>) -> Self {
        self.epilogue.gate = gate;
        self.epilogue.add = true;
        self
    }
}

/// Elements of `x` that a tile reads over and over: they stay in the second-level cache.
const TILE_INPUT: usize = 64 * 1024;

/// Weights of a tile of few rows: enough to be worth a thread's while, few enough to share out.
const TILE_WEIGHTS: usize = 16 * 1024;

impl Kernel for Linear {
    const NAME: &'static str = "linear";

    fn out(&self) -> Out {
        let (m, k) = (self.x.count(), self.x.cols().max(1));
        if m <= 16 {
            Out::new(self.out, m, (TILE_WEIGHTS / k).max(16).next_multiple_of(16))
        } else {
            Out::new(self.out, (TILE_INPUT / k).clamp(16, 64) / 4 * 4, 128)
        }
    }

    fn cost(&self) -> Cost {
        let (m, n, k) = (self.x.count(), self.out.cols(), self.x.cols());
        let extra = self.epilogue.gate.map_or(0, |_| m * n) + if self.epilogue.add { m * n } else { 0 };
        Cost { bytes: words(m * k + m * n + extra) + self.w.byte_len() as u64, flops: 2 * (m * n * k) as u64 }
    }

    fn worker_words(&self) -> usize {
        let out = self.out();
        WorkerMemory::words([out.tile_rows * out.tile_cols, WIDE_ROWS * self.x.cols()])
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (rows, cols) = (out.rows(), out.cols());
        let mut memory = cx.worker_memory();
        let [sums, wide] = memory.split([rows.len() * cols.len(), WIDE_ROWS * self.x.cols()]);
        let a = cx.mat(&self.x);
        multiply(cx, a, rows.clone(), &self.w, cols.clone(), sums, wide);
        self.epilogue.store(cx, sums, rows, &mut out);
    }
}

/// `sums = a[rows] w[cols]^T`, whatever the dtype of `w`.
pub(super) fn multiply(
    cx: &Cx<'_>,
    a: Mat<'_, f32>,
    rows: Range<usize>,
    w: &Weight,
    cols: Range<usize>,
    sums: &mut [f32],
    wide: &mut [f32],
) {
    let k = w.cols();
    match w.elements() {
        Elements::F32(w) => cx.isa().run(Product { a, rows, w: WeightRows::new(w, k), cols, out: sums, wide }),
        Elements::F16(w) => cx.isa().run(Product { a, rows, w: WeightRows::new(w, k), cols, out: sums, wide }),
        Elements::BF16(w) => cx.isa().run(Product { a, rows, w: WeightRows::new(w, k), cols, out: sums, wide }),
    }
}

impl Epilogue {
    /// Finishes dense `sums` of `rows` (the tile's rows) into the tile.
    pub(super) fn store(&self, cx: &Cx<'_>, sums: &[f32], rows: Range<usize>, out: &mut TileMut<'_, f32>) {
        let cols = out.cols();
        let bias = self.bias.as_ref().map(|b| &b.f32()[cols.clone()]);
        let gate = self.gate.as_ref().map(|g| cx.mat::<f32>(g));
        for (sums, i) in sums.chunks(cols.len()).zip(rows) {
            let gate = gate.as_ref().map(|g| &g.row(i)[cols.clone()]);
            cx.isa().run(Finish { sums, bias, activation: self.activation, gate, add: self.add, out: out.row(i) });
        }
    }
}

struct Finish<'a> {
    sums: &'a [f32],
    bias: Option<&'a [f32]>,
    activation: Activation,
    gate: Option<&'a [f32]>,
    add: bool,
    out: &'a mut [f32],
}

impl Job for Finish<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let at = i * S::LANES;
            let mut y = s.load_up_to(&self.sums[at..]);
            if let Some(bias) = self.bias {
                y = s.add(y, s.load_up_to(&bias[at..]));
            }
            y = self.activation.apply(s, y);
            if let Some(gate) = self.gate {
                y = s.mul(y, s.load_up_to(&gate[at..]));
            }
            if self.add {
                y = s.add(s.load_up_to(out), y);
            }
            s.store_up_to(out, y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, gelu, numbers, weight_as};
    use crate::tensor::DType;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn agrees_with_the_naive_product(
            m in 1usize..70, n in 1usize..150, k in 1usize..90, dtype in 0usize..3, add: bool, gated: bool, act in 0usize..3,
        ) {
            let mut lab = Lab::new();
            let (x, w, bias, old, gate) =
                (numbers(m * k, 1), numbers(n * k, 2), numbers(n, 3), numbers(m * n, 4), numbers(m * n, 5));
            let w = weight_as([DType::F32, DType::F16, DType::BF16][dtype], &[n, k], &w);
            let wide = w.to_f32();
            let activation = [Activation::Identity, Activation::Silu, Activation::Gelu][act];
            let mut expected = vec![0.0f64; m * n];
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k).map(|l| x[i * k + l] as f64 * wide[j * k + l] as f64).sum();
                    let y = sum + bias[j] as f64;
                    let y = match activation {
                        Activation::Identity => y,
                        Activation::Silu => y / (1.0 + (-y).exp()),
                        Activation::Gelu => gelu(y),
                    };
                    let y = if gated { y * gate[i * n + j] as f64 } else { y };
                    expected[i * n + j] = if add { y + old[i * n + j] as f64 } else { y };
                }
            }
            let (x, out, gate) = (lab.input(m, k, &x), lab.input(m, n, &old), lab.input(m, n, &gate));
            let bias = Weight::owned("bias", &[n], &bias).unwrap();
            let mut op = Linear::new(x, &w, Some(&bias), out).then(activation);
            op.epilogue.add = add;
            op.epilogue.gate = gated.then_some(gate);
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 1e-6 * k as f64, isa)?;
            }
        }
    }
}
