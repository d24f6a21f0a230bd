//! What was asked for: all that decides the images' bytes.

use crate::work::Job;
use clap::ValueEnum;
use discon::weights::{CONFIG_FILE, DISCON_FILE, RAR_FILE, VAE_FILE, VQ_FILE};
use discon::{Device, Error, Model, Result, Settings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

/// The most images of a task.
pub(super) const MOST: usize = 10_000_000;
/// Stands for every class.
const BALANCED: &str = "balanced";

/// What to write of each image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum What {
    /// The image
    Image,
    /// What the discrete tokens' own decoder makes of stage 1
    Discrete,
}

/// A part of a task: `1/4` is the first of four.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Shard {
    /// From 1 on.
    pub(super) number: usize,
    pub(super) of: usize,
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("expected I/N, from 1/N to N/N, found `{text}`")),
        }
    }
}

/// Which classes take turns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Classes {
    /// So many: all that the model has.
    Balanced(usize),
    Listed(Vec<usize>),
}

impl Classes {
    fn named(names: &str, model: &Model) -> Result<Self> {
        let all = model.config().classes.len();
        if names == BALANCED {
            return Ok(Self::Balanced(all));
        }
        let mut listed = Vec::new();
        for name in names.split(',') {
            let class = model.class(name)?;
            if listed.contains(&class) {
                return Err(Error::input("classes", "each class once", format!("`{name}` again")));
            }
            listed.push(class);
        }
        Ok(if listed.iter().copied().eq(0..all) { Self::Balanced(all) } else { Self::Listed(listed) })
    }

    fn len(&self) -> usize {
        match self {
            Self::Balanced(n) => *n,
            Self::Listed(classes) => classes.len(),
        }
    }

    fn at(&self, i: usize) -> usize {
        match self {
            Self::Balanced(_) => i,
            Self::Listed(classes) => classes[i],
        }
    }
}

/// What chooses among a GPU's kernels, which add up in different orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OnGpu {
    /// Images at a time: few rows and many have different kernels.
    batch: usize,
    /// Whether a Hopper's own kernels are taken.
    wgmma: bool,
    /// Size and checksum of each file of kernels that stands in for the program's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    kernels: BTreeMap<String, String>,
}

/// All that decides the images' bytes, and which of them are meant. It is written beside them, and held against what is
/// asked for when the work goes on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Task {
    /// The version of discon.
    discon: String,
    /// The model's name.
    model: String,
    /// Size and checksum of each of its files.
    files: BTreeMap<String, String>,
    /// Instruction set, or GPU: between them the bytes differ by roundings.
    device: String,
    /// On a GPU, what else rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gpu: Option<OnGpu>,
    dtype: String,
    what: What,
    settings: BTreeMap<String, String>,
    classes: Classes,
    /// Images of all shards.
    pub(super) count: usize,
    seed: u64,
    /// Pixels a side.
    pub(super) size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) shard: Option<Shard>,
}

impl Task {
    /// Images `count` of the classes named, from `seed` on. It is still open what computes them: [`Task::on`].
    #[allow(clippy::too_many_arguments, reason = "as many as there are things that decide the bytes")]
    pub(super) fn new(
        (model, folder): (&Model, &Path),
        what: What,
        settings: &Settings,
        classes: &str,
        count: usize,
        seed: u64,
        shard: Option<Shard>,
    ) -> Result<Self> {
        if let Some(Shard { of, .. }) = shard.filter(|shard| shard.of > count) {
            return Err(Error::setting("shard", format!("at most {count} shards, one an image"), format!("{of}")));
        }
        // All of them: one that is new must be in the text too.
        let Settings {
            discrete_guidance,
            discrete_guidance_pow,
            discrete_temperature,
            rounds,
            steps,
            guidance,
            guidance_schedule,
            temperature,
            clip_x0,
        } = settings;
        // As text, which names a number exactly.
        let settings = [
            ("discrete_guidance", discrete_guidance.to_string()),
            ("discrete_guidance_pow", discrete_guidance_pow.to_string()),
            ("discrete_temperature", discrete_temperature.to_string()),
            ("rounds", rounds.to_string()),
            ("steps", steps.to_string()),
            ("guidance", guidance.to_string()),
            ("guidance_schedule", format!("{guidance_schedule:?}").to_lowercase()),
            ("temperature", temperature.to_string()),
            ("clip_x0", clip_x0.map_or("none".to_owned(), |x| x.to_string())),
        ];
        Ok(Self {
            discon: env!("CARGO_PKG_VERSION").to_owned(),
            model: model.config().name.clone(),
            files: sums(folder, [CONFIG_FILE, RAR_FILE, DISCON_FILE, VAE_FILE, VQ_FILE].map(OsString::from))?,
            device: String::new(),
            gpu: None,
            dtype: model.precision().to_string(),
            what,
            settings: settings.map(|(name, value)| (name.to_owned(), value)).into(),
            classes: Classes::named(classes, model)?,
            count,
            seed,
            size: model.image_size(),
            shard,
        })
    }

    /// The same task on a device that makes `batch` images at a time, a GPU with the kernels of a folder if one is named.
    pub(super) fn on(mut self, device: &Device, batch: usize, kernels: Option<&Path>) -> Result<Self> {
        (self.device, self.gpu) = match device {
            Device::Cpu(cpu) => (cpu.isa().name().to_owned(), None),
            gpu => {
                let kernels = kernels.map_or(Ok(BTreeMap::new()), kernel_sums)?;
                (gpu.to_string(), Some(OnGpu { batch, wgmma: has_wgmma(gpu), kernels }))
            }
        };
        Ok(self)
    }

    /// Images to make together, at most `at_once`, and which of them are of those that are `missing`, until none is.
    ///
    /// On a GPU, where the bytes of an image depend on how many are made with it, an image has always the same ones beside it,
    /// whatever is there or of another shard.
    pub(super) fn batches<'a>(
        &'a self,
        missing: &'a [usize],
        at_once: usize,
    ) -> impl Iterator<Item = (Vec<usize>, &'a [usize])> {
        let mut rest = missing;
        std::iter::from_fn(move || {
            let first = *rest.first()?;
            let all: Vec<usize> = match &self.gpu {
                Some(OnGpu { batch, .. }) => (first / batch * batch..).take(*batch).collect(),
                None => rest.iter().copied().take(at_once).collect(),
            };
            let wanted;
            (wanted, rest) = rest.split_at(rest.partition_point(|i| all.last() >= Some(i)));
            Some((all, wanted))
        })
    }

    /// The entry that takes most of the text, and its bytes.
    pub(super) fn longest(&self) -> Result<(String, usize)> {
        let all = serde_json::to_value(self).map_err(|e| Error::input("task", "one that can be written as JSON", e))?;
        let lengths =
            all.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.to_string().len()));
        Ok(lengths.max_by_key(|(_, length)| *length).unwrap_or_default())
    }

    /// A task as text: one line of JSON, the same for the same task.
    pub(super) fn text(&self) -> Result<String> {
        serde_json::to_string(self).map_err(|e| Error::input("task", "one that can be written as JSON", e))
    }

    /// A task from its text, if it is one whose numbers make sense.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        let task: Self = serde_json::from_slice(text).ok()?;
        let shard = task.shard.unwrap_or(Shard { number: 1, of: 1 });
        let sane = (1..=MOST).contains(&task.count)
            && (1..=1 << 13).contains(&task.size)
            && task.classes.len() > 0
            && task.gpu.as_ref().is_none_or(|gpu| gpu.batch > 0)
            && (1..=shard.of).contains(&shard.number)
            && shard.of <= task.count;
        sane.then_some(task)
    }

    /// The images of this shard: a range of all.
    pub(super) fn range(&self) -> Range<usize> {
        let Shard { number, of } = self.shard.unwrap_or(Shard { number: 1, of: 1 });
        let start = |shard: usize| (shard as u128 * self.count as u128 / of as u128) as usize;
        start(number - 1)..start(number)
    }

    /// Class and seed of image `i` of all: classes take turns, and a class's next image has the next seed.
    pub(super) fn job(&self, i: usize) -> Job {
        let classes = self.classes.len();
        Job { class: self.classes.at(i % classes), seed: self.seed.wrapping_add((i / classes) as u64) }
    }

    /// Bytes of an image.
    pub(super) fn image_bytes(&self) -> usize {
        self.size * self.size * 3
    }

    /// This task, but for all images.
    pub(super) fn whole(&self) -> Self {
        Self { shard: None, ..self.clone() }
    }

    /// Refuses to go on with what `path` holds of another task.
    pub(super) fn check(&self, found: &Self, path: &Path) -> Result<()> {
        let [own, other] = [self, found].map(|task| serde_json::to_value(task).unwrap_or_default());
        match difference("", &own, &other) {
            None => Ok(()),
            Some((key, own, other)) => {
                let what = format!("{}: `{key}` of the images in it", path.display());
                Err(Error::input(what, format!("{own}, as asked for"), other))
            }
        }
    }
}

/// The first key whose values differ, and both.
fn difference(key: &str, own: &Value, other: &Value) -> Option<(String, String, String)> {
    if own == other {
        return None;
    }
    let (Value::Object(a), Value::Object(b)) = (own, other) else {
        let told = |value: &Value| if value.is_null() { "none".to_owned() } else { value.to_string() };
        return Some((key.to_owned(), told(own), told(other)));
    };
    let none = Value::Null;
    a.keys().chain(b.keys()).find_map(|name| {
        let path = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        difference(&path, a.get(name).unwrap_or(&none), b.get(name).unwrap_or(&none))
    })
}

/// Whether a GPU computes large products by a Hopper's own kernels.
fn has_wgmma(device: &Device) -> bool {
    match device {
        Device::Cpu(_) => false,
        #[cfg(feature = "cuda")]
        Device::Gpu(gpu) => gpu.has_wgmma(),
        // More kinds may come.
        _ => false,
    }
}

/// Size and checksum of the files of a folder of kernels.
fn kernel_sums(folder: &Path) -> Result<BTreeMap<String, String>> {
    let names = fs::read_dir(folder).and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect());
    let names: Vec<OsString> = names.map_err(|e: io::Error| Error::io(folder, e))?;
    sums(folder, names.into_iter().filter(|name| Path::new(name).extension().is_some_and(|e| e == "ptx")))
}

/// Size and checksum of those of the files of a folder that are there.
fn sums(folder: &Path, names: impl IntoIterator<Item = OsString>) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for name in names {
        let path = folder.join(&name);
        match File::open(&path).and_then(told) {
            Ok(told) => drop(all.insert(name.to_string_lossy().into_owned(), told)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io(path, e)),
        }
    }
    Ok(all)
}

fn told(mut file: File) -> io::Result<String> {
    let (mut sum, mut bytes, mut buffer) = (crc32fast::Hasher::new(), 0, vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{bytes} bytes, CRC-32 {:08x}", sum.finalize())),
            n => {
                sum.update(&buffer[..n]);
                bytes += n;
            }
        }
    }
}
