//! What the ops' launches have in common.

pub(super) use crate::cuda::abi;
pub(super) use crate::error::Result;
pub(super) use crate::plan::gpu::{Launcher, Splits, small};

use crate::plan::View;

/// Blocks of a kernel that computes `out` in pieces of four numbers, a thread each.
pub(super) fn pieces(out: &View) -> [usize; 3] {
    /// More would only start later.
    const MOST: usize = 1 << 16;
    [(out.count() * out.cols().div_ceil(4)).div_ceil(256).clamp(1, MOST), 1, 1]
}
