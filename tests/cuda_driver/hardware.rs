//! What of these tests can run on a GPU, on one.

use crate::work;
use discon::cuda::{Context, Device, Stream};

/// The first GPU of this machine. Where there is none, that is said aloud.
fn gpu() -> Option<Context> {
    let found = Device::all().and_then(|devices| {
        let device = &devices[0];
        eprintln!("on {} (driver for CUDA {})", device.name(), device.driver());
        Context::primary(device)
    });
    match found {
        Ok(context) => Some(context),
        Err(why) => {
            eprintln!("NOT TESTED on a GPU: {why}");
            None
        }
    }
}

#[test]
fn a_gpu_does_all_that_the_fake_one_does() {
    let Some(context) = gpu() else { return };
    let stream = Stream::new(&context).unwrap();
    work::copies(&context, &stream);
    work::computes(&context, &stream);
    work::replays(&context, &stream);
    work::events(&context);
    work::threads(&context);
    crate::foreign::works_in_a_hosts_context();
    let memory = context.memory().unwrap();
    assert!(memory.free <= memory.total && memory.total <= context.device().memory(), "{memory:?}");
    let attributes = work::add(&context).attributes().unwrap();
    assert!(attributes.registers > 0 && attributes.local_bytes == 0 && attributes.threads == 32, "{attributes:?}");
    assert!(context.multiprocessors() > 0);
}
