//! Per-head layer normalisation of queries and keys (RAR, after Dehghani et al., 2302.05442), and the copy into a
//! cache.
//!
//! x and out `[M, H d]`; weight and bias `[d]`, or none for a plain copy. Accuracy as layer_norm. FLOPs: 8 M H d.

use super::layer_norm::Normalise;
#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi, small};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::tensor::{TileMut, Weight};

/// The op.
#[derive(Debug, Clone)]
pub struct HeadNorm {
    /// `[M, H d]`
    pub x: View,
    /// Weight and bias of the norm, `[d]` each; without, rows are copied.
    pub norm: Option<(Weight, Weight)>,
    /// `[M, H d]`
    pub out: View,
}

impl Kernel for HeadNorm {
    const NAME: &'static str = "head_norm";

    fn out(&self) -> Out {
        Out::new(self.out, 16, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.out.count() * self.out.cols();
        Cost { bytes: words(2 * n), flops: if self.norm.is_some() { 8 * n as u64 } else { 0 } }
    }

    fn tile(&self, cx: &Cx<'_>, mut out: TileMut<'_, f32>) {
        let x = cx.mat::<f32>(&self.x);
        for i in out.rows() {
            let Some((w, b)) = &self.norm else {
                out.row(i).copy_from_slice(x.row(i));
                continue;
            };
            let (w, b) = (w.f32(), b.f32());
            for (x, out) in x.row(i).chunks(w.len()).zip(out.row(i).chunks_mut(w.len())) {
                cx.isa().run(Normalise { x, affine: Some((w, b)), modulation: None, out });
            }
        }
    }
}

#[cfg(feature = "cuda")]
impl HeadNorm {
    /// As the kernel takes it, and blocks of the kernel.
    fn on(&self, to: &Launcher<'_>) -> Result<(abi::HeadNorm, usize)> {
        let (weight, bias) = match &self.norm {
            Some((weight, bias)) => (to.weight(weight)?, to.weight(bias)?),
            None => (0, 0),
        };
        let head = self.norm.as_ref().map_or(self.out.cols(), |(weight, _)| weight.cols());
        let (x, out) = (to.view(&self.x)?, to.view(&self.out)?);
        let head_size = small("a head", head)?;
        let heads = self.out.count() * self.out.cols() / head.max(1);
        Ok((abi::HeadNorm { turn: to.turn(), x, out, weight, bias, head_size, unused: 0 }, heads.div_ceil(8)))
    }

    /// Up to three that do not read each other's results, in one launch.
    pub(crate) fn launch_together(norms: &[&Self], to: &mut Launcher<'_>) -> Result<()> {
        let each = norms.iter().map(|norm| norm.on(to)).collect::<Result<Vec<_>>>()?;
        let blocks = each.iter().map(|&(_, blocks)| blocks).max().unwrap_or(0);
        let mut p = abi::HeadNorms { each: [each[0].0; Self::TOGETHER] };
        p.each.iter_mut().zip(&each).for_each(|(to, &(norm, _))| *to = norm);
        to.call("head_norm", "head_norms", [blocks, each.len(), 1], p)
    }

    /// How many a launch takes.
    pub(crate) const TOGETHER: usize = 3;
}

#[cfg(feature = "cuda")]
impl super::Launch for HeadNorm {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let (p, blocks) = self.on(to)?;
        to.call("head_norm", "head_norm", [blocks, 1, 1], p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::layer_norm::tests::normalised;
    use crate::ops::testing::{Lab, close, numbers, weight};

    #[test]
    fn each_head_is_normalised_by_itself() {
        for (m, heads, d) in [(1, 1, 5), (3, 4, 16), (2, 3, 48)] {
            let mut lab = Lab::new();
            let (x, w, b) = (numbers(m * heads * d, 1), numbers(d, 2), numbers(d, 3));
            let affine = |(j, y): (usize, f64)| y * w[j] as f64 + b[j] as f64;
            let head = |x: &[f32]| normalised(x).into_iter().enumerate().map(affine).collect::<Vec<_>>();
            let expected: Vec<f64> = x.chunks(d).flat_map(head).collect();
            let (x, out) = (lab.input(m, heads * d, &x), lab.output(m, heads * d));
            for (isa, y) in lab.run(HeadNorm { x, norm: Some((weight(&[d], &w), weight(&[d], &b))), out }) {
                close(&y, &expected, 5e-6, isa).unwrap();
            }
        }
    }

    #[test]
    fn without_a_norm_rows_are_copied_into_a_strided_cache() {
        let mut lab = Lab::new();
        let data = numbers(2 * 6, 1);
        let (x, cache) = (lab.input(2, 6, &data), lab.output(2 * 5, 6).grouped(2));
        let out = cache.rows(3..4);
        for (_, y) in lab.run_all(vec![HeadNorm { x, norm: None, out }.into()], cache) {
            assert_eq!((&y[18..24], &y[48..54]), (&data[..6], &data[6..]));
            assert!(y[..18].iter().chain(&y[24..48]).chain(&y[54..]).all(|&y| y == 0.0));
        }
    }
}
