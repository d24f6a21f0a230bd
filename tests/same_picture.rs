//! The same picture from the same seed: for any batch, any number of threads, any pauses, bit for bit on one
//! instruction set.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Stage;
use discon::simd::Isa;
use discon::{Cpu, Error, ErrorKind, Image, Model, Outputs, Precision, Session, Settings};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn model(name: &str) -> Model {
    Model::open(folder(name)).unwrap()
}

/// `.ci/aarch64` runs these on an emulator, bfloat16 bit by bit: there less of the same is done.
fn of(whole: usize, emulated: usize) -> usize {
    if std::env::var_os("QEMU_CPU").is_some() { emulated } else { whole }
}

fn settings(model: &Model) -> Settings {
    Settings { rounds: of(4, 3), steps: of(6, 4), ..model.settings() }
}

/// Images of classes 1, 2, 3, ... from seeds 10, 11, ... in batches of `batch`.
fn images(model: &Model, cpu: &Cpu, batch: usize, count: usize, budget: Option<Duration>) -> Vec<Image> {
    let mut session = model.session(cpu, batch, &settings(model), Outputs::IMAGE).unwrap();
    let mut all = Vec::new();
    for first in (0..count).step_by(batch) {
        // The last batch is filled up with whatever: its neighbours must not show.
        let classes: Vec<usize> = (first..first + batch).map(|i| (i + 1) % model.config().classes.len()).collect();
        let seeds: Vec<u64> = (first..first + batch).map(|i| 10 + i as u64).collect();
        session.begin(&classes, &seeds).unwrap();
        finish(&mut session, budget);
        all.extend(session.images().unwrap());
    }
    all.truncate(count);
    all
}

fn finish(session: &mut Session, budget: Option<Duration>) {
    match budget {
        None => session.run(|_| {}).unwrap(),
        Some(budget) => {
            let mut last = 0.0;
            loop {
                let p = session.step(budget).unwrap();
                assert!(p.fraction >= last && p.fraction <= 1.0);
                last = p.fraction;
                if p.finished {
                    assert_eq!(p.fraction, 1.0);
                    return;
                }
            }
        }
    }
}

#[test]
fn batch_threads_and_pauses_do_not_show() {
    let models = ["tiny", "odd"].into_iter().flat_map(|name| Precision::ALL.map(|precision| (name, precision)));
    for (name, precision) in models {
        let model = Model::open_as(folder(name), precision).unwrap();
        for isa in Isa::distinct(precision) {
            let cpu = |threads| Cpu::new(threads).unwrap().with_isa(isa.name()).unwrap();
            let count = of(5, 3);
            let alone = images(&model, &cpu(1), 1, count, None);
            assert_ne!(alone[0], alone[1]);
            for (batch, threads, budget) in [(1, 3, None), (2, 2, None), (count, 1, None), (3, 4, Some(Duration::ZERO))]
            {
                let others = images(&model, &cpu(threads), batch, count, budget);
                assert!(
                    alone == others,
                    "{name} in {precision} on {isa}: batch {batch}, {threads} threads, budget {budget:?}"
                );
            }
        }
    }
}

fn images_by(isa: Isa, model: &Model) -> Vec<Image> {
    images(model, &Cpu::new(1).unwrap().with_isa(isa.name()).unwrap(), 3, 3, None)
}

#[test]
fn instruction_sets_agree_up_to_rounding() {
    let model = model("tiny");
    let scalar = images_by(Isa::named("scalar").unwrap(), &model);
    for isa in Isa::distinct(model.precision()) {
        for (a, b) in images_by(isa, &model).iter().zip(&scalar) {
            let apart = a.rgb().iter().zip(b.rgb()).filter(|(a, b)| a.abs_diff(**b) > 1).count();
            assert!(apart == 0, "{isa}: {apart} bytes differ by more than 1");
        }
    }
}

/// What is left out of [`Isa::distinct`] needs no tests of its own.
#[test]
fn instruction_sets_of_the_same_code_give_the_same_bits() {
    for precision in Precision::ALL {
        let model = Model::open_as(folder("tiny"), precision).unwrap();
        let distinct = Isa::distinct(precision);
        let mut before = None;
        for isa in Isa::available() {
            if distinct.contains(&isa) {
                before = Some((isa, None));
                continue;
            }
            let (other, pictures) = before.as_mut().unwrap();
            let pictures = pictures.get_or_insert_with(|| images_by(*other, &model));
            assert!(images_by(isa, &model) == *pictures, "{precision} on {isa} is not as on {other}");
        }
    }
}

#[test]
fn the_preview_is_there_before_stage_2_and_changes_nothing() {
    let model = model("tiny");
    let cpu = Cpu::new(2).unwrap();
    let run = |outputs| {
        let mut session = model.session(&cpu, 2, &settings(&model), outputs).unwrap();
        session.begin(&[1, 2], &[10, 11]).unwrap();
        assert_eq!(session.previews().unwrap_err().kind(), ErrorKind::Request);
        while matches!(session.progress().stage, Stage::Prepare | Stage::Discrete | Stage::Preview)
            && !session.progress().finished
        {
            session.step(Duration::ZERO).unwrap();
        }
        let previews = session.previews().ok();
        session.run(|_| {}).unwrap();
        (previews, session.images().ok(), session.codes().unwrap())
    };
    let (none, image, codes) = run(Outputs::IMAGE);
    let (preview, image_too, codes_too) = run(Outputs::IMAGE_AND_PREVIEW);
    let (only, no_image, codes_only) = run(Outputs::DISCRETE_ONLY);
    assert!(none.is_none() && no_image.is_none() && preview.is_some());
    assert_eq!((&image, &codes), (&image_too, &codes_too));
    assert_eq!((&preview, &codes), (&only, &codes_only));
    assert!(codes.iter().flatten().all(|&c| (c as usize) < model.config().vq.as_ref().unwrap().codebook_size));
}

#[test]
fn given_the_codes_that_stage_1_drew_the_pictures_are_the_same() {
    let model = model("tiny");
    let (classes, seeds) = ([1, 2, 3], [10, 11, 12]);
    let drawn = |cpu: &Cpu, outputs| {
        let mut session = model.session(cpu, 3, &settings(&model), outputs).unwrap();
        session.begin(&classes, &seeds).unwrap();
        session.run(|_| {}).unwrap();
        (session.codes().unwrap(), session.previews().ok(), session.images().ok())
    };
    for isa in Isa::available() {
        let cpu = Cpu::new(2).unwrap().with_isa(isa.name()).unwrap();
        for outputs in [Outputs::IMAGE, Outputs::IMAGE_AND_PREVIEW, Outputs::DISCRETE_ONLY] {
            let (codes, preview, image) = drawn(&cpu, outputs);
            let given = Outputs { given_codes: true, ..outputs };
            let mut session = model.session(&cpu, 3, &settings(&model), given).unwrap();
            assert!(!session.times().contains_key(&Stage::Discrete), "{outputs:?}");
            // Others first: nothing of theirs may stay.
            for codes in [&vec![vec![0; 16]; 3], &codes] {
                session.begin_with_codes(&classes, &seeds, codes).unwrap();
                assert_eq!(&session.codes().unwrap(), codes);
                session.run(|_| {}).unwrap();
                let same = (session.previews().ok(), session.images().ok()) == (preview.clone(), image.clone());
                assert_eq!(same, codes[0] != [0; 16], "{outputs:?} on {isa}");
            }
        }
    }
}

#[test]
fn another_thread_can_cancel_at_any_time() {
    let model = model("tiny");
    let long = Settings { rounds: 16, steps: 1000, ..model.settings() };
    let mut session = model.session(Cpu::new(2).unwrap(), 16, &long, Outputs::IMAGE).unwrap();
    for wait in [0, 3, 20] {
        session.begin(&[1; 16], &[10; 16]).unwrap();
        let canceller = session.canceller();
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(wait));
            canceller.cancel();
        });
        assert!(matches!(session.run(|_| {}), Err(Error::Cancelled)), "after {wait} ms");
        other.join().unwrap();
    }
}

#[test]
fn a_cancelled_session_can_be_used_again_at_once() {
    let model = model("tiny");
    let cpu = Cpu::new(2).unwrap();
    let expected = images(&model, &cpu, 1, 1, None);
    let mut session = model.session(&cpu, 1, &settings(&model), Outputs::IMAGE).unwrap();
    session.begin(&[1], &[10]).unwrap();
    let canceller = session.canceller();
    let mut turns = 0;
    let result = session.run(|_| {
        turns += 1;
        if turns == 20 {
            canceller.cancel();
        }
    });
    assert!(matches!(result, Err(Error::Cancelled)) && turns == 20, "{turns}");
    assert_eq!(session.images().unwrap_err().kind(), ErrorKind::Request);
    session.begin(&[1], &[10]).unwrap();
    session.run(|_| {}).unwrap();
    assert_eq!(session.images().unwrap(), expected);
}
