//! Every op of the graph that takes time, alone, at sizes of `tiny` and `b`, on all cores.
//!
//! ```sh
//! cargo bench --bench ops                         # all, in two minutes
//! cargo bench --bench ops -- 'linear/2 x .* q8'   # those whose names match a regular expression
//! cargo bench --bench ops -- --test               # each once, without a clock
//! DISCON_BENCH_OUT=benches/results/ops.jsonl cargo bench --bench ops
//! DISCON_BENCH_ISA=avx2 cargo bench --bench ops   # by another instruction set than the fastest
//! ```
//!
//! Criterion measures; the "elements" of its products are floating-point operations. Below its figures stands a line of
//! ours: the median time of one run of the op, GFLOP/s beside the peak of what the op multiplies, GB/s beside the speed
//! of a large read, both measured in the same run (the read, for products of few rows, by turns with them: memory is not as
//! fast from minute to minute where others share it), and a hash of what the op wrote first: the same work gives the same
//! hash. Bytes (every operand once) and FLOPs are those that the op states. So what lies in a cache may be read faster
//! than memory, and Winograd's convolution, which multiplies 2.25 times less, may be beyond the peak. With
//! DISCON_BENCH_OUT, the lines also go to that file, for `benches/peers/report.py`.

#[allow(dead_code, reason = "for the programs in peers")]
#[path = "peers/part.rs"]
mod part;

use criterion::{Criterion, SamplingMode, Throughput};
use discon::ops::{
    Activation, Attention, COEFFICIENTS, Conv, DiffusionStep, Epilogue, GroupFactors, GroupNorm, GroupStats, HeadNorm,
    Index, Keys, LayerNorm, Linear, Modulation, Noise, Normalised, Op, Operand, Source, SumRows, TokenDraw,
};
use discon::peak::{LargeRead, Peaks};
use discon::plan::{Arena, Builder, Cost, Cursor, Plan, Stage, Store, View, Walker};
use discon::pool::Pool;
use discon::sampling::philox::Stream;
use discon::simd::Isa;
use discon::tensor::{AlignedBytes, Filter, Format, Matrix, Weight};
use discon::{Cpu, Error, Precision, Result};
use part::{numbers, tensor};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Measurements of an op, of which the median counts; each lasts a tenth of `LASTING`.
const SAMPLES: usize = 10;
const LASTING: Duration = Duration::from_millis(500);
const WARM_UP: Duration = Duration::from_millis(200);

/// Where few rows meet a weight, so many bytes of weights take turns: a network does not find them in a cache.
const FAR: usize = 256 << 20;
/// Up to so many rows the reading of weights counts.
const FEW: usize = 16;

/// Cheap ops are repeated in a plan up to about this [`Cost::weight`], some 100 microseconds or more.
const RUN_WEIGHT: u64 = 20_000_000;

/// Matrices between layers of `b`, and of `tiny`.
const LINEARS: [(usize, usize, &[usize]); 4] = [
    (768, 3072, &[1, 2, 16, 64, 256, 512]),
    (3072, 768, &[1, 2, 16, 64, 256, 512]),
    (256, 1024, &[2, 16, 64, 256]),
    (1024, 256, &[2, 16, 64, 256]),
];

/// What products are made in: a name, the format, and the precision whose peak it has.
const FORMATS: [(&str, Format, Precision); 4] = [
    ("f32", Format::F32, Precision::F32),
    ("f32 over bf16", Format::Wide, Precision::F32),
    ("bf16", Format::Bf16, Precision::Bf16),
    ("q8", Format::Q8, Precision::Q8),
];

type Make = Box<dyn Fn(&mut Builder) -> Result<Vec<Op>>>;

/// An op at one size.
struct Case {
    op: &'static str,
    shape: String,
    /// How it is computed, where there are several ways.
    way: &'static str,
    /// What it multiplies.
    precision: Precision,
    /// FLOPs, of products.
    flops: Option<usize>,
    /// Whether it is held against reads of memory that take turns with it.
    beside_reads: bool,
    /// Lays out what the op reads and writes. Several ops are the same op with other operands.
    make: Make,
}

impl Case {
    fn new(op: &'static str, shape: String, make: impl Fn(&mut Builder) -> Result<Vec<Op>> + 'static) -> Self {
        Self { op, shape, way: "", precision: Precision::F32, flops: None, beside_reads: false, make: Box::new(make) }
    }

    fn by(self, way: &'static str, precision: Precision) -> Self {
        Self { way, precision, ..self }
    }

    fn flops(self, flops: usize) -> Self {
        Self { flops: Some(flops), ..self }
    }

    /// Its name within the op's.
    fn name(&self) -> String {
        [self.shape.as_str(), self.way].map(str::trim).join(" ").trim_end().to_owned()
    }
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (k, n, rows) in LINEARS {
        for (way, format, precision) in FORMATS {
            for &m in rows {
                let make = move |b: &mut Builder| linear(b, m, k, n, format);
                let case =
                    Case::new("linear", format!("{m} x {k} x {n}"), make).by(way, precision).flops(2 * m * k * n);
                all.push(Case { beside_reads: m <= FEW, ..case });
            }
        }
    }
    for (heads, places, d) in [(16, 576, 48), (8, 192, 32)] {
        for (way, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
            let make = move |b: &mut Builder| attention(b, heads, places, d, precision == Precision::Bf16);
            let shape = format!("2 x {heads} x {places} x {d}");
            all.push(Case::new("attention", shape, make).by(way, precision).flops(8 * heads * places * places * d));
        }
    }
    for (heads, keys, d, layers) in [(16, 257, 48, 24), (8, 65, 32, 8)] {
        let shape = format!("2 x {heads} x 1 of {keys} x {d}");
        all.push(
            Case::new("attention", shape, move |b| cached_attention(b, heads, keys, d, layers))
                .flops(8 * heads * keys * d),
        );
    }
    for (rows, cols) in [(1152, 768), (384, 256)] {
        all.push(Case::new("layer_norm", format!("{rows} x {cols}"), move |b| layer_norm(b, rows, cols, false)));
    }
    for (rows, cols) in [(2, 768), (16, 1024), (2, 256), (16, 384)] {
        let shape = format!("{rows} x {cols} modulated");
        all.push(Case::new("layer_norm", shape, move |b| layer_norm(b, rows, cols, true)));
    }
    for (cols, d) in [(768, 48), (256, 32)] {
        all.push(Case::new("head_norm", format!("2 x {cols} by {d}"), move |b| head_norm(b, cols, d)));
    }
    for (channels, width) in [(256, 64), (128, 128), (64, 32)] {
        let shape = || format!("{width} x {width} x {channels}");
        all.push(Case::new("group_stats", shape(), move |b| group_stats(b, channels, width)));
        all.push(Case::new("group_factors", shape(), move |b| group_factors(b, channels, width)));
        all.push(Case::new("group_norm", shape(), move |b| group_norm(b, channels, width)));
    }
    for (channels, width, upsample) in [(256, 64, false), (128, 128, false), (256, 64, true), (64, 32, false)] {
        for (way, format, precision) in [
            ("f32 by Winograd", None, Precision::F32),
            ("f32 by taps", Some(Format::F32), Precision::F32),
            ("bf16", Some(Format::Bf16), Precision::Bf16),
        ] {
            let shape = format!("{width} x {width} x {channels}{}", if upsample { " upsampled" } else { "" });
            let make = move |b: &mut Builder| conv(b, channels, width, upsample, format);
            let pixels = if upsample { 4 * width * width } else { width * width };
            all.push(Case::new("conv", shape, make).by(way, precision).flops(18 * pixels * channels * channels));
        }
    }
    for (rows, cols) in [(320, 768), (128, 256)] {
        all.push(Case::new("sum_rows", format!("{rows} x {cols} of tables"), move |b| embeddings(b, rows, cols)));
    }
    for (turns, rows, cols) in [(12, 16, 1024), (25, 16, 384)] {
        let shape = format!("{turns} x {rows} x {cols} SiLU");
        all.push(Case::new("sum_rows", shape, move |b| conditions(b, turns, rows, cols)));
    }
    all.push(Case::new("token_draw", "2 x 1024".to_owned(), |b| token_draw(b, 1024)));
    for tokens in [8, 64] {
        let shape = format!("{tokens} x 32");
        all.push(Case::new("diffusion_step", shape.clone(), move |b| diffusion_step(b, tokens, 32)));
        all.push(Case::new("noise", shape, move |b| noise(b, tokens, 32)));
    }
    all
}

fn vector(len: usize, seed: usize) -> Result<Weight> {
    Weight::owned("vector", &[len], &tensor(0, len, seed))
}

fn matrix(rows: usize, cols: usize, seed: usize, format: Format) -> Result<Matrix> {
    Matrix::pack(&Weight::owned("matrix", &[rows, cols], &tensor(rows, cols, seed))?, format)
}

fn input(b: &mut Builder, rows: usize, cols: usize, seed: usize) -> Result<View> {
    b.constant(&numbers(rows * cols, seed), cols)
}

/// Another matrix of the same contents.
fn copy(w: &Matrix) -> Result<Matrix> {
    let mut bytes = AlignedBytes::zeroed(w.stored().len(), w.name())?;
    bytes.bytes_mut().copy_from_slice(w.stored());
    Ok(Matrix::from_aligned(w.name(), w.format(), (w.rows(), w.cols()), bytes))
}

/// As between a norm and a product: the rows lie in the form that the product reads.
fn linear(b: &mut Builder, m: usize, k: usize, n: usize, format: Format) -> Result<Vec<Op>> {
    let (rows, out, form) = (input(b, m, k, 1)?, b.kept(m, n)?, format.form());
    let x = Operand { view: b.kept(m, form.words(k))?, form };
    b.segment(Stage::Prepare, 0, 1);
    b.push(LayerNorm { x: rows, affine: None, modulation: None, out: x });
    let (w, bias) = (matrix(n, k, 2, format)?, vector(n, 3)?);
    let count = if m <= FEW { FAR.div_ceil(w.byte_len()) } else { 1 };
    (0..count).map(|_| Ok(Linear::new(x, &copy(&w)?, Some(&bias), out).into())).collect()
}

/// Of both halves of a batch of one, from columns of one product.
fn attention(b: &mut Builder, heads: usize, places: usize, d: usize, narrow: bool) -> Result<Vec<Op>> {
    let (cols, groups) = (heads * d, 2);
    let qkv = input(b, groups * places, 3 * cols, 1)?.grouped(groups);
    let [q, k, v] = [0, 1, 2].map(|i| qkv.columns(i * cols..(i + 1) * cols));
    let out = b.kept(groups * places, cols)?.grouped(groups);
    Ok(vec![Attention { q, k, v, keys: Keys { first: places, step: 0 }, heads, narrow, out }.into()])
}

/// The last token's, over the caches of all layers by turns.
fn cached_attention(b: &mut Builder, heads: usize, keys: usize, d: usize, layers: usize) -> Result<Vec<Op>> {
    let (cols, groups) = (heads * d, 2);
    let (q, out) = (input(b, groups, cols, 1)?.grouped(groups), b.kept(groups, cols)?.grouped(groups));
    let mut cache = |seed| Ok::<_, Error>(input(b, groups * keys, cols, seed)?.grouped(groups));
    let layer = |i: usize| {
        let (k, v) = (cache(2 * i)?, cache(2 * i + 1)?);
        Ok(Attention { q, k, v, keys: Keys { first: keys, step: 0 }, heads, narrow: false, out }.into())
    };
    (1..=layers).map(layer).collect()
}

fn layer_norm(b: &mut Builder, rows: usize, cols: usize, modulated: bool) -> Result<Vec<Op>> {
    let (x, out) = (input(b, rows, cols, 1)?, b.kept(rows, cols)?);
    let m = input(b, rows, 3 * cols, 2)?;
    let modulation = Modulation { shift: m.columns(0..cols), scale: m.columns(cols..2 * cols) };
    let affine = Some((vector(cols, 3)?, vector(cols, 4)?));
    Ok(vec![LayerNorm { x, affine, modulation: modulated.then_some(modulation), out: out.into() }.into()])
}

fn head_norm(b: &mut Builder, cols: usize, d: usize) -> Result<Vec<Op>> {
    let (x, out) = (input(b, 2, 3 * cols, 1)?.columns(0..cols), b.kept(2, cols)?);
    Ok(vec![HeadNorm { x, norm: Some((vector(d, 2)?, vector(d, 3)?)), out }.into()])
}

fn group_stats(b: &mut Builder, channels: usize, width: usize) -> Result<Vec<Op>> {
    let pixels = width * width;
    let (x, out) = (input(b, pixels, channels, 1)?, b.kept(GroupStats::blocks(pixels), 2 * channels)?);
    Ok(vec![GroupStats { x, out }.into()])
}

fn group_factors(b: &mut Builder, channels: usize, width: usize) -> Result<Vec<Op>> {
    let pixels = width * width;
    // Squares are not negative.
    let blocks = GroupStats::blocks(pixels);
    let stats: Vec<f32> = numbers(blocks * 2 * channels, 1).iter().map(|x| x.abs()).collect();
    let (stats, out) = (b.constant(&stats, 2 * channels)?, b.kept(1, 2 * channels)?);
    Ok(vec![GroupFactors { stats, pixels, weight: vector(channels, 2)?, bias: vector(channels, 3)?, out }.into()])
}

fn group_norm(b: &mut Builder, channels: usize, width: usize) -> Result<Vec<Op>> {
    let x = input(b, width * width, channels, 1)?;
    let (factors, out) = (input(b, 1, 2 * channels, 2)?, b.kept(width * width, channels)?);
    Ok(vec![GroupNorm { x, factors, activation: Activation::Identity, out }.into()])
}

/// 3x3, after a norm and SiLU as in the residual blocks, or between the levels; `None` is Winograd's way.
fn conv(b: &mut Builder, channels: usize, width: usize, upsample: bool, taps: Option<Format>) -> Result<Vec<Op>> {
    let out_width = if upsample { 2 * width } else { width };
    let (x, out) = (input(b, width * width, channels, 1)?, b.kept(out_width * out_width, channels)?);
    let norm = Normalised { factors: input(b, 1, 2 * channels, 2)?, activation: Activation::Silu };
    let filter = match taps {
        Some(format) => Filter::Taps(matrix(channels, 9 * channels, 3, format)?),
        // What is transformed are numbers too.
        None => Filter::Winograd(matrix(16 * channels, channels, 3, Format::F32)?),
    };
    let epilogue = Epilogue { bias: Some(vector(channels, 4)?), ..Epilogue::default() };
    let norm = (!upsample).then_some(norm);
    Ok(vec![
        Conv { x, width, norm, filter, kernel: 3, stride: 1, padding: 1, upsample, epilogue, out_width, out }.into(),
    ])
}

/// Of the codes, each with its position.
fn embeddings(b: &mut Builder, rows: usize, cols: usize) -> Result<Vec<Op>> {
    let table = Weight::owned("codes", &[1024, cols], &tensor(1024, cols, 1))?;
    let positions = Weight::owned("positions", &[rows, cols], &tensor(rows, cols, 2))?;
    let ids: Vec<i32> = (0..rows as i32).map(|i| i * 389 % 1024).collect();
    let index = Index::From { ids: b.constant_i32(&ids, 1)?, offset: 0 };
    let sources = [Source::Table(table, index), Source::Table(positions, Index::Range { first: 0 })];
    Ok(vec![SumRows::new(sources, b.kept(rows, cols)?).into()])
}

/// Time and condition of all rows for some diffusion steps.
fn conditions(b: &mut Builder, turns: usize, rows: usize, cols: usize) -> Result<Vec<Op>> {
    let (time, condition) = (input(b, turns, cols, 1)?.each_repeated(rows), input(b, rows, cols, 2)?.repeated(turns));
    let out = b.kept(turns * rows, cols)?.grouped(turns);
    let sources = vec![Source::Rows(time), Source::Rows(condition)];
    Ok(vec![SumRows { sources, activation: Activation::Silu, out }.into()])
}

fn token_draw(b: &mut Builder, codes: usize) -> Result<Vec<Op>> {
    let logits = input(b, 2, codes, 1)?.grouped(2);
    let (scale, uniforms, out) = (b.constant(&[4.0], 1)?, b.constant(&[0.5], 1)?, b.kept(1, 2)?);
    Ok(vec![TokenDraw { logits, scale, temperature: 1.0, uniforms, out }.into()])
}

fn diffusion_step(b: &mut Builder, tokens: usize, channels: usize) -> Result<Vec<Op>> {
    let (eps, noise) = (input(b, 2 * tokens, 2 * channels, 1)?, input(b, tokens, channels, 2)?);
    let factors = b.constant(&[1.3, 0.8, 0.4, 0.55, -2.5, -1.25, 1.0], COEFFICIENTS)?;
    let x = input(b, tokens, channels, 3)?;
    Ok(vec![DiffusionStep { eps, factors, noise, guidance: Some(3.0), temperature: 1.0, clip: Some(5.0), x }.into()])
}

fn noise(b: &mut Builder, tokens: usize, channels: usize) -> Result<Vec<Op>> {
    let seeds = b.constant_i32(&[7, 0], 2)?;
    let places = b.constant_i32(&(0..tokens as i32).collect::<Vec<_>>(), 1)?;
    let out = b.kept(tokens, channels)?;
    Ok(vec![Noise { seeds, places, stream: Stream::Noise, first_step: 0, out }.into()])
}

/// A case, ready to run.
struct Subject {
    plan: Plan,
    arena: Arena,
    /// Ops in the plan, repetitions counted.
    ops: u64,
    /// Of one op.
    cost: Cost,
    hash: u64,
    /// Whether it has run, so that what it prepares is there.
    ready: bool,
}

impl Subject {
    fn new(case: &Case, pool: &Pool, isa: Isa) -> Result<Self> {
        let mut b = Builder::new();
        let ops = (case.make)(&mut b)?;
        let weight: u64 = ops.iter().map(|op| op.cost(1).weight()).sum();
        let turns = (RUN_WEIGHT / weight.max(1)).clamp(1, 1000);
        let (out, cost, count) = (ops[0].out().view, ops[0].cost(1), ops.len() as u64 * turns);
        assert_eq!((ops[0].name(), cost.flops), (case.op, case.flops.map_or(cost.flops, |flops| flops as u64)));
        b.segment(Stage::Encode, 0, turns as usize);
        ops.into_iter().for_each(|op| b.push(op));
        let plan = b.finish()?;
        let arena = Arena::sharing(&plan, pool.threads(), &Store::default(), isa)?;
        let mut subject = Self { plan, arena, ops: count, cost, hash: 0, ready: false };
        subject.run(pool, isa);
        // FNV-1a, 64 bits.
        let bytes = subject.arena.slice_mut::<u32>(out).iter().flat_map(|x| x.to_le_bytes());
        subject.hash = bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
        Ok(subject)
    }

    fn run(&mut self, pool: &Pool, isa: Isa) {
        let Self { plan, arena, .. } = self;
        // What a case prepares is a segment of its own.
        let mut cursor = Cursor { segment: if self.ready { plan.segments.len() - 1 } else { 0 }, ..Cursor::default() };
        Walker { plan, arena, pool, isa, profile: None }.run(&mut cursor, |_| false);
        self.ready = true;
    }

    /// Seconds an op: the mean of as many runs as give at least `ops`.
    fn seconds(&mut self, pool: &Pool, isa: Isa, ops: u64) -> f64 {
        let runs = ops.div_ceil(self.ops);
        let start = Instant::now();
        (0..runs).for_each(|_| self.run(pool, isa));
        start.elapsed().as_secs_f64() / (runs * self.ops) as f64
    }
}

/// What measures, and what was measured.
struct Lab {
    pool: Pool,
    cpu: Cpu,
    memory: LargeRead,
    peaks: Option<Peaks>,
    lines: Vec<Value>,
}

impl Lab {
    fn measure(&mut self, criterion: &mut Criterion, case: &Case) -> Result<()> {
        let (mut subject, mut seconds, mut reads) = (None, Vec::new(), Vec::new());
        let mut group = criterion.benchmark_group(case.op);
        group.sampling_mode(SamplingMode::Flat);
        if let Some(flops) = case.flops {
            group.throughput(Throughput::Elements(flops as u64));
        }
        group.bench_function(case.name(), |bencher| {
            let (pool, isa) = (&self.pool, self.cpu.isa());
            let new = || Subject::new(case, pool, isa).unwrap_or_else(|e| panic!("{e}"));
            let subject = subject.get_or_insert_with(new);
            bencher.iter_custom(|ops| {
                seconds.push(subject.seconds(pool, isa, ops));
                if case.beside_reads {
                    reads.push(self.memory.bandwidth(&self.cpu));
                }
                Duration::from_secs_f64(seconds[seconds.len() - 1] * ops as f64)
            });
        });
        group.finish();
        // Not asked for, or only tried.
        let Some(subject) = subject else { return Ok(()) };
        if seconds.len() < SAMPLES {
            return Ok(());
        }
        // Before the samples came those of the warm-up.
        let median = |mut all: Vec<f64>| {
            let mut samples = all.split_off(all.len().saturating_sub(SAMPLES));
            samples.sort_by(f64::total_cmp);
            samples.get(samples.len() / 2).copied()
        };
        let read = median(reads);
        median(seconds).map_or(Ok(()), |seconds| self.tell(case, &subject, seconds, read))
    }

    /// `read`: bytes a second, if measured by turns with it.
    fn tell(&mut self, case: &Case, subject: &Subject, seconds: f64, read: Option<f64>) -> Result<()> {
        let peaks = match self.peaks {
            Some(peaks) => peaks,
            None => *self.peaks.insert(Peaks::measure(&self.cpu)?),
        };
        let (flops, bytes) = (subject.cost.flops as f64 / seconds, subject.cost.bytes as f64 / seconds);
        println!(
            "{:<46} {:>9.3} us {:>8.1} GFLOP/s {:>5.1}% of {:<4} {:>7.1} GB/s {:>6.1}% of a read  {:016x}\n",
            format!("{} {}", case.op, case.name()),
            1e6 * seconds,
            flops / 1e9,
            peaks.flops(case.precision).map_or(0.0, |peak| 100.0 * flops / peak),
            case.precision.name(),
            bytes / 1e9,
            100.0 * bytes / read.unwrap_or(peaks.read_bytes),
            subject.hash,
        );
        let mut line = json!({
            "op": case.op,
            "shape": case.shape,
            "way": case.way,
            "precision": case.precision.name(),
            "seconds": seconds,
            "flops": subject.cost.flops,
            "bytes": subject.cost.bytes,
            "hash": format!("{:016x}", subject.hash),
        });
        if let Some(read) = read {
            line["read_bytes"] = json!(read);
        }
        self.lines.push(line);
        Ok(())
    }

    /// One JSON object a line: about the machine first.
    fn save(&self, path: &str) -> Result<()> {
        let about = json!({
            "kind": "ops",
            "machine": machine(),
            "threads": self.pool.threads(),
            "isa": self.cpu.isa().name(),
            "discon": env!("CARGO_PKG_VERSION"),
            "peak": self.peaks,
        });
        let text: String = [&about].into_iter().chain(&self.lines).map(|line| format!("{line}\n")).collect();
        std::fs::write(path, text).map_err(|e| Error::io(path, e))
    }
}

/// What the processor calls itself, where the system says so.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let fields =
        || info.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name.trim(), value.trim()));
    let field = |name: &str| fields().find(|f| f.0 == name).map_or("?", |f| f.1);
    let cores = fields().filter(|f| f.0 == "processor").count();
    format!("{} (family {}, model {}), {cores} cores", field("model name"), field("cpu family"), field("model"))
}

fn main() -> Result<()> {
    let criterion = Criterion::default().sample_size(SAMPLES).measurement_time(LASTING).warm_up_time(WARM_UP);
    let mut criterion = criterion.nresamples(1000).configure_from_args();
    let (pool, mut cpu, memory) = (Pool::new(0)?, Cpu::new(0)?, LargeRead::new()?);
    if let Ok(name) = std::env::var("DISCON_BENCH_ISA") {
        cpu = cpu.with_isa(&name)?;
    }
    let mut lab = Lab { pool, cpu, memory, peaks: None, lines: Vec::new() };
    for case in cases() {
        lab.measure(&mut criterion, &case)?;
    }
    criterion.final_summary();
    match std::env::var("DISCON_BENCH_OUT") {
        Ok(path) if !lab.lines.is_empty() => lab.save(&path),
        _ => Ok(()),
    }
}
