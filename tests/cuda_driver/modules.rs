//! PTX that the driver takes, and PTX that it does not.

use crate::fake_driver::{LAB, count, run, run_clean};
use crate::work::{self, Add, add, blocks, context, with_kernels};
use discon::cuda::{DeviceBuffer, DevicePtr, Module, Stream};
use discon::{DeviceProblem, Error};

/// The error of PTX that is refused. Afterwards other PTX runs.
#[track_caller]
fn refused(ptx: &str) -> (DeviceProblem, String) {
    let context = context();
    let error = Module::load(&context, "linear.ptx", ptx).unwrap_err();
    let Error::Device { problem, .. } = error else { panic!("{error:?}") };
    assert_eq!(count("modules"), 0);
    (problem, error.to_string())
}

const BY: &str = "by a driver for CUDA 12.4 and Fake GPU 0 (compute capability 9.0)";

#[test]
fn ptx_newer_than_the_driver() {
    run_clean(&with_kernels(&[]), || {
        let (problem, text) = refused(&LAB.replace(".version 8.0", ".version 9.0"));
        let start = "linear.ptx: expected a driver for CUDA 13.0 or newer, for PTX 9.0, \
                     found CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222): ptxas application ptx input, fatal : Unsupported .version, ";
        assert_eq!((problem, text), (DeviceProblem::Kernel, format!("{start}{BY}")));
        let context = context();
        work::computes(&context, &Stream::new(&context).unwrap());
    });
}

#[test]
fn ptx_for_another_gpu() {
    run_clean(&[], || {
        for target in ["sm_100", "sm_80a"] {
            let (problem, text) = refused(&LAB.replace("sm_80", target));
            let start = format!(
                "linear.ptx: expected a GPU that runs PTX for {target}, found CUDA_ERROR_NO_BINARY_FOR_GPU (209), "
            );
            assert_eq!((problem, text), (DeviceProblem::Kernel, start + BY));
        }
        Module::load(&context(), "linear.ptx", &LAB.replace("sm_80", "sm_90a")).unwrap();
    });
}

#[test]
fn what_is_no_ptx() {
    run_clean(&[], || {
        for ptx in ["", "no PTX at all", ".version", "\u{fffd}.version 8.x"] {
            let (problem, text) = refused(ptx);
            assert_eq!(problem, DeviceProblem::Kernel);
            assert!(text.contains("linear.ptx: expected PTX that the driver compiles (version "), "{text}");
            assert!(text.contains("CUDA_ERROR_INVALID_PTX (218): ptxas fatal : Missing .version"), "{text}");
        }
        let (problem, text) = refused("a\0b");
        assert_eq!(
            (problem, text.as_str()),
            (DeviceProblem::Kernel, "linear.ptx: expected the text of PTX, found a NUL at byte 1")
        );
    });
}

#[test]
fn a_driver_without_its_compiler() {
    run_clean(&[("FAKE_CUDA_REFUSE_PTX", "221")], || {
        let (problem, text) = refused(LAB);
        let start = "linear.ptx: expected the driver's PTX compiler (libnvidia-ptxjitcompiler) beside it, found CUDA_ERROR_JIT_COMPILER_NOT_FOUND (221)";
        assert!(problem == DeviceProblem::Kernel && text.starts_with(start), "{problem:?}: {text}");
    });
}

#[test]
fn no_memory_for_the_code() {
    run_clean(&[("FAKE_CUDA_REFUSE_PTX", "2")], || {
        let (problem, text) = refused(LAB);
        let start = "linear.ptx: expected enough free memory for its code, found CUDA_ERROR_OUT_OF_MEMORY (2)";
        assert!(problem == DeviceProblem::Memory && text.starts_with(start), "{problem:?}: {text}");
    });
}

/// A code that neither cust nor this crate has heard of.
#[test]
fn codes_of_drivers_to_come() {
    run_clean(&[("FAKE_CUDA_REFUSE_PTX", "4711")], || {
        let (problem, text) = refused(LAB);
        let start =
            "linear.ptx: expected that it loads (PTX version 8.0, target sm_80), found an unknown error (4711): ";
        assert!(problem == DeviceProblem::Kernel && text.starts_with(start), "{problem:?}: {text}");
    });
}

#[test]
fn kernels_are_found_by_name_and_parameters() {
    run_clean(&with_kernels(&[]), || {
        let context = context();
        let module = Module::load(&context, "lab.ptx", LAB).unwrap();
        let told = |error: Error| {
            assert!(matches!(error, Error::Device { problem: DeviceProblem::Kernel, .. }), "{error:?}");
            error.to_string()
        };
        let absent = told(module.function::<Add>("subtract").unwrap_err());
        assert_eq!(absent, "kernel `subtract` of lab.ptx: expected that it is there, found no kernel of that name");
        told(module.function::<Add>("ad").unwrap_err());
        told(module.function::<Add>("a\0d").unwrap_err());
        let other = told(module.function::<DevicePtr>("add").unwrap_err());
        assert_eq!(other, "kernel `add` of lab.ptx: expected parameters of [8] bytes, found [16]");
        assert_eq!(told(module.function::<()>("add").unwrap_err()), other.replace("[8]", "[]"));
        told(module.function::<Add>("nothing").unwrap_err());

        let stream = Stream::new(&context).unwrap();
        let nothing = module.function::<()>("nothing").unwrap();
        // The kernels keep their module.
        drop(module);
        // SAFETY: it does nothing.
        unsafe { nothing.launch(&stream, blocks(1), &()) }.unwrap();
        let attributes = nothing.attributes().unwrap();
        assert_eq!((attributes.threads, attributes.local_bytes), (32, 0));
        assert_eq!(nothing.blocks_per_multiprocessor([32, 1, 1], 0).unwrap(), 32);
        assert_eq!(nothing.blocks_per_multiprocessor([1024, 1, 1], 100 << 10).unwrap(), 2);
    });
}

/// Drivers before CUDA 12.4 do not tell what parameters a kernel has.
#[test]
fn drivers_that_tell_no_parameters() {
    run_clean(&with_kernels(&[("FAKE_CUDA_VERSION", "12000")]), || {
        let context = context();
        Module::load(&context, "lab.ptx", LAB).unwrap().function::<DevicePtr>("add").unwrap();
        work::computes(&context, &Stream::new(&context).unwrap());
    });
}

#[test]
fn launches_that_cannot_be() {
    let counts = run(&with_kernels(&[]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let add = add(&context);
        let values = DeviceBuffer::from_slice(&stream, "numbers", &[0.0; 10]).unwrap();
        let parameters = Add { values: values.ptr(), count: 10, amount: 1.0 };
        let launch = blocks(10);
        let mut others = [launch; 4];
        others[0].grid = [1, 0, 1];
        others[1].block = [64, 1, 1];
        others[2].shared_bytes = (48 << 10) + 4;
        others[3].grid = [1, 70_000, 1];
        for other in others {
            // SAFETY: none is done.
            let error = unsafe { add.launch(&stream, other, &parameters) }.unwrap_err();
            assert!(matches!(error, Error::Device { problem: DeviceProblem::Launch, .. }), "{error:?}");
            assert!(error.to_string().starts_with("kernel `add` of lab.ptx: expected a launch of 1 x "), "{error}");
        }
        assert!(add.allow_shared_bytes(300 << 10).is_err());
        add.allow_shared_bytes(100 << 10).unwrap();
        // SAFETY: within the values.
        unsafe { add.launch(&stream, others[2], &parameters) }.unwrap();
        assert_eq!(work::contents(&stream, &values), [1.0; 10]);
    });
    if let Some(counts) = counts {
        assert_eq!((counts.of("misuses"), counts.of("launches")), (4, 1), "{}", counts.first_misuse());
    }
}

/// The driver of these tests finds what a kernel writes beside its memory.
#[test]
fn strays_are_found() {
    let counts = run(&with_kernels(&[]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let values = DeviceBuffer::from_slice(&stream, "numbers", &[0.0f32; 10]).unwrap();
        let stray = Module::load(&context, "lab.ptx", LAB).unwrap().function::<Add>("stray").unwrap();
        let parameters = Add { values: values.ptr(), count: 10, amount: 1.0 };
        // SAFETY: it writes into the border that this driver keeps around all memory.
        unsafe { stray.launch(&stream, blocks(1), &parameters) }.unwrap();
    });
    if let Some(counts) = counts {
        assert_eq!(counts.of("misuses"), 1, "{counts:?}");
        assert_eq!(counts.first_misuse(), "an allocation of 40 bytes was written outside of");
    }
}
