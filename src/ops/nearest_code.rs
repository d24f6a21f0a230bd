//! The nearest entry of a codebook, by Euclidean distance; the lowest index on a tie.
//!
//! x `[M, C]`, codebook `[K, C]` in f32, out `[M, 1]` of i32. Distances come from one product in f32; entries within
//! its rounding of the smallest are compared again in f64, so the answer is that of exact arithmetic but for
//! distances equal to 1e-15. FLOPs: 2 M K C.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, small};
use super::product::{Input, Rows, multiply, parts};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View, WorkerMemory};
use crate::tensor::{Matrix, TileMut, Weight};

/// The op.
#[derive(Debug, Clone)]
pub struct NearestCode {
    /// `[M, C]`
    pub x: View,
    /// `[K, C]`, f32
    pub codebook: Weight,
    /// The same, packed.
    pub packed: Matrix,
    /// `[M, 1]`, i32
    pub out: View,
}

const ROWS: usize = 16;

impl Kernel for NearestCode {
    const NAME: &'static str = "nearest_code";

    fn out(&self) -> Out {
        Out::new(self.out, ROWS, 1)
    }

    fn cost(&self, _: usize) -> Cost {
        let (m, k, c) = (self.x.count(), self.codebook.rows(), self.x.cols());
        Cost { bytes: words(m * c + k * c), flops: 2 * (m * k * c) as u64 }
    }

    fn worker_words(&self) -> usize {
        let parts = parts(&self.packed, Rows::of(&self.x.into(), &self.packed), ROWS, self.codebook.rows());
        WorkerMemory::words(parts) + WorkerMemory::words([self.codebook.rows()])
    }

    fn tile(&self, cx: &Cx<'_>, out: TileMut<'_, f32>) {
        let mut out = out.cast::<i32>();
        let (rows, codes, c) = (out.rows(), self.codebook.rows(), self.x.cols());
        let x = cx.mat::<f32>(&self.x);
        let table = self.codebook.f32();
        let mut memory = cx.worker_memory();
        let [sums, row, input, spread] = parts(&self.packed, Rows::of(&self.x.into(), &self.packed), rows.len(), codes);
        let [sums, _, input, spread, distances] = memory.split([sums, row, input, spread, codes]);
        let input = Input::of(cx, &self.packed, &self.x.into(), rows.clone(), input);
        let sums = multiply(cx, &input, &self.packed, 0..codes, [sums, spread]);
        for (i, sums) in rows.zip(sums.rows()) {
            let x = x.row(i);
            let length = x.iter().map(|x| x * x).sum::<f32>();
            let mut least = f32::INFINITY;
            let mut largest = length;
            for ((distance, sum), entry) in distances.iter_mut().zip(sums).zip(table.chunks(c)) {
                let square: f32 = entry.iter().map(|e| e * e).sum();
                *distance = square - 2.0 * sum;
                least = least.min(*distance);
                largest = largest.max(square);
            }
            // Rounding of a sum of c products of numbers of these lengths.
            let slack = 4e-7 * c as f32 * largest;
            let exact = |k: usize| {
                let pairs = x.iter().zip(&table[k * c..(k + 1) * c]);
                pairs.map(|(&x, &e)| (x as f64 - e as f64).powi(2)).sum::<f64>()
            };
            let near = (0..codes).filter(|&k| distances[k] <= least + slack).map(|k| (k, exact(k)));
            let best = near.reduce(|a, b| if b.1 < a.1 { b } else { a });
            out.row(i)[0] = best.map_or(0, |(k, _)| k as i32);
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for NearestCode {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let codes = small("codes", self.codebook.rows())?;
        let codebook = to.weight(&self.codebook)?;
        let p = abi::NearestCode {
            turn: to.turn(),
            x: to.view(&self.x)?,
            out: to.view(&self.out)?,
            codebook,
            codes,
            unused: 0,
        };
        to.call("nearest_code", "nearest_code", [self.x.count().div_ceil(2), 1, 1], p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, numbers, weight};
    use crate::tensor::Format;

    #[test]
    fn finds_the_nearest_and_the_lowest_of_equals() {
        for (m, k, c) in [(1, 1, 1), (37, 33, 9), (20, 500, 32)] {
            let mut lab = Lab::new();
            let (mut x, mut table) = (numbers(m * c, 1), numbers(k * c, 2));
            if k > 20 {
                table.copy_within(5 * c..6 * c, 17 * c);
                x[..c].copy_from_slice(&table[5 * c..6 * c]);
            }
            let nearest = |x: &[f32]| {
                let d = |e: &[f32]| x.iter().zip(e).map(|(&x, &e)| (x as f64 - e as f64).powi(2)).sum::<f64>();
                let all: Vec<f64> = table.chunks(c).map(d).collect();
                (0..k).fold(0, |best, i| if all[i] < all[best] { i } else { best }) as i32
            };
            let expected: Vec<i32> = x.chunks(c).map(nearest).collect();
            let (x, out) = (lab.input(m, c, &x), lab.output(m, 1));
            let codebook = weight(&[k, c], &table);
            let packed = Matrix::pack(&codebook, Format::F32).unwrap();
            for (isa, y) in lab.run(NearestCode { x, codebook, packed, out }) {
                assert_eq!(y.iter().map(|y| y.to_bits() as i32).collect::<Vec<_>>(), expected, "{isa}");
            }
        }
    }
}
