//! Sessions: begun, stepped, cancelled, read.

mod background;
mod options;
mod previews;
mod progress;

pub use background::*;
pub use options::*;
pub use previews::*;
pub use progress::*;

use crate::device::DeviceHandle;
use crate::model::ModelHandle;
use crate::picture::{self, Images, Target};
use crate::request::{Settings, Start, classes_and_seeds, model};
use crate::sized;
use crate::status::{Failure, Result, Status, free, get, give, guard, slice_mut};
use discon::plan::Stage as At;
use discon::{Background, Canceller, Error, Model, Outputs, Session};
use std::ffi::c_void;
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

/// Told of the progress after each op, and while an op is at work that takes long. Other than 0 cancels the run.
pub type Watch = Option<unsafe extern "C" fn(user: *mut c_void, progress: *const Progress) -> i32>;

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
        match self.state.try_lock() {
            Ok(state) => Ok(state),
            Err(TryLockError::WouldBlock) => Err(BUSY),
            Err(TryLockError::Poisoned(state)) => {
                // Nobody else is inside: no panic but the one that was found is forgotten.
                self.state.clear_poison();
                let mut state = state.into_inner();
                state.begun = false;
                Ok(state)
            }
        }
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

    /// Refuses a call of `on_event`, which cannot wait for the end of its own thread.
    fn not_of_this_thread(&self) -> Result<()> {
        match &self.at {
            Where::InBackground(background) if background.is_current() => Err(IN_BACKGROUND),
            _ => Ok(()),
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

    /// The session, unless it makes images and has not yet.
    fn finished(&self) -> Result<&Session> {
        let session = self.begun()?;
        if self.outputs.image && !session.progress().finished {
            return Err(Failure::Misuse("images: expected a session that is finished, found it at work"));
        }
        Ok(session)
    }

    /// The session whose coarse pictures are there, if it makes any.
    fn previewing(&self) -> Result<&Session> {
        let session = self.begun()?;
        if self.outputs.preview && !session.has_previews() {
            return Err(Failure::Misuse("previews: expected a session that is through stage 1, found it before"));
        }
        Ok(session)
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
        let State { at: Where::Here(session), model, begun, .. } = &mut *state else { return Err(LOST) };
        // SAFETY: as the header asks.
        let ((classes, seeds), start) = unsafe {
            (classes_and_seeds(model, (classes, seeds), count)?, Start::read(start, count, model.places()?)?)
        };
        session.begin_with(&classes, seeds, &start)?;
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
    let make = || Ok(Images::from(unsafe { get(session, "session")? }.enter()?.finished()?.images()?));
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
    guard(|| unsafe { picture::write(&get(session, "session")?.enter()?.finished()?.image(index)?, target) })
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
        let draws = session.plan().segments.iter().any(|segment| segment.stage == At::Discrete);
        if draws && !session.has_codes() {
            return Err(Failure::Misuse("codes: expected a session that is through stage 1, found it before"));
        }
        // SAFETY: as the header asks.
        unsafe { copy(&session.codes()?, index, codes, count, "codes") }
    })
}

/// Frees a session; what runs in the background is cancelled, and waited for: until it has ended, `on_event` may still be called, and
/// its calls of this session are DISCON_STATUS_BUSY. DISCON_STATUS_BUSY, and nothing is freed, while it is at work in another call,
/// and from its own `on_event`. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_free(session: *mut SessionHandle) -> Status {
    guard(|| {
        if session.is_null() {
            return Ok(());
        }
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter_anew()?;
        state.not_of_this_thread()?;
        // Locked while it waits for the thread: what that calls meanwhile is refused, and finds nothing half dropped.
        drop(std::mem::replace(&mut state.at, Where::Lost));
        drop(state);
        // SAFETY: it is from `give`, and nobody is inside.
        drop(unsafe { Box::from_raw(session) });
        Ok(())
    })
}
