//! What the system's loader gets to see of programs and libraries made of this crate.

use std::path::Path;
use std::process::Command;

/// What a tool of binutils prints.
#[track_caller]
fn says(tool: &str, args: &[&str], file: &Path) -> String {
    let out = Command::new(tool).args(args).arg(file).output();
    let out = out.unwrap_or_else(|e| panic!("{tool}, which comes with the linker, does not run: {e}"));
    assert!(out.status.success(), "{tool} {}: {}", file.display(), String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// It names the C library to the loader, and none of NVIDIA's.
#[track_caller]
fn needs_no_driver(file: &Path) {
    let dynamic = says("readelf", &["-d", "-W"], file);
    let needed: Vec<_> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().any(|line| line.contains("libc.so")), "{dynamic}");
    assert!(!needed.iter().any(|line| line.contains("cuda") || line.contains("nv")), "{needed:?}");
}

#[cfg(feature = "cli")]
#[test]
fn the_command_needs_no_driver_to_start() {
    needs_no_driver(Path::new(env!("CARGO_BIN_EXE_discon")));
}

#[test]
fn this_test_needs_no_driver_to_start() {
    needs_no_driver(&std::env::current_exe().unwrap());
}

/// A library with functions of the driver's names would be called in the driver's place by a host that uses CUDA.
#[test]
fn a_shared_library_exports_no_function_of_the_driver() {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    // As this test is built, so that the engine need not be compiled once more.
    let more = if cfg!(feature = "rayon") { "cuda,rayon" } else { "cuda" };
    cargo.args(["build", "--quiet", "--locked", "--offline", "--features", more]);
    cargo.args(cfg!(not(feature = "cli")).then_some("--no-default-features"));
    cargo.args(["--example", "shared_library", "--target-dir"]).arg(target).current_dir(env!("CARGO_MANIFEST_DIR"));
    let out = cargo.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let library = target.join("debug/examples/libshared_library.so");
    needs_no_driver(&library);
    let exported = says("nm", &["-D", "--defined-only"], &library);
    let exported: Vec<_> = exported.lines().filter_map(|line| line.split(' ').next_back()).collect();
    assert!(exported.contains(&"count_gpus"), "{exported:?}");
    let drivers: Vec<_> = exported.iter().filter(|name| name.starts_with("cu")).collect();
    assert!(drivers.is_empty(), "{drivers:?}");
}
