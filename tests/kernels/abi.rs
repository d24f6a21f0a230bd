//! `kernels/abi.cuh`, field by field. A launch compares the sizes.

use std::ptr::null;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub base: *mut u32,
    pub step: i32,
    pub groups: i32,
    pub rows: i32,
    pub cols: i32,
    pub group_stride: i32,
    pub row_stride: i32,
}

impl View {
    pub const NONE: Self =
        Self { base: std::ptr::null_mut(), step: 0, groups: 0, rows: 0, cols: 0, group_stride: 0, row_stride: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Packed {
    pub words: *const u32,
    pub rows: i32,
    pub k: i32,
    pub format: i32,
    pub skip: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Epilogue {
    pub bias: *const f32,
    pub gate: View,
    pub activation: i32,
    pub add: i32,
    pub form: i32,
    pub unused: i32,
}

impl Epilogue {
    pub const NONE: Self = Self { bias: null(), gate: View::NONE, activation: 0, add: 0, form: 0, unused: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Linear {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub w: Packed,
    pub epilogue: Epilogue,
    pub partial: *mut f32,
    pub tickets: *mut u32,
    pub form: i32,
    pub splits: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub turn: *const i32,
    pub q: View,
    pub k: View,
    pub v: View,
    pub out: View,
    pub heads: i32,
    pub head_size: i32,
    pub keys_first: i32,
    pub keys_step: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub weight: *const f32,
    pub bias: *const f32,
    pub shift: View,
    pub scale: View,
    pub form: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HeadNorm {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub weight: *const f32,
    pub bias: *const f32,
    pub head_size: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Source {
    pub rows: View,
    pub ids: View,
    pub table: *const u8,
    pub kind: i32,
    pub type_: i32,
    pub first: i32,
    pub step: i32,
}

impl Source {
    pub const NONE: Self =
        Self { rows: View::NONE, ids: View::NONE, table: null(), kind: 0, type_: 0, first: 0, step: 0 };
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SumRows {
    pub turn: *const i32,
    pub out: View,
    pub count: i32,
    pub activation: i32,
    pub sources: [Source; 6],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    pub turn: *const i32,
    pub seeds: View,
    pub places: View,
    pub out: View,
    pub stream: i32,
    pub first_step: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TokenDraw {
    pub turn: *const i32,
    pub logits: View,
    pub scale: View,
    pub uniforms: View,
    pub out: View,
    pub temperature: f64,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct DiffusionStep {
    pub turn: *const i32,
    pub eps: View,
    pub factors: View,
    pub noise: View,
    pub x: View,
    pub guidance: f32,
    pub temperature: f32,
    pub clip: f32,
    pub guided: i32,
    pub clipped: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupStats {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupFactors {
    pub turn: *const i32,
    pub stats: View,
    pub out: View,
    pub weight: *const f32,
    pub bias: *const f32,
    pub pixels: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GroupNorm {
    pub turn: *const i32,
    pub x: View,
    pub factors: View,
    pub out: View,
    pub activation: i32,
    pub form: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Conv {
    pub turn: *const i32,
    pub x: View,
    pub factors: View,
    pub out: View,
    pub w: Packed,
    pub epilogue: Epilogue,
    pub activation: i32,
    pub form: i32,
    pub cin: i32,
    pub width: i32,
    pub kernel: i32,
    pub stride: i32,
    pub padding: i32,
    pub upsample: i32,
    pub out_width: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Affine {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub scale: *const f32,
    pub shift: *const f32,
    pub low: f32,
    pub high: f32,
    pub bounded: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AvgPool {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub out_width: i32,
    pub unused: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Rgb8 {
    pub turn: *const i32,
    pub x: View,
    pub out: View,
    pub low: f32,
    pub high: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Advance {
    pub turn: *mut i32,
    pub set: i32,
    pub to: i32,
}
