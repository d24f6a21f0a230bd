//! Products and attention on a GPU, alone, and the speed of a large copy: one JSON object a line.
//!
//! ```sh
//! cargo bench --features cuda --bench gpu                          # the cases of the targets, on the first GPU
//! cargo bench --features cuda --bench gpu -- product:64x768x3072   # others
//! cargo bench --features cuda --bench gpu -- --list                # names them
//! cargo bench --features cuda --bench gpu -- --once                # each a few times, the clock does not matter
//! cargo bench --features cuda --bench gpu -- --no-wgmma            # on a Hopper: without the kernels for it alone
//! ```
//!
//! `product:MxKxN` is `[M, K]` in pairs of bf16 times `[N, K]` of bf16, to pairs; `attention:HxPxD` is H heads, in groups of
//! 16 as networks have them, of P queries and as many keys of D numbers, from columns of one matrix, multiplied in bf16. A case is a plan
//! that a session could run: a segment of many such ops is one CUDA graph, launched turn after turn, and events of the GPU
//! stand between the turns. A figure is the median turn over its ops, after half a second to warm up. The ops of a turn go
//! through several matrices, [`FAR`] in all, so that none is found in the L2 cache; `[M, K]` and the results may be.
//! `benches/peers/torch_parts_gpu.py` does the same with the same numbers.

#[allow(dead_code, reason = "for the programs in peers")]
#[path = "peers/part.rs"]
mod part;

use discon::cuda::{Context, Device, Event, Gpu, Stream};
use discon::ops::{Attention, Keys, Linear, Op, Operand};
use discon::peak::Peaks;
use discon::plan::{Builder, GpuPlan, Plan, Stage};
use discon::tensor::{AlignedBytes, Form, Format, Matrix, Weight};
use discon::{Error, Result};
use half::bf16;
use part::{numbers, tensor};
use serde_json::json;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What `docs/performance.md` has targets for, and few rows as a network of size b has them.
const CASES: [&str; 10] = [
    "product:4096x4096x4096",
    "product:512x768x3072",
    "product:2x8192x8192",
    "product:16x8192x8192",
    "product:2x768x3072",
    "product:16x768x3072",
    "product:2x3072x768",
    "product:16x3072x768",
    "attention:64x576x64",
    "attention:64x576x80",
];

/// Bytes of bf16 that the ops of a turn read by turns, at least: several times what an L2 cache holds.
const FAR: usize = 256 << 20;
/// About how long a turn is: much longer than what the host needs to launch the next.
const TURN: f64 = 2e-3;
/// Turns of a run, of which all but the first and the last are samples.
const TURNS: usize = 34;
const WARM_UP: Duration = Duration::from_millis(500);
/// Heads of a group, where they can be shared out so.
const HEADS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Product,
    Attention,
}

/// An op at one size.
#[derive(Debug, Clone, Copy)]
struct Case {
    part: Part,
    size: [usize; 3],
}

impl Case {
    fn parse(text: &str) -> Result<Self> {
        let expected = "product:MxKxN with even K and N, or attention:HxPxD with D to 128; each from 1 to 16384";
        let wrong = || Error::input("case", expected, format!("`{text}`"));
        let (part, size) = text.split_once(':').ok_or_else(wrong)?;
        let size = size.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>().map_err(|_| wrong())?;
        let part = match part {
            "product" => Part::Product,
            "attention" => Part::Attention,
            _ => return Err(wrong()),
        };
        let size: [usize; 3] = size.try_into().map_err(|_| wrong())?;
        let fits = match part {
            Part::Product => size[1].is_multiple_of(2) && size[2].is_multiple_of(2),
            Part::Attention => size[2] <= 128,
        };
        let fits = fits && size.iter().all(|n| (1..=1 << 14).contains(n));
        if fits { Ok(Self { part, size }) } else { Err(wrong()) }
    }

    fn name(&self) -> &'static str {
        match self.part {
            Part::Product => "product",
            Part::Attention => "attention",
        }
    }

    fn shape(&self) -> String {
        self.size.map(|n| n.to_string()).join(" x ")
    }

    /// Operands that take turns: so many that they are [`FAR`] bytes of bf16, and not one alone.
    fn sets(&self) -> usize {
        let [a, b, c] = self.size;
        let each = match self.part {
            Part::Product => b * c,
            Part::Attention => 3 * a * b * c,
        };
        FAR.div_ceil(2 * each).max(2)
    }

    /// Ops that fill a turn on a GPU of 800 TFLOP/s and 4 TB/s, if it needs 2 microseconds for each at least.
    fn ops(&self) -> usize {
        let [a, b, c] = self.size.map(|n| n as f64);
        let (flops, bytes) = match self.part {
            Part::Product => (2.0 * a * b * c, 2.0 * (a * b + b * c + a * c)),
            Part::Attention => (4.0 * a * b * b * c, 8.0 * a * b * c),
        };
        let seconds = (flops / 800e12).max(bytes / 4e12).max(2e-6);
        ((TURN / seconds) as usize).max(1).next_multiple_of(self.sets())
    }

    /// The operands, by turns, and what the last op writes.
    fn make(&self, b: &mut Builder, sets: usize) -> Result<(Vec<Op>, Operand)> {
        match self.part {
            Part::Product => self.product(b, sets),
            Part::Attention => self.attention(b, sets),
        }
    }

    fn product(&self, b: &mut Builder, sets: usize) -> Result<(Vec<Op>, Operand)> {
        let [m, k, n] = self.size;
        let form = Form::Pairs;
        let pair =
            |x: &[f32]| u32::from(bf16::from_f32(x[0]).to_bits()) | u32::from(bf16::from_f32(x[1]).to_bits()) << 16;
        let words: Vec<i32> = numbers(m * k, 0).chunks(2).map(|x| pair(x) as i32).collect();
        let x = Operand { view: b.constant_i32(&words, form.words(k))?, form };
        let out = Operand { view: b.kept(m, form.words(n))?, form };
        let w = Matrix::pack(&Weight::owned("matrix", &[n, k], &tensor(n, k, 2))?, Format::Bf16)?;
        // The same numbers in other places serve as well.
        let copy = || {
            let mut bytes = AlignedBytes::zeroed(w.stored().len(), w.name())?;
            bytes.bytes_mut().copy_from_slice(w.stored());
            Ok(Matrix::from_aligned(w.name(), w.format(), (w.rows(), w.cols()), bytes))
        };
        let ops = (0..sets).map(|_| Ok(Linear::new(x, &copy()?, None, out).into()));
        Ok((ops.collect::<Result<_>>()?, out))
    }

    fn attention(&self, b: &mut Builder, sets: usize) -> Result<(Vec<Op>, Operand)> {
        let [all, places, d] = self.size;
        let groups = if all.is_multiple_of(HEADS) { all / HEADS } else { 1 };
        let heads = all / groups;
        let out = b.kept(groups * places, heads * d)?.grouped(groups);
        let values = numbers(groups * places * 3 * heads * d, 1);
        let mut op = || {
            let qkv = b.constant(&values, 3 * heads * d)?.grouped(groups);
            let [q, k, v] = [0, 1, 2].map(|i| qkv.columns(i * heads * d..(i + 1) * heads * d));
            Ok(Attention { q, k, v, keys: Keys { first: places, step: 0 }, heads, narrow: true, out }.into())
        };
        let ops = (0..sets).map(|_| op()).collect::<Result<_>>()?;
        Ok((ops, out.into()))
    }
}

/// A GPU whose plans run in a stream of ours, so that events can stand in it.
struct Lab {
    // Before the stream, which its plans use.
    gpu: Gpu,
    stream: Stream,
}

impl Lab {
    fn new(wgmma: bool) -> Result<Self> {
        let context = Context::primary(&Device::open(0)?)?;
        let stream = Stream::new(&context)?;
        let gpu = Gpu::in_context(context, None)?.with_wgmma(wgmma);
        // SAFETY: it lives as long as the plans, which do not leave `measure`; this thread alone uses it, and records no graph
        // of it but those of the plans.
        let gpu = unsafe { gpu.with_stream(stream.as_raw()) }?;
        Ok(Self { gpu, stream })
    }

    /// Median seconds of the op, and the mean of its results' magnitudes.
    fn measure(&self, case: Case, once: bool) -> Result<(f64, f64)> {
        let (sets, turns) = if once { (2, 4) } else { (case.sets(), TURNS) };
        let count = if once { sets } else { case.ops() };
        let mut b = Builder::new();
        let (ops, out) = case.make(&mut b, sets)?;
        b.segment(Stage::Encode, 0, turns);
        ops.iter().cycle().take(count).for_each(|op| b.push(op.clone()));
        let plan = b.finish()?;
        let mut on_gpu = GpuPlan::new(&self.gpu, Default::default(), &plan)?;
        let start = Instant::now();
        let mut samples = self.turns(&plan, &mut on_gpu)?;
        while start.elapsed() < WARM_UP && !once {
            samples = self.turns(&plan, &mut on_gpu)?;
        }
        samples.sort();
        let median = samples[samples.len() / 2].as_secs_f64() / count as f64;
        Ok((median, mean(&on_gpu.read(out.view)?, out.form)))
    }

    /// The time on the GPU of each turn but the first and the last.
    fn turns(&self, plan: &Plan, on_gpu: &mut GpuPlan) -> Result<Vec<Duration>> {
        let mut events = Vec::new();
        let mark = || {
            let event = Event::new(self.gpu.context())?;
            event.record(&self.stream)?;
            Ok(event)
        };
        let mut cursor = on_gpu.start(plan)?;
        // Asked after each turn is in the stream; after the last the GPU has been waited for.
        on_gpu.run(plan, &mut cursor, None, |_| {
            events.push(mark());
            false
        })?;
        let events = events.into_iter().collect::<Result<Vec<_>>>()?;
        events[..events.len() - 1].windows(2).map(|pair| pair[1].since(&pair[0])).collect()
    }
}

/// Tells whether engines computed the same.
fn mean(words: &[u32], form: Form) -> f64 {
    let numbers = |&word: &u32| match form {
        Form::Numbers => vec![f32::from_bits(word)],
        _ => vec![f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)],
    };
    let all: Vec<f32> = words.iter().flat_map(numbers).collect();
    all.iter().map(|x| f64::from(x.abs())).sum::<f64>() / all.len() as f64
}

fn run() -> Result<ExitCode> {
    let (mut once, mut wgmma, mut cases) = (false, true, Vec::new());
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            // What cargo says.
            "--bench" => {}
            "--once" => once = true,
            "--no-wgmma" => wgmma = false,
            "--list" => {
                CASES.iter().for_each(|case| println!("{case}"));
                return Ok(ExitCode::SUCCESS);
            }
            case => cases.push(Case::parse(case)?),
        }
    }
    if cases.is_empty() {
        cases = CASES.iter().map(|case| Case::parse(case)).collect::<Result<_>>()?;
    }
    let lab = Lab::new(wgmma)?;
    let engine = format!("discon {}{}", env!("CARGO_PKG_VERSION"), if wgmma { "" } else { " without wgmma" });
    let device = lab.gpu.device();
    println!(
        "{}",
        json!({
            "engine": engine,
            "gpu": device.name(),
            "compute_capability": device.compute_capability().to_string(),
            "driver_cuda": device.driver().to_string(),
            "peak": if once { None } else { Some(Peaks::measure(&lab.gpu)?) },
        })
    );
    let mut code = ExitCode::SUCCESS;
    for case in cases {
        let mut line = json!({ "engine": engine, "dtype": "bf16", "part": case.name(), "shape": case.shape() });
        match lab.measure(case, once) {
            Ok((seconds, mean)) => {
                line["seconds"] = json!(seconds);
                line["mean"] = json!(mean);
            }
            Err(e) => {
                eprintln!("{} {}: {e}", case.name(), case.shape());
                line["error"] = json!(e.to_string());
                code = ExitCode::FAILURE;
            }
        }
        println!("{line}");
    }
    Ok(code)
}

fn main() -> ExitCode {
    run().unwrap_or_else(|e| {
        eprintln!("{e}");
        ExitCode::FAILURE
    })
}
