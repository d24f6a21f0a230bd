//! Rewrites a model folder in kernel order.

use crate::error::{Error, Result};
use crate::model::{Masked, Rar, Vae, Vq};
use crate::tensor::{Limit, Precision};
use crate::weights::{
    CASES, DISCON_FILE, ModelFiles, PACKED, Part, RAR_FILE, VAE_FILE, VQ_FILE, check_regular, clear, write_config,
    write_tensors, write_whole,
};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// Writes the model in `folder` to `out` as `precision` computes with it: matrices in kernel order, vectors in f32,
/// so that [`Model::open`](crate::Model::open) uses all of it in place. Known answers (`cases/`) come along.
///
/// `out` is made if it is not there. A model that is there goes first: its config, its parts that this one has not, its
/// cases. Files take their names when they are whole, the config last. `wrote` is told of each part's file and of its
/// bytes. A folder that is packed already is an error: what was rounded stays rounded. So is a part whose copies take more
/// memory than the system has left.
pub fn pack(folder: &Path, out: &Path, precision: Precision, wrote: &mut dyn FnMut(&str, u64)) -> Result<()> {
    let files = ModelFiles::open(folder)?;
    fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
    let same = |a: &Path, b: &Path| Ok(canonical(a)? == canonical(b)?);
    if same(folder, out)? {
        return Err(Error::input("folder to write", "another than the model's", out.display()));
    }
    let ModelFiles { config, rar, masked, vae, vq } = files.compute_in(precision);
    let parts = [(RAR_FILE, &rar), (DISCON_FILE, &masked), (VAE_FILE, &vae), (VQ_FILE, &vq)];
    let there = || parts.iter().filter_map(|(file, part)| part.as_ref().map(|part| (*file, part)));
    there().try_for_each(|(_, part)| check_unpacked(part))?;
    clear(out, &there().map(|(file, _)| file).collect::<Vec<_>>())?;
    let mut part = |part, config: bool, name, load: &dyn Fn(&mut Part) -> Result<()>| match part {
        Some(part) if config => pack_part(part, out, name, load).map(|bytes| wrote(name, bytes)),
        _ => Ok(()),
    };
    let c = &config;
    part(rar, c.rar.is_some(), RAR_FILE, &|part| c.rar.iter().try_for_each(|c| Rar::load(part, c).map(drop)))?;
    part(masked, c.discon.is_some(), DISCON_FILE, &|part| {
        c.discon.iter().try_for_each(|c| Masked::load(part, c).map(drop))
    })?;
    part(vae, c.vae.is_some(), VAE_FILE, &|part| c.vae.iter().try_for_each(|c| Vae::load(part, c).map(drop)))?;
    part(vq, c.vq.is_some(), VQ_FILE, &|part| c.vq.iter().try_for_each(|c| Vq::load(part, c).map(drop)))?;
    copy_cases(&folder.join(CASES), &out.join(CASES))?;
    write_config(out, &config)
}

fn canonical(path: &Path) -> Result<std::path::PathBuf> {
    fs::canonicalize(path).map_err(|e| Error::io(path, e))
}

fn check_unpacked(part: &Part) -> Result<()> {
    match part.file().metadata().get(PACKED) {
        None => Ok(()),
        Some(packed) => Err(Error::Format {
            file: part.file().name().to_owned(),
            what: format!("metadata `{PACKED}`"),
            expected: "none: a model as it was trained".to_owned(),
            found: packed.clone(),
        }),
    }
}

/// Loads a part, which packs it, and writes what was taken; gives the bytes of the weights.
fn pack_part(part: Part, out: &Path, name: &str, load: &dyn Fn(&mut Part) -> Result<()>) -> Result<u64> {
    let mut part = part.within(Limit::new(None), 0);
    let mut metadata = part.file().metadata().clone();
    metadata.insert(PACKED.to_owned(), part.precision().name().to_owned());
    load(&mut part)?;
    let taken = part.finish()?;
    let list = taken.iter().map(|(name, taken)| {
        let (dtype, shape, _) = taken.stored();
        (name.as_str(), dtype, shape)
    });
    write_whole(out, name, |file| {
        write_tensors(file, list.collect(), &metadata, |name, _, file| {
            taken.get(name).map_or(Ok(()), |taken| file.write_all(taken.stored().2))
        })
    })?;
    Ok(taken.values().map(|t| t.stored().2.len() as u64).sum())
}

/// Copies the cases of a model, if it has some.
fn copy_cases(from: &Path, to: &Path) -> Result<()> {
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| Error::io(from, e))?,
    };
    fs::create_dir_all(to).map_err(|e| Error::io(to, e))?;
    if canonical(from)? == canonical(to)? {
        return Ok(());
    }
    for entry in entries {
        let path = entry.map_err(|e| Error::io(from, e))?.path();
        let name = path.file_name().filter(|_| path.extension().is_some_and(|e| e == "safetensors"));
        if let Some(name) = name {
            check_regular(&path)?;
            fs::copy(&path, to.join(name)).map_err(|e| Error::io(&path, e))?;
        }
    }
    Ok(())
}
