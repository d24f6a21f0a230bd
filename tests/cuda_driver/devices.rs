//! `discon devices` as a user runs it.

use crate::fake_driver::DRIVER;
use serde_json::Value;
use std::process::Command;

/// What is printed, as lines and as JSON. Nothing fails and nothing is complained about.
#[track_caller]
fn devices(driver: &str, settings: &[(&str, &str)]) -> (Vec<String>, Value) {
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discon"));
        let out = command.args(args).env(DRIVER, driver).envs(settings.iter().copied()).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let lines: Vec<_> = run(&["devices"]).lines().map(str::to_owned).collect();
    assert!(lines[0].starts_with("CPU    ") && lines[0].ends_with(" threads"), "{lines:?}");
    let json: Value = serde_json::from_str(&run(&["devices", "--json"])).unwrap();
    assert!(json["cpu"]["threads"].as_u64().unwrap() > 0);
    (lines[1..].to_vec(), json)
}

/// No GPU is listed, and one line says why.
#[track_caller]
fn none(driver: &str, settings: &[(&str, &str)], why: &str) {
    let (lines, json) = devices(driver, settings);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("no GPU ") && lines[0].contains(why), "no `{why}` in: {lines:?}");
    assert_eq!(json["gpus"], Value::Array(vec![]));
    assert_eq!(format!("no GPU {}", json["no_gpus"].as_str().unwrap()), lines[0]);
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_cuda_says_so() {
    none("", &[], "this build of discon has no CUDA (feature `cuda`)");
}

#[cfg(feature = "cuda")]
#[test]
fn without_a_driver() {
    none(
        "/nowhere/libcuda.so.1",
        &[],
        "expected the library /nowhere/libcuda.so.1 that DISCON_CUDA_DRIVER names, found none: ",
    );
    // A file that is no library.
    none(file!(), &[], "that DISCON_CUDA_DRIVER names, found none: ");
    // The system's own.
    if std::env::var_os(DRIVER).is_none() && discon::cuda::Device::all().is_err() {
        none("", &[], "NVIDIA driver: expected ");
    }
}

/// A library with none of the driver's functions.
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn with_a_library_that_is_no_driver() {
    none(
        "libc.so.6",
        &[],
        "NVIDIA driver: expected its version, found CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND (302)",
    );
}

#[cfg(feature = "cuda")]
#[test]
fn with_a_driver() {
    let Some(driver) = crate::fake_driver::driver() else { return };
    let driver = driver.to_str().unwrap();
    none(driver, &[("FAKE_CUDA_DEVICES", "0")], "NVIDIA GPU: expected one at least, found none");
    none(driver, &[("FAKE_CUDA_VERSION", "11080")], "expected one for CUDA 12.0 or newer, found one for CUDA 11.8");
    none(driver, &[("FAKE_CUDA_FAIL_INIT", "34")], "the toolkit's stand-in");
    none(driver, &[("FAKE_CUDA_FAIL_INIT", "803")], "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)");

    let (lines, json) = devices(driver, &[("FAKE_CUDA_DEVICES", "2")]);
    let line = |n| {
        format!(
            "GPU {n}  Fake GPU {n}, compute capability 9.0, 4 multiprocessors, 64.0 GiB of memory (64.0 GiB free), driver for CUDA 12.4"
        )
    };
    assert_eq!(lines, [line(0), line(1)]);
    assert_eq!(json["no_gpus"], Value::Null);
    let expected = serde_json::json!({
        "ordinal": 1, "name": "Fake GPU 1", "compute_capability": "9.0", "enough": true, "multiprocessors": 4,
        "memory": 64u64 << 30, "memory_free": 64u64 << 30, "driver_cuda": "12.4",
    });
    assert_eq!(json["gpus"][1], expected);

    // GPUs that cannot be used are listed with the reason.
    let (lines, json) = devices(driver, &[("FAKE_CUDA_CAPABILITY", "7.5")]);
    assert!(lines[0].contains("compute capability 7.5 (needed: 8.0)"), "{lines:?}");
    assert_eq!(json["gpus"][0]["enough"], false);
    let (lines, json) = devices(driver, &[("FAKE_CUDA_FAIL_CONTEXT", "46")]);
    assert!(lines[0].contains("found CUDA_ERROR_DEVICE_UNAVAILABLE (46)"), "{lines:?}");
    assert_eq!(json["gpus"][0]["memory_free"], Value::Null);
}
