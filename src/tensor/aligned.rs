//! Memory aligned to a cache line, whose absence is an error rather than an abort.

#[cfg(all(test, unix))]
use super::fence::{Fence, PAGE};
use crate::error::{Error, Result};
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ptr::NonNull;

/// A cache line.
const ALIGN: usize = 64;

/// The most bytes that a fence follows in tests.
#[cfg(all(test, unix))]
const FENCED: usize = 1 << 26;

/// Zeroed bytes that start on a 64-byte boundary.
///
/// Large ones cost nothing until they are touched: the system hands out zero pages. It does so only for allocations
/// of no special alignment, so this asks for a cache line more and starts inside.
pub struct AlignedBytes {
    /// The allocation.
    block: NonNull<u8>,
    layout: Layout,
    /// The first aligned byte in it.
    base: NonNull<u8>,
    len: usize,
    #[cfg(all(test, unix))]
    fences: Vec<Fence>,
}

// SAFETY: the bytes are owned, as a Vec's are.
unsafe impl Send for AlignedBytes {}
// SAFETY: shared access is read-only.
unsafe impl Sync for AlignedBytes {}

impl AlignedBytes {
    /// `len` zero bytes for `what`; [`Error::Memory`] if they cannot be had.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        // So no test of this crate reads or writes past any of them.
        #[cfg(all(test, unix))]
        if len <= FENCED {
            return Self::fenced(len, what);
        }
        Self::plain(len, what)
    }

    fn plain(len: usize, what: &str) -> Result<Self> {
        let refused =
            |reason: &str| Error::Memory { what: what.to_owned(), bytes: len as u64, reason: reason.to_owned() };
        let size = len.checked_add(ALIGN).ok_or_else(|| refused("more than any machine addresses"))?;
        let layout = Layout::from_size_align(size, 1).map_err(|_| refused("more than any machine addresses"))?;
        // SAFETY: the layout's size is not zero.
        let block = unsafe { alloc_zeroed(layout) };
        let block = NonNull::new(block).ok_or_else(|| refused("the system has no more memory to give"))?;
        // SAFETY: an aligned byte is less than ALIGN bytes away, inside the allocation of len + ALIGN.
        let base = unsafe { block.add(block.align_offset(ALIGN)) };
        Ok(Self {
            block,
            layout,
            base,
            len,
            #[cfg(all(test, unix))]
            fences: Vec::new(),
        })
    }

    /// The same with a [`Fence`] behind the last of its cache lines.
    #[cfg(all(test, unix))]
    fn fenced(len: usize, what: &str) -> Result<Self> {
        let lines = len.next_multiple_of(ALIGN);
        let mut bytes = Self::plain(lines + 2 * PAGE, what)?;
        // SAFETY: a page starts less than PAGE bytes after the last line, and so ends in the allocation; the lines before it lie there too.
        let (base, end) = unsafe {
            let end = bytes.base.add(lines);
            let end = end.add(end.align_offset(PAGE));
            (end.sub(lines), end)
        };
        (bytes.base, bytes.len) = (base, len);
        // SAFETY: the page is part of the allocation and of nothing that is lent; `drop` takes the fence away first.
        bytes.fences.push(unsafe { Fence::new(end) });
        Ok(bytes)
    }

    /// Puts a [`Fence`] on the page that starts at byte `at`, which must hold nothing.
    #[cfg(all(test, unix))]
    pub fn fence(&mut self, at: usize) {
        assert!(at + PAGE <= self.len);
        // SAFETY: the page is part of the allocation, by the check; `drop` takes the fence away first. It is lent with all the other
        // bytes, but holds nothing: who touches it is who is looked for.
        self.fences.push(unsafe { Fence::new(self.base.add(at)) });
    }

    /// Takes away all that [`AlignedBytes::fence`] put up.
    #[cfg(all(test, unix))]
    pub fn unfence(&mut self) {
        self.fences.truncate(1);
    }

    /// How many.
    #[allow(clippy::len_without_is_empty)] // nobody asks
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes from `base` on lie in the allocation that `self` owns and lends exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: as in `bytes_mut`, lent shared.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for AlignedBytes {
    fn drop(&mut self) {
        #[cfg(all(test, unix))]
        self.fences.clear();
        // SAFETY: allocated in `plain` with this layout, and freed once.
        unsafe { dealloc(self.block.as_ptr(), self.layout) };
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_aligned_zero_and_refused_by_name() {
        for len in [0, 1, 63, 64, 1000, 1 << 20] {
            for make in [AlignedBytes::plain, AlignedBytes::zeroed] {
                let mut bytes = make(len, "test").unwrap();
                assert!(bytes.as_ref().iter().all(|&b| b == 0) && bytes.as_ref().len() == len);
                assert_eq!(bytes.bytes_mut().as_ptr().align_offset(ALIGN), 0);
            }
        }
        for len in [usize::MAX, usize::MAX / 2, 1 << 60] {
            let error = AlignedBytes::zeroed(len, "the arena").unwrap_err().to_string();
            assert!(error.contains("the arena") && error.contains(&len.to_string()), "{error}");
        }
    }
}
