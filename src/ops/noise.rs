//! Normal noise of the diffusion, from the image's seed and the place (see [`crate::sampling::philox`] for the
//! counters).
//!
//! seeds `[B, 1, 2]` of i32 (low and high word), places `[B, N, 1]` of i32, out `[T B, N, C]`: T diffusion steps one
//! behind the other. Bit-equal on every processor.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, pieces, small};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::sampling::philox::{self, Stream};
use crate::tensor::TileMut;

/// The op.
#[derive(Debug, Clone)]
pub struct Noise {
    /// `[B, 1, 2]`, i32
    pub seeds: View,
    /// `[B, N, 1]`, i32
    pub places: View,
    /// What the noise is for.
    pub stream: Stream,
    /// The first diffusion step, counted as made.
    pub first_step: usize,
    /// `[T B, N, C]`
    pub out: View,
}

impl Kernel for Noise {
    const NAME: &'static str = "noise";

    fn out(&self) -> Out {
        Out::new(self.out, 16, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.out.count() * self.out.cols();
        // Ten rounds of some eight operations for four numbers, then logarithm, root, sine and cosine.
        Cost { bytes: words(n), flops: 40 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let (seeds, places) = (cx.mat::<i32>(&self.seeds), cx.mat::<i32>(&self.places));
        let (images, all) = (self.seeds.layout.groups, self.places.count());
        for i in out.rows() {
            let (step, i_of_step) = ((self.first_step + i / all) as u32, i % all);
            let seed = seeds.row(i / self.out.layout.rows % images);
            let seed = u64::from(seed[0] as u32) | u64::from(seed[1] as u32) << 32;
            let place = places.row(i_of_step)[0] as u32;
            for (c, four) in out.row(i).chunks_mut(4).enumerate() {
                let normals = philox::normals(philox::words(seed, self.stream, c as u32, place, step));
                four.copy_from_slice(&normals[..four.len()]);
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for Noise {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let p = abi::Noise {
            turn: to.turn(),
            seeds: to.view(&self.seeds)?,
            places: to.view(&self.places)?,
            out: to.view(&self.out)?,
            stream: self.stream as i32,
            first_step: small("diffusion steps", self.first_step)?,
        };
        to.call("noise", "noise", pieces(&self.out), p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::Lab;

    #[test]
    fn numbers_belong_to_seed_place_channel_and_step() {
        let mut lab = Lab::new();
        let seeds = lab.input_i32(2, &[5, 0, -1, 7]).grouped(2);
        let places = lab.input_i32(1, &[3, 9, 0, 3, 1, 2]).grouped(2);
        let out = lab.output(18, 7).grouped(6);
        for (_, y) in lab.run(Noise { seeds, places, stream: Stream::Noise, first_step: 4, out }) {
            for (i, place) in [3, 9, 0, 3, 1, 2].repeat(3).into_iter().enumerate() {
                let (seed, step) = (if i % 6 < 3 { 5 } else { 0x7_FFFF_FFFF }, 4 + i as u32 / 6);
                for c in 0..7 {
                    let four = philox::normals(philox::words(seed, Stream::Noise, c as u32 / 4, place, step));
                    assert_eq!(y[i * 7 + c].to_bits(), four[c % 4].to_bits());
                }
            }
        }
    }
}
