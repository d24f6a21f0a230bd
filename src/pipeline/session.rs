//! A session: a compiled plan, its memory, and the place in it.

use super::edit::Given;
use super::memory::{SessionMemory, SessionOptions};
use super::model::Model;
use super::preview::Previewer;
use super::program::Program;
use super::progress::{Pace, progress};
use super::{Device, Edit, Executor, Image, Known, Outputs, Progress, Settings, Start};
use crate::error::{Error, Result};
use crate::plan::{Cursor, Plan, Profile, Stage, View};
use crate::tensor::{Mat, collected};
use log::{debug, warn};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
        let of_preview = preview.as_ref().map(|preview| &preview.plan);
        SessionMemory::of(device, model.networks(), plan, of_preview)?.within(options.memory_limit, "the session")?;
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
        self.begin_edit(classes, seeds, start, start.edit.as_ref())
    }

    /// Starts a batch of which something is given; `edit` counts for its own.
    pub(super) fn begin_edit(
        &mut self,
        classes: &[usize],
        seeds: &[u64],
        start: &Start,
        edit: Option<&Edit>,
    ) -> Result<()> {
        self.try_begin_edit(classes, seeds, start, edit).inspect_err(refused)
    }

    fn try_begin_edit(&mut self, classes: &[usize], seeds: &[u64], start: &Start, edit: Option<&Edit>) -> Result<()> {
        if self.program.takes_codes() && start.codes.is_empty() {
            return Err(Error::input("request", "codes too, as `given_codes` says", "classes and seeds only"));
        }
        self.check(classes, seeds)?;
        self.check_mixes(&start.mixes)?;
        let given = match edit {
            None => Given::codes(&start.codes),
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

    fn start(&mut self, classes: &[usize], seeds: &[u64], start: &Start, given: Given<'_>) -> Result<()> {
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
        let words = seeds.len() * places;
        let orders = collected("the orders", words, self.orders.iter().flatten().copied())?;
        program.fill(executor, model.networks(), &classes, seeds, &orders)?;
        if !start.known.is_empty() {
            let number = |known: &Known, place: usize, i: usize| {
                if known.places[place] { known.tokens[place * width + i] } else { 0.0 }
            };
            let slots = start.known.iter().zip(&self.orders);
            let slots = slots.flat_map(|(known, order)| order.iter().map(move |&place| (known, place as usize)));
            let numbers = slots.flat_map(|(known, place)| (0..width).map(move |i| number(known, place, i)));
            program.fill_tokens(executor, &collected("the known tokens", words * width, numbers)?)?;
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
        if let Some(picture) = given.encoded() {
            program.fill_picture(executor, picture, &given.known, seeds)?;
        }
        self.kept = given.kept()?;
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

    /// Works to the end; `watch` is told of the progress after each op, and within an op each time that the caller's thread
    /// looks for more of it to do. After a panic of `watch` the session must begin again.
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
        let Self { program, executor, cursor, pace, begun, canceller, times, profile, .. } = self;
        let plan = &program.plan;
        let start = Instant::now();
        let (spent, mut looked) = (pace.spent, pace.done);
        let mut mark = start;
        let mut stage = progress(plan, cursor, pace).stage;
        let mut cancelled = canceller.0.load(Ordering::Relaxed);
        let mut done = Ok(());
        // What unwinds (`pause`, a host's `spawn`) leaves an op whose tiles are done in part: done again in place they would be
        // wrong. Then the request stays dropped.
        *begun = false;
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
        self.begun = !cancelled && done.is_ok();
        if !self.begun {
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
        Ok(self.composed(self.executor.pictures(self.image_pixels()?, (-1.0, 1.0))?))
    }

    /// One of [`Session::images`], by its number in the batch, from 0 on. The others are not made.
    pub fn image(&self, index: usize) -> Result<Image> {
        Ok(self.put_together(self.one_of(self.image_pixels()?, index, (-1.0, 1.0))?))
    }

    /// One picture of the batch.
    fn one_of(&self, view: View, index: usize, range: (f32, f32)) -> Result<Image> {
        if index >= self.program.batch {
            return Err(Error::input("image", format!("a number below {}", self.program.batch), index));
        }
        self.executor.picture(view.groups(index..index + 1), range)
    }

    /// The pixels of the finished images.
    fn image_pixels(&self) -> Result<View> {
        let finished = self.begun && self.cursor.is_finished(&self.program.plan);
        let none = || Error::input("images", "a finished session that makes images", "none yet");
        self.program.image.filter(|_| finished).ok_or_else(none)
    }

    /// Pictures with the pixels that an edit keeps.
    pub(super) fn composed(&self, images: Vec<Image>) -> Vec<Image> {
        images.into_iter().map(|new| self.put_together(new)).collect()
    }

    fn put_together(&self, new: Image) -> Image {
        match &self.kept {
            None => new,
            Some((kept, mask)) => new.where_masked(mask, kept),
        }
    }

    /// The coarse pictures that the discrete tokens' own decoder makes, once it has run.
    pub fn previews(&self) -> Result<Vec<Image>> {
        self.executor.pictures(self.preview_pixels()?, (0.0, 1.0))
    }

    /// One of [`Session::previews`], by its number in the batch, from 0 on. The others are not made.
    pub fn preview(&self, index: usize) -> Result<Image> {
        self.one_of(self.preview_pixels()?, index, (0.0, 1.0))
    }

    /// The pixels of the coarse pictures.
    fn preview_pixels(&self) -> Result<View> {
        let none = || Error::input("previews", "a session that makes them, after stage 1", "none yet");
        self.program.preview.filter(|_| self.has_previews()).ok_or_else(none)
    }

    /// Whether the coarse pictures are there.
    pub fn has_previews(&self) -> bool {
        self.is_past(Stage::Preview) && self.program.preview.is_some()
    }

    /// Whether nothing of `stage` is left of the request.
    fn is_past(&self, stage: Stage) -> bool {
        let mut left = self.program.plan.segments.iter().skip(self.cursor.segment);
        self.begun && left.all(|segment| segment.stage != stage)
    }

    /// Whether this session makes coarse pictures, and whether it makes images.
    pub(super) fn makes(&self) -> (bool, bool) {
        (self.program.preview.is_some(), self.program.image.is_some())
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
            let mut tokens = collected("the tokens", slots.len(), slots.iter().map(|_| 0.0))?;
            for (slot, &place) in slots.chunks(width).zip(order) {
                tokens[place as usize * width..][..width].copy_from_slice(slot);
            }
            Ok(tokens)
        });
        each.collect()
    }

    /// The discrete tokens of every image: given, or drawn once stage 1 has run.
    pub fn codes(&self) -> Result<Vec<Vec<u32>>> {
        if self.program.has_codes() && !self.has_codes() {
            return Err(Error::input("codes", "a session after stage 1", "none yet"));
        }
        self.program.codes(&self.executor)
    }

    /// Whether the discrete tokens are there: once stage 1 has run, or as soon as a request with given ones has begun.
    pub fn has_codes(&self) -> bool {
        self.is_past(Stage::Discrete) && self.program.has_codes()
    }
}

fn refused(why: &Error) {
    warn!("request refused: {why}");
}

/// One picture a group.
pub(crate) fn pictures(pixels: Mat<'_, f32>, range: (f32, f32)) -> Result<Vec<Image>> {
    let l = pixels.layout();
    (0..l.groups).map(|g| Image::from_pixels(pixels, g * l.rows..(g + 1) * l.rows, range)).collect()
}
