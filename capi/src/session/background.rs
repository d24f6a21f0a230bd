//! A session that runs on a thread of its own, and what the host is told of it.

use super::{LOST, Progress, SessionHandle, Where};
use crate::picture::Images;
use crate::status::{Failure, Status, get, guard, put};
use discon::Canceller;
use std::borrow::Cow;
use std::ffi::c_void;
use std::ptr::null;
use std::sync::mpsc::sync_channel;

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
    pub images: *const Images<'static>,
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
                images = Images(Cow::Borrowed(pictures.as_slice()));
                let coarse = matches!(event, discon::Event::Preview(_));
                told.kind = if coarse { EventKind::Preview } else { EventKind::Images } as u32;
                told.images = (&raw const images).cast();
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
/// If the thread cannot be had it is DISCON_STATUS_RESOURCES, and the session can only be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_run_in_background(
    session: *mut SessionHandle,
    on_event: OnEvent,
    user: *mut c_void,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let handle = unsafe { get(session, "session")? };
        // Dropped after the lock of `state`: the first event waits for that, else what it asks of the session would be refused.
        let (returning, returned) = sync_channel::<()>(0);
        let mut state = handle.enter()?;
        state.begun()?;
        let listener = on_event.map(|call| Listener { call, user, canceller: handle.canceller.clone() });
        let Where::Here(session) = std::mem::replace(&mut state.at, Where::Lost) else { return Err(LOST) };
        let hear = move |event: &discon::Event| {
            let _ = returned.recv(); // nothing is ever sent: it is an error as soon as the other end is dropped
            listener.iter().for_each(|listener| listener.hear(event));
        };
        state.at = Where::InBackground(session.in_background(hear)?);
        drop(state);
        drop(returning);
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
        unsafe { put(over, "over", over_.into()) }
    })
}

/// Waits for the end of the run in the background, and returns how it went: DISCON_STATUS_CANCELLED if it was cancelled. After it the
/// session is as after `discon_session_run`. From `on_event`, on the thread that it would wait for, it is DISCON_STATUS_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_join(session: *mut SessionHandle) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.not_of_this_thread()?;
        let background = match std::mem::replace(&mut state.at, Where::Lost) {
            Where::InBackground(background) => background,
            other => {
                state.at = other;
                return Err(Failure::Misuse("session: expected one that runs in the background, found another"));
            }
        };
        let (session, done) = background.join()?;
        state.at = Where::Here(Box::new(session));
        state.begun = done.is_ok();
        Ok(done?)
    })
}
