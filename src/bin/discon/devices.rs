//! `discon devices`

use crate::common::processor;
use crate::output::line;
use discon::{Cpu, Result};
use serde_json::{Value, json};
use std::process::ExitCode;

/// List what this machine can compute on
///
/// The processor, and the NVIDIA GPUs or why none can be used. `--device` of the other commands takes them by these numbers.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon devices
  discon devices --json")]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A GPU as it is listed.
struct Gpu {
    text: String,
    json: Value,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let cpu = Cpu::new(0)?;
    let gpus = gpus();
    if args.json {
        let (list, none) = match &gpus {
            Ok(gpus) => (gpus.iter().map(|gpu| gpu.json.clone()).collect(), None),
            Err(why) => (vec![], Some(why)),
        };
        let processor = json!({ "name": processor(), "isa": cpu.isa().name(), "threads": cpu.threads() });
        line(&json!({ "cpu": processor, "gpus": list, "no_gpus": none }).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("CPU    {}, {}, {} threads", processor(), cpu.isa(), cpu.threads()))?;
    match gpus {
        Ok(gpus) => gpus.iter().try_for_each(|gpu| line(&gpu.text))?,
        Err(why) => line(&format!("no GPU {why}"))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The GPUs, or in a line why there are none.
#[cfg(not(feature = "cuda"))]
fn gpus() -> Result<Vec<Gpu>, String> {
    Err("this build of discon has no CUDA (feature `cuda`)".to_owned())
}

/// The GPUs, or in a line why there are none.
#[cfg(feature = "cuda")]
fn gpus() -> Result<Vec<Gpu>, String> {
    use crate::common::bytes;
    use discon::cuda::{ComputeCapability, Context, Device};

    let gpu = |device: Device| {
        // A GPU that another process has for itself, or that is full, is listed too.
        let free = Context::primary(&device).and_then(|context| context.memory()).map(|memory| memory.free);
        let capability = device.compute_capability();
        let runs = capability >= ComputeCapability::NEEDED;
        let text = format!(
            "GPU {:<2} {}, compute capability {capability}{}, {} multiprocessors, {} of memory ({}), driver for CUDA {}",
            device.ordinal(),
            device.name(),
            if runs { String::new() } else { format!(" (needed: {})", ComputeCapability::NEEDED) },
            device.multiprocessors(),
            bytes(device.memory()),
            free.as_ref().map_or_else(ToString::to_string, |free| format!("{} free", bytes(*free))),
            device.driver(),
        );
        let json = json!({
            "ordinal": device.ordinal(),
            "name": device.name(),
            "compute_capability": capability.to_string(),
            "enough": runs,
            "multiprocessors": device.multiprocessors(),
            "memory": device.memory(),
            "memory_free": free.ok(),
            "driver_cuda": device.driver().to_string(),
        });
        Gpu { text, json }
    };
    Device::all().map(|devices| devices.into_iter().map(gpu).collect()).map_err(|e| e.to_string())
}
