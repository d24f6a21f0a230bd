//! `discon pack`

use crate::common::{bytes, is_model};
use crate::interrupt::clean_up_and_exit;
use crate::output::line;
use discon::weights::{DISCON_FILE, RAR_FILE, VAE_FILE, VQ_FILE};
use discon::{Error, Precision, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Rewrite a model for this engine: opened at once, used where it lies
///
/// Writes a folder whose matrices lie in the order in which the kernels read them, so that opening it maps the files
/// and copies nothing. f32 keeps the numbers as they are; bf16 and q8 round them: smaller, faster, less exact (see
/// docs/performance.md).
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon pack weights/avatars-64
  discon pack weights/avatars-64 --dtype q8 --out avatars-q8")]
pub(crate) struct Args {
    /// Model folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What matrix products will be computed in: f32, bf16 or q8 (8-bit integers)
    #[arg(long, value_name = "TYPE", default_value = "f32")]
    dtype: String,
    /// The folder to write; without it DIR-TYPE
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write over a model that is there
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let precision = Precision::named(&args.dtype)?;
    let beside = || {
        let mut name = args.folder.components().as_path().as_os_str().to_owned();
        name.push(format!("-{precision}"));
        PathBuf::from(name)
    };
    let out = args.out.clone().unwrap_or_else(beside);
    if is_model(&out) && !args.force {
        let expected = "a folder without a model, or --force to write over it";
        return Err(Error::input("out", expected, format!("a model at {}", out.display())));
    }
    let partial = |file| out.join(format!("{file}.partial"));
    clean_up_and_exit([RAR_FILE, DISCON_FILE, VAE_FILE, VQ_FILE].map(partial).into())?;
    let mut told = Ok(());
    discon::pack(&args.folder, &out, precision, &mut |file, n| {
        if told.is_ok() {
            told = line(&format!("{file:<20} {:>10}", bytes(n)));
        }
    })?;
    told?;
    line(&format!("packed for {precision}: {}", out.display()))?;
    Ok(ExitCode::SUCCESS)
}
