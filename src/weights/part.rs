//! A part of a model, from which its builder takes every weight by name and shape.

use super::file::{TensorFile, TensorView};
use crate::error::{Error, Result};
use crate::tensor::{AlignedBytes, DType, Elements, Weight};
use std::collections::HashSet;
use std::fmt::Display;

/// The tensors of one part of a model.
///
/// A builder takes what its config asks for, each with its exact shape, and ends with [`Part::finish`], which refuses
/// a file that holds more: then it is of another model, or of a config that leaves something out. Weights are taken in
/// place, so that a mapped file is read only as far as it is used, and copied only where a method says so or where the
/// bytes are not aligned.
#[derive(Debug)]
pub struct Part {
    file: TensorFile,
    taken: HashSet<String>,
    memory: WeightMemory,
}

/// Where the weights lie that were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightMemory {
    /// Bytes used where they are: mapped files, a host's pack file.
    pub in_place: u64,
    /// Bytes of copies: unaligned tensors, convolutions whose channels were reordered, widened vectors. A table that
    /// a network joins from several, and keeps beside them, is not counted.
    pub copied: u64,
}

impl std::ops::Add for WeightMemory {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { in_place: self.in_place + other.in_place, copied: self.copied + other.copied }
    }
}

impl Part {
    /// A part of which nothing has been taken.
    pub fn new(file: TensorFile) -> Self {
        Self { file, taken: HashSet::new(), memory: WeightMemory::default() }
    }

    /// The file that the part lies in.
    pub fn file(&self) -> &TensorFile {
        &self.file
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
        let wide = concat(name, &[len], std::slice::from_ref(&weight))?;
        *self.counter(&weight) -= weight.byte_len() as u64;
        *self.counter(&wide) += wide.byte_len() as u64;
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

    /// The convolution `name`, stored as `[cout, cin, k, k]`, as a matrix `[cout, k * k * cin]` whose rows go over
    /// `[ky][kx][cin]`, the input channel innermost. A copy of the same dtype, unless k is 1: then it is in place.
    pub fn take_conv(&mut self, name: &str, cout: usize, cin: usize, k: usize) -> Result<Weight> {
        let shape = [cout, cin, k, k];
        let exact = |found: &[usize]| found == shape;
        if k == 1 {
            return self.take_if(name, exact, || format!("{shape:?}"), |_| vec![cout, cin]);
        }
        let view = self.check(name, exact, || format!("{shape:?}"))?;
        let mut bytes = AlignedBytes::zeroed(view.bytes.len(), name)?;
        // The file holds this many bytes, so none of these products wraps.
        match view.dtype.size() {
            2 => channels_innermost::<2>(view.bytes, bytes.bytes_mut(), cin, k * k),
            _ => channels_innermost::<4>(view.bytes, bytes.bytes_mut(), cin, k * k),
        }
        let weight = Weight::from_aligned(name, view.dtype, &[cout, k * k * cin], bytes);
        *self.counter(&weight) += weight.byte_len() as u64;
        self.taken.insert(name.to_owned());
        Ok(weight)
    }

    /// Ends the taking: an error that names the tensors nobody took, if there are any.
    pub fn finish(self) -> Result<()> {
        let left: Vec<&str> = self.file.names().filter(|n| !self.taken.contains(*n)).collect();
        let Some(&first) = left.first() else { return Ok(()) };
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
                let mut bytes = AlignedBytes::zeroed(view.bytes.len(), name)?;
                bytes.bytes_mut().copy_from_slice(view.bytes);
                Weight::from_aligned(name, view.dtype, &shape, bytes)
            }
        };
        *self.counter(&weight) += weight.byte_len() as u64;
        self.taken.insert(name.to_owned());
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
        Part::new(TensorFile::from_bytes("test", Arc::new(Shifted(bytes, shift))).unwrap())
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
            let w = part.take_conv("w", cout, cin, k).unwrap();
            assert_eq!((w.dtype(), w.shape()), (dtype, [cout, k * k * cin].as_slice()));
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
        let w = part.take_conv("w", 4, 3, 1).unwrap();
        assert_eq!((w.shape(), w.to_f32(), w.is_in_place()), ([4, 3].as_slice(), counted(12), true));
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
