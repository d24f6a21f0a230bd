//! Once a request has begun, working on it neither takes memory nor gives any back: a frame cannot stall on it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Model, Outputs};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
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

/// Alone in its process: another test's allocations would count too.
#[test]
fn steps_do_not_allocate() {
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
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
}
