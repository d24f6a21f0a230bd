//! What the two autoencoders share: convolutions, group norms and residual blocks over channels-last feature maps.

use super::transformer::Norm;
use crate::error::Result;
use crate::ops::{Activation, Conv, Epilogue, GroupFactors, GroupNorm, GroupStats, Linear, Normalised, SumRows};
use crate::plan::{Builder, View};
use crate::tensor::{Filter, Weight};
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
    filter: Filter,
    outputs: usize,
    b: Option<Weight>,
    kernel: usize,
}

impl ConvLayer {
    /// `name.weight` `[cout, cin, kernel, kernel]` and, where `bias`, `name.bias` `[cout]`; for a [`Walk`] over all
    /// pixels.
    pub(super) fn take(
        part: &mut Part,
        name: &str,
        cout: usize,
        cin: usize,
        kernel: usize,
        bias: bool,
    ) -> Result<Self> {
        Self::take_for(part, name, (cout, cin, kernel), bias, true)
    }

    /// The same for [`Walk::Down`].
    pub(super) fn take_down(part: &mut Part, name: &str, channels: usize) -> Result<Self> {
        Self::take_for(part, name, (channels, channels, 3), true, false)
    }

    fn take_for(
        part: &mut Part,
        name: &str,
        (cout, cin, kernel): (usize, usize, usize),
        bias: bool,
        every_pixel: bool,
    ) -> Result<Self> {
        Ok(Self {
            filter: part.take_conv(&format!("{name}.weight"), cout, cin, kernel, every_pixel)?,
            outputs: cout,
            b: if bias { Some(part.take_vector(&format!("{name}.bias"), cout)?) } else { None },
            kernel,
        })
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether what it multiplies is rounded below f32.
    pub(super) fn is_narrow(&self) -> bool {
        self.filter.matrix().format().is_narrow()
    }

    /// Writes the convolution from `x` to `out`; the result is added to `out` if `add`.
    pub(super) fn plan(&self, b: &mut Builder, x: Map, walk: Walk, add: bool, out: Map) {
        self.plan_normalised(b, x, None, walk, add, out);
    }

    /// The same of a normalised `x`.
    fn plan_normalised(&self, b: &mut Builder, x: Map, norm: Option<Normalised>, walk: Walk, add: bool, out: Map) {
        let epilogue = Epilogue { bias: self.b.clone(), add, ..Epilogue::default() };
        match (&self.filter, norm) {
            (Filter::Taps(w), None) if self.kernel == 1 && walk == Walk::Same => {
                b.push(Linear { x: x.view.into(), w: w.clone(), epilogue, out: out.view.into() });
            }
            _ => b.push(Conv {
                x: x.view,
                width: x.width,
                norm,
                filter: self.filter.clone(),
                kernel: self.kernel,
                stride: if walk == Walk::Down { 2 } else { 1 },
                padding: if walk == Walk::Down { 0 } else { self.kernel / 2 },
                upsample: walk == Walk::Up,
                epilogue,
                out_width: out.width,
                out: out.view,
            }),
        }
    }

    /// Writes `out = conv(silu(group norm of x))`, added to `out` if `add`.
    fn plan_after(&self, b: &mut Builder, norm: &Norm, x: Map, add: bool, out: Map) -> Result<()> {
        b.scope(|b| {
            let norm = Normalised { factors: plan_factors(b, x, norm)?, activation: Activation::Silu };
            self.plan_normalised(b, x, Some(norm), Walk::Same, add, out);
            Ok(())
        })
    }
}

/// Writes what a group norm multiplies the channels of `x` with and adds to them: `[B, 2 C]`, scratch.
fn plan_factors(b: &mut Builder, x: Map, norm: &Norm) -> Result<View> {
    let (batch, channels, pixels) = (x.batch(), x.channels(), x.view.layout.rows);
    let factors = b.scratch(batch, 2 * channels)?;
    b.scope(|b| {
        let stats = b.scratch(batch * GroupStats::blocks(pixels), 2 * channels)?.grouped(batch);
        b.push(GroupStats { x: x.view, out: stats });
        let (weight, bias) = norm.pair();
        b.push(GroupFactors { stats, pixels, weight, bias, out: factors });
        Ok(())
    })?;
    Ok(factors)
}

/// Writes `out = activation(group norm of x)`; `out` may not be `x`.
pub(super) fn plan_norm(b: &mut Builder, x: Map, norm: &Norm, activation: Activation, out: Map) -> Result<()> {
    b.scope(|b| {
        let factors = plan_factors(b, x, norm)?;
        b.push(GroupNorm { x: x.view, factors, activation, out: out.view });
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
        self.conv.plan_after(b, &self.norm, h, false, out)
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
            self.conv1.plan_after(b, &self.norm1, x, false, middle)?;
            match &self.shortcut {
                None => self.conv2.plan_after(b, &self.norm2, middle, true, out),
                Some((Shortcut::OfInput, conv)) => {
                    conv.plan(b, x, Walk::Same, false, out);
                    self.conv2.plan_after(b, &self.norm2, middle, true, out)
                }
                Some((Shortcut::OfOutput, conv)) => {
                    let h = middle.like(b, channels)?;
                    self.conv2.plan_after(b, &self.norm2, middle, false, h)?;
                    b.push(SumRows::copy(h.view, out.view));
                    conv.plan(b, h, Walk::Same, true, out);
                    Ok(())
                }
            }
        })?;
        Ok(out)
    }
}
