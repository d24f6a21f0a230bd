//! What this machine can do at most, measured: what shares of it the engine's ops reach.

use crate::error::Result;
use crate::pipeline::{Cpu, Device};
use crate::pool::Split;
use crate::simd::{Isa, Job, Simd};
use crate::tensor::{AlignedBytes, Precision};
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long one measurement lasts at least.
const LASTING: Duration = Duration::from_millis(30);
/// The best of so many measurements counts: others share the machine.
const ATTEMPTS: usize = 5;
/// Bytes of the large read: more than the caches of most processors hold.
const READ_BYTES: usize = 256 << 20;
/// Bytes of it that a thread takes at a time.
const PIECE_BYTES: usize = 1 << 20;

/// What all threads of a [`Cpu`] do together at most, or a GPU, a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peaks {
    /// Operations of multiply-adds of f32, in registers alone. A multiply-add counts two, here and below.
    pub f32: f64,
    /// Operations of dot products of pairs of bfloat16; where there is no instruction for them, of what they are taken apart
    /// for.
    pub bf16: f64,
    /// The same of dot products of four bytes; on a GPU, where there is no product of them, none.
    pub q8: Option<f64>,
    /// Bytes read from memory that no cache holds; on a GPU, bytes read and written by a large copy.
    pub read_bytes: f64,
}

impl Peaks {
    /// Measures all of them, in about a second. [`Error::Memory`](crate::Error::Memory) if the memory to read cannot be
    /// had.
    pub fn measure(device: impl Into<Device>) -> Result<Self> {
        match device.into() {
            Device::Cpu(cpu) => {
                let [f32, bf16, q8] = Precision::ALL.map(|precision| flops(&cpu, precision));
                Ok(Self { f32, bf16, q8: Some(q8), read_bytes: read_bandwidth(&cpu)? })
            }
            #[cfg(feature = "cuda")]
            Device::Gpu(gpu) => {
                let (f32, bf16) = gpu.peak_flops()?;
                Ok(Self { f32, bf16, q8: None, read_bytes: gpu.peak_copy()? })
            }
        }
    }

    /// Operations of what products of that precision are made of, where there are such.
    pub fn flops(&self, precision: Precision) -> Option<f64> {
        match precision {
            Precision::F32 => Some(self.f32),
            Precision::Bf16 => Some(self.bf16),
            Precision::Q8 => self.q8,
        }
    }
}

/// Operations a second that all threads of `cpu` reach together in registers alone, by what products of that precision
/// are made of on its instruction set; a multiply-add counts two.
pub fn flops(cpu: &Cpu, precision: Precision) -> f64 {
    let mut turns = 1 << 14;
    while time(|| multiply(cpu, precision, turns)) < LASTING && turns < 1 << 34 {
        turns *= 2;
    }
    let best = best_time(|| multiply(cpu, precision, turns));
    let each = match precision {
        Precision::F32 => 2,
        Precision::Bf16 => 4,
        Precision::Q8 => 8,
    };
    let lanes = Chains { precision, turns: 0 }.on(cpu.isa);
    (each * lanes * cpu.threads()) as f64 * turns as f64 / best.as_secs_f64()
}

/// Bytes a second that all threads of `cpu` read together from memory that no cache holds, at best.
/// [`Error::Memory`](crate::Error::Memory) if the memory cannot be had.
pub fn read_bandwidth(cpu: &Cpu) -> Result<f64> {
    let memory = LargeRead::new()?;
    Ok((0..ATTEMPTS).map(|_| memory.bandwidth(cpu)).fold(0.0, f64::max))
}

/// Memory to read, more than caches hold.
#[derive(Debug)]
pub struct LargeRead(AlignedBytes);

impl LargeRead {
    /// [`Error::Memory`](crate::Error::Memory) if it cannot be had.
    pub fn new() -> Result<Self> {
        let mut memory = AlignedBytes::zeroed(READ_BYTES, "the measurement of memory bandwidth")?;
        // Until it is written to, all of it may be one page of zeros.
        memory.bytes_mut().fill(1);
        Ok(Self(memory))
    }

    /// Bytes a second that all threads of `cpu` read together, this once.
    pub fn bandwidth(&self, cpu: &Cpu) -> f64 {
        let floats: &[f32] = bytemuck::cast_slice(self.0.as_ref());
        let pieces: Vec<&[f32]> = floats.chunks(PIECE_BYTES / size_of::<f32>()).collect();
        let read = || {
            cpu.pool.enter(|| {
                cpu.pool.for_each(0..pieces.len(), Split::EACH, |_, i| {
                    black_box(cpu.isa.run(Sum { x: black_box(pieces[i]) }));
                });
            });
        };
        READ_BYTES as f64 / time(read).max(Duration::from_nanos(1)).as_secs_f64()
    }
}

fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

/// The shortest of a few times, more than nothing.
fn best_time(mut work: impl FnMut()) -> Duration {
    let times = (0..ATTEMPTS).map(|_| time(&mut work));
    times.min().unwrap_or_default().max(Duration::from_nanos(1))
}

/// Each thread does `turns` of the chains.
fn multiply(cpu: &Cpu, precision: Precision, turns: u64) {
    cpu.pool.enter(|| {
        cpu.pool.for_each(0..cpu.threads(), Split::EACH, |_, _| {
            Chains { precision, turns }.on(cpu.isa);
        });
    });
}

/// Chains lie in rows and columns, as the outputs of a product's tile: two units with a latency of six cycles want 12.
const COLUMNS: usize = 4;

/// Rows of chains, as many as the registers hold beside what is multiplied.
const fn rows<S: Simd>(precision: Precision) -> usize {
    match (S::REGISTERS, S::LANES) {
        (32.., _) => 6,
        // What is taken apart takes two registers.
        _ if matches!(precision, Precision::Q8) && S::SPREADS_QUADS => 2,
        (_, 8..) => 3,
        // The portable leaf's vectors become two registers.
        _ => 2,
    }
}

/// What products of a precision are made of.
trait Kind<S: Simd> {
    /// What is multiplied.
    type Operand: Copy;
    /// What products are added to.
    type Sum: Copy;

    /// Numbers that the compiler does not know. Sums of their products are neither denormal nor infinite: they grow up
    /// to where they stay the same.
    fn operand(s: S) -> Self::Operand;
    fn zero(s: S) -> Self::Sum;
    fn multiply(s: S, sum: Self::Sum, x: Self::Operand, w: Self::Operand) -> Self::Sum;
    fn floats(s: S, sum: Self::Sum) -> S::V;
}

struct Floats;

impl<S: Simd> Kind<S> for Floats {
    type Operand = S::V;
    type Sum = S::V;

    #[inline(always)]
    fn operand(s: S) -> S::V {
        s.splat(black_box(0.5))
    }

    #[inline(always)]
    fn zero(s: S) -> S::V {
        s.zero()
    }

    #[inline(always)]
    fn multiply(s: S, sum: S::V, x: S::V, w: S::V) -> S::V {
        s.fma(x, w, sum)
    }

    #[inline(always)]
    fn floats(_: S, sum: S::V) -> S::V {
        sum
    }
}

struct Pairs;

impl<S: Simd> Kind<S> for Pairs {
    type Operand = S::I;
    type Sum = S::V;

    #[inline(always)]
    fn operand(s: S) -> S::I {
        // Twice 0.5.
        s.splat_word(black_box(0x3f00_3f00))
    }

    #[inline(always)]
    fn zero(s: S) -> S::V {
        s.zero()
    }

    #[inline(always)]
    fn multiply(s: S, sum: S::V, x: S::I, w: S::I) -> S::V {
        if S::MULTIPLIES_PAIRS {
            return s.dot_pairs(sum, x, w);
        }
        // Taken apart once, they are two multiply-adds.
        let [x, w] = [s.with_bits(x), s.with_bits(w)];
        s.fma(x, w, s.fma(x, w, sum))
    }

    #[inline(always)]
    fn floats(_: S, sum: S::V) -> S::V {
        sum
    }
}

struct Quads;

impl<S: Simd> Kind<S> for Quads {
    /// Quads, or what they are taken apart into: halves, and halves.
    type Operand = [S::I; 2];
    type Sum = S::I;

    #[inline(always)]
    fn operand(s: S) -> [S::I; 2] {
        [s.splat_word(black_box(0x4030_2010)), s.splat_word(black_box(0x0030_0010))]
    }

    #[inline(always)]
    fn zero(s: S) -> S::I {
        s.splat_word(0)
    }

    #[inline(always)]
    fn multiply(s: S, sum: S::I, x: [S::I; 2], w: [S::I; 2]) -> S::I {
        match S::SPREADS_QUADS {
            true => s.dot_halves(s.dot_halves(sum, w[0], x[0]), w[1], x[1]),
            false => s.dot_quads(sum, w[0], x[0]),
        }
    }

    #[inline(always)]
    fn floats(s: S, sum: S::I) -> S::V {
        s.to_float(sum)
    }
}

/// Multiplications that wait for nothing but their own chain. Tells the lanes of all chains: what a turn multiplies.
struct Chains {
    precision: Precision,
    turns: u64,
}

impl Job for Chains {
    type Out = usize;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let rows = rows::<S>(self.precision);
        match self.precision {
            Precision::F32 => self.rows::<S, Floats>(s, rows),
            Precision::Bf16 => self.rows::<S, Pairs>(s, rows),
            Precision::Q8 => self.rows::<S, Quads>(s, rows),
        }
    }
}

impl Chains {
    /// By the leaf that has the instructions for them.
    fn on(self, isa: Isa) -> usize {
        match self.precision {
            Precision::F32 => isa.run(self),
            Precision::Bf16 => isa.run_pairs(self),
            Precision::Q8 => isa.run_quads(self),
        }
    }

    #[inline(always)]
    fn rows<S: Simd, K: Kind<S>>(self, s: S, rows: usize) -> usize {
        match rows {
            6 => self.tile::<S, K, 6>(s),
            3 => self.tile::<S, K, 3>(s),
            _ => self.tile::<S, K, 2>(s),
        }
    }

    #[inline(always)]
    fn tile<S: Simd, K: Kind<S>, const R: usize>(self, s: S) -> usize {
        let w: [K::Operand; COLUMNS] = std::array::from_fn(|_| K::operand(s));
        let x: [K::Operand; R] = std::array::from_fn(|_| K::operand(s));
        let mut sums = [[K::zero(s); COLUMNS]; R];
        for _ in 0..self.turns {
            // For all the compiler knows, others each turn: no product is worked out beforehand, nor twice the same.
            let w = *black_box(&w);
            // Column by column, so that registers hold one weight at a time.
            for c in 0..COLUMNS {
                for r in 0..R {
                    sums[r][c] = K::multiply(s, sums[r][c], x[r], w[c]);
                }
            }
        }
        let mut sum = s.zero();
        for row in sums {
            for x in row {
                sum = s.add(sum, K::floats(s, x));
            }
        }
        black_box(s.sum(sum));
        R * COLUMNS * S::LANES
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
        let mut sum = s.zero();
        for x in sums {
            sum = s.add(sum, x);
        }
        s.sum(sum)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::tensor::Form;

    #[test]
    fn a_machine_does_something_and_less_than_everything() {
        let peaks = Peaks::measure(Cpu::new(1).unwrap()).unwrap();
        for precision in Precision::ALL {
            assert!(peaks.flops(precision).is_some_and(|f| (1e6..1e14).contains(&f)), "{precision}: {peaks:?}");
        }
        assert!((1e8..1e13).contains(&peaks.read_bytes), "{peaks:?}");
    }

    #[test]
    fn every_instruction_set_has_its_chains() {
        for isa in Isa::available() {
            let cpu = Cpu::new(2).unwrap().with_isa(isa.name()).unwrap();
            let lanes = Precision::ALL.map(|precision| Chains { precision, turns: 100 }.on(isa));
            assert!(lanes.iter().all(|&lanes| lanes >= 32), "{isa}: {lanes:?}");
            // What is taken apart has fewer, where registers are few.
            let [f32, bf16, q8] = lanes;
            assert!(bf16 == f32 && (q8 == f32 || q8 < f32 && isa.spreads(Form::Blocks)), "{isa}: {lanes:?}");
            Precision::ALL.into_iter().for_each(|precision| multiply(&cpu, precision, 100));
        }
    }
}
