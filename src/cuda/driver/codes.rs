//! The driver's error codes and their names.

use crate::error::{Error, Result};
use cust::error::CudaError;
use cust::sys::CUresult;
use std::ffi::{CStr, c_char};
use std::fmt;

/// What a function of the driver returned. Unlike cust's enum it may be a code that did not exist when cust was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) struct Code(pub(super) u32);

impl Code {
    pub(in crate::cuda) const SUCCESS: Self = Self(0);
    pub(in crate::cuda) const INVALID_VALUE: Self = Self(1);
    pub(in crate::cuda) const OUT_OF_MEMORY: Self = Self(2);
    pub(super) const STUB_LIBRARY: Self = Self(34);
    pub(in crate::cuda) const NO_DEVICE: Self = Self(100);
    pub(in crate::cuda) const NO_BINARY_FOR_GPU: Self = Self(209);
    pub(in crate::cuda) const INVALID_PTX: Self = Self(218);
    pub(in crate::cuda) const JIT_COMPILER_NOT_FOUND: Self = Self(221);
    pub(in crate::cuda) const UNSUPPORTED_PTX_VERSION: Self = Self(222);
    /// This module's own answer where the driver lacks a function: CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND.
    pub(in crate::cuda) const NO_SYMBOL: Self = Self(302);
    /// This module's own answer where there is no driver: CUDA_ERROR_SHARED_OBJECT_INIT_FAILED.
    pub(super) const NO_LIBRARY: Self = Self(303);
    pub(in crate::cuda) const NOT_FOUND: Self = Self(500);
    pub(in crate::cuda) const NOT_READY: Self = Self(600);
    const UNKNOWN: Self = Self(999);

    /// Nothing if all went well, else an error made of the code.
    pub(in crate::cuda) fn check(self, error: impl FnOnce(Self) -> Error) -> Result<()> {
        if self == Self::SUCCESS { Ok(()) } else { Err(error(self)) }
    }

    /// Whether it is what a kernel did rather than what was asked of the driver. It comes to light in any later call.
    pub(in crate::cuda) fn is_of_kernels(self) -> bool {
        matches!(self.0, 214 | 220 | 226 | 700..=703 | 710 | 714..=721)
    }

    /// What cust may be told: its enum has no other values, and to make one of another number is undefined behaviour.
    pub(super) fn known(self) -> u32 {
        if KNOWN.iter().any(|(code, _)| *code == self.0) { self.0 } else { Self::UNKNOWN.0 }
    }

    fn name(self) -> Option<&'static CStr> {
        KNOWN.iter().chain(LATER).find(|(code, _)| *code == self.0).map(|(_, name)| *name)
    }
}

impl From<CudaError> for Code {
    fn from(error: CudaError) -> Self {
        Self(error as u32)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().map_or("an unknown error".into(), CStr::to_string_lossy);
        write!(f, "{name} ({})", self.0)
    }
}

/// Writes a code's name. cust asks this to print an error, also where no driver is loaded, so it is answered here.
///
/// # Safety
/// `text` is valid for writing a pointer, or null.
pub(super) unsafe fn write_name(code: u32, text: *mut *const c_char) -> u32 {
    let name = Code(code).name();
    if text.is_null() {
        return Code::INVALID_VALUE.0;
    }
    // SAFETY: not null, and the caller's duty. The name is a constant of this program.
    unsafe { *text = name.unwrap_or(c"an unknown error").as_ptr() };
    Code::SUCCESS.0
}

macro_rules! codes {
    ($($name:ident)*) => {
        &[$((
            CUresult::$name as u32,
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => panic!("an identifier has no NUL"),
            },
        )),*]
    };
}

/// The codes of CUDA 11.4: all that cust's enum can hold.
#[rustfmt::skip]
const KNOWN: &[(u32, &CStr)] = codes![
    CUDA_SUCCESS CUDA_ERROR_INVALID_VALUE CUDA_ERROR_OUT_OF_MEMORY CUDA_ERROR_NOT_INITIALIZED CUDA_ERROR_DEINITIALIZED
    CUDA_ERROR_PROFILER_DISABLED CUDA_ERROR_PROFILER_NOT_INITIALIZED CUDA_ERROR_PROFILER_ALREADY_STARTED
    CUDA_ERROR_PROFILER_ALREADY_STOPPED CUDA_ERROR_STUB_LIBRARY CUDA_ERROR_NO_DEVICE CUDA_ERROR_INVALID_DEVICE
    CUDA_ERROR_DEVICE_NOT_LICENSED CUDA_ERROR_INVALID_IMAGE CUDA_ERROR_INVALID_CONTEXT
    CUDA_ERROR_CONTEXT_ALREADY_CURRENT CUDA_ERROR_MAP_FAILED CUDA_ERROR_UNMAP_FAILED CUDA_ERROR_ARRAY_IS_MAPPED
    CUDA_ERROR_ALREADY_MAPPED CUDA_ERROR_NO_BINARY_FOR_GPU CUDA_ERROR_ALREADY_ACQUIRED CUDA_ERROR_NOT_MAPPED
    CUDA_ERROR_NOT_MAPPED_AS_ARRAY CUDA_ERROR_NOT_MAPPED_AS_POINTER CUDA_ERROR_ECC_UNCORRECTABLE
    CUDA_ERROR_UNSUPPORTED_LIMIT CUDA_ERROR_CONTEXT_ALREADY_IN_USE CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
    CUDA_ERROR_INVALID_PTX CUDA_ERROR_INVALID_GRAPHICS_CONTEXT CUDA_ERROR_NVLINK_UNCORRECTABLE
    CUDA_ERROR_JIT_COMPILER_NOT_FOUND CUDA_ERROR_UNSUPPORTED_PTX_VERSION CUDA_ERROR_JIT_COMPILATION_DISABLED
    CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY CUDA_ERROR_INVALID_SOURCE CUDA_ERROR_FILE_NOT_FOUND
    CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND CUDA_ERROR_SHARED_OBJECT_INIT_FAILED CUDA_ERROR_OPERATING_SYSTEM
    CUDA_ERROR_INVALID_HANDLE CUDA_ERROR_ILLEGAL_STATE CUDA_ERROR_NOT_FOUND CUDA_ERROR_NOT_READY
    CUDA_ERROR_ILLEGAL_ADDRESS CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES CUDA_ERROR_LAUNCH_TIMEOUT
    CUDA_ERROR_LAUNCH_INCOMPATIBLE_TEXTURING CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
    CUDA_ERROR_PRIMARY_CONTEXT_ACTIVE CUDA_ERROR_CONTEXT_IS_DESTROYED CUDA_ERROR_ASSERT CUDA_ERROR_TOO_MANY_PEERS
    CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED CUDA_ERROR_HARDWARE_STACK_ERROR
    CUDA_ERROR_ILLEGAL_INSTRUCTION CUDA_ERROR_MISALIGNED_ADDRESS CUDA_ERROR_INVALID_ADDRESS_SPACE CUDA_ERROR_INVALID_PC
    CUDA_ERROR_LAUNCH_FAILED CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE CUDA_ERROR_NOT_PERMITTED CUDA_ERROR_NOT_SUPPORTED
    CUDA_ERROR_SYSTEM_NOT_READY CUDA_ERROR_SYSTEM_DRIVER_MISMATCH CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE
    CUDA_ERROR_MPS_CONNECTION_FAILED CUDA_ERROR_MPS_RPC_FAILURE CUDA_ERROR_MPS_SERVER_NOT_READY
    CUDA_ERROR_MPS_MAX_CLIENTS_REACHED CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED CUDA_ERROR_STREAM_CAPTURE_MERGE CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED CUDA_ERROR_STREAM_CAPTURE_ISOLATION CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
    CUDA_ERROR_CAPTURED_EVENT CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD CUDA_ERROR_TIMEOUT
    CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE CUDA_ERROR_EXTERNAL_DEVICE CUDA_ERROR_UNKNOWN
];

/// Codes that came later, for messages.
const LATER: &[(u32, &CStr)] = &[
    (36, c"CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER"),
    (46, c"CUDA_ERROR_DEVICE_UNAVAILABLE"),
    (225, c"CUDA_ERROR_UNSUPPORTED_DEVSIDE_SYNC"),
    (226, c"CUDA_ERROR_CONTAINED"),
    (402, c"CUDA_ERROR_LOSSY_QUERY"),
    (721, c"CUDA_ERROR_TENSOR_MEMORY_LEAK"),
    (810, c"CUDA_ERROR_MPS_CLIENT_TERMINATED"),
    (811, c"CUDA_ERROR_CDP_NOT_SUPPORTED"),
    (812, c"CUDA_ERROR_CDP_VERSION_MISMATCH"),
    (912, c"CUDA_ERROR_INVALID_CLUSTER_SIZE"),
    (913, c"CUDA_ERROR_FUNCTION_NOT_LOADED"),
    (914, c"CUDA_ERROR_INVALID_RESOURCE_TYPE"),
    (915, c"CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cust_is_told_no_code_that_its_enum_lacks() {
        assert_eq!([0, 2, 222, 911, 999].map(|code| Code(code).known()), [0, 2, 222, 911, 999]);
        assert_eq!([9, 226, 721, 912, u32::MAX].map(|code| Code(code).known()), [999; 5]);
    }

    #[test]
    fn codes_have_the_names_of_the_manual() {
        assert_eq!(Code::UNSUPPORTED_PTX_VERSION.to_string(), "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)");
        assert_eq!(Code(912).to_string(), "CUDA_ERROR_INVALID_CLUSTER_SIZE (912)");
        assert_eq!(Code(4711).to_string(), "an unknown error (4711)");
        // The constants that this crate decides by, against cust_raw's numbers.
        let by_name = |code: Code| code.name().unwrap().to_str().unwrap();
        assert_eq!(by_name(Code::NO_SYMBOL), "CUDA_ERROR_SHARED_OBJECT_SYMBOL_NOT_FOUND");
        assert_eq!(by_name(Code::NO_LIBRARY), "CUDA_ERROR_SHARED_OBJECT_INIT_FAILED");
        let others = [
            (Code::INVALID_VALUE, CUresult::CUDA_ERROR_INVALID_VALUE),
            (Code::OUT_OF_MEMORY, CUresult::CUDA_ERROR_OUT_OF_MEMORY),
            (Code::STUB_LIBRARY, CUresult::CUDA_ERROR_STUB_LIBRARY),
            (Code::NO_DEVICE, CUresult::CUDA_ERROR_NO_DEVICE),
            (Code::NO_BINARY_FOR_GPU, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU),
            (Code::INVALID_PTX, CUresult::CUDA_ERROR_INVALID_PTX),
            (Code::JIT_COMPILER_NOT_FOUND, CUresult::CUDA_ERROR_JIT_COMPILER_NOT_FOUND),
            (Code::NOT_FOUND, CUresult::CUDA_ERROR_NOT_FOUND),
            (Code::NOT_READY, CUresult::CUDA_ERROR_NOT_READY),
        ];
        for (code, known) in others {
            assert_eq!(code.0, known as u32);
        }
    }

    #[test]
    fn cust_prints_its_errors_without_a_driver() {
        assert_eq!(CudaError::OutOfMemory.to_string(), "\"CUDA_ERROR_OUT_OF_MEMORY\"");
    }
}
