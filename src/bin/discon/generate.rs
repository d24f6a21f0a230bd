//! `discon generate`

use crate::common::{DeviceArgs, ModelArgs, SamplingArgs, batch, class_file_names, within};
use crate::output::{Png, scaled};
use crate::sheet::{Sheet, check_alone, default_scale};
use crate::work::{Job, Work};
use discon::{Error, Image, Model, Outputs, Result, Session};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;

/// Stands for every class.
const ALL: &str = "all";
/// The most images of a class.
const MOST_OF_CLASS: usize = 100_000;
/// The most images: one of each class, whatever the model.
const MOST: usize = 1 << 20;
/// The most pictures beside each other.
const COLUMNS: usize = 16;

/// Make images of a class, or of every class
///
/// Image i of a class, counted from 0, has the seed S + i of --seed S, and depends on model, class, seed and
/// settings alone: any image of a grid can be made again by itself; on a GPU but for roundings, which there depend on how
/// many images are made at a time. One image is written as it is, several as a grid with the classes' names.
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
    sampling: SamplingArgs,
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

/// Where finished images go.
enum Target {
    /// One file, written at the end.
    File(Png),
    /// A file an image, each written when it is there.
    Folder(PathBuf),
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("count", args.count, MOST_OF_CLASS)?;
    within("scale", args.scale.unwrap_or(1), 64)?;
    let model = args.model.open()?;
    let mut device = args.device.device(&model)?;
    let settings = args.sampling.settings(&model);
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
    if folder {
        check_alone(model.image_size(), args.scale.unwrap_or(1))?;
    }
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

    let mut work = Work::new(args.quiet, jobs.len(), settings.rounds)?;
    let kept = |kept: bool| vec![None; if kept { jobs.len() } else { 0 }];
    let (mut images, mut previews) = (kept(!folder), kept(args.preview.is_some()));
    let names = class_file_names(&model.config().classes);
    let mut last: Option<Session> = None;
    for start in (0..jobs.len()).step_by(batch) {
        let at = start..jobs.len().min(start + batch);
        let mut session = match last.take().filter(|_| at.len() == batch) {
            Some(session) => session,
            // The first, or the rest that fills no whole batch; its memory is taken after the other's is given back.
            None => args.device.session(&model, &mut device, at.len(), &settings, outputs)?,
        };
        let batch: Vec<Job> = at.clone().map(|i| jobs.at(i)).collect();
        let mut preview = args.preview.as_ref();
        work.make(&mut session, &batch, |session| {
            let (Some(path), Ok(coarse)) = (preview, session.previews()) else { return Ok(()) };
            preview = None;
            previews[at.clone()].iter_mut().zip(coarse).for_each(|(to, image)| *to = Some(image));
            Png::create(path)?.write(&sheet.draw(&previews))
        })?;
        let made = if args.discrete_only { session.previews()? } else { session.images()? };
        for ((i, image), job) in at.zip(made).zip(batch) {
            match &target {
                Target::Folder(dir) => {
                    let path = dir.join(format!("{}-{}.png", names[job.class], job.seed));
                    Png::create(&path)?.write(&scaled(&image, args.scale.unwrap_or(1)))?;
                }
                Target::File(_) => images[i] = Some(image),
            }
        }
        last = Some(session);
    }
    work.clear();
    if let Target::File(file) = target {
        file.write(&sheet.draw(&images))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    fn jobs(&self, model: &Model) -> Result<Jobs> {
        let classes = match self.class.as_str() {
            ALL => 0..model.config().classes.len(),
            name => model.class(name).map(|class| class..class + 1)?,
        };
        if classes.len().saturating_mul(self.count) > MOST {
            let expected =
                format!("at most {MOST} images, {} of each of {} classes", MOST / classes.len(), classes.len());
            return Err(Error::setting("count", expected, self.count));
        }
        Ok(Jobs { classes, count: self.count, seed: self.seed })
    }
}

/// The images to make, class by class.
struct Jobs {
    classes: Range<usize>,
    /// Of each class.
    count: usize,
    seed: u64,
}

impl Jobs {
    fn len(&self) -> usize {
        self.classes.len() * self.count
    }

    fn at(&self, i: usize) -> Job {
        Job { class: self.classes.start + i / self.count, seed: self.seed.wrapping_add((i % self.count) as u64) }
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
    fn new(args: &Args, model: &Model, jobs: &Jobs, none: bool) -> Result<Self> {
        if none {
            return Ok(Self::None);
        }
        if jobs.len() == 1 {
            let scale = args.scale.unwrap_or(1);
            return check_alone(model.image_size(), scale).map(|()| Self::One(scale));
        }
        let (size, square) = (model.image_size(), ceil_sqrt(jobs.len()));
        let scale = args.scale.unwrap_or_else(|| default_scale(size));
        let name = |class: usize| model.config().classes.get(class).cloned().unwrap_or_default();
        let names = jobs.classes.clone().map(name);
        let sheet = if jobs.count == 1 {
            let names: Vec<String> = names.collect();
            Sheet::captioned(&names, square, size, scale)?
        } else {
            let lines: Vec<_> = names.map(|name| (name, jobs.count)).collect();
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
