//! The board: one job at a time, put up by a caller, its chunks taken by whoever gets there first.
//!
//! # Protocol
//!
//! ```text
//! ticket    epoch : 16 | chunks claimed from the front : 24 | chunks that nobody has claimed : 24
//! job       what to call for a chunk; read by those who hold a claim, written while there is none
//! finished  chunks of this job that helpers claimed and are done with
//! busy      whether a caller has the board
//! ```
//!
//! 1. A caller takes `busy`, or goes without help. Now nobody else writes the job.
//! 2. It writes the job, sets `finished` to 0 and stores the ticket with the number of chunks: *release*.
//! 3. Anyone claims chunks by taking them off the ticket: a compare-exchange, *acquire*, from a ticket with chunks left.
//!    Every ticket since the caller's store was made from it by such an exchange, so all of them carry its release: who
//!    claims sees the job. A claim that is long in coming (read the ticket, lost the core, woke up) fails if the ticket
//!    has changed since; should it be the same number again 2^16 jobs later, then the claim is a claim of that job. The
//!    job is read after the claim and never before, so a claim is all that it needs.
//! 4. A helper that finds no chunk left adds the number of those it did to `finished`: *release*, and its last access.
//! 5. The caller works too. When no chunk is left it waits until its own and the `finished` ones are all: *acquire*. So it
//!    waits for chunks at work and never for a thread that has claimed nothing, whatever the scheduler does to it. Now
//!    nobody holds a claim and none can be had: what the job points to may go, and the job may be written again.
//! 6. It releases `busy`: the next caller, if another thread, sees all of this.
//!
//! A helper between 3 and 4 keeps its job from ending, so all that it claims meanwhile is of the same job.
//!
//! A panic in a chunk claims what is left, so that nobody starts on it, and counts it as done; the payload reaches the
//! caller after step 5. A caller that pauses claims what is left too, and gives it back as a range: claims come off
//! both ends, so it is one.
//!
//! A claim is of several small chunks, fewer the fewer are left: the ticket changes cores some times a job and not for
//! each chunk, and still big and small cores share by speed. Every other thread claims from the front, the others from
//! the back: two threads take about the same halves of one op after the other, so that what a core has written it often
//! reads itself. That counts: a line that the other core has written costs some 60 ns where the two share a cache, and
//! four times that where they do not.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What to call for each chunk.
#[derive(Clone, Copy)]
struct Job {
    /// Calls the closure behind the pointer with a worker and a chunk.
    call: unsafe fn(*const (), usize, usize),
    /// The closure, borrowed by the caller that put the job up.
    closure: *const (),
    /// The first chunk.
    start: usize,
}

/// Ticket and job on one line: who claims has the job in the cache.
struct Open {
    ticket: AtomicU64,
    /// The most chunks of a claim. Read before there is a claim, so perhaps another job's: any number is safe.
    most: AtomicU32,
    job: UnsafeCell<Job>,
}

/// What a thread did of a job.
struct Work {
    /// Chunks it claimed.
    taken: u32,
    /// Chunks that nobody starts any more, of those that nobody had claimed.
    dropped: Range<u32>,
    /// The panic that ended it.
    panic: Option<Box<dyn Any + Send>>,
}

/// Bytes that two threads can write without disturbing each other: a line, and the one fetched with it.
#[repr(align(128))]
struct Apart<T>(T);

/// See the module.
pub(super) struct Board {
    open: Apart<Open>,
    finished: Apart<AtomicU32>,
    busy: Apart<AtomicBool>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// A claim is of what is left over this many.
    share: u32,
}

// SAFETY: all but the job may be shared as it is. The job is written by the thread that holds `busy` while no chunk is
// claimed or can be, and read by threads that hold a claim (steps 2, 3 and 5). Its pointer is to a closure that is
// `Sync` (`Board::run`), alive as long as there is a claim.
unsafe impl Sync for Board {}
// SAFETY: the pointer in the job is only used under a claim, and then as above.
unsafe impl Send for Board {}

impl Board {
    /// A board for `threads` threads.
    pub(super) fn new(threads: usize) -> Self {
        let nothing = Job { call: |_, _, _| (), closure: std::ptr::null(), start: 0 };
        Self {
            open: Apart(Open { ticket: AtomicU64::new(0), most: AtomicU32::new(1), job: UnsafeCell::new(nothing) }),
            finished: Apart(AtomicU32::new(0)),
            busy: Apart(AtomicBool::new(false)),
            panic: Mutex::new(None),
            // A core that is half as fast as the others is not late with its first claim.
            share: u32::try_from(2 * threads).unwrap_or(MOST),
        }
    }

    fn ticket(&self) -> &AtomicU64 {
        &self.open.0.ticket
    }

    /// The number of jobs so far, modulo 2^16.
    pub(super) fn epoch(&self) -> u16 {
        (self.ticket().load(Ordering::Relaxed) >> (2 * COUNT)) as u16
    }

    /// Whether there is a chunk to claim. Between a change that [`Board::run`]'s `announce` looks at and this call
    /// belongs a fence, as in `announce` before its look: then one of the two sees the other.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        left(self.ticket().load(Ordering::Relaxed)) > 0
    }

    /// Calls `f(worker, i)` for each `i` in `range`: as worker 0 here, as others on the threads that call
    /// [`Board::help`] meanwhile; a thread claims `claim` chunks at most at once. `announce` is called once the job is up,
    /// if it is not over by then. `pause` is asked after each claim of the caller's; once it agrees no chunk is started
    /// any more, and those not started come back. Goes on with the panic of a chunk when no chunk is at work any more.
    /// Does nothing and gives nothing if another job is up, or if the chunks are more than a ticket counts.
    pub(super) fn run<F: Fn(usize, usize) + Sync>(
        &self,
        range: Range<usize>,
        claim: usize,
        announce: impl FnOnce(),
        pause: impl FnMut() -> bool,
        f: &F,
    ) -> Option<Range<usize>> {
        let chunks = u32::try_from(range.len()).ok().filter(|&n| n <= MOST)?;
        if self.busy.0.swap(true, Ordering::Acquire) {
            return None;
        }
        let job = Job { call: call::<F>, closure: (&raw const *f).cast(), start: range.start };
        // SAFETY: this thread holds `busy`, and whoever held it before left no chunk to claim and none at work: nobody
        // else reads or writes the job.
        unsafe { *self.open.0.job.get() = job };
        self.finished.0.store(0, Ordering::Relaxed);
        self.open.0.most.store(u32::try_from(claim).unwrap_or(MOST).max(1), Ordering::Relaxed);
        let epoch = self.epoch().wrapping_add(1);
        self.ticket().store(u64::from(epoch) << (2 * COUNT) | u64::from(chunks), Ordering::Release);

        // From here to the end of the wait this thread must not unwind: others use `f`. `work` does not.
        let work = self.work(0, announce, pause);
        self.wait(chunks - work.taken - work.dropped.len() as u32);

        let theirs = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.busy.0.store(false, Ordering::Release);
        if let Some(payload) = work.panic.or(theirs) {
            resume_unwind(payload);
        }
        Some(range.start + work.dropped.start as usize..range.start + work.dropped.end as usize)
    }

    /// Works on the job that is up, if there is one with chunks left, as worker `worker`; whether there was.
    #[inline]
    pub(super) fn help(&self, worker: usize) -> bool {
        if !self.has_work() {
            return false;
        }
        let Work { taken, dropped, panic } = self.work(worker, || (), || false);
        if let Some(payload) = panic {
            let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
            match &*first {
                None => *first = Some(payload),
                // One will do. Leaked, not dropped: that could panic too, and the chunks below must be counted.
                Some(_) => std::mem::forget(payload),
            }
        }
        let done = taken + dropped.len() as u32;
        if done > 0 {
            self.finished.0.fetch_add(done, Ordering::Release);
        }
        done > 0
    }

    /// Claims chunks and does them until none is left or `pause` agrees. Does not unwind. `first` is called when there
    /// is a chunk, before it is done.
    fn work(&self, worker: usize, first: impl FnOnce(), mut pause: impl FnMut() -> bool) -> Work {
        let mut work = Work { taken: 0, dropped: 0..0, panic: None };
        let Some(mut chunks) = self.claim(worker) else { return work };
        // SAFETY: a chunk is claimed and not yet counted as finished, so the job is whole, and stays as it is.
        let job = unsafe { *self.open.0.job.get() };
        work.taken = chunks.len() as u32;
        let done = catch_unwind(AssertUnwindSafe(|| {
            first();
            loop {
                for chunk in chunks.clone() {
                    // SAFETY: `call` was made for the closure's type, which may be called from any thread
                    // (`Board::run`), and the caller keeps it alive until the claimed chunks are counted.
                    unsafe { (job.call)(job.closure, worker, job.start + chunk as usize) };
                }
                if pause() {
                    work.dropped = self.close();
                    return;
                }
                let Some(next) = self.claim(worker) else { return };
                work.taken += next.len() as u32;
                chunks = next;
            }
        }));
        if let Err(payload) = done {
            work.dropped = self.close();
            work.panic = Some(payload);
        }
        work
    }

    /// Takes all chunks that nobody has claimed, so that nobody will.
    fn close(&self) -> Range<u32> {
        let ticket = self.ticket().fetch_and(!u64::from(MOST), Ordering::Acquire);
        let front = front(ticket);
        front..front + left(ticket)
    }

    /// Claims chunks for `worker`: their places in the job.
    #[inline]
    fn claim(&self, worker: usize) -> Option<Range<u32>> {
        let mut ticket = self.ticket().load(Ordering::Relaxed);
        while left(ticket) > 0 {
            let (front, left) = (front(ticket), left(ticket));
            let some = (left / self.share).clamp(1, self.open.0.most.load(Ordering::Relaxed));
            let (chunks, next) = match worker % 2 {
                0 => (front..front + some, ticket + (u64::from(some) << COUNT) - u64::from(some)),
                _ => (front + left - some..front + left, ticket - u64::from(some)),
            };
            match self.ticket().compare_exchange_weak(ticket, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(chunks),
                Err(now) => ticket = now,
            }
        }
        None
    }

    /// Waits until helpers are done with `chunks` chunks.
    fn wait(&self, chunks: u32) {
        let mut polls = 0;
        while self.finished.0.load(Ordering::Acquire) != chunks {
            // A chunk takes microseconds. One that takes longer may have lost its core, perhaps to this thread.
            if polls < POLLS_BEFORE_YIELD {
                polls += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

/// Some 10 microseconds.
const POLLS_BEFORE_YIELD: u32 = 500;

/// Bits of a ticket's counts of chunks.
const COUNT: u32 = 24;
/// The most chunks of a job.
const MOST: u32 = (1 << COUNT) - 1;

/// Chunks claimed from the front.
#[inline]
fn front(ticket: u64) -> u32 {
    (ticket >> COUNT) as u32 & MOST
}

/// Chunks that nobody has claimed.
#[inline]
fn left(ticket: u64) -> u32 {
    ticket as u32 & MOST
}

/// Calls the closure behind `closure`.
///
/// # Safety
/// `closure` points to an `F` that lives during the call.
unsafe fn call<F: Fn(usize, usize) + Sync>(closure: *const (), worker: usize, i: usize) {
    // SAFETY: by the caller's duty; `F` is `Sync`, so other threads may have it borrowed too.
    let f = unsafe { &*closure.cast::<F>() };
    f(worker, i);
}
