//! PTX, compiled by the driver, and its kernels.

use super::driver::{
    Code, cuFuncGetAttribute, cuFuncGetParamInfo, cuFuncSetAttribute, cuLaunchKernel, cuModuleGetFunction,
    cuModuleLoadDataEx, cuModuleUnload, cuOccupancyMaxActiveBlocksPerMultiprocessor,
};
use super::{Context, DriverVersion, Stream, failed, problem, sort};
use crate::error::{DeviceProblem, Error, Result};
use bytemuck::Pod;
use cust::sys::{CUfunction, CUfunction_attribute, CUjit_option, CUmodule};
use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::ptr::{from_ref, null_mut};
use std::sync::Arc;

/// Compiled kernels. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Module(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    context: Context,
    file: String,
    raw: CUmodule,
}

// SAFETY: a module is a handle that the driver takes from any thread, and from several at once.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ok(_entered) = self.context.enter() {
            // SAFETY: it was loaded in `Module::load`, and no `Function` of it is left: they hold this.
            unsafe { cuModuleUnload(self.raw) };
        }
    }
}

impl Module {
    /// Has the driver compile PTX. `file` is the name that errors call it by: [`DeviceProblem::Kernel`] with what the
    /// driver's compiler said.
    pub fn load(context: &Context, file: &str, ptx: &str) -> Result<Self> {
        let image = CString::new(ptx).map_err(|e| {
            let found = format!("a NUL at byte {}", e.nul_position());
            problem(DeviceProblem::Kernel, file, "the text of PTX", found)
        })?;
        let mut log = vec![0u8; 4096];
        // Numbers are given in the place of pointers, as the driver asks for.
        let mut keys = [CUjit_option::CU_JIT_ERROR_LOG_BUFFER, CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
        let mut raw = null_mut();
        let _entered = context.enter()?;
        // SAFETY: the image ends in NUL; keys and values are as many as it is told and of the kinds that they ask for; the
        // log's buffer is used only during the call, within its length.
        let code = unsafe {
            let (keys, values) = (keys.as_mut_ptr(), values.as_mut_ptr());
            cuModuleLoadDataEx(&mut raw, image.as_ptr().cast(), 2, keys, values)
        };
        code.check(|code| refused(context, file, ptx, code, &log))?;
        Ok(Self(Arc::new(Inner { context: context.clone(), file: file.to_owned(), raw })))
    }

    /// The kernel of that name, whose one parameter is a `#[repr(C)]` struct `P`, or of `()` none.
    ///
    /// An error if there is none of that name, or if the driver (from CUDA 12.4 on) knows its parameters to be others.
    pub fn function<P: Pod>(&self, name: &str) -> Result<Function<P>> {
        let what = || format!("kernel `{name}` of {}", self.0.file);
        let nul = |_| problem(DeviceProblem::Kernel, what(), "a name", "one with a NUL");
        let c_name = CString::new(name).map_err(nul)?;
        let _entered = self.0.context.enter()?;
        let mut raw = null_mut();
        // SAFETY: the module is live, the name ends in NUL; it writes one handle.
        unsafe { cuModuleGetFunction(&mut raw, self.0.raw, c_name.as_ptr()) }.check(|code| match code {
            Code::NOT_FOUND => problem(DeviceProblem::Kernel, what(), "that it is there", "no kernel of that name"),
            _ => problem(sort(code, DeviceProblem::Kernel), what(), "that it loads", code),
        })?;
        let parameter = |index| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is live; it writes two numbers. A driver that lacks it is asked nothing.
            let code = unsafe { cuFuncGetParamInfo(raw, index, &mut offset, &mut size) };
            (code, size)
        };
        // Past the last parameter the driver says that the index is not valid; a driver without the call, nothing of use.
        let sizes = match (parameter(0), parameter(1)) {
            ((Code::SUCCESS, size), (Code::INVALID_VALUE, _)) => Some(vec![size]),
            ((Code::SUCCESS, size), (Code::SUCCESS, second)) => Some(vec![size, second]),
            ((Code::INVALID_VALUE, _), _) => Some(vec![]),
            _ => None,
        };
        let wanted = if size_of::<P>() == 0 { vec![] } else { vec![size_of::<P>()] };
        match sizes {
            Some(sizes) if sizes != wanted => {
                let expected = format!("parameters of {wanted:?} bytes");
                Err(problem(DeviceProblem::Kernel, what(), expected, format!("{sizes:?}")))
            }
            _ => Ok(Function { module: self.clone(), name: name.to_owned(), raw, parameters: PhantomData }),
        }
    }
}

/// The error of PTX that the driver does not take.
fn refused(context: &Context, file: &str, ptx: &str, code: Code, log: &[u8]) -> Error {
    const SHOWN: usize = 1000;
    let (device, driver) = (context.device(), context.device().driver());
    let directive = |name: &str| {
        let line = ptx.lines().find_map(|line| line.trim().strip_prefix(name));
        line.map_or("not stated", |value| value.trim().trim_end_matches(';')).to_owned()
    };
    let (version, target) = (directive(".version"), directive(".target"));
    let log: Vec<u8> = log.iter().copied().take_while(|b| *b != 0).collect();
    let log = String::from_utf8_lossy(&log).split_whitespace().collect::<Vec<_>>().join(" ");
    let log: String = log.chars().take(SHOWN).collect();
    let said = if log.is_empty() { code.to_string() } else { format!("{code}: {log}") };
    let expected = match code {
        Code::UNSUPPORTED_PTX_VERSION => match driver_of(&version) {
            Some(needed) => format!("a driver for CUDA {needed} or newer, for PTX {version}"),
            None => format!("a newer driver, for PTX {version}"),
        },
        Code::INVALID_PTX => format!("PTX that the driver compiles (version {version}, target {target})"),
        Code::NO_BINARY_FOR_GPU => format!("a GPU that runs PTX for {target}"),
        Code::JIT_COMPILER_NOT_FOUND => "the driver's PTX compiler (libnvidia-ptxjitcompiler) beside it".to_owned(),
        Code::OUT_OF_MEMORY => "enough free memory for its code".to_owned(),
        _ => format!("that it loads (PTX version {version}, target {target})"),
    };
    let capability = device.compute_capability();
    let found =
        format!("{said}, by a driver for CUDA {driver} and {} (compute capability {capability})", device.name());
    problem(sort(code, DeviceProblem::Kernel), file, expected, found)
}

/// The CUDA that brought a version of PTX.
fn driver_of(ptx: &str) -> Option<DriverVersion> {
    let (major, minor) = ptx.split_once('.')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    let (major, minor) = match (major, minor) {
        (7, 0..=8) => (11, minor),
        (8, 0..=5) => (12, minor),
        // CUDA 12.6 brought none.
        (8, 6..=8) => (12, minor + 1),
        (9, 0..=9) => (13, minor),
        _ => return None,
    };
    Some(DriverVersion(1000 * major + 10 * minor))
}

/// How many threads run a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks, in three dimensions.
    pub grid: [u32; 3],
    /// Threads of a block, in three dimensions.
    pub block: [u32; 3],
    /// Bytes of shared memory of a block, beside those that the kernel names itself.
    pub shared_bytes: u32,
}

/// What the driver's compiler made of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionAttributes {
    /// Registers of a thread.
    pub registers: usize,
    /// Bytes of shared memory that the kernel names itself.
    pub shared_bytes: usize,
    /// Bytes of a thread's local memory: spilt registers and arrays.
    pub local_bytes: usize,
    /// The most threads a block.
    pub threads: usize,
}

/// A kernel with one parameter, `P`.
#[derive(Debug)]
pub struct Function<P: Pod> {
    module: Module,
    name: String,
    raw: CUfunction,
    parameters: PhantomData<fn(P)>,
}

// SAFETY: a function is a handle into a module that it keeps alive; the driver takes it from any thread.
unsafe impl<P: Pod> Send for Function<P> {}
// SAFETY: and from several at once.
unsafe impl<P: Pod> Sync for Function<P> {}

impl<P: Pod> Function<P> {
    /// What the driver's compiler made of it.
    pub fn attributes(&self) -> Result<FunctionAttributes> {
        let _entered = self.module.0.context.enter()?;
        let attribute = |attribute| {
            let mut value = 0;
            // SAFETY: the function is live; it writes one int.
            unsafe { cuFuncGetAttribute(&mut value, attribute, self.raw) }.check(failed("attribute of a kernel"))?;
            Ok::<_, Error>(usize::try_from(value).unwrap_or(0))
        };
        Ok(FunctionAttributes {
            registers: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?,
            shared_bytes: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?,
            local_bytes: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            threads: attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        })
    }

    /// Lets a launch ask for up to that much shared memory: without it, for 48 KiB.
    pub fn allow_shared_bytes(&self, bytes: u32) -> Result<()> {
        const MAX_DYNAMIC_SHARED_SIZE_BYTES: i32 = 8;
        let _entered = self.module.0.context.enter()?;
        let value = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the function is live.
        unsafe { cuFuncSetAttribute(self.raw, MAX_DYNAMIC_SHARED_SIZE_BYTES, value) }.check(|code| {
            problem(DeviceProblem::Launch, self.what(), format!("{bytes} bytes of shared memory a block"), code)
        })
    }

    /// How many blocks a multiprocessor runs at once.
    pub fn blocks_per_multiprocessor(&self, block: [u32; 3], shared_bytes: u32) -> Result<usize> {
        let _entered = self.module.0.context.enter()?;
        let threads = block.into_iter().fold(1, u32::saturating_mul);
        let (threads, mut blocks) = (i32::try_from(threads).unwrap_or(i32::MAX), 0);
        // SAFETY: the function is live; it writes one int.
        unsafe { cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, self.raw, threads, shared_bytes as usize) }
            .check(failed("occupancy of a kernel"))?;
        Ok(usize::try_from(blocks).unwrap_or(0))
    }

    /// Puts the kernel into a stream. Errors of its threads come to light in a later call.
    ///
    /// # Safety
    /// The kernel's one parameter is a `P` (of `()`: it has none). With these parameters it stays within memory of the
    /// GPU that stays where it is until it has run, and races with nothing else that the GPU does meanwhile. If a graph
    /// is being recorded, that holds for every launch of the graph, and this function outlives it.
    pub unsafe fn launch(&self, stream: &Stream, launch: Launch, parameters: &P) -> Result<()> {
        let ([x, y, z], [u, v, w]) = (launch.grid, launch.block);
        let mut pointers = [from_ref(parameters).cast_mut().cast::<c_void>()];
        let pointers = if size_of::<P>() == 0 { null_mut() } else { pointers.as_mut_ptr() };
        let _entered = stream.context().enter()?;
        // SAFETY: function and stream are live. The driver copies the parameters before it returns. The rest is the
        // caller's duty.
        unsafe { cuLaunchKernel(self.raw, x, y, z, u, v, w, launch.shared_bytes, stream.raw(), pointers, null_mut()) }
            .check(|code| {
                let expected = format!(
                    "a launch of {x} x {y} x {z} blocks of {u} x {v} x {w} threads, {} bytes shared",
                    launch.shared_bytes
                );
                problem(sort(code, DeviceProblem::Launch), self.what(), expected, code)
            })
    }

    fn what(&self) -> String {
        format!("kernel `{}` of {}", self.name, self.module.0.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ptx_names_the_driver_it_needs() {
        let needed = |ptx| driver_of(ptx).map(|v| v.to_string());
        for (ptx, cuda) in [("7.8", "11.8"), ("8.0", "12.0"), ("8.5", "12.5"), ("8.7", "12.8"), ("9.0", "13.0")] {
            assert_eq!(needed(ptx).as_deref(), Some(cuda));
        }
        assert!(["", "8", "12.1", "8.x", "not stated"].into_iter().all(|ptx| needed(ptx).is_none()));
        assert_eq!(driver_of("8.0"), Some(DriverVersion::NEEDED));
    }
}
