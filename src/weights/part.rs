//! A part of a model, from which its builder takes every weight by name and shape.

use super::file::{TensorFile, TensorView};
use crate::error::{Error, Result};
use crate::tensor::packed::PANEL;
use crate::tensor::{AlignedBytes, DType, Elements, Filter, Format, Limit, Matrix, Precision, Weight};
use std::collections::BTreeMap;
use std::fmt::Display;

/// The tensors of one part of a model.
///
/// A builder takes what its config asks for, each with its exact shape, and ends with [`Part::finish`], which refuses
/// a file that holds more: then it is of another model, or of a config that leaves something out.
///
/// Matrices of products come in kernel order ([`crate::tensor::packed`]). A packed file, whose metadata has an entry
/// [`PACKED`], holds them so: everything is taken in place and a mapped file is read only as far as it is used. From
/// any other file matrices are packed into copies; tables and f32 vectors are in place there too, if they are aligned.
#[derive(Debug)]
pub struct Part {
    file: TensorFile,
    precision: Precision,
    packed: bool,
    taken: BTreeMap<String, Taken>,
    memory: WeightMemory,
    /// A bound of all copies of the model, and how many bytes of them its other parts have.
    limit: Option<(Limit, u64)>,
}

/// The entry of a packed file's metadata: the name of the [`Precision`] that it was packed for.
pub const PACKED: &str = "packed";

/// What was taken under one name.
#[derive(Debug, Clone)]
pub enum Taken {
    /// A vector or table.
    Weight(Weight),
    /// A matrix in kernel order.
    Matrix(Matrix),
}

impl Taken {
    /// Dtype, shape and bytes, as a packed file holds them.
    pub fn stored(&self) -> (DType, Vec<usize>, &[u8]) {
        match self {
            Self::Weight(w) => (w.dtype(), w.shape().to_vec(), w.stored()),
            Self::Matrix(m) => {
                let (dtype, shape) = m.format().stored(m.rows(), m.cols());
                (dtype, shape, m.stored())
            }
        }
    }
}

/// Where the weights lie that were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightMemory {
    /// Bytes used where they are: mapped files, a host's pack file.
    pub in_place: u64,
    /// Bytes of copies: matrices that were packed, unaligned tensors, widened vectors.
    pub copied: u64,
    /// Bytes of what networks make besides: a table that they join from several, the codebook as a matrix of products.
    pub derived: u64,
}

impl WeightMemory {
    /// Bytes that the model has of its own.
    pub fn own(&self) -> u64 {
        self.copied + self.derived
    }
}

impl std::ops::Add for WeightMemory {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            in_place: self.in_place + other.in_place,
            copied: self.copied + other.copied,
            derived: self.derived + other.derived,
        }
    }
}

impl Part {
    /// A part of which nothing has been taken, to compute in what a packed file was packed for, else in f32.
    pub fn new(file: TensorFile) -> Result<Self> {
        let packed = match file.metadata().get(PACKED) {
            None => None,
            Some(name) => Some(Precision::named(name).map_err(|_| Error::Format {
                file: file.name().to_owned(),
                what: format!("metadata `{PACKED}`"),
                expected: "f32, bf16 or q8".to_owned(),
                found: format!("{name:?}"),
            })?),
        };
        Ok(Self {
            file,
            precision: packed.unwrap_or(Precision::F32),
            packed: packed.is_some(),
            taken: BTreeMap::new(),
            memory: WeightMemory::default(),
            limit: None,
        })
    }

    /// The same part, whose copies are to stay within what the model's parts before it, of `others` bytes, leave of a limit.
    pub(crate) fn within(self, limit: Option<Limit>, others: u64) -> Self {
        Self { limit: limit.map(|limit| (limit, others)), ..self }
    }

    /// Refuses a copy of so many bytes for `name`, if it would pass the limit.
    fn check_copy(&self, name: &str, bytes: u64) -> Result<()> {
        let Some((limit, others)) = self.limit else { return Ok(()) };
        let what = || format!("a copy of the model's weights up to `{name}` of {}", self.file.name());
        limit.check(what, (others + self.memory.own()).saturating_add(bytes))
    }

    /// Counts so many bytes that a network is about to make for `name`.
    pub fn derives(&mut self, name: &str, bytes: u64) -> Result<()> {
        self.check_copy(name, bytes)?;
        self.memory.derived += bytes;
        Ok(())
    }

    /// [`concat_rows`], counted.
    pub fn join(&mut self, name: &str, tables: &[Weight], cols: usize) -> Result<Weight> {
        let numbers: usize = tables.iter().map(|table| table.byte_len() / table.dtype().size()).sum();
        self.derives(name, numbers as u64 * DType::F32.size() as u64)?;
        concat_rows(name, tables, cols)
    }

    /// The file that the part lies in.
    pub fn file(&self) -> &TensorFile {
        &self.file
    }

    /// The same part, to compute in `precision`.
    pub fn compute_in(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// What products with its matrices are computed in.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Where the weights lie that were taken so far.
    pub fn memory(&self) -> WeightMemory {
        self.memory
    }

    /// Whether there is a tensor of that name.
    pub fn has(&self, name: &str) -> bool {
        self.file.view(name).is_some()
    }

    /// The weight `name` of exactly that shape: f32, f16 or bf16, in place if it is aligned.
    pub fn take(&mut self, name: &str, shape: &[usize]) -> Result<Weight> {
        self.take_if(name, |found| found == shape, || format!("{shape:?}"), |found| found.to_vec())
    }

    /// The weight `name` of `len` elements in one dimension (further ones in front may be 1), as f32 `[len]`: widened
    /// into a copy if it is f16 or bf16.
    pub fn take_vector(&mut self, name: &str, len: usize) -> Result<Weight> {
        let vector = |found: &[usize]| {
            found.split_last().is_some_and(|(last, front)| *last == len && front.iter().all(|&d| d == 1))
        };
        let weight = self.take_if(name, vector, || format!("[{len}]"), |_| vec![len])?;
        if weight.dtype() == DType::F32 {
            return Ok(weight);
        }
        // The narrow one is only on the way.
        *self.counter(&weight) -= weight.byte_len() as u64;
        self.check_copy(name, len as u64 * DType::F32.size() as u64)?;
        let wide = concat(name, &[len], std::slice::from_ref(&weight))?;
        *self.counter(&wide) += wide.byte_len() as u64;
        self.taken.insert(name.to_owned(), Taken::Weight(wide.clone()));
        Ok(wide)
    }

    /// The table `name`, stored as `[1, rows, cols]` or `[rows, cols]`, as `[rows, cols]`.
    pub fn take_table(&mut self, name: &str, rows: usize, cols: usize) -> Result<Weight> {
        let exact = |found: &[usize]| matches!(found, [1, r, c] | [r, c] if *r == rows && *c == cols);
        self.take_if(name, exact, || format!("[1, {rows}, {cols}]"), |_| vec![rows, cols])
    }

    /// The table `name`, stored as `[1, N, cols]` or `[N, cols]` with N at least `min_rows`, as `[N, cols]`: position
    /// tables of published models have more rows than their sequence has places.
    pub fn take_rows(&mut self, name: &str, min_rows: usize, cols: usize) -> Result<Weight> {
        let enough = |found: &[usize]| matches!(found, [1, r, c] | [r, c] if *r >= min_rows && *c == cols);
        let rows = |found: &[usize]| found[found.len() - 2..].to_vec();
        self.take_if(name, enough, || format!("[1, at least {min_rows}, {cols}]"), rows)
    }

    /// The matrix `name`, stored as `[rows, cols]`, in kernel order.
    pub fn take_matrix(&mut self, name: &str, rows: usize, cols: usize) -> Result<Matrix> {
        self.matrix(name, self.precision, &[rows, cols], (rows, cols), 1)
    }

    /// The convolution `name`, stored as `[cout, cin, k, k]`. In f32 the filters of 3x3 convolutions that walk every
    /// pixel are transformed; all others are a matrix. 8-bit models have them in bf16.
    pub fn take_conv(&mut self, name: &str, cout: usize, cin: usize, k: usize, every_pixel: bool) -> Result<Filter> {
        let precision = if self.precision == Precision::Q8 { Precision::Bf16 } else { self.precision };
        // Config limits keep these products far from overflow.
        let size = (cout, k * k * cin);
        let (filter, transformed) = (|matrix| Filter::Taps(matrix), (Filter::winograd_rows(cout), cin));
        let winograd = precision == Precision::F32 && k == 3 && every_pixel && cin >= PANEL;
        if !winograd {
            return self.matrix(name, precision, &[cout, cin, k, k], size, k * k).map(filter);
        }
        if self.packed {
            // A folder packed for bf16 has them untransformed.
            let is =
                |v: TensorView<'_>| Format::F32.stored(transformed.0, transformed.1) == (v.dtype, v.shape.to_vec());
            return match self.file.view(name).is_some_and(is) {
                true => self.packed_matrix(name, precision, transformed).map(Filter::Winograd),
                false => self.packed_matrix(name, precision, size).map(filter),
            };
        }
        self.check_copy(name, Format::F32.bytes(transformed.0, transformed.1))?;
        let weight = self.stored_matrix(name, &[cout, cin, k, k], size, k * k)?;
        let filter = Filter::winograd(&weight)?;
        self.note(name, filter.matrix());
        Ok(filter)
    }

    /// The matrix `[rows, cols]` from a tensor stored in `shape`, whose rows have `taps` for each input channel.
    fn matrix(
        &mut self,
        name: &str,
        precision: Precision,
        shape: &[usize],
        (rows, cols): (usize, usize),
        taps: usize,
    ) -> Result<Matrix> {
        if self.packed {
            return self.packed_matrix(name, precision, (rows, cols));
        }
        let dtype = self.check(name, |found| found == shape, || format!("{shape:?}"))?.dtype;
        let format = precision.format(dtype, rows, cols);
        self.check_copy(name, format.bytes(rows, cols))?;
        let weight = self.stored_matrix(name, shape, (rows, cols), taps)?;
        let matrix = Matrix::pack(&weight, format)?;
        self.note(name, &matrix);
        Ok(matrix)
    }

    /// A copy of the tensor `name`, stored in `shape`, as `[rows, cols]` with the input channel innermost.
    fn stored_matrix(&self, name: &str, shape: &[usize], (rows, cols): (usize, usize), taps: usize) -> Result<Weight> {
        let view = self.check(name, |found| found == shape, || format!("{shape:?}"))?;
        let mut bytes = copy(name, view.bytes)?;
        if taps > 1 {
            // The file holds this many bytes, so none of these products wraps.
            match view.dtype.size() {
                2 => channels_innermost::<2>(view.bytes, bytes.bytes_mut(), cols / taps, taps),
                _ => channels_innermost::<4>(view.bytes, bytes.bytes_mut(), cols / taps, taps),
            }
        }
        Ok(Weight::from_aligned(name, view.dtype, &[rows, cols], bytes))
    }

    /// The matrix `[rows, cols]` from a packed file.
    fn packed_matrix(&mut self, name: &str, precision: Precision, (rows, cols): (usize, usize)) -> Result<Matrix> {
        let (dtype, shape) = precision.format(DType::BF16, rows, cols).stored(rows, cols);
        let expected = || format!("a matrix {rows} x {cols} packed for {precision}: {dtype} {shape:?} or alike");
        let Some(view) = self.file.view(name) else {
            return Err(self.error(name, expected(), "nothing"));
        };
        let format = match (precision, view.dtype) {
            (Precision::F32, DType::F32) => Some(Format::F32),
            (Precision::F32, DType::BF16) => Some(Format::Wide),
            (Precision::Bf16, DType::BF16) => Some(Format::Bf16),
            (Precision::Q8, found) => Some(precision.format(found, rows, cols)),
            _ => None,
        };
        let fits = |f: &Format| f.stored(rows, cols) == (view.dtype, view.shape.to_vec());
        let Some(format) = format.filter(fits) else {
            return Err(self.error(name, expected(), view));
        };
        let shared = self.file.shared(name);
        let in_place = shared.and_then(|(bytes, range)| Matrix::in_place(name, format, (rows, cols), bytes, range));
        let matrix = match in_place {
            Some(matrix) => matrix,
            None => {
                self.check_copy(name, view.bytes.len() as u64)?;
                Matrix::from_aligned(name, format, (rows, cols), copy(name, view.bytes)?)
            }
        };
        self.note(name, &matrix);
        Ok(matrix)
    }

    /// Remembers that `matrix` was taken.
    fn note(&mut self, name: &str, matrix: &Matrix) {
        let counter = if matrix.is_in_place() { &mut self.memory.in_place } else { &mut self.memory.copied };
        *counter += matrix.stored().len() as u64;
        self.taken.insert(name.to_owned(), Taken::Matrix(matrix.clone()));
    }

    /// Ends the taking and gives what was taken, by name: an error that names the tensors nobody took, if there are
    /// any.
    pub fn finish(self) -> Result<BTreeMap<String, Taken>> {
        let left: Vec<&str> = self.file.names().filter(|n| !self.taken.contains_key(*n)).collect();
        let Some(&first) = left.first() else { return Ok(self.taken) };
        let mut found = self.file.view(first).map_or_else(String::new, |v| v.to_string());
        if left.len() > 1 {
            const NAMED: usize = 8;
            let others = left[1..].iter().take(NAMED).map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
            let more = if left.len() - 1 > NAMED { ", ..." } else { "" };
            found = format!("{found} and {} more that nothing asks for: {others}{more}", left.len() - 1);
        }
        Err(self.error(first, "no such tensor: the config does not ask for it", found))
    }

    /// Takes `name`, if its dtype is a float's and `fits` its shape, as a weight of the shape `reshaped`.
    fn take_if(
        &mut self,
        name: &str,
        fits: impl Fn(&[usize]) -> bool,
        expected: impl Fn() -> String,
        reshaped: impl Fn(&[usize]) -> Vec<usize>,
    ) -> Result<Weight> {
        let view = self.check(name, fits, expected)?;
        let shape = reshaped(view.shape);
        let in_place =
            self.file.shared(name).and_then(|(bytes, range)| Weight::in_place(name, view.dtype, &shape, bytes, range));
        let weight = match in_place {
            Some(weight) => weight,
            None => {
                self.check_copy(name, view.bytes.len() as u64)?;
                Weight::from_aligned(name, view.dtype, &shape, copy(name, view.bytes)?)
            }
        };
        *self.counter(&weight) += weight.byte_len() as u64;
        self.taken.insert(name.to_owned(), Taken::Weight(weight.clone()));
        Ok(weight)
    }

    /// Where the bytes of a weight like that are counted.
    fn counter(&mut self, weight: &Weight) -> &mut u64 {
        if weight.is_in_place() { &mut self.memory.in_place } else { &mut self.memory.copied }
    }

    /// The tensor `name`, if its dtype is a float's and `fits` its shape.
    fn check(
        &self,
        name: &str,
        fits: impl Fn(&[usize]) -> bool,
        expected: impl Fn() -> String,
    ) -> Result<TensorView<'_>> {
        let expected = || format!("f32, f16 or bf16 {}", expected());
        let Some(view) = self.file.view(name) else {
            return Err(self.error(name, expected(), "nothing"));
        };
        let float = matches!(view.dtype, DType::F32 | DType::F16 | DType::BF16);
        if float && fits(view.shape) { Ok(view) } else { Err(self.error(name, expected(), view)) }
    }

    fn error(&self, tensor: &str, expected: impl Into<String>, found: impl Display) -> Error {
        Error::Tensor {
            file: self.file.name().to_owned(),
            tensor: tensor.to_owned(),
            expected: expected.into(),
            found: found.to_string(),
        }
    }
}

/// The rows of several tables, one below the other, as one f32 table `[rows, cols]` called `name`. Panics if a table
/// has not `cols` columns: who takes them says so by their shape.
pub fn concat_rows(name: &str, tables: &[Weight], cols: usize) -> Result<Weight> {
    for table in tables {
        assert_eq!(table.cols(), cols, "columns of {}", table.name());
    }
    concat(name, &[tables.iter().map(Weight::rows).sum(), cols], tables)
}

/// The elements of `parts` one behind the other, widened to f32.
fn concat(name: &str, shape: &[usize], parts: &[Weight]) -> Result<Weight> {
    let count: usize = parts.iter().map(|p| p.byte_len() / p.dtype().size()).sum();
    // Widened, a file that just fits a 32-bit address space no longer does: then this many bytes are not to be had.
    let mut bytes = AlignedBytes::zeroed(count.saturating_mul(DType::F32.size()), name)?;
    let mut rest: &mut [f32] = bytemuck::cast_slice_mut(bytes.bytes_mut());
    for part in parts {
        let (to, behind) = rest.split_at_mut(part.byte_len() / part.dtype().size());
        match part.elements() {
            Elements::F32(x) => to.copy_from_slice(x),
            Elements::F16(x) => to.iter_mut().zip(x).for_each(|(y, x)| *y = x.to_f32()),
            Elements::BF16(x) => to.iter_mut().zip(x).for_each(|(y, x)| *y = x.to_f32()),
        }
        rest = behind;
    }
    Ok(Weight::from_aligned(name, DType::F32, shape, bytes))
}

/// An aligned copy of `bytes`, for the tensor `name`.
fn copy(name: &str, bytes: &[u8]) -> Result<AlignedBytes> {
    let mut aligned = AlignedBytes::zeroed(bytes.len(), name)?;
    aligned.bytes_mut().copy_from_slice(bytes);
    Ok(aligned)
}

/// `[cout][cin][taps]` to `[cout][taps][cin]`, over elements of `N` bytes that need not be aligned.
fn channels_innermost<const N: usize>(from: &[u8], to: &mut [u8], cin: usize, taps: usize) {
    let (from, to) = (from.as_chunks::<N>().0, to.as_chunks_mut::<N>().0);
    if cin * taps == 0 {
        return;
    }
    for (from, to) in from.chunks_exact(cin * taps).zip(to.chunks_exact_mut(cin * taps)) {
        for (tap, row) in to.chunks_exact_mut(cin).enumerate() {
            for (channel, element) in row.iter_mut().enumerate() {
                *element = from[channel * taps + tap];
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use half::bf16;
    use std::sync::Arc;

    /// Bytes that start `shift` bytes behind a multiple of 64.
    struct Shifted(AlignedBytes, usize);

    impl AsRef<[u8]> for Shifted {
        fn as_ref(&self) -> &[u8] {
            &self.0.as_ref()[self.1..]
        }
    }

    /// A part with one tensor `w` of 0, 1, 2, ..., its data `shift` bytes behind a multiple of 64.
    fn part(dtype: DType, shape: &[usize], shift: usize) -> Part {
        let count: usize = shape.iter().product();
        let numbers = (0..count).map(|i| i as f32);
        let data: Vec<u8> = match dtype {
            DType::F32 => numbers.flat_map(f32::to_le_bytes).collect(),
            _ => numbers.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        };
        let (name, end) = (dtype.name().to_uppercase(), data.len());
        let header = format!("{{\"w\":{{\"dtype\":\"{name}\",\"shape\":{shape:?},\"data_offsets\":[0,{end}]}}}}");
        let header = format!("{header:<120}");
        let mut bytes = AlignedBytes::zeroed(shift + 128 + end, "test").unwrap();
        let to = &mut bytes.bytes_mut()[shift..];
        to[..8].copy_from_slice(&120u64.to_le_bytes());
        to[8..128].copy_from_slice(header.as_bytes());
        to[128..].copy_from_slice(&data);
        Part::new(TensorFile::from_bytes("test", Arc::new(Shifted(bytes, shift))).unwrap()).unwrap()
    }

    fn counted(n: usize) -> Vec<f32> {
        (0..n).map(|i| i as f32).collect()
    }

    #[test]
    fn aligned_weights_are_taken_in_place_and_others_copied() {
        for (dtype, shift, in_place) in [
            (DType::F32, 0, true),
            (DType::F32, 4, true),
            (DType::F32, 2, false),
            (DType::F32, 1, false),
            (DType::BF16, 2, true),
            (DType::BF16, 1, false),
        ] {
            let mut part = part(dtype, &[3, 5], shift);
            let w = part.take("w", &[3, 5]).unwrap();
            assert_eq!((w.dtype(), w.is_in_place()), (dtype, in_place), "{dtype} at {shift}");
            assert_eq!((w.shape(), w.to_f32()), ([3, 5].as_slice(), counted(15)));
            part.finish().unwrap();
        }
    }

    #[test]
    fn vectors_are_widened_and_lose_their_ones() {
        for (dtype, shape) in [(DType::F32, vec![6]), (DType::BF16, vec![6]), (DType::BF16, vec![1, 1, 6])] {
            let mut part = part(dtype, &shape, 0);
            let w = part.take_vector("w", 6).unwrap();
            assert_eq!((w.shape(), w.f32()), ([6].as_slice(), counted(6).as_slice()));
            assert_eq!(w.is_in_place(), dtype == DType::F32);
            part.finish().unwrap();
        }
    }

    #[test]
    fn tables_lose_their_batch() {
        for shape in [vec![1, 4, 2], vec![4, 2]] {
            let mut part = part(DType::BF16, &shape, 0);
            for w in [part.take_rows("w", 3, 2), part.take_rows("w", 4, 2), part.take_table("w", 4, 2)] {
                let w = w.unwrap();
                assert_eq!((w.shape(), w.to_f32(), w.is_in_place()), ([4, 2].as_slice(), counted(8), true));
            }
            part.finish().unwrap();
        }
    }

    #[test]
    fn convolutions_have_their_input_channels_innermost() {
        let (cout, cin, k) = (2, 3, 3);
        for (dtype, shift) in [(DType::F32, 0), (DType::F32, 3), (DType::BF16, 0), (DType::BF16, 1)] {
            let mut part = part(dtype, &[cout, cin, k, k], shift);
            let Filter::Taps(w) = part.take_conv("w", cout, cin, k, true).unwrap() else { panic!() };
            let format = if dtype == DType::F32 { Format::F32 } else { Format::Wide };
            assert_eq!((w.format(), w.rows(), w.cols()), (format, cout, k * k * cin));
            let numbers = w.to_f32();
            for (o, y, x, i) in (0..cout)
                .flat_map(|o| (0..k).flat_map(move |y| (0..k).flat_map(move |x| (0..cin).map(move |i| (o, y, x, i)))))
            {
                let stored = ((o * cin + i) * k + y) * k + x;
                assert_eq!(numbers[((o * k + y) * k + x) * cin + i], stored as f32);
            }
            part.finish().unwrap();
        }
        let mut part = part(DType::F32, &[4, 3, 1, 1], 0);
        let Filter::Taps(w) = part.take_conv("w", 4, 3, 1, true).unwrap() else { panic!() };
        assert_eq!((w.rows(), w.cols(), w.to_f32(), w.is_in_place()), (4, 3, counted(12), false));
    }

    #[test]
    fn tables_are_joined_as_f32() {
        let a = part(DType::BF16, &[2, 3], 0).take("w", &[2, 3]).unwrap();
        let b = part(DType::F32, &[1, 3], 0).take("w", &[1, 3]).unwrap();
        let joined = concat_rows("both", &[a, b], 3).unwrap();
        assert_eq!((joined.name(), joined.shape()), ("both", [3, 3].as_slice()));
        assert_eq!(joined.f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.0, 1.0, 2.0]);
    }
}
