//! Memory that nobody may touch, for tests: what reads or writes past its operand ends there, at that instruction.

#[cfg(unix)]
pub use unix::Fence;

/// A multiple of the system's pages.
pub const PAGE: usize = if cfg!(target_arch = "x86_64") { 4 << 10 } else { 64 << 10 };

#[cfg(unix)]
mod unix {
    use super::PAGE;
    use std::ffi::{c_int, c_void};
    use std::ptr::NonNull;

    const PROT_NONE: c_int = 0;
    const PROT_READ_AND_WRITE: c_int = 3;

    unsafe extern "C" {
        fn mprotect(from: *mut c_void, bytes: usize, protection: c_int) -> c_int;
    }

    /// [`PAGE`] bytes that are not to be touched until this is dropped.
    pub struct Fence(NonNull<u8>);

    // SAFETY: the pages belong to whoever owns the fence, on whatever thread.
    unsafe impl Send for Fence {}
    // SAFETY: a shared fence does nothing.
    unsafe impl Sync for Fence {}

    impl Fence {
        /// Puts it up. Panics where that is no page's start.
        ///
        /// # Safety
        /// The [`PAGE`] bytes from `from` on belong to the caller, for reading and writing, until after the fence is dropped.
        pub unsafe fn new(from: NonNull<u8>) -> Self {
            // SAFETY: the caller's duty is the same.
            unsafe { protect(from, PROT_NONE) };
            Self(from)
        }
    }

    impl Drop for Fence {
        fn drop(&mut self) {
            // SAFETY: by `new` the page still belongs to whoever put the fence up.
            unsafe { protect(self.0, PROT_READ_AND_WRITE) };
        }
    }

    /// # Safety
    /// The [`PAGE`] bytes from `from` on belong to the caller.
    unsafe fn protect(from: NonNull<u8>, protection: c_int) {
        // SAFETY: the caller's duty is the same.
        let failed = unsafe { mprotect(from.as_ptr().cast(), PAGE, protection) };
        assert_eq!(failed, 0, "{from:?}: {}", std::io::Error::last_os_error());
    }
}
