//! Folders in kernel order: the same pictures as from the folder they were packed from, nothing copied, clear errors.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::weights::{DISCON_FILE, RAR_FILE};
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
