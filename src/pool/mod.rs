//! The crate's own worker threads.
//!
//! A token loop is thousands of ops of a few microseconds, one after the other. So a thread that has nothing to do looks
//! for work again and again for a while before it sleeps: then an op starts on all threads within a fraction of a
//! microsecond. It sleeps soon after a run has ended, and at all other times: a host's frame has the cores for itself.
//!
//! The caller is one of the workers and does what the others do not get to. It never waits for a thread that has not
//! begun (`board`), so a machine that has no core to spare loses nothing but the other threads' help.

mod board;

use crate::error::{Error, Result};
use board::Board;
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A number of threads that share the chunks of an op. Dropping it ends them.
pub struct Pool {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` threads, the caller's among them; 0 stands for one a core that the process may use.
    pub fn new(threads: usize) -> Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let threads = if threads == 0 { cores() } else { threads };
        if threads > MAX_THREADS {
            return Err(Error::setting("threads", format!("at most {MAX_THREADS}"), threads));
        }
        Self::start(threads, |name, work| std::thread::Builder::new().name(name).spawn(work))
    }

    /// Threads made by `spawn`; if it fails, those that it made have ended.
    fn start(
        threads: usize,
        mut spawn: impl FnMut(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let mut pool = Self { shared: Arc::new(Shared::new(threads)), helpers: Vec::with_capacity(threads - 1) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let helper = spawn(format!("discon-{worker}"), Box::new(move || shared.serve(worker)));
            pool.helpers.push(helper.map_err(|e| Error::Threads { threads, reason: e.to_string() })?);
        }
        Ok(pool)
    }

    /// How many threads work, the caller's among them.
    pub fn threads(&self) -> usize {
        self.helpers.len() + 1
    }

    /// Runs `f`, in which calls of [`Pool::for_each`] follow each other closely: threads stay awake between them for
    /// longer.
    pub fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        struct Inside<'a>(&'a AtomicUsize);
        impl Drop for Inside<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.shared.inside.fetch_add(1, Ordering::Relaxed);
        let _inside = Inside(&self.shared.inside);
        f()
    }

    /// Calls `f(worker, i)` for each `i`, on several threads if `split` says so. `worker` is below [`Pool::threads`]; no
    /// two threads have the same in one call of this function, and the thread that calls it has 0. A panic of `f` ends
    /// the call with that panic, some `i` left out, when all threads have left `f`.
    ///
    /// The threads work for one call at a time. A call while they are at another's work, be it another thread's or the
    /// one from inside whose `f` it comes, runs on its own thread alone.
    pub fn for_each(&self, range: Range<usize>, split: Split, f: impl Fn(usize, usize) + Sync) {
        self.until(range, split, || false, f);
    }

    /// [`Pool::for_each`] that asks `pause` on this thread after each of its claims. Once `pause` agrees, no thread
    /// starts on another claim, and what nobody started comes back: an empty range if that is nothing.
    pub fn until(
        &self,
        range: Range<usize>,
        split: Split,
        mut pause: impl FnMut() -> bool,
        f: impl Fn(usize, usize) + Sync,
    ) -> Range<usize> {
        if split.parallel && !self.helpers.is_empty() && range.len() > 1 {
            let wake = || self.shared.wake(range.len() - 1, self.helpers.len());
            if let Some(left) = self.shared.board.run(range.clone(), split.claim, wake, &mut pause, &f) {
                return left;
            }
        }
        let mut left = range;
        while !left.is_empty() {
            let claim = left.len().min(split.claim.max(1));
            (left.start..left.start + claim).for_each(|i| f(0, i));
            left.start += claim;
            if pause() {
                break;
            }
        }
        left
    }
}

/// How the work of a call is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Split {
    /// Whether other threads take part.
    pub parallel: bool,
    /// The most that a thread does before it looks up: for `pause`, and at what the others have left.
    pub claim: usize,
}

impl Split {
    /// Piece by piece, on all threads.
    pub const EACH: Self = Self { parallel: true, claim: 1 };
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        // Whoever looked at `closing` before it was set is asleep once the door can be had, and is woken.
        drop(self.shared.door());
        self.shared.bell.notify_all();
        for helper in self.helpers.drain(..) {
            // It does not panic: `Board::help` keeps panics for the caller. Nothing could be done here if it had.
            let _ = helper.join();
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// More threads than any machine of the day has cores: a guard against a wrong number, not a tuning.
pub const MAX_THREADS: usize = 1024;

/// How long a thread looks for work before it sleeps, between jobs of one run: longer than ops that run on one thread
/// take, and so long that the few microseconds of waking it are a small share of it.
const AWAKE_INSIDE: Duration = Duration::from_micros(200);
/// The same, when no run is under way: a caller who steps again at once finds threads awake, one who draws a frame
/// first has the cores.
const AWAKE_OUTSIDE: Duration = Duration::from_micros(20);
/// Looks for work between two looks at the clock: about a microsecond.
const POLLS: usize = 64;
/// Looks at the clock between two offers of the core to whoever else wants it, which on a machine with more threads
/// than cores may be the caller.
const LOOKS: u32 = 8;

/// What the pool and its threads share.
struct Shared {
    board: Board,
    /// Runs under way.
    inside: AtomicUsize,
    closing: AtomicBool,
    /// Threads that sleep and have no pass. Changed by who holds the door.
    asleep: AtomicUsize,
    door: Mutex<Door>,
    bell: Condvar,
}

/// Where threads sleep.
#[derive(Default)]
struct Door {
    /// Sleepers that have been called and may leave.
    passes: usize,
}

impl Shared {
    fn new(threads: usize) -> Self {
        Self {
            board: Board::new(threads),
            inside: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            asleep: AtomicUsize::new(0),
            door: Mutex::default(),
            bell: Condvar::new(),
        }
    }

    fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls as many sleepers as it takes for `wanted` of `helpers` threads to be awake, for the job that was put up.
    #[inline]
    fn wake(&self, wanted: usize, helpers: usize) {
        // With the one in `sleep`: whoever is not seen here as asleep sees the job.
        fence(Ordering::SeqCst);
        let asleep = self.asleep.load(Ordering::Relaxed);
        if asleep > 0 && wanted > helpers - asleep {
            self.ring(wanted - (helpers - asleep));
        }
    }

    #[cold]
    fn ring(&self, wanted: usize) {
        let mut door = self.door();
        let passes = wanted.min(self.asleep.load(Ordering::Relaxed));
        self.asleep.fetch_sub(passes, Ordering::Relaxed);
        door.passes += passes;
        drop(door);
        (0..passes).for_each(|_| self.bell.notify_one());
    }

    /// Sleeps until called.
    fn sleep(&self) {
        let mut door = self.door();
        self.asleep.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.board.has_work() {
            self.asleep.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        while door.passes == 0 && !self.closing.load(Ordering::Relaxed) {
            door = self.bell.wait(door).unwrap_or_else(PoisonError::into_inner);
        }
        door.passes = door.passes.saturating_sub(1);
    }

    /// The life of thread `worker`.
    fn serve(&self, worker: usize) {
        let (mut epoch, mut since, mut looks) = (self.board.epoch(), Instant::now(), 0);
        while !self.closing.load(Ordering::Relaxed) {
            for _ in 0..POLLS {
                if !self.board.help(worker) {
                    std::hint::spin_loop();
                }
            }
            // Jobs that others were faster at count too: the next may need this thread.
            let (now, current) = (Instant::now(), self.board.epoch());
            if current != epoch {
                (epoch, since) = (current, now);
            }
            let limit = if self.inside.load(Ordering::Relaxed) > 0 { AWAKE_INSIDE } else { AWAKE_OUTSIDE };
            looks += 1;
            if now - since >= limit {
                self.sleep();
                since = Instant::now();
            } else if looks % LOOKS == 0 {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests;
