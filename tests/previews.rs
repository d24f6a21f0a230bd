//! Pictures of what is drawn so far.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Stage;
use discon::{Cpu, Error, ErrorKind, Image, Model, Outputs, Session, Settings, Start};
use std::path::Path;
use std::time::Duration;

fn model(folder: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap()
}

fn session(model: &Model, outputs: Outputs) -> Session {
    let settings = Settings { rounds: 5, steps: 6, ..model.settings() };
    let mut session = model.session(Cpu::new(2).unwrap(), 2, &settings, outputs).unwrap();
    session.begin(&[1, 2], &[10, 11]).unwrap();
    session
}

const PREVIEWING: Outputs = Outputs { partial_previews: true, ..Outputs::IMAGE };

#[test]
fn they_change_nothing_and_come_to_be_the_picture() {
    for folder in ["tests/fixtures/tiny", "tests/fixtures/odd"] {
        let model = model(folder);
        let mut plain = session(&model, Outputs::IMAGE);
        plain.run(|_| ()).unwrap();
        let expected = plain.images().unwrap();
        let mut previewing = session(&model, PREVIEWING);
        let mut made: Vec<Vec<Image>> = Vec::new();
        while !previewing.progress().finished {
            let (before, codes) = (previewing.progress(), previewing.codes().ok());
            match previewing.preview_now() {
                Ok(images) if made.last() != Some(&images) => made.push(images),
                Ok(_) => {}
                Err(error) => assert!(made.is_empty() && error.kind() == ErrorKind::Request, "{error}"),
            }
            assert_eq!((previewing.progress(), previewing.codes().ok()), (before, codes));
            // Now and then a preview in the middle of everything.
            for _ in 0..37 {
                previewing.step(Duration::ZERO).unwrap();
            }
        }
        assert!(previewing.images().unwrap() == expected, "{folder}");
        // One after each round but the last, whose end the decoder's is.
        assert_eq!(made.len(), 5, "{folder}");
        assert!(made[4] == expected && previewing.preview_now().unwrap() == expected, "{folder}");
    }
}

/// Where there is a coarse picture, previews are nearer to the picture from the start, and nothing else changes.
#[test]
fn what_is_not_drawn_shows_the_coarse_picture() {
    let model = model("weights/avatars-64");
    let settings = Settings { rounds: 6, steps: 8, ..model.settings() };
    let run = |outputs| {
        let mut session = model.session(Cpu::new(2).unwrap(), 1, &settings, outputs).unwrap();
        session.begin(&[model.class("lorelei").unwrap()], &[7]).unwrap();
        // The first preview, and whether anything was drawn by then.
        let (mut first, mut drew): (Option<(bool, Image)>, _) = (None, false);
        while !session.progress().finished {
            drew |= session.progress().stage == Stage::Head;
            if first.is_none()
                && let Ok(mut images) = session.preview_now()
            {
                first = Some((drew, images.remove(0)));
            }
            session.step(Duration::ZERO).unwrap();
        }
        (first.unwrap(), session.previews().ok(), session.images().unwrap())
    };
    let (nearest, none, image) = run(PREVIEWING);
    let (coarse, shown, image_too) = run(Outputs { partial_previews: true, ..Outputs::IMAGE_AND_PREVIEW });
    let (_, same, expected) = {
        let mut session = model.session(Cpu::new(2).unwrap(), 1, &settings, Outputs::IMAGE_AND_PREVIEW).unwrap();
        session.begin(&[model.class("lorelei").unwrap()], &[7]).unwrap();
        session.run(|_| ()).unwrap();
        ((), session.previews().ok(), session.images().unwrap())
    };
    assert!(image == expected && image_too == expected && none.is_none() && shown == same);
    // Before the first round it is the coarse picture, through the other autoencoder.
    let through = model.reconstruct(Cpu::new(2).unwrap(), &same.unwrap()[0]).unwrap();
    let (near, far) = (coarse.1.psnr(&through).unwrap(), nearest.1.psnr(&expected[0]).unwrap());
    assert!(nearest.0 && !coarse.0);
    assert!(near > 35.0 && coarse.1.psnr(&expected[0]).unwrap() > far + 3.0, "{near} {far}");
}

#[test]
fn they_are_cut_to_a_budget_and_their_cost_is_known() {
    let model = model("tests/fixtures/tiny");
    let mut session = session(&model, PREVIEWING);
    let (cost, decode) = (session.preview_cost().unwrap(), session.plan().cost(Stage::Decode).flops as f64);
    assert!(cost > 0.0 && cost < 1.0 && decode > 0.0, "{cost}");
    assert!(session.step_preview(Duration::ZERO).is_err() && session.partial_previews().is_err());
    while session.progress().stage != Stage::Head || session.progress().index < 2 {
        session.step(Duration::ZERO).unwrap();
    }
    let expected = session.preview_now().unwrap();
    session.begin_preview().unwrap();
    assert!(session.partial_previews().is_err());
    let (mut steps, mut last) = (0, 0.0);
    loop {
        let p = session.step_preview(Duration::ZERO).unwrap();
        assert!(p.fraction >= last && p.stage == Stage::Decode);
        (last, steps) = (p.fraction, steps + 1);
        if p.finished {
            break;
        }
        // The run goes on meanwhile; what was taken stays.
        session.step(Duration::ZERO).unwrap();
    }
    assert!(steps > 20, "{steps}");
    assert!(session.partial_previews().unwrap() == expected);
    // What was begun is given up by another request, and by cancelling.
    session.begin_preview().unwrap();
    session.canceller().cancel();
    assert!(matches!(session.step_preview(Duration::ZERO), Err(Error::Cancelled)));
    session.begin(&[0, 0], &[1, 2]).unwrap();
    assert!(session.step_preview(Duration::ZERO).is_err() && session.partial_previews().is_err());
    assert!(session.begin_preview().is_err());
}

#[test]
fn a_session_without_them_says_so_and_has_no_memory_for_them() {
    let model = model("tests/fixtures/tiny");
    let (mut plain, previewing) = (session(&model, Outputs::IMAGE), session(&model, PREVIEWING));
    assert!(plain.preview_cost().is_none() && plain.own_bytes() < previewing.own_bytes());
    plain.run(|_| ()).unwrap();
    assert!(plain.preview_now().unwrap_err().to_string().contains("`partial_previews`"));
}

#[test]
fn an_edit_keeps_its_pixels_in_previews_and_shows_from_the_start() {
    let model = model("weights/avatars-64");
    let size = model.image_size();
    let settings = Settings { rounds: 4, steps: 5, ..model.settings() };
    let rgb: Vec<u8> = (0..size * size * 3).map(|i| (i * 7 % 251) as u8).collect();
    let image = Image::new(size, size, rgb).unwrap();
    let mask: Vec<bool> = (0..size * size).map(|i| i % size < 30).collect();
    let start = Start::of(discon::Edit::Inpaint { image: image.clone(), mask: mask.clone() });
    let outputs = Outputs { partial_previews: true, ..model.outputs_for(&start).unwrap() };
    let mut session = model.session(Cpu::new(2).unwrap(), 1, &settings, outputs).unwrap();
    session.begin_with(&[1], &[2], &start).unwrap();
    let mut previews = Vec::new();
    while !session.progress().finished {
        let stage = session.progress().stage;
        match session.preview_now() {
            Ok(images) => previews.extend(images),
            Err(_) => assert!(matches!(stage, Stage::Prepare | Stage::Encode | Stage::Discrete), "{stage}"),
        }
        session.step(Duration::from_millis(5)).unwrap();
    }
    previews.dedup();
    assert!(previews.len() > 3, "{}", previews.len());
    for preview in &previews {
        let pixels = preview.rgb().chunks(3).zip(image.rgb().chunks(3)).zip(&mask);
        assert!(pixels.filter(|(_, masked)| !**masked).all(|((new, old), _)| new == old));
    }
}
