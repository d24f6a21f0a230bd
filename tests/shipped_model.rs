//! The model in the repository: small enough to ship, licensed, exact, and of every class it names.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::simd::Isa;
use discon::{Cpu, Image, Model, Request, Settings, verify};
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/avatars-64")
}

#[test]
fn it_holds_its_own_cases_on_every_instruction_set() {
    let model = Model::open(folder()).unwrap();
    for isa in Isa::distinct(model.precision()) {
        let cpu = Cpu::new(2).unwrap().with_isa(isa.name()).unwrap();
        let reports = verify::verify(&model, &folder(), &cpu, &mut |r| {
            let failure = r.failure.as_ref().map_or(String::new(), ToString::to_string);
            println!("{isa} {}: {:.2e} of {:.0e} {failure}", r.name, r.error, r.bound);
        });
        let reports = reports.unwrap();
        let kinds: std::collections::BTreeSet<&str> = reports.iter().map(|r| r.kind.as_str()).collect();
        assert_eq!(kinds.len(), 10, "{kinds:?}");
        assert!(reports.iter().all(verify::CaseReport::passed), "{isa}");
    }
}

#[test]
fn it_is_small_and_says_who_made_what() {
    let weights = ["rar", "discon", "vae", "vq"].map(|n| folder().join(format!("{n}.safetensors")));
    let bytes: u64 = weights.iter().map(|f| std::fs::metadata(f).unwrap().len()).sum();
    assert!(bytes <= 32_000_000, "{bytes} bytes of weights");
    let model = Model::open(folder()).unwrap();
    let config = model.config();
    assert!(config.licence.as_ref().is_some_and(|l| !l.is_empty()));
    assert!(config.attribution.as_ref().is_some_and(|a| a.contains("DiceBear")));
    assert_eq!((config.classes.len(), config.image_size), (16, 64));
}

/// Mean and standard deviation of a picture's bytes.
fn moments(image: &Image) -> (f64, f64) {
    let n = image.rgb().len() as f64;
    let mean = image.rgb().iter().map(|&b| f64::from(b)).sum::<f64>() / n;
    let squares: f64 = image.rgb().iter().map(|&b| (f64::from(b) - mean).powi(2)).sum();
    (mean, (squares / n).sqrt())
}

#[test]
fn every_class_gives_pictures_of_its_own() {
    let model = Model::open(folder()).unwrap();
    let classes: Vec<usize> = (0..model.config().classes.len()).collect();
    let settings = Settings { rounds: 4, steps: 10, ..model.settings() };
    let seeds = vec![11; classes.len()];
    let images = model.generate(Cpu::new(2).unwrap(), &Request { classes, seeds, settings }).unwrap();
    for (i, image) in images.iter().enumerate() {
        let (mean, deviation) = moments(image);
        // Neither flat nor black nor white: there is a drawing in it.
        assert!(deviation > 15.0 && (20.0..240.0).contains(&mean), "class {i}: {mean} {deviation}");
        assert!(images[..i].iter().all(|other| other.psnr(image).unwrap() < 25.0), "class {i} looks like another");
    }
}
