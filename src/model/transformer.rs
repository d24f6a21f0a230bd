//! What the transformers share: dense layers, norms, the blocks of stage 2.

use crate::error::Result;
use crate::ops::{Activation, Attention, Keys, LayerNorm, Linear, Modulation, Operand};
use crate::plan::{Builder, View};
use crate::tensor::{Matrix, Weight};
use crate::weights::Part;
use std::ops::Range;

/// `x W^T + b`
#[derive(Debug, Clone)]
pub(super) struct Dense {
    /// `[out, in]`
    pub(super) w: Matrix,
    /// `[out]`
    pub(super) b: Option<Weight>,
}

impl Dense {
    /// `name.weight` `[out, inner]` and `name.bias` `[out]`.
    pub(super) fn take(part: &mut Part, name: &str, out: usize, inner: usize) -> Result<Self> {
        Ok(Self {
            w: part.take_matrix(&format!("{name}.weight"), out, inner)?,
            b: Some(part.take_vector(&format!("{name}.bias"), out)?),
        })
    }

    /// The layer from `x` to `out`.
    pub(super) fn op(&self, x: impl Into<Operand>, out: impl Into<Operand>) -> Linear {
        Linear::new(x, &self.w, self.b.as_ref(), out)
    }

    /// Scratch memory for `rows` rows that only this layer and its like read, in the form that suits it best.
    pub(super) fn input(&self, b: &mut Builder, rows: usize) -> Result<Operand> {
        let form = self.w.format().form();
        Ok(Operand { view: b.scratch(rows, form.words(self.w.cols()))?, form })
    }

    /// Outputs `rows` only.
    pub(super) fn outputs(&self, rows: Range<usize>) -> Self {
        Self { w: self.w.slice_rows(rows.clone()), b: self.b.as_ref().map(|b| b.slice_elements(rows)) }
    }
}

/// Weight and bias of a norm.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub(super) w: Weight,
    pub(super) b: Weight,
}

impl Norm {
    /// `name.weight` and `name.bias`, `[width]` each.
    pub(super) fn take(part: &mut Part, name: &str, width: usize) -> Result<Self> {
        Ok(Self {
            w: part.take_vector(&format!("{name}.weight"), width)?,
            b: part.take_vector(&format!("{name}.bias"), width)?,
        })
    }

    /// The layer norm from `x` to `out`.
    pub(super) fn op(&self, x: View, modulation: Option<Modulation>, out: impl Into<Operand>) -> LayerNorm {
        LayerNorm { x, affine: Some((self.w.clone(), self.b.clone())), modulation, out: out.into() }
    }

    /// Weight and bias.
    pub(super) fn pair(&self) -> (Weight, Weight) {
        (self.w.clone(), self.b.clone())
    }
}

/// A transformer block with attention both ways: `x += proj(attention(norm1(x)))`, `x += fc2(gelu(fc1(norm2(x))))`.
#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) norm1: Norm,
    pub(super) qkv: Dense,
    pub(super) proj: Dense,
    pub(super) norm2: Norm,
    pub(super) fc1: Dense,
    pub(super) fc2: Dense,
}

impl Block {
    /// The block at `name`, `width` wide with a hidden layer of `mlp`.
    pub(super) fn take(part: &mut Part, name: &str, width: usize, mlp: usize) -> Result<Self> {
        Ok(Self {
            norm1: Norm::take(part, &format!("{name}.norm1"), width)?,
            qkv: Dense::take(part, &format!("{name}.attn.qkv"), 3 * width, width)?,
            proj: Dense::take(part, &format!("{name}.attn.proj"), width, width)?,
            norm2: Norm::take(part, &format!("{name}.norm2"), width)?,
            fc1: Dense::take(part, &format!("{name}.mlp.fc1"), mlp, width)?,
            fc2: Dense::take(part, &format!("{name}.mlp.fc2"), width, mlp)?,
        })
    }

    /// Writes the block over `x` `[G, N, D]`, in place. Only `rows` of each group are computed to the end: what the
    /// last block's reader wants. Keys and values come from all rows.
    pub(super) fn plan(&self, b: &mut Builder, x: View, rows: Range<usize>, heads: usize) -> Result<()> {
        let (groups, all, width) = (x.layout.groups, x.layout.rows, x.cols());
        b.scope(|b| {
            if rows.len() == all {
                let qkv = b.scratch(groups * all, 3 * width)?.grouped(groups);
                self.plan_qkv(b, x, qkv)?;
                return self.plan_attention(b, thirds(qkv), x, heads);
            }
            let q = b.scratch(groups * rows.len(), width)?.grouped(groups);
            let kv = b.scratch(groups * all, 2 * width)?.grouped(groups);
            b.scope(|b| {
                let h = self.qkv.input(b, groups * all)?.grouped(groups);
                b.push(self.norm1.op(x, None, h));
                b.push(self.qkv.outputs(0..width).op(h.rows(rows.clone()), q));
                b.push(self.qkv.outputs(width..3 * width).op(h, kv));
                Ok(())
            })?;
            self.plan_attention(b, [q, kv.columns(0..width), kv.columns(width..2 * width)], x.rows(rows.clone()), heads)
        })?;
        self.plan_mlp(b, x.rows(rows))
    }

    /// [`Block::plan`] over all rows of `x`, whose queries, keys and values are there: `qkv` `[G, N, 3 D]`.
    pub(super) fn plan_projected(&self, b: &mut Builder, qkv: View, x: View, heads: usize) -> Result<()> {
        self.plan_attention(b, thirds(qkv), x, heads)?;
        self.plan_mlp(b, x)
    }

    /// Writes queries, keys and values of the rows of `x` `[G, N, D]` into `out` `[G, N, 3 D]`.
    pub(super) fn plan_qkv(&self, b: &mut Builder, x: View, out: View) -> Result<()> {
        b.scope(|b| {
            let h = self.qkv.input(b, x.count())?.grouped(x.layout.groups);
            b.push(self.norm1.op(x, None, h));
            b.push(self.qkv.op(h, out));
            Ok(())
        })
    }

    /// Adds what the queries `[G, M, D]` find among keys and values `[G, N, D]` to their rows `x` `[G, M, D]`.
    fn plan_attention(&self, b: &mut Builder, [q, k, v]: [View; 3], x: View, heads: usize) -> Result<()> {
        b.scope(|b| {
            let attended = b.scratch(x.count(), x.cols())?.grouped(x.layout.groups);
            let (narrow, keys) = (self.qkv.w.format().is_narrow(), Keys { first: k.layout.rows, step: 0 });
            b.push(Attention { q, k, v, keys, heads, narrow, out: attended });
            b.push(self.proj.op(attended, x).added(None));
            Ok(())
        })
    }

    /// The block's second half, over `x` `[G, N, D]`.
    fn plan_mlp(&self, b: &mut Builder, x: View) -> Result<()> {
        let (rows, groups) = (x.count(), x.layout.groups);
        b.scope(|b| {
            let h = self.fc1.input(b, rows)?.grouped(groups);
            let hidden = self.fc2.input(b, rows)?.grouped(groups);
            b.push(self.norm2.op(x, None, h));
            b.push(self.fc1.op(h, hidden).then(Activation::Gelu));
            b.push(self.fc2.op(hidden, x).added(None));
            Ok(())
        })
    }
}

/// Three matrices that lie side by side.
fn thirds(all: View) -> [View; 3] {
    let width = all.cols() / 3;
    [0, 1, 2].map(|i| all.columns(i * width..(i + 1) * width))
}
