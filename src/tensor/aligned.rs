//! Memory aligned to a cache line, whose absence is an error rather than an abort.

use crate::error::{Error, Result};

/// One cache line; the unit of allocation.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// Zeroed bytes that start on a 64-byte boundary.
#[derive(Debug)]
pub struct AlignedBytes {
    lines: Vec<Line>,
    len: usize,
}

impl AlignedBytes {
    /// `len` zero bytes for `what`; [`Error::Memory`] if they cannot be had.
    pub fn zeroed(len: usize, what: &str) -> Result<Self> {
        let count = len.div_ceil(size_of::<Line>());
        let mut lines = Vec::new();
        lines.try_reserve_exact(count).map_err(|e| Error::Memory {
            what: what.to_owned(),
            bytes: len as u64,
            reason: e.to_string(),
        })?;
        lines.resize(count, Line([0; 64]));
        Ok(Self { lines, len })
    }

    /// The bytes, writable.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl AsRef<[u8]> for AlignedBytes {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}
