//! The kernels of the crate, loaded into a context.

use super::{Context, Function, Module, problem};
use crate::error::{DeviceProblem, Error, Result};
use bytemuck::Pod;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// All files of kernels, compiled by the driver: those for all GPUs when this is made, those for one generation when a
/// kernel of theirs is first asked for.
#[derive(Debug)]
pub(crate) struct Kernels {
    context: Context,
    files: HashMap<&'static str, File>,
}

struct File {
    /// As errors call it.
    name: Cow<'static, str>,
    ptx: Cow<'static, str>,
    module: OnceLock<Module>,
    /// By kernel.
    blocks: HashMap<String, Block>,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("name", &self.name).field("module", &self.module).finish_non_exhaustive()
    }
}

impl File {
    fn module(&self, context: &Context) -> Result<&Module> {
        if let Some(module) = self.module.get() {
            return Ok(module);
        }
        let module = Module::load(context, &self.name, &self.ptx)?;
        Ok(self.module.get_or_init(|| module))
    }
}

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    threads: u32,
    shared_bytes: u32,
}

/// A kernel, and of its blocks the threads and the bytes of shared memory that a launch asks for.
#[derive(Debug)]
pub(crate) struct Kernel<P: Pod> {
    pub(crate) function: Function<P>,
    pub(crate) threads: u32,
    pub(crate) shared_bytes: u32,
}

impl Kernels {
    /// The embedded kernels; where `folder` has a `NAME.ptx` of the same name, that instead.
    pub(crate) fn load(context: &Context, folder: Option<&Path>) -> Result<Self> {
        let mut replaced = folder.map(in_folder).transpose()?.unwrap_or_default();
        let mut files = HashMap::new();
        for &(of, ptx) in EMBEDDED {
            let (name, ptx) = match replaced.remove(of) {
                Some((path, ptx)) => (Cow::Owned(path), Cow::Owned(ptx)),
                None => (Cow::Borrowed(of), Cow::Borrowed(ptx)),
            };
            let (module, blocks) = (OnceLock::new(), blocks(&ptx));
            let file = File { name, ptx, module, blocks };
            if !is_of_one_generation(&file.ptx) {
                file.module(context)?;
            }
            files.insert(of, file);
        }
        match replaced.into_values().next() {
            None => Ok(Self { context: context.clone(), files }),
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
        let file = self.files.get(file).ok_or_else(|| missing("no such file"))?;
        let &Block { threads, shared_bytes } =
            file.blocks.get(name).ok_or_else(|| missing("no `.maxntid` of that name"))?;
        let function = file.module(&self.context)?.function(name)?;
        if shared_bytes > 0 {
            function.allow_shared_bytes(shared_bytes)?;
        }
        Ok(Kernel { function, threads, shared_bytes })
    }
}

/// Whether no other GPUs than those of one generation run it: `sm_90a` has an `a`.
fn is_of_one_generation(ptx: &str) -> bool {
    let target = ptx.lines().find_map(|line| line.trim().strip_prefix(".target"));
    target.is_some_and(|target| target.trim().ends_with(|last: char| last.is_ascii_alphabetic()))
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

/// The blocks of each kernel: every kernel here is compiled for one number of threads, which its PTX states, and the bytes
/// of shared memory that a launch must ask for are the value of a number `NAME_shared`.
fn blocks(ptx: &str) -> HashMap<String, Block> {
    let (mut found, mut shared) = (HashMap::new(), HashMap::new());
    let mut entry = None;
    for line in ptx.lines() {
        if let Some((name, bytes)) = line.strip_prefix(".global").and_then(|line| line.split_once("_shared = ")) {
            let name = name.split_whitespace().last().unwrap_or_default();
            shared.insert(name.to_owned(), bytes.trim_end_matches(';').parse::<u32>().unwrap_or_default());
        } else if let Some((_, rest)) = line.split_once(".entry ") {
            entry = rest.split('(').next().map(|name| name.trim().to_owned());
        } else if let Some(dims) = line.trim().strip_prefix(".maxntid") {
            let threads = dims.split(',').map(|n| n.trim().parse::<u32>()).product::<Result<u32, _>>();
            if let (Some(name), Ok(threads)) = (entry.take(), threads) {
                let shared_bytes = shared.get(&name).copied().unwrap_or_default();
                found.insert(name, Block { threads, shared_bytes });
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
            let blocks = blocks(ptx);
            assert!(entries > 0 && blocks.len() == entries, "{file}");
            assert!(blocks.values().all(|b| b.threads.is_multiple_of(32) && b.threads <= 1024), "{file}");
        }
    }

    #[test]
    fn files_of_one_generation_and_their_shared_memory_are_known() {
        let of_one = EMBEDDED.iter().filter(|(_, ptx)| is_of_one_generation(ptx)).collect::<Vec<_>>();
        let [(name, ptx)] = of_one[..] else { panic!("{} files", of_one.len()) };
        assert_eq!(*name, "linear_wgmma");
        // Four stages of 128 outputs and 256 rows of 64 bf16, and what is lost to come to lie on 1024 bytes.
        let expected = Block { threads: 256, shared_bytes: 4 * (128 + 256) * 128 + 1024 };
        assert_eq!(blocks(ptx).get("linear_bf16_pairs_wgmma"), Some(&expected));
        for (other, ptx) in EMBEDDED.iter().filter(|(other, _)| other != name) {
            assert!(blocks(ptx).values().all(|block| block.shared_bytes == 0), "{other}");
        }
    }
}
