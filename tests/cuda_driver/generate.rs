//! `discon generate` as a user runs it, where there is a GPU and where there is something in its way.

use crate::fake_driver::{DRIVER, driver};
use std::path::Path;
use std::process::{Command, Output};

/// Makes one small picture into `out`.
fn generate(out: &Path, args: &[&str], driver: &str, settings: &[(&str, &str)]) -> Output {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let mut command = Command::new(env!("CARGO_BIN_EXE_discon"));
    command
        .args(["generate", "--class", "1", "--rounds", "2", "--steps", "2", "--model"])
        .arg(model)
        .arg("--out")
        .arg(out);
    command.args(args).env(DRIVER, driver).env_remove("DISCON_DEVICE").env_remove("FAKE_CUDA_KERNELS");
    let done = command.envs(settings.iter().copied()).output().unwrap();
    assert!(!String::from_utf8_lossy(&done.stderr).contains("panicked"), "{done:?}");
    done
}

/// Without being told where, it is made on the processor, and one line says why; told to use the GPU, it is not made.
#[track_caller]
fn falls_back(driver: &str, settings: &[(&str, &str)], why: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [auto, cpu, gpu] = ["auto.png", "cpu.png", "gpu.png"].map(|name| folder.path().join(name));
    let done = generate(&auto, &[], driver, settings);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && said.lines().count() == 1, "{said}");
    assert!(said.starts_with("discon: on the processor, since ") && said.contains(why), "no `{why}` in: {said}");
    let done = generate(&cpu, &["--device", "cpu"], driver, settings);
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    assert_eq!(std::fs::read(auto).unwrap(), std::fs::read(cpu).unwrap());
    let done = generate(&gpu, &["--device", "cuda"], driver, settings);
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.starts_with("discon: error: ") && said.contains(why) && said.lines().count() == 1, "{said}");
    assert!(!gpu.exists());
}

#[test]
fn whatever_is_in_the_way_of_the_gpu_the_picture_is_made() {
    falls_back("/nowhere/libcuda.so.1", &[], "found none");
    let Some(driver) = driver() else { return };
    let driver = driver.to_str().unwrap();
    falls_back(driver, &[("FAKE_CUDA_DEVICES", "0")], "NVIDIA GPU: expected one at least, found none");
    falls_back(
        driver,
        &[("FAKE_CUDA_VERSION", "11080")],
        "expected one for CUDA 12.0 or newer, found one for CUDA 11.8",
    );
    falls_back(driver, &[("FAKE_CUDA_REFUSE_PTX", "222")], "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)");
    falls_back(driver, &[("FAKE_CUDA_CAPABILITY", "7.5")], "expected compute capability 8.0 or above, found 7.5");
    // Room for some of the weights.
    falls_back(driver, &[("FAKE_CUDA_MEMORY", "300000")], "bytes free");
}

#[test]
fn the_processor_is_not_looked_past_where_it_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("one.png");
    for args in [["--threads", "1"], ["--isa", "scalar"], ["--device", "cpu"]] {
        let done = generate(&out, &args, "/nowhere/libcuda.so.1", &[]);
        assert!(done.status.success() && done.stderr.is_empty(), "{args:?}: {done:?}");
    }
}

#[test]
fn a_device_that_nobody_knows_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("one.png");
    for (name, why) in [("tpu", "expected auto, cpu, cuda or cuda:N, found `tpu`"), ("cuda:x", "found `cuda:x`")] {
        let done = generate(&out, &["--device", name], "/nowhere/libcuda.so.1", &[]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.code() == Some(1) && said.contains(why), "{said}");
    }
    let Some(driver) = driver() else { return };
    let done = generate(&out, &["--device", "cuda:3"], driver.to_str().unwrap(), &[]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("GPU: expected a number below 1, found 3"), "{done:?}");
}
