//! Pictures made of pictures: what is known stays, the rest is drawn as if all had been.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Stage;
use discon::weights::GuidanceSchedule;
use discon::{Cpu, Edit, Error, Image, Known, Model, Order, Outputs, Precision, Request, Session, Settings, Start};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn shipped() -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/avatars-64")).unwrap()
}

fn tiny() -> Model {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/tiny"].iter().collect();
    Model::open(folder).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(2).unwrap()
}

fn request(model: &Model, classes: &[usize], seeds: &[u64]) -> Request {
    let settings = Settings { rounds: 3, steps: 6, ..model.settings() };
    Request { classes: classes.to_vec(), seeds: seeds.to_vec(), settings }
}

/// A picture of the model's size that is not flat.
fn picture(model: &Model) -> Image {
    let settings = Settings { rounds: 4, steps: 10, ..model.settings() };
    model.generate(cpu(), &Request { classes: vec![1], seeds: vec![3], settings }).unwrap().remove(0)
}

/// The last round of a run, begun again from what was known before it, gives the bits that it gave.
#[test]
fn a_run_goes_on_from_known_places_as_it_would_have() {
    for (model, precision) in [(tiny(), "f32"), (shipped(), "f32")] {
        assert_eq!(model.precision(), Precision::F32, "{precision}");
        let guidance_schedule = GuidanceSchedule::Constant;
        let places = model.places().unwrap();
        let settings = Settings { rounds: 3, steps: 5, guidance: 2.5, guidance_schedule, ..model.settings() };
        let (classes, seeds) = ([0, 2], [8, 9]);
        let mut whole = model.session(cpu(), 2, &settings, Outputs::IMAGE).unwrap();
        whole.begin(&classes, &seeds).unwrap();
        whole.run(|_| ()).unwrap();
        let (tokens, codes) = (whole.tokens().unwrap(), whole.codes().unwrap());

        // The slots that the last of three rounds draws.
        let kept = (0..2).fold(places, |left, round| discon::sampling::kept_masked(places, left, round, 3));
        let outputs = Outputs { known_places: places - kept, ..Outputs::IMAGE };
        let settings = Settings { rounds: 1, ..settings };
        let mut rest = model.session(cpu(), 2, &settings, outputs).unwrap();
        let known = |image: usize| {
            let slots = discon::sampling::order(seeds[image], places);
            let mut known = vec![true; places];
            slots[..kept].iter().for_each(|&place| known[place as usize] = false);
            // Of the others nothing is looked at.
            let mut tokens = tokens[image].clone();
            let width = tokens.len() / places;
            slots[..kept].iter().for_each(|&place| tokens[place as usize * width..][..width].fill(1e30));
            Known { places: known, tokens }
        };
        let given = codes.iter().map(|codes| codes.iter().map(|&code| Some(code)).collect()).collect();
        let start = Start { codes: given, known: vec![known(0), known(1)], ..Start::default() };
        rest.begin_with(&classes, &seeds, &start).unwrap();
        rest.run(|_| ()).unwrap();
        assert_eq!(rest.codes().unwrap(), codes);
        assert!(rest.tokens().unwrap() == tokens, "the tokens differ");
        assert!(rest.images().unwrap() == whole.images().unwrap());
    }
}

#[test]
fn given_codes_are_taken_and_the_others_drawn_after_them() {
    let model = tiny();
    let places = model.places().unwrap();
    let settings = model.settings();
    let run = |codes: Vec<Vec<Option<u32>>>| {
        let mut session =
            model.session(cpu(), 2, &settings, Outputs { discrete_tokens: None, ..Outputs::IMAGE }).unwrap();
        session.begin_with(&[1, 2], &[4, 5], &Start { codes, ..Start::default() }).unwrap();
        session.run(|_| ()).unwrap();
        session.codes().unwrap()
    };
    let drawn = run(vec![]);
    assert_eq!(drawn, run(vec![vec![None; places]; 2]));
    let given = |image: usize, place: usize| (place % 3 == image).then_some((place as u32 * 7 + 1) % 16);
    let codes: Vec<Vec<_>> = (0..2).map(|image| (0..places).map(|place| given(image, place)).collect()).collect();
    let mixed = run(codes.clone());
    for (codes, mixed) in codes.iter().zip(&mixed) {
        assert!(codes.iter().zip(mixed).all(|(given, code)| given.is_none_or(|given| given == *code)));
    }
    // What was drawn is drawn again from what was drawn and given.
    let all: Vec<Vec<_>> = drawn.iter().map(|codes| codes.iter().map(|&code| Some(code)).collect()).collect();
    assert_eq!(run(all), drawn);
    assert_ne!(mixed, drawn);
}

#[test]
fn pixels_outside_the_mask_stay_and_those_inside_follow_the_seed() {
    let model = shipped();
    let (image, size) = (picture(&model), model.image_size());
    // Not along the patches' borders.
    let mask: Vec<bool> =
        (0..size * size).map(|i| (13..41).contains(&(i % size)) && (5..30).contains(&(i / size))).collect();
    let request = request(&model, &[1, 1, 6], &[10, 11, 10]);
    let made = model.inpaint(cpu(), &image, &mask, &request).unwrap();
    assert_eq!(made.len(), 3);
    for new in &made {
        let pixels = || new.rgb().chunks(3).zip(image.rgb().chunks(3)).zip(&mask);
        assert!(pixels().all(|((new, old), masked)| *masked || new == old));
        assert!(pixels().filter(|((new, old), masked)| **masked && new != old).count() > 100);
    }
    assert!(made[0] != made[1] && made[0] != made[2]);
    assert!(made == model.inpaint(Cpu::new(1).unwrap(), &image, &mask, &request).unwrap());
    // One place alone, where there are fewer places than rounds.
    let one: Vec<bool> = (0..size * size).map(|i| i == 9 * size + 3).collect();
    let new = model.inpaint(cpu(), &image, &one, &request).unwrap().remove(0);
    let changed = new.rgb().chunks(3).zip(image.rgb().chunks(3)).filter(|(a, b)| a != b).count();
    assert!(changed <= 1);
    // All of them: nothing is known.
    let all = model.inpaint(cpu(), &image, &vec![true; size * size], &request).unwrap();
    assert!(all[0].psnr(&image).unwrap() < 30.0);
}

#[test]
fn a_picture_grows_around_a_smaller_one() {
    let model = shipped();
    let (whole, size) = (picture(&model), model.image_size());
    let (left, top, width, height) = (11, 7, 30, 41);
    let line = |y: usize| &whole.rgb()[((y + top) * size + left) * 3..][..width * 3];
    let part = Image::new(width, height, (0..height).flat_map(line).copied().collect()).unwrap();
    let made = model.outpaint(cpu(), &part, (left, top), &request(&model, &[1], &[2])).unwrap().remove(0);
    for y in 0..height {
        assert_eq!(&made.rgb()[((y + top) * size + left) * 3..][..width * 3], line(y));
    }
    let outside = (0..size * size).filter(|i| i % size < left).map(|i| made.rgb()[i * 3]).collect::<Vec<_>>();
    assert!(outside.iter().any(|&x| x != outside[0]), "nothing was drawn");
    for at in [(size - width + 1, 0), (0, size - height + 1), (usize::MAX, 0)] {
        let error = model.outpaint(cpu(), &part, at, &request(&model, &[1], &[2])).unwrap_err();
        assert!(error.to_string().contains("30 x 41 at ("), "{error}");
    }
}

#[test]
fn variations_keep_what_they_are_told_to() {
    let model = shipped();
    let image = picture(&model);
    let tokens = model.encode(cpu(), &image).unwrap();
    let codes = tokens.discrete.clone().unwrap();
    let request = request(&model, &[1, 1], &[20, 21]);
    let all = model.variations(cpu(), &codes, 1.0, &request).unwrap();
    let none = model.variations(cpu(), &codes, 0.0, &request).unwrap();
    assert!(all[0] != all[1]);
    assert!(none == model.generate(cpu(), &request).unwrap());
    let near = |images: &[Image]| images.iter().map(|i| i.psnr(&image).unwrap()).sum::<f64>();
    assert!(near(&all) > near(&none) + 2.0, "{} {}", near(&all), near(&none));

    let redrawn = |share| model.redraw(cpu(), &image, share, &request).unwrap();
    let (few, most) = (redrawn(0.1), redrawn(1.0));
    assert!(few[0] != few[1] && near(&few) > near(&most) + 4.0, "{} {}", near(&few), near(&most));
    let decoded = model.decode(cpu(), &tokens.continuous).unwrap();
    assert!(decoded == model.reconstruct(cpu(), &image).unwrap(), "tokens and latents are the same but for a scale");
}

#[test]
fn an_autoencoder_alone_encodes_and_decodes() {
    let whole = tiny();
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/tiny"].iter().collect();
    let read = |f: &str| (f.to_owned(), std::sync::Arc::new(std::fs::read(folder.join(f)).unwrap()) as _);
    let image = picture(&whole);
    let expected = whole.encode(cpu(), &image).unwrap();
    let model = Model::from_bytes(["discon.json", "vae.safetensors"].map(read)).unwrap();
    assert_eq!(model.places().unwrap(), whole.places().unwrap());
    let tokens = model.encode(cpu(), &image).unwrap();
    assert!(tokens.continuous == expected.continuous && tokens.discrete.is_none());
    assert!(model.decode(cpu(), &tokens.continuous).unwrap() == whole.decode(cpu(), &tokens.continuous).unwrap());
    // What it lacks for more is named.
    let settings = model.settings();
    assert!(model.session(cpu(), 1, &settings, Outputs::IMAGE).unwrap_err().to_string().contains("discon.safetensors"));
}

#[test]
fn orders_draw_the_same_places_in_another_way() {
    let model = tiny();
    let settings = model.settings();
    let made = [Order::Random, Order::Raster, Order::CentreOut, Order::FromKnown].map(|order| {
        let mut session = model.session(cpu(), 1, &settings, Outputs::IMAGE).unwrap();
        session.begin_with(&[1], &[4], &Start { order, ..Start::default() }).unwrap();
        session.run(|_| ()).unwrap();
        session.images().unwrap()
    });
    let usual = Request { classes: vec![1], seeds: vec![4], settings: model.settings() };
    assert!(made[0] == model.generate(cpu(), &usual).unwrap());
    assert!(made[0] != made[1] && made[1] != made[2] && made[0] == made[3]);
}

#[test]
fn what_does_not_fit_is_an_error_and_the_next_call_works() {
    let model = tiny();
    let (places, size) = (model.places().unwrap(), model.image_size());
    let usual = request(&model, &[1], &[2]);
    let image = Image::new(size, size, vec![100; size * size * 3]).unwrap();
    let small = Image::new(size - 1, size, vec![100; (size - 1) * size * 3]).unwrap();
    let mask = vec![true; size * size];
    let says = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    says(model.inpaint(cpu(), &small, &mask, &usual).unwrap_err(), &["image", &format!("{size} x {size}")]);
    says(model.inpaint(cpu(), &image, &mask[1..], &usual).unwrap_err(), &["mask", &(size * size - 1).to_string()]);
    says(model.inpaint(cpu(), &image, &vec![false; size * size], &usual).unwrap_err(), &["mask", "0 true"]);
    says(model.redraw(cpu(), &image, 1.5, &usual).unwrap_err(), &["share", "1.5"]);
    says(model.redraw(cpu(), &image, f64::NAN, &usual).unwrap_err(), &["share", "NaN"]);
    says(model.variations(cpu(), &[0; 3], 1.0, &usual).unwrap_err(), &["codes", "3"]);
    says(
        model.variations(cpu(), &vec![1 << 30; places], 1.0, &usual).unwrap_err(),
        &["codes of image 0", "1073741824"],
    );
    says(model.decode(cpu(), &[0.0; 3]).unwrap_err(), &["tokens", "3 numbers"]);
    let mut tokens = vec![0.0; places * 8];
    tokens[3 * 8 + 5] = f32::NAN;
    says(model.decode(cpu(), &tokens).unwrap_err(), &["number 5 of the token of place 3", "finite", "NaN"]);
    let whole = model.outpaint(cpu(), &image, (0, 0), &usual).unwrap_err();
    says(whole, &["image: expected a picture smaller than 8 x 8 pixels"]);
    says(model.encode(cpu(), &small).unwrap_err(), &["image"]);

    let all = Outputs { known_places: places, ..Outputs::IMAGE };
    says(model.session(cpu(), 1, &usual.settings, all).unwrap_err(), &["known_places", &places.to_string()]);
    let outputs = Outputs { known_places: 2, ..Outputs::IMAGE };
    let mut session = model.session(cpu(), 1, &usual.settings, outputs).unwrap();
    let width = model.encode(cpu(), &image).unwrap().continuous.len() / places;
    let known = |count: usize| Known {
        places: (0..places).map(|place| place < count).collect(),
        tokens: vec![0.5; places * width],
    };
    let mut begin = |known: Vec<Known>| session.begin_with(&[1], &[2], &Start { known, ..Start::default() });
    says(begin(vec![]).unwrap_err(), &["known places", "1 images", "found 0"]);
    says(begin(vec![known(2), known(2)]).unwrap_err(), &["known places", "found 2"]);
    says(begin(vec![known(3)]).unwrap_err(), &["known places of image 0", "found 3 of"]);
    says(begin(vec![Known { tokens: vec![0.0], ..known(2) }]).unwrap_err(), &["tokens of image 0", "1 numbers"]);
    let nan = Known { tokens: vec![f32::NAN; places * width], ..known(2) };
    says(begin(vec![nan]).unwrap_err(), &["tokens of image 0", "NaN"]);
    begin(vec![known(2)]).unwrap();
    session.run(|_| ()).unwrap();
    let tokens = session.tokens().unwrap();
    assert!(tokens[0][..2 * width].iter().all(|&x| x == 0.5) && tokens[0][2 * width] != 0.5);
    says(session.begin(&[1], &[2]).unwrap_err(), &["known places"]);
}

/// The pictures, in steps of one op, and in how many of them the session encoded.
fn stepped(session: &mut Session) -> (Vec<Image>, usize) {
    let (mut encoding, mut last) = (0, 0.0);
    while !session.progress().finished {
        encoding += usize::from(session.progress().stage == Stage::Encode);
        let fraction = session.step(Duration::ZERO).unwrap().fraction;
        assert!(fraction >= last);
        last = fraction;
    }
    (session.images().unwrap(), encoding)
}

fn edits(model: &Model, image: &Image) -> Vec<Edit> {
    let (size, image) = (model.image_size(), image.clone());
    let mask = (0..size * size).map(|i| i % size > size / 3 && i / size > size / 2).collect();
    let small = Image::new(size / 2, size / 2, vec![77; size / 2 * (size / 2) * 3]).unwrap();
    vec![
        Edit::Inpaint { image: image.clone(), mask },
        Edit::Outpaint { image: small, left: size / 4, top: 1 },
        Edit::Redraw { image, share: 0.4 },
    ]
}

#[test]
fn editing_is_cut_to_a_budget_and_counted_as_all_else() {
    let model = tiny();
    let image = picture(&model);
    let request = request(&model, &[1, 3], &[10, 11]);
    for edit in edits(&model, &image) {
        let expected = match &edit {
            Edit::Inpaint { image, mask } => model.inpaint(cpu(), image, mask, &request),
            Edit::Outpaint { image, left, top } => model.outpaint(cpu(), image, (*left, *top), &request),
            Edit::Redraw { image, share } => model.redraw(cpu(), image, *share, &request),
            edit => panic!("{edit:?}"),
        };
        let expected = expected.unwrap();
        let mut session = model.edit(cpu(), &edit, &request).unwrap();
        let (images, encoding) = stepped(&mut session);
        assert!(images == expected && encoding > 20, "{encoding}");
        assert!(session.times()[&Stage::Encode] > Duration::ZERO && session.plan().cost(Stage::Encode).flops > 0);
        // The encoder's memory is the plan's too.
        let outputs = model.outputs_for(&Start::of(edit.clone())).unwrap();
        assert!(outputs.encodes && outputs.known_places > 0);
        let bytes = |outputs| model.plan(2, &request.settings, outputs).unwrap().arena_bytes(2);
        assert_eq!(session.plan().arena_bytes(2), bytes(outputs));
        assert!(bytes(outputs) > bytes(Outputs { encodes: false, ..outputs }));
        // Cancelled while it encodes, it can be used again at once, for another picture too.
        let start = Start::of(edit);
        session.begin_with(&[1, 3], &[10, 11], &start).unwrap();
        while session.progress().stage != Stage::Encode {
            session.step(Duration::ZERO).unwrap();
        }
        session.canceller().cancel();
        assert!(matches!(session.step(Duration::ZERO), Err(Error::Cancelled)));
        session.begin_with(&[2, 0], &[7, 7], &start).unwrap();
        session.run(|_| ()).unwrap();
        assert!(session.images().unwrap() != expected);
        session.begin_with(&[1, 3], &[10, 11], &start).unwrap();
        session.run(|_| ()).unwrap();
        assert!(session.images().unwrap() == expected);
    }
}

/// Encoding in the session is the same as encoding first, and telling it what is known.
#[test]
fn an_edit_is_what_encoded_tokens_and_codes_give() {
    for model in [tiny(), shipped()] {
        let (image, places) = (picture(&model), model.places().unwrap());
        let request = request(&model, &[1, 3], &[10, 11]);
        for share in [0.2, 0.7] {
            let edited = model.redraw(cpu(), &image, share, &request).unwrap();
            let tokens = model.encode(cpu(), &image).unwrap();
            let codes = tokens.discrete.unwrap();
            let count = (share * places as f64).round() as usize;
            // Which places are drawn anew follows from the complement of the seed.
            let drawn = |seed: u64| {
                let mut drawn = vec![false; places];
                discon::sampling::order(!seed, places)[..count].iter().for_each(|&place| drawn[place as usize] = true);
                drawn
            };
            let all: Vec<_> = request.seeds.iter().map(|&seed| drawn(seed)).collect();
            let known = |drawn: &Vec<bool>| Known {
                places: drawn.iter().map(|drawn| !drawn).collect(),
                tokens: tokens.continuous.clone(),
            };
            let given = |drawn: &Vec<bool>| codes.iter().zip(drawn).map(|(&c, d)| (!d).then_some(c)).collect();
            let start = Start {
                known: all.iter().map(known).collect(),
                codes: all.iter().map(given).collect(),
                ..Start::default()
            };
            let outputs = Outputs { known_places: places - count, ..Outputs::IMAGE };
            assert_eq!(model.outputs_for(&start).unwrap(), outputs);
            let mut session = model.session(cpu(), 2, &request.settings, outputs).unwrap();
            session.begin_with(&request.classes, &request.seeds, &start).unwrap();
            session.run(|_| ()).unwrap();
            assert!(session.images().unwrap() == edited, "{share}");
            assert!(session.images().unwrap() == model.generate_with(cpu(), &request, &start).unwrap());
        }
    }
}

#[test]
fn an_edit_begins_only_in_a_session_made_for_it() {
    let model = tiny();
    let (image, places) = (picture(&model), model.places().unwrap());
    let request = request(&model, &[1], &[2]);
    let edit = edits(&model, &image).remove(2);
    let mut editing = model.edit(cpu(), &edit, &request).unwrap();
    let mut drawing = model.session(cpu(), 1, &request.settings, Outputs::IMAGE).unwrap();
    let says = |error: Error, words: &[&str]| {
        let text = error.to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    says(drawing.begin_with(&[1], &[2], &Start::of(edit.clone())).unwrap_err(), &["encodes", "no picture"]);
    says(editing.begin(&[1], &[2]).unwrap_err(), &["encodes", "an edit"]);
    let both = Start { codes: vec![vec![None; places]], ..Start::of(edit.clone()) };
    says(editing.begin_with(&[1], &[2], &both).unwrap_err(), &["an edit, or codes", "both"]);
    let other = Edit::Redraw { image: image.clone(), share: 0.9 };
    says(editing.begin_with(&[1], &[2], &Start::of(other)).unwrap_err(), &["known places of image 0"]);
    // A request that is refused leaves the one that runs alone.
    editing.run(|_| ()).unwrap();
    // All of it drawn anew: there is nothing to encode.
    let whole = Edit::Redraw { image, share: 1.0 };
    assert_eq!(model.outputs_for(&Start::of(whole.clone())).unwrap(), Outputs::IMAGE);
    drawing.begin_with(&[1], &[2], &Start::of(whole)).unwrap();
    drawing.run(|_| ()).unwrap();
    assert!(drawing.images().unwrap() == model.generate(cpu(), &request).unwrap());
    for (bad, outputs) in [
        ("`encodes`", Outputs { encodes: true, ..Outputs::IMAGE }),
        ("`mix`", Outputs { mix: 0, ..Outputs::IMAGE }),
        ("`mix`", Outputs { mix: Outputs::MOST_MIXED + 1, ..Outputs::IMAGE }),
        ("`partial_previews`", Outputs { partial_previews: true, ..Outputs::DISCRETE_ONLY }),
    ] {
        says(model.session(cpu(), 1, &request.settings, outputs).unwrap_err(), &[bad]);
    }
}

#[test]
fn given_codes_take_an_order_and_known_places_too() {
    let model = tiny();
    let (settings, places) = (model.settings(), model.places().unwrap());
    let codes: Vec<u32> = (0..places as u32).collect();
    let all = vec![codes.iter().map(|&code| Some(code)).collect::<Vec<_>>()];
    let made = |given_codes: bool, order: Order| {
        let outputs = Outputs { given_codes, ..Outputs::IMAGE };
        let mut session = model.session(cpu(), 1, &settings, outputs).unwrap();
        session.begin_with(&[1], &[2], &Start { order, codes: all.clone(), ..Start::default() }).unwrap();
        session.run(|_| ()).unwrap();
        session.images().unwrap()
    };
    for order in [Order::Random, Order::Raster, Order::CentreOut] {
        assert!(made(true, order) == made(false, order), "{order:?}");
    }
    // With some continuous tokens too, it draws the others as a session that is told all codes as if they were some.
    let image = picture(&model);
    let known = vec![Known {
        places: (0..places).map(|place| place % 3 == 0).collect(),
        tokens: model.encode(cpu(), &image).unwrap().continuous,
    }];
    let from_known = |given_codes: bool| {
        let start = Start { order: Order::FromKnown, codes: all.clone(), known: known.clone(), ..Start::default() };
        let outputs = Outputs { given_codes, ..model.outputs_for(&start).unwrap() };
        assert_eq!(outputs.known_places, places.div_ceil(3));
        let mut session = model.session(cpu(), 1, &settings, outputs).unwrap();
        session.begin_with(&[1], &[2], &start).unwrap();
        session.run(|_| ()).unwrap();
        let tokens = session.tokens().unwrap();
        let width = tokens[0].len() / places;
        let of = |all: &[f32], place: usize| all[place * width..][..width].to_vec();
        let kept = |&place: &usize| of(&tokens[0], place) == of(&known[0].tokens, place);
        assert!((0..places).filter(kept).eq((0..places).step_by(3)), "others than the known ones were kept");
        session.images().unwrap()
    };
    assert!(from_known(true) == from_known(false) && from_known(true) != made(true, Order::FromKnown));
    let mut session = model.session(cpu(), 1, &settings, Outputs { given_codes: true, ..Outputs::IMAGE }).unwrap();
    let some = Start { codes: vec![vec![Some(1); places - 1].into_iter().chain([None]).collect()], ..Start::default() };
    let error = session.begin_with(&[1], &[2], &some).unwrap_err().to_string();
    assert!(error.contains("codes of image 0") && error.contains("given_codes"), "{error}");
}
