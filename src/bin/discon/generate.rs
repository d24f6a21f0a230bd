//! `discon generate`

use crate::common::{DeviceArgs, ModelArgs, SamplingArgs, batch, class_file_name, within};
use crate::output::{Png, scaled};
use crate::sheet::{Sheet, default_scale};
use crate::work::{Job, Work};
use discon::{Error, Image, Model, Outputs, Result, Session};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Stands for every class.
const ALL: &str = "all";
/// The most pictures beside each other.
const COLUMNS: usize = 16;

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
    within("count", args.count, 100_000)?;
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
    let (mut images, mut previews) = (vec![None; jobs.len()], vec![None; jobs.len()]);
    let mut session: Option<Session> = None;
    for (i, jobs) in jobs.chunks(batch).enumerate() {
        let at = i * batch..i * batch + jobs.len();
        let session = match &mut session {
            Some(session) if jobs.len() == batch => session,
            // The first, or the rest that fills no whole batch.
            other => other.insert(args.device.session(&model, &mut device, jobs.len(), &settings, outputs)?),
        };
        let mut preview = args.preview.as_ref();
        work.make(session, jobs, |session| {
            let (Some(path), Ok(coarse)) = (preview, session.previews()) else { return Ok(()) };
            preview = None;
            previews[at.clone()].iter_mut().zip(coarse).for_each(|(to, image)| *to = Some(image));
            Png::create(path)?.write(&sheet.draw(&previews))
        })?;
        let made = if args.discrete_only { session.previews()? } else { session.images()? };
        for ((to, image), job) in images[at].iter_mut().zip(made).zip(jobs) {
            match &target {
                Target::Folder(dir) => {
                    let path = dir.join(format!("{}-{}.png", class_file_name(&model, job.class), job.seed));
                    Png::create(&path)?.write(&scaled(&image, args.scale.unwrap_or(1)))?;
                }
                Target::File(_) => *to = Some(image),
            }
        }
    }
    work.clear();
    if let Target::File(file) = target {
        file.write(&sheet.draw(&images))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
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
