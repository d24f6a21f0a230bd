//! Memory of a GPU.

use super::driver::{
    Code, cuMemAlloc_v2, cuMemFree_v2, cuMemGetInfo_v2, cuMemcpyDtoDAsync_v2, cuMemcpyDtoHAsync_v2,
    cuMemcpyHtoDAsync_v2, cuMemsetD8Async,
};
use super::{Context, Stream, failed, problem};
use crate::error::{DeviceProblem, Error, Result};
use bytemuck::{Pod, Zeroable};
use std::marker::PhantomData;

/// An address of a GPU's memory, as kernels take it in their parameters. It is a number; nothing keeps the memory alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// The address so many bytes further.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_add(bytes as u64))
    }
}

/// Memory of a GPU for `len` values, freed when dropped. The driver then waits for the work that may use it.
#[derive(Debug)]
pub struct DeviceBuffer<T: Pod> {
    context: Context,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod> Drop for DeviceBuffer<T> {
    fn drop(&mut self) {
        if let (true, Ok(_entered)) = (self.address != 0, self.context.enter()) {
            // SAFETY: it was allocated in `new`, in this context.
            unsafe { cuMemFree_v2(self.address) };
        }
    }
}

impl<T: Pod> DeviceBuffer<T> {
    /// Memory whose contents are whatever was there. `what` it is for stands in the error if the GPU has not enough left:
    /// [`DeviceProblem::Memory`], after which all else works as before.
    pub fn new(context: &Context, what: &str, len: usize) -> Result<Self> {
        let mut buffer = Self { context: context.clone(), address: 0, len, of: PhantomData };
        let name = || context.device().name();
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(|| {
            let expected = format!("{len} values of {} bytes on {}", size_of::<T>(), name());
            problem(DeviceProblem::Memory, what, expected, "more bytes than there are addresses")
        })?;
        if bytes == 0 {
            return Ok(buffer);
        }
        let _entered = context.enter()?;
        // SAFETY: it writes one address.
        unsafe { cuMemAlloc_v2(&mut buffer.address, bytes) }.check(|code| match code {
            Code::OUT_OF_MEMORY => {
                let (mut free, mut total) = (0, 0);
                // SAFETY: it writes two numbers.
                let told = unsafe { cuMemGetInfo_v2(&mut free, &mut total) } == Code::SUCCESS;
                let found = if told { format!("{free} bytes free of {total}") } else { code.to_string() };
                problem(DeviceProblem::Memory, what, format!("{bytes} bytes free on {}", name()), found)
            }
            _ => failed("memory of a GPU")(code),
        })?;
        Ok(buffer)
    }

    /// Memory full of zeros.
    pub fn zeroed(stream: &Stream, what: &str, len: usize) -> Result<Self> {
        let mut buffer = Self::new(stream.context(), what, len)?;
        buffer.fill_zeros(stream)?;
        Ok(buffer)
    }

    /// Memory with these values.
    pub fn from_slice(stream: &Stream, what: &str, values: &[T]) -> Result<Self> {
        let mut buffer = Self::new(stream.context(), what, values.len())?;
        buffer.write(stream, 0, values)?;
        Ok(buffer)
    }

    /// How many values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of it.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }

    /// Where it lies; of no length null.
    pub fn ptr(&self) -> DevicePtr {
        DevicePtr(self.address)
    }

    /// Fills it with zeros, after the work in the stream, and waits for that.
    pub fn fill_zeros(&mut self, stream: &Stream) -> Result<()> {
        if self.bytes() > 0 {
            let _entered = stream.context().enter()?;
            // SAFETY: all of this buffer, which is borrowed until it is done.
            unsafe { cuMemsetD8Async(self.address, 0, self.bytes(), stream.raw()) }.check(failed("zeros on a GPU"))?;
        }
        stream.synchronize()
    }

    /// Copies `values` to place `at` and after, after the work in the stream, and waits for that.
    pub fn write(&mut self, stream: &Stream, at: usize, values: &[T]) -> Result<()> {
        // SAFETY: both are borrowed until it is done.
        unsafe { self.start_write(stream, at, values) }?;
        stream.synchronize()
    }

    /// Copies what is at place `at` and after, after the work in the stream, and waits for that.
    pub fn read(&self, stream: &Stream, at: usize, values: &mut [T]) -> Result<()> {
        // SAFETY: both are borrowed until it is done.
        unsafe { self.start_read(stream, at, values) }?;
        stream.synchronize()
    }

    /// As [`DeviceBuffer::write`], without waiting. While a graph is recorded this becomes part of it.
    ///
    /// # Safety
    /// Both this buffer and `values` stay where they are, and `values` as they are, until the GPU has done it: all times
    /// if it is part of a graph.
    pub unsafe fn start_write(&self, stream: &Stream, at: usize, values: &[T]) -> Result<()> {
        let address = self.place(at, values.len())?;
        if size_of_val(values) == 0 {
            return Ok(());
        }
        let _entered = stream.context().enter()?;
        // SAFETY: `place` has checked the GPU's side, the slice is the host's, and the rest is the caller's duty.
        unsafe { cuMemcpyHtoDAsync_v2(address, values.as_ptr().cast(), size_of_val(values), stream.raw()) }
            .check(failed("copying to a GPU"))
    }

    /// As [`DeviceBuffer::read`], without waiting. While a graph is recorded this becomes part of it.
    ///
    /// # Safety
    /// Both this buffer and `values` stay where they are, and nobody uses `values`, until the GPU has done it: all times
    /// if it is part of a graph.
    pub unsafe fn start_read(&self, stream: &Stream, at: usize, values: &mut [T]) -> Result<()> {
        let address = self.place(at, values.len())?;
        if size_of_val(values) == 0 {
            return Ok(());
        }
        let _entered = stream.context().enter()?;
        // SAFETY: `place` has checked the GPU's side, the slice is the host's, any bytes are values (Pod), and the rest is
        // the caller's duty.
        unsafe { cuMemcpyDtoHAsync_v2(values.as_mut_ptr().cast(), address, size_of_val(values), stream.raw()) }
            .check(failed("copying from a GPU"))
    }

    /// Copies the `count` values from place `start` of `from` on to place `at` and after, after the work in the stream,
    /// without waiting. While a graph is recorded this becomes part of it.
    ///
    /// # Safety
    /// Both buffers stay where they are, and nothing else that the GPU does writes these places of either or reads those of
    /// this one, until the GPU has done it: all times if it is part of a graph. Within one buffer the two do not overlap.
    pub unsafe fn copy_from(&self, stream: &Stream, at: usize, from: &Self, start: usize, count: usize) -> Result<()> {
        let (to, from) = (self.place(at, count)?, from.place(start, count)?);
        if count * size_of::<T>() == 0 {
            return Ok(());
        }
        let _entered = stream.context().enter()?;
        // SAFETY: `place` has checked both, and the rest is the caller's duty.
        unsafe { cuMemcpyDtoDAsync_v2(to, from, count * size_of::<T>(), stream.raw()) }
            .check(failed("copying on a GPU"))
    }

    /// The address of the values from `at` on, of which there are `count`.
    fn place(&self, at: usize, count: usize) -> Result<u64> {
        let fits = at.checked_add(count).is_some_and(|end| end <= self.len);
        let outside = || Error::input("copy", format!("places within {}", self.len), format!("{count} from {at} on"));
        if fits { Ok(self.ptr().offset(at * size_of::<T>()).0) } else { Err(outside()) }
    }
}
