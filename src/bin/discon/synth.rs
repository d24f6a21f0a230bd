//! `discon synth`

use crate::common::{bytes, is_model};
use crate::interrupt::clean_up_and_exit;
use discon::tensor::DType;
use discon::weights::{DISCON_FILE, RAR_FILE, SynthSize, VAE_FILE, VQ_FILE, synth};
use discon::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a model of random weights at a published size
///
/// It makes noise, not pictures: it is for measuring speed and for tests. The same size and seed give the same weights.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon synth --size tiny --out /tmp/tiny
  discon synth --size b --dtype bf16 --out /tmp/b")]
pub(crate) struct Args {
    /// tiny (32x32 pixels), b or l (256x256 pixels, as RAR-B and MAR-B, RAR-L and MAR-L)
    #[arg(long, value_name = "tiny|b|l")]
    size: String,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Element type of the weights: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: String,
    /// Seed of the weights
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    /// Write over a model that is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let (size, dtype) = (size(&args.size)?, dtype(&args.dtype)?);
    if is_model(&args.out) && !args.force {
        let expected = "a folder without a model, or --force to write over it";
        return Err(Error::input("out", expected, format!("a model at {}", args.out.display())));
    }
    let partial = |file| args.out.join(format!("{file}.partial"));
    clean_up_and_exit([RAR_FILE, DISCON_FILE, VAE_FILE, VQ_FILE].map(partial).into())?;
    write(size, &args.out, dtype, args.seed)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the model with a progress bar.
pub(crate) fn write(size: SynthSize, dir: &Path, dtype: DType, seed: u64) -> Result<()> {
    let style = ProgressStyle::with_template("{msg} [{bar:32}] {percent:>3}%  {eta} left");
    let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let written = synth(size, dir, dtype, seed, &mut |done, all| {
        if bar.length() != Some(all) {
            bar.set_length(all);
            bar.set_message(format!("writing {}", bytes(all)));
        }
        bar.set_position(done);
    });
    bar.finish_and_clear();
    written
}

/// The size of that name.
pub(crate) fn size(name: &str) -> Result<SynthSize> {
    let known = || SynthSize::ALL.map(SynthSize::name).join(", ");
    SynthSize::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| Error::setting("size", known(), name))
}

/// The element type of that name.
pub(crate) fn dtype(name: &str) -> Result<DType> {
    let known = [DType::F32, DType::F16, DType::BF16];
    known.into_iter().find(|d| d.name() == name).ok_or_else(|| Error::setting("dtype", "f32, f16 or bf16", name))
}
