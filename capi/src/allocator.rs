//! The host's memory: Rust's global allocator of this library, which forwards to functions of the host.

use crate::sized::{self, size_first};
use crate::status::{Failure, Status, guard};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU8, Ordering};

/// Functions that give and take memory, for `discon_set_allocator`. Any thread may call them, several at once, also inside
/// other calls of the library; they must not call the library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Allocator {
    /// Bytes of this struct: what `discon_allocator_init` puts here.
    pub size: usize,
    /// Handed to both functions.
    pub user: *mut c_void,
    /// Returns `bytes` bytes (more than none) at a multiple of `align`, a power of two; null if there are none.
    pub allocate: Option<unsafe extern "C" fn(user: *mut c_void, bytes: usize, align: usize) -> *mut c_void>,
    /// Takes back what `allocate` returned for the same numbers.
    pub release: Option<unsafe extern "C" fn(user: *mut c_void, memory: *mut c_void, bytes: usize, align: usize)>,
}

size_first!(Allocator, "allocator", { user: std::ptr::null_mut(), allocate: None, release: None });

type AllocateFn = unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void;
type ReleaseFn = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, usize);

#[derive(Clone, Copy)]
struct Hooks {
    user: *mut c_void,
    allocate: AllocateFn,
    release: ReleaseFn,
}

/// Nothing was allocated and no hooks were set.
const OPEN: u8 = 0;
/// Hooks are being written.
const SETTING: u8 = 1;
/// The system's allocator, from the first allocation on.
const SYSTEM: u8 = 2;
/// The host's.
const HOST: u8 = 3;

struct Memory {
    state: AtomicU8,
    hooks: UnsafeCell<Option<Hooks>>,
}

// SAFETY: the hooks are written once, by the one who brought `state` from OPEN to SETTING, and read only after it is HOST.
// Using `user` on any thread is what the host agrees to.
unsafe impl Sync for Memory {}

#[cfg_attr(not(test), global_allocator)]
static MEMORY: Memory = Memory { state: AtomicU8::new(OPEN), hooks: UnsafeCell::new(None) };

impl Memory {
    /// The host's functions, if it has set any; from the first call on nothing changes any more.
    #[inline]
    fn hooks(&self) -> Option<Hooks> {
        loop {
            match self.state.load(Ordering::Acquire) {
                // SAFETY: it is HOST: written before, and never again.
                HOST => return unsafe { *self.hooks.get() },
                SYSTEM => return None,
                OPEN => {
                    let _ = self.state.compare_exchange(OPEN, SYSTEM, Ordering::AcqRel, Ordering::Acquire);
                }
                _ => std::hint::spin_loop(),
            }
        }
    }

    /// Whether the hooks were taken.
    fn set(&self, hooks: Hooks) -> bool {
        if self.state.compare_exchange(OPEN, SETTING, Ordering::AcqRel, Ordering::Acquire).is_err() {
            return false;
        }
        // SAFETY: whoever reads waits while it is SETTING, and nobody else gets here.
        unsafe { *self.hooks.get() = Some(hooks) };
        self.state.store(HOST, Ordering::Release);
        true
    }
}

// SAFETY: the system's allocator is one, and the host's functions are called as they ask to be: what was allocated by one is
// released by the same, since which it is never changes after the first call. They do not unwind: they are C's.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.hooks() {
            // SAFETY: as the caller says.
            None => unsafe { System.alloc(layout) },
            // SAFETY: as the host says.
            Some(h) => unsafe { (h.allocate)(h.user, layout.size(), layout.align()).cast() },
        }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        match self.hooks() {
            // SAFETY: as the caller says.
            None => unsafe { System.dealloc(memory, layout) },
            // SAFETY: it came from the host, for the same layout.
            Some(h) => unsafe { (h.release)(h.user, memory.cast(), layout.size(), layout.align()) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.hooks().is_none() {
            // SAFETY: as the caller says.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller says.
        let memory = unsafe { self.alloc(layout) };
        if !memory.is_null() {
            // SAFETY: as large as that.
            unsafe { memory.write_bytes(0, layout.size()) };
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.hooks().is_none() {
            // SAFETY: as the caller says.
            return unsafe { System.realloc(memory, layout, size) };
        }
        // SAFETY: the caller says that `size` is right for this alignment.
        let to = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !to.is_null() {
            // SAFETY: both have as many bytes, the new ones lie elsewhere, and the old ones are the caller's to give.
            unsafe {
                to.copy_from_nonoverlapping(memory, layout.size().min(size));
                self.dealloc(memory, layout);
            }
        }
        to
    }
}

/// Makes an allocator struct of `size` bytes (`sizeof`) with no functions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_allocator_init(allocator: *mut Allocator, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(allocator, size, &sized::SizeFirst::DEFAULT) })
}

/// Has the library take all its memory from the host, but what mapped files and the threads' stacks take. For the whole
/// process and for good: call it before any other function but the `_init` ones and `discon_version`; later it is
/// DISCON_STATUS_MISUSE and changes nothing. `user` and the functions must stay until the process ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_set_allocator(allocator: *const Allocator) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let Allocator { user, allocate, release, .. } = unsafe { sized::read(allocator)? };
        let allocate = allocate.ok_or(Failure::Null("allocate"))?;
        let release = release.ok_or(Failure::Null("release"))?;
        if MEMORY.set(Hooks { user, allocate, release }) {
            return Ok(());
        }
        Err(Failure::Misuse("allocator: expected before all else and once, found that memory was already taken"))
    })
}
