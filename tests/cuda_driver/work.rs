//! Things to do on a GPU, be it real or not. Each checks what comes of it.

use crate::fake_driver::{LAB, kernels};
use bytemuck::{Pod, Zeroable};
use discon::cuda::{Context, Device, DeviceBuffer, DevicePtr, Event, Function, Graph, Launch, Module, Stream};

/// What the kernels `add` and `stray` of `lab.ptx` take.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Add {
    pub values: DevicePtr,
    pub count: u32,
    pub amount: f32,
}

/// The settings with which the fake driver runs the kernels of `lab.ptx`, and others.
pub(crate) fn with_kernels<'a>(others: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let folder = kernels().map(|folder| folder.to_str().unwrap()).unwrap_or_default();
    [&[("FAKE_CUDA_KERNELS", folder)], others].concat()
}

/// The first GPU.
pub(crate) fn context() -> Context {
    Context::primary(&Device::open(0).unwrap()).unwrap()
}

/// The kernel `add`.
pub(crate) fn add(context: &Context) -> Function<Add> {
    Module::load(context, "lab.ptx", LAB).unwrap().function("add").unwrap()
}

/// As many blocks of the kernels of `lab.ptx` as `count` values need.
pub(crate) fn blocks(count: usize) -> Launch {
    Launch { grid: [count.div_ceil(32) as u32, 1, 1], block: [32, 1, 1], shared_bytes: 0 }
}

/// Adds `amount` to all of `values`, some time.
pub(crate) fn start_adding(function: &Function<Add>, stream: &Stream, values: &DeviceBuffer<f32>, amount: f32) {
    let parameters = Add { values: values.ptr(), count: values.len() as u32, amount };
    // SAFETY: the kernel stays within the values, and its callers here wait before they drop them.
    unsafe { function.launch(stream, blocks(values.len()), &parameters) }.unwrap();
}

/// All that is in a buffer.
pub(crate) fn contents(stream: &Stream, buffer: &DeviceBuffer<f32>) -> Vec<f32> {
    let mut values = vec![f32::NAN; buffer.len()];
    buffer.read(stream, 0, &mut values).unwrap();
    values
}

/// Up, a kernel, down.
pub(crate) fn computes(context: &Context, stream: &Stream) {
    let numbers: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let values = DeviceBuffer::from_slice(stream, "numbers", &numbers).unwrap();
    let add = add(context);
    start_adding(&add, stream, &values, 0.5);
    start_adding(&add, stream, &values, 2.0);
    let expected: Vec<f32> = numbers.iter().map(|x| x + 2.5).collect();
    assert_eq!(contents(stream, &values), expected);
}

/// Copies of all kinds and sizes, none among them.
pub(crate) fn copies(context: &Context, stream: &Stream) {
    let mut a = DeviceBuffer::<u16>::zeroed(stream, "words", 100).unwrap();
    assert_eq!((a.len(), a.bytes(), a.is_empty()), (100, 200, false));
    a.write(stream, 97, &[1, 2, 3]).unwrap();
    a.write(stream, 100, &[]).unwrap();
    let b = DeviceBuffer::<u16>::from_slice(stream, "words", &[9; 50]).unwrap();
    // SAFETY: `read` below waits for it.
    unsafe { b.copy_from(stream, 10, &a, 96, 4) }.unwrap();
    let mut read = [7; 6];
    b.read(stream, 9, &mut read).unwrap();
    assert_eq!(read, [9, 0, 1, 2, 3, 9]);
    a.fill_zeros(stream).unwrap();
    a.read(stream, 94, &mut read).unwrap();
    assert_eq!(read, [0; 6]);

    let none = DeviceBuffer::<f32>::new(context, "nothing", 0).unwrap();
    assert!(none.is_empty() && none.ptr() == DevicePtr(0));
    none.read(stream, 0, &mut []).unwrap();
}

/// Recorded work does nothing until it is launched, and then each time.
pub(crate) fn replays(context: &Context, stream: &Stream) {
    let add = add(context);
    let mut values = DeviceBuffer::from_slice(stream, "numbers", &[1.0; 40]).unwrap();
    let before = DeviceBuffer::from_slice(stream, "numbers", &[0.0; 40]).unwrap();
    let graph = Graph::record(stream, |stream| {
        // SAFETY: both buffers outlive the graph, which runs in one stream.
        unsafe { before.copy_from(stream, 0, &values, 0, 40) }?;
        start_adding(&add, stream, &values, 1.0);
        start_adding(&add, stream, &values, 2.0);
        Ok(())
    });
    let graph = graph.unwrap();
    assert_eq!(contents(stream, &values), [1.0; 40]);
    for turn in 0..3 {
        graph.launch(stream).unwrap();
        let first = 1.0 + 3.0 * turn as f32;
        assert_eq!((contents(stream, &before), contents(stream, &values)), (vec![first; 40], vec![first + 3.0; 40]));
    }
    values.fill_zeros(stream).unwrap();
    // It may also be launched where it was not recorded.
    let other = Stream::new(context).unwrap();
    graph.launch(&other).unwrap();
    assert_eq!(contents(&other, &values), [3.0; 40]);
}

/// Events order streams and tell times.
pub(crate) fn events(context: &Context) {
    let (one, two) = (Stream::new(context).unwrap(), Stream::new(context).unwrap());
    let add = add(context);
    let values = DeviceBuffer::from_slice(&one, "numbers", &vec![0.0; 1 << 20]).unwrap();
    let (start, middle, end) =
        (Event::new(context).unwrap(), Event::new(context).unwrap(), Event::new(context).unwrap());
    start.record(&one).unwrap();
    for _ in 0..50 {
        start_adding(&add, &one, &values, 1.0);
    }
    middle.record(&one).unwrap();
    two.wait_for(&middle).unwrap();
    start_adding(&add, &two, &values, 0.5);
    end.record(&two).unwrap();
    while !end.is_done().unwrap() {}
    assert!(start.is_done().unwrap() && middle.is_done().unwrap());
    assert_eq!(contents(&two, &values)[(1 << 20) - 1], 50.5);
    let (whole, part) = (end.since(&start).unwrap(), middle.since(&start).unwrap());
    assert!(part > std::time::Duration::ZERO && part <= whole, "{part:?} of {whole:?}");
    end.synchronize().unwrap();
    one.synchronize().unwrap();
    assert!(one.is_done().unwrap());
}

/// Two threads, a stream each, one module.
pub(crate) fn threads(context: &Context) {
    let add = add(context);
    let work = |amount: f32| {
        let stream = Stream::new(context).unwrap();
        for _ in 0..20 {
            let values = DeviceBuffer::from_slice(&stream, "numbers", &[amount; 500]).unwrap();
            let graph = Graph::record(&stream, |stream| {
                start_adding(&add, stream, &values, amount);
                Ok(())
            });
            let graph = graph.unwrap();
            (0..9).for_each(|_| graph.launch(&stream).unwrap());
            assert_eq!(contents(&stream, &values), [10.0 * amount; 500]);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| work(1.0));
        scope.spawn(|| work(-8.0));
    });
}
