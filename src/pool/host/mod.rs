//! A host's threads in the place of our own.
//!
//! A host that has threads for its cores gains nothing from more. So a pool can ask it for help instead: where an op has
//! work for more threads than have it, the pool hands the host jobs, as many as there are threads missing. A job helps with
//! whatever is up on the board and returns by itself, when the run is over or when there was nothing to do for a while.
//!
//! ```text
//! seat      a worker's number; free, or taken by the one job that has it
//! offered   seats taken: jobs that the host holds, not yet begun or at work
//! ```
//!
//! There are as many seats as threads, less the caller, so the host never holds more jobs than that, whatever it does with
//! them. The caller waits for chunks that somebody has claimed and for nothing else (`board`): a job that begins after the
//! run, or never, keeps nobody waiting. It keeps its seat, so nobody is offered another for it.
//!
//! A job that leaves frees its seat first and then looks once more for work; a caller puts its work up first and then counts
//! the seats. With a fence between, one of them sees the other.

use super::{MAX_THREADS, Shared};
use std::cell::Cell;
use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::time::Duration;

/// Threads of a host, on which it runs what it is given: [`Cpu::on`](crate::Cpu::on).
///
/// ```
/// use discon::{Cpu, Job, Workers};
/// use std::sync::mpsc::{Sender, channel};
///
/// /// The jobs of a host, taken by its threads as they come.
/// struct Jobs(Sender<Job>);
///
/// impl Workers for Jobs {
///     fn spawn(&self, job: Job) {
///         let _ = self.0.send(job); // nobody there any more: the job is dropped, which is fine
///     }
/// }
///
/// let (jobs, taken) = channel::<Job>();
/// std::thread::spawn(move || taken.into_iter().for_each(Job::run));
/// let cpu = Cpu::on(Jobs(jobs), 2)?;
/// # Ok::<(), discon::Error>(())
/// ```
pub trait Workers: Send + Sync {
    /// Has `job` run on another thread, soon, and does not wait for that. What is called from inside a step should take
    /// microseconds; it may well do nothing and drop the job, which is then done by those who are there.
    fn spawn(&self, job: Job);
}

/// No threads but the caller's: jobs are dropped.
impl Workers for () {
    fn spawn(&self, _: Job) {}
}

impl<W: Workers + ?Sized> Workers for Arc<W> {
    fn spawn(&self, job: Job) {
        (**self).spawn(job);
    }
}

impl<W: Workers + ?Sized> Workers for Box<W> {
    fn spawn(&self, job: Job) {
        (**self).spawn(job);
    }
}

/// A thread of the pool takes the job when it has nothing else to do.
#[cfg(feature = "rayon")]
impl Workers for rayon::ThreadPool {
    fn spawn(&self, job: Job) {
        rayon::ThreadPool::spawn(self, || job.run());
    }
}

/// Help for a run: a host calls [`Job::run`] once, on any of its threads, or drops the job. Either may come at any time,
/// also when the run, the session and the `Cpu` are gone. Two words, made without allocating.
pub struct Job(Arc<Seat>);

impl Job {
    /// Helps with the runs of a [`Cpu`](crate::Cpu), and returns when none is under way or when they had nothing to do for
    /// some 200 microseconds. It does not panic, and it waits for nobody.
    ///
    /// On a thread that is inside [`Workers::spawn`], which would help nobody, it returns at once.
    pub fn run(self) {
        if SPAWNING.get() {
            return;
        }
        let mut job = self;
        loop {
            let seat = Arc::clone(&job.0);
            seat.shared.attend(seat.worker, Duration::ZERO);
            drop(job);
            // With the one in `Guests::call`: whoever did not count this seat as free is seen here.
            fence(Ordering::SeqCst);
            if seat.shared.closing.load(Ordering::Relaxed) || !seat.shared.board.has_work() {
                return;
            }
            let Some(again) = seat.take() else { return };
            job = again;
        }
    }

    /// The job for a host that is written in C: a pointer, and the two functions one of which takes it.
    pub fn into_raw(self) -> RawJob {
        let job = std::mem::ManuallyDrop::new(self);
        // SAFETY: `job` is not dropped, so the handle is moved out of it once.
        let seat = unsafe { std::ptr::read(&raw const job.0) };
        RawJob { run: run_raw, discard: discard_raw, data: Arc::into_raw(seat).cast_mut().cast() }
    }
}

/// Gives the seat back.
impl Drop for Job {
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
        self.0.shared.offered.fetch_sub(1, Ordering::Release);
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("worker", &self.0.worker).finish_non_exhaustive()
    }
}

/// A [`Job`] as a function and a pointer: call `run` or `discard` with `data`, one of them, once, from any thread. A job
/// that neither gets is lost with what it holds: a few hundred bytes, and one thread's help.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct RawJob {
    /// [`Job::run`]
    pub run: unsafe extern "C" fn(*mut c_void),
    /// Drops the job.
    pub discard: unsafe extern "C" fn(*mut c_void),
    /// The job.
    pub data: *mut c_void,
}

/// The job behind `data`.
///
/// # Safety
/// `data` is from [`Job::into_raw`] and comes here once.
unsafe fn from_raw(data: *mut c_void) -> Job {
    // SAFETY: `into_raw` gave away one count of the handle with this pointer, by the caller's duty to be had once.
    Job(unsafe { Arc::from_raw(data.cast_const().cast()) })
}

/// # Safety
/// As of [`from_raw`].
unsafe extern "C" fn run_raw(data: *mut c_void) {
    // SAFETY: by the caller's duty.
    unsafe { from_raw(data) }.run();
}

/// # Safety
/// As of [`from_raw`].
unsafe extern "C" fn discard_raw(data: *mut c_void) {
    // SAFETY: by the caller's duty.
    drop(unsafe { from_raw(data) });
}

thread_local! {
    /// Whether this thread is inside `Workers::spawn`.
    static SPAWNING: Cell<bool> = const { Cell::new(false) };
}

/// A worker's number.
struct Seat {
    shared: Arc<Shared>,
    worker: usize,
    taken: AtomicBool,
}

impl Seat {
    /// A job with this seat, if no other has it.
    fn take(self: &Arc<Self>) -> Option<Job> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        self.shared.offered.fetch_add(1, Ordering::Relaxed);
        Some(Job(Arc::clone(self)))
    }
}

/// The host's threads, as a pool sees them.
pub(super) struct Guests {
    workers: Box<dyn Workers>,
    seats: Vec<Arc<Seat>>,
}

impl Guests {
    /// Seats for all workers of `threads` threads but the caller.
    pub(super) fn new(workers: Box<dyn Workers>, shared: &Arc<Shared>, threads: usize) -> Self {
        debug_assert!((1..=MAX_THREADS).contains(&threads));
        let seat = |worker| Arc::new(Seat { shared: Arc::clone(shared), worker, taken: AtomicBool::new(false) });
        Self { workers, seats: (1..threads).map(seat).collect() }
    }

    /// Has the host hold as many jobs as it takes for `wanted` threads to come, for the job that was put up.
    #[inline]
    pub(super) fn call(&self, shared: &Shared, wanted: usize) {
        let wanted = wanted.min(self.seats.len());
        // With the one in `Job::run`: whoever left without being seen here sees the work.
        fence(Ordering::SeqCst);
        if shared.offered.load(Ordering::Acquire) < wanted {
            self.offer(shared, wanted);
        }
    }

    #[cold]
    fn offer(&self, shared: &Shared, wanted: usize) {
        struct Spawning(bool);
        impl Drop for Spawning {
            fn drop(&mut self) {
                SPAWNING.set(self.0);
            }
        }
        let _spawning = Spawning(SPAWNING.replace(true));
        for seat in &self.seats {
            if shared.offered.load(Ordering::Relaxed) >= wanted {
                return;
            }
            if let Some(job) = seat.take() {
                self.workers.spawn(job);
            }
        }
    }
}

#[cfg(test)]
mod tests;
