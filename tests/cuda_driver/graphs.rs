//! Recording, launching, and what goes wrong while a stream records.

use crate::fake_driver::{run, run_clean};
use crate::work::{self, Add, add, blocks, contents, context, start_adding, with_kernels};
use discon::cuda::{DeviceBuffer, Graph, Stream};
use discon::{DeviceProblem, Error};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;

#[test]
fn recorded_work_is_done_when_it_is_launched() {
    run_clean(&with_kernels(&[]), || {
        let context = context();
        work::replays(&context, &Stream::new(&context).unwrap());
    });
}

/// A stream that failed to record works again, and so does the next recording.
#[track_caller]
fn works(stream: &Stream) {
    work::replays(stream.context(), stream);
}

#[test]
fn an_error_while_recording_is_the_one_that_is_told() {
    run_clean(&with_kernels(&[]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let error = Graph::record(&stream, |_| Err(Error::input("this", "that", "something else"))).unwrap_err();
        assert_eq!(error.to_string(), "this: expected that, found something else");
        works(&stream);
    });
}

#[test]
fn a_panic_while_recording_ends_the_recording() {
    run_clean(&with_kernels(&[]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let recorded = catch_unwind(AssertUnwindSafe(|| Graph::record(&stream, |_| panic!("on purpose"))));
        assert!(recorded.is_err());
        works(&stream);
    });
}

/// What a GPU is waited for in cannot be recorded.
#[test]
fn waiting_while_recording_is_an_error() {
    let counts = run(&with_kernels(&[]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let mut values = DeviceBuffer::from_slice(&stream, "numbers", &[1.0; 10]).unwrap();
        let code = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)";
        let told = |recorded: discon::Result<Graph>| {
            let error = recorded.unwrap_err();
            assert!(matches!(error, Error::Device { problem: DeviceProblem::Call, .. }), "{error:?}");
            assert!(error.to_string().ends_with(code), "{error}");
        };
        told(Graph::record(&stream, Stream::synchronize));
        works(&stream);
        told(Graph::record(&stream, |stream| values.write(stream, 0, &[2.0])));
        works(&stream);
        told(Graph::record(&stream, |stream| DeviceBuffer::<f32>::new(stream.context(), "more", 1).map(drop)));
        works(&stream);
        // What was wrong is found in the end also where nobody looked at it in between.
        let error = Graph::record(&stream, |stream| {
            let _ = stream.synchronize();
            Ok(())
        });
        let error = error.unwrap_err().to_string();
        assert_eq!(error, "recording a graph: expected success, found CUDA_ERROR_STREAM_CAPTURE_INVALIDATED (901)");
        works(&stream);
        assert_eq!(contents(&stream, &values), [1.0; 10]);
    });
    if let Some(counts) = counts {
        assert_eq!(counts.of("misuses"), 4, "{}", counts.first_misuse());
        assert_eq!(counts.of("left_behind") + counts.of("contexts"), 0);
    }
}

#[test]
fn the_default_stream_cannot_record() {
    run(&with_kernels(&[]), || {
        let context = context();
        // SAFETY: null is the default stream, which is always there.
        let stream = unsafe { Stream::from_raw(&context, null_mut()) };
        let error = Graph::record(&stream, |_| Ok(())).unwrap_err().to_string();
        assert!(error.ends_with("found CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)"), "{error}");
        work::computes(&context, &stream);
    });
}

/// Recording and launching keep what kernels were given, not what the memory they were given it in holds later.
#[test]
fn parameters_are_copied() {
    run_clean(&with_kernels(&[("FAKE_CUDA_LAZY", "1")]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let add = add(&context);
        let values = DeviceBuffer::from_slice(&stream, "numbers", &[0.0; 33]).unwrap();
        let mut parameters = Add { values: values.ptr(), count: 33, amount: 1.0 };
        let graph = Graph::record(&stream, |stream| {
            // SAFETY: within the values, which outlive the graph.
            unsafe { add.launch(stream, blocks(33), &parameters) }
        });
        let graph = graph.unwrap();
        // SAFETY: as above.
        unsafe { add.launch(&stream, blocks(33), &parameters) }.unwrap();
        parameters.amount = 100.0;
        graph.launch(&stream).unwrap();
        start_adding(&add, &stream, &values, 0.25);
        assert_eq!((contents(&stream, &values), parameters.amount), (vec![2.25; 33], 100.0));
    });
}
