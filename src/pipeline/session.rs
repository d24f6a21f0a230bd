//! A session: a compiled plan, its memory, and the place in it.

use super::edit::Given;
use super::memory::SessionOptions;
use super::model::Model;
use super::preview::Previewer;
use super::program::Program;
use super::{Device, Edit, Executor, Image, Outputs, Settings};
use crate::error::{Error, Result};
use crate::plan::{Cursor, Plan, Profile, Stage};
use crate::sampling::Order;
use crate::tensor::Mat;
use log::{debug, warn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// The stage at work.
    pub stage: Stage,
    /// Its place (stage 1), round (stage 2), level (autoencoders), or how many shared blocks come before (prepare).
    pub index: usize,
    /// Share of the work done, by cost, from 0 to 1.
    pub fraction: f64,
    /// Whether all is done.
    pub finished: bool,
    /// About how much longer the session has to work, by the work done and the time it took since it began; only time
    /// inside [`Session::step`] and [`Session::run`] counts. None until a thousandth of the work is done. It falls as
    /// the work goes on at the same speed, and may rise where the machine, or what comes next, is slower for its cost than
    /// what came before. Zero once all is done.
    pub left: Option<Duration>,
}

/// Cancels a session's run from any thread.
#[derive(Debug, Clone, Default)]
pub struct Canceller(Arc<AtomicBool>);

impl Canceller {
    /// The run stops before its next tiles of work and returns [`Error::Cancelled`].
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A compiled plan with its memory. Made once, it generates any number of batches without allocating again. What no
/// request changes is the model's: a session that runs before another has made it makes it, in memory of its own and as
/// the first steps of its runs; sessions never wait for each other.
#[derive(Debug)]
pub struct Session {
    pub(super) model: Model,
    pub(super) program: Program,
    pub(super) executor: Executor,
    pub(super) cursor: Cursor,
    pace: Pace,
    pub(super) begun: bool,
    pub(super) canceller: Canceller,
    times: BTreeMap<Stage, Duration>,
    profile: Option<Profile>,
    /// The place of each slot, by image.
    pub(super) orders: Vec<Vec<i32>>,
    /// The picture whose pixels stay where the mask is false.
    kept: Option<(Image, Vec<bool>)>,
    pub(super) previewer: Option<Previewer>,
}

/// What is given of a batch beside classes and seeds.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The order in which stage 2 draws the places.
    pub order: Order,
    /// Of each image, by place, the discrete token, or none for one that is drawn. Empty: all are drawn.
    pub codes: Vec<Vec<Option<u32>>>,
    /// Of each image, what is known of its continuous tokens; in a session without [`Outputs::known_places`] empty.
    pub known: Vec<Known>,
    /// Of each image, the classes that it is mixed of and their weights: finite numbers from 0 on whose sum is more than 0,
    /// and is made 1. It is then of the weighted sum of their embeddings, and its class is not looked at; where there are
    /// none, its class it is. At most as many as [`Outputs::mix`]. Empty: each image is of its class.
    pub mixes: Vec<Vec<(usize, f64)>>,
    /// A picture to make these of; `codes` and `known` are then empty. In a session of other outputs than
    /// [`Model::outputs_for`] says, none.
    pub edit: Option<Edit>,
}

impl Start {
    /// An edit, in the order that suits it.
    pub fn of(edit: Edit) -> Self {
        Self { order: edit.order(), edit: Some(edit), ..Self::default() }
    }
}

/// What is known of an image's continuous tokens.
#[derive(Debug, Clone)]
pub struct Known {
    /// By place whether its token is known: [`Outputs::known_places`] of them.
    pub places: Vec<bool>,
    /// `[L, C]` by place, as of [`Session::tokens`]; those of places that are not known are not looked at.
    pub tokens: Vec<f32>,
}

impl Session {
    pub(super) fn new(
        model: &Model,
        device: &Device,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
        options: &SessionOptions,
    ) -> Result<Self> {
        let program = Program::new(model.networks(), batch, settings, outputs, false)?;
        let plan = &program.plan;
        let preview = outputs.partial_previews.then(|| Previewer::compile(model.networks(), batch)).transpose()?;
        options.check(device, model.networks(), plan, preview.as_ref().map(|preview| &preview.plan))?;
        let times = plan.segments.iter().map(|s| (s.stage, Duration::ZERO)).collect();
        let executor = Executor::new(device, model.networks(), plan)?;
        debug!(
            "session of `{}` made: batch {batch}, {} ops, {} bytes and {} that the model's sessions share, on {device}",
            model.config().name,
            plan.segments.iter().map(|s| s.steps.len() * s.repeat).sum::<usize>(),
            executor.own_bytes(),
            plan.shared_bytes(),
        );
        Ok(Self {
            executor,
            previewer: preview.map(|preview| Previewer::new(device, model.networks(), preview)).transpose()?,
            model: model.clone(),
            program,
            cursor: Cursor::default(),
            pace: Pace::default(),
            begun: false,
            canceller: Canceller::default(),
            times,
            profile: None,
            orders: Vec::new(),
            kept: None,
        })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.program.plan
    }

    /// Bytes that this session has alone: [`Plan::arena_bytes`], and of [`Plan::shared_bytes`] what it must make itself,
    /// until it is made and the model's ([`Model::shared_bytes`]). Where two sessions make the same, the later one frees
    /// its own when it next begins.
    pub fn own_bytes(&self) -> u64 {
        self.executor.own_bytes() + self.previewer.as_ref().map_or(0, Previewer::own_bytes)
    }

    /// Starts a batch: one class and one seed an image. What ran before is given up, unless this fails.
    pub fn begin(&mut self, classes: &[usize], seeds: &[u64]) -> Result<()> {
        self.begin_with(classes, seeds, &Start::default())
    }

    /// Starts a batch of which something is given beside classes and seeds.
    pub fn begin_with(&mut self, classes: &[usize], seeds: &[u64], start: &Start) -> Result<()> {
        self.try_begin_with(classes, seeds, start).inspect_err(refused)
    }

    fn try_begin_with(&mut self, classes: &[usize], seeds: &[u64], start: &Start) -> Result<()> {
        if self.program.takes_codes() && start.codes.is_empty() {
            return Err(Error::input("request", "codes too, as `given_codes` says", "classes and seeds only"));
        }
        self.check(classes, seeds)?;
        self.check_mixes(&start.mixes)?;
        let given = match &start.edit {
            None => Given { codes: start.codes.clone(), ..Given::default() },
            Some(_) if !start.codes.is_empty() || !start.known.is_empty() => {
                return Err(Error::input("request", "an edit, or codes and known places", "both"));
            }
            Some(edit) => edit.given(&self.model, seeds)?,
        };
        self.check_codes(&given.codes)?;
        self.check_encoded(&given)?;
        self.check_known(start, &given.known)?;
        self.start(classes, seeds, start, given)
    }

    /// Starts a batch from given discrete tokens, in a session with [`Outputs::given_codes`]: a class, a seed and the
    /// codes of all places an image, as of [`Session::codes`]. With the codes that a session drew it makes the same
    /// images as that session.
    pub fn begin_with_codes(&mut self, classes: &[usize], seeds: &[u64], codes: &[impl AsRef<[u32]>]) -> Result<()> {
        self.try_begin_with_codes(classes, seeds, codes).inspect_err(refused)
    }

    fn try_begin_with_codes(&mut self, classes: &[usize], seeds: &[u64], codes: &[impl AsRef<[u32]>]) -> Result<()> {
        let Program { batch, places, .. } = self.program;
        if !self.program.takes_codes() {
            let found = format!("those of {} images", codes.len());
            return Err(Error::input("codes", "none: this session was made without `given_codes`", found));
        }
        self.check(classes, seeds)?;
        if codes.len() != batch {
            return Err(Error::input("codes", format!("those of {batch} images"), codes.len()));
        }
        for (image, codes) in codes.iter().map(AsRef::as_ref).enumerate() {
            self.check_codes_of(image, places, codes.len(), codes.iter().copied())?;
        }
        let codes = codes.iter().map(|codes| codes.as_ref().iter().map(|&code| Some(code)).collect()).collect();
        self.begin_with(classes, seeds, &Start { codes, ..Start::default() })
    }

    /// Refuses a request that does not fit the session.
    fn check(&self, classes: &[usize], seeds: &[u64]) -> Result<()> {
        let (batch, known) = (self.program.batch, self.model.config().classes.len());
        if classes.len() != batch || seeds.len() != batch {
            let found = format!("{} classes and {} seeds", classes.len(), seeds.len());
            return Err(Error::input("request", format!("{batch} classes and {batch} seeds"), found));
        }
        // `known` itself is "no class".
        if let Some(class) = classes.iter().find(|&&c| c > known) {
            return Err(Error::input("class", format!("a number below {known}, or {known} for no class"), class));
        }
        Ok(())
    }

    /// Refuses codes that are not of `places` places or not the model's.
    fn check_codes_of(&self, image: usize, places: usize, n: usize, codes: impl Iterator<Item = u32>) -> Result<()> {
        let (what, limit) = (|| format!("codes of image {image}"), self.model.networks().codes());
        if n != places {
            return Err(Error::input(what(), format!("{places} of them"), n));
        }
        match codes.into_iter().find(|&code| code as usize >= limit) {
            Some(code) => Err(Error::input(what(), format!("numbers below {limit}"), code)),
            None => Ok(()),
        }
    }

    fn check_codes(&self, codes: &[Vec<Option<u32>>]) -> Result<()> {
        let Program { batch, places, .. } = self.program;
        if !codes.is_empty() && codes.len() != batch {
            return Err(Error::input("codes", format!("those of {batch} images, or none"), codes.len()));
        }
        for (image, codes) in codes.iter().enumerate() {
            self.check_codes_of(image, places, codes.len(), codes.iter().flatten().copied())?;
            if self.program.takes_codes() && codes.contains(&None) {
                let expected = "those of all places, as `given_codes` says";
                return Err(Error::input(format!("codes of image {image}"), expected, "some to draw"));
            }
        }
        Ok(())
    }

    /// Refuses classes and weights that do not fit the session.
    fn check_mixes(&self, mixes: &[Vec<(usize, f64)>]) -> Result<()> {
        let (Program { batch, mix: most, .. }, known) = (&self.program, self.model.config().classes.len());
        if !mixes.is_empty() && mixes.len() != *batch {
            return Err(Error::input("mixes", format!("those of {batch} images, or none"), mixes.len()));
        }
        for (image, mix) in mixes.iter().enumerate() {
            let what = format!("classes of image {image}");
            if mix.len() > *most {
                return Err(Error::input(what, format!("{most} at most, as `mix` says"), mix.len()));
            }
            if let Some((class, _)) = mix.iter().find(|(class, _)| *class > known) {
                return Err(Error::input(what, format!("numbers below {known}, or {known} for no class"), class));
            }
            let sum: f64 = mix.iter().map(|(_, weight)| weight).sum();
            if let Some((_, weight)) = mix.iter().find(|(_, weight)| !(*weight >= 0.0 && weight.is_finite())) {
                let what = format!("weights of image {image}");
                return Err(Error::input(what, "finite numbers, none below 0", weight));
            }
            if !(mix.is_empty() || sum > 0.0 && sum.is_finite()) {
                let what = format!("weights of image {image}");
                return Err(Error::input(what, "a finite sum above 0", sum));
            }
        }
        Ok(())
    }

    /// Refuses an edit in a session that was not made for it, and the other way round.
    fn check_encoded(&self, given: &Given) -> Result<()> {
        let says = |encodes| if encodes { "an edit with known places of a picture" } else { "no picture to encode" };
        let (expected, found) = (self.program.encodes(), given.picture.is_some());
        if expected != found {
            return Err(Error::input("request", format!("{}, as `encodes` says", says(expected)), says(found)));
        }
        Ok(())
    }

    /// Refuses known places that are not as many as the session was made for; those of a picture are `of_picture`.
    fn check_known(&self, Start { known, .. }: &Start, of_picture: &[Vec<bool>]) -> Result<()> {
        let Program { batch, places, .. } = self.program;
        let (count, width) = self.program.known().unwrap_or_default();
        let images = if count == 0 { 0 } else { batch };
        let found = if of_picture.is_empty() { known.len() } else { of_picture.len() };
        if found != images {
            let expected = format!("those of {images} images, as `known_places` is {count}");
            return Err(Error::input("known places", expected, found));
        }
        let each = known.iter().map(|known| &known.places).chain(of_picture);
        for (image, each) in each.enumerate() {
            let found = each.iter().filter(|known| **known).count();
            if (each.len(), found) != (places, count) {
                let (what, found) = (format!("known places of image {image}"), format!("{found} of {}", each.len()));
                return Err(Error::input(what, format!("{count} of {places}"), found));
            }
        }
        for (image, known) in known.iter().enumerate() {
            let what = |what: &str| format!("{what} of image {image}");
            if known.tokens.len() != places * width {
                let expected = format!("{places} tokens of {width} numbers");
                return Err(Error::input(what("tokens"), expected, format!("{} numbers", known.tokens.len())));
            }
            if let Some(x) = known.tokens.iter().find(|x| !x.is_finite()) {
                return Err(Error::input(what("tokens"), "finite numbers", x));
            }
        }
        Ok(())
    }

    fn start(&mut self, classes: &[usize], seeds: &[u64], start: &Start, given: Given) -> Result<()> {
        self.begun = false;
        let Self { program, executor, model, .. } = self;
        let (places, width) = (program.places, program.known().map_or(0, |(_, width)| width));
        let mixed = |image: usize| start.mixes.get(image).filter(|mix| !mix.is_empty());
        // Of a mix of one class nothing is left but the class.
        let class = |(image, &class): (usize, &usize)| mixed(image).map_or(class, |mix| mix[0].0);
        let classes: Vec<usize> = classes.iter().enumerate().map(class).collect();
        let none = vec![false; places];
        let known = |image: usize| {
            let of_picture = given.known.get(image);
            of_picture.or(start.known.get(image).map(|known| &known.places)).unwrap_or(&none).as_slice()
        };
        let orders = seeds.iter().enumerate().map(|(i, &seed)| start.order.slots(seed, places.isqrt(), known(i)));
        self.orders = orders.collect();
        program.fill(executor, model.networks(), &classes, seeds, &self.orders.concat())?;
        if !start.known.is_empty() {
            let token = |(known, place): (&Known, &i32)| {
                let (place, zeros) = (*place as usize, vec![0.0; width]);
                if known.places[place] { known.tokens[place * width..][..width].to_vec() } else { zeros }
            };
            let slots =
                start.known.iter().zip(&self.orders).flat_map(|(known, order)| order.iter().map(move |p| (known, p)));
            program.fill_tokens(executor, &slots.flat_map(token).collect::<Vec<f32>>())?;
        }
        if program.takes_codes() {
            program.fill_codes(executor, given.codes.iter().flatten().flatten())?;
        } else if !given.codes.is_empty() {
            program.fill_given(executor, seeds, &given.codes)?;
        }
        if program.mix > 1 {
            let mix = |(image, &class): (usize, &usize)| {
                let Some(mix) = mixed(image) else { return vec![(class, 1.0)] };
                let sum: f64 = mix.iter().map(|(_, weight)| weight).sum();
                mix.iter().map(|&(class, weight)| (class, (weight / sum) as f32)).collect()
            };
            let mixes: Vec<_> = classes.iter().enumerate().map(mix).collect();
            program.fill_mixes(executor, model.networks(), &mixes)?;
        }
        if let Some(picture) = &given.picture {
            program.fill_picture(executor, picture, &given.known, seeds)?;
        }
        self.kept = given.kept;
        self.previewer.iter_mut().for_each(Previewer::forget);
        self.cursor = self.executor.start(&self.program.plan)?;
        self.pace = Pace::from(self.cursor.done);
        self.canceller.0.store(false, Ordering::Relaxed);
        self.times.values_mut().for_each(|time| *time = Duration::ZERO);
        self.begun = true;
        debug!("request begun: classes {classes:?}, seeds {seeds:?}");
        Ok(())
    }

    /// A handle that cancels this session's runs.
    pub fn canceller(&self) -> Canceller {
        self.canceller.clone()
    }

    /// Collects time by op from now on.
    pub fn enable_profile(&mut self) {
        self.profile = Some(Profile::default());
    }

    /// Time by op, if collected.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// Wall time since [`Session::begin`] in each stage that the session has.
    pub fn times(&self) -> &BTreeMap<Stage, Duration> {
        &self.times
    }

    /// Where the session is.
    pub fn progress(&self) -> Progress {
        progress(&self.program.plan, &self.cursor, &self.pace)
    }

    /// Works for about `budget` and says where it is. Some work is done whatever the budget.
    pub fn step(&mut self, budget: Duration) -> Result<Progress> {
        let end = Instant::now().checked_add(budget);
        self.walk(|_| end.is_some_and(|end| Instant::now() >= end))
    }

    /// Works to the end; `watch` is told of the progress after each op.
    pub fn run(&mut self, mut watch: impl FnMut(&Progress)) -> Result<()> {
        self.walk(|p| {
            watch(p);
            false
        })
        .map(drop)
    }

    fn walk(&mut self, mut pause: impl FnMut(&Progress) -> bool) -> Result<Progress> {
        if !self.begun {
            return Err(Error::input("session", "begin before step or run", "a session without a request"));
        }
        let was_finished = self.cursor.is_finished(&self.program.plan);
        let Self { program, executor, cursor, pace, canceller, times, profile, .. } = self;
        let plan = &program.plan;
        let start = Instant::now();
        let (spent, mut looked) = (pace.spent, pace.done);
        let mut mark = start;
        let mut stage = progress(plan, cursor, pace).stage;
        let mut cancelled = canceller.0.load(Ordering::Relaxed);
        let mut done = Ok(());
        if !cancelled {
            done = executor.run(plan, cursor, profile.as_mut(), |cursor| {
                if cursor.done.saturating_sub(looked) >= Pace::least(plan) {
                    looked = cursor.done;
                    pace.reached(cursor.done, spent + start.elapsed());
                }
                let p = progress(plan, cursor, pace);
                if p.stage != stage || p.finished {
                    let now = Instant::now();
                    *times.entry(stage).or_default() += now - mark;
                    (mark, stage) = (now, p.stage);
                }
                cancelled = canceller.0.load(Ordering::Relaxed);
                cancelled || pause(&p)
            });
        }
        *times.entry(stage).or_default() += mark.elapsed();
        pace.reached(cursor.done, spent + start.elapsed());
        if cancelled || done.is_err() {
            self.begun = false;
            let why = done.err().unwrap_or(Error::Cancelled);
            match &why {
                Error::Cancelled => debug!("request cancelled: {}", self.told_times()),
                why => warn!("request failed: {why}; {}", self.told_times()),
            }
            return Err(why);
        }
        let progress = self.progress();
        if progress.finished && !was_finished {
            debug!("request finished: {}", self.told_times());
        }
        Ok(progress)
    }

    /// The working times for the log.
    fn told_times(&self) -> String {
        let stages = self.times.iter().filter(|(_, time)| !time.is_zero());
        let stages: Vec<String> = stages.map(|(stage, time)| format!("{stage} {time:.1?}")).collect();
        format!("worked {:.1?} ({})", self.pace.spent, stages.join(", "))
    }

    /// The images, after the last op.
    pub fn images(&self) -> Result<Vec<Image>> {
        let finished = self.begun && self.cursor.is_finished(&self.program.plan);
        let view = self.program.image.filter(|_| finished);
        let view = view.ok_or_else(|| Error::input("images", "a finished session that makes images", "none yet"))?;
        Ok(self.composed(self.executor.pictures(view, (-1.0, 1.0))?))
    }

    /// Pictures with the pixels that an edit keeps.
    pub(super) fn composed(&self, images: Vec<Image>) -> Vec<Image> {
        match &self.kept {
            None => images,
            Some((kept, mask)) => images.into_iter().map(|new| new.where_masked(mask, kept)).collect(),
        }
    }

    /// The coarse pictures that the discrete tokens' own decoder makes, once it has run.
    pub fn previews(&self) -> Result<Vec<Image>> {
        let view = self.program.preview.filter(|_| self.has_previews());
        let view =
            view.ok_or_else(|| Error::input("previews", "a session that makes them, after stage 1", "none yet"))?;
        self.executor.pictures(view, (0.0, 1.0))
    }

    /// Whether the coarse pictures are there.
    pub(super) fn has_previews(&self) -> bool {
        let left = self.program.plan.segments.iter().skip(self.cursor.segment);
        let done = left.map(|segment| segment.stage).all(|stage| stage != Stage::Preview);
        self.begun && done && self.program.preview.is_some()
    }

    /// Whether this session makes coarse pictures, and whether it makes images.
    pub(super) fn makes(&self) -> (bool, bool) {
        (self.program.preview.is_some(), self.program.image.is_some())
    }

    /// Drops the request.
    pub(super) fn give_up(&mut self) {
        self.begun = false;
    }

    /// The continuous tokens of every image by place, after stage 2: `[L, C]` each.
    pub fn tokens(&self) -> Result<Vec<Vec<f32>>> {
        let p = self.progress();
        if !self.begun || !(p.finished || p.stage == Stage::Decode) {
            return Err(Error::input("tokens", "a session after stage 2", "none yet"));
        }
        let (slots, places) = (self.program.tokens(&self.executor)?, self.program.places);
        let width = slots.len() / (places * self.orders.len()).max(1);
        let each = slots.chunks((places * width).max(1)).zip(&self.orders).map(|(slots, order)| {
            let mut tokens = vec![0.0; slots.len()];
            for (slot, &place) in slots.chunks(width).zip(order) {
                tokens[place as usize * width..][..width].copy_from_slice(slot);
            }
            tokens
        });
        Ok(each.collect())
    }

    /// The discrete tokens of every image: given, or drawn once stage 1 has run.
    pub fn codes(&self) -> Result<Vec<Vec<u32>>> {
        if !self.begun {
            return Err(Error::input("codes", "a session with a request", "none yet"));
        }
        self.program.codes(&self.executor)
    }
}

fn refused(why: &Error) {
    warn!("request refused: {why}");
}

/// One picture a group.
pub(crate) fn pictures(pixels: Mat<'_, f32>, range: (f32, f32)) -> Vec<Image> {
    let l = pixels.layout();
    (0..l.groups).map(|g| Image::from_pixels(pixels, g * l.rows..(g + 1) * l.rows, range)).collect()
}

/// How fast a session works.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    /// Cost that was done when the request began.
    first: u64,
    /// Cost done.
    done: u64,
    /// Working time until then.
    spent: Duration,
}

impl Pace {
    fn from(done: u64) -> Self {
        Self { first: done, done, spent: Duration::ZERO }
    }

    /// The least work to tell anything from.
    fn least(plan: &Plan) -> u64 {
        plan.weight / 1000
    }

    fn reached(&mut self, done: u64, spent: Duration) {
        (self.done, self.spent) = (done, spent);
    }

    /// About how long the rest of `plan` takes.
    fn left(&self, plan: &Plan, cursor: &Cursor) -> Option<Duration> {
        if cursor.is_finished(plan) {
            return Some(Duration::ZERO);
        }
        let done = self.done - self.first;
        let rest = plan.weight.saturating_sub(cursor.done) as f64;
        let known = done > 0 && done >= Self::least(plan);
        known.then(|| Duration::try_from_secs_f64(self.spent.as_secs_f64() * rest / done as f64).ok()).flatten()
    }
}

pub(super) fn progress(plan: &Plan, cursor: &Cursor, pace: &Pace) -> Progress {
    let segment = plan.segments.get(cursor.segment).or(plan.segments.last());
    Progress {
        stage: segment.map_or(Stage::Decode, |s| s.stage),
        // Only stage 1 counts its turns: they are places. A turn of the head is a diffusion step of the round.
        index: segment.map_or(0, |s| s.index + if s.stage == Stage::Discrete { cursor.turn } else { 0 }),
        fraction: if plan.weight == 0 { 1.0 } else { cursor.done as f64 / plan.weight as f64 },
        finished: cursor.is_finished(plan),
        left: pace.left(plan, cursor),
    }
}
