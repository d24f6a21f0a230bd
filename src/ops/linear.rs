//! Linear: `out = f(x W^T + bias)`, with what follows it in the graph done on the way out.
//!
//! `x` `[M, K]`, `W` `[N, K]` packed, `out` `[M, N]`. Sums are f32, from k = 0 to K - 1: relative error of a sum of K
//! products at most K / 2^24 of their absolute sum, besides what the [`Format`] rounds.
//! Bytes: every operand once. FLOPs: 2 M N K.

#[cfg(feature = "cuda")]
use super::LayerNorm;
#[cfg(feature = "cuda")]
use super::on_gpu::{FEW, Launcher, Result, Splits, Tall, abi, small, split, wide};
use super::product::{Epilogue, Input, Operand, Rows, TILE_ROWS, multiply, parts, tile_rows};
use super::{Activation, Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::tensor::packed::PANEL;
use crate::tensor::{Form, Format, Matrix, TileMut, Weight};

/// The op.
#[derive(Debug, Clone)]
pub struct Linear {
    /// `[M, K]`, as numbers or in the form that products with `w` read.
    pub x: Operand,
    /// `[N, K]`
    pub w: Matrix,
    /// What follows.
    pub epilogue: Epilogue,
    /// `[M, N]`; in another form than numbers nothing can be added to what is there.
    pub out: Operand,
}

impl Linear {
    /// `out = x W^T + bias`
    pub fn new(x: impl Into<Operand>, w: &Matrix, bias: Option<&Weight>, out: impl Into<Operand>) -> Self {
        let (x, out) = (x.into(), out.into());
        let epilogue = Epilogue { bias: bias.cloned(), ..Epilogue::default() };
        let read = x.form == Form::Numbers || x.form == w.format().form();
        assert!(read && x.holds(w.cols()) && out.holds(w.rows()), "{x:?} times {w:?} to {out:?}");
        assert_eq!(x.view.count(), out.view.count(), "{w:?}");
        Self { x, w: w.clone(), epilogue, out }
    }

    /// With an activation.
    pub fn then(mut self, activation: Activation) -> Self {
        self.epilogue.activation = activation;
        self
    }

    /// Added to what `out` holds, each element times `gate` if there is one.
    pub fn added(mut self, gate: Option<View>) -> Self {
        assert_eq!(self.out.form, Form::Numbers, "{:?}", self.w);
        self.epilogue.gate = gate;
        self.epilogue.add = true;
        self
    }
}

/// From this many rows on the arithmetic counts more than the reading of the weights.
const TALL: usize = 17;

/// Bytes of weights in a tile of few rows: enough to be worth a thread's while, few enough to share out.
const FEW_ROWS_BYTES: usize = 64 * 1024;

/// Tiles that a product of many rows is cut into at least, if it has the columns: every thread should find some.
const TILES: usize = 8;

/// Columns that the widest kernel takes at once.
const STRIP: usize = 4 * PANEL;

impl Kernel for Linear {
    const NAME: &'static str = "linear";

    fn out(&self) -> Out {
        let (rows, cols) = (self.x.view.count(), self.w.rows());
        let lying = Rows::of(&self.x, &self.w) == Rows::Lying;
        let tile = |rows, cols| Out::new(self.out.view, rows, self.out.form.words(cols));
        if rows < TALL {
            let panels = FEW_ROWS_BYTES / (4 * self.w.panel_words()).max(1);
            // To quantise a row costs as much as some dozen columns.
            let least = if lying && self.w.format() == Format::Q8 && rows > 4 { 4 } else { 1 };
            return tile(rows, (panels * PANEL / STRIP).max(least) * STRIP);
        }
        // To bring a row of the input into the kernel's form costs as much as a few dozen columns.
        let most = match self.w.format().form() {
            Form::Pairs if lying => 4 * STRIP,
            Form::Blocks if lying => 8 * STRIP,
            _ => 2 * STRIP,
        };
        let tile_rows = tile_rows(rows, TILE_ROWS);
        let across = cols.div_ceil(most).max(TILES.div_ceil(rows.div_ceil(tile_rows)));
        tile(tile_rows, cols.div_ceil(across).next_multiple_of(STRIP))
    }

    fn cost(&self, _: usize) -> Cost {
        let (m, n, k) = (self.x.view.count(), self.w.rows(), self.w.cols());
        let extra = self.epilogue.gate.map_or(0, |_| m * n) + if self.epilogue.add { m * n } else { 0 };
        let moved = m * (self.x.view.cols() + self.out.view.cols()) + extra;
        Cost { bytes: words(moved) + self.w.byte_len() as u64, flops: 2 * (m * n * k) as u64 }
    }

    fn worker_words(&self) -> usize {
        let out = self.out();
        let cols = self.out.numbers(&(0..out.tile_cols), out.tile_cols.max(self.w.rows()));
        WorkerMemory::words(parts(&self.w, Rows::of(&self.x, &self.w), out.tile_rows, cols.len()))
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (rows, cols) = (out.rows(), self.out.numbers(&out.cols(), self.w.rows()));
        let mut memory = cx.worker_memory();
        let parts = parts(&self.w, Rows::of(&self.x, &self.w), rows.len(), cols.len());
        let [sums, _, input, spread] = memory.split(parts);
        let input = Input::of(cx, &self.w, &self.x, rows.clone(), input);
        let sums = multiply(cx, &input, &self.w, cols.clone(), [sums, spread]);
        self.epilogue.store_columns(cx, &sums, rows, cols, self.out.form, &mut out);
    }
}

/// What tensor cores multiply.
#[cfg(feature = "cuda")]
#[derive(Clone, Copy)]
enum Bits16 {
    Bf16,
    F16,
}

/// The kernel of a product on a GPU, its grid, and memory for sums in several runs of K.
#[cfg(feature = "cuda")]
struct OnGpu {
    kernel: &'static str,
    grid: [usize; 3],
    splits: usize,
    memory: Splits,
}

#[cfg(feature = "cuda")]
impl OnGpu {
    fn of(op: &Linear) -> Self {
        // What tensor cores multiply; else f32 is.
        let number = match op.w.format() {
            Format::Bf16 => Some(Bits16::Bf16),
            Format::F16 => Some(Bits16::F16),
            _ => None,
        };
        let (rows, k, pairs) = (op.x.view.count(), op.w.cols(), op.x.form == Form::Pairs);
        let panels = op.w.panels(0..op.w.rows()).len();
        let plain = |kernel, grid| Self { kernel, grid, splits: 1, memory: Splits::default() };
        let Some(number) = number else {
            return match rows <= 16 {
                true => plain("linear_few_f32", [panels, 1, 1]),
                false => plain("linear_f32", Tall::small(panels, rows)),
            };
        };
        if rows <= FEW {
            let tiles = panels.div_ceil(2);
            let (splits, memory) = split(tiles, k, 256, 16 * 32 * rows.div_ceil(16));
            let kernel = match (number, rows <= 16) {
                (Bits16::Bf16, true) => "linear_few_bf16",
                (Bits16::Bf16, false) => "linear_few_bf16_32",
                (Bits16::F16, true) => "linear_few_f16",
                (Bits16::F16, false) => "linear_few_f16_32",
            };
            return Self { kernel, grid: [tiles, splits, 1], splits, memory };
        }
        let Tall { large, grid, splits, memory } = Tall::of(panels, rows, k);
        let kernel = match (number, large, pairs) {
            (Bits16::Bf16, true, true) => "linear_bf16_pairs",
            (Bits16::Bf16, true, false) => "linear_bf16_numbers",
            (Bits16::Bf16, false, true) => "linear_bf16_pairs_small",
            (Bits16::Bf16, false, false) => "linear_bf16_numbers_small",
            (Bits16::F16, true, _) => "linear_f16",
            (Bits16::F16, false, _) => "linear_f16_small",
        };
        Self { kernel, grid, splits, memory }
    }

    /// The one for Hopper alone, if that is worth its while.
    fn wide(op: &Linear) -> Option<Self> {
        let taken = op.w.format() == Format::Bf16 && op.x.form == Form::Pairs;
        let grid = wide(op.w.panels(0..op.w.rows()).len(), op.x.view.count(), op.w.cols()).filter(|_| taken)?;
        Some(Self { kernel: "linear_bf16_pairs_wgmma", grid, splits: 1, memory: Splits::default() })
    }
}

#[cfg(feature = "cuda")]
impl Linear {
    /// As the kernel takes it.
    fn on(&self, to: &Launcher<'_>, OnGpu { splits, memory, .. }: &OnGpu) -> Result<abi::Linear> {
        // A word of the result is of two neighbours; then so are the columns of the panels.
        if self.out.form == Form::Pairs && !self.w.skip(0).is_multiple_of(2) {
            let found = format!("rows of {:?} from an odd one on", self.w);
            return Err(to.unsupported("a product to pairs", "rows of a matrix from an even one on", found));
        }
        let [partial, tickets] = to.splits(*memory);
        Ok(abi::Linear {
            turn: to.turn(),
            x: to.view(&self.x.view)?,
            out: to.view(&self.out.view)?,
            w: to.packed(&self.w)?,
            epilogue: self.epilogue.on(to, self.out.form)?,
            partial,
            tickets,
            form: to.form(self.x.form)?,
            splits: small("runs of K", *splits)?,
        })
    }

    /// Whether [`Linear::launch_normed`] takes the two.
    pub(crate) fn takes(&self, norm: &LayerNorm) -> bool {
        let on = OnGpu::of(self);
        // Numbers of a row, in each run of K, that the kernels have room for.
        let most = match on.kernel {
            "linear_few_bf16" => 1408,
            "linear_few_bf16_32" => 640,
            _ => return false,
        };
        norm.out == self.x && self.x.form == Form::Pairs && norm.x.cols() <= most * on.splits
    }

    /// The product of what `norm` leaves, in one launch with it. That is left nowhere else.
    pub(crate) fn launch_normed(&self, norm: &LayerNorm, to: &mut Launcher<'_>) -> Result<()> {
        let on = OnGpu::of(self);
        let abi::LayerNorm { x, weight, bias, shift, scale, .. } = norm.on(to)?;
        let linear = abi::Linear { x, form: 0, ..self.on(to, &on)? };
        let kernel = if on.kernel == "linear_few_bf16" { "norm_linear_few_bf16" } else { "norm_linear_few_bf16_32" };
        to.call("norm_linear", kernel, on.grid, abi::NormLinear { linear, weight, bias, shift, scale })
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for Linear {
    fn splits(&self) -> Splits {
        OnGpu::of(self).memory
    }

    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let wide = if to.has_wgmma() { OnGpu::wide(self) } else { None };
        let (file, on) = match wide {
            Some(on) => ("linear_wgmma", on),
            None => ("linear", OnGpu::of(self)),
        };
        let p = self.on(to, &on)?;
        to.call(file, on.kernel, on.grid, p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, close, gelu, numbers, weight, weight_as};
    use crate::ops::{LayerNorm, Modulation};
    use crate::tensor::DType;
    use crate::tensor::packed::BLOCK;
    use half::bf16;
    use proptest::prelude::*;

    const FORMATS: [(DType, Format); 8] = [
        (DType::F32, Format::F32),
        (DType::F16, Format::F32),
        (DType::BF16, Format::Wide),
        (DType::F32, Format::Bf16),
        (DType::BF16, Format::Bf16),
        (DType::F32, Format::Q8),
        (DType::F16, Format::F16),
        (DType::F32, Format::F16),
    ];

    /// What the format makes of the input.
    fn rounded(format: Format, x: &[f32], k: usize) -> Vec<f32> {
        let block = |x: &[f32]| {
            let scale = x.iter().fold(0.0f32, |a, b| a.max(b.abs())) / 127.0;
            x.iter().map(|x| (x / scale).round_ties_even() * scale).collect::<Vec<_>>()
        };
        match format {
            Format::F32 | Format::Wide | Format::F16 => x.to_vec(),
            Format::Bf16 => weight_as(DType::BF16, &[x.len()], x).to_f32(),
            Format::Q8 => x.chunks(k).flat_map(|row| row.chunks(BLOCK)).flat_map(block).collect(),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn agrees_with_the_naive_product(
            m in 1usize..70, n in 1usize..150, k in 1usize..200, first in 0usize..20, format in 0..FORMATS.len(),
            add: bool, gated: bool, act in 0usize..3,
        ) {
            let mut lab = Lab::new();
            let (dtype, format) = FORMATS[format];
            let (mut x, w, bias, old, gate) =
                (numbers(m * k, 1), numbers((n + first) * k, 2), numbers(n, 3), numbers(m * n, 4), numbers(m * n, 5));
            // The processor keeps the input, a GPU rounds it: the same of what is f16 already.
            if format == Format::F16 {
                x = weight_as(DType::F16, &[x.len()], &x).to_f32();
            }
            let w = Matrix::pack(&weight_as(dtype, &[n + first, k], &w), format).unwrap().slice_rows(first..first + n);
            let (wide, rounded) = (w.to_f32(), rounded(format, &x, k));
            let activation = [Activation::Identity, Activation::Silu, Activation::Gelu][act];
            let mut expected = vec![0.0f64; m * n];
            for i in 0..m {
                for j in 0..n {
                    let sum: f64 = (0..k).map(|l| rounded[i * k + l] as f64 * wide[j * k + l] as f64).sum();
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
            let bias = weight(&[n], &bias);
            let mut op = Linear::new(x, &w, Some(&bias), out).then(activation);
            op.epilogue.add = add;
            op.epilogue.gate = gated.then_some(gate);
            for (isa, y) in lab.run(op) {
                close(&y, &expected, 1e-6 * k as f64, isa)?;
            }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Wanted {
        Second,
        First,
        Plain,
    }

    /// How far a product of a row with weights up to 1 can be off if each number of the row is by its error before it is
    /// brought into a form: what rounds to another number then, and the roundings of the sums.
    fn flips(form: Form, row: &[f32], errors: &[f32]) -> f32 {
        let moved: f32 = match form {
            Form::Numbers => return 0.0,
            Form::Pairs => {
                let rounded = |x: f32| bf16::from_f32(x).to_f32();
                row.iter().zip(errors).map(|(&x, &e)| (rounded(x + e) - rounded(x - e)).abs()).sum()
            }
            Form::Blocks => {
                let blocks = row.chunks(BLOCK).zip(errors.chunks(BLOCK));
                blocks
                    .map(|(block, errors)| {
                        let step = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
                        // The scale moves too, by as much as the number that sets it.
                        let wide = 2.0 * errors.iter().fold(0.0f32, |most, &e| most.max(e));
                        let flips = |x: &&f32| ((*x - wide) / step).round() != ((*x + wide) / step).round();
                        block.iter().filter(flips).count() as f32 * step + block.len() as f32 * wide
                    })
                    .sum()
            }
        };
        let sums = row.iter().map(|x| x.abs()).sum::<f32>() * row.len() as f32 * f32::EPSILON;
        1.02 * moved + sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// norm -> fc1 -> fc2, what lies between two ops in their form or as numbers: the same bits.
        #[test]
        fn operands_in_the_kernels_form_are_what_numbers_become(
            m in 1usize..40, n in 1usize..200, hidden in 1usize..300, k in 1usize..200, format in 0..FORMATS.len(),
            gated: bool, modulated: bool, act in 0usize..3,
        ) {
            let (dtype, format) = FORMATS[format];
            let matrix = |rows, cols, seed| {
                Matrix::pack(&weight_as(dtype, &[rows, cols], &numbers(rows * cols, seed)), format).unwrap()
            };
            let (w1, w2) = (matrix(hidden, k, 1), matrix(n, hidden, 2));
            // The second product; the first as the second reads it; the first before its activation.
            let run = |form: Form, wanted: Wanted| {
                let mut lab = Lab::new();
                let x = lab.input(m, k, &numbers(m * k, 3));
                let (gate, mods) = (lab.input(m, hidden, &numbers(m * hidden, 4)), lab.input(m, 2 * k, &numbers(2 * m * k, 5)));
                let mut operand = |k| Operand { view: lab.output(m, form.words(k)), form };
                let (normed, between) = (operand(k), operand(hidden));
                let out = lab.output(m, n);
                let modulation = Modulation { scale: mods.columns(0..k), shift: mods.columns(k..2 * k) };
                let norm = LayerNorm { x, affine: None, modulation: modulated.then_some(modulation), out: normed };
                let mut first = Linear::new(normed, &w1, None, between);
                if wanted != Wanted::Plain {
                    first.epilogue.activation = [Activation::Identity, Activation::Silu, Activation::Gelu][act];
                    first.epilogue.gate = gated.then_some(gate);
                }
                let second = Linear::new(between, &w2, None, out);
                let view = if wanted == Wanted::Second { out } else { between.view };
                lab.run_all(vec![norm.into(), first.into(), second.into()], view)
            };
            let [lying, h, x] = [Wanted::Second, Wanted::First, Wanted::Plain].map(|wanted| run(Form::Numbers, wanted));
            for (i, (isa, ready)) in run(format.form(), Wanted::Second).into_iter().enumerate() {
                let rows = ready.chunks(n).zip(lying[i].1.chunks(n)).zip(h[i].1.chunks(hidden).zip(x[i].1.chunks(hidden)));
                for ((ready, lying), (h, x)) in rows {
                    // A GELU that is rounded afterwards is computed to fewer digits: `math::gelu_to_round`.
                    let error = |x: &f32| 4.7e-5 * x.abs().max(1.0);
                    let errors = x.iter().map(error).collect::<Vec<_>>();
                    let bound = if act == 2 { flips(format.form(), h, &errors) } else { 0.0 };
                    for (a, b) in ready.iter().zip(lying) {
                        prop_assert!((a - b).abs() <= bound, "{format:?} on {isa}: {a} and {b}, bound {bound}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_does_not_depend_on_its_company_nor_on_passes_over_k() {
        // In every format the rows of one tile are more than one pass holds, and a few of them are not.
        let (m, n, k) = (95, 70, 2800);
        let (x, w) = (numbers(m * k, 1), numbers(n * k, 2));
        for (dtype, format) in FORMATS {
            let w = Matrix::pack(&weight_as(dtype, &[n, k], &w), format).unwrap();
            let run = |rows: std::ops::Range<usize>| {
                let mut lab = Lab::new();
                let x = lab.input(rows.len(), k, &x[rows.start * k..rows.end * k]);
                let out = lab.output(rows.len(), n);
                lab.run(Linear::new(x, &w, None, out))
            };
            let all = run(0..m);
            for rows in [0..1, 3..5, 7..23] {
                // A GPU has other kernels for few rows and for many.
                for ((isa, some), (_, all)) in
                    run(rows.clone()).iter().zip(&all).take(crate::simd::Isa::available().len())
                {
                    assert!(some[..] == all[rows.start * n..rows.end * n], "{format:?} on {isa}: rows {rows:?}");
                }
            }
        }
    }
}
