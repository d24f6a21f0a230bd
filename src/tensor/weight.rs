//! A weight: a named, typed, shaped range of bytes that somebody shares, most often a mapped file.

use super::{AlignedBytes, DType};
use crate::error::Result;
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Bytes shared by all who hold them: a mapped file, a host's pack file, an owned copy.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// A weight tensor. Cloning shares the bytes.
#[derive(Clone)]
pub struct Weight(Arc<Inner>);

struct Inner {
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    bytes: SharedBytes,
    range: Range<usize>,
    in_place: bool,
}

/// The elements of a weight, by dtype.
#[derive(Debug, Clone, Copy)]
pub enum Elements<'a> {
    /// Single precision.
    F32(&'a [f32]),
    /// Half precision.
    F16(&'a [f16]),
    /// bfloat16.
    BF16(&'a [bf16]),
}

impl Weight {
    /// A weight over `range` of shared `bytes`, used in place. `None` if the range does not hold exactly the
    /// shape's elements, is not aligned for the dtype, or the dtype is no float: then make a copy.
    pub fn in_place(
        name: &str,
        dtype: DType,
        shape: &[usize],
        bytes: SharedBytes,
        range: Range<usize>,
    ) -> Option<Self> {
        let count = shape.iter().try_fold(1usize, |a, &b| a.checked_mul(b))?;
        let data = (*bytes).as_ref().get(range.clone())?;
        let fits = data.len() == count.checked_mul(dtype.size())? && data.as_ptr().align_offset(dtype.size()) == 0;
        (fits && matches!(dtype, DType::F32 | DType::F16 | DType::BF16)).then(|| {
            Self(Arc::new(Inner { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes, range, in_place: true }))
        })
    }

    /// A weight of `f32` that owns its elements. Panics if `shape` and `data` disagree: both come from this crate.
    pub fn owned(name: &str, shape: &[usize], data: &[f32]) -> Result<Self> {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "{name}: {shape:?}");
        let mut bytes = AlignedBytes::zeroed(size_of_val(data), name)?;
        bytes.bytes_mut().copy_from_slice(bytemuck::cast_slice(data));
        Ok(Self::from_aligned(name, DType::F32, shape, bytes))
    }

    /// A weight over bytes that this crate arranged. Panics if they are not the shape's size.
    pub fn from_aligned(name: &str, dtype: DType, shape: &[usize], bytes: AlignedBytes) -> Self {
        let range = 0..bytes.as_ref().len();
        assert_eq!(shape.iter().product::<usize>() * dtype.size(), range.end, "{name}: {shape:?}");
        let bytes: SharedBytes = Arc::new(bytes);
        Self(Arc::new(Inner { name: name.to_owned(), dtype, shape: shape.to_vec(), bytes, range, in_place: false }))
    }

    /// Elements `range` of a vector, sharing its bytes. Panics if there are fewer.
    pub fn slice_elements(&self, range: Range<usize>) -> Self {
        let size = self.dtype().size();
        let bytes = self.0.range.start + range.start * size..self.0.range.start + range.end * size;
        assert!(bytes.start <= bytes.end && bytes.end <= self.0.range.end, "{range:?} of {self:?}");
        let Inner { name, dtype, in_place, bytes: shared, .. } = &*self.0;
        let (name, shape, shared) = (name.clone(), vec![range.len()], Arc::clone(shared));
        Self(Arc::new(Inner { name, dtype: *dtype, shape, bytes: shared, range: bytes, in_place: *in_place }))
    }

    /// The tensor's name in its file.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.0.dtype
    }

    /// The shape, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    /// Rows of the weight seen as a matrix: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.0.shape.iter().rev().skip(1).product()
    }

    /// The last dimension.
    pub fn cols(&self) -> usize {
        self.0.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.0.range.len()
    }

    /// Whether the elements lie in somebody else's bytes (a mapped file) rather than in a copy of ours.
    pub fn is_in_place(&self) -> bool {
        self.0.in_place
    }

    /// What keeps the bytes.
    #[cfg(feature = "cuda")]
    pub(crate) fn held(&self) -> &SharedBytes {
        &self.0.bytes
    }

    /// The bytes of the elements.
    pub fn stored(&self) -> &[u8] {
        &(*self.0.bytes).as_ref()[self.0.range.clone()]
    }

    /// The elements.
    pub fn elements(&self) -> Elements<'_> {
        let bytes = self.stored();
        match self.0.dtype {
            DType::F16 => Elements::F16(bytemuck::cast_slice(bytes)),
            DType::BF16 => Elements::BF16(bytemuck::cast_slice(bytes)),
            _ => Elements::F32(bytemuck::cast_slice(bytes)),
        }
    }

    /// The elements of a weight that was loaded as `f32`: biases, norms, anything from [`Weight::owned`].
    /// Panics for another dtype, which the loader rules out.
    pub fn f32(&self) -> &[f32] {
        match self.elements() {
            Elements::F32(x) => x,
            _ => panic!("{} is {}, not widened", self.name(), self.dtype()),
        }
    }

    /// Element `i`, widened to `f32`.
    pub fn number(&self, i: usize) -> f32 {
        match self.elements() {
            Elements::F32(x) => x[i],
            Elements::F16(x) => x[i].to_f32(),
            Elements::BF16(x) => x[i].to_f32(),
        }
    }

    /// All elements, widened to `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        match self.elements() {
            Elements::F32(x) => x.to_vec(),
            Elements::F16(x) => x.iter().map(|v| v.to_f32()).collect(),
            Elements::BF16(x) => x.iter().map(|v| v.to_f32()).collect(),
        }
    }
}

impl fmt::Debug for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{:?}", self.name(), self.dtype(), self.shape())
    }
}
