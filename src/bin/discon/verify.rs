//! `discon verify`

use crate::common::{DeviceArgs, PrecisionArgs};
use crate::output::{line, tell};
use discon::verify::{CaseReport, verify};
use discon::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Hold a model folder against its known answers
///
/// Runs every case in the folder's `cases/` and prints a line each: name, relative error, bound, ok or FAIL. Exits 1
/// if any fails, or if there are none.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon verify weights/avatars-64
  discon verify weights/avatars-64 --isa scalar --tolerance-report")]
pub(crate) struct Args {
    /// Model folder with cases
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    precision: PrecisionArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tell also how much of each bound is used, the largest absolute difference, and the worst case of each kind
    #[arg(long)]
    tolerance_report: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let mut written = Ok(());
    let model = args.precision.open(&args.folder)?;
    let device = args.device.device(&model)?;
    let cases = verify(&model, &args.folder, &device, &mut |case| {
        if written.is_ok() {
            written = line(&describe(case, args.tolerance_report));
        }
    })?;
    written?;
    if args.tolerance_report {
        report(&cases)?;
    }
    let passed = cases.iter().filter(|case| case.passed()).count();
    line(&format!("{passed} passed, {} failed", cases.len() - passed))?;
    if cases.is_empty() {
        let folder = args.folder.display();
        tell(&format!("discon: error: {}", Error::input("cases", format!("some in {folder}/cases"), "none")));
    }
    Ok(if passed == cases.len() && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn describe(case: &CaseReport, long: bool) -> String {
    let verdict = if case.passed() { "ok" } else { "FAIL" };
    let mut text = format!("{:<28} error {:>9.2e}  bound {:>8.1e}  {verdict}", case.name, case.error, case.bound);
    if long {
        text += &format!("  {:>6.1}% used  largest difference {:.2e}", used(case), case.worst);
    }
    if let Some(reason) = &case.failure {
        text += &format!("  {reason}");
    }
    text
}

/// Percent of the bound. Whole numbers have a bound of 0, of which no error uses nothing.
fn used(case: &CaseReport) -> f64 {
    if case.error == 0.0 { 0.0 } else { 100.0 * case.error / case.bound }
}

/// The case of each kind that uses most of its bound; one that could not be computed uses more than any.
fn report(cases: &[CaseReport]) -> Result<()> {
    let rank = |case: &CaseReport| if used(case).is_nan() { f64::INFINITY } else { used(case) };
    let mut kinds: Vec<&str> = cases.iter().map(|case| case.kind.as_str()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of_kind = cases.iter().filter(|case| case.kind == kind);
        if let Some(worst) = of_kind.max_by(|a, b| rank(a).total_cmp(&rank(b))) {
            line(&format!("worst {kind}: {} at {:.1}% of its bound", worst.name, used(worst)))?;
        }
    }
    Ok(())
}
