//! Sessions: begun, stepped, cancelled, read.

use crate::device::DeviceHandle;
use crate::model::{ModelHandle, limit};
use crate::picture::{self, Images, Target};
use crate::request::{Settings, Start, classes_and_seeds, model};
use crate::sized::{self, size_first};
use crate::status::{Failure, Result, Status, free, get, give, guard, slice_mut};
use discon::plan::Stage as At;
use discon::{Background, Canceller, Error, Image, Model, Outputs, Session};
use std::ffi::c_void;
use std::ptr::null;
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::Duration;

/// A compiled plan with its memory: it generates any number of batches. One thread at a time; a call while another is at work
/// in it, or while it runs in the background, is DISCON_STATUS_BUSY.
pub struct SessionHandle {
    /// Poisoned by a panic, until it begins anew.
    state: Mutex<State>,
    /// For a look at it while the session is at work.
    canceller: Canceller,
}

struct State {
    at: Where,
    model: Model,
    /// Whether there is a batch at work or done.
    begun: bool,
    outputs: Outputs,
}

/// Where a session is.
enum Where {
    Here(Box<Session>),
    InBackground(Background),
    /// A thread for it could not be had.
    Lost,
}

/// Cancels a session, from any thread.
pub struct CancellerHandle(Canceller);

/// The parts of a run.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// What no request changes, made by a model's first session.
    Prepare = 0,
    /// A picture to tokens.
    Encode = 1,
    /// Stage 1: discrete tokens.
    Discrete = 2,
    /// The coarse picture of the discrete tokens.
    Preview = 3,
    /// Stage 2: conditions.
    Condition = 4,
    /// Stage 2: the diffusion head.
    Head = 5,
    /// Stage 3: pixels.
    Decode = 6,
}

/// Where a session is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Progress {
    /// Bytes of this struct: what `discon_progress_init` puts here.
    pub size: usize,
    /// Share of the work done, by cost, from 0 to 1.
    pub fraction: f64,
    /// About how many microseconds of work are left; UINT64_MAX while that is not known.
    pub left_us: u64,
    /// The part at work: a discon_stage.
    pub stage: u32,
    /// Its place, round or level.
    pub index: u32,
    /// Whether all is done: 0 or 1.
    pub finished: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Progress, "progress", { fraction: 0.0, left_us: u64::MAX, stage: 0, index: 0, finished: 0, reserved: 0 });

/// What a session is for.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SessionOptions {
    /// Bytes of this struct: what `discon_session_options_init` puts here.
    pub size: usize,
    /// Images at a time.
    pub batch: usize,
    /// So many places of each image are not drawn, but given in a discon_start.
    pub known_places: usize,
    /// Each image may be mixed of so many classes.
    pub mix: usize,
    /// Bytes that it may take. 0 is what the system has left, UINT64_MAX leaves it to the system.
    pub memory_limit: u64,
    /// Whether it makes images: 0 or 1.
    pub image: u32,
    /// Whether it makes coarse pictures after stage 1: 0 or 1.
    pub preview: u32,
    /// Whether all discrete tokens are given in a discon_start, and stage 1 is left out: 0 or 1.
    pub given_codes: u32,
    /// Whether it can make pictures of what is drawn so far: 0 or 1. They take memory of their own.
    pub partial_previews: u32,
}

size_first!(SessionOptions, "session options", {
    batch: 1, known_places: 0, mix: 1, memory_limit: 0, image: 1, preview: 0, given_codes: 0, partial_previews: 0,
});

/// Bytes that a session takes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Memory {
    /// Bytes of this struct: what `discon_memory_init` puts here.
    pub size: usize,
    /// Of the host's memory, all in all.
    pub host: u64,
    /// Of a GPU's memory, all in all.
    pub device: u64,
    /// Inputs, results and all in between.
    pub arena: u64,
    /// Of the processor's threads.
    pub workers: u64,
    /// What sessions share, and no other has made yet.
    pub shared: u64,
    /// Of pictures of what is drawn so far.
    pub previews: u64,
    /// Weights that a GPU has not yet.
    pub weights: u64,
    /// The compiled plan.
    pub plan: u64,
}

size_first!(Memory, "memory", { host: 0, device: 0, arena: 0, workers: 0, shared: 0, previews: 0, weights: 0, plan: 0 });

/// Told of the progress after each op. Other than 0 cancels the run.
pub type Watch = Option<unsafe extern "C" fn(user: *mut c_void, progress: *const Progress) -> i32>;

impl Progress {
    fn of(progress: &discon::Progress) -> Self {
        Self {
            size: size_of::<Self>(),
            fraction: progress.fraction,
            left_us: progress.left.map_or(u64::MAX, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX)),
            stage: match progress.stage {
                At::Prepare => Stage::Prepare,
                At::Encode => Stage::Encode,
                At::Discrete => Stage::Discrete,
                At::Preview => Stage::Preview,
                At::Condition => Stage::Condition,
                At::Head => Stage::Head,
                At::Decode => Stage::Decode,
            } as u32,
            index: u32::try_from(progress.index).unwrap_or(u32::MAX),
            finished: progress.finished.into(),
            reserved: 0,
        }
    }
}

fn flag(value: u32, name: &'static str) -> Result<bool> {
    match value {
        0 | 1 => Ok(value == 1),
        _ => Err(Error::setting(name, "0 or 1", value).into()),
    }
}

impl SessionOptions {
    /// Batch and outputs. Null is one image.
    ///
    /// # Safety
    /// As of [`sized::read`].
    unsafe fn read(from: *const Self) -> Result<(usize, Outputs, discon::SessionOptions)> {
        if from.is_null() {
            return Ok((1, Outputs::IMAGE, discon::SessionOptions::default()));
        }
        // SAFETY: as the caller says.
        let given = unsafe { sized::read(from)? };
        let outputs = Outputs {
            image: flag(given.image, "image")?,
            preview: flag(given.preview, "preview")?,
            given_codes: flag(given.given_codes, "given_codes")?,
            partial_previews: flag(given.partial_previews, "partial_previews")?,
            known_places: given.known_places,
            mix: given.mix,
            ..Outputs::IMAGE
        };
        Ok((given.batch, outputs, discon::SessionOptions { memory_limit: limit(given.memory_limit) }))
    }
}

impl SessionHandle {
    pub(crate) fn new(session: Session, model: &Model, outputs: Outputs, begun: bool) -> Self {
        let canceller = session.canceller();
        let at = Where::Here(Box::new(session));
        Self { state: Mutex::new(State { at, model: model.clone(), begun, outputs }), canceller }
    }

    fn enter(&self) -> Result<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::WouldBlock) => Err(BUSY),
            Err(TryLockError::Poisoned(_)) => {
                Err(Failure::Misuse("session: expected one that begins anew, found one in which a call has panicked"))
            }
        }
    }

    /// To begin: what a panic left is given up.
    fn enter_anew(&self) -> Result<MutexGuard<'_, State>> {
        let state = match self.state.try_lock() {
            Err(TryLockError::Poisoned(state)) => {
                let mut state = state.into_inner();
                state.begun = false;
                Ok(state)
            }
            Err(TryLockError::WouldBlock) => Err(BUSY),
            Ok(state) => Ok(state),
        };
        self.state.clear_poison();
        state
    }
}

const BUSY: Failure = Failure::Busy("session: expected one that is not at work, found it in another call");

impl State {
    fn session(&self) -> Result<&Session> {
        match &self.at {
            Where::Here(session) => Ok(session),
            Where::InBackground(_) => Err(IN_BACKGROUND),
            Where::Lost => Err(LOST),
        }
    }

    fn session_mut(&mut self) -> Result<&mut Session> {
        match &mut self.at {
            Where::Here(session) => Ok(session),
            Where::InBackground(_) => Err(IN_BACKGROUND),
            Where::Lost => Err(LOST),
        }
    }

    /// The session, with a batch.
    fn begun(&self) -> Result<&Session> {
        let session = self.session()?;
        let begun = self.begun.then_some(session);
        begun.ok_or(Failure::Misuse("session: expected one with a batch, found none begun, or it was cancelled"))
    }

    fn works(&mut self, work: impl FnOnce(&mut Session) -> discon::Result<()>) -> Result<()> {
        self.begun()?;
        let done = work(self.session_mut()?);
        self.begun = done.is_ok();
        Ok(done?)
    }

    /// The pictures of a session that makes them and has come so far.
    fn images(&self) -> Result<Vec<Image>> {
        let session = self.begun()?;
        if self.outputs.image && !session.progress().finished {
            return Err(Failure::Misuse("images: expected a session that is finished, found it at work"));
        }
        Ok(session.images()?)
    }

    fn previews(&self) -> Result<Vec<Image>> {
        let session = self.begun()?;
        let at = session.progress();
        if self.outputs.preview && !at.finished && at.stage <= At::Preview {
            return Err(Failure::Misuse("previews: expected a session that is through stage 1, found it before"));
        }
        Ok(session.previews()?)
    }
}

const IN_BACKGROUND: Failure = Failure::Busy("session: expected one that is not at work, found it in the background");
const LOST: Failure =
    Failure::Misuse("session: expected one that could start in the background, found one that is to be freed");

/// Copies numbers of one image where the caller has room for as many.
///
/// # Safety
/// As of [`slice_mut`].
unsafe fn copy<T: Copy>(all: &[Vec<T>], image: usize, to: *mut T, count: usize, what: &'static str) -> Result<()> {
    let found = all.get(image);
    let found = found.ok_or_else(|| Error::input("image", format!("a number below {}", all.len()), image))?;
    if count != found.len() {
        return Err(Error::input(what, format!("room for {} of them", found.len()), count).into());
    }
    // SAFETY: as the caller says.
    unsafe { slice_mut(to, count, what)? }.copy_from_slice(found);
    Ok(())
}

/// Makes options of `size` bytes (`sizeof`): one image, no preview.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_options_init(options: *mut SessionOptions, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(options, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a struct of `size` bytes (`sizeof`) for where a session is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_progress_init(progress: *mut Progress, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(progress, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a struct of `size` bytes (`sizeof`) for what a session costs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_memory_init(memory: *mut Memory, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(memory, size, &sized::SizeFirst::DEFAULT) })
}

/// What a session with these options and settings would take on that device now, to the byte, without taking it. `options` may be null for one image, `settings`
/// for what the model asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_model_memory(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    options: *const SessionOptions,
    settings: *const Settings,
    memory: *mut Memory,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        unsafe {
            let model = self::model(model)?;
            let (batch, outputs, _) = SessionOptions::read(options)?;
            let m = model.memory(&get(device, "device")?.0, batch, &Settings::read(settings, model)?, outputs)?;
            let made = Memory {
                size: 0,
                host: m.host(),
                device: m.device(),
                arena: m.arena,
                workers: m.workers,
                shared: m.shared,
                previews: m.previews,
                weights: m.weights,
                plan: m.plan,
            };
            sized::write(memory, &made)
        }
    })
}

/// Compiles a session and takes its memory. `options` may be null for one image, `settings` for what the model asks for.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_new(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    options: *const SessionOptions,
    settings: *const Settings,
    session: *mut *mut SessionHandle,
) -> Status {
    let make = || -> Result<_> {
        // SAFETY: as the header asks.
        let (model, device, (batch, outputs, options), settings) = unsafe {
            let model = self::model(model)?;
            (model, &get(device, "device")?.0, SessionOptions::read(options)?, Settings::read(settings, model)?)
        };
        Ok(SessionHandle::new(model.session_with(device, batch, &settings, outputs, &options)?, model, outputs, false))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(session, "session", make) })
}

/// Starts a batch: a class (or DISCON_NO_CLASS) and a seed for each of its `count` images. What ran before is given up, unless this
/// fails. `start` may be null: nothing is given beside them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_begin(
    session: *mut SessionHandle,
    classes: *const u32,
    seeds: *const u64,
    count: usize,
    start: *const Start,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let session = unsafe { get(session, "session")? };
        let mut state = session.enter_anew()?;
        state.session()?;
        let State { at: Where::Here(session), model, begun, outputs } = &mut *state else { return Err(LOST) };
        // SAFETY: as the header asks.
        let ((classes, seeds), start) = unsafe {
            (classes_and_seeds(model, (classes, seeds), count)?, Start::read(start, count, model.places()?)?)
        };
        if outputs.given_codes {
            let codes: Option<Vec<Vec<u32>>> =
                start.codes.iter().map(|codes| codes.iter().copied().collect()).collect();
            let codes =
                codes.ok_or_else(|| Error::input("codes", "all of them, as `given_codes` says", "some to be drawn"))?;
            session.begin_with_codes(&classes, seeds, &codes)?;
        } else {
            session.begin_with(&classes, seeds, &start)?;
        }
        *begun = true;
        Ok(())
    })
}

/// Works for about `budget_us` microseconds and says where it is. Some work is done whatever the budget. `progress` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_step(
    session: *mut SessionHandle,
    budget_us: u64,
    progress: *mut Progress,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        let mut at = Progress::of(&state.session()?.progress());
        if !progress.is_null() {
            // Refused before any work.
            // SAFETY: as the header asks.
            unsafe { sized::write(progress, &at)? };
        }
        state.works(|session| {
            at = Progress::of(&session.step(Duration::from_micros(budget_us))?);
            Ok(())
        })?;
        if !progress.is_null() {
            // SAFETY: as the header asks.
            unsafe { sized::write(progress, &at)? };
        }
        Ok(())
    })
}

/// Works to the end. `watch` may be null; it must not call this session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_run(session: *mut SessionHandle, watch: Watch, user: *mut c_void) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let handle = unsafe { get(session, "session")? };
        handle.enter()?.works(|session| {
            session.run(|progress| {
                #[cfg(test)]
                crate::tests::panic_if_asked();
                let Some(watch) = watch else { return };
                // SAFETY: as the header asks.
                if unsafe { watch(user, &Progress::of(progress)) } != 0 {
                    handle.canceller.cancel();
                }
            })
        })
    })
}

/// Says where a session is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_progress(session: *const SessionHandle, progress: *mut Progress) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::write(progress, &Progress::of(&get(session, "session")?.enter()?.session()?.progress())) })
}

/// Bytes that this session has alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_bytes(session: *const SessionHandle, bytes: *mut u64) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { crate::status::put(bytes, "bytes", get(session, "session")?.enter()?.session()?.own_bytes()) })
}

/// A handle that cancels this session, also after the session was freed. Free it by `discon_canceller_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_canceller(
    session: *const SessionHandle,
    canceller: *mut *mut CancellerHandle,
) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(CancellerHandle(unsafe { get(session, "session")? }.canceller.clone()));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(canceller, "canceller", make) })
}

/// Has the batch at work stop soon with DISCON_STATUS_CANCELLED. Any thread may call it at any time; the next begin forgets it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_cancel(canceller: *const CancellerHandle) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        unsafe { get(canceller, "canceller")? }.0.cancel();
        Ok(())
    })
}

/// Frees a canceller. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_canceller_free(canceller: *mut CancellerHandle) -> Status {
    // SAFETY: as the header asks.
    unsafe { free(canceller) }
}

/// The images of a finished session.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_images(session: *const SessionHandle, images: *mut *mut Images) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(Images(unsafe { get(session, "session")? }.enter()?.images()?));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// The coarse pictures of a session that makes them, once stage 1 is through.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_previews(session: *const SessionHandle, images: *mut *mut Images) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(Images(unsafe { get(session, "session")? }.enter()?.previews()?));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// Copies one image of a finished session into the caller's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_image(
    session: *const SessionHandle,
    index: usize,
    target: *const Target,
) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { picture::write(picture::pick(&get(session, "session")?.enter()?.images()?, index)?, target) })
}

/// Copies one coarse picture into the caller's memory, once stage 1 is through.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview(
    session: *const SessionHandle,
    index: usize,
    target: *const Target,
) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { picture::write(picture::pick(&get(session, "session")?.enter()?.previews()?, index)?, target) })
}

/// What a picture of what is drawn so far costs, as a share of the whole batch, in a session with `partial_previews`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview_cost(session: *const SessionHandle, cost: *mut f64) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let found = unsafe { get(session, "session")? }.enter()?.session()?.preview_cost();
        let none = || Error::input("previews", "a session with `partial_previews`", "one without");
        // SAFETY: as the header asks.
        unsafe { crate::status::put(cost, "cost", found.ok_or_else(none)?) }
    })
}

/// Takes what is drawn so far, for `discon_session_step_preview` to make pictures of: once a round of stage 2 is over. The run
/// goes on as if nothing had been.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_begin_preview(session: *mut SessionHandle) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        Ok(state.session_mut()?.begin_preview()?)
    })
}

/// Works on the pictures that `discon_session_begin_preview` took for about `budget_us` microseconds, and says where they are. The session
/// may be stepped in between. `progress` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_step_preview(
    session: *mut SessionHandle,
    budget_us: u64,
    progress: *mut Progress,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        let at = Progress::of(&state.session_mut()?.step_preview(Duration::from_micros(budget_us))?);
        if !progress.is_null() {
            // SAFETY: as the header asks.
            unsafe { sized::write(progress, &at)? };
        }
        Ok(())
    })
}

/// The pictures of what was drawn when `discon_session_begin_preview` was called, once they are finished.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_partial_previews(
    session: *const SessionHandle,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(Images(unsafe { get(session, "session")? }.enter()?.begun()?.partial_previews()?));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// Pictures of what is drawn so far, from one call that takes as long as they need.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview_now(session: *mut SessionHandle, images: *mut *mut Images) -> Status {
    let make = || {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        Ok(Images(state.session_mut()?.preview_now()?))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// Copies the continuous tokens of an image by place, after stage 2: `count` is places * channels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_tokens(
    session: *const SessionHandle,
    index: usize,
    tokens: *mut f32,
    count: usize,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let state = unsafe { get(session, "session")? }.enter()?;
        let session = state.begun()?;
        let at = session.progress();
        if !at.finished && at.stage != At::Decode {
            return Err(Failure::Misuse("tokens: expected a session that is through stage 2, found it before"));
        }
        // SAFETY: as the header asks.
        unsafe { copy(&session.tokens()?, index, tokens, count, "tokens") }
    })
}

/// Copies the discrete tokens of an image by place, after stage 1 or where they were given: `count` is places.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_codes(
    session: *const SessionHandle,
    index: usize,
    codes: *mut u32,
    count: usize,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let state = unsafe { get(session, "session")? }.enter()?;
        let session = state.begun()?;
        let at = session.progress();
        if !state.outputs.given_codes && !at.finished && at.stage <= At::Discrete {
            return Err(Failure::Misuse("codes: expected a session that is through stage 1, found it before"));
        }
        // SAFETY: as the header asks.
        unsafe { copy(&session.codes()?, index, codes, count, "codes") }
    })
}

/// What happens to a session in the background.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum EventKind {
    /// A step was done.
    Progress = 0,
    /// The coarse pictures are there.
    Preview = 1,
    /// The images are there: the last event.
    Images = 2,
}

/// What happens to a session in the background. It and what it points to stay only while it is told.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    /// Bytes of this struct.
    pub size: usize,
    /// Where the session is, for DISCON_EVENT_KIND_PROGRESS; else null.
    pub progress: *const Progress,
    /// The pictures, for the other kinds; else null.
    pub images: *const Images,
    /// A discon_event_kind.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
}

/// Told of events on the session's thread. Other than 0 cancels the run.
pub type OnEvent = Option<unsafe extern "C" fn(user: *mut c_void, event: *const Event) -> i32>;

/// The host's side of a run in the background.
struct Listener {
    call: unsafe extern "C" fn(*mut c_void, *const Event) -> i32,
    user: *mut c_void,
    canceller: Canceller,
}

// SAFETY: the header says that the session's thread calls the function with `user`.
unsafe impl Send for Listener {}

impl Listener {
    fn hear(&self, event: &discon::Event) {
        let (progress, images);
        let mut told = Event { size: size_of::<Event>(), progress: null(), images: null(), kind: 0, reserved: 0 };
        match event {
            discon::Event::Progress(at) => {
                progress = Progress::of(at);
                (told.kind, told.progress) = (EventKind::Progress as u32, &raw const progress);
            }
            discon::Event::Preview(pictures) | discon::Event::Images(pictures) => {
                images = Images(pictures.clone());
                let coarse = matches!(event, discon::Event::Preview(_));
                told.kind = if coarse { EventKind::Preview } else { EventKind::Images } as u32;
                told.images = &raw const images;
            }
            _ => return,
        }
        // SAFETY: as the header asks; what the event points to is there until the call is over.
        if unsafe { (self.call)(self.user, &told) } != 0 {
            self.canceller.cancel();
        }
    }
}

/// Runs the batch from where it is to its end on a thread of its own, and returns at once. `on_event` is told some hundred times a
/// second, on that thread; it may be null. Until `discon_session_join` all other calls of this session are DISCON_STATUS_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_run_in_background(
    session: *mut SessionHandle,
    on_event: OnEvent,
    user: *mut c_void,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let handle = unsafe { get(session, "session")? };
        let mut state = handle.enter()?;
        state.begun()?;
        let listener = on_event.map(|call| Listener { call, user, canceller: handle.canceller.clone() });
        let Where::Here(session) = std::mem::replace(&mut state.at, Where::Lost) else { return Err(LOST) };
        let hear = move |event: &discon::Event| listener.iter().for_each(|listener| listener.hear(event));
        state.at = Where::InBackground(session.in_background(hear)?);
        Ok(())
    })
}

/// Whether the run in the background is over (0 or 1): then `discon_session_join` does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_is_over(session: *const SessionHandle, over: *mut i32) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let over_ = match &unsafe { get(session, "session")? }.enter()?.at {
            Where::InBackground(background) => background.is_finished(),
            Where::Here(_) | Where::Lost => true,
        };
        // SAFETY: as the header asks.
        unsafe { crate::status::put(over, "over", over_.into()) }
    })
}

/// Waits for the end of the run in the background, and returns how it went: DISCON_STATUS_CANCELLED if it was cancelled. After it the
/// session is as after `discon_session_run`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_join(session: *mut SessionHandle) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        let background = match std::mem::replace(&mut state.at, Where::Lost) {
            Where::InBackground(background) => background,
            other => {
                state.at = other;
                return Err(Failure::Misuse("session: expected one that runs in the background, found another"));
            }
        };
        let (session, done) = background.join();
        state.at = Where::Here(Box::new(session));
        state.begun = done.is_ok();
        Ok(done?)
    })
}

/// Frees a session; what runs in the background is cancelled, and waited for. DISCON_STATUS_BUSY, and nothing is freed, while it is at
/// work in another call. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_free(session: *mut SessionHandle) -> Status {
    guard(|| {
        if session.is_null() {
            return Ok(());
        }
        // SAFETY: as the header asks.
        drop(unsafe { get(session, "session")? }.enter_anew()?);
        // SAFETY: it is from `give`, and nobody is inside.
        drop(unsafe { Box::from_raw(session) });
        Ok(())
    })
}
