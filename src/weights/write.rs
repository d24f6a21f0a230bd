//! Writes model folders: files that are whole or not there, tensors that are aligned.

use super::config::Config;
use super::folder::{CASES, CONFIG_FILE, DISCON_FILE, RAR_FILE, VAE_FILE, VQ_FILE};
use crate::error::{Error, Result};
use crate::tensor::DType;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Data starts at a multiple of this, and so does every tensor whose size is one.
const ALIGNMENT: usize = 64;

/// Writes a file under another name and gives it its own when it is whole.
pub(crate) fn write_whole(dir: &Path, name: &str, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let (partial, path) = (dir.join(format!("{name}.partial")), dir.join(name));
    let written = File::create(&partial).and_then(|mut file| write(&mut file)).map_err(|e| Error::io(&partial, e));
    let renamed = written.and_then(|()| fs::rename(&partial, &path).map_err(|e| Error::io(&path, e)));
    if renamed.is_err() {
        // The first error is the one to tell; what cannot be written may well not be removable.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

/// Clears a folder for a model of the parts `written`. A model that is there loses its config first, so that what is left
/// when this or the writing is cut short is none; then the parts that the new one has not, which nothing would write over,
/// and its known answers. Where there is no model nothing is touched.
pub(crate) fn clear(dir: &Path, written: &[&str]) -> Result<()> {
    let remove = |path: &Path| match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(path, e)),
        removed => Ok(removed.is_ok()),
    };
    if !remove(&dir.join(CONFIG_FILE))? {
        return Ok(());
    }
    for file in [RAR_FILE, DISCON_FILE, VAE_FILE, VQ_FILE].iter().filter(|file| !written.contains(file)) {
        remove(&dir.join(file))?;
    }
    let cases = dir.join(CASES);
    // What a link points to may be another model's.
    if !fs::symlink_metadata(&cases).is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    for entry in fs::read_dir(&cases).map_err(|e| Error::io(&cases, e))? {
        let path = entry.map_err(|e| Error::io(&cases, e))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Writes a folder's config: last, for a folder without one is no model.
pub(crate) fn write_config(dir: &Path, config: &Config) -> Result<()> {
    write_whole(dir, CONFIG_FILE, |out| {
        let mut text = serde_json::to_vec_pretty(config)?;
        text.push(b'\n');
        out.write_all(&text)
    })
}

/// Writes a safetensors file of `tensors` (name, dtype, shape); `data` writes the bytes of each, in its own order.
pub(crate) fn write_tensors(
    out: &mut File,
    mut tensors: Vec<(&str, DType, Vec<usize>)>,
    metadata: &HashMap<String, String>,
    mut data: impl FnMut(&str, &[usize], &mut File) -> io::Result<()>,
) -> io::Result<()> {
    let size = |dtype: DType, shape: &[usize]| shape.iter().product::<usize>() * dtype.size();
    // The few tensors of odd sizes come last: all others are aligned, since the format leaves no gaps.
    tensors.sort_by_cached_key(|(name, dtype, shape)| {
        (!size(*dtype, shape).is_multiple_of(ALIGNMENT), (*name).to_owned())
    });
    let mut end = 0;
    let infos = tensors.iter().map(|(name, dtype, shape)| {
        let start = end;
        end += size(*dtype, shape);
        let (dtype, shape) = (stored(*dtype), shape.clone());
        ((*name).to_owned(), TensorInfo { dtype, shape, data_offsets: (start, end) })
    });
    let metadata = (!metadata.is_empty()).then(|| metadata.clone());
    let header = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header)?;
    let length = (8 + header.len()).next_multiple_of(ALIGNMENT) - 8;
    header.resize(length, b' ');
    out.write_all(&(length as u64).to_le_bytes())?;
    out.write_all(&header)?;
    tensors.iter().try_for_each(|(name, _, shape)| data(name, shape, out))
}

fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I32 => Dtype::I32,
        DType::U8 => Dtype::U8,
    }
}
