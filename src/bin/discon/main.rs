//! The `discon` command: pictures from a model, and what one wants to know about a model and this machine.
//!
//! Each subcommand is a file of the same name, over a handful that they share: [`common`] (the model, the processor),
//! [`output`] (files that are whole or not there), [`logger`] (`--verbose`), [`sheet`] (labelled grids of pictures), [`work`] (sessions that
//! make many images), [`interrupt`] (Ctrl-C). All
//! of them use the library as any other program would.
//!
//! Exit codes: 0 done, 1 failed, 2 the command line makes no sense, 130 cancelled. An error is one line on standard
//! error that starts with `discon: error:`.

mod bench;
mod common;
mod compare;
mod devices;
mod generate;
mod inspect;
mod interrupt;
mod logger;
mod output;
mod pack;
mod reconstruct;
mod sample;
mod sheet;
mod synth;
mod verify;
mod work;

use clap::error::ErrorKind as UsageKind;
use clap::{Parser, Subcommand};
use discon::ErrorKind;
use std::process::ExitCode;

/// Class in, picture out: runs DisCon image generators
///
/// A DisCon model draws a class's discrete tokens, takes them as the condition for continuous tokens, and decodes
/// those to pixels. A model is a folder with `discon.json` and the weights of its parts beside it.
#[derive(Debug, Parser)]
#[command(name = "discon", version, propagate_version = true)]
struct Cli {
    /// Tell on standard error what the engine does: models opened, sessions made, requests and their times
    #[arg(long, short, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Args),
    Sample(sample::Args),
    Reconstruct(reconstruct::Args),
    Verify(verify::Args),
    Compare(compare::Args),
    Inspect(inspect::Args),
    Pack(pack::Args),
    Synth(synth::Args),
    Bench(bench::Args),
    Devices(devices::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return usage(&e),
    };
    if cli.verbose {
        logger::install();
    }
    let done = match &cli.command {
        Command::Generate(args) => generate::run(args),
        Command::Sample(args) => sample::run(args),
        Command::Reconstruct(args) => reconstruct::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Pack(args) => pack::run(args),
        Command::Synth(args) => synth::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Devices(args) => devices::run(args),
    };
    done.unwrap_or_else(|e| {
        output::tell(&format!("discon: error: {e}"));
        if e.kind() == ErrorKind::Cancelled { ExitCode::from(interrupt::EXIT_CODE) } else { ExitCode::FAILURE }
    })
}

/// Prints the help that was asked for, or what is wrong with the command line, in one line.
fn usage(e: &clap::Error) -> ExitCode {
    let bare = e.kind() == UsageKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if bare || !e.use_stderr() {
        // Nobody is left to tell if this cannot be written.
        let _ = e.print();
        return ExitCode::from(if bare { 2 } else { 0 });
    }
    let text = e.to_string();
    // What is wrong, then perhaps a hint; the rest is the usage line and a pointer to the help.
    let paragraphs = text.split("\n\n").map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    let told: Vec<_> = paragraphs.filter(|p| !p.starts_with("Usage:") && !p.starts_with("For more")).collect();
    let told = told.join("; ");
    output::tell(&format!("discon: error: {} (see --help)", told.strip_prefix("error: ").unwrap_or(&told)));
    ExitCode::from(2)
}
