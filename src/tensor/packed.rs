//! Weight matrices in kernel order: what a matrix product reads, line by line, from the first byte to the last.
//!
//! Sixteen rows of the matrix (outputs of the layer) make a *panel*. A panel's *lines* are 64 bytes each, four for
//! each of its rows: the row's next numbers along K. So a line meets one 32-bit broadcast of the input, whatever the
//! format, and a vector unit of any width takes it in whole registers. Absent rows and columns are zeros.

use super::{AlignedBytes, DType, Elements, SharedBytes, Weight};
use crate::error::{Error, Result};
use half::{bf16, f16};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Rows of the matrix in a panel.
pub const PANEL: usize = 16;

/// Bytes of a line, which is one of the caches too.
pub const LINE: usize = 64;

/// Words of a line.
pub const LINE_WORDS: usize = LINE / 4;

/// Numbers along K that share a scale in [`Format::Q8`].
pub const BLOCK: usize = 64;

/// What the products of a model are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Weights as they are stored (f32, f16, bf16), everything else f32: the reference.
    F32,
    /// Weights and a product's inputs rounded to bf16, sums f32; attention of many queries likewise.
    Bf16,
    /// Weights and a product's inputs as 8-bit integers in blocks of 64, each with a scale; sums of blocks f32.
    /// Convolutions, attention and matrices below 64 rows or columns are [`Precision::Bf16`].
    Q8,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Q8];

    /// `f32`, `bf16` or `q8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
        }
    }

    /// The precision of that name.
    pub fn named(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|p| p.name() == name);
        found.ok_or_else(|| Error::setting("dtype", "f32, bf16 or q8", format!("`{name}`")))
    }

    /// The format of a matrix `[rows, cols]` whose numbers are stored as `dtype`.
    pub fn format(self, dtype: DType, rows: usize, cols: usize) -> Format {
        match (self, dtype) {
            (Self::F32, DType::BF16) => Format::Wide,
            (Self::F32, _) => Format::F32,
            (Self::Q8, _) if rows.min(cols) >= BLOCK => Format::Q8,
            _ => Format::Bf16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the numbers of a packed matrix are stored, and multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A line is one f32 of each row; the input is f32.
    F32,
    /// A line is two bf16 of each row, widened before they are multiplied; the input is f32.
    Wide,
    /// A line is two bf16 of each row; the input is rounded to bf16.
    Bf16,
    /// A line is two f16 of each row, for the tensor cores of a GPU, which round the input to f16: beyond 65504 it is
    /// infinite then. The processor widens them as in [`Format::Wide`], slowly: a reference. No [`Precision`] asks for it.
    F16,
    /// Sixteen lines of four bytes of each row (value + 128), then a line of the rows' f32 scales: [`BLOCK`] numbers
    /// along K. The input is rounded to signed bytes with a scale for each block.
    Q8,
}

impl Format {
    /// Lines of a panel whose rows have `k` numbers.
    pub const fn lines(self, k: usize) -> usize {
        match self {
            Self::F32 => k,
            Self::Wide | Self::Bf16 | Self::F16 => k.div_ceil(2),
            Self::Q8 => k.div_ceil(BLOCK) * (BLOCK / 4 + 1),
        }
    }

    /// The form of the input.
    pub const fn form(self) -> Form {
        match self {
            Self::F32 | Self::Wide | Self::F16 => Form::Numbers,
            Self::Bf16 => Form::Pairs,
            Self::Q8 => Form::Blocks,
        }
    }

    /// Whether what it multiplies is rounded below f32.
    pub const fn is_narrow(self) -> bool {
        matches!(self, Self::Bf16 | Self::Q8)
    }

    /// Dtype and shape of a packed matrix `[rows, k]` in a file.
    pub fn stored(self, rows: usize, k: usize) -> (DType, Vec<usize>) {
        let (panels, lines) = (rows.div_ceil(PANEL), self.lines(k));
        match self {
            Self::F32 => (DType::F32, vec![panels, lines, PANEL]),
            Self::Wide | Self::Bf16 => (DType::BF16, vec![panels, lines, PANEL, 2]),
            Self::F16 => (DType::F16, vec![panels, lines, PANEL, 2]),
            Self::Q8 => (DType::U8, vec![panels, lines, LINE]),
        }
    }

    /// Bytes of `rows` of `k` numbers.
    pub fn bytes(self, rows: usize, k: usize) -> u64 {
        size(self, rows, k).unwrap_or(usize::MAX) as u64
    }
}

/// The form in which a product reads its input, row by row. An op that writes what only products read may write it in
/// their form at once: to bring a row into it costs as much as some columns of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Form {
    /// f32, for [`Format::F32`], [`Format::Wide`] and [`Format::F16`].
    #[default]
    Numbers,
    /// For [`Format::Bf16`]: words of two bf16, rounded to the nearest, ties to even.
    Pairs,
    /// For [`Format::Q8`], each [`BLOCK`] numbers: sixteen words of four signed bytes, the f32 scale, and -128 times the
    /// bytes' sum.
    Blocks,
}

impl Form {
    /// The least numbers that are whole words, and how many words.
    pub const fn unit(self) -> (usize, usize) {
        match self {
            Self::Numbers => (1, 1),
            Self::Pairs => (2, 1),
            Self::Blocks => (BLOCK, BLOCK / 4 + 2),
        }
    }

    /// Words of a row of `k` numbers.
    pub const fn words(self, k: usize) -> usize {
        let (numbers, words) = self.unit();
        k.div_ceil(numbers) * words
    }

    /// Words of such a row taken apart, for processors that have no instruction for what is in its words: f32 for the bf16
    /// of [`Form::Pairs`]; for the bytes of [`Form::Blocks`] integers of 16 bits, block by block bytes 0 and 2 of all words, then
    /// 1 and 3, scale and sum. 0 if it never is.
    pub const fn spread_words(self, k: usize) -> usize {
        match self {
            Self::Numbers => 0,
            Self::Pairs => 2 * self.words(k),
            Self::Blocks => k.div_ceil(BLOCK) * (BLOCK / 2 + 2),
        }
    }
}

/// A packed weight matrix, or some of its rows. Cloning shares the bytes.
#[derive(Clone)]
pub struct Matrix {
    inner: Arc<Inner>,
    rows: Range<usize>,
}

struct Inner {
    name: String,
    format: Format,
    k: usize,
    bytes: SharedBytes,
    range: Range<usize>,
    in_place: bool,
}

impl Matrix {
    /// The matrix `[rows, k]` packed in `range` of `bytes`, used in place. `None` if the range has not its size or is
    /// not aligned for 32-bit words: then make a copy.
    pub fn in_place(
        name: &str,
        format: Format,
        (rows, k): (usize, usize),
        bytes: SharedBytes,
        range: Range<usize>,
    ) -> Option<Self> {
        let data = (*bytes).as_ref().get(range.clone())?;
        let fits = data.len() == size(format, rows, k)? && data.as_ptr().align_offset(4) == 0;
        let inner = || Inner { name: name.to_owned(), format, k, bytes: bytes.clone(), range, in_place: true };
        fits.then(|| Self { inner: Arc::new(inner()), rows: 0..rows })
    }

    /// A matrix over packed bytes that this crate arranged. Panics if they are not its size.
    pub fn from_aligned(name: &str, format: Format, (rows, k): (usize, usize), bytes: AlignedBytes) -> Self {
        let range = 0..bytes.as_ref().len();
        assert_eq!(size(format, rows, k), Some(range.end), "{name}: {rows} x {k}");
        let inner = Inner { name: name.to_owned(), format, k, bytes: Arc::new(bytes), range, in_place: false };
        Self { inner: Arc::new(inner), rows: 0..rows }
    }

    /// Packs `w`, seen as a matrix `[rows, cols]`; rounds where the format is narrower than its dtype.
    pub fn pack(w: &Weight, format: Format) -> Result<Self> {
        let (rows, k) = (w.rows(), w.cols());
        let bytes = size(format, rows, k).unwrap_or(usize::MAX);
        let mut bytes = AlignedBytes::zeroed(bytes, w.name())?;
        match w.elements() {
            Elements::F32(x) => pack(format, x, |x| x, k, bytes.bytes_mut()),
            Elements::F16(x) => pack(format, x, |x| x.to_f32(), k, bytes.bytes_mut()),
            Elements::BF16(x) => pack(format, x, |x| x.to_f32(), k, bytes.bytes_mut()),
        }
        Ok(Self::from_aligned(w.name(), format, (rows, k), bytes))
    }

    /// Rows `rows` only, sharing the bytes. Panics if there are fewer.
    pub fn slice_rows(&self, rows: Range<usize>) -> Self {
        assert!(rows.start <= rows.end && rows.end <= self.rows(), "rows {rows:?} of {self:?}");
        let start = self.rows.start;
        Self { inner: Arc::clone(&self.inner), rows: start + rows.start..start + rows.end }
    }

    /// The tensor's name in its file.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The format.
    pub fn format(&self) -> Format {
        self.inner.format
    }

    /// Rows: outputs of the layer.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Columns: inputs of the layer.
    pub fn cols(&self) -> usize {
        self.inner.k
    }

    /// Bytes that a product with all rows reads.
    pub fn byte_len(&self) -> usize {
        self.panels(0..self.rows()).len() * self.panel_words() * 4
    }

    /// Whether the bytes are somebody else's (a mapped file) rather than a copy of ours.
    pub fn is_in_place(&self) -> bool {
        self.inner.in_place
    }

    /// Words of a panel.
    pub fn panel_words(&self) -> usize {
        self.inner.format.lines(self.inner.k) * LINE_WORDS
    }

    /// The panels that hold rows `rows`, and where in them: panel p has rows 16 p - [`Matrix::skip`] and following.
    pub fn panels(&self, rows: Range<usize>) -> Range<usize> {
        let start = self.rows.start;
        (start + rows.start) / PANEL..(start + rows.end).div_ceil(PANEL)
    }

    /// Rows of the first panel of [`Matrix::panels`] that lie before row `row`.
    pub fn skip(&self, row: usize) -> usize {
        (self.rows.start + row) % PANEL
    }

    /// All panels.
    pub fn words(&self) -> &[u32] {
        bytemuck::cast_slice(self.stored())
    }

    /// What keeps the bytes.
    #[cfg(feature = "cuda")]
    pub(crate) fn held(&self) -> &SharedBytes {
        &self.inner.bytes
    }

    /// The packed bytes, of all rows that were packed together.
    pub fn stored(&self) -> &[u8] {
        &(*self.inner.bytes).as_ref()[self.inner.range.clone()]
    }

    /// The numbers `[rows, cols]` that the format holds.
    pub fn to_f32(&self) -> Vec<f32> {
        let (words, each) = (self.words(), self.panel_words());
        let at = |row: usize, col: usize| {
            let (panel, lane) = (&words[row / PANEL * each..][..each], row % PANEL);
            let word = |line: usize| panel[line * PANEL + lane];
            match self.format() {
                Format::F32 => f32::from_bits(word(col)),
                Format::Wide | Format::Bf16 => bf16::from_bits((word(col / 2) >> (col % 2 * 16)) as u16).to_f32(),
                Format::F16 => f16::from_bits((word(col / 2) >> (col % 2 * 16)) as u16).to_f32(),
                Format::Q8 => {
                    let first = col / BLOCK * (BLOCK / 4 + 1);
                    let byte = (word(first + col % BLOCK / 4) >> (col % 4 * 8)) as u8;
                    f32::from_bits(word(first + BLOCK / 4)) * (f32::from(byte) - 128.0)
                }
            }
        };
        self.rows.clone().flat_map(|row| (0..self.cols()).map(move |col| at(row, col))).collect()
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}[{}, {}]", self.name(), self.format(), self.rows(), self.cols())
    }
}

/// Bytes of a packed matrix `[rows, k]`.
fn size(format: Format, rows: usize, k: usize) -> Option<usize> {
    rows.div_ceil(PANEL).checked_mul(format.lines(k))?.checked_mul(LINE)
}

/// Steps of the 8-bit numbers of a block whose largest magnitude is that; 0 where it is too small to be scaled.
#[inline(always)]
pub(crate) fn steps_per_unit(largest: f32) -> f32 {
    if largest > 1e-30 { 127.0 / largest } else { 0.0 }
}

/// Packs the rows of `k` elements of `from` into zeroed `to`.
fn pack<T: Copy>(format: Format, from: &[T], widen: impl Fn(T) -> f32, k: usize, to: &mut [u8]) {
    let words: &mut [u32] = bytemuck::cast_slice_mut(to);
    if k == 0 {
        return;
    }
    let panels = words.chunks_exact_mut(format.lines(k) * PANEL);
    for (panel, rows) in panels.zip(from.chunks(PANEL * k)) {
        if format == Format::Q8 {
            // Absent numbers are zeros, and zero is 128.
            let block = panel.chunks_exact_mut((BLOCK / 4 + 1) * PANEL);
            block.for_each(|block| block[..BLOCK / 4 * PANEL].fill(0x8080_8080));
        }
        for (lane, row) in rows.chunks(k).enumerate() {
            match format {
                Format::F32 => {
                    for (line, &x) in panel.chunks_exact_mut(PANEL).zip(row) {
                        line[lane] = widen(x).to_bits();
                    }
                }
                Format::Wide | Format::Bf16 | Format::F16 => {
                    let bits = |x: T| {
                        let x = widen(x);
                        let half = format == Format::F16;
                        u32::from(if half { f16::from_f32(x).to_bits() } else { bf16::from_f32(x).to_bits() })
                    };
                    for (line, pair) in panel.chunks_exact_mut(PANEL).zip(row.chunks(2)) {
                        line[lane] = bits(pair[0]) | pair.get(1).map_or(0, |&x| bits(x) << 16);
                    }
                }
                Format::Q8 => {
                    for (lines, block) in panel.chunks_exact_mut((BLOCK / 4 + 1) * PANEL).zip(row.chunks(BLOCK)) {
                        let largest = block.iter().fold(0.0f32, |most, &x| most.max(widen(x).abs()));
                        let per_unit = steps_per_unit(largest);
                        for (i, &x) in block.iter().enumerate() {
                            let byte = ((widen(x) * per_unit).round_ties_even() + 128.0) as u8;
                            let shift = i % 4 * 8;
                            let word = &mut lines[i / 4 * PANEL + lane];
                            *word = *word & !(0xff << shift) | u32::from(byte) << shift;
                        }
                        lines[BLOCK / 4 * PANEL + lane] = (largest / 127.0).to_bits();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{numbers, weight_as};

    #[test]
    fn packed_numbers_are_the_weights_up_to_the_formats_rounding() {
        for (rows, k) in [(1, 1), (16, 64), (17, 65), (40, 130), (5, 7)] {
            let data = numbers(rows * k, 1);
            for (dtype, format, rounding) in [
                (DType::F32, Format::F32, 0.0),
                (DType::F16, Format::F32, 0.0),
                (DType::BF16, Format::Wide, 0.0),
                (DType::BF16, Format::Bf16, 0.0),
                (DType::F32, Format::Bf16, 1.0 / 256.0),
                (DType::F16, Format::F16, 0.0),
                (DType::F32, Format::F16, 1.0 / 2048.0),
                (DType::F32, Format::Q8, 0.5 / 127.0),
            ] {
                let w = weight_as(dtype, &[rows, k], &data);
                let packed = Matrix::pack(&w, format).unwrap();
                let (stored, shape) = format.stored(rows, k);
                assert_eq!(packed.stored().len(), shape.iter().product::<usize>() * stored.size());
                let pairs = || w.to_f32().into_iter().zip(packed.to_f32());
                assert_eq!(pairs().count(), rows * k);
                for (x, y) in pairs() {
                    assert!((x - y).abs() <= rounding * 1.0001, "{rows} x {k} {format:?}: {x} became {y}");
                }
                let some = packed.slice_rows(rows / 2..rows);
                assert_eq!(some.to_f32(), packed.to_f32()[rows / 2 * k..]);
                assert!(some.slice_rows(0..0).to_f32().is_empty());
            }
        }
    }

    #[test]
    fn small_matrices_and_zeros_stay_what_they_are() {
        assert_eq!(Precision::Q8.format(DType::F32, 63, 64), Format::Bf16);
        assert_eq!(Precision::Q8.format(DType::F32, 64, 64), Format::Q8);
        let zeros = Weight::owned("zeros", &[20, 70], &[0.0; 1400]).unwrap();
        assert_eq!(Matrix::pack(&zeros, Format::Q8).unwrap().to_f32(), [0.0; 1400]);
    }

    #[test]
    fn matrices_in_place_have_their_exact_size_and_are_aligned() {
        let bytes: SharedBytes = Arc::new(AlignedBytes::zeroed(3 * 5 * 64 + 2, "test").unwrap());
        let at = |range, rows| Matrix::in_place("w", Format::F32, (rows, 5), bytes.clone(), range);
        assert!(at(0..960, 48).is_some() && at(0..960, 33).is_some() && at(640..960, 16).is_some());
        assert!(at(0..960, 32).is_none() && at(2..962, 48).is_none() && at(64..1024, 48).is_none());
        assert!(Matrix::in_place("w", Format::F32, (usize::MAX, usize::MAX), bytes, 0..960).is_none());
    }
}
