//! What the engine can compute. One file an op: its contract (formula, shapes, accuracy, bytes, FLOPs), its naive
//! reference and its CPU code, written once over [`crate::simd::Simd`].
//!
//! Every op writes one matrix, cut into tiles, and a tile is a function of what the op reads. So one loop runs them
//! all, on any number of threads, and can stop between any two tiles. To add an op, see `docs/adding-an-op.md`.

mod affine;
mod attention;
mod avg_pool;
mod conv;
mod diffusion_step;
mod group_norm;
mod head_norm;
mod layer_norm;
mod linear;
mod nearest_code;
mod noise;
#[cfg(feature = "cuda")]
mod on_gpu;
mod product;
mod sum_rows;
mod token_draw;

pub use affine::Affine;
pub use attention::{Attention, Keys};
pub use avg_pool::AvgPool;
pub use conv::{Conv, Normalised};
pub use diffusion_step::{COEFFICIENTS, DiffusionStep};
pub use group_norm::{GroupFactors, GroupNorm, GroupStats};
pub use head_norm::HeadNorm;
pub use layer_norm::{LayerNorm, Modulation};
pub use linear::Linear;
pub use nearest_code::NearestCode;
pub use noise::Noise;
pub use product::{Epilogue, Operand};
pub use sum_rows::{Index, Source, SumRows};
pub use token_draw::TokenDraw;

#[cfg(feature = "cuda")]
use on_gpu::{Launcher, Result, Splits};

use crate::plan::{Cost, Cx, View};
use crate::simd::{Simd, math};
use crate::tensor::TileMut;
use std::ops::Range;

/// The matrix that an op writes and the tiles it is cut into.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    /// The matrix.
    pub view: View,
    /// Rows a tile.
    pub tile_rows: usize,
    /// Columns a tile.
    pub tile_cols: usize,
    /// No tile reaches across a multiple of this many rows.
    pub run_rows: usize,
}

impl Out {
    /// `view` in tiles of at most `tile_rows x tile_cols`.
    pub fn new(view: View, tile_rows: usize, tile_cols: usize) -> Self {
        Self { view, tile_rows: tile_rows.max(1), tile_cols: tile_cols.max(1), run_rows: view.count().max(1) }
    }

    /// The same, but every `rows` rows start with a tile of their own.
    pub fn in_runs_of(self, rows: usize) -> Self {
        Self { run_rows: rows.max(1), ..self }
    }

    /// Tiles one below the other: in a run and in all.
    fn down(&self) -> (usize, usize) {
        let run = self.run_rows.div_ceil(self.tile_rows);
        let rest = self.view.count() % self.run_rows;
        (run, self.view.count() / self.run_rows * run + rest.div_ceil(self.tile_rows))
    }

    /// Tiles in all.
    pub fn chunks(&self) -> usize {
        self.down().1 * self.view.cols().div_ceil(self.tile_cols)
    }

    /// Rows and columns of tile `i`: those of the same rows follow each other. Tiles do not overlap.
    pub fn chunk(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let (run, across) = (self.down().0, self.view.cols().div_ceil(self.tile_cols));
        let (i, col) = (i / across, i % across * self.tile_cols);
        let start = i / run * self.run_rows;
        let row = start + i % run * self.tile_rows;
        let end = (row + self.tile_rows).min(start + self.run_rows).min(self.view.count());
        (row..end, col..self.view.cols().min(col + self.tile_cols))
    }
}

/// What every op answers.
pub trait Kernel {
    /// Name in profiles.
    const NAME: &'static str;
    /// The matrix it writes.
    fn out(&self) -> Out;
    /// Bytes and FLOPs of one run in a segment of `turns` turns: the mean of them where they differ.
    fn cost(&self, turns: usize) -> Cost;
    /// Words of a worker's memory that [`Kernel::tile`] splits.
    fn worker_words(&self) -> usize {
        0
    }
    /// Bytes that the op holds beside itself, weights not counted.
    fn heap_bytes(&self) -> usize {
        0
    }
    /// Computes one tile.
    fn tile(&self, cx: &Cx<'_>, out: TileMut<'_, f32>);
}

/// What an op does to run on a GPU.
#[cfg(feature = "cuda")]
pub(crate) trait Launch {
    /// Memory for partial sums that its kernels need.
    fn splits(&self) -> Splits {
        Splits::default()
    }
    /// Adds the launches of one run.
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()>;
}

macro_rules! ops {
    ($($op:ident),* $(,)?) => {
        /// One step of a plan.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)] // each variant is the op of its name
        pub enum Op {
            $($op($op),)*
        }

        $(impl From<$op> for Op {
            fn from(op: $op) -> Self {
                Self::$op(op)
            }
        })*

        impl Op {
            /// Name in profiles.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$op(_) => $op::NAME,)* }
            }

            /// The matrix it writes.
            pub fn out(&self) -> Out {
                match self { $(Self::$op(op) => op.out(),)* }
            }

            /// Bytes and FLOPs of one run in a segment of `turns` turns: the mean of them where they differ.
            pub fn cost(&self, turns: usize) -> Cost {
                match self { $(Self::$op(op) => op.cost(turns),)* }
            }

            /// Words of memory a worker needs for it.
            pub fn worker_words(&self) -> usize {
                match self { $(Self::$op(op) => op.worker_words(),)* }
            }

            /// Bytes that the op holds beside itself, weights not counted.
            pub fn heap_bytes(&self) -> usize {
                match self { $(Self::$op(op) => op.heap_bytes(),)* }
            }

            /// Computes one tile.
            pub fn tile(&self, cx: &Cx<'_>, out: TileMut<'_, f32>) {
                match self { $(Self::$op(op) => op.tile(cx, out),)* }
            }

            /// Memory for partial sums that it needs on a GPU.
            #[cfg(feature = "cuda")]
            pub(crate) fn splits(&self) -> Splits {
                match self { $(Self::$op(op) => op.splits(),)* }
            }

            /// Adds the launches of one run on a GPU.
            #[cfg(feature = "cuda")]
            pub(crate) fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
                match self { $(Self::$op(op) => op.launch(to),)* }
            }
        }
    };
}
ops!(
    Affine,
    Attention,
    AvgPool,
    Conv,
    DiffusionStep,
    GroupFactors,
    GroupNorm,
    GroupStats,
    HeadNorm,
    LayerNorm,
    Linear,
    NearestCode,
    Noise,
    SumRows,
    TokenDraw,
);

/// The function applied to each element of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(i32)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// x sigmoid(x).
    Silu,
    /// x (1 + erf(x / sqrt 2)) / 2.
    Gelu,
}

impl Activation {
    #[inline(always)]
    fn apply<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Self::Identity => x,
            Self::Silu => math::silu(s, x),
            Self::Gelu => math::gelu(s, x),
        }
    }

    /// The same to no more digits than a result needs that is rounded to bf16 or to a byte.
    #[inline(always)]
    fn apply_to_round<S: Simd>(self, s: S, x: S::V) -> S::V {
        match self {
            Self::Gelu => math::gelu_to_round(s, x),
            _ => self.apply(s, x),
        }
    }
}

/// Bytes of `n` words.
fn words(n: usize) -> u64 {
    4 * n as u64
}

#[cfg(test)]
pub(crate) mod testing;
