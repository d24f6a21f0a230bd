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

/// `--kernels`: what lies there is taken in the place of what is embedded, and what is wrong with it is told by its file's name.
#[test]
fn kernels_of_a_folder_are_taken() {
    let Some(driver) = driver() else { return };
    let driver = driver.to_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (out, kernels) = (folder.path().join("one.png"), folder.path().join("kernels"));
    std::fs::create_dir(&kernels).unwrap();
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/ptx/linear.ptx");
    let ptx = std::fs::read_to_string(own).unwrap();
    let with = |name: &str, text: &str| {
        std::fs::remove_dir_all(&kernels).unwrap();
        std::fs::create_dir(&kernels).unwrap();
        std::fs::write(kernels.join(name), text).unwrap();
        generate(&out, &["--device", "cuda", "--kernels", kernels.to_str().unwrap()], driver, &[])
    };
    let fails = |name: &str, text: &str, why: &str| {
        let done = with(name, text);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.code() == Some(1) && said.contains(why), "no `{why}` in: {said}");
    };
    // The same again, which this driver only counts.
    let done = with("linear.ptx", &ptx);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let newer = ptx.replace(".version 8.0", ".version 9.9");
    fails(
        "linear.ptx",
        &newer,
        "linear.ptx: expected a driver for CUDA 13.9 or newer, for PTX 9.9, found CUDA_ERROR_UNSUPPORTED",
    );
    fails("linear.ptx", &ptx.replace("linear_few_f32", "linear_f32_few"), "kernel `linear_few_f32` of ");
    fails("other.ptx", &ptx, "other.ptx: expected one of advance.ptx, ");
    fails("readme.txt", "", "folder of kernels: expected files *.ptx, found none in ");
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
