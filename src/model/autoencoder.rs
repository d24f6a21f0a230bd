//! What the two autoencoders share: convolutions, group norms and residual blocks over channels-last feature maps.

use super::transformer::Norm;
use crate::error::Result;
use crate::ops::{Activation, Conv, Epilogue, GroupNorm, GroupStats, Linear, SumRows};
use crate::plan::{Builder, View};
use crate::tensor::{Matrix, Weight};
use crate::weights::Part;

/// A feature map of every image of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    /// `[B, H W, C]`
    pub(super) view: View,
    /// W
    pub(super) width: usize,
}

impl Map {
    /// A square map over `view` `[B, P, C]`.
    pub(super) fn square(view: View) -> Self {
        Self { view, width: view.layout.rows.isqrt() }
    }

    /// Scratch for a square map of `batch` images.
    pub(super) fn scratch(b: &mut Builder, batch: usize, width: usize, channels: usize) -> Result<Self> {
        Ok(Self::square(b.scratch(batch * width * width, channels)?.grouped(batch)))
    }

    /// Scratch for a map of the same size with `channels` channels.
    pub(super) fn like(&self, b: &mut Builder, channels: usize) -> Result<Self> {
        let l = self.view.layout;
        Ok(Self { view: b.scratch(l.count(), channels)?.grouped(l.groups), width: self.width })
    }

    pub(super) fn channels(&self) -> usize {
        self.view.cols()
    }

    pub(super) fn batch(&self) -> usize {
        self.view.layout.groups
    }
}

/// How a convolution walks its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Walk {
    /// Output as large as the input.
    Same,
    /// Every second pixel; zeros right and below only.
    Down,
    /// Over the input with each pixel doubled.
    Up,
}

/// A convolution's weights.
#[derive(Debug, Clone)]
pub(super) struct ConvLayer {
    w: Matrix,
    b: Option<Weight>,
    kernel: usize,
}

impl ConvLayer {
    /// `name.weight` `[cout, cin, kernel, kernel]` and, where `bias`, `name.bias` `[cout]`.
    pub(super) fn take(
        part: &mut Part,
        name: &str,
        cout: usize,
        cin: usize,
        kernel: usize,
        bias: bool,
    ) -> Result<Self> {
        Ok(Self {
            w: part.take_conv(&format!("{name}.weight"), cout, cin, kernel)?,
            b: if bias { Some(part.take_vector(&format!("{name}.bias"), cout)?) } else { None },
            kernel,
        })
    }

    pub(super) fn outputs(&self) -> usize {
        self.w.rows()
    }

    /// Writes the convolution from `x` to `out`; the result is added to `out` if `add`.
    pub(super) fn plan(&self, b: &mut Builder, x: Map, walk: Walk, add: bool, out: Map) {
        if self.kernel == 1 && walk == Walk::Same {
            let mut op = Linear::new(x.view, &self.w, self.b.as_ref(), out.view);
            op.epilogue.add = add;
            return b.push(op);
        }
        b.push(Conv {
            x: x.view,
            width: x.width,
            w: self.w.clone(),
            kernel: self.kernel,
            stride: if walk == Walk::Down { 2 } else { 1 },
            padding: if walk == Walk::Down { 0 } else { self.kernel / 2 },
            upsample: walk == Walk::Up,
            epilogue: Epilogue { bias: self.b.clone(), add, ..Epilogue::default() },
            out_width: out.width,
            out: out.view,
        });
    }
}

/// Writes `out = activation(group norm of x)`; `out` may not be `x`.
pub(super) fn plan_norm(b: &mut Builder, x: Map, norm: &Norm, activation: Activation, out: Map) -> Result<()> {
    let (batch, channels) = (x.batch(), x.channels());
    b.scope(|b| {
        let blocks = GroupStats::blocks(x.view.layout.rows);
        let stats = b.scratch(batch * blocks, 2 * channels)?.grouped(batch);
        b.push(GroupStats { x: x.view, out: stats });
        let (weight, bias) = norm.pair();
        b.push(GroupNorm { x: x.view, stats, weight, bias, activation, out: out.view });
        Ok(())
    })
}

/// The end of an encoder or decoder: `conv_out(silu(norm_out(x)))`.
#[derive(Debug, Clone)]
pub(super) struct Output {
    norm: Norm,
    conv: ConvLayer,
}

impl Output {
    /// `side.norm_out` over `channels` and `side.conv_out` from them to `outputs`.
    pub(super) fn take(part: &mut Part, side: &str, outputs: usize, channels: usize, kernel: usize) -> Result<Self> {
        Ok(Self {
            norm: Norm::take(part, &format!("{side}.norm_out"), channels)?,
            conv: ConvLayer::take(part, &format!("{side}.conv_out"), outputs, channels, kernel, true)?,
        })
    }

    pub(super) fn plan(&self, b: &mut Builder, h: Map, out: Map) -> Result<()> {
        b.scope(|b| {
            let normed = h.like(b, h.channels())?;
            plan_norm(b, h, &self.norm, Activation::Silu, normed)?;
            self.conv.plan(b, normed, Walk::Same, false, out);
            Ok(())
        })
    }
}

/// What a residual block adds its result to where it changes the number of channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortcut {
    /// A 1x1 convolution of the block's input: KL autoencoders.
    OfInput,
    /// A 1x1 convolution of the block's own output, as the published MaskGIT VQGAN has it.
    OfOutput,
}

/// `x + conv2(silu(norm2(conv1(silu(norm1(x))))))`
#[derive(Debug, Clone)]
pub(super) struct ResBlock {
    norm1: Norm,
    conv1: ConvLayer,
    norm2: Norm,
    conv2: ConvLayer,
    shortcut: Option<(Shortcut, ConvLayer)>,
}

impl ResBlock {
    /// The block at `name` from `cin` to `cout` channels.
    pub(super) fn take(
        part: &mut Part,
        name: &str,
        cin: usize,
        cout: usize,
        bias: bool,
        kind: Shortcut,
    ) -> Result<Self> {
        let inner = if kind == Shortcut::OfInput { cin } else { cout };
        let shortcut = match cin == cout {
            true => None,
            false => Some((kind, ConvLayer::take(part, &format!("{name}.nin_shortcut"), cout, inner, 1, bias)?)),
        };
        Ok(Self {
            norm1: Norm::take(part, &format!("{name}.norm1"), cin)?,
            conv1: ConvLayer::take(part, &format!("{name}.conv1"), cout, cin, 3, bias)?,
            norm2: Norm::take(part, &format!("{name}.norm2"), cout)?,
            conv2: ConvLayer::take(part, &format!("{name}.conv2"), cout, cout, 3, bias)?,
            shortcut,
        })
    }

    /// Writes the block; the result is in place unless the number of channels changes.
    pub(super) fn plan(&self, b: &mut Builder, x: Map) -> Result<Map> {
        let channels = self.conv1.outputs();
        let out = if self.shortcut.is_some() { x.like(b, channels)? } else { x };
        b.scope(|b| {
            let middle = x.like(b, channels)?;
            b.scope(|b| {
                let h = x.like(b, x.channels())?;
                plan_norm(b, x, &self.norm1, Activation::Silu, h)?;
                self.conv1.plan(b, h, Walk::Same, false, middle);
                Ok(())
            })?;
            let h = middle.like(b, channels)?;
            plan_norm(b, middle, &self.norm2, Activation::Silu, h)?;
            match &self.shortcut {
                None => self.conv2.plan(b, h, Walk::Same, true, out),
                Some((Shortcut::OfInput, conv)) => {
                    conv.plan(b, x, Walk::Same, false, out);
                    self.conv2.plan(b, h, Walk::Same, true, out);
                }
                Some((Shortcut::OfOutput, conv)) => {
                    self.conv2.plan(b, h, Walk::Same, false, middle);
                    b.push(SumRows::copy(middle.view, out.view));
                    conv.plan(b, middle, Walk::Same, true, out);
                }
            }
            Ok(())
        })?;
        Ok(out)
    }
}
