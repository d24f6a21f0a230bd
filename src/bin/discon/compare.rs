//! `discon compare`

use crate::common::{CpuArgs, batch, within};
use crate::interrupt::Interrupt;
use crate::output::{Png, bar, line};
use crate::sheet::{Sheet, default_scale};
use discon::{Cpu, Error, Image, Model, Outputs, Precision, Result, Session, Settings};
use indicatif::ProgressBar;
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The most pictures beside each other on the sheet.
const COLUMNS: usize = 16;
/// How long a session works between two looks at the user.
const STEP: Duration = Duration::from_millis(50);

/// Measure what bf16 and q8 change in a model's pictures
///
/// Draws the discrete codes of the same classes and seeds in f32 and in each other precision, and tells how many
/// differ; then makes the pictures of f32's codes in each, and tells the peak signal-to-noise ratio against f32's.
/// Image i, counted from 0, is of class i modulo the number of classes: all classes with the first seed, then all with
/// the next.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon compare weights/avatars-64
  discon compare weights/avatars-64 --dtype q8 --count 64 --json
  discon compare weights/avatars-64 --count 16 --out beside.png")]
pub(crate) struct Args {
    /// Model folder: as it was trained, or packed for bf16 (with --dtype bf16)
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// What to hold against f32
    #[arg(long, value_name = "TYPE,...", value_delimiter = ',', default_value = "bf16,q8")]
    dtype: Vec<String>,
    /// Images in all
    #[arg(long, value_name = "N", default_value_t = 256)]
    count: usize,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    cpu: CpuArgs,
    /// Put the first pictures here, a line for each precision, all of a column from the same codes and seed
    #[arg(long, value_name = "FILE.png")]
    out: Option<PathBuf>,
    /// Enlarge each picture of --out so many times; without it what makes small ones readable
    #[arg(long, value_name = "K", requires = "out")]
    scale: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// A precision that is held against f32.
struct Subject {
    precision: Precision,
    /// Stage 1 alone.
    discrete: Session,
    /// Everything else.
    continuous: Session,
    /// The place of each image's first code that differs.
    first: Vec<Option<usize>>,
    /// Codes that differ.
    differ: usize,
    /// dB of each picture.
    psnr: Vec<f64>,
    /// Those for the sheet.
    shown: Vec<Image>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("count", args.count, 100_000)?;
    within("scale", args.scale.unwrap_or(1), 64)?;
    let precisions = precisions(&args.dtype)?;
    let cpu = args.cpu.cpu()?;
    let reference = Model::open_as(&args.folder, Precision::F32)?;
    let settings = reference.settings();
    let batch = batch(&reference, &(&cpu).into(), args.count, &settings, Outputs::IMAGE)?;
    let mut f32 = reference.session(&cpu, batch, &settings, Outputs::IMAGE)?;
    let open = |&precision: &Precision| Subject::open(args, precision, &cpu, batch, &settings);
    let mut subjects = precisions.iter().map(open).collect::<Result<Vec<_>>>()?;
    let (shown, size) = (args.count.min(COLUMNS), reference.image_size());
    let sheet = match &args.out {
        None => None,
        Some(path) => {
            let names = [Precision::F32].iter().chain(&precisions);
            let lines: Vec<_> = names.map(|p| (p.name().to_owned(), shown)).collect();
            let sheet = Sheet::lines(&lines, COLUMNS, size, args.scale.unwrap_or_else(|| default_scale(size)))?;
            Some((sheet, Png::create(path)?))
        }
    };

    let each = |s: &Subject| s.discrete.plan().weight + s.continuous.plan().weight;
    let all = (f32.plan().weight + subjects.iter().map(each).sum::<u64>()) * args.count.div_ceil(batch) as u64;
    let mut work = Work { interrupt: Interrupt::install()?, bar: bar(args.quiet), done: 0, all };
    let classes = reference.config().classes.len().max(1);
    let mut pictures = Vec::new();
    for start in (0..args.count).step_by(batch) {
        // The last batch is filled up with images that do not count.
        let of_class: Vec<usize> = (start..start + batch).map(|i| i % classes).collect();
        let seeds: Vec<u64> = (start..start + batch).map(|i| args.seed.wrapping_add((i / classes) as u64)).collect();
        f32.begin(&of_class, &seeds)?;
        work.finish(&mut f32, "f32")?;
        let (codes, images) = (f32.codes()?, f32.images()?);
        for subject in &mut subjects {
            let name = subject.precision.name();
            subject.discrete.begin(&of_class, &seeds)?;
            work.finish(&mut subject.discrete, name)?;
            subject.continuous.begin_with_codes(&of_class, &seeds, &codes)?;
            work.finish(&mut subject.continuous, name)?;
            subject.add(args.count - start, &codes, &images, shown)?;
        }
        pictures.extend(images.into_iter().take(shown - pictures.len()));
    }
    work.bar.finish_and_clear();
    if let Some((sheet, file)) = sheet {
        let lines = [pictures].into_iter().chain(subjects.iter_mut().map(|s| std::mem::take(&mut s.shown)));
        file.write(&sheet.draw(&lines.flatten().map(Some).collect::<Vec<_>>()))?;
    }
    let places = f32.codes()?.first().map(Vec::len).unwrap_or(0);
    tell(args, &reference, &cpu, &subjects, places)
}

/// The precisions of that names, each once.
fn precisions(names: &[String]) -> Result<Vec<Precision>> {
    let mut all = Vec::new();
    for name in names {
        match Precision::named(name)? {
            Precision::F32 => return Err(Error::setting("dtype", "bf16 or q8, to hold against f32", "`f32`")),
            precision if all.contains(&precision) => {}
            precision => all.push(precision),
        }
    }
    Ok(all)
}

impl Subject {
    fn open(args: &Args, precision: Precision, cpu: &Cpu, batch: usize, settings: &Settings) -> Result<Self> {
        let model = Model::open_as(&args.folder, precision)?;
        let stage1 = Outputs { image: false, ..Outputs::IMAGE };
        let given = Outputs { given_codes: true, ..Outputs::IMAGE };
        Ok(Self {
            precision,
            // First: it tells of a model without discrete tokens.
            continuous: model.session(cpu, batch, settings, given)?,
            discrete: model.session(cpu, batch, settings, stage1)?,
            first: Vec::new(),
            differ: 0,
            psnr: Vec::new(),
            shown: Vec::new(),
        })
    }

    /// Takes in the first `count` images of a finished batch.
    fn add(&mut self, count: usize, codes: &[Vec<u32>], images: &[Image], shown: usize) -> Result<()> {
        for (own, codes) in self.discrete.codes().unwrap_or_default().iter().zip(codes).take(count) {
            let differs = || own.iter().zip(codes).map(|(a, b)| a != b);
            self.first.push(differs().position(|differs| differs));
            self.differ += differs().filter(|&differs| differs).count();
        }
        let own = self.continuous.images()?;
        for (own, image) in own.iter().zip(images).take(count) {
            // Of the same picture the ratio is infinite: taken as that of a single byte that differs by one.
            let most = 10.0 * (255.0 * 255.0 * image.rgb().len() as f64).log10();
            self.psnr.push(own.psnr(image)?.min(most));
        }
        self.shown.extend(own.into_iter().take(shown - self.shown.len()));
        Ok(())
    }
}

/// The work on all images, as the user sees it.
struct Work {
    interrupt: Interrupt,
    bar: ProgressBar,
    done: u64,
    all: u64,
}

impl Work {
    fn finish(&mut self, session: &mut Session, name: &'static str) -> Result<()> {
        let (canceller, weight) = (session.canceller(), session.plan().weight);
        loop {
            if self.interrupt.pressed() {
                canceller.cancel();
            }
            let progress = session.step(STEP).inspect_err(|_| self.bar.finish_and_clear())?;
            let done = self.done as f64 + progress.fraction * weight as f64;
            self.bar.set_position((done / self.all as f64 * 1000.0) as u64);
            self.bar.set_message(format!("{name}, {}", progress.stage));
            if progress.finished {
                self.done += weight;
                return Ok(());
            }
        }
    }
}

/// What was measured, as numbers.
struct Figures {
    /// Share of codes that differ.
    differ: f64,
    /// Share of images all of whose codes are the same.
    same: f64,
    /// Mean place of the first code that differs, in images that have one.
    first: Option<f64>,
    /// Share of codes that differ where all before them are the same.
    alone: f64,
    /// Mean, median, and what 5 % of the pictures are below.
    psnr: [f64; 3],
}

impl Figures {
    fn of(subject: &Subject, places: usize) -> Self {
        let images = subject.first.len() as f64;
        let firsts: Vec<usize> = subject.first.iter().flatten().copied().collect();
        // Codes drawn until one differs, that one too.
        let drawn: usize = subject.first.iter().map(|first| first.map_or(places, |place| place + 1)).sum();
        let mut sorted = subject.psnr.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        Self {
            differ: subject.differ as f64 / (images * places as f64),
            same: 1.0 - firsts.len() as f64 / images,
            first: (!firsts.is_empty()).then(|| firsts.iter().sum::<usize>() as f64 / firsts.len() as f64),
            alone: firsts.len() as f64 / drawn as f64,
            psnr: [sorted.iter().sum::<f64>() / images, at(0.5), at(0.05)],
        }
    }
}

fn tell(args: &Args, model: &Model, cpu: &Cpu, subjects: &[Subject], places: usize) -> Result<ExitCode> {
    let (name, count, isa) = (&model.config().name, args.count, cpu.isa().name());
    let figures = subjects.iter().map(|subject| (subject.precision.name(), Figures::of(subject, places)));
    if args.json {
        let rounded = |x: f64| json!((x * 1e5).round() / 1e5);
        let entry = |(dtype, f): (&str, Figures)| {
            let [mean, median, low] = f.psnr.map(rounded);
            let codes = json!({
                "differ": rounded(f.differ),
                "images_with_none": rounded(f.same),
                "mean_first_place": f.first.map(rounded),
                "differ_after_the_same": rounded(f.alone),
            });
            (dtype.to_owned(), json!({ "codes": codes, "psnr": { "mean": mean, "median": median, "low_5": low } }))
        };
        let dtypes: Map<String, Value> = figures.map(entry).collect();
        let all = json!({
            "model": name,
            "images": count,
            "seed": args.seed,
            "places": places,
            "isa": isa,
            "discon": env!("CARGO_PKG_VERSION"),
            "dtypes": dtypes,
        });
        line(&all.to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    line(&format!("{name}, {count} images of {places} codes, {isa}, against f32"))?;
    for (dtype, f) in figures {
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        let first = f.first.map_or("none".to_owned(), |first| format!("place {first:.1} of {places} on average"));
        let [mean, median, low] = f.psnr;
        let (differ, alone, same) = (percent(f.differ), percent(f.alone), percent(f.same));
        line(&format!("{dtype:<5} codes     {differ} differ; {alone} where all before them are the same"))?;
        line(&format!("      first     {first}; all codes are the same in {same} of images"))?;
        line(&format!("      pictures  PSNR mean {mean:.1} dB, median {median:.1}, 5 % below {low:.1}"))?;
    }
    Ok(ExitCode::SUCCESS)
}
