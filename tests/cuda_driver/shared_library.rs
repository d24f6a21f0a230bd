//! A C library made of the crate, for `linking.rs` to look at.

/// The GPUs of this machine; -1 if they cannot be counted.
#[unsafe(no_mangle)]
pub extern "C" fn count_gpus() -> std::ffi::c_int {
    discon::cuda::Device::all().map_or(-1, |devices| devices.len() as std::ffi::c_int)
}
