//! Once a request has begun, working on it neither takes memory nor gives any back: a frame cannot stall on it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Job, Model, Outputs, Workers};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The system's allocator, counting all calls of all threads.
struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);

fn count() {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller's duty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: by the caller's duty.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: by the caller's duty.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: by the caller's duty.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A host's thread, and the job that it is to run next.
#[derive(Default)]
struct Host {
    job: Mutex<Option<Job>>,
    bell: Condvar,
    jobs: AtomicUsize,
}

impl Workers for Host {
    fn spawn(&self, job: Job) {
        *self.job.lock().unwrap() = Some(job);
        self.bell.notify_one();
    }
}

impl Host {
    /// Runs jobs for ever.
    fn serve(&self) {
        loop {
            let job = self.bell.wait_while(self.job.lock().unwrap(), |job| job.is_none()).unwrap().take();
            self.jobs.fetch_add(1, Ordering::Relaxed);
            job.into_iter().for_each(Job::run);
        }
    }
}

/// Alone in its process: another test's allocations would count too.
#[test]
fn steps_do_not_allocate() {
    let host = Arc::new(Host::default());
    let thread = Arc::clone(&host);
    std::thread::spawn(move || thread.serve());
    let hosted = Cpu::on(Arc::clone(&host), 2).unwrap();
    for (threads, cpu) in [("1", Cpu::new(1).unwrap()), ("2", Cpu::new(2).unwrap()), ("2 of a host's", hosted)] {
        // Some ops of 8 images are worth sharing out.
        for (batch, outputs) in [(1, Outputs::IMAGE_AND_PREVIEW), (8, Outputs::IMAGE)] {
            let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
            let new = || model.session(&cpu, batch, &model.settings(), outputs).unwrap();
            // The first makes what sessions share; the second begins before that and makes its own in vain.
            let mut sessions = [new(), new()];
            for session in &mut sessions {
                session.begin(&vec![1; batch], &vec![10; batch]).unwrap();
            }
            for session in &mut sessions {
                let mut steps = 1;
                // Threads may still be starting, which is theirs to allocate for, until the first step is over or a
                // while.
                session.step(Duration::ZERO).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                let before = CALLS.load(Ordering::Relaxed);
                while !session.step(Duration::ZERO).unwrap().finished {
                    steps += 1;
                }
                let calls = CALLS.load(Ordering::Relaxed) - before;
                assert_eq!(calls, 0, "allocations and frees in {steps} steps, batch {batch}, {threads} threads");
                assert!(steps > 1000, "{steps}");
            }
        }
    }
    let jobs = host.jobs.load(Ordering::Relaxed);
    assert!(jobs > 0, "{jobs} jobs of a host");
}
