//! Sessions and requests that are right, which must be served, with something wrong in one of them or two, which may be refused; the
//! session goes on.
#![no_main]

use discon::{
    Cpu, Edit, ErrorKind, Image, Known, Model, Order, Outputs, Request, Session, SessionOptions, Settings, Start,
};
use discon_fuzz::{FOLDERS, LIMIT};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::iter;
use std::sync::LazyLock;
use std::time::Duration;

#[derive(Arbitrary, Debug)]
struct Asked {
    model: u8,
    batch: u8,
    rounds: u8,
    steps: u8,
    given: What,
    made: u8,
    mix: u8,
    discrete_tokens: Option<u8>,
    wrong: Option<WrongSession>,
    first: Given,
    /// Not as many as the input says, which would mostly be none or one.
    then: [Action; 6],
}

/// What a session is given of its pictures.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum What {
    Nothing,
    SomeCodes,
    AllCodes,
    Tokens(u8),
    Inpaint(u8),
    Outpaint(u8),
    Redraw(u8),
    Variations(u8),
}

/// What is wrong with a session, maybe.
#[derive(Arbitrary, Debug)]
enum WrongSession {
    Batch(u64),
    Rounds(u64),
    Steps(u64),
    Number(u8, Number),
    Tokens(u64),
    KnownPlaces(u64),
    Mix(u64),
    Flag(u8),
}

#[derive(Arbitrary, Debug, Clone, Copy)]
enum Number {
    Percent(u8),
    Any(f64),
}

impl Number {
    fn get(self) -> f64 {
        match self {
            Self::Percent(n) => f64::from(n) / 100.0,
            Self::Any(x) => x,
        }
    }
}

#[derive(Arbitrary, Debug)]
enum Action {
    Begin(Given),
    BeginWithCodes(Given),
    Step(u8),
    Run,
    Cancel,
    Results,
    PreviewNow,
    BeginPreview,
    StepPreview(u8),
    Whole(Given),
}

#[derive(Arbitrary, Debug)]
struct Given {
    seed: u32,
    order: u8,
    mixed: bool,
    wrong: Option<Wrong>,
}

/// What is wrong with a request, maybe.
#[derive(Arbitrary, Debug)]
enum Wrong {
    Classes(u8),
    Seeds(u8),
    Class(u8, u64),
    Codes(u8),
    CodesOf(u8, u8),
    Code(u8, Option<u32>),
    Known(u8),
    Places(u8),
    Place(u8),
    Tokens(u16),
    Token(u16, f32),
    Mixes(u8),
    MixClass(u64),
    Weight(Number),
    Width(u8),
    Mask(u16),
    At(u64, u64),
    Share(Number),
    Another(What),
}

static MODELS: LazyLock<Vec<Model>> =
    LazyLock::new(|| FOLDERS.iter().map(|folder| folder.open().expect("a fixture opens")).collect());
static CPU: LazyLock<Cpu> = LazyLock::new(|| Cpu::new(1).expect("one thread"));

/// The `i`th of numbers that nothing is known of, below `most`.
fn some(seed: u32, i: usize, most: usize) -> usize {
    let x = (u64::from(seed) << 32 | i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ x >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 33) as usize % most.max(1)
}

/// As long as that.
fn resize<T: Clone>(all: &mut Vec<T>, len: impl Into<usize>) {
    if let Some(last) = all.last().cloned() {
        all.resize(len.into(), last);
    }
}

/// One of the elements, if there are any.
fn one<T>(all: &mut [T], i: impl Into<usize>) -> Option<&mut T> {
    let count = all.len().max(1);
    all.get_mut(i.into() % count)
}

/// What requests are made for.
struct Made<'a> {
    model: &'a Model,
    batch: usize,
    places: usize,
    mix: usize,
    what: What,
}

impl Made<'_> {
    fn edit(&self, what: What, seed: u32) -> Option<Edit> {
        let size = self.model.image_size();
        let picture = |width: usize, height: usize| {
            let rgb = (0..width * height * 3).map(|i| some(seed, i, 256) as u8).collect();
            Image::new(width, height, rgb).expect("as many numbers as pixels take")
        };
        let share = |share: u8| f64::from(share) / 255.0;
        Some(match what {
            What::Inpaint(from) => {
                let from = usize::from(from) % size;
                Edit::Inpaint {
                    image: picture(size, size),
                    mask: (0..size * size).map(|pixel| pixel / size >= from).collect(),
                }
            }
            What::Outpaint(by) => {
                let by = 1 + usize::from(by) % (size - 1);
                Edit::Outpaint { image: picture(size - by, size - by), left: by / 2, top: by }
            }
            What::Redraw(of) => Edit::Redraw { image: picture(size, size), share: share(of) },
            What::Variations(of) => {
                Edit::Variations { codes: self.codes(seed).into_iter().flatten().collect(), share: share(of) }
            }
            _ => return None,
        })
    }

    fn codes(&self, seed: u32) -> Vec<Option<u32>> {
        let codes = self.model.config().rar.as_ref().map_or(1, |rar| rar.codebook_size);
        (0..self.places).map(|place| Some(some(seed, place, codes) as u32)).collect()
    }

    /// Places of which tokens are given.
    fn known_places(&self) -> usize {
        match self.what {
            What::Tokens(count) => usize::from(count) % self.places,
            _ => 0,
        }
    }

    fn start(&self, given: &Given) -> (Vec<usize>, Vec<u64>, Start) {
        let (seed, classes) = (given.seed, self.model.config().classes.len());
        let width = self.model.config().discon.as_ref().map_or(1, |masked| masked.token_dim);
        let codes = |image: usize| {
            let mut codes = self.codes(seed ^ image as u32);
            if let What::SomeCodes = self.what {
                codes.iter_mut().step_by(3).for_each(|code| *code = None);
            }
            codes
        };
        let known = |image: usize| {
            let mut places = vec![false; self.places];
            let first = some(seed, image, self.places);
            (0..self.known_places()).for_each(|i| places[(first + i) % self.places] = true);
            Known { places, tokens: (0..self.places * width).map(|i| some(seed, i, 9) as f32 - 4.0).collect() }
        };
        let mix = |image: usize| (0..self.mix).map(|i| (some(seed, image + i, classes), i as f64 + 0.5)).collect();
        let all = |give: bool| 0..if give { self.batch } else { 0 };
        let start = Start {
            order: [Order::Random, Order::Raster, Order::CentreOut, Order::FromKnown][usize::from(given.order) % 4],
            codes: all(matches!(self.what, What::SomeCodes | What::AllCodes)).map(codes).collect(),
            known: all(self.known_places() > 0).map(known).collect(),
            mixes: all(given.mixed).map(mix).collect(),
            edit: self.edit(self.what, seed),
        };
        let (classes, seeds) =
            (0..self.batch).map(|image| (some(seed, image, classes + 1), u64::from(seed) << 7 | image as u64)).unzip();
        (classes, seeds, start)
    }

    fn spoilt(&self, given: &Given) -> (Vec<usize>, Vec<u64>, Start) {
        let (mut classes, mut seeds, mut start) = self.start(given);
        let Start { codes, known, mixes, edit, .. } = &mut start;
        match (given.wrong.as_ref(), edit) {
            (Some(&Wrong::Classes(n)), _) => resize(&mut classes, n % 8),
            (Some(&Wrong::Seeds(n)), _) => resize(&mut seeds, n % 8),
            (Some(&Wrong::Class(i, class)), _) => one(&mut classes, i).into_iter().for_each(|to| *to = class as usize),
            (Some(&Wrong::Codes(n)), _) => resize(codes, n % 8),
            (Some(&Wrong::CodesOf(_, n)), Some(Edit::Variations { codes, .. })) => resize(codes, n),
            (Some(&Wrong::CodesOf(i, n)), _) => one(codes, i).into_iter().for_each(|codes| resize(codes, n)),
            (Some(&Wrong::Code(i, code)), Some(Edit::Variations { codes, .. })) => {
                one(codes, i).zip(code).into_iter().for_each(|(to, code)| *to = code);
            }
            (Some(&Wrong::Code(i, code)), _) => {
                one(codes, i).and_then(|codes| one(codes, i)).into_iter().for_each(|to| *to = code);
            }
            (Some(&Wrong::Known(n)), _) => resize(known, n % 8),
            (Some(&Wrong::Places(n)), _) => one(known, n).into_iter().for_each(|known| resize(&mut known.places, n)),
            (Some(&Wrong::Place(i)), _) => {
                one(known, i).and_then(|known| one(&mut known.places, i)).into_iter().for_each(|known| *known ^= true);
            }
            (Some(&Wrong::Tokens(n)), _) => one(known, n).into_iter().for_each(|known| resize(&mut known.tokens, n)),
            (Some(&Wrong::Token(i, x)), _) => {
                one(known, i).and_then(|known| one(&mut known.tokens, i)).into_iter().for_each(|to| *to = x);
            }
            (Some(&Wrong::Mixes(n)), _) => resize(mixes, n % 8),
            (Some(&Wrong::MixClass(class)), _) => mixes.iter_mut().flatten().for_each(|to| to.0 = class as usize),
            (Some(&Wrong::Weight(weight)), _) => mixes.iter_mut().flatten().for_each(|to| to.1 = weight.get()),
            (
                Some(&Wrong::Width(width)),
                Some(Edit::Inpaint { image, .. } | Edit::Outpaint { image, .. } | Edit::Redraw { image, .. }),
            ) => {
                let (width, height) = (usize::from(width) % 64, image.height());
                Image::new(width, height, vec![7; width * height * 3]).into_iter().for_each(|other| *image = other);
            }
            (Some(&Wrong::Mask(n)), Some(Edit::Inpaint { mask, .. })) => resize(mask, n),
            (Some(&Wrong::At(x, y)), Some(Edit::Outpaint { left, top, .. })) => {
                (*left, *top) = (x as usize, y as usize);
            }
            (Some(Wrong::Share(x)), Some(Edit::Redraw { share, .. } | Edit::Variations { share, .. })) => {
                *share = x.get();
            }
            (Some(&Wrong::Another(what)), edit) => *edit = self.edit(what, given.seed),
            _ => {}
        }
        (classes, seeds, start)
    }
}

/// A request may be refused where something is wrong, and a session may have been told to stop; nothing else is wrong with these models.
fn check<T>(result: discon::Result<T>, right: bool) -> Option<T> {
    result
        .inspect_err(|e| match e.kind() {
            ErrorKind::Request => assert!(!right && !e.to_string().is_empty(), "what is right is refused: {e:?}"),
            ErrorKind::Resources | ErrorKind::Cancelled => assert!(!e.to_string().is_empty(), "{e:?}"),
            _ => panic!("{e:?}"),
        })
        .ok()
}

impl WrongSession {
    fn spoil(&self, batch: &mut usize, settings: &mut Settings, outputs: &mut Outputs) {
        match *self {
            Self::Batch(n) => *batch = n as usize,
            Self::Rounds(n) => settings.rounds = n as usize,
            Self::Steps(n) => settings.steps = n as usize,
            Self::Number(i, x) => match i % 6 {
                0 => settings.discrete_guidance = x.get(),
                1 => settings.discrete_guidance_pow = x.get(),
                2 => settings.discrete_temperature = x.get(),
                3 => settings.guidance = x.get(),
                4 => settings.temperature = x.get(),
                _ => settings.clip_x0 = Some(x.get() as f32),
            },
            Self::Tokens(n) => outputs.discrete_tokens = Some(n as usize),
            Self::KnownPlaces(n) => outputs.known_places = n as usize,
            Self::Mix(n) => outputs.mix = n as usize,
            Self::Flag(i) => {
                let flags = [
                    &mut outputs.image,
                    &mut outputs.preview,
                    &mut outputs.given_codes,
                    &mut outputs.encodes,
                    &mut outputs.partial_previews,
                ];
                flags.into_iter().nth(usize::from(i % 5)).into_iter().for_each(|flag| *flag ^= true);
            }
        }
    }
}

/// What was made of a request that ran to its end.
fn check_results(session: &Session, batch: usize, outputs: Outputs) {
    let count = |of: discon::Result<Vec<Image>>| of.map_or(0, |images| images.len());
    assert_eq!(count(session.images()), if outputs.image { batch } else { 0 });
    assert_eq!(count(session.previews()), if outputs.preview { batch } else { 0 });
}

fuzz_target!(|asked: Asked| {
    let model = &MODELS[usize::from(asked.model) % MODELS.len()];
    let (image, preview) = [(true, false), (true, true), (false, true)][usize::from(asked.made % 3)];
    let has_codes = preview || model.config().discon.as_ref().is_some_and(|masked| masked.discrete);
    // What these outputs can be given.
    let what = match asked.given {
        What::SomeCodes | What::AllCodes | What::Variations(_) if !has_codes => What::Nothing,
        What::Tokens(_) | What::Inpaint(_) | What::Outpaint(_) | What::Redraw(_) if !image => What::Nothing,
        what => what,
    };
    let made = Made {
        model,
        batch: 1 + usize::from(asked.batch % 2),
        places: model.places().expect("a fixture has places"),
        mix: 1 + usize::from(asked.mix % 3),
        what,
    };
    let start = made.edit(what, 1).map_or_else(Start::default, Start::of);
    let of_edit = model.outputs_for(&start).expect("an edit that is right");
    let given_codes = matches!(what, What::AllCodes);
    let drawn = has_codes && !given_codes;
    let mut outputs = Outputs {
        image,
        preview,
        partial_previews: image && asked.made >= 128,
        given_codes,
        known_places: of_edit.known_places + made.known_places(),
        mix: made.mix,
        discrete_tokens: asked.discrete_tokens.filter(|_| drawn).map(|n| 1 + usize::from(n) % made.places),
        ..of_edit
    };
    let mut settings = model.settings();
    settings.rounds = 1 + usize::from(asked.rounds % 2);
    settings.steps = 1 + usize::from(asked.steps % 2);
    let mut batch = made.batch;
    asked.wrong.iter().for_each(|wrong| wrong.spoil(&mut batch, &mut settings, &mut outputs));
    let right = asked.wrong.is_none();
    let options = SessionOptions { memory_limit: Some(LIMIT) };
    let Some(mut session) = check(model.session_with(&*CPU, batch, &settings, outputs, &options), right) else {
        return;
    };
    // Whether a request was taken and not cancelled since: then it can be worked on.
    let mut begun = false;
    for action in iter::once(Action::Begin(asked.first)).chain(asked.then) {
        match action {
            Action::Begin(given) => {
                let (classes, seeds, start) = made.spoilt(&given);
                let right = right && given.wrong.is_none();
                begun |= check(session.begin_with(&classes, &seeds, &start), right).is_some();
            }
            Action::BeginWithCodes(given) => {
                let (classes, seeds, Start { codes, .. }) = made.spoilt(&given);
                let codes: Vec<Vec<u32>> = codes.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
                let right = right && given.wrong.is_none() && given_codes;
                begun |= check(session.begin_with_codes(&classes, &seeds, &codes), right).is_some();
            }
            Action::Step(micros) => {
                for _ in 0..30 {
                    let at = check(session.step(Duration::from_micros(micros.into())), begun);
                    if at.is_none_or(|at| at.finished) {
                        break;
                    }
                }
            }
            Action::Run => {
                if check(session.run(|_| ()), begun).is_some() {
                    check_results(&session, batch, outputs);
                }
            }
            Action::Cancel => {
                session.canceller().cancel();
                begun = false;
            }
            Action::Results => {
                check(session.images(), false);
                check(session.previews(), false);
                check(session.tokens(), false);
                check(session.codes(), false);
            }
            Action::PreviewNow => drop(check(session.preview_now(), false)),
            Action::BeginPreview => drop(check(session.begin_preview(), false)),
            Action::StepPreview(micros) => {
                check(session.step_preview(Duration::from_micros(micros.into())), false);
                check(session.partial_previews(), false);
            }
            Action::Whole(given) => {
                let (classes, seeds, start) = made.spoilt(&given);
                let settings =
                    Settings { rounds: settings.rounds.min(2), steps: settings.steps.min(2), ..settings.clone() };
                check(model.generate_with(&*CPU, &Request { classes, seeds, settings }, &start), false);
            }
        }
    }
});
