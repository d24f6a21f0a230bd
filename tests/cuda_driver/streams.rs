//! Streams and threads.

use crate::fake_driver::{count, run_clean};
use crate::work::{self, context, with_kernels};
use discon::cuda::{Event, Stream};

#[test]
fn events_order_streams() {
    run_clean(&with_kernels(&[]), || work::events(&context()));
}

#[test]
fn two_threads_work_in_a_stream_each() {
    run_clean(&with_kernels(&[]), || {
        work::threads(&context());
        assert_eq!(count("current"), 0);
    });
}

#[test]
fn a_time_that_is_not_known_yet_is_an_error() {
    run_clean(&[("FAKE_CUDA_LAZY", "1")], || {
        let context = context();
        let stream = Stream::new(&context).unwrap();
        let (a, b) = (Event::new(&context).unwrap(), Event::new(&context).unwrap());
        assert!(a.is_done().unwrap(), "an event that is nowhere is not waited for");
        a.record(&stream).unwrap();
        b.record(&stream).unwrap();
        let error = b.since(&a).unwrap_err().to_string();
        assert_eq!(error, "time between two events: expected success, found CUDA_ERROR_NOT_READY (600)");
        b.synchronize().unwrap();
        b.since(&a).unwrap();
    });
}
