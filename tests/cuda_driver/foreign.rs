//! A host program with a context and streams of its own.

use crate::fake_driver::{DRIVER, count, run, run_clean};
use crate::work::{self, context, with_kernels};
use discon::cuda::{Context, Device, Gpu, Stream};
use discon::{Model, Outputs, Settings};
use libloading::Library;
use std::ffi::{OsString, c_int, c_void};
use std::ptr::null_mut;

type Handle = *mut c_void;

/// The host: it calls the driver without this crate.
struct Host(Library);

impl Host {
    fn new() -> Self {
        let name = std::env::var_os(DRIVER).unwrap_or_else(|| OsString::from("libcuda.so.1"));
        // SAFETY: the driver, which is loaded already.
        Self(unsafe { Library::new(name) }.unwrap())
    }

    fn context(&self) -> Handle {
        let mut context = null_mut();
        // SAFETY: the function's type is the manual's.
        let code = unsafe {
            let create =
                self.0.get::<unsafe extern "C" fn(*mut Handle, u32, c_int) -> c_int>(b"cuCtxCreate_v2\0").unwrap();
            create(&mut context, 0, 0)
        };
        assert_eq!(code, 0);
        context
    }

    /// A stream; with flags 0 one that waits for the default stream, with 1 one that does not.
    fn stream(&self, flags: u32) -> Handle {
        let mut stream = null_mut();
        // SAFETY: as above.
        let code = unsafe {
            let create =
                self.0.get::<unsafe extern "C" fn(*mut Handle, u32, c_int) -> c_int>(b"cuStreamCreateWithPriority\0");
            create.unwrap()(&mut stream, flags, 0)
        };
        assert_eq!(code, 0);
        stream
    }

    /// What is current in this thread.
    fn current(&self) -> Handle {
        let mut context = null_mut();
        // SAFETY: as above.
        let code = unsafe {
            self.0.get::<unsafe extern "C" fn(*mut Handle) -> c_int>(b"cuCtxGetCurrent\0").unwrap()(&mut context)
        };
        assert_eq!(code, 0);
        context
    }

    /// Calls a function that takes one handle.
    fn call(&self, name: &str, handle: Handle) -> c_int {
        // SAFETY: as above; those of these tests take one pointer.
        unsafe { self.0.get::<unsafe extern "C" fn(Handle) -> c_int>(name.as_bytes()).unwrap()(handle) }
    }
}

/// Work in a host's context and stream, in this thread and in another where nothing is current, leaves both as they were.
pub(crate) fn works_in_a_hosts_context() {
    Device::all().unwrap();
    let host = Host::new();
    let (raw, stream) = (host.context(), host.stream(1));
    {
        // SAFETY: both live until the end of this function.
        let context = unsafe { Context::from_raw(raw) }.unwrap();
        // SAFETY: as above.
        let stream = unsafe { Stream::from_raw(&context, stream) };
        assert_eq!((context.as_raw(), context.device().ordinal(), host.current()), (raw, 0, raw));
        work::computes(&context, &stream);
        work::replays(&context, &stream);
        assert_eq!(host.current(), raw);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                work::computes(&context, &Stream::new(&context).unwrap());
                work::threads(&context);
                assert!(host.current().is_null());
                // SAFETY: none is current.
                assert!(unsafe { Context::current() }.unwrap().is_none());
            });
        });
        // SAFETY: the host's context is current and lives on.
        let current = unsafe { Context::current() }.unwrap().unwrap();
        assert_eq!(current.as_raw(), raw);
        // Another context beside it.
        let own = Context::primary(context.device()).unwrap();
        assert_ne!(own.as_raw(), raw);
        work::computes(&own, &Stream::new(&own).unwrap());
        assert_eq!(host.current(), raw);
    }
    // The host goes on with what is its own.
    assert_eq!(host.current(), raw);
    assert_eq!(host.call("cuStreamSynchronize\0", stream), 0);
    assert_eq!(host.call("cuStreamDestroy_v2\0", stream), 0);
    assert_eq!(host.call("cuCtxDestroy_v2\0", raw), 0);
    assert!(host.current().is_null());
}

#[test]
fn a_hosts_context_and_stream_are_left_as_they_were() {
    run_clean(&with_kernels(&[]), || {
        works_in_a_hosts_context();
        assert_eq!(["contexts", "streams", "current"].map(count), [0; 3]);
    });
}

/// While a stream that waits for the default one records, nobody in the process could use that one.
#[test]
fn a_hosts_blocking_stream_does_not_record() {
    let counts = run(&[], || {
        Device::all().unwrap();
        let host = Host::new();
        let (raw, stream) = (host.context(), host.stream(0));
        {
            // SAFETY: both live until the end of this test.
            let gpu = unsafe { Gpu::in_context(Context::from_raw(raw).unwrap(), None).unwrap().with_stream(stream) };
            let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
            let settings = Settings { rounds: 2, steps: 2, ..model.settings() };
            let mut session = model.session(gpu.unwrap(), 1, &settings, Outputs::IMAGE).unwrap();
            session.begin(&[1], &[2]).unwrap();
            session.run(|_| ()).unwrap();
        }
        assert_eq!(host.call("cuStreamDestroy_v2\0", stream), 0);
        assert_eq!(host.call("cuCtxDestroy_v2\0", raw), 0);
    });
    if let Some(counts) = counts {
        counts.clean();
        assert_eq!(counts.of("blocking_captures"), 0);
        assert!(counts.of("graph_launches") > 0);
    }
}

/// What a call needs to be current it puts back also when it fails.
#[test]
fn what_is_current_is_put_back_after_errors() {
    run_clean(&[("FAKE_CUDA_FAIL_ALLOCATION", "1"), ("FAKE_CUDA_DEVICES", "2")], || {
        Device::all().unwrap();
        let host = Host::new();
        let raw = host.context();
        let context = context();
        assert!(discon::cuda::DeviceBuffer::<f32>::new(&context, "numbers", 1).is_err());
        assert!(discon::cuda::Module::load(&context, "no.ptx", "no PTX").is_err());
        assert_eq!((host.current(), count("current")), (raw, 1));
        drop(context);
        assert_eq!((host.current(), count("current")), (raw, 1));
        assert_eq!(host.call("cuCtxDestroy_v2\0", raw), 0);
    });
}

#[test]
fn null_is_no_context() {
    run_clean(&[], || {
        // SAFETY: null is refused.
        let error = unsafe { Context::from_raw(null_mut()) }.unwrap_err();
        assert_eq!(error.to_string(), "context: expected a CUcontext, found null");
    });
}
