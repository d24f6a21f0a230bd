//! `kernels/abi.cuh`, field by field: what launches pass by value. Comments and meanings are there.
//!
//! Nothing here knows of a driver: the tests of the kernels on the host take this file too.

use bytemuck::{Pod, Zeroable};

/// Where something lies in the memory that a kernel sees; 0 is null.
pub(crate) type Address = u64;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct View {
    pub(crate) base: Address,
    pub(crate) step: i32,
    pub(crate) groups: i32,
    pub(crate) rows: i32,
    pub(crate) cols: i32,
    pub(crate) group_stride: i32,
    pub(crate) row_stride: i32,
}

impl View {
    pub(crate) const NONE: Self =
        Self { base: 0, step: 0, groups: 0, rows: 0, cols: 0, group_stride: 0, row_stride: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Packed {
    pub(crate) words: Address,
    pub(crate) rows: i32,
    pub(crate) k: i32,
    pub(crate) format: i32,
    pub(crate) skip: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Epilogue {
    pub(crate) bias: Address,
    pub(crate) gate: View,
    pub(crate) activation: i32,
    pub(crate) add: i32,
    pub(crate) form: i32,
    pub(crate) unused: i32,
}

impl Epilogue {
    pub(crate) const NONE: Self = Self { bias: 0, gate: View::NONE, activation: 0, add: 0, form: 0, unused: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Linear {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) w: Packed,
    pub(crate) epilogue: Epilogue,
    pub(crate) partial: Address,
    pub(crate) tickets: Address,
    pub(crate) form: i32,
    pub(crate) splits: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Attention {
    pub(crate) turn: Address,
    pub(crate) q: View,
    pub(crate) k: View,
    pub(crate) v: View,
    pub(crate) out: View,
    pub(crate) heads: i32,
    pub(crate) head_size: i32,
    pub(crate) keys_first: i32,
    pub(crate) keys_step: i32,
    pub(crate) form: i32,
    pub(crate) out_form: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct LayerNorm {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) shift: View,
    pub(crate) scale: View,
    pub(crate) form: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct NormLinear {
    pub(crate) linear: Linear,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) shift: View,
    pub(crate) scale: View,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct HeadNorm {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) head_size: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct HeadNorms {
    pub(crate) each: [HeadNorm; 3],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Source {
    pub(crate) rows: View,
    pub(crate) ids: View,
    pub(crate) table: Address,
    pub(crate) kind: i32,
    pub(crate) table_type: i32,
    pub(crate) first: i32,
    pub(crate) step: i32,
}

impl Source {
    pub(crate) const NONE: Self =
        Self { rows: View::NONE, ids: View::NONE, table: 0, kind: 0, table_type: 0, first: 0, step: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct SumRows {
    pub(crate) turn: Address,
    pub(crate) out: View,
    pub(crate) count: i32,
    pub(crate) activation: i32,
    pub(crate) sources: [Source; 8],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Noise {
    pub(crate) turn: Address,
    pub(crate) seeds: View,
    pub(crate) places: View,
    pub(crate) out: View,
    pub(crate) stream: i32,
    pub(crate) first_step: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct TokenDraw {
    pub(crate) turn: Address,
    pub(crate) logits: View,
    pub(crate) scale: View,
    pub(crate) uniforms: View,
    pub(crate) out: View,
    pub(crate) temperature: f64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct DiffusionStep {
    pub(crate) turn: Address,
    pub(crate) eps: View,
    pub(crate) factors: View,
    pub(crate) noise: View,
    pub(crate) x: View,
    pub(crate) guidance: f32,
    pub(crate) temperature: f32,
    pub(crate) clip: f32,
    pub(crate) guided: i32,
    pub(crate) clipped: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct GroupStats {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct GroupFactors {
    pub(crate) turn: Address,
    pub(crate) stats: View,
    pub(crate) out: View,
    pub(crate) weight: Address,
    pub(crate) bias: Address,
    pub(crate) pixels: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct GroupNorm {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) factors: View,
    pub(crate) out: View,
    pub(crate) activation: i32,
    pub(crate) form: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Conv {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) factors: View,
    pub(crate) out: View,
    pub(crate) w: Packed,
    pub(crate) epilogue: Epilogue,
    pub(crate) partial: Address,
    pub(crate) tickets: Address,
    pub(crate) activation: i32,
    /// `form` in abi.cuh, which no kernel reads: x is numbers.
    pub(crate) unused: i32,
    pub(crate) cin: i32,
    pub(crate) width: i32,
    pub(crate) kernel: i32,
    pub(crate) stride: i32,
    pub(crate) padding: i32,
    pub(crate) upsample: i32,
    pub(crate) out_width: i32,
    pub(crate) splits: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Affine {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) scale: Address,
    pub(crate) shift: Address,
    pub(crate) low: f32,
    pub(crate) high: f32,
    pub(crate) bounded: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct AvgPool {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) out_width: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct NearestCode {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) codebook: Address,
    pub(crate) codes: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Rgb8 {
    pub(crate) turn: Address,
    pub(crate) x: View,
    pub(crate) out: View,
    pub(crate) low: f32,
    pub(crate) high: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Advance {
    pub(crate) turn: Address,
    pub(crate) turns: i32,
    pub(crate) unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(crate) struct Peak {
    pub(crate) from: Address,
    pub(crate) to: Address,
    pub(crate) words: i64,
    pub(crate) turns: i32,
    pub(crate) unused: i32,
}
