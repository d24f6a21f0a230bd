//! A model: networks with their weights, shared by all who generate with it.

use super::device::Device;
use super::{Image, OpenOptions, Outputs, SessionOptions, Settings};
use super::{Progress, Session};
use crate::error::{Error, Result};
use crate::model::{Masked, Rar, Vae, Vq};
use crate::plan::Store;
#[cfg(feature = "cuda")]
use crate::plan::gpu::Residents;
use crate::tensor::{Limit, Precision, SharedBytes};
use crate::weights::{Config, DISCON_FILE, ModelFiles, Part, RAR_FILE, VAE_FILE, VQ_FILE, WeightMemory};
use log::{info, warn};
use std::path::Path;
use std::sync::Arc;

/// What to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The class of each image.
    pub classes: Vec<usize>,
    /// The seed of each image.
    pub seeds: Vec<u64>,
    /// How.
    pub settings: Settings,
}

/// A model: its weights, and what its sessions have made that no request changes. Cloning shares both.
#[derive(Debug, Clone)]
pub struct Model(Arc<Networks>);

/// The networks that a model folder has.
#[derive(Debug)]
pub(crate) struct Networks {
    pub(crate) config: Config,
    pub(crate) rar: Option<Rar>,
    pub(crate) masked: Option<Masked>,
    pub(crate) vae: Option<Vae>,
    pub(crate) vq: Option<Vq>,
    pub(crate) memory: WeightMemory,
    /// What sessions have made for each other.
    pub(super) shared: Store,
    /// What its sessions have on GPUs.
    #[cfg(feature = "cuda")]
    pub(super) on_gpus: Residents,
    precision: Precision,
}

/// The part, or what needs it.
pub(crate) fn needed<'a, T>(part: &'a Option<T>, file: &'static str, needed_for: &'static str) -> Result<&'a T> {
    part.as_ref().ok_or(Error::MissingPart { part: file, needed_for })
}

/// Loads a part whole: every tensor taken, none left over.
fn load<C, T>(
    part: Option<Part>,
    config: &Option<C>,
    memory: &mut WeightMemory,
    limit: Option<Limit>,
    load: impl FnOnce(&mut Part, &C) -> Result<T>,
) -> Result<Option<T>> {
    match (part, config) {
        (Some(part), Some(config)) => {
            let mut part = part.within(limit, memory.own());
            let network = load(&mut part, config)?;
            *memory = *memory + part.memory();
            part.finish()?;
            Ok(Some(network))
        }
        _ => Ok(None),
    }
}

/// What all parts compute in; a folder whose parts were packed for several is none.
fn one_precision<'a>(mut parts: impl Iterator<Item = &'a Part>) -> Result<Precision> {
    let Some(first) = parts.next() else { return Ok(Precision::F32) };
    match parts.find(|part| part.precision() != first.precision()) {
        None => Ok(first.precision()),
        Some(other) => Err(Error::Format {
            file: other.file().name().to_owned(),
            what: "what products are computed in".to_owned(),
            expected: format!("{}, as {} is for", first.precision(), first.file().name()),
            found: other.precision().to_string(),
        }),
    }
}

impl Networks {
    /// The files of the parts that are there.
    fn parts(&self) -> Vec<&'static str> {
        let parts = [
            (RAR_FILE, self.rar.is_some()),
            (DISCON_FILE, self.masked.is_some()),
            (VAE_FILE, self.vae.is_some()),
            (VQ_FILE, self.vq.is_some()),
        ];
        parts.into_iter().filter_map(|(file, there)| there.then_some(file)).collect()
    }

    /// L: places of a token sequence.
    pub(crate) fn places(&self) -> Result<usize> {
        let discrete = self.rar.as_ref().map(|r| r.config.seq_len);
        let continuous = self.masked.as_ref().map(|m| m.config.seq_len);
        let missing = Error::MissingPart { part: "rar.safetensors or discon.safetensors", needed_for: "generation" };
        discrete.or(continuous).ok_or(missing)
    }

    /// K: codes that a discrete token may have. All parts have the same.
    pub(crate) fn codes(&self) -> usize {
        let continuous = self.masked.as_ref().map(|m| m.config.codebook_size);
        continuous.or(self.vq.as_ref().map(|vq| vq.config.codebook_size)).unwrap_or(0)
    }
}

impl Model {
    /// Opens a model folder: `discon.json` beside the parts' `.safetensors`. A packed folder (`discon pack`) is mapped
    /// and used in place, in the precision it was packed for, the same in all parts; from any other the matrices are packed
    /// into memory, for f32.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default())
    }

    /// Opens a model folder within a limit of memory, or in another precision.
    pub fn open_with(folder: impl AsRef<Path>, options: &OpenOptions) -> Result<Self> {
        let folder = folder.as_ref();
        Self::from_files(ModelFiles::open(folder), options, || folder.display().to_string())
    }

    /// [`Model::from_bytes`] within a limit of memory, or in another precision.
    pub fn from_bytes_with(
        files: impl IntoIterator<Item = (String, SharedBytes)>,
        options: &OpenOptions,
    ) -> Result<Self> {
        Self::from_files(ModelFiles::from_bytes(files), options, || "memory".to_owned())
    }

    /// Opens a model folder to compute in that precision. A folder packed for it (`discon pack`) is used in place; one
    /// packed for another is an error, unless its numbers are the same: bf16 weights serve f32 and bf16.
    pub fn open_as(folder: impl AsRef<Path>, precision: Precision) -> Result<Self> {
        Self::open_with(folder, &OpenOptions { precision: Some(precision), ..OpenOptions::default() })
    }

    /// Opens a model whose files lie in memory, by the names they have in a folder: a host's pack file.
    pub fn from_bytes(files: impl IntoIterator<Item = (String, SharedBytes)>) -> Result<Self> {
        Self::from_bytes_with(files, &OpenOptions::default())
    }

    /// Loads what lies at `place`, and tells the log.
    fn from_files(files: Result<ModelFiles>, options: &OpenOptions, place: impl Fn() -> String) -> Result<Self> {
        let load = |files| Self::load(files, options);
        let model = files.and_then(load).inspect_err(|why| warn!("no model from {}: {why}", place()))?;
        let Networks { config, memory, precision, .. } = model.networks();
        info!(
            "model `{}` opened from {}: {}; {precision}; {} bytes of weights in place, {} copied",
            config.name,
            place(),
            model.networks().parts().join(", "),
            memory.in_place,
            memory.copied,
        );
        Ok(model)
    }

    fn load(mut files: ModelFiles, options: &OpenOptions) -> Result<Self> {
        if let Some(precision) = options.precision {
            files = files.compute_in(precision);
        }
        let ModelFiles { config, rar, masked, vae, vq } = files;
        let (mut memory, limit) = (WeightMemory::default(), Limit::new(options.memory_limit));
        let precision = one_precision([&rar, &masked, &vae, &vq].into_iter().flatten())?;
        Ok(Self(Arc::new(Networks {
            rar: load(rar, &config.rar, &mut memory, limit, Rar::load)?,
            masked: load(masked, &config.discon, &mut memory, limit, Masked::load)?,
            vae: load(vae, &config.vae, &mut memory, limit, Vae::load)?,
            vq: load(vq, &config.vq, &mut memory, limit, Vq::load)?,
            config,
            memory,
            shared: Store::default(),
            #[cfg(feature = "cuda")]
            on_gpus: Residents::default(),
            precision,
        })))
    }

    pub(crate) fn networks(&self) -> &Networks {
        &self.0
    }

    /// What the model's products are computed in.
    pub fn precision(&self) -> Precision {
        self.0.precision
    }

    /// What `discon.json` says.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The settings that the model asks for.
    pub fn settings(&self) -> Settings {
        Settings::from(&self.0.config.sampling)
    }

    /// The number of the class of that name, or of that number.
    pub fn class(&self, name: &str) -> Result<usize> {
        let classes = &self.0.config.classes;
        let by_name = classes.iter().position(|c| c == name);
        let by_number = || name.parse().ok().filter(|&i: &usize| i < classes.len());
        by_name.or_else(by_number).ok_or_else(|| {
            const SHOWN: usize = 20;
            let mut known = classes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
            if classes.len() > SHOWN {
                known += ", ...";
            }
            Error::input("class", format!("a number below {} or one of {known}", classes.len()), format!("`{name}`"))
        })
    }

    /// Compiles a session for `batch` images at a time, and takes its memory: [`Error::Memory`] if it cannot be had, or is
    /// more than the system has left ([`SessionOptions::memory_limit`]).
    pub fn session(
        &self,
        device: impl Into<Device>,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
    ) -> Result<Session> {
        self.session_with(device, batch, settings, outputs, &SessionOptions::default())
    }

    /// The same within a limit of memory.
    pub fn session_with(
        &self,
        device: impl Into<Device>,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
        options: &SessionOptions,
    ) -> Result<Session> {
        Session::new(self, &device.into(), batch, settings, outputs, options)
            .inspect_err(|why| warn!("no session of `{}`: {why}", self.config().name))
    }

    /// The images of a request, from one call.
    pub fn generate(&self, device: impl Into<Device>, request: &Request) -> Result<Vec<Image>> {
        let mut session = self.session(device, request.classes.len(), &request.settings, Outputs::IMAGE)?;
        session.begin(&request.classes, &request.seeds)?;
        session.run(|_: &Progress| {})?;
        session.images()
    }
}
