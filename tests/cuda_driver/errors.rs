//! What goes wrong before anything runs, and when a kernel does.

use crate::fake_driver::{DRIVER, run_clean};
use crate::work::{self, add, blocks, contents, context, start_adding, with_kernels};
use discon::cuda::{Context, Device, DeviceBuffer, Event, Graph, Module, Stream};
use discon::{DeviceProblem, Error, ErrorKind};

/// The sort of trouble, and the text.
#[track_caller]
fn told<T>(result: discon::Result<T>) -> (DeviceProblem, String) {
    match result.map(drop).unwrap_err() {
        error @ Error::Device { problem, .. } => {
            assert_eq!(error.kind(), ErrorKind::Device);
            (problem, error.to_string())
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn without_a_driver_every_call_says_so() {
    run_clean(&[], || {
        // SAFETY: this process has no other thread that reads the environment yet.
        unsafe { std::env::set_var(DRIVER, "/nowhere/libcuda.so.1") };
        for _ in 0..2 {
            let (problem, text) = told(Device::all());
            assert_eq!(problem, DeviceProblem::NoDriver);
            let start =
                "NVIDIA driver: expected the library /nowhere/libcuda.so.1 that DISCON_CUDA_DRIVER names, found none: ";
            assert!(text.starts_with(start) && text.contains("cannot open shared object file"), "{text}");
        }
        assert_eq!(told(Device::open(0)).0, DeviceProblem::NoDriver);
        // SAFETY: null is refused.
        assert_eq!(told(unsafe { Context::from_raw(std::ptr::null_mut()) }).0, DeviceProblem::NoDriver);
        // SAFETY: none is current.
        assert_eq!(told(unsafe { Context::current() }).0, DeviceProblem::NoDriver);
        // The report of a driver that was not loaded.
        let zeros = "misuses contexts streams events buffers bytes modules graphs left_behind";
        let zeros: String = zeros.split(' ').map(|name| format!("{name} 0\n")).collect();
        std::fs::write(std::env::var_os("FAKE_CUDA_REPORT").unwrap(), zeros + "first_misuse \n").unwrap();
    });
}

#[test]
fn without_a_gpu() {
    run_clean(&[("FAKE_CUDA_DEVICES", "0")], || {
        let none = "NVIDIA GPU: expected one at least, found none that the driver shows this process";
        assert_eq!(told(Device::all()), (DeviceProblem::NoDevice, none.to_owned()));
    });
}

#[test]
fn an_old_driver() {
    run_clean(&[("FAKE_CUDA_VERSION", "11080")], || {
        let old = "NVIDIA driver: expected one for CUDA 12.0 or newer, found one for CUDA 11.8";
        assert_eq!(told(Device::all()), (DeviceProblem::OldDriver, old.to_owned()));
    });
}

#[test]
fn the_toolkits_stand_in() {
    run_clean(&[("FAKE_CUDA_FAIL_INIT", "34")], || {
        let text =
            "NVIDIA driver: expected a driver, found the toolkit's stand-in for one: CUDA_ERROR_STUB_LIBRARY (34)";
        assert_eq!(told(Device::all()), (DeviceProblem::NoDriver, text.to_owned()));
    });
}

#[test]
fn a_driver_that_does_not_start() {
    run_clean(&[("FAKE_CUDA_FAIL_INIT", "803")], || {
        let text = "NVIDIA driver: expected that it starts, found CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)";
        assert_eq!(told(Device::all()), (DeviceProblem::Call, text.to_owned()));
    });
}

#[test]
fn a_gpu_of_no_such_number() {
    run_clean(&[("FAKE_CUDA_DEVICES", "2")], || {
        assert_eq!(Device::open(1).unwrap().name(), "Fake GPU 1");
        let error = Device::open(2).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Request, "GPU: expected a number below 2, found 2")
        );
    });
}

#[test]
fn two_gpus_are_two() {
    run_clean(&with_kernels(&[("FAKE_CUDA_DEVICES", "2"), ("FAKE_CUDA_MEMORY", "10000")]), || {
        let contexts =
            Device::all().unwrap().iter().map(|device| Context::primary(device).unwrap()).collect::<Vec<_>>();
        let full = DeviceBuffer::<u8>::new(&contexts[0], "all of it", 10_000).unwrap();
        work::computes(&contexts[1], &Stream::new(&contexts[1]).unwrap());
        assert_eq!([contexts[0].memory().unwrap().free, contexts[1].memory().unwrap().free], [0, 10_000]);
        drop(full);
    });
}

#[test]
fn a_gpu_that_another_process_has() {
    run_clean(&[("FAKE_CUDA_FAIL_CONTEXT", "46")], || {
        let text = "a context on Fake GPU 0: expected that the GPU takes this process, found CUDA_ERROR_DEVICE_UNAVAILABLE (46)";
        assert_eq!(told(Context::primary(&Device::open(0).unwrap())), (DeviceProblem::Call, text.to_owned()));
    });
}

#[test]
fn a_gpu_that_is_full() {
    run_clean(&[("FAKE_CUDA_FAIL_CONTEXT", "2")], || {
        let text = "a context on Fake GPU 0: expected enough free memory, found CUDA_ERROR_OUT_OF_MEMORY (2)";
        assert_eq!(told(Context::primary(&Device::open(0).unwrap())), (DeviceProblem::Memory, text.to_owned()));
    });
}

/// A kernel that reads where it may not spoils its context, and nothing else: one made after it works.
#[test]
fn a_kernel_that_fails_is_told_by_the_next_call() {
    run_clean(&with_kernels(&[("FAKE_CUDA_FAIL_LAUNCH", "2")]), || {
        {
            let context = context();
            let stream = Stream::new(&context).unwrap();
            let mut values = DeviceBuffer::from_slice(&stream, "numbers", &[0.0; 10]).unwrap();
            let (add, event) = (add(&context), Event::new(&context).unwrap());
            let graph = Graph::record(&stream, |stream| {
                start_adding(&add, stream, &values, 1.0);
                Ok(())
            });
            let graph = graph.unwrap();
            graph.launch(&stream).unwrap();
            assert_eq!(contents(&stream, &values), [1.0; 10]);
            // The launch itself goes well.
            graph.launch(&stream).unwrap();
            let code = "CUDA_ERROR_ILLEGAL_ADDRESS (700)";
            let parameters = work::Add { values: values.ptr(), count: 10, amount: 1.0 };
            // SAFETY: within the values.
            let launched = unsafe { add.launch(&stream, blocks(10), &parameters) };
            let after = [
                stream.synchronize(),
                stream.is_done().map(drop),
                values.write(&stream, 0, &[1.0]),
                values.fill_zeros(&stream),
                launched,
                graph.launch(&stream),
                event.record(&stream),
                context.memory().map(drop),
                Module::load(&context, "lab.ptx", crate::fake_driver::LAB).map(drop),
                DeviceBuffer::<f32>::new(&context, "more", 1).map(drop),
                Stream::new(&context).map(drop),
            ];
            for (i, after) in after.into_iter().enumerate() {
                let (problem, text) = told(after);
                assert!(problem == DeviceProblem::Launch && text.contains(code), "call {i}: {problem:?}: {text}");
            }
        }
        let context = context();
        work::computes(&context, &Stream::new(&context).unwrap());
    });
}
