//! The kernels of the crate, loaded into a context.

use super::{Context, Function, Module, problem};
use crate::error::{DeviceProblem, Error, Result};
use bytemuck::Pod;
use std::collections::HashMap;
use std::path::Path;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// All files of kernels, compiled by the driver.
#[derive(Debug)]
pub(crate) struct Kernels(HashMap<&'static str, File>);

#[derive(Debug)]
struct File {
    module: Module,
    /// Threads of a block, by kernel.
    threads: HashMap<String, u32>,
}

/// A kernel and the threads of its blocks.
#[derive(Debug)]
pub(crate) struct Kernel<P: Pod> {
    pub(crate) function: Function<P>,
    pub(crate) threads: u32,
}

impl Kernels {
    /// The embedded kernels; where `folder` has a `NAME.ptx` of the same name, that instead.
    pub(crate) fn load(context: &Context, folder: Option<&Path>) -> Result<Self> {
        let mut replaced = folder.map(in_folder).transpose()?.unwrap_or_default();
        let mut files = HashMap::new();
        for (name, ptx) in EMBEDDED {
            let own = replaced.remove(*name);
            let (file, ptx) = match &own {
                Some((path, ptx)) => (path.as_str(), ptx.as_str()),
                None => (*name, *ptx),
            };
            files.insert(*name, File { module: Module::load(context, file, ptx)?, threads: threads(ptx) });
        }
        match replaced.into_values().next() {
            None => Ok(Self(files)),
            Some((path, _)) => {
                let names = EMBEDDED.iter().map(|(name, _)| format!("{name}.ptx")).collect::<Vec<_>>().join(", ");
                Err(problem(DeviceProblem::Kernel, path, format!("one of {names}"), "another name"))
            }
        }
    }

    /// Kernel `name` of `file`.
    pub(crate) fn get<P: Pod>(&self, file: &'static str, name: &str) -> Result<Kernel<P>> {
        let missing = |found: &str| {
            problem(DeviceProblem::Kernel, format!("kernel `{name}` of {file}"), "that it is there", found)
        };
        let File { module, threads } = self.0.get(file).ok_or_else(|| missing("no such file"))?;
        let threads = *threads.get(name).ok_or_else(|| missing("no `.maxntid` of that name"))?;
        Ok(Kernel { function: module.function(name)?, threads })
    }
}

/// The PTX files of a folder: name, then path and text.
fn in_folder(folder: &Path) -> Result<HashMap<String, (String, String)>> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "ptx") {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, (path.display().to_string(), text));
        }
    }
    if found.is_empty() {
        return Err(Error::input("folder of kernels", "files *.ptx", format!("none in {}", folder.display())));
    }
    Ok(found)
}

/// The threads of a block of each kernel: every kernel here is compiled for one number of them, which its PTX states.
fn threads(ptx: &str) -> HashMap<String, u32> {
    let mut found = HashMap::new();
    let mut entry = None;
    for line in ptx.lines() {
        if let Some((_, rest)) = line.split_once(".entry ") {
            entry = rest.split('(').next().map(|name| name.trim().to_owned());
        } else if let Some(dims) = line.trim().strip_prefix(".maxntid") {
            let threads = dims.split(',').map(|n| n.trim().parse::<u32>()).product::<Result<u32, _>>();
            if let (Some(name), Ok(threads)) = (entry.take(), threads) {
                found.insert(name, threads);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_kernel_states_its_threads() {
        for (file, ptx) in EMBEDDED {
            let entries = ptx.matches(".entry ").count();
            assert!(entries > 0 && threads(ptx).len() == entries, "{file}");
            assert!(threads(ptx).values().all(|&n| n.is_multiple_of(32) && n <= 1024), "{file}");
        }
    }
}
