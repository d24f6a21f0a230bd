//! Memory aligned to a cache line, whose absence is an error rather than an abort.

use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;

/// A cache line.
const ALIGN: usize = 64;

/// Zeroed bytes that start on a 64-byte boundary.
pub struct AlignedBytes {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the bytes are owned, as a Vec's are.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared access is read-only.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zero bytes for `what`; [`Error::Memory`] if they cannot be had.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        let refused = |reason: &str| Error::Memory { what: what.to_owned(), bytes: len as u64, reason: reason.to_owned() };
        let layout = Layout::from_size_align(len, ALIGN).map_err(|_| refused("more than any machine addresses"))?;
        if len == 0 {
            // A dangling pointer of the right alignment: nothing is ever read behind it.
            let base = NonNull::new(std::ptr::without_provenance_mut(ALIGN)).unwrap_or(NonNull::dangling());
            return Ok(Self { base, layout });
        }
        // SAFETY: the layout's size is not zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| refused("the system has no more memory to give"))?;
        Ok(Self { base, layout })
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `base` is an allocation of `size` initialised bytes (or dangling with size 0) that `self` owns and lends exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.layout.size()) }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`, lent shared.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `zeroed` with this layout, and freed once.
            unsafe { dealloc(self.base.as_ptr(), self.layout) };
        }
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.layout.size())
    }
}
