//! Requests that a model cannot serve: each gets an error of its kind that names the thing, and the next request works.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Edit, ErrorKind, Image, Model, Outputs, Request, Settings, Start};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn tiny() -> Model {
    Model::open(folder("tiny")).unwrap()
}

fn quick(model: &Model) -> Settings {
    Settings { rounds: 2, steps: 2, ..model.settings() }
}

#[test]
fn settings_out_of_range_are_named() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    type Change = fn(&mut Settings);
    let bad: [(&str, Change); 18] = [
        ("rounds", |s| s.rounds = 0),
        ("rounds", |s| s.rounds = 17),
        ("rounds", |s| s.rounds = usize::MAX),
        ("steps", |s| s.steps = 0),
        ("steps", |s| s.steps = 1001),
        ("guidance", |s| s.guidance = f64::NAN),
        ("guidance", |s| s.guidance = f64::INFINITY),
        ("guidance", |s| s.guidance = -1.0),
        ("temperature", |s| s.temperature = f64::NAN),
        ("temperature", |s| s.temperature = -0.1),
        ("discrete_guidance", |s| s.discrete_guidance = f64::NAN),
        ("discrete_guidance", |s| s.discrete_guidance = 1e9),
        ("discrete_guidance_pow", |s| s.discrete_guidance_pow = 0.0),
        ("discrete_guidance_pow", |s| s.discrete_guidance_pow = f64::NAN),
        ("discrete_temperature", |s| s.discrete_temperature = 0.0),
        ("discrete_temperature", |s| s.discrete_temperature = f64::NEG_INFINITY),
        ("clip_x0", |s| s.clip_x0 = Some(f32::NAN)),
        ("clip_x0", |s| s.clip_x0 = Some(0.0)),
    ];
    for (name, change) in bad {
        let mut settings = quick(&model);
        change(&mut settings);
        let error = model.session(&cpu, 1, &settings, Outputs::IMAGE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{name}: {error}");
    }
    let request = Request { classes: vec![1], seeds: vec![1], settings: quick(&model) };
    assert_eq!(model.generate(&cpu, &request).unwrap().len(), 1);
}

#[test]
fn settings_at_the_edge_of_their_range_work() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    type Change = fn(&mut Settings);
    let edges: [Change; 8] = [
        |s| s.rounds = 1,
        |s| s.rounds = 16,
        |s| s.steps = 1,
        |s| (s.guidance, s.discrete_guidance) = (0.0, 0.0),
        |s| (s.guidance, s.discrete_guidance) = (1.0, 1.0),
        |s| (s.guidance, s.discrete_guidance) = (1000.0, 1000.0),
        |s| s.temperature = 0.0,
        |s| (s.discrete_temperature, s.clip_x0) = (1e-300, Some(1e-3)),
    ];
    for change in edges {
        let mut settings = quick(&model);
        change(&mut settings);
        let images = model.generate(&cpu, &Request { classes: vec![0, 7], seeds: vec![0, u64::MAX], settings });
        assert_eq!(images.unwrap().len(), 2);
    }
}

#[test]
fn classes_seeds_and_batches_that_do_not_fit_are_refused() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    let mut session = model.session(&cpu, 2, &quick(&model), Outputs::IMAGE).unwrap();
    for (classes, seeds) in [(&[0][..], &[0, 1][..]), (&[0, 1], &[0]), (&[], &[]), (&[0, 1, 2], &[0, 1, 2])] {
        assert_eq!(session.begin(classes, seeds).unwrap_err().kind(), ErrorKind::Request);
    }
    let error = session.begin(&[0, 8], &[0, 1]).unwrap_err();
    assert!(error.to_string().contains('8') && error.to_string().contains('7'), "{error}");
    let error = session.run(|_| {}).unwrap_err();
    assert!(error.to_string().contains("begin"), "{error}");
    session.begin(&[0, 6], &[0, 1]).unwrap();
    session.run(|_| {}).unwrap();
    assert_eq!(session.images().unwrap().len(), 2);

    for batch in [0, 1 << 40] {
        let error = model.session(&cpu, batch, &quick(&model), Outputs::IMAGE).unwrap_err();
        assert!(error.to_string().contains("batch"), "{error}");
    }
    for name in ["class-7", "7", "-1", "", "1e3"] {
        let error = model.class(name).unwrap_err();
        assert!(error.to_string().contains(&format!("`{name}`")) && error.to_string().contains("class-0"), "{error}");
    }
    assert_eq!((model.class("class-6").unwrap(), model.class("3").unwrap()), (6, 3));
}

#[test]
fn codes_that_do_not_fit_are_refused() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    let given = Outputs { given_codes: true, ..Outputs::IMAGE };
    let mut session = model.session(&cpu, 2, &quick(&model), given).unwrap();
    let error = session.begin(&[0, 1], &[0, 1]).unwrap_err();
    assert!(error.kind() == ErrorKind::Request && error.to_string().contains("given_codes"), "{error}");
    let row = |code: u32| [vec![3; 15], vec![code]].concat();
    type Wrong<'a> = (&'a [usize], &'a [Vec<u32>], &'a [&'a str]);
    let wrong: [Wrong<'_>; 8] = [
        (&[0, 1], &[], &["2 images", "found 0"]),
        (&[0, 1], &[row(3)], &["2 images", "found 1"]),
        (&[0, 1], &[row(3), row(3), row(3)], &["2 images", "found 3"]),
        (&[0, 1], &[row(3), vec![3; 15]], &["image 1", "16", "15"]),
        (&[0, 1], &[vec![], row(3)], &["image 0", "16", "found 0"]),
        (&[0, 1], &[row(3), row(40)], &["image 1", "below 40", "found 40"]),
        (&[0, 1], &[row(u32::MAX), row(3)], &["image 0", "below 40", "4294967295"]),
        (&[0, 9], &[row(3), row(3)], &["class", "9"]),
    ];
    for (classes, codes, names) in wrong {
        let error = session.begin_with_codes(classes, &[0, 1], codes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Request, "{error}");
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{names:?}: {error}");
        assert!(session.run(|_| {}).is_err());
    }
    session.begin_with_codes(&[0, 1], &[0, 1], &[row(39), row(0)]).unwrap();
    session.step(Duration::ZERO).unwrap();
    // A request that is refused leaves the one that runs alone.
    session.begin_with_codes(&[0, 1], &[0, 1], &[row(40), row(0)]).unwrap_err();
    session.run(|_| {}).unwrap();
    assert_eq!(session.images().unwrap().len(), 2);
    assert_eq!(session.codes().unwrap(), [row(39), row(0)]);

    let mut session = model.session(&cpu, 1, &quick(&model), Outputs::IMAGE).unwrap();
    let error = session.begin_with_codes(&[0], &[0], &[row(3)]).unwrap_err();
    assert!(error.kind() == ErrorKind::Request && error.to_string().contains("given_codes"), "{error}");
    session.begin(&[0], &[0]).unwrap();
    session.run(|_| {}).unwrap();
    // Stage 2 of this model has no discrete tokens: only the coarse picture has a use for them.
    let odd = Model::open(folder("odd")).unwrap();
    let error = odd.session(&cpu, 1, &quick(&odd), given).unwrap_err();
    assert!(error.to_string().contains("`given_codes`"), "{error}");
    odd.session(&cpu, 1, &quick(&odd), Outputs { preview: true, ..given }).unwrap();
    // Nor has it for some of them, or those of an edit.
    let codes = Start { codes: vec![vec![Some(0); 25]], ..Start::default() };
    let edit = Start::of(Edit::Variations { codes: vec![0; 25], share: 0.5 });
    let mut session = odd.session(&cpu, 1, &quick(&odd), Outputs::IMAGE).unwrap();
    for start in [&codes, &edit] {
        let error = session.begin_with(&[0], &[0], start).unwrap_err();
        assert!(error.kind() == ErrorKind::Request && error.to_string().starts_with("codes: expected none"), "{error}");
    }
    session.begin(&[0], &[0]).unwrap();
    let request = Request { classes: vec![0], seeds: vec![0], settings: quick(&odd) };
    odd.variations(&cpu, &[0; 25], 0.5, &request).unwrap_err();
    let mut session = odd.session(&cpu, 1, &quick(&odd), Outputs::IMAGE_AND_PREVIEW).unwrap();
    session.begin_with(&[0], &[0], &codes).unwrap();
}

#[test]
fn settings_of_a_stage_that_does_not_run_do_not_count() {
    let read = |f: &str| (f.to_owned(), std::sync::Arc::new(std::fs::read(folder("tiny").join(f)).unwrap()) as _);
    let mut config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder("tiny").join("discon.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("discon");
    config["sampling"]["discon"]["ar_steps"] = 64.into();
    let config = ("discon.json".to_owned(), std::sync::Arc::new(config.to_string().into_bytes()) as _);
    let model = Model::from_bytes([config, read("rar.safetensors"), read("vq.safetensors")]).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let mut session = model.session(&cpu, 1, &model.settings(), Outputs::DISCRETE_ONLY).unwrap();
    session.begin(&[1], &[1]).unwrap();
    session.run(|_| {}).unwrap();
    let bad = Settings { discrete_temperature: 0.0, ..model.settings() };
    model.session(&cpu, 1, &bad, Outputs::DISCRETE_ONLY).unwrap_err();
}

#[test]
fn outputs_that_contradict_each_other_are_refused() {
    let (model, odd, cpu) = (tiny(), Model::open(folder("odd")).unwrap(), Cpu::new(1).unwrap());
    let some = Outputs { discrete_tokens: Some(3), ..Outputs::IMAGE };
    let encoding = Outputs { encodes: true, known_places: 2, ..Outputs::IMAGE };
    for (model, outputs, name) in [
        (&odd, some, "`discrete_tokens`"),
        (&model, Outputs { given_codes: true, ..some }, "`discrete_tokens`"),
        (&model, Outputs { given_codes: true, ..encoding }, "`given_codes`"),
    ] {
        let error = model.session(&cpu, 1, &quick(model), outputs).unwrap_err();
        assert!(error.kind() == ErrorKind::Request && error.to_string().contains(name), "{error}");
    }
    for outputs in [some, encoding] {
        model.session(&cpu, 1, &quick(&model), outputs).unwrap();
    }
}

#[test]
fn memory_that_no_machine_has_is_an_error() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    let settings = Settings { rounds: 16, steps: 1000, ..model.settings() };
    // The largest batch is some 10 GB: whether it can be had or not, nothing may panic or abort.
    match model.session(&cpu, 65_536, &settings, Outputs::IMAGE) {
        Ok(session) => assert!(session.plan().arena_bytes(1) > 1 << 30),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Resources, "{error}"),
    }
    assert_eq!(Cpu::new(1 << 20).unwrap_err().kind(), ErrorKind::Request);
    assert_eq!(Cpu::new(1).unwrap().with_isa("neon9").unwrap_err().kind(), ErrorKind::Unsupported);
}

#[test]
fn images_of_the_wrong_size_are_refused() {
    let model = tiny();
    let cpu = Cpu::new(1).unwrap();
    let right = Image::new(8, 8, vec![90; 192]).unwrap();
    for image in [Image::new(8, 7, vec![0; 168]).unwrap(), Image::new(16, 16, vec![0; 768]).unwrap()] {
        for error in [model.reconstruct(&cpu, &image), model.reconstruct_discrete(&cpu, &image)] {
            let error = error.unwrap_err();
            assert!(error.to_string().contains("8 x 8"), "{error}");
        }
        assert!(image.psnr(&right).is_err());
    }
    assert_eq!(model.reconstruct(&cpu, &right).unwrap().width(), 8);
    assert_eq!(model.reconstruct_discrete(&cpu, &right).unwrap().height(), 8);
    for (w, h, bytes) in [(8, 8, 191), (0, 0, 0), (usize::MAX, 2, 6), (1, 1, 4)] {
        assert_eq!(Image::new(w, h, vec![0; bytes]).unwrap_err().kind(), ErrorKind::Request);
    }
}

#[test]
fn a_missing_part_is_named_by_what_needs_it() {
    let files = ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];
    let cpu = Cpu::new(1).unwrap();
    for missing in &files[1..] {
        let read = |f: &&str| (f.to_string(), std::sync::Arc::new(std::fs::read(folder("tiny").join(f)).unwrap()) as _);
        let model = Model::from_bytes(files.iter().filter(|f| f != &missing).map(read)).unwrap();
        let session = |outputs| model.session(&cpu, 1, &quick(&model), outputs).map(drop);
        let (image, discrete) = (session(Outputs::IMAGE), session(Outputs::DISCRETE_ONLY));
        let needs_image = *missing != "vq.safetensors";
        let needs_discrete = matches!(*missing, "vq.safetensors" | "rar.safetensors");
        for (result, needs) in [(image, needs_image), (discrete, needs_discrete)] {
            assert_eq!(result.is_err(), needs, "without {missing}");
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains(missing), "{missing}: {error}");
            }
        }
        let given = session(Outputs { given_codes: true, ..Outputs::IMAGE });
        assert_eq!(given.is_ok(), matches!(*missing, "vq.safetensors" | "rar.safetensors"), "without {missing}");
    }
}

#[test]
fn a_model_from_memory_makes_the_same_picture() {
    let cpu = Cpu::new(2).unwrap();
    let read = |f: &str| (f.to_owned(), std::sync::Arc::new(std::fs::read(folder("tiny").join(f)).unwrap()) as _);
    let files = ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];
    let memory = Model::from_bytes(files.map(read)).unwrap();
    let of = |model: &Model| {
        let settings = quick(model);
        model.generate(&cpu, &Request { classes: vec![3], seeds: vec![5], settings }).unwrap()
    };
    assert_eq!(of(&memory), of(&tiny()));
}
