//! `discon generate`

use crate::common::{DeviceArgs, ModelArgs, SettingArgs, batch, within};
use crate::interrupt::Interrupt;
use crate::output::{Png, bar, scaled};
use crate::sheet::{Sheet, default_scale};
use discon::plan::Stage;
use discon::{Error, Image, Model, Outputs, Progress, Result, Session, Settings};
use indicatif::ProgressBar;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Stands for every class.
const ALL: &str = "all";
/// The most pictures beside each other.
const COLUMNS: usize = 16;
/// How long a session works between two looks at the user.
const STEP: Duration = Duration::from_millis(50);

/// Make images of a class, or of every class
///
/// Image i of a class, counted from 0, has the seed S + i of --seed S, and depends on model, class, seed and
/// settings alone: any image of a grid can be made again by itself. One image is written as it is, several as a grid
/// with the classes' names.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon generate --class micah --out micah.png
  discon generate --class all --count 8 --seed 100 --out grid.png
  discon generate --class 3 --count 50 --out pictures/
  discon generate --class lorelei --rounds 16 --guidance 2.5 --preview coarse.png --out lorelei.png")]
pub(crate) struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The class: its name or number, or `all`
    #[arg(long, value_name = "NAME|ID|all")]
    class: String,
    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 1)]
    count: usize,
    /// Seed of the first image of each class; the next have the next seeds
    #[arg(long, value_name = "S", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    sampling: SettingArgs,
    /// Guidance of stage 2, the continuous tokens; 1 is none
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    guidance: Option<f64>,
    /// Guidance of stage 1, the discrete tokens; 1 is none
    #[arg(long, value_name = "G", allow_negative_numbers = true)]
    discrete_guidance: Option<f64>,
    /// Factor of the noise of stage 2
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f64>,
    /// Temperature of stage 1
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    discrete_temperature: Option<f64>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Where to: a .png file, or a folder (one that exists, or a name that ends in `/`) for a file an image, named
    /// CLASS-SEED.png
    #[arg(long, value_name = "FILE.png|DIR/")]
    out: PathBuf,
    /// Enlarge each image so many times; without it 1, on grids what makes small images readable
    #[arg(long, value_name = "K")]
    scale: Option<usize>,
    /// Stop after stage 1 and show what the discrete tokens' own decoder makes of it
    #[arg(long)]
    discrete_only: bool,
    /// Write here what the discrete tokens' own decoder makes of stage 1, before stage 2 begins
    #[arg(long, value_name = "FILE.png", conflicts_with = "discrete_only")]
    preview: Option<PathBuf>,
    /// No progress bar
    #[arg(long, short)]
    quiet: bool,
}

/// One image to make.
#[derive(Debug, Clone, Copy)]
struct Job {
    class: usize,
    seed: u64,
}

/// Where finished images go.
enum Target {
    /// One file, written at the end.
    File(Png),
    /// A file an image, each written when it is there.
    Folder(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("count", args.count, 100_000)?;
    within("scale", args.scale.unwrap_or(1), 64)?;
    let model = args.model.open()?;
    let mut device = args.device.device(&model)?;
    let settings = args.settings(&model);
    let jobs = args.jobs(&model)?;
    let outputs = match (args.discrete_only, &args.preview) {
        (true, _) => Outputs::DISCRETE_ONLY,
        (false, Some(_)) => Outputs::IMAGE_AND_PREVIEW,
        (false, None) => Outputs::IMAGE,
    };
    // Everything that can be wrong with the request is found before the work.
    let batch = batch(&model, &device, jobs.len(), &settings, outputs)?;
    let folder =
        args.out.is_dir() || args.out.as_os_str().to_string_lossy().ends_with(['/', std::path::MAIN_SEPARATOR]);
    let sheet = Layout::new(args, &model, &jobs, folder && args.preview.is_none())?;
    if let Some(path) = &args.preview {
        Png::create(path)?;
    }
    let target = if folder {
        fs::create_dir_all(&args.out).map_err(|e| Error::io(&args.out, e))?;
        Target::Folder(args.out.clone())
    } else {
        Target::File(Png::create(&args.out)?)
    };

    let mut work =
        Work { interrupt: Interrupt::install()?, bar: bar(args.quiet), done: 0, all: jobs.len(), settings: &settings };
    let (mut images, mut previews) = (vec![None; jobs.len()], vec![None; jobs.len()]);
    let mut session: Option<Session> = None;
    for (i, jobs) in jobs.chunks(batch).enumerate() {
        let at = i * batch..i * batch + jobs.len();
        let session = match &mut session {
            Some(session) if jobs.len() == batch => session,
            // The first, or the rest that fills no whole batch.
            other => other.insert(args.device.session(&model, &mut device, jobs.len(), &settings, outputs)?),
        };
        work.make(session, jobs, |coarse| {
            let Some(path) = &args.preview else { return Ok(()) };
            previews[at.clone()].iter_mut().zip(coarse).for_each(|(to, image)| *to = Some(image));
            Png::create(path)?.write(&sheet.draw(&previews))
        })?;
        let made = if args.discrete_only { session.previews()? } else { session.images()? };
        for ((to, image), job) in images[at].iter_mut().zip(made).zip(jobs) {
            match &target {
                Target::Folder(dir) => {
                    let path = dir.join(format!("{}-{}.png", file_name(&model, job.class), job.seed));
                    Png::create(&path)?.write(&scaled(&image, args.scale.unwrap_or(1)))?;
                }
                Target::File(_) => *to = Some(image),
            }
        }
    }
    work.bar.finish_and_clear();
    if let Target::File(file) = target {
        file.write(&sheet.draw(&images))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn settings(&self, model: &Model) -> Settings {
        let mut settings = model.settings();
        self.sampling.apply(&mut settings);
        settings.guidance = self.guidance.unwrap_or(settings.guidance);
        settings.discrete_guidance = self.discrete_guidance.unwrap_or(settings.discrete_guidance);
        settings.temperature = self.temperature.unwrap_or(settings.temperature);
        settings.discrete_temperature = self.discrete_temperature.unwrap_or(settings.discrete_temperature);
        settings
    }

    /// The images to make, class by class.
    fn jobs(&self, model: &Model) -> Result<Vec<Job>> {
        let classes = match self.class.as_str() {
            ALL => (0..model.config().classes.len()).collect(),
            name => vec![model.class(name)?],
        };
        let seeds = (0..self.count as u64).map(|i| self.seed.wrapping_add(i));
        Ok(classes.into_iter().flat_map(|class| seeds.clone().map(move |seed| Job { class, seed })).collect())
    }
}

/// How the one file that shows all images looks.
enum Layout {
    One(usize),
    Sheet(Sheet),
    /// There is no such file.
    None,
}

impl Layout {
    fn new(args: &Args, model: &Model, jobs: &[Job], none: bool) -> Result<Self> {
        if none {
            return Ok(Self::None);
        }
        if jobs.len() == 1 {
            return Ok(Self::One(args.scale.unwrap_or(1)));
        }
        let (size, square) = (model.image_size(), ceil_sqrt(jobs.len()));
        let scale = args.scale.unwrap_or_else(|| default_scale(size));
        let name = |class: usize| model.config().classes.get(class).cloned().unwrap_or_default();
        let sheet = if args.count == 1 {
            let names: Vec<String> = jobs.iter().map(|job| name(job.class)).collect();
            Sheet::captioned(&names, square, size, scale)?
        } else {
            let lines: Vec<_> = jobs.chunks(args.count).map(|jobs| (name(jobs[0].class), jobs.len())).collect();
            Sheet::lines(&lines, if lines.len() == 1 { square } else { COLUMNS }, size, scale)?
        };
        Ok(Self::Sheet(sheet))
    }

    fn draw(&self, images: &[Option<Image>]) -> image::RgbImage {
        match (self, images) {
            (Self::One(scale), [Some(image)]) => scaled(image, *scale),
            (Self::Sheet(sheet), _) => sheet.draw(images),
            _ => image::RgbImage::default(),
        }
    }
}

fn ceil_sqrt(n: usize) -> usize {
    n.isqrt() + usize::from(n.isqrt().pow(2) < n)
}

/// A class's name as a file can bear it: names come from the model, and some would lead to other folders.
fn file_name(model: &Model, class: usize) -> String {
    let name = model.config().classes.get(class).map_or("", String::as_str);
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | ',');
    if !name.is_empty() && name.chars().all(fits) && name.len() <= 100 {
        return name.to_owned();
    }
    let kept: String = name.chars().take(24).map(|c| if fits(c) { c } else { '_' }).collect();
    format!("{kept}_{class}")
}

/// The work on all images, as the user sees it.
struct Work<'a> {
    interrupt: Interrupt,
    bar: ProgressBar,
    done: usize,
    all: usize,
    settings: &'a Settings,
}

impl Work<'_> {
    /// Makes one batch; `coarse` gets the pictures of stage 1 as soon as they are there.
    fn make(
        &mut self,
        session: &mut Session,
        jobs: &[Job],
        coarse: impl FnOnce(Vec<Image>) -> Result<()>,
    ) -> Result<()> {
        let (classes, seeds): (Vec<usize>, Vec<u64>) = jobs.iter().map(|job| (job.class, job.seed)).unzip();
        session.begin(&classes, &seeds)?;
        let (canceller, mut coarse) = (session.canceller(), Some(coarse));
        loop {
            if self.interrupt.pressed() {
                canceller.cancel();
            }
            let progress = session.step(STEP).inspect_err(|_| self.bar.finish_and_clear())?;
            self.show(&progress, jobs.len());
            if coarse.is_some()
                && let Ok(previews) = session.previews()
            {
                coarse.take().map_or(Ok(()), |coarse| coarse(previews))?;
            }
            if progress.finished {
                self.done += jobs.len();
                return Ok(());
            }
        }
    }

    fn show(&self, progress: &Progress, batch: usize) {
        let share = (self.done as f64 + progress.fraction * batch as f64) / self.all as f64;
        self.bar.set_position((share * 1000.0) as u64);
        self.bar.set_message(match progress.stage {
            Stage::Prepare => "preparing".to_owned(),
            Stage::Encode => "encoding".to_owned(),
            Stage::Discrete => format!("stage 1, code {}", progress.index),
            Stage::Preview => "coarse picture".to_owned(),
            Stage::Condition | Stage::Head => format!("stage 2, round {}/{}", progress.index + 1, self.settings.rounds),
            Stage::Decode => "stage 3, pixels".to_owned(),
        });
    }
}
