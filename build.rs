//! The PTX of the CUDA kernels, for `src/cuda/kernels.rs` to embed.
//!
//! `kernels/ptx/NAME.ptx` starts with a hash over what it was made of. Where that still fits, it is taken as it is and no
//! compiler is needed; where it does not, because somebody works on a kernel, nvcc compiles the source again.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return ExitCode::SUCCESS;
    }
    println!("cargo::rerun-if-changed=kernels");
    match embed() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            println!("cargo::error={e}");
            ExitCode::FAILURE
        }
    }
}

fn embed() -> Result<(), Box<dyn Error>> {
    let kernels = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("kernels");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let names: Vec<String> = fs::read_dir(&kernels)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".cu").map(str::to_owned))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let mut list =
        String::from("/// Name and PTX of each file of kernels.\npub(crate) const EMBEDDED: &[(&str, &str)] = &[\n");
    for name in names {
        let committed = kernels.join("ptx").join(&name).with_extension("ptx");
        let hash = fingerprint(&kernels, &name)?;
        let fits = fs::read_to_string(&committed).is_ok_and(|ptx| ptx.starts_with(&format!("// {hash}:")));
        let ptx = if fits { committed } else { compile(&kernels, &name, &out)? };
        writeln!(list, "    ({name:?}, include_str!({:?})),", ptx.to_str().ok_or("the path is not UTF-8")?)?;
    }
    list.push_str("];\n");
    fs::write(out.join("kernels.rs"), list)?;
    Ok(())
}

/// FNV-1a (64 bits) of COMPILER, then name and contents of the source and all that it includes, sorted by name, each ended
/// by a zero; as `kernels/compile` does it.
fn fingerprint(kernels: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![format!("{name}.cu")]);
    while let Some(source) = open.pop() {
        let text = read(&kernels.join(&source))?;
        let include = |line: &str| Some(line.strip_prefix("#include \"")?.split_once('"')?.0.to_owned());
        if found.insert(source) {
            open.extend(text.lines().filter_map(include));
        }
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    add(&read(&kernels.join("COMPILER"))?);
    for source in found {
        add(&source);
        add(&read(&kernels.join(source))?);
    }
    Ok(format!("{hash:016x}"))
}

fn read(path: &Path) -> Result<String, Box<dyn Error>> {
    Ok(fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?)
}

/// Compiles `kernels/NAME.cu` with nvcc into a file under `out`.
fn compile(kernels: &Path, name: &str, out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let source = kernels.join(name).with_extension("cu");
    let nvcc = nvcc().ok_or_else(|| {
        format!(
            "kernels/ptx/{name}.ptx was not made of the present kernels/{name}.cu, and there is no nvcc to compile it (looked for in NVCC, \
             CUDA_PATH, CUDA_HOME and PATH). Run kernels/compile, which needs python3 with pip but neither a toolkit nor a GPU, or build \
             without the feature `cuda`."
        )
    })?;
    let to = out.join(name).with_extension("ptx");
    // The second line has the flags of all files, `NAME: FLAGS` below it those of one.
    let options = read(&kernels.join("COMPILER"))?;
    let own = options.lines().skip(2).find_map(|line| line.split_once(':').filter(|(of, _)| *of == name));
    let flags = own.map(|(_, flags)| flags).or(options.lines().nth(1)).unwrap_or_default().split_whitespace();
    let output = Command::new(&nvcc).arg("-ptx").args(flags).arg(&source).arg("-o").arg(&to).output();
    let output = output.map_err(|e| format!("{}: {e}", nvcc.display()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // One line is all that cargo shows of an error.
        eprintln!("{text}");
        let first = text.lines().find(|line| line.contains("error")).unwrap_or_default();
        return Err(format!("{} could not compile {}: {first}", nvcc.display(), source.display()).into());
    }
    Ok(to)
}

/// The first nvcc that is there.
fn nvcc() -> Option<PathBuf> {
    for name in ["NVCC", "CUDA_PATH", "CUDA_HOME", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let program = format!("nvcc{}", env::consts::EXE_SUFFIX);
    let named = env::var_os("NVCC").map(PathBuf::from);
    let toolkits = ["CUDA_PATH", "CUDA_HOME"].into_iter().filter_map(env::var_os).map(|at| Path::new(&at).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = toolkits.chain(env::split_paths(&path)).collect();
    named.into_iter().chain(folders.into_iter().map(|folder| folder.join(&program))).find(|at| at.is_file())
}
