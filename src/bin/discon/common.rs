//! Options that several subcommands have.

use crate::output::tell;
use clap::Args;
use discon::{Cpu, Device, Error, Model, Outputs, Precision, Result, Session, Settings};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The model that is found without being told.
const DEFAULT_MODEL: &str = "weights/avatars-64";
/// Names another, for all commands of a shell.
const MODEL_VARIABLE: &str = "DISCON_MODEL";
/// Names another device than the first GPU.
const DEVICE_VARIABLE: &str = "DISCON_DEVICE";
/// The most images a session makes at a time.
const AT_ONCE: usize = 16;
/// Sessions that need more memory than this make fewer images at a time.
const ARENA_BYTES: u64 = 2 << 30;
/// What makes a folder a model.
const CONFIG: &str = discon::weights::CONFIG_FILE;

/// The processor.
#[derive(Debug, Args)]
pub(crate) struct CpuArgs {
    /// Threads to compute with; 0 is one a core
    ///
    /// The pictures are the same, bit for bit, for any number.
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Instruction set, as scalar, avx2, avx512 or neon (a wrong one lists all that there are); without it the best that
    /// this processor has
    #[arg(long, value_name = "NAME")]
    isa: Option<String>,
}

impl CpuArgs {
    fn is_given(&self) -> bool {
        self.threads != 0 || self.isa.is_some()
    }

    pub(crate) fn cpu(&self) -> Result<Cpu> {
        let cpu = Cpu::new(self.threads)?;
        match &self.isa {
            Some(name) => cpu.with_isa(name),
            None => Ok(cpu),
        }
    }
}

/// What to compute on.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What to compute on: cpu, cuda (the first NVIDIA GPU), cuda:N, or auto
    ///
    /// auto takes the first GPU that this build of discon, its driver, its memory and the model allow, and else says in a
    /// line why not and takes the processor; it takes the processor also where --threads or --isa is given. `discon
    /// devices` lists what there is. The pictures of a GPU differ from those of the processor by roundings, and among
    /// themselves with the number of images that are made at a time.
    ///
    /// Without it what the environment variable DISCON_DEVICE says, else auto.
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Take GPU kernels from DIR/*.ptx in the place of this program's own of the same names
    #[cfg(feature = "cuda")]
    #[arg(long, value_name = "DIR")]
    kernels: Option<PathBuf>,
    /// On a Hopper GPU: leave large products to the kernels that all GPUs have, and its own (wgmma) aside
    #[cfg(feature = "cuda")]
    #[arg(long)]
    no_wgmma: bool,
    #[command(flatten)]
    cpu: CpuArgs,
}

impl DeviceArgs {
    /// The device for a model.
    pub(crate) fn device(&self, model: &Model) -> Result<Device> {
        let device = self.name();
        let ordinal = match device.as_str() {
            "cpu" => return self.cpu.cpu().map(Device::from),
            "auto" => None,
            "cuda" => Some(0),
            name => match name.strip_prefix("cuda:").and_then(|n| n.parse().ok()) {
                Some(ordinal) => Some(ordinal),
                None => return Err(Error::setting("device", "auto, cpu, cuda or cuda:N", format!("`{name}`"))),
            },
        };
        match ordinal {
            Some(ordinal) => self.gpu(ordinal),
            None => match self.first_gpu(model) {
                Some(Ok(gpu)) => Ok(gpu),
                Some(Err(why)) => self.instead(&why),
                None => self.cpu.cpu().map(Device::from),
            },
        }
    }

    /// A session on `device`; on the processor, where it was not asked for by name and has too little memory.
    pub(crate) fn session(
        &self,
        model: &Model,
        device: &mut Device,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
    ) -> Result<Session> {
        match model.session(&*device, batch, settings, outputs) {
            Err(why @ Error::Device { .. }) if self.name() == "auto" => {
                *device = self.instead(&why)?;
                model.session(&*device, batch, settings, outputs)
            }
            done => done,
        }
    }

    /// The folder of GPU kernels that stand in for the program's own.
    #[cfg(feature = "cuda")]
    pub(crate) fn kernels(&self) -> Option<&Path> {
        self.kernels.as_deref()
    }

    /// There are none.
    #[cfg(not(feature = "cuda"))]
    pub(crate) fn kernels(&self) -> Option<&Path> {
        None
    }

    fn name(&self) -> String {
        let given = self.device.clone().or_else(|| std::env::var(DEVICE_VARIABLE).ok());
        given.filter(|name| !name.is_empty()).unwrap_or_else(|| "auto".to_owned())
    }

    fn instead(&self, why: &Error) -> Result<Device> {
        tell(&format!("discon: on the processor, since there is no GPU to use: {why}"));
        self.cpu.cpu().map(Device::from)
    }

    #[cfg(feature = "cuda")]
    fn gpu(&self, ordinal: usize) -> Result<Device> {
        use discon::cuda::{Context, Gpu};
        let context = Context::primary(&discon::cuda::Device::open(ordinal)?)?;
        let gpu = Gpu::in_context(context, self.kernels.as_deref())?;
        Ok(Device::from(if self.no_wgmma { gpu.with_wgmma(false) } else { gpu }))
    }

    #[cfg(not(feature = "cuda"))]
    fn gpu(&self, _ordinal: usize) -> Result<Device> {
        Err(Error::setting("device", "auto or cpu: this build of discon has no CUDA (feature `cuda`)", self.name()))
    }

    /// The first GPU, or why not, where one is wanted at all.
    fn first_gpu(&self, model: &Model) -> Option<Result<Device>> {
        if cfg!(not(feature = "cuda")) || self.cpu.is_given() {
            return None;
        }
        if model.precision() == Precision::Q8 {
            return Some(Err(Error::input("precision of a GPU", "f32 or bf16", "q8")));
        }
        Some(self.gpu(0))
    }
}

/// The model.
#[derive(Debug, Args)]
pub(crate) struct ModelArgs {
    /// Model folder
    ///
    /// Without it: the folder that the environment variable DISCON_MODEL names; else `weights/avatars-64` below the
    /// current folder, below the folder of this program or one of those above it, or below the sources that it was
    /// built from.
    #[arg(long, value_name = "DIR")]
    pub(crate) model: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) precision: PrecisionArgs,
}

/// The precision.
#[derive(Debug, Args)]
pub(crate) struct PrecisionArgs {
    /// What matrix products are computed in: f32, bf16 or q8 (8-bit integers)
    ///
    /// Without it what the folder was packed for (see `discon pack`), else f32.
    #[arg(long, value_name = "TYPE")]
    dtype: Option<String>,
}

impl PrecisionArgs {
    pub(crate) fn precision(&self) -> Result<Option<Precision>> {
        self.dtype.as_deref().map(Precision::named).transpose()
    }

    pub(crate) fn open(&self, folder: &Path) -> Result<Model> {
        match self.precision()? {
            Some(precision) => Model::open_as(folder, precision),
            None => Model::open(folder),
        }
    }
}

impl ModelArgs {
    pub(crate) fn open(&self) -> Result<Model> {
        self.precision.open(&self.folder()?)
    }

    pub(crate) fn folder(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.model {
            return is_model(dir).then(|| dir.clone()).ok_or_else(|| no_model(std::slice::from_ref(dir)));
        }
        if let Some(dir) = std::env::var_os(MODEL_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from) {
            let what = format!("model named by {MODEL_VARIABLE}");
            let missing = || Error::input(what, format!("a folder with {CONFIG}"), dir.display());
            return is_model(&dir).then(|| dir.clone()).ok_or_else(missing);
        }
        let program = std::env::current_exe().unwrap_or_default();
        let above = program.ancestors().skip(1).map(|dir| dir.join(DEFAULT_MODEL));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT_MODEL);
        let mut places = vec![PathBuf::from(DEFAULT_MODEL)];
        for place in above.chain([sources]) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        places.iter().find(|dir| is_model(dir)).cloned().ok_or_else(|| no_model(&places))
    }
}

/// Whether a folder is a model.
pub(crate) fn is_model(dir: &Path) -> bool {
    dir.join(CONFIG).is_file()
}

fn no_model(places: &[PathBuf]) -> Error {
    let looked = places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ");
    let hint = if places.len() > 1 { " (name one by --model)" } else { "" };
    Error::input("model", format!("a folder with {CONFIG}"), format!("none at {looked}{hint}"))
}

/// Settings that stand in for the model's own.
#[derive(Debug, Args)]
pub(crate) struct SettingArgs {
    /// Rounds of stage 2; without it as the model says, as for all settings
    #[arg(long, value_name = "R")]
    rounds: Option<usize>,
    /// Diffusion steps of a continuous token
    #[arg(long, value_name = "T")]
    steps: Option<usize>,
}

impl SettingArgs {
    pub(crate) fn apply(&self, settings: &mut Settings) {
        settings.rounds = self.rounds.unwrap_or(settings.rounds);
        settings.steps = self.steps.unwrap_or(settings.steps);
    }
}

/// Settings of all that is random, and of how finely it is drawn.
#[derive(Debug, Args)]
pub(crate) struct SamplingArgs {
    #[command(flatten)]
    steps: SettingArgs,
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
}

impl SamplingArgs {
    /// The model's settings, but for what was given.
    pub(crate) fn settings(&self, model: &Model) -> Settings {
        let mut settings = model.settings();
        self.steps.apply(&mut settings);
        settings.guidance = self.guidance.unwrap_or(settings.guidance);
        settings.discrete_guidance = self.discrete_guidance.unwrap_or(settings.discrete_guidance);
        settings.temperature = self.temperature.unwrap_or(settings.temperature);
        settings.discrete_temperature = self.discrete_temperature.unwrap_or(settings.discrete_temperature);
        settings
    }
}

/// How many images at a time: all at best, fewer where that takes too much memory.
pub(crate) fn batch(
    model: &Model,
    device: &Device,
    images: usize,
    settings: &Settings,
    outputs: Outputs,
) -> Result<usize> {
    let mut batch = images.min(AT_ONCE);
    while model.plan(batch, settings, outputs)?.arena_bytes(device.threads()) > ARENA_BYTES && batch > 1 {
        batch = batch.div_ceil(2);
    }
    Ok(batch)
}

/// The classes' names as files can bear them, each once: names come from the model, some would lead to other folders, and some
/// may be those of two classes. Such a one ends in its class's number.
pub(crate) fn class_file_names(classes: &[String]) -> Vec<String> {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ' | ',');
    let plain = |name: &str| !name.is_empty() && name.chars().all(fits) && name.len() <= 100;
    let numbered = |class: usize| {
        let kept = |name: &String| name.chars().take(24).map(|c| if fits(c) { c } else { '_' }).collect::<String>();
        format!("{}_{class}", classes.get(class).map(kept).unwrap_or_default())
    };
    let mut ends_in_number: Vec<bool> = classes.iter().map(|name| !plain(name)).collect();
    loop {
        let number =
            |(class, name): (usize, &String)| if ends_in_number[class] { numbered(class) } else { name.clone() };
        let names: Vec<String> = classes.iter().enumerate().map(number).collect();
        let mut times = HashMap::new();
        // Some file systems do not tell small letters from capitals.
        let folded: Vec<String> = names.iter().map(|name| name.to_lowercase()).collect();
        folded.iter().for_each(|name| *times.entry(name.as_str()).or_insert(0) += 1);
        let again: Vec<usize> =
            (0..names.len()).filter(|&i| !ends_in_number[i] && times[folded[i].as_str()] > 1).collect();
        // Two that end in their numbers differ.
        if again.is_empty() {
            return names;
        }
        again.into_iter().for_each(|class| ends_in_number[class] = true);
    }
}

/// Refuses a number that is not from 1 to `most`.
pub(crate) fn within(name: &'static str, found: usize, most: usize) -> Result<()> {
    if (1..=most).contains(&found) { Ok(()) } else { Err(Error::setting(name, format!("1 to {most}"), found)) }
}

/// A number of bytes for people.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = (1..UNITS.len()).rev().find(|&u| n >= 1 << (10 * u)).unwrap_or(0);
    if unit == 0 { format!("{n} B") } else { format!("{:.1} {}", n as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]) }
}

/// What the processor calls itself, where the system says so.
pub(crate) fn processor() -> String {
    let info = std::fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}
