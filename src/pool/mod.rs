//! Threads that share an op's tiles: the crate's own, or a host's ([`Workers`]).
//!
//! A token loop is thousands of ops of a few microseconds, one after the other. So a thread that has nothing to do looks
//! for work again and again for a while before it sleeps: then an op starts on all threads within a fraction of a
//! microsecond. It sleeps soon after a run has ended, and at all other times: a host's frame has the cores for itself.
//!
//! The caller is one of the workers and does what the others do not get to. It never waits for a thread that has not
//! begun (`board`), so a machine that has no core to spare loses nothing but the other threads' help. That is also what
//! makes a host's threads safe to rely on (`host`): they may come late, or never.

mod board;
mod host;

pub use host::{Job, RawJob, Workers};

use crate::error::{Error, Result, panic_text};
use board::Board;
use host::Guests;
use std::fmt;
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A number of threads that share the chunks of an op. Dropping it ends its own.
pub struct Pool {
    shared: Arc<Shared>,
    threads: usize,
    crew: Crew,
}

/// Who helps the caller.
enum Crew {
    Own(Vec<JoinHandle<()>>),
    Host(Guests),
}

impl Pool {
    /// `threads` threads, the caller's among them; 0 stands for one a core that the process may use.
    pub fn new(threads: usize) -> Result<Self> {
        Self::start(counted(threads)?, |name, work| std::thread::Builder::new().name(name).spawn(work))
    }

    /// The same; each thread but the caller's first calls `at_start` with its number, from 1 on, and all of them have when
    /// this returns. [`Error::Threads`] if it panics.
    pub fn new_with(threads: usize, at_start: impl Fn(usize) + Send + Sync + 'static) -> Result<Self> {
        let threads = counted(threads)?;
        // Not a channel: who waits at one gets a handle of the standard library's, for as long as the host's thread lives.
        let (at_start, roll, mut started) = (Arc::new(at_start), Arc::new(Roll::default()), 0);
        let pool = Self::start(threads, |name, work| {
            started += 1;
            let (worker, at_start, roll) = (started, Arc::clone(&at_start), Arc::clone(&roll));
            std::thread::Builder::new().name(name).spawn(move || {
                let called = catch_unwind(AssertUnwindSafe(|| at_start(worker)));
                drop(at_start);
                roll.tell(called.map_err(panic_text));
                drop(roll);
                work();
            })
        })?;
        match roll.wait(threads - 1) {
            Some(reason) => Err(Error::Threads { threads, reason: format!("what they call at their start: {reason}") }),
            None => Ok(pool),
        }
    }

    /// The caller's thread, and up to `threads - 1` of a host's; 0 stands for as many as in [`Pool::new`].
    pub fn on(workers: impl Workers + 'static, threads: usize) -> Result<Self> {
        let threads = counted(threads)?;
        let shared = Arc::new(Shared::new(threads));
        let crew = Crew::Host(Guests::new(Box::new(workers), &shared, threads));
        Ok(Self { shared, threads, crew })
    }

    /// Threads made by `spawn`; if it fails, those that it made have ended.
    fn start(
        threads: usize,
        mut spawn: impl FnMut(String, Box<dyn FnOnce() + Send>) -> io::Result<JoinHandle<()>>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared::new(threads));
        let mut pool = Self { shared, threads, crew: Crew::Own(Vec::new()) };
        for worker in 1..threads {
            let shared = Arc::clone(&pool.shared);
            let helper = spawn(format!("discon-{worker}"), Box::new(move || shared.serve(worker)));
            let helper = helper.map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
            if let Crew::Own(helpers) = &mut pool.crew {
                helpers.push(helper);
            }
        }
        Ok(pool)
    }

    /// How many threads work, the caller's among them; at most, where they are a host's.
    pub fn threads(&self) -> usize {
        self.threads
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
    /// two threads have the same at a time, and the thread that calls this function has 0. A panic of `f` ends
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
        if split.parallel && self.threads > 1 && range.len() > 1 {
            let call = || match &self.crew {
                Crew::Own(helpers) => self.shared.wake(range.len() - 1, helpers.len()),
                Crew::Host(guests) => guests.call(&self.shared, range.len() - 1),
            };
            if let Some(left) = self.shared.board.run(range.clone(), split.claim, call, &mut pause, &f) {
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

/// How far the threads of a pool have come with what they call at their start.
#[derive(Default)]
struct Roll {
    /// Threads that have called it, and what the first panic said.
    called: Mutex<(usize, Option<String>)>,
    bell: Condvar,
}

impl Roll {
    fn tell(&self, called: std::result::Result<(), String>) {
        let mut state = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        if let Err(reason) = called {
            state.1.get_or_insert(reason);
        }
        self.bell.notify_one();
    }

    /// Waits until `threads` have called, or one has panicked: what that said.
    fn wait(&self, threads: usize) -> Option<String> {
        let mut state = self.called.lock().unwrap_or_else(PoisonError::into_inner);
        while state.0 < threads && state.1.is_none() {
            state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.1.take()
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
        // A host's threads are not waited for: what they hold of the pool is theirs too.
        let Crew::Own(helpers) = &mut self.crew else { return };
        // Whoever looked at `closing` before it was set is asleep once the door can be had, and is woken.
        drop(self.shared.door());
        self.shared.bell.notify_all();
        for helper in helpers.drain(..) {
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

/// The number of threads that is meant by `threads`.
fn counted(threads: usize) -> Result<usize> {
    match threads {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS)),
        1..=MAX_THREADS => Ok(threads),
        _ => Err(Error::setting("threads", format!("at most {MAX_THREADS}"), threads)),
    }
}

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
    /// Jobs that a host holds.
    offered: AtomicUsize,
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
            offered: AtomicUsize::new(0),
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
        while !self.closing.load(Ordering::Relaxed) {
            self.attend(worker, AWAKE_OUTSIDE);
            self.sleep();
        }
    }

    /// Helps as worker `worker`, until there was nothing to do for [`AWAKE_INSIDE`] in a run or `outside` of any.
    fn attend(&self, worker: usize, outside: Duration) {
        let (mut epoch, mut since, mut looks) = (self.board.epoch(), Instant::now(), 0u32);
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
            let limit = if self.inside.load(Ordering::Relaxed) > 0 { AWAKE_INSIDE } else { outside };
            looks = looks.wrapping_add(1);
            if now - since >= limit {
                return;
            }
            if looks % LOOKS == 0 {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests;
