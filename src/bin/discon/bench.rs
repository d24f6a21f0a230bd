//! `discon bench`

use crate::common::{DeviceArgs, ModelArgs, SettingArgs, processor, within};
use crate::interrupt::clean_up_and_exit;
use crate::output::{line, tell};
use crate::synth;
use discon::peak::Peaks;
use discon::plan::{Cost, KernelProfile, OpProfile, Profile, Stage};
use discon::tensor::DType;
use discon::{Device, Error, Image, Model, Outputs, Precision, Result, Session};
use serde_json::{Map, Value, json};
use std::process::ExitCode;
use std::time::Duration;
use tempfile::TempDir;

/// The stages that are timed.
const STAGES: [Stage; 4] = [Stage::Discrete, Stage::Condition, Stage::Head, Stage::Decode];

/// Measure the speed of a model on this machine
///
/// Makes the same images K times after a warm-up and prints the median seconds of each stage, with a hash of the
/// pixels: the same work gives the same hash. Rounds and steps are the model's own unless they are given.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon bench
  discon bench --size tiny --json
  discon bench --size b --dtype bf16 --rounds 8 --steps 25 --tokens 64 --ops")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// A model of random weights at a published size, in a temporary folder, instead of a model: tiny, b or l
    #[arg(long, value_name = "tiny|b|l", conflicts_with = "model")]
    size: Option<String>,
    #[command(flatten)]
    sampling: SettingArgs,
    /// Stop stage 1 after so many codes and take 0 for the others: for a quick look
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Images at a time
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Measurements, of which the median counts
    #[arg(long, value_name = "K", default_value_t = 3)]
    repeat: usize,
    /// Tell also the time, bytes and FLOPs of every op, and on a GPU of every kernel, beside what this machine can do at
    /// most: `linear`, `conv` and `attention` in the type that they multiply (bf16 for the latter two of q8; the
    /// attention of stage 1, of one query, multiplies f32), other ops in f32
    #[arg(long)]
    ops: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The model to measure; of a synthetic one the folder, which goes away with this value.
struct Subject {
    name: String,
    model: Model,
    _folder: Option<TempDir>,
}

/// What was measured.
struct Measured {
    /// Median seconds, in the order of [`STAGES`].
    seconds: [f64; STAGES.len()],
    hash: u64,
    /// All repeats together.
    profile: Profile,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("repeat", args.repeat, 10_000)?;
    let subject = subject(args)?;
    let mut device = args.device.device(&subject.model)?;
    let mut settings = subject.model.settings();
    args.sampling.apply(&mut settings);
    let outputs = Outputs { discrete_tokens: args.tokens, ..Outputs::IMAGE };
    let mut session = args.device.session(&subject.model, &mut device, args.batch, &settings, outputs)?;
    let measured = measure(&mut session, args, subject.model.config().classes.len())?;
    let peaks = if args.ops { Some(Peaks::measure(&device)?) } else { None };
    let places = session.codes().ok().and_then(|codes| codes.first().map(Vec::len)).unwrap_or(0);
    let (seconds, machine) = (measured.seconds, Machine::of(&device));
    if args.json {
        let by_stage: Map<String, Value> =
            STAGES.iter().zip(seconds).map(|(stage, s)| (stage.name().to_owned(), json!(rounded(s)))).collect();
        let mut all = json!({
            "size": subject.name,
            "dtype": subject.model.precision().name(),
            "device": machine.kind,
            "compile": false,
            "batch": args.batch,
            "rounds": settings.rounds,
            "steps": settings.steps,
            "tokens": args.tokens.unwrap_or(places),
            "threads": device.threads(),
            "discon": env!("CARGO_PKG_VERSION"),
            "seconds": by_stage,
            "image_seconds": rounded(seconds.iter().sum()),
            "hash": format!("{:016x}", measured.hash),
            "machine": machine.json,
        });
        if let Some(peaks) = &peaks {
            all["peak"] = json!(peaks);
            let entries = entries(&measured.profile, subject.model.precision());
            all["ops"] = entries.ops.iter().map(|op| op.json("op", args.repeat)).collect();
            if !entries.kernels.is_empty() {
                all["kernels"] = entries.kernels.iter().map(|kernel| kernel.json("kernel", args.repeat)).collect();
            }
        }
        line(&all.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let (name, dtype, tokens) = (&subject.name, subject.model.precision(), args.tokens.unwrap_or(places));
    line(&format!("{name} {dtype}, {}", machine.text))?;
    let work = format!("{} rounds, {} steps, {tokens} of {places} tokens", settings.rounds, settings.steps);
    line(&format!("batch {}, {work}; median of {}", args.batch, args.repeat))?;
    for (stage, s) in STAGES.iter().zip(seconds) {
        line(&format!("{:<10} {s:>9.4} s", stage.name()))?;
    }
    line(&format!("{:<10} {:>9.4} s", "all", seconds.iter().sum::<f64>()))?;
    line(&format!("{:<10} {:016x}", "hash", measured.hash))?;
    match peaks {
        Some(peaks) => tables(&entries(&measured.profile, dtype), args.repeat, &peaks),
        None => Ok(()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The machine that was measured.
struct Machine {
    kind: &'static str,
    text: String,
    json: Value,
}

impl Machine {
    fn of(device: &Device) -> Self {
        match device {
            Device::Cpu(cpu) => Self {
                kind: "cpu",
                text: format!("{} threads, {}, {}", cpu.threads(), cpu.isa(), processor()),
                json: json!({ "cpu": processor(), "isa": cpu.isa().name() }),
            },
            #[cfg(feature = "cuda")]
            Device::Gpu(gpu) => Self {
                kind: "cuda",
                text: gpu.device().name().to_owned(),
                json: json!({
                    "gpu": gpu.device().name(),
                    "compute_capability": gpu.device().compute_capability().to_string(),
                    "driver_cuda": gpu.device().driver().to_string(),
                }),
            },
            // More kinds may come.
            _ => Self { kind: "unknown", text: "unknown".to_owned(), json: Value::Null },
        }
    }
}

/// Finds or makes the model.
fn subject(args: &Args) -> Result<Subject> {
    let Some(size) = &args.size else {
        let model = args.model.open()?;
        return Ok(Subject { name: model.config().name.clone(), model, _folder: None });
    };
    let (size, precision) = (synth::size(size)?, args.model.precision.precision()?.unwrap_or(Precision::F32));
    let folder = tempfile::Builder::new().prefix("discon-bench-").tempdir();
    let folder = folder.map_err(|e| Error::io(std::env::temp_dir(), e))?;
    clean_up_and_exit(vec![folder.path().to_owned()])?;
    let stored = if precision == Precision::F32 { DType::F32 } else { DType::BF16 };
    synth::write(size, folder.path(), stored, 0)?;
    let model = Model::open_as(folder.path(), precision)?;
    Ok(Subject { name: size.name().to_owned(), model, _folder: Some(folder) })
}

/// Runs the session once to warm up, then as often as asked for.
fn measure(session: &mut Session, args: &Args, classes: usize) -> Result<Measured> {
    let batch: Vec<usize> = (0..args.batch).map(|i| i % classes.max(1)).collect();
    let seeds: Vec<u64> = (0..args.batch as u64).collect();
    let mut times: [Vec<f64>; STAGES.len()] = Default::default();
    let mut first = None;
    for turn in 0..=args.repeat {
        session.begin(&batch, &seeds)?;
        session.run(|_| ())?;
        let hash = hash(&session.images()?);
        if *first.get_or_insert(hash) != hash {
            tell("discon: warning: the same work gave other pixels");
        }
        if turn == 0 && args.ops {
            session.enable_profile();
        }
        if turn > 0 {
            let time = |stage| session.times().get(&stage).map_or(0.0, |t| t.as_secs_f64());
            times.iter_mut().zip(STAGES).for_each(|(times, stage)| times.push(time(stage)));
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(0.0)
    };
    let profile = session.profile().cloned().unwrap_or_default();
    Ok(Measured { seconds: times.map(median), hash: first.unwrap_or(0), profile })
}

/// What an op of a model of that precision computes in. A few small matrices of a q8 model are bf16 and count as q8.
fn computes_in(op: &OpProfile, model: Precision) -> Precision {
    match (op.name, model) {
        // Of one query: f32.
        ("attention", _) if op.stage == Stage::Discrete => Precision::F32,
        ("linear", _) | ("conv" | "attention", Precision::Bf16) => model,
        ("conv" | "attention", Precision::Q8) => Precision::Bf16,
        _ => Precision::F32,
    }
}

/// A line of a table: what an op of a stage took, or a kernel in all stages.
struct Entry {
    stage: Option<Stage>,
    name: &'static str,
    precision: Precision,
    calls: u64,
    time: Duration,
    cost: Cost,
}

/// The lines of both tables.
struct Entries {
    ops: Vec<Entry>,
    kernels: Vec<Entry>,
}

fn entries(profile: &Profile, model: Precision) -> Entries {
    let ops = profile.ops.iter().map(|op| {
        let &OpProfile { stage, name, calls, time, cost } = op;
        Entry { stage: Some(stage), name, precision: computes_in(op, model), calls, time, cost }
    });
    let kernels = profile.kernels.iter().map(|kernel| {
        let &KernelProfile { name, calls, time, cost } = kernel;
        // What multiplies 16 bits says so.
        let precision = if name.contains("f16") { Precision::Bf16 } else { Precision::F32 };
        Entry { stage: None, name, precision, calls, time, cost }
    });
    Entries { ops: ops.collect(), kernels: kernels.collect() }
}

fn tables(Entries { ops, kernels }: &Entries, repeat: usize, peaks: &Peaks) -> Result<()> {
    const COLUMNS: &str = "calls         ms        MB     MFLOP  GFLOP/s  %peak of       GB/s %peak";
    let has = |precision| Some(format!("{:.1} of {precision}", peaks.flops(precision)? / 1e9));
    let flops = Precision::ALL.into_iter().filter_map(has).collect::<Vec<_>>().join(", ");
    let bandwidth = peaks.read_bytes / 1e9;
    line("")?;
    line(&format!(
        "at most {flops} GFLOP/s in registers, {bandwidth:.1} GB/s from memory; by op, of one image batch:"
    ))?;
    line(&format!("stage      op                  {COLUMNS}"))?;
    for op in ops {
        let stage = op.stage.map_or("", Stage::name);
        line(&format!("{stage:<10} {:<16} {}", op.name, op.numbers(repeat, peaks)))?;
    }
    if kernels.is_empty() {
        return Ok(());
    }
    // In a graph some ops share a launch; op by op none do.
    line("")?;
    line("by kernel, of one image batch, every op launched by itself:")?;
    line(&format!("kernel                         {COLUMNS}"))?;
    for kernel in kernels {
        line(&format!("{:<27} {}", kernel.name, kernel.numbers(repeat, peaks)))?;
    }
    Ok(())
}

impl Entry {
    /// Columns from `calls` on, of one batch.
    fn numbers(&self, repeat: usize, peaks: &Peaks) -> String {
        let once = |n: u64| n as f64 / repeat as f64;
        let seconds = self.time.as_secs_f64().max(1e-9);
        let (g, b) = (self.cost.flops as f64 / seconds / 1e9, self.cost.bytes as f64 / seconds / 1e9);
        format!(
            "{:>8} {:>10.2} {:>9.1} {:>9.1} {g:>8.1} {:>6.1} {:<5} {b:>8.1} {:>5.1}",
            once(self.calls),
            1e3 * seconds / repeat as f64,
            once(self.cost.bytes) / 1e6,
            once(self.cost.flops) / 1e6,
            peaks.flops(self.precision).map_or(0.0, |peak| 100.0 * g * 1e9 / peak),
            self.precision.name(),
            100.0 * b * 1e9 / peaks.read_bytes,
        )
    }

    /// The same with the name as `kind`.
    fn json(&self, kind: &str, repeat: usize) -> Value {
        let once = |n: f64| n / repeat as f64;
        let mut all = json!({
            "precision": self.precision.name(),
            "calls": once(self.calls as f64),
            "seconds": once(self.time.as_secs_f64()),
            "bytes": once(self.cost.bytes as f64),
            "flops": once(self.cost.flops as f64),
        });
        all[kind] = json!(self.name);
        if let Some(stage) = self.stage {
            all["stage"] = json!(stage.name());
        }
        all
    }
}

/// Seconds to a tenth of a millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1e4).round() / 1e4
}

/// FNV-1a, 64 bits, of all pixels.
fn hash(images: &[Image]) -> u64 {
    let bytes = images.iter().flat_map(Image::rgb);
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}
