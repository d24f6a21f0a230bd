//! A session that runs on a thread of its own.

use super::{Canceller, Event, Session};
use crate::error::{Error, Result, panic_text};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

thread_local! {
    /// The mark of the run whose thread this is.
    static MARK: Cell<*const ()> = const { Cell::new(null()) };
}

/// Time of a step, and so between two events.
const STEP: Duration = Duration::from_millis(10);

/// A session at work on a thread of its own: [`Session::in_background`]. Dropping it cancels the run and waits until the
/// thread has ended.
#[derive(Debug)]
pub struct Background {
    canceller: Canceller,
    /// What the thread is known by: [`thread::current`] would make a handle, in a host's thread for as long as that lives.
    mark: Arc<()>,
    /// None once it was joined.
    thread: Option<JoinHandle<(Session, Result<()>)>>,
}

impl Session {
    /// Runs the session from where it is to its end on a thread of its own, named `discon-session`, which is the caller's
    /// of the session's [`Cpu`](crate::Cpu). `on_event` is called there: with each [`Event`], some hundred times a second.
    /// If it panics, the run stops, and [`Background::join`] says so.
    ///
    /// [`Error::Threads`] if the thread cannot be had; the session is dropped then.
    ///
    /// ```no_run
    /// # let model = discon::Model::open("weights/avatars-64")?;
    /// # let mut session = model.session(&discon::Cpu::new(0)?, 1, &model.settings(), discon::Outputs::IMAGE)?;
    /// session.begin(&[3], &[7])?;
    /// let background = session.in_background(|event| println!("{event:?}"))?;
    /// // ... what the program does meanwhile ...
    /// let (session, done) = background.join()?;
    /// done?;
    /// println!("{} images", session.images()?.len());
    /// # Ok::<(), discon::Error>(())
    /// ```
    pub fn in_background(mut self, on_event: impl FnMut(&Event) + Send + 'static) -> Result<Background> {
        let canceller = self.canceller();
        let mark = Arc::new(());
        let marked = Arc::clone(&mark);
        let work = move || {
            MARK.set(Arc::as_ptr(&marked));
            let done = catch_unwind(AssertUnwindSafe(|| run(&mut self, on_event)));
            let done = done.unwrap_or_else(|payload| {
                Err(Error::Callback { what: "a step, or what it called,", reason: panic_text(payload) })
            });
            (self, done)
        };
        let thread = thread::Builder::new().name("discon-session".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Error::Threads { threads: 1, reason: e.to_string() })?;
        Ok(Background { canceller, mark, thread: Some(thread) })
    }
}

/// Tells `on_event` of all events of `session`.
fn run(session: &mut Session, mut on_event: impl FnMut(&Event)) -> Result<()> {
    for event in session.events(STEP) {
        let event = event?;
        let told = catch_unwind(AssertUnwindSafe(|| on_event(&event)));
        told.map_err(|payload| Error::Callback { what: "`on_event`", reason: panic_text(payload) })?;
    }
    Ok(())
}

impl Background {
    /// Stops the run before its next tiles of work.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }

    /// Whether the run is over: then [`Background::join`] does not wait.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether this is the thread of the run: inside its `on_event`, which cannot wait for the run's end.
    pub fn is_current(&self) -> bool {
        MARK.get() == Arc::as_ptr(&self.mark)
    }

    /// Waits for the end of the run, and gives the session back with how it went: [`Error::Cancelled`] after
    /// [`Background::cancel`], unless the run was faster, [`Error::Callback`] after a panic of `on_event`. That session
    /// can be used again in any case.
    ///
    /// [`Error::Input`] without a session in the run's own `on_event` ([`Background::is_current`]): the run would wait for
    /// itself, and is cancelled, as by dropping this.
    pub fn join(mut self) -> Result<(Session, Result<()>)> {
        if self.is_current() {
            return Err(Error::input("join", "another thread than the run's", "its own `on_event`"));
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(done)) => Ok(done),
            // The thread catches all panics, so this is one of the panic's own contents as they were dropped.
            Some(Err(payload)) => Err(Error::Callback { what: "what a panic held", reason: panic_text(payload) }),
            None => unreachable!("only `join` and `drop` take the thread, and both have this value to themselves"),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.canceller.cancel();
        // Dropped by `on_event` itself, it would wait for its own end.
        if !self.is_current() {
            // It was to be dropped: how it went is of no interest.
            let _ = thread.join();
        }
    }
}
