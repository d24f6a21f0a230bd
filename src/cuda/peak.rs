//! What a GPU can do at most, measured.

use super::abi::Peak;
use super::{DeviceBuffer, Event, Gpu, Kernel, Launch, Stream};
use crate::error::Result;
use bytemuck::Pod;
use std::time::Duration;

/// Bytes that are copied: more than any cache holds.
const COPIED: usize = 1 << 30;
/// The best of so many measurements counts.
const ATTEMPTS: usize = 5;
/// Turns of the chains in registers: the first of these that last so long, some thousands on a GPU.
const TURNS: [i32; 6] = [1 << 4, 1 << 6, 1 << 8, 1 << 10, 1 << 12, 1 << 14];
const LASTING: Duration = Duration::from_millis(2);

impl Gpu {
    /// Operations a second in registers alone, a multiply-add counted as two: of f32, and of bf16 by `mma`.
    pub(crate) fn peak_flops(&self) -> Result<(f64, f64)> {
        /// Of a thread's, or a warp's, turn: 16 multiply-adds, or 8 products of 16 x 8 x 16.
        const EACH: (f64, f64) = (32.0, 8.0 * 2.0 * 16.0 * 8.0 * 16.0);
        let stream = self.stream()?;
        let to = DeviceBuffer::<u32>::new(self.context(), "the measurement of a GPU", 4)?;
        let blocks = 8 * self.context().multiprocessors();
        let rate = |name, units: f64, each: f64| -> Result<f64> {
            let mut rate = 0.0;
            for turns in TURNS {
                let p = Peak { from: 0, to: to.ptr().0, words: 0, turns, unused: 0 };
                let time = self.best_time(&stream, name, blocks, &p)?;
                rate = units * each * f64::from(turns) / time.as_secs_f64();
                if time >= LASTING {
                    break;
                }
            }
            Ok(rate)
        };
        let threads = (256 * blocks) as f64;
        Ok((rate("peak_f32", threads, EACH.0)?, rate("peak_bf16", threads / 32.0, EACH.1)?))
    }

    /// Bytes a second that a large copy reads and writes together.
    pub(crate) fn peak_copy(&self) -> Result<f64> {
        let stream = self.stream()?;
        let what = "the measurement of a GPU's memory";
        let [from, to] = [(); 2].map(|()| DeviceBuffer::<u32>::zeroed(&stream, what, COPIED / 4));
        let (from, to) = (from?, to?);
        let p = Peak { from: from.ptr().0, to: to.ptr().0, words: (COPIED / 4) as i64, turns: 0, unused: 0 };
        let time = self.best_time(&stream, "peak_copy", 16 * self.context().multiprocessors(), &p)?;
        Ok(2.0 * COPIED as f64 / time.as_secs_f64())
    }

    /// The shortest of a few times, after a warm-up.
    fn best_time<P: Pod>(&self, stream: &Stream, name: &str, blocks: usize, p: &P) -> Result<Duration> {
        let Kernel { function, threads, shared_bytes } = self.kernels().get::<P>("peak", name)?;
        let [start, end] = [Event::new(self.context())?, Event::new(self.context())?];
        let launch = Launch { grid: [blocks as u32, 1, 1], block: [threads, 1, 1], shared_bytes };
        let mut best = Duration::MAX;
        for _ in 0..=ATTEMPTS {
            start.record(stream)?;
            // SAFETY: the parameters are these kernels', and name buffers of the caller, of the size that they say, which
            // live until the event is waited for.
            unsafe { function.launch(stream, launch, p) }?;
            end.record(stream)?;
            end.synchronize()?;
            best = best.min(end.since(&start)?);
        }
        Ok(best.max(Duration::from_nanos(1)))
    }
}
