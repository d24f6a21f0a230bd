//! NVIDIA's driver, found while the program runs.
//!
//! The programs made of this crate name no CUDA library to the system's loader, so they start on any machine. The driver's
//! functions are looked up in its library at their first call; without it, or without the function, the call returns an
//! error code like any other failure. `cust` calls the same functions by their C names: [`linked`] defines those.
//!
//! The library is loaded once a process and never unloaded, since function pointers into it are kept.

mod codes;
mod linked;
mod symbols;

pub(super) use codes::Code;
pub(super) use linked::*;
pub(super) use symbols::*;

use super::{DriverVersion, problem};
use crate::error::{DeviceProblem, Error, Result};
use libloading::Library;
use std::ffi::{CStr, OsString, c_void};
use std::ptr::NonNull;
use std::sync::OnceLock;

/// Names the driver's library, in place of the system's own.
const LIBRARY_VARIABLE: &str = "DISCON_CUDA_DRIVER";
/// The driver's library by the name that its installer gives it.
const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// The oldest driver that takes the PTX of this crate: `.version 8.0`.
pub(super) const NEEDED: DriverVersion = DriverVersion(12_000);

/// The library, or why there is none.
fn library() -> Result<&'static Library, &'static str> {
    static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
    let load = || {
        let name = named_library().unwrap_or_else(|| LIBRARY.into());
        // SAFETY: loading runs the library's initialisers. It is the NVIDIA driver's, which every CUDA program loads, or
        // one that whoever set this process's environment vouches for, as with LD_LIBRARY_PATH.
        unsafe { Library::new(&name) }.map_err(|e| match std::error::Error::source(&e) {
            Some(source) => format!("{e}: {source}"),
            None => e.to_string(),
        })
    };
    LOADED.get_or_init(load).as_ref().map_err(String::as_str)
}

/// The library that the environment names, or none.
fn named_library() -> Option<OsString> {
    std::env::var_os(LIBRARY_VARIABLE).filter(|name| !name.is_empty())
}

/// A function of the driver, looked up once.
struct Symbol {
    name: &'static CStr,
    address: OnceLock<Result<Address, Code>>,
}

/// Where a function of the driver begins.
#[derive(Clone, Copy)]
struct Address(NonNull<c_void>);

// SAFETY: an address of code, which nothing writes and which stays loaded.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Symbol {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: OnceLock::new() }
    }

    fn address(&self) -> Result<NonNull<c_void>, Code> {
        let find = || {
            let library = library().map_err(|_| Code::NO_LIBRARY)?;
            // SAFETY: nothing is read or called through the pointer here; its type is given where it is called.
            let symbol = unsafe { library.get::<*mut c_void>(self.name.to_bytes_with_nul()) };
            symbol.ok().and_then(|s| NonNull::new(*s)).map(Address).ok_or(Code::NO_SYMBOL)
        };
        self.address.get_or_init(find).map(|address| address.0)
    }
}

/// Functions of the driver by name and C signature. Each becomes a Rust function that looks it up and calls it.
macro_rules! functions {
    ($($name:ident($($arg:ident: $type:ty),* $(,)?);)*) => {$(
        /// # Safety
        /// As the manual of the driver API says of the function of this name.
        #[allow(non_snake_case, clippy::too_many_arguments, reason = "it is the driver's function")]
        pub(in crate::cuda) unsafe fn $name($($arg: $type),*) -> $crate::cuda::driver::Code {
            use $crate::cuda::driver::{Code, Symbol};
            const NAME: &::std::ffi::CStr = match ::std::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("an identifier has no NUL"),
            };
            static SYMBOL: Symbol = Symbol::new(NAME);
            match SYMBOL.address() {
                Ok(address) => {
                    // SAFETY: the driver has a function of that name with this signature: they are cust_raw's and the
                    // manual's. It returns a number, here not taken for the closed enum that newer drivers exceed.
                    let function: unsafe extern "C" fn($($type),*) -> u32 = unsafe { ::std::mem::transmute(address) };
                    // SAFETY: the caller's duty.
                    Code(unsafe { function($($arg),*) })
                }
                Err(code) => code,
            }
        }
    )*};
}
use functions;

/// Starts the driver, which may be done any number of times, and tells its version.
pub(super) fn start() -> Result<DriverVersion> {
    library().map_err(|reason| {
        let expected = match named_library() {
            Some(name) => format!("the library {} that {LIBRARY_VARIABLE} names", name.display()),
            None => format!("the library {LIBRARY} that comes with it"),
        };
        problem(DeviceProblem::NoDriver, "NVIDIA driver", expected, format!("none: {reason}"))
    })?;
    let mut version = 0;
    // SAFETY: it writes one int, before anything else is called too.
    let code = unsafe { cuDriverGetVersion(&mut version) };
    code.check(|code| problem(DeviceProblem::NoDriver, "NVIDIA driver", "its version", code))?;
    let version = DriverVersion(u32::try_from(version).unwrap_or(0));
    if version < NEEDED {
        let expected = format!("one for CUDA {NEEDED} or newer");
        return Err(problem(DeviceProblem::OldDriver, "NVIDIA driver", expected, format!("one for CUDA {version}")));
    }
    // SAFETY: 0 is the only value of the flags.
    unsafe { cuInit(0) }.check(|code| match code {
        Code::NO_DEVICE => no_device(),
        Code::STUB_LIBRARY => problem(
            DeviceProblem::NoDriver,
            "NVIDIA driver",
            "a driver",
            format!("the toolkit's stand-in for one: {code}"),
        ),
        _ => problem(DeviceProblem::Call, "NVIDIA driver", "that it starts", code),
    })?;
    Ok(version)
}

/// The error of a machine without a GPU.
pub(super) fn no_device() -> Error {
    problem(DeviceProblem::NoDevice, "NVIDIA GPU", "one at least", "none that the driver shows this process")
}
