//! Folders in kernel order: the same pictures as from the folder they were packed from, nothing copied, clear errors.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::weights::{CONFIG_FILE, DISCON_FILE, RAR_FILE, SynthSize, VAE_FILE, VQ_FILE, synth};
use discon::{Cpu, ErrorKind, Image, Model, Precision, Request, Settings, pack, verify};
use std::path::{Path, PathBuf};
use tempfile::tempdir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn pictures(model: &Model) -> Vec<Image> {
    let settings = Settings { rounds: 3, steps: 4, ..model.settings() };
    let request = Request { classes: vec![1, 2], seeds: vec![5, 6], settings };
    model.generate(Cpu::new(2).unwrap(), &request).unwrap()
}

fn is_used_in_place_and_makes_the_same_pictures(name: &str) {
    for precision in Precision::ALL {
        let dir = tempdir().unwrap();
        let mut parts = 0;
        pack(&fixture(name), dir.path(), precision, &mut |_, bytes| parts += usize::from(bytes > 0)).unwrap();
        assert_eq!(parts, 4);
        let model = Model::open(dir.path()).unwrap();
        assert_eq!(model.precision(), precision);
        assert_eq!(model.weight_memory().copied, 0, "{name} {precision}");
        let from_source = Model::open_as(fixture(name), precision).unwrap();
        assert_eq!(from_source.precision(), precision);
        assert!(pictures(&model) == pictures(&from_source), "{name} {precision}");
        let cases = verify::verify(&model, dir.path(), Cpu::new(1).unwrap(), &mut |_| {}).unwrap();
        assert_eq!(cases.iter().filter(|c| c.passed()).count(), 15, "{name} {precision}");
    }
}

#[test]
fn tiny_packed_is_used_in_place_and_makes_the_same_pictures() {
    is_used_in_place_and_makes_the_same_pictures("tiny");
}

#[test]
fn odd_packed_is_used_in_place_and_makes_the_same_pictures() {
    is_used_in_place_and_makes_the_same_pictures("odd");
}

#[test]
fn eight_bits_take_less_space() {
    let dir = tempdir().unwrap();
    pack(&fixture("tiny"), dir.path(), Precision::Q8, &mut |_, _| {}).unwrap();
    let size = |dir: &Path| std::fs::metadata(dir.join(RAR_FILE)).unwrap().len();
    let (packed, source) = (size(dir.path()), size(&fixture("tiny")));
    // The tables and the padding of these small matrices stay.
    assert!(packed * 4 < source * 3, "{packed} of {source} bytes");
}

#[test]
fn bf16_weights_serve_f32_too_and_other_mixtures_are_errors() {
    let (bf16, again) = (tempdir().unwrap(), tempdir().unwrap());
    pack(&fixture("tiny"), bf16.path(), Precision::Bf16, &mut |_, _| {}).unwrap();
    let wide = Model::open_as(bf16.path(), Precision::F32).unwrap();
    assert_eq!((wide.precision(), wide.weight_memory().copied), (Precision::F32, 0));
    assert_ne!(pictures(&wide), pictures(&Model::open(bf16.path()).unwrap()));

    let error = Model::open_as(bf16.path(), Precision::Q8).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(text.contains("packed for q8") && text.contains("bf16") && text.contains(".weight"), "{text}");

    let error = pack(bf16.path(), again.path(), Precision::F32, &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("packed") && error.to_string().contains("bf16"), "{error}");
    assert!(!again.path().join("discon.json").exists());
    let error = pack(bf16.path(), bf16.path(), Precision::F32, &mut |_, _| {}).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Request);
    Model::open(bf16.path()).unwrap();
}

#[test]
fn a_precision_that_nobody_knows_is_an_error() {
    let dir = tempdir().unwrap();
    pack(&fixture("tiny"), dir.path(), Precision::Bf16, &mut |_, _| {}).unwrap();
    let path = dir.path().join(DISCON_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let name = br#""packed":"bf16""#;
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at..at + name.len()].copy_from_slice(br#""packed":"int4""#);
    std::fs::write(&path, bytes).unwrap();
    let text = Model::open(dir.path()).unwrap_err().to_string();
    assert!(text.contains("int4") && text.contains("f32, bf16 or q8"), "{text}");
    assert!(Precision::named("f16").unwrap_err().to_string().contains("f32, bf16 or q8"));
}

#[test]
fn parts_for_different_precisions_are_no_model() {
    let (bf16, q8) = (tempdir().unwrap(), tempdir().unwrap());
    pack(&fixture("tiny"), bf16.path(), Precision::Bf16, &mut |_, _| {}).unwrap();
    pack(&fixture("tiny"), q8.path(), Precision::Q8, &mut |_, _| {}).unwrap();
    std::fs::copy(q8.path().join(VAE_FILE), bf16.path().join(VAE_FILE)).unwrap();
    let error = Model::open(bf16.path()).unwrap_err();
    let names = [RAR_FILE, VAE_FILE].map(|file| bf16.path().join(file).display().to_string());
    assert_eq!(error.kind(), ErrorKind::Model);
    assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    assert!(error.to_string().contains("expected bf16") && error.to_string().contains("found q8"), "{error}");
    // One that is not packed is for f32.
    std::fs::copy(fixture("tiny").join(VAE_FILE), bf16.path().join(VAE_FILE)).unwrap();
    assert!(Model::open(bf16.path()).unwrap_err().to_string().contains("found f32"));
}

fn cases(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("cases")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The tiny fixture without its discrete autoencoder, with one case.
fn without_vq() -> tempfile::TempDir {
    let dir = tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("tiny").join(CONFIG_FILE)).unwrap();
    let (start, end) = (text.find("\"vq\"").unwrap(), text.find("\"sampling\"").unwrap());
    std::fs::write(dir.path().join(CONFIG_FILE), text[..start].to_owned() + &text[end..]).unwrap();
    for file in [RAR_FILE, DISCON_FILE, VAE_FILE] {
        std::fs::copy(fixture("tiny").join(file), dir.path().join(file)).unwrap();
    }
    std::fs::create_dir(dir.path().join("cases")).unwrap();
    std::fs::write(dir.path().join("cases/mine.safetensors"), "a case").unwrap();
    dir
}

#[test]
fn a_model_that_is_there_goes_first() {
    let (source, out) = (without_vq(), tempdir().unwrap());
    let there = || pack(&fixture("tiny"), out.path(), Precision::Bf16, &mut |_, _| {}).unwrap();
    there();
    std::fs::write(out.path().join("cases/notes.txt"), "not the model's").unwrap();
    pack(source.path(), out.path(), Precision::F32, &mut |_, _| {}).unwrap();
    assert!(!out.path().join(VQ_FILE).exists());
    let mut left = cases(out.path());
    left.sort();
    assert_eq!(left, ["mine.safetensors", "notes.txt"]);
    assert_eq!(Model::open(out.path()).unwrap().precision(), Precision::F32);

    // Cut short it leaves no model: here in the second part.
    there();
    let bytes = std::fs::read(source.path().join(DISCON_FILE)).unwrap();
    let at = bytes.windows(9).position(|w| w == b"diffloss.").unwrap();
    let mut renamed = bytes.clone();
    renamed[at..at + 9].copy_from_slice(b"diffluss.");
    std::fs::write(source.path().join(DISCON_FILE), renamed).unwrap();
    let mut wrote = Vec::new();
    pack(source.path(), out.path(), Precision::F32, &mut |file, _| wrote.push(file.to_owned())).unwrap_err();
    assert_eq!(wrote, [RAR_FILE]);
    assert!(!out.path().join(CONFIG_FILE).exists());

    // What cannot be packed at all leaves the model that is there alone.
    there();
    let packed = tempdir().unwrap();
    pack(&fixture("odd"), packed.path(), Precision::Q8, &mut |_, _| {}).unwrap();
    pack(packed.path(), out.path(), Precision::Q8, &mut |_, _| {}).unwrap_err();
    assert_eq!(Model::open(out.path()).unwrap().precision(), Precision::Bf16);

    // Random weights too.
    synth(SynthSize::Tiny, out.path(), discon::tensor::DType::BF16, 0, &mut |_, _| ()).unwrap();
    assert_eq!(cases(out.path()), ["notes.txt"]);

    // Where there is no model, files of such names stay.
    let other = tempdir().unwrap();
    std::fs::write(other.path().join(VQ_FILE), "somebody's").unwrap();
    std::fs::write(source.path().join(DISCON_FILE), bytes).unwrap();
    pack(source.path(), other.path(), Precision::F32, &mut |_, _| {}).unwrap();
    assert_eq!(std::fs::read(other.path().join(VQ_FILE)).unwrap(), b"somebody's");
}

/// To open a pipe is to wait for its writer.
#[cfg(unix)]
#[test]
fn a_pipe_among_the_cases_is_an_error() {
    let (source, out) = (without_vq(), tempdir().unwrap());
    let pipe = source.path().join("cases/pipe.safetensors");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let error = pack(source.path(), out.path(), Precision::F32, &mut |_, _| {}).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.to_string().contains(&pipe.display().to_string()), "{error}");
    assert!(!out.path().join(CONFIG_FILE).exists());
}
