//! kernels/noise.cu

use super::abi::Noise;
use super::lab::*;
use discon::sampling::philox::{self, Stream};

#[test]
fn noise_has_the_bits_of_the_host() {
    if !can_run() {
        return;
    }
    let seeds = [5u64, 0x7_ffff_ffff, u64::MAX - 3];
    for (case, (n, c, steps)) in [(1, 1, 1), (3, 7, 2), (5, 16, 4), (40, 32, 3)].into_iter().enumerate() {
        for stream in [Stream::Start, Stream::Noise] {
            let images = 1 + case % 3;
            let place = |i: usize| (i * 37 + 11) as u32;
            let mut expected = Vec::new();
            for row in 0..steps * images * n {
                let (step, image) = (4 + (row / (images * n)) as u32, row / n % images);
                for channel in 0..c {
                    let place = place(row % (images * n));
                    let words = philox::words(seeds[image], stream, channel as u32 / 4, place, step);
                    expected.push(philox::normals(words)[channel % 4].to_bits());
                }
            }
            let y = both(|order| {
                let half = |i: usize| (seeds[i / 2] >> (32 * (i % 2))) as u32;
                let mut seeds = Buffer::new(images, 1, 2, LIES[case % 3], half);
                let mut places = Buffer::new(images, n, 1, LIES[2], place);
                let mut out = Buffer::new(steps * images, n, c, LIES[(case + 1) % 3], |_| 0);
                let params = Noise {
                    turn: turn(),
                    seeds: seeds.view(),
                    places: places.view(),
                    out: out.view(),
                    stream: stream as i32,
                    first_step: 4,
                };
                launch("noise", "noise", &params, [1 + case, 1, 1], order);
                out.result()
            });
            assert_eq!(y.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), expected, "{n} {c} {steps} {stream:?}");
        }
    }
}

/// What the host emulates the device does too, if each operation is rounded once, to nearest, with subnormals: IEEE
/// leaves no choice then.
#[test]
fn the_compiled_kernels_that_promise_bits_round_each_operation_once() {
    for name in ["noise", "avg_pool", "rgb8"] {
        let ptx = std::fs::read_to_string(format!("{}/kernels/ptx/{name}.ptx", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let mut counted = 0;
        for line in ptx.lines() {
            let Some(op) = line.split_whitespace().next().filter(|op| op.contains(".f32")) else { continue };
            let arithmetic =
                ["add", "sub", "mul", "div", "sqrt", "fma", "mad", "rcp", "rsqrt", "sin", "cos", "lg2", "ex2"];
            let Some(kind) = arithmetic.iter().find(|kind| op.split('.').next() == Some(kind)) else { continue };
            counted += 1;
            let rounded_once = ["add", "sub", "mul", "div", "sqrt"].contains(kind);
            assert!(rounded_once && op.contains(".rn") && !op.contains(".ftz"), "{name}: {line}");
        }
        assert!(counted > 2, "{name}: found {counted} operations");
    }
}
