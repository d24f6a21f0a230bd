//! Requests in any order and of any numbers: each is served or refused, and the session goes on.
#![no_main]

use discon::{Cpu, Edit, ErrorKind, Image, Known, Model, Order, Outputs, Request, SessionOptions, Settings, Start};
use discon_fuzz::{FOLDERS, LIMIT};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use std::time::Duration;

/// A count that mostly makes sense.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Count {
    Small(u8),
    Any(u64),
}

impl Count {
    fn of(self, most: u8) -> usize {
        match self {
            Self::Small(n) => usize::from(n % (most + 1)),
            Self::Any(n) => n as usize,
        }
    }
}

/// A number that mostly makes sense.
#[derive(Arbitrary, Debug, Clone, Copy)]
enum Number {
    Percent(u8),
    Any(f64),
}

impl Number {
    fn of(self) -> f64 {
        match self {
            Self::Percent(n) => f64::from(n) / 100.0,
            Self::Any(x) => x,
        }
    }
}

#[derive(Arbitrary, Debug)]
struct Asked {
    model: u8,
    batch: Count,
    rounds: Count,
    steps: Count,
    guidance: [Number; 5],
    clip: Option<Number>,
    image: bool,
    preview: bool,
    partial_previews: bool,
    given_codes: bool,
    encodes: bool,
    discrete_tokens: Option<Count>,
    known_places: Count,
    mix: Count,
    actions: Vec<Action>,
}

#[derive(Arbitrary, Debug)]
enum Action {
    Begin(Given),
    BeginWithCodes(Given),
    Step(u8),
    Cancel,
    Results,
    PreviewNow,
    BeginPreview,
    StepPreview(u8),
    Whole(Given),
}

#[derive(Arbitrary, Debug)]
struct Given {
    classes: Vec<Count>,
    seeds: Vec<u64>,
    order: u8,
    codes: Vec<Vec<Option<u16>>>,
    known: Option<(u16, Vec<bool>)>,
    mixes: Vec<Vec<(Count, Number)>>,
    edit: Option<Picture>,
}

#[derive(Arbitrary, Debug)]
struct Picture {
    kind: u8,
    width: Option<Count>,
    mask: Vec<bool>,
    left: Count,
    top: Count,
    share: Number,
    codes: Vec<u16>,
}

static MODELS: LazyLock<Vec<Model>> =
    LazyLock::new(|| FOLDERS.iter().map(|folder| folder.open().expect("a fixture opens")).collect());
static CPU: LazyLock<Cpu> = LazyLock::new(|| Cpu::new(1).expect("one thread"));

/// `of` as long as it should be if it is not empty, by turns.
fn filled<T: Clone>(of: &[T], len: usize) -> Vec<T> {
    of.iter().cycle().take(if of.is_empty() { 0 } else { len }).cloned().collect()
}

impl Picture {
    fn edit(self, model: &Model) -> Option<Edit> {
        let size = model.image_size();
        let width = self.width.map_or(size, |width| width.of(size as u8 + 1)).min(64);
        let places = model.places().ok()?;
        let image = Image::new(width, size, vec![77; width * size * 3]).ok();
        Some(match self.kind % 4 {
            0 => Edit::Inpaint { image: image?, mask: filled(&self.mask, size * size) },
            1 => Edit::Outpaint { image: image?, left: self.left.of(4), top: self.top.of(4) },
            2 => Edit::Redraw { image: image?, share: self.share.of() },
            _ => {
                let codes: Vec<u32> = self.codes.iter().map(|&code| code.into()).collect();
                Edit::Variations { codes: filled(&codes, places), share: self.share.of() }
            }
        })
    }
}

impl Given {
    /// Classes, seeds and where to start, for a batch.
    fn start(self, model: &Model, batch: usize) -> (Vec<usize>, Vec<u64>, Start) {
        let places = model.places().unwrap_or(0);
        let classes: Vec<usize> = self.classes.iter().map(|class| class.of(6)).collect();
        let codes: Vec<_> = self.codes.iter().map(|row| filled(row, places)).collect();
        let codes: Vec<Vec<_>> =
            codes.into_iter().map(|row| row.into_iter().map(|code| code.map(u32::from)).collect()).collect();
        let known = self.known.map(|(tokens, places_known)| Known {
            places: filled(&places_known, places),
            tokens: vec![0.5; usize::from(tokens)],
        });
        let order = [Order::Random, Order::Raster, Order::CentreOut, Order::FromKnown][usize::from(self.order) % 4];
        let mixes: Vec<Vec<_>> =
            self.mixes.iter().map(|mix| mix.iter().map(|(c, w)| (c.of(6), w.of())).collect()).collect();
        let edit = self.edit.and_then(|picture| picture.edit(model));
        let start = Start {
            order,
            codes: filled(&codes, batch),
            known: known.map_or(Vec::new(), |known| vec![known; batch]),
            mixes: filled(&mixes, batch),
            edit,
        };
        (filled(&classes, batch), filled(&self.seeds, batch), start)
    }
}

/// A request may be refused, and a session may have been told to stop; nothing else is wrong with these models.
fn check<T>(result: discon::Result<T>) -> Option<T> {
    result
        .inspect_err(|e| {
            let expected = matches!(e.kind(), ErrorKind::Request | ErrorKind::Resources | ErrorKind::Cancelled);
            assert!(expected && !e.to_string().is_empty(), "{e:?}");
        })
        .ok()
}

fuzz_target!(|asked: Asked| {
    let model = &MODELS[usize::from(asked.model) % MODELS.len()];
    let [discrete_guidance, discrete_guidance_pow, discrete_temperature, guidance, temperature] =
        asked.guidance.map(Number::of);
    let settings = Settings {
        discrete_guidance,
        discrete_guidance_pow,
        discrete_temperature,
        rounds: asked.rounds.of(4),
        steps: asked.steps.of(4),
        guidance,
        temperature,
        clip_x0: asked.clip.map(|clip| clip.of() as f32),
        ..model.settings()
    };
    let outputs = Outputs {
        image: asked.image,
        preview: asked.preview,
        partial_previews: asked.partial_previews,
        given_codes: asked.given_codes,
        encodes: asked.encodes,
        discrete_tokens: asked.discrete_tokens.map(|n| n.of(20)),
        known_places: asked.known_places.of(20),
        mix: asked.mix.of(3),
    };
    let batch = asked.batch.of(3);
    let options = SessionOptions { memory_limit: Some(LIMIT) };
    let session = model.session_with(&*CPU, batch, &settings, outputs, &options);
    let Some(mut session) = check(session) else { return };
    for action in asked.actions.into_iter().take(12) {
        match action {
            Action::Begin(given) => {
                let (classes, seeds, start) = given.start(model, batch);
                check(session.begin_with(&classes, &seeds, &start));
            }
            Action::BeginWithCodes(given) => {
                let codes: Vec<Vec<u32>> =
                    given.codes.iter().map(|row| row.iter().map(|code| code.unwrap_or(0).into()).collect()).collect();
                let (classes, seeds, _) = given.start(model, batch);
                check(session.begin_with_codes(&classes, &seeds, &codes));
            }
            Action::Step(micros) => {
                for _ in 0..30 {
                    if check(session.step(Duration::from_micros(micros.into()))).is_none_or(|at| at.finished) {
                        break;
                    }
                }
            }
            Action::Cancel => session.canceller().cancel(),
            Action::Results => {
                check(session.images());
                check(session.previews());
                check(session.tokens());
                check(session.codes());
            }
            Action::PreviewNow => drop(check(session.preview_now())),
            Action::BeginPreview => drop(check(session.begin_preview())),
            Action::StepPreview(micros) => {
                check(session.step_preview(Duration::from_micros(micros.into())));
                check(session.partial_previews());
            }
            Action::Whole(given) => {
                let (classes, seeds, start) = given.start(model, batch.min(2));
                let settings =
                    Settings { rounds: settings.rounds.min(2), steps: settings.steps.min(2), ..settings.clone() };
                check(model.generate_with(&*CPU, &Request { classes, seeds, settings }, &start));
            }
        }
    }
});
