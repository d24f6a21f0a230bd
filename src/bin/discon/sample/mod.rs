//! `discon sample`
//!
//! [`task`] says which images are meant and of what; [`spool`] and [`folder`] are where they go, [`npz`] is the file that evaluations
//! read, [`held`] keeps two processes from the same files.

mod folder;
mod held;
mod npz;
mod spool;
mod task;

use crate::common::{DeviceArgs, ModelArgs, SamplingArgs, batch, class_file_names, within};
use crate::output::line;
use crate::work::{Job, Work};
use discon::{Device, Error, Image, Model, Outputs, Result, Session, Settings};
use folder::Folder;
use npz::Npz;
use spool::Spool;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use task::{MOST, Shard, Task, What};

/// The most images at a time.
const MOST_AT_ONCE: usize = 4096;

/// The options that say which images to make, and how.
const MAKING: &[&str] = &[
    "out",
    "count",
    "classes",
    "seed",
    "shard",
    "batch",
    "what",
    "model",
    "dtype",
    "rounds",
    "steps",
    "guidance",
    "discrete_guidance",
    "temperature",
    "discrete_temperature",
    "device",
    "threads",
    "isa",
    #[cfg(feature = "cuda")]
    "kernels",
    #[cfg(feature = "cuda")]
    "no_wgmma",
];

/// Make many images, for evaluations
///
/// Image i, counted from 0, is of class C[i mod M] of the M classes of --classes, and has the seed S + i div M of --seed S: classes
/// take turns, and the images of a class have the seeds S, S + 1, ... as those of `discon generate --class C --seed S`, which
/// makes the same pictures. So the images are the same for any --shard, --batch and --threads.
///
/// On a GPU but for roundings, which there depend on --batch too: one task has one batch, and shards of another are not joined.
/// --shard, and to go on after a stop, still change no byte; batches are made whole for that, and what is there already or of
/// another shard is not kept.
///
/// Where it was stopped, the same command goes on; with other settings or another model it refuses to. Shards of a folder
/// write to the same one; those of an .npz to files of their own, named as FILE.1-of-4.npz for FILE.npz, which --join
/// makes one of: of the same bytes as if there had been no shards.
#[derive(Debug, clap::Args)]
#[command(
    group(clap::ArgGroup::new("target").required(true).args(["npz", "out"])),
    after_long_help = "Examples:
  discon sample --count 50000 --npz samples.npz
  discon sample --count 1000 --classes micah,lorelei --seed 100 --out samples/
  discon sample --count 50000 --npz samples.npz --shard 2/4
  discon sample --join samples.1-of-4.npz samples.2-of-4.npz samples.3-of-4.npz samples.4-of-4.npz --npz samples.npz"
)]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Images in all
    #[arg(long, value_name = "N", required_unless_present = "join")]
    count: Option<usize>,
    /// Classes that take turns: `balanced` for all, or names or numbers (those that have a comma in their names by number)
    #[arg(long, value_name = "balanced|NAME,...", default_value = "balanced")]
    classes: String,
    /// Seed of the first image of each class; the next have the next seeds
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// Write an .npz as the evaluation suite of ADM reads it: `arr_0`, u8 images [N, H, W, 3], and `arr_1`, i64 class
    /// numbers [N]
    ///
    /// Until all images are there they lie in FILE.npz.partial, and in FILE.npz.unfinished too while it becomes FILE.npz.
    #[arg(long, value_name = "FILE.npz")]
    npz: Option<PathBuf>,
    /// Write DIR/CLASS/NUMBER.png, where the number is that of the image among all
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Make this part of the images only, as 1/4 for the first of four
    ///
    /// Shard I of N makes the images from (I - 1) COUNT div N on, those from I COUNT div N on no longer.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Images at a time; without it as many as are fast and do not take much memory
    #[arg(long, value_name = "B")]
    batch: Option<usize>,
    /// What to write: the image, or what the discrete tokens' own decoder makes of stage 1
    #[arg(long, value_name = "image|discrete", default_value = "image")]
    what: What,
    /// Put the .npz of all shards, in any order, together in --npz
    #[arg(long, value_name = "SHARD.npz", num_args = 1.., conflicts_with_all = MAKING)]
    join: Vec<PathBuf>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match &args.npz {
        Some(npz) if !args.join.is_empty() => join(args, npz),
        _ => make(args),
    }
}

/// Where images go.
enum Target {
    Spool(Spool),
    Folder(Folder),
    /// All of them are there.
    Whole,
}

fn make(args: &Args) -> Result<ExitCode> {
    let count = args.count.unwrap_or(0);
    within("count", count, MOST)?;
    within("batch", args.batch.unwrap_or(1), MOST_AT_ONCE)?;
    let folder = args.model.folder()?;
    let model = args.model.open()?;
    let mut device = args.device.device(&model)?;
    let settings = args.sampling.settings(&model);
    let outputs = match args.what {
        What::Image => Outputs::IMAGE,
        What::Discrete => Outputs::DISCRETE_ONLY,
    };
    let task = Task::new((&model, &folder), args.what, &settings, &args.classes, count, args.seed, args.shard)?;
    let images = task.range().len();
    // All shards have the same batches where that decides the bytes.
    let among = if matches!(device, Device::Cpu(_)) { images } else { count };
    let at_once = match args.batch {
        Some(batch) => batch.min(among),
        None => batch(&model, &device, among, &settings, outputs)?,
    };
    // It may yet change the device.
    let session = args.device.session(&model, &mut device, at_once, &settings, outputs)?;
    let task = task.on(&device, at_once, args.device.kernels())?;
    let (path, mut target) = open(args, &model, &task)?;
    let missing: Vec<usize> = match &target {
        Target::Whole => Vec::new(),
        Target::Spool(spool) => task.range().skip(spool.done()).collect(),
        Target::Folder(folder) => folder.missing(),
    };

    let batches = || task.batches(&missing, at_once);
    let mut work = Work::new(args.quiet, batches().map(|(all, _)| all.len()).sum(), settings.rounds)?;
    let start = Instant::now();
    let mut maker =
        Maker { model: &model, device: &device, settings: &settings, outputs, session: Some((at_once, session)) };
    for (all, wanted) in batches() {
        let jobs: Vec<Job> = all.iter().map(|&i| task.job(i)).collect();
        for (i, image) in all.into_iter().zip(maker.make(&mut work, &jobs)?) {
            if wanted.binary_search(&i).is_err() {
                continue;
            }
            check_size(&image, task.size)?;
            match &mut target {
                Target::Spool(spool) => spool.put(&image)?,
                Target::Folder(folder) => folder.put(i, &image)?,
                Target::Whole => {}
            }
        }
    }
    match target {
        Target::Spool(spool) => {
            work.begin(images, "writing");
            spool.finish(|| work.advance())?;
        }
        Target::Folder(folder) => folder.finish()?,
        Target::Whole => {}
    }
    work.clear();
    line(&told(missing.len(), images, start.elapsed().as_secs_f64(), &path))?;
    Ok(ExitCode::SUCCESS)
}

/// The place where the images go, and what of them is there.
fn open(args: &Args, model: &Model, task: &Task) -> Result<(PathBuf, Target)> {
    match (&args.npz, &args.out) {
        (Some(npz), _) => {
            npz::check_name(npz)?;
            npz::comment(task)?;
            let path = match task.shard {
                Some(Shard { number, of }) => npz.with_extension(format!("{number}-of-{of}.npz")),
                None => npz.clone(),
            };
            let target = Spool::open(&path, task)?.map_or(Target::Whole, Target::Spool);
            Ok((path, target))
        }
        (None, out) => {
            let dir = out.clone().unwrap_or_default();
            let target = Target::Folder(Folder::open(&dir, task, class_file_names(&model.config().classes))?);
            Ok((dir, target))
        }
    }
}

/// What makes batches: on one device, whatever their size.
struct Maker<'a> {
    model: &'a Model,
    device: &'a Device,
    settings: &'a Settings,
    outputs: Outputs,
    /// And how many images it makes.
    session: Option<(usize, Session)>,
}

impl Maker<'_> {
    fn make(&mut self, work: &mut Work, jobs: &[Job]) -> Result<Vec<Image>> {
        let mut session = match self.session.take().filter(|(batch, _)| *batch == jobs.len()) {
            Some((_, session)) => session,
            // The rest that fills no whole batch; its memory is taken after the other's is given back.
            None => self.model.session(self.device, jobs.len(), self.settings, self.outputs)?,
        };
        work.make(&mut session, jobs, |_| Ok(()))?;
        let images = if self.outputs.image { session.images() } else { session.previews() };
        self.session = Some((jobs.len(), session));
        images
    }
}

/// The file has room for images of the model's size.
fn check_size(image: &Image, size: usize) -> Result<()> {
    if (image.width(), image.height()) == (size, size) {
        return Ok(());
    }
    let found = format!("{} x {}", image.width(), image.height());
    Err(Error::input("image", format!("{size} x {size} pixels, as the model's config says"), found))
}

fn told(made: usize, images: usize, seconds: f64, path: &Path) -> String {
    let path = path.display();
    match images - made {
        there if made == 0 => format!("{there} images were there: {path}"),
        0 => format!("{images} images in {seconds:.1} s, {:.1} images/s: {path}", made as f64 / seconds),
        there => {
            let speed = made as f64 / seconds;
            format!("{made} images in {seconds:.1} s, {speed:.1} images/s, after {there} that were there: {path}")
        }
    }
}

/// Puts shards together.
fn join(args: &Args, npz: &Path) -> Result<ExitCode> {
    npz::check_name(npz)?;
    let mut shards = Vec::new();
    for path in &args.join {
        // One at a time: there may be more than a process may have open.
        let task = Npz::open(path)?.task;
        let Some(shard) = task.shard else {
            return Err(Error::input(path.display().to_string(), "a shard", "all images of a task"));
        };
        shards.push((shard.number, path, task));
    }
    shards.sort_by_key(|(number, ..)| *number);
    let (_, _, first) = &shards[0];
    let (whole, of) = (first.whole(), first.shard.map_or(1, |shard| shard.of));
    for (_, path, task) in &shards {
        whole.check(&task.whole(), path)?;
        if task.shard.is_some_and(|shard| shard.of != of) {
            let found = task.shard.map_or(0, |shard| shard.of);
            return Err(Error::input(
                path.display().to_string(),
                format!("a shard of {of}"),
                format!("one of {found}"),
            ));
        }
    }
    if let Some(pair) = shards.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        let found = format!("{} and {}", pair[0].1.display(), pair[1].1.display());
        return Err(Error::input(format!("shard {} of {of}", pair[0].0), "one file", found));
    }
    if let Some(number) = (1..=of).find(|number| shards.binary_search_by_key(number, |(number, ..)| *number).is_err()) {
        return Err(Error::input(format!("shard {number} of {of}"), "a file", "none"));
    }
    let mut work = Work::new(args.quiet, whole.count, 0)?;
    if !npz::is_there(npz, &whole)? {
        work.begin(whole.count, "writing");
        npz::write(npz, &whole, |write| {
            for (_, path, _) in &shards {
                Npz::open(path)?.read(|image| {
                    write(image)?;
                    work.advance()
                })?;
            }
            Ok(())
        })?;
        work.clear();
    }
    line(&format!("{} images of {of} shards: {}", whole.count, npz.display()))?;
    Ok(ExitCode::SUCCESS)
}
