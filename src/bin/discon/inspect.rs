//! `discon inspect`

use crate::common::{CpuArgs, PrecisionArgs, bytes, within};
use crate::output::line;
use discon::weights::{ModelFiles, Part};
use discon::{Cpu, Model, Outputs, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Tell what a model is made of and what memory it takes
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon inspect weights/avatars-64
  discon inspect weights/avatars-64 --batch 16 --json")]
pub(crate) struct Args {
    /// Model folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Images at a time, for the memory that a session takes
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What a part's file holds.
struct Contents {
    name: &'static str,
    file: String,
    tensors: usize,
    parameters: usize,
    bytes: usize,
    dtypes: BTreeMap<&'static str, usize>,
}

impl Contents {
    fn new(name: &'static str, part: &Part) -> Self {
        let file = part.file();
        let mut contents = Self {
            name,
            file: file.name().to_owned(),
            tensors: file.names().len(),
            parameters: 0,
            bytes: 0,
            dtypes: BTreeMap::new(),
        };
        for view in file.names().filter_map(|tensor| file.view(tensor)) {
            contents.parameters += view.shape.iter().product::<usize>();
            contents.bytes += view.bytes.len();
            *contents.dtypes.entry(view.dtype.name()).or_default() += view.bytes.len();
        }
        contents
    }
}

/// The parts of a model that are there.
fn parts(files: &ModelFiles) -> Vec<Contents> {
    let parts = [("stage 1", &files.rar), ("stage 2", &files.masked), ("VAE", &files.vae), ("VQ", &files.vq)];
    parts.into_iter().filter_map(|(name, part)| part.as_ref().map(|part| Contents::new(name, part))).collect()
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("batch", args.batch, 65_536)?;
    let cpu = args.cpu.cpu()?;
    let parts = parts(&ModelFiles::open(&args.folder)?);
    let model = args.precision.open(&args.folder)?;
    if args.json {
        line(&json(args, &model, &parts, &cpu).to_string())?;
    } else {
        text(args, &model, &parts, &cpu).iter().try_for_each(|text| line(text))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Bytes of a session's own memory, and of what all sessions share.
fn arena(args: &Args, model: &Model, cpu: &Cpu) -> Result<(u64, u64)> {
    let plan = model.plan(args.batch, &model.settings(), Outputs::IMAGE)?;
    Ok((plan.arena_bytes(cpu.threads()), plan.shared_bytes()))
}

fn text(args: &Args, model: &Model, parts: &[Contents], cpu: &Cpu) -> Vec<String> {
    let (config, memory) = (model.config(), model.weight_memory());
    let mut lines =
        vec![format!("{}: {} x {1} pixels, {} classes", config.name, config.image_size, config.classes.len())];
    lines.push(format!("products in {}", model.precision()));
    lines.push(format!("licence: {}", config.licence.as_deref().unwrap_or("not stated")));
    lines.extend(config.attribution.iter().map(|a| format!("attribution: {a}")));
    for part in parts {
        let millions = part.parameters as f64 / 1e6;
        let dtypes: Vec<_> = part.dtypes.iter().map(|(d, n)| format!("{d} {}", bytes(*n as u64))).collect();
        let dtypes = dtypes.join(", ");
        lines.push(format!(
            "{:<8} {:>4} tensors {millions:>9.2}M parameters  {dtypes}  {}",
            part.name, part.tensors, part.file
        ));
    }
    let s = model.settings();
    lines.push(format!(
        "stage 1: guidance {} (power {}), temperature {}",
        s.discrete_guidance, s.discrete_guidance_pow, s.discrete_temperature
    ));
    let schedule = format!("{:?}", s.guidance_schedule).to_lowercase();
    let clip = s.clip_x0.map_or(String::new(), |c| format!(", tokens clipped at {c}"));
    lines.push(format!(
        "stage 2: {} rounds, {} diffusion steps, guidance {} ({}), temperature {}{clip}",
        s.rounds, s.steps, s.guidance, schedule, s.temperature
    ));
    lines.push(format!("weights: {} used in place, {} copied", bytes(memory.in_place), bytes(memory.copied)));
    lines.push(match arena(args, model, cpu) {
        Ok((own, shared)) => {
            let (batch, threads) = (args.batch, cpu.threads());
            format!(
                "a session of batch {batch} on {threads} threads: {}; all sessions together: {}",
                bytes(own),
                bytes(shared)
            )
        }
        Err(e) => format!("no images: {e}"),
    });
    lines.push(format!("classes: {}", config.classes.join(", ")));
    lines
}

fn json(args: &Args, model: &Model, parts: &[Contents], cpu: &Cpu) -> Value {
    let (config, memory) = (model.config(), model.weight_memory());
    let (arena, shared) = arena(args, model, cpu).ok().unzip();
    let parts: Vec<Value> = parts
        .iter()
        .map(|p| {
            json!({
                "part": p.name, "file": p.file, "tensors": p.tensors, "parameters": p.parameters, "bytes": p.bytes,
                "dtypes": p.dtypes,
            })
        })
        .collect();
    json!({
        "name": config.name,
        "image_size": config.image_size,
        "precision": model.precision().name(),
        "licence": config.licence,
        "attribution": config.attribution,
        "parts": parts,
        "sampling": config.sampling,
        "memory": {
            "weights_in_place": memory.in_place,
            "weights_copied": memory.copied,
            "batch": args.batch,
            "threads": cpu.threads(),
            "arena": arena,
            "shared": shared,
        },
        "classes": config.classes,
    })
}
