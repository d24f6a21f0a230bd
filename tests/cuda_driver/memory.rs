//! Memory of a GPU: what there is of it, what becomes of it.

use crate::fake_driver::{count, run, run_clean};
use crate::work::{self, add, contents, context, start_adding, with_kernels};
use discon::cuda::{DeviceBuffer, Event, Graph, Stream};
use discon::{DeviceProblem, Error, ErrorKind};

#[test]
fn copies_arrive() {
    run_clean(&[], || {
        let context = context();
        work::copies(&context, &Stream::new(&context).unwrap());
    });
}

#[test]
fn kernels_compute() {
    run_clean(&with_kernels(&[]), || {
        let context = context();
        work::computes(&context, &Stream::new(&context).unwrap());
    });
}

/// Where nobody waits, nothing is done yet.
#[test]
fn results_are_waited_for() {
    run_clean(&with_kernels(&[("FAKE_CUDA_LAZY", "1")]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        work::copies(&context, &stream);
        work::computes(&context, &stream);
        work::replays(&context, &stream);
        work::events(&context);
        work::threads(&context);
    });
}

/// The driver of these tests does what a GPU may: read the host's memory late.
#[test]
fn the_lazy_driver_copies_when_it_is_waited_for() {
    run_clean(&[("FAKE_CUDA_LAZY", "1")], || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let buffer = DeviceBuffer::<f32>::new(&context, "numbers", 2).unwrap();
        let mut values = [1.0, 2.0];
        // SAFETY: all live until it is waited for. They do change, which is what is tested.
        unsafe { buffer.start_write(&stream, 0, &values) }.unwrap();
        values = [3.0, 4.0];
        assert!(!stream.is_done().unwrap() || contents(&stream, &buffer) == values);
        let mut read = [0.0; 2];
        // SAFETY: as above.
        unsafe { buffer.start_read(&stream, 0, &mut read) }.unwrap();
        assert_eq!(read, [0.0; 2]);
        stream.synchronize().unwrap();
        assert_eq!(read, values);
    });
}

#[test]
fn places_outside_are_refused() {
    run_clean(&[], || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let mut buffer = DeviceBuffer::<f32>::zeroed(&stream, "numbers", 4).unwrap();
        let other = DeviceBuffer::<f32>::zeroed(&stream, "numbers", 8).unwrap();
        let mut read = [1.0; 3];
        // SAFETY: nothing is done.
        let copies =
            unsafe { [buffer.copy_from(&stream, 0, &other, 0, 5), buffer.copy_from(&stream, 0, &other, 6, 3)] };
        let others = [buffer.write(&stream, 2, &[0.0; 3]), buffer.read(&stream, usize::MAX, &mut read)];
        for refused in copies.into_iter().chain(others) {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Request, "{error}");
            assert!(error.to_string().starts_with("copy: expected places within "), "{error}");
        }
        buffer.write(&stream, 1, &read).unwrap();
        assert_eq!(contents(&stream, &buffer), [0.0, 1.0, 1.0, 1.0]);
    });
}

#[test]
fn out_of_memory_is_an_error_and_the_next_call_works() {
    run_clean(&with_kernels(&[("FAKE_CUDA_MEMORY", "100000")]), || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let first = DeviceBuffer::<f32>::zeroed(&stream, "the arena", 10_000).unwrap();
        let error = DeviceBuffer::<f32>::new(&context, "the weights", 20_000).unwrap_err();
        assert!(matches!(error, Error::Device { problem: DeviceProblem::Memory, .. }), "{error:?}");
        let text = "the weights: expected 80000 bytes free on Fake GPU 0, found 60000 bytes free of 100000";
        assert_eq!(error.to_string(), text);
        let error = DeviceBuffer::<f32>::new(&context, "the weights", usize::MAX).unwrap_err();
        assert!(matches!(error, Error::Device { problem: DeviceProblem::Memory, .. }), "{error:?}");
        work::computes(&context, &stream);
        drop(first);
        DeviceBuffer::<f32>::new(&context, "the weights", 20_000).unwrap();
        let memory = context.memory().unwrap();
        assert_eq!((memory.free, memory.total), (100_000, 100_000));
    });
}

/// To load, to run and to let go, again and again, takes no more than once.
#[test]
fn nothing_is_left_after_any_turn() {
    let counts = run(&with_kernels(&[]), || {
        let names =
            ["contexts", "streams", "events", "buffers", "bytes", "modules", "graphs", "current", "left_behind"];
        for _ in 0..50 {
            let context = context();
            let stream = Stream::new(&context).unwrap();
            let add = add(&context);
            let values = DeviceBuffer::from_slice(&stream, "numbers", &[0.0; 100]).unwrap();
            let event = Event::new(&context).unwrap();
            let graph = Graph::record(&stream, |stream| {
                start_adding(&add, stream, &values, 1.0);
                Ok(())
            });
            let graph = graph.unwrap();
            graph.launch(&stream).unwrap();
            event.record(&stream).unwrap();
            assert_eq!(contents(&stream, &values), [1.0; 100]);
            assert_eq!(names.map(count), [1, 1, 1, 1, 400, 1, 1, 0, 0]);
            // Whatever goes first.
            drop((context, add, stream, values, graph, event));
            assert_eq!(names.map(count), [0; 9]);
        }
    });
    if let Some(counts) = counts {
        counts.clean();
        assert_eq!([counts.of("modules_loaded"), counts.of("peak_bytes"), counts.of("kernels_run")], [50, 400, 50]);
    }
}
