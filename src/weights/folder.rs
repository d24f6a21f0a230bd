//! A model's files: a folder, or the entries of a host's pack file.

use super::config::{Config, MAX_CONFIG_BYTES};
use super::file::{TensorFile, check_regular};
use super::part::Part;
use crate::error::{Error, Result};
use crate::tensor::{Precision, SharedBytes};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The config's name in a model folder.
pub const CONFIG_FILE: &str = "discon.json";
/// The name of stage 1's weights.
pub const RAR_FILE: &str = "rar.safetensors";
/// The name of stage 2's weights.
pub const DISCON_FILE: &str = "discon.safetensors";
/// The name of the continuous tokens' autoencoder.
pub const VAE_FILE: &str = "vae.safetensors";
/// The name of the discrete tokens' autoencoder.
pub const VQ_FILE: &str = "vq.safetensors";
/// The folder of a model's known answers.
pub(crate) const CASES: &str = "cases";

/// A model's config and the parts that are there.
///
/// A part whose section stands in the config but whose file is absent is absent: what needs it says so. A file without
/// a section is an error. Other files, also such as a config might name, are never looked at.
#[derive(Debug)]
pub struct ModelFiles {
    /// What the model is made of.
    pub config: Config,
    /// Stage 1.
    pub rar: Option<Part>,
    /// Stage 2.
    pub masked: Option<Part>,
    /// The autoencoder of the continuous tokens.
    pub vae: Option<Part>,
    /// The autoencoder of the discrete tokens.
    pub vq: Option<Part>,
}

impl ModelFiles {
    /// Opens a model folder: reads its config and maps its files, of which only the headers are read. What
    /// [`TensorFile::open`] says of mapped files holds for all of them.
    pub fn open(dir: &Path) -> Result<Self> {
        let config_path = dir.join(CONFIG_FILE);
        let config_name = config_path.display().to_string();
        let config = Config::parse(&config_name, &read_config(&config_path)?)?;
        Self::collect(config, &config_name, |file| {
            let path = dir.join(file);
            if path.try_exists().map_err(|e| Error::io(&path, e))? {
                TensorFile::open(&path).map(Some)
            } else {
                Ok(None)
            }
        })
    }

    /// The same from bytes in memory, under the names that the files have in a folder; other names are passed over.
    pub fn from_bytes(files: impl IntoIterator<Item = (String, SharedBytes)>) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for (name, bytes) in files {
            if by_name.contains_key(&name) {
                return Err(Error::input("files of the model", "each name once", format!("`{name}` twice")));
            }
            by_name.insert(name, bytes);
        }
        let Some(config) = by_name.get(CONFIG_FILE) else {
            return Err(Error::Format {
                file: CONFIG_FILE.to_owned(),
                what: "files of the model".to_owned(),
                expected: format!("`{CONFIG_FILE}` among them"),
                found: if by_name.is_empty() { "no files".to_owned() } else { "other names only".to_owned() },
            });
        };
        let config = Config::parse(CONFIG_FILE, (**config).as_ref())?;
        Self::collect(config, CONFIG_FILE, |file| {
            by_name.remove(file).map(|bytes| TensorFile::from_bytes(file, bytes)).transpose()
        })
    }

    /// The same files, to compute in `precision`.
    pub fn compute_in(self, precision: Precision) -> Self {
        let part = |part: Option<Part>| part.map(|part| part.compute_in(precision));
        let Self { config, rar, masked, vae, vq } = self;
        Self { config, rar: part(rar), masked: part(masked), vae: part(vae), vq: part(vq) }
    }

    fn collect(
        config: Config,
        config_name: &str,
        mut open: impl FnMut(&str) -> Result<Option<TensorFile>>,
    ) -> Result<Self> {
        let mut part = |key: &str, section: bool, file: &str| match (open(file)?, section) {
            (Some(_), false) => Err(Error::Config {
                file: config_name.to_owned(),
                key: key.to_owned(),
                expected: format!("a section for `{file}`, which is there"),
                found: "nothing".to_owned(),
            }),
            (None, _) => Ok(None),
            (Some(opened), _) => Part::new(opened).map(Some),
        };
        let rar = part("rar", config.rar.is_some(), RAR_FILE)?;
        let masked = part("discon", config.discon.is_some(), DISCON_FILE)?;
        let vae = part("vae", config.vae.is_some(), VAE_FILE)?;
        let vq = part("vq", config.vq.is_some(), VQ_FILE)?;
        Ok(Self { config, rar, masked, vae, vq })
    }
}

/// The bytes of a config, as far as one byte past the longest that is allowed.
fn read_config(path: &Path) -> Result<Vec<u8>> {
    let io_error = |e| Error::io(path, e);
    check_regular(path)?;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(io_error)?;
    file.take(MAX_CONFIG_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(bytes)
}
