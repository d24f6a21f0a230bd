//! The system's allocator, counting all calls of all threads. A test with it is alone in its process: another's would count
//! too.

#![allow(dead_code)] // not every test asks for all

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static CALLS: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static ZEROED: AtomicUsize = AtomicUsize::new(0);
static ZEROED_CALLS: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// Calls so far, frees among them.
pub(crate) fn calls() -> usize {
    CALLS.load(Ordering::Relaxed)
}

/// Bytes that are allocated now.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Bytes that were asked for as zeros so far, and how often: the engine's aligned memory, but for what tests ask for.
pub(crate) fn zeroed() -> (usize, usize) {
    (ZEROED.load(Ordering::Relaxed), ZEROED_CALLS.load(Ordering::Relaxed))
}

/// Bytes of the largest block since the last call that was not asked for as zeros: what ends the process if it is refused.
pub(crate) fn largest() -> usize {
    LARGEST.swap(0, Ordering::Relaxed)
}

fn count(more: usize, less: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    LIVE.fetch_add(more, Ordering::Relaxed);
    LIVE.fetch_sub(less, Ordering::Relaxed);
}

// SAFETY: every call goes to `System` as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: by the caller's duty.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        ZEROED.fetch_add(layout.size(), Ordering::Relaxed);
        ZEROED_CALLS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: by the caller's duty.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: by the caller's duty.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: by the caller's duty.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
