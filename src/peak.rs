//! What this machine can do at most, measured: what shares of it the engine's ops reach.

use crate::error::Result;
use crate::pipeline::Cpu;
use crate::simd::{Job, Simd};
use crate::tensor::AlignedBytes;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Independent chains of multiply-adds a thread: enough to cover a latency of four cycles on two units and to spare,
/// few enough for 16 registers.
const CHAINS: usize = 12;
/// How long one measurement lasts at least.
const LASTING: Duration = Duration::from_millis(30);
/// The best of so many measurements counts: others share the machine.
const ATTEMPTS: usize = 5;
/// Bytes of the large read: more than the caches of most processors hold.
const READ_BYTES: usize = 256 << 20;
/// Bytes of it that a thread takes at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Floating-point operations a second that all threads of `cpu` reach together in registers alone, a multiply-add
/// counting two, with the vectors of its instruction set.
pub fn flops(cpu: &Cpu) -> f64 {
    let mut turns = 1 << 14;
    while time(|| multiply_add(cpu, turns)) < LASTING && turns < 1 << 34 {
        turns *= 2;
    }
    let mut lanes = 0;
    let best = best_time(|| lanes = multiply_add(cpu, turns));
    (2 * CHAINS * lanes * cpu.threads()) as f64 * turns as f64 / best.as_secs_f64()
}

/// Bytes a second that all threads of `cpu` read together from memory that no cache holds.
/// [`Error::Memory`](crate::Error::Memory) if the memory cannot be had.
pub fn read_bandwidth(cpu: &Cpu) -> Result<f64> {
    let mut memory = AlignedBytes::zeroed(READ_BYTES, "the measurement of memory bandwidth")?;
    // Until it is written to, all of it may be one page of zeros.
    memory.bytes_mut().fill(1);
    let floats: &[f32] = bytemuck::cast_slice(memory.as_ref());
    let pieces: Vec<&[f32]> = floats.chunks(PIECE_BYTES / size_of::<f32>()).collect();
    let read = || {
        cpu.pool.enter(|| {
            cpu.pool.for_each(0..pieces.len(), true, |_, i| {
                black_box(cpu.isa.run(Sum { x: black_box(pieces[i]) }));
            });
        });
    };
    Ok(READ_BYTES as f64 / best_time(read).as_secs_f64())
}

fn time<R>(work: impl FnOnce() -> R) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The shortest of a few times, more than nothing.
fn best_time(mut work: impl FnMut()) -> Duration {
    let times = (0..ATTEMPTS).map(|_| time(&mut work));
    times.min().unwrap_or_default().max(Duration::from_nanos(1))
}

/// Each thread does `turns` of the chains; the number of a vector's lanes.
fn multiply_add(cpu: &Cpu, turns: u64) -> usize {
    cpu.pool.enter(|| {
        cpu.pool.for_each(0..cpu.threads(), true, |_, _| {
            black_box(cpu.isa.run(Chains { turns }));
        });
    });
    cpu.isa.run(Lanes)
}

/// Floats a vector.
struct Lanes;

impl Job for Lanes {
    type Out = usize;
    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> usize {
        S::LANES
    }
}

/// Multiply-adds that wait for nothing but their own chain.
struct Chains {
    turns: u64,
}

impl Job for Chains {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        // The compiler cannot know the numbers, and they stay near 1: no denormals, no infinities.
        let (factor, term) = (s.splat(black_box(0.999)), s.splat(black_box(0.001)));
        let mut chains = [s.splat(black_box(1.0)); CHAINS];
        for _ in 0..self.turns {
            for x in &mut chains {
                *x = s.fma(*x, factor, term);
            }
        }
        total(s, chains)
    }
}

/// The sum of a slice, as fast as it can be read.
struct Sum<'a> {
    x: &'a [f32],
}

impl Job for Sum<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        const SUMS: usize = 8;
        let mut sums = [s.zero(); SUMS];
        for x in self.x.chunks_exact(SUMS * S::LANES) {
            for (sum, x) in sums.iter_mut().zip(x.chunks_exact(S::LANES)) {
                *sum = s.add(*sum, s.load(x));
            }
        }
        total(s, sums)
    }
}

/// The sum of all lanes of some vectors.
#[inline(always)]
fn total<S: Simd, const N: usize>(s: S, vectors: [S::V; N]) -> f32 {
    let mut sum = s.zero();
    for x in vectors {
        sum = s.add(sum, x);
    }
    s.sum(sum)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_machine_does_something_and_less_than_everything() {
        let cpu = Cpu::new(1).unwrap();
        let (flops, bandwidth) = (flops(&cpu), read_bandwidth(&cpu).unwrap());
        assert!((1e8..1e13).contains(&flops), "{flops}");
        assert!((1e8..1e13).contains(&bandwidth), "{bandwidth}");
    }
}
