//! One safetensors file, mapped or in memory.

use super::header::{self, Entry, Header};
use crate::error::{Error, Result};
use crate::tensor::{DType, SharedBytes};
use half::{bf16, f16};
use memmap2::Mmap;
use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A safetensors file whose header was checked. Nothing but the header has been read.
pub struct TensorFile {
    name: String,
    bytes: SharedBytes,
    header: Header,
}

/// A tensor as it lies in its file: nothing says that the bytes are aligned for the dtype.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// The element type.
    pub dtype: DType,
    /// The shape, outermost first.
    pub shape: &'a [usize],
    /// The elements, little-endian.
    pub bytes: &'a [u8],
}

/// Refuses a folder, a device or a pipe. To be asked before opening: to open a pipe is to wait for its writer.
pub(crate) fn check_regular(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Error::io(path, io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))),
        Err(e) => Err(Error::io(path, e)),
    }
}

impl TensorFile {
    /// Maps the file at `path`. Processes that map the same file share its memory.
    ///
    /// A mapped file must stay as it is while it is mapped: if somebody writes into it the weights change under the
    /// engine (wrong pixels, no worse), and if somebody *cuts it short* the operating system ends the process at the
    /// next read past the new end. Replace a model file by renaming another over it, which leaves the mapped one
    /// alone, or hand a copy to [`TensorFile::from_bytes`] where the folder is not to be trusted.
    pub fn open(path: &Path) -> Result<Self> {
        let io_error = |e| Error::io(path, e);
        check_regular(path)?;
        let file = File::open(path).map_err(io_error)?;
        let name = path.display().to_string();
        if file.metadata().map_err(io_error)?.len() == 0 {
            // Not every system maps nothing.
            return Self::from_bytes(name, Arc::new([0u8; 0]));
        }
        // SAFETY: the mapping is read-only and private to this value, and every read of it is of plain old data, for
        // which all bit patterns are valid. What cannot be ruled out is another process that changes the file while it
        // is mapped: changed numbers are still numbers, no length or offset is read from the mapping after the header
        // was checked and copied, and a file cut short ends the process by a signal, as the method's text says.
        let map = unsafe { Mmap::map(&file) }.map_err(io_error)?;
        Self::from_bytes(name, Arc::new(map))
    }

    /// The file in `bytes`, which `name` names in errors.
    pub fn from_bytes(name: impl Into<String>, bytes: SharedBytes) -> Result<Self> {
        let name = name.into();
        let header = header::read(&name, (*bytes).as_ref())?;
        Ok(Self { name, bytes, header })
    }

    /// The file's path, or the name that its bytes were given under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tensors' names, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// The header's free-form entries.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.header.metadata
    }

    /// The tensor of that name.
    pub fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let Entry { dtype, shape, range } = self.header.tensors.get(name)?;
        let bytes = (*self.bytes).as_ref().get(range.clone())?;
        Some(TensorView { dtype: *dtype, shape, bytes })
    }

    /// Shape and elements of a tensor of f32, or of f16 or bf16, which are widened.
    pub fn f32s(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        let view = self.typed(name, &[DType::F32, DType::F16, DType::BF16])?;
        Ok((view.shape.to_vec(), view.floats().collect()))
    }

    /// Shape and elements of a tensor of i32.
    pub fn i32s(&self, name: &str) -> Result<(Vec<usize>, Vec<i32>)> {
        let view = self.typed(name, &[DType::I32])?;
        Ok((view.shape.to_vec(), view.bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect()))
    }

    /// Shape and elements of a tensor of u8.
    pub fn u8s(&self, name: &str) -> Result<(Vec<usize>, Vec<u8>)> {
        let view = self.typed(name, &[DType::U8])?;
        Ok((view.shape.to_vec(), view.bytes.to_vec()))
    }

    /// The bytes of the whole file and a tensor's range in them.
    pub(super) fn shared(&self, name: &str) -> Option<(SharedBytes, std::ops::Range<usize>)> {
        Some((self.bytes.clone(), self.header.tensors.get(name)?.range.clone()))
    }

    /// The tensor of that name and of one of those dtypes.
    fn typed(&self, name: &str, dtypes: &[DType]) -> Result<TensorView<'_>> {
        let error = |found| Error::Tensor {
            file: self.name.clone(),
            tensor: name.to_owned(),
            expected: dtypes.iter().map(|d| d.name()).collect::<Vec<_>>().join(" or "),
            found,
        };
        let view = self.view(name).ok_or_else(|| error("nothing".to_owned()))?;
        if dtypes.contains(&view.dtype) { Ok(view) } else { Err(error(view.to_string())) }
    }
}

impl TensorView<'_> {
    /// The elements of a tensor of floats, widened to f32; none for other dtypes.
    pub(super) fn floats(&self) -> Box<dyn Iterator<Item = f32> + '_> {
        match self.dtype {
            DType::F32 => Box::new(self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))),
            DType::F16 => Box::new(self.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32())),
            DType::BF16 => Box::new(self.bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32())),
            DType::I32 | DType::U8 => Box::new(std::iter::empty()),
        }
    }
}

impl fmt::Display for TensorView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.dtype, self.shape)
    }
}

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} tensors", self.name, self.header.tensors.len())
    }
}
