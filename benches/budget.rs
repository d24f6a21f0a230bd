//! How well `Session::step` keeps within its budget, on one thread and on all.
//!
//! ```sh
//! cargo bench --bench budget                                          # the model in this repository
//! cargo bench --bench budget -- path/to/model --images 3
//! cargo bench --bench budget -- --size b --rounds 2 --steps 5 --tokens 32  # random weights at a published size
//! DISCON_BENCH_OUT=benches/results/budget.jsonl cargo bench --bench budget
//! ```
//!
//! A session makes images in steps of 500, 2000 and 8000 microseconds, one step right after the other. Told are the
//! microseconds by which a step went on after its budget was over (a step that ended before it counts as 0), the longest
//! step by the stage in which it began, and what `begin` takes. The model is opened anew each time, so the first image's
//! steps prepare what no request changes. With DISCON_BENCH_OUT a JSON line each goes to that file.

use discon::plan::Stage;
use discon::tensor::DType;
use discon::weights::{SynthSize, synth};
use discon::{Cpu, Error, Model, Outputs, Precision, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const BUDGETS: [u64; 3] = [500, 2000, 8000];
const USAGE: &str =
    "[FOLDER | --size tiny|b|l] [--dtype f32|bf16|q8] [--images N] [--rounds R] [--steps T] [--tokens N]";

/// What is asked for.
struct Args {
    folder: PathBuf,
    size: Option<SynthSize>,
    precision: Option<Precision>,
    images: u64,
    rounds: Option<usize>,
    steps: Option<usize>,
    tokens: Option<usize>,
}

impl Args {
    fn parse() -> Result<Self> {
        let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/avatars-64"));
        let mut all = Self { folder, size: None, precision: None, images: 10, rounds: None, steps: None, tokens: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| wrong(&word));
            match word.as_str() {
                // From cargo.
                "--bench" => (),
                "--size" => {
                    let name = value()?;
                    all.size = Some(SynthSize::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| wrong(&name))?);
                }
                "--dtype" => all.precision = Some(Precision::named(&value()?)?),
                "--images" => all.images = number(&value()?)? as u64,
                "--rounds" => all.rounds = Some(number(&value()?)?),
                "--steps" => all.steps = Some(number(&value()?)?),
                "--tokens" => all.tokens = Some(number(&value()?)?),
                flag if flag.starts_with('-') => return Err(wrong(flag)),
                folder => all.folder = PathBuf::from(folder),
            }
        }
        Ok(all)
    }

    fn model(&self) -> Result<Model> {
        match self.precision {
            Some(precision) => Model::open_as(&self.folder, precision),
            None => Model::open(&self.folder),
        }
    }
}

fn wrong(found: &str) -> Error {
    Error::input("arguments", USAGE, format!("`{found}`"))
}

fn number(word: &str) -> Result<usize> {
    word.parse().ok().filter(|&n| n > 0).ok_or_else(|| wrong(word))
}

/// What the steps of some images took.
#[derive(Default)]
struct Measured {
    begins: Vec<Duration>,
    over: Vec<Duration>,
    longest: BTreeMap<Stage, Duration>,
}

fn measure(args: &Args, model: &Model, cpu: &Cpu, budget: Duration) -> Result<Measured> {
    let mut settings = model.settings();
    settings.rounds = args.rounds.unwrap_or(settings.rounds);
    settings.steps = args.steps.unwrap_or(settings.steps);
    let outputs = Outputs { discrete_tokens: args.tokens, ..Outputs::IMAGE };
    let mut session = model.session(cpu, 1, &settings, outputs)?;
    let (mut measured, classes) = (Measured::default(), model.config().classes.len());
    for image in 0..args.images {
        let start = Instant::now();
        session.begin(&[image as usize % classes], &[image])?;
        measured.begins.push(start.elapsed());
        let mut progress = session.progress();
        while !progress.finished {
            let (stage, start) = (progress.stage, Instant::now());
            progress = session.step(budget)?;
            let time = start.elapsed();
            measured.over.push(time.saturating_sub(budget));
            let longest = measured.longest.entry(stage).or_default();
            *longest = time.max(*longest);
        }
    }
    Ok(measured)
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

/// The time that a share of all is at most; all are sorted.
fn quantile(times: &[Duration], share: f64) -> f64 {
    let at = (times.len() as f64 * share).ceil() as usize;
    times.get(at.saturating_sub(1)).copied().map_or(0.0, micros)
}

fn main() -> Result<()> {
    let mut args = Args::parse()?;
    let mut _folder: Option<TempDir> = None;
    if let Some(size) = args.size {
        let folder = tempfile::Builder::new().prefix("discon-bench-").tempdir();
        let folder = folder.map_err(|e| Error::io(std::env::temp_dir(), e))?;
        let stored = if args.precision.is_none_or(|p| p == Precision::F32) { DType::F32 } else { DType::BF16 };
        synth(size, folder.path(), stored, 0, &mut |_, _| ())?;
        args.folder = folder.path().to_owned();
        _folder = Some(folder);
    }
    let mut lines = String::new();
    let all = Cpu::new(0)?.threads();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        for budget in BUDGETS {
            let (model, cpu) = (args.model()?, Cpu::new(threads)?);
            let Measured { mut begins, mut over, longest } =
                measure(&args, &model, &cpu, Duration::from_micros(budget))?;
            let first = begins.first().copied().map_or(0.0, micros);
            begins.sort();
            over.sort();
            let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| quantile(&over, share));
            let (begin, slowest) = (quantile(&begins, 0.5), quantile(&begins, 1.0));
            let (name, dtype, steps) = (&model.config().name, model.precision(), over.len());
            println!(
                "{name} {dtype} on {}, {threads} threads, {budget} us: {steps} steps over by p50 {p50}, p99 {p99}, at most \
                 {most} us; begin {begin} us (first {first}, at most {slowest})",
                cpu.isa()
            );
            let by_stage: Vec<String> = longest.iter().map(|(stage, &t)| format!("{stage} {} us", micros(t))).collect();
            println!("    longest step: {}", by_stage.join(", "));
            let by_stage = longest.iter().map(|(stage, &t)| (stage.name().to_owned(), json!(micros(t))));
            let line = json!({
                "kind": "budget",
                "machine": machine(),
                "model": name,
                "dtype": dtype.name(),
                "isa": cpu.isa().name(),
                "discon": env!("CARGO_PKG_VERSION"),
                "threads": threads,
                "budget_us": budget,
                "images": args.images,
                "steps": steps,
                "over_us": { "p50": p50, "p99": p99, "max": most },
                "longest_us": Value::Object(by_stage.collect()),
                "begin_us": { "first": first, "p50": begin, "max": slowest },
            });
            lines += &format!("{line}\n");
        }
    }
    match std::env::var("DISCON_BENCH_OUT") {
        Ok(path) => std::fs::write(&path, lines).map_err(|e| Error::io(path, e)),
        Err(_) => Ok(()),
    }
}

/// What the processor calls itself, where the system says so.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
