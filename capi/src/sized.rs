//! Structs that start with their size, so that later versions can add to them.
//!
//! The caller says how large its struct is. Smaller than this library's: an older header, and what it lacks has its default. Larger: a newer
//! one, and what this library does not know must be zero, which stands for the default in every later version.

use crate::status::{Failure, Result};

/// A struct of the header whose first field is `size`.
///
/// # Safety
/// The first field is a `usize`, all fields are in `FIELDS`, and every bit pattern that C can put into them is valid.
pub(crate) unsafe trait SizeFirst: Copy {
    const NAME: &'static str;
    /// Offset and bytes of each field but `size`.
    const FIELDS: &'static [(usize, usize)];
    /// What `init` puts in, and what an older caller's struct lacks.
    const DEFAULT: Self;
}

pub(crate) const fn bytes_of<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Tells of all fields of a struct; does not compile if one is left out.
macro_rules! size_first {
    ($type:ident, $name:literal, { $($field:ident: $default:expr),* $(,)? }) => {
        // SAFETY: the struct is `repr(C)` with `size` in front, and its fields are numbers, pointers and optional functions.
        unsafe impl $crate::sized::SizeFirst for $type {
            const NAME: &'static str = $name;
            const FIELDS: &'static [(usize, usize)] = &[
                $((std::mem::offset_of!($type, $field), $crate::sized::bytes_of(|s: &$type| &s.$field))),*
            ];
            const DEFAULT: Self = Self { size: size_of::<$type>(), $($field: $default),* };
        }
    };
}
pub(crate) use size_first;

/// More than a later version's struct could have: what claims to be larger is not initialised.
const MOST: usize = 4096;

/// The size that a struct of the caller says.
///
/// # Safety
/// `at` is null or points to a struct of that kind of some version.
unsafe fn size<T: SizeFirst>(at: *const T) -> Result<usize> {
    if at.is_null() {
        return Err(Failure::Null(T::NAME));
    }
    // SAFETY: every version has its size in front.
    let size = unsafe { at.cast::<usize>().read() };
    if (size_of::<usize>()..=MOST).contains(&size) { Ok(size) } else { Err(Failure::Size(T::NAME, size)) }
}

/// A struct of the caller; what it lacks is as in `default`.
///
/// # Safety
/// `from` is null or points to a struct of that kind of some version, of the bytes that its size says.
pub(crate) unsafe fn read_or<T: SizeFirst>(from: *const T, default: T) -> Result<T> {
    // SAFETY: as the caller says.
    let size = unsafe { size(from)? };
    let bytes = from.cast::<u8>();
    // SAFETY: within the bytes that the size says.
    if (size_of::<T>()..size).any(|i| unsafe { bytes.add(i).read() } != 0) {
        return Err(Failure::Size(T::NAME, size));
    }
    let mut value = default;
    for (offset, len) in fields::<T>(size) {
        // SAFETY: the field is whole in both, and any bits of it are valid.
        unsafe { std::ptr::copy_nonoverlapping(bytes.add(offset), (&raw mut value).cast::<u8>().add(offset), len) };
    }
    Ok(value)
}

/// Refuses a field that this version does not know, where it is not zero: a later version's, or a struct that was not made by `init`.
pub(crate) fn reserved<T: SizeFirst>(_: &T, field: u32) -> Result<()> {
    if field == 0 { Ok(()) } else { Err(Failure::Reserved(T::NAME, field)) }
}

/// [`read_or`] with the struct's own defaults.
///
/// # Safety
/// As of [`read_or`].
pub(crate) unsafe fn read<T: SizeFirst>(from: *const T) -> Result<T> {
    // SAFETY: as the caller says.
    unsafe { read_or(from, T::DEFAULT) }
}

/// Fills a struct of the caller as far as it goes. What only a newer version knows becomes zero.
///
/// # Safety
/// `to` is null or points to a struct of that kind of some version, of the bytes that its size says, and nobody else uses it.
pub(crate) unsafe fn write<T: SizeFirst>(to: *mut T, value: &T) -> Result<()> {
    // SAFETY: as the caller says.
    let size = unsafe { size(to)? };
    let bytes = to.cast::<u8>();
    for (offset, len) in fields::<T>(size) {
        // SAFETY: the field is whole in both.
        unsafe { std::ptr::copy_nonoverlapping((&raw const *value).cast::<u8>().add(offset), bytes.add(offset), len) };
    }
    for i in size_of::<T>()..size {
        // SAFETY: within the bytes that the size says.
        unsafe { bytes.add(i).write(0) };
    }
    Ok(())
}

/// Makes a struct of `size` bytes hold `value`.
///
/// # Safety
/// `to` is null or points to `size` bytes that nobody else uses.
pub(crate) unsafe fn init<T: SizeFirst>(to: *mut T, size: usize, value: &T) -> Result<()> {
    if to.is_null() {
        return Err(Failure::Null(T::NAME));
    }
    if !(size_of::<usize>()..=MOST).contains(&size) {
        return Err(Failure::Size(T::NAME, size));
    }
    // SAFETY: as the caller says; `size` has room in front.
    unsafe {
        to.cast::<u8>().write_bytes(0, size);
        to.cast::<usize>().write(size);
        write(to, value)
    }
}

/// The fields that a struct of `size` bytes has whole.
fn fields<T: SizeFirst>(size: usize) -> impl Iterator<Item = (usize, usize)> {
    T::FIELDS.iter().copied().filter(move |(offset, len)| offset + len <= size)
}
