//! What a call returns, the last error's text, and the wall that no panic passes.

use discon::{Error, ErrorKind};
use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The major version of this header.
pub const VERSION_MAJOR: u32 = 0;
/// The minor version of this header.
pub const VERSION_MINOR: u32 = 1;
/// The patch version of this header.
pub const VERSION_PATCH: u32 = 0;

/// What a call returns.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Cancelled: not a failure, the session can begin anew at once.
    Cancelled = 1,
    /// The operating system refused a file.
    Io = 2,
    /// A model file is damaged or does not fit its config.
    Model = 3,
    /// The request does not fit the model or the session: a class, a setting, a picture, a count.
    Request = 4,
    /// Not enough memory, or threads.
    Resources = 5,
    /// This machine, this build or this model lacks what was asked for.
    Unsupported = 6,
    /// A GPU or its driver.
    Device = 7,
    /// A pointer that must not be null was null.
    Null = 8,
    /// A struct's `size` is too small, or so large that it holds what this library does not know; or its `reserved` is not zero.
    Size = 9,
    /// A call at the wrong time: a step before begin, images before the end.
    Misuse = 10,
    /// The session is at work in another call, of another thread or around this one.
    Busy = 11,
    /// A defect of discon, stopped at this call. Other sessions go on; this one must begin anew.
    Panic = 12,
    /// Something that this version of the header has no name for.
    Other = 13,
}

/// Why a call failed.
#[derive(Debug)]
pub(crate) enum Failure {
    Engine(Error),
    Null(&'static str),
    Size(&'static str, usize),
    Reserved(&'static str, u32),
    Misuse(&'static str),
    Busy(&'static str),
    Unsupported(&'static str),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(error)
    }
}

impl Failure {
    fn status(&self) -> Status {
        match self {
            Self::Engine(error) => match error.kind() {
                ErrorKind::Io => Status::Io,
                ErrorKind::Model => Status::Model,
                ErrorKind::Request => Status::Request,
                ErrorKind::Resources => Status::Resources,
                ErrorKind::Unsupported => Status::Unsupported,
                ErrorKind::Device => Status::Device,
                ErrorKind::Cancelled => Status::Cancelled,
                // Callbacks of C do not panic; Rust's, as the one that forwards to them, would be ours.
                ErrorKind::Callback => Status::Panic,
                _ => Status::Other,
            },
            Self::Null(_) => Status::Null,
            Self::Size(..) | Self::Reserved(..) => Status::Size,
            Self::Misuse(_) => Status::Misuse,
            Self::Busy(_) => Status::Busy,
            Self::Unsupported(_) => Status::Unsupported,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Null(what) => write!(f, "{what}: expected a pointer, found null"),
            Self::Size(what, size) => {
                write!(f, "{what}: expected its size and zeros behind what is known, found size {size}")
            }
            Self::Reserved(what, found) => write!(f, "{what}: expected 0 in `reserved`, found {found}"),
            Self::Misuse(text) | Self::Busy(text) | Self::Unsupported(text) => f.write_str(text),
        }
    }
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// A text in place: an error is told also when there is no memory, and a thread's end has nothing to free.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// The last is always zero.
    bytes: [u8; 2049],
    len: usize,
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; 2049], len: 0 };

    pub(crate) fn of(text: impl fmt::Display) -> Self {
        let mut made = Self::EMPTY;
        // It ends where it is full.
        let _ = write!(made, "{text}");
        made
    }

    /// Ended by a zero.
    pub(crate) fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let fits = text.floor_char_boundary(self.bytes.len() - 1 - self.len);
        self.bytes[self.len..][..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

thread_local! {
    /// Of the last call of this thread that failed.
    static LAST: Cell<Text> = const { Cell::new(Text::EMPTY) };
    /// Where the last panic of this thread was.
    static PLACE: Cell<Text> = const { Cell::new(Text::EMPTY) };
}

/// Runs a call: what it fails with becomes the status and the thread's last error, a panic too.
pub(crate) fn guard(call: impl FnOnce() -> Result<()>) -> Status {
    #[cfg(not(test))]
    keep_panics_quiet();
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(failure)) => {
            LAST.set(Text::of(&failure));
            failure.status()
        }
        Err(payload) => {
            let place = PLACE.replace(Text::EMPTY);
            let place = str::from_utf8(place.as_bytes()).unwrap_or_default();
            LAST.set(Text::of(format_args!("a defect of discon{place}: {}", said(&*payload))));
            Status::Panic
        }
    }
}

fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or(payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("it panicked")
}

/// Panics write nothing; where they were is kept for the error's text. The hook is that of this library's own copy of the
/// standard library.
#[cfg(not(test))]
fn keep_panics_quiet() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            if let Some(at) = info.location() {
                PLACE.set(Text::of(format_args!(" at {}:{}", at.file(), at.line())));
            }
        }));
    });
}

/// What `pointer` points to, for reading.
///
/// # Safety
/// It is null, or valid for reads while the result is used.
pub(crate) unsafe fn get<'a, T>(pointer: *const T, what: &'static str) -> Result<&'a T> {
    // SAFETY: as the caller says.
    unsafe { pointer.as_ref() }.ok_or(Failure::Null(what))
}

/// Where a result goes.
///
/// # Safety
/// It is null, or valid for writes.
pub(crate) unsafe fn put<T>(pointer: *mut T, what: &'static str, value: T) -> Result<()> {
    if pointer.is_null() {
        return Err(Failure::Null(what));
    }
    // SAFETY: as the caller says. What was there is C's: nothing to drop.
    unsafe { pointer.write(value) };
    Ok(())
}

/// A new handle for the caller to free, where `pointer` says. What was made is dropped if that is null.
///
/// # Safety
/// As of [`put`].
pub(crate) unsafe fn give<T>(pointer: *mut *mut T, what: &'static str, make: impl FnOnce() -> Result<T>) -> Result<()> {
    // SAFETY: as the caller says. Null first, so that a call that fails leaves nothing that could be taken for a handle.
    unsafe { put(pointer, what, std::ptr::null_mut())? };
    let handle = Box::into_raw(Box::new(make()?));
    // SAFETY: as the caller says.
    unsafe { put(pointer, what, handle) }
}

/// Drops a handle; null is none.
///
/// # Safety
/// It is null, or from [`give`] and not freed yet.
pub(crate) unsafe fn free<T>(handle: *mut T) -> Status {
    guard(|| {
        if !handle.is_null() {
            // SAFETY: as the caller says.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    })
}

/// `count` values; none may be null.
///
/// # Safety
/// It is null, or valid for reads of as many values while the result is used.
pub(crate) unsafe fn slice<'a, T>(pointer: *const T, count: usize, what: &'static str) -> Result<&'a [T]> {
    match (count, pointer.is_null()) {
        (0, _) => Ok(&[]),
        (_, true) => Err(Failure::Null(what)),
        _ if count > isize::MAX as usize / size_of::<T>() => {
            Err(Error::input(what, "a number of values that memory can hold", count).into())
        }
        // SAFETY: as the caller says, and not too large.
        _ => Ok(unsafe { std::slice::from_raw_parts(pointer, count) }),
    }
}

/// Room for `count` values.
///
/// # Safety
/// It is null, or valid for reads and writes of as many values while the result is used, and for nobody else.
pub(crate) unsafe fn slice_mut<'a, T>(pointer: *mut T, count: usize, what: &'static str) -> Result<&'a mut [T]> {
    // SAFETY: as the caller says.
    unsafe { slice(pointer, count, what)? };
    if count == 0 {
        return Ok(&mut []);
    }
    // SAFETY: as the caller says, and neither null nor too large.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// Memory for as many values as a caller says, which may be refused.
pub(crate) fn room_for<T>(count: usize, what: &str) -> Result<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|e| Error::Memory {
        what: what.to_owned(),
        bytes: (count as u64).saturating_mul(size_of::<T>() as u64),
        reason: e.to_string(),
    })?;
    Ok(room)
}

/// The values of an iterator that says how many there are at most, in memory that may be refused.
pub(crate) fn collected<T>(values: impl Iterator<Item = Result<T>>, what: &str) -> Result<Vec<T>> {
    let mut all = room_for(values.size_hint().1.unwrap_or(0), what)?;
    for value in values {
        all.push(value?);
    }
    Ok(all)
}

/// A text of C.
///
/// # Safety
/// It is null, or ends with a zero and stays while the result is used.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &'static str) -> Result<&'a str> {
    if pointer.is_null() {
        return Err(Failure::Null(what));
    }
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|_| Error::input(what, "UTF-8", text.to_string_lossy()).into())
}

/// The version of the library that runs: `major << 16 | minor << 8 | patch`, as DISCON_VERSION of the header that a program
/// was compiled with.
#[unsafe(no_mangle)]
pub extern "C" fn discon_version() -> u32 {
    VERSION_MAJOR << 16 | VERSION_MINOR << 8 | VERSION_PATCH
}

/// The name of a status, as `request`. Never null.
#[unsafe(no_mangle)]
pub extern "C" fn discon_status_name(status: i32) -> *const c_char {
    const NAMES: [&CStr; 14] = [
        c"ok",
        c"cancelled",
        c"io",
        c"model",
        c"request",
        c"resources",
        c"unsupported",
        c"device",
        c"null",
        c"size",
        c"misuse",
        c"busy",
        c"panic",
        c"other",
    ];
    usize::try_from(status).ok().and_then(|i| NAMES.get(i)).unwrap_or(&c"unknown").as_ptr()
}

/// Copies the text of this thread's last call that failed, ended by a zero, as much as fits `capacity`. The text names the
/// thing, what was expected and what was found. Returns its length without the zero: at least `capacity` if it did not fit.
/// `text` may be null to ask for the length. It is at most 2048 bytes of UTF-8; a call that succeeds leaves it as it is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_last_error(text: *mut c_char, capacity: usize) -> usize {
    let last = LAST.get();
    if !text.is_null() && capacity > 0 {
        let whole = str::from_utf8(last.as_bytes()).unwrap_or_default();
        let fits = whole.floor_char_boundary(capacity - 1);
        // SAFETY: the caller gives `capacity` bytes, and `fits` is below it.
        unsafe {
            std::ptr::copy_nonoverlapping(whole.as_ptr(), text.cast::<u8>(), fits);
            text.add(fits).write(0);
        }
    }
    last.len
}
