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

/// Blocks that keep a large GPU busy: some for each of 132 multiprocessors. All GPUs get the same grids, so that they add up
/// in the same order.
const BLOCKS: usize = 264;

/// In how many runs of K `tiles` tiles are added up: as many as fill the GPU, none shorter than `least`. With the memory for
/// that, `each` numbers a tile.
pub(super) fn split(tiles: usize, k: usize, least: usize, each: usize) -> (usize, Splits) {
    match BLOCKS.div_ceil(tiles.max(1)).min(k / least) {
        0 | 1 => (1, Splits::default()),
        splits => (splits, Splits { partial: tiles * splits * each, tickets: tiles }),
    }
}

/// How a bf16 product of many rows is cut.
pub(super) struct Tall {
    /// In tiles of 128 x 128, else of 64 x 64.
    pub(super) large: bool,
    pub(super) grid: [usize; 3],
    /// Runs of K, each summed by a block of its own.
    pub(super) splits: usize,
    pub(super) memory: Splits,
}

impl Tall {
    /// Of `rows` rows, so many panels of columns, and `k` numbers each.
    pub(super) fn of(panels: usize, rows: usize, k: usize) -> Self {
        let tiles = panels.div_ceil(8) * rows.div_ceil(128);
        if 2 * tiles >= BLOCKS {
            return Self { large: true, grid: [tiles, 1, 1], splits: 1, memory: Splits::default() };
        }
        let [tiles, ..] = Self::small(panels, rows);
        let (splits, memory) = split(tiles, k, 128, 64 * 64);
        Self { large: false, grid: [tiles, 1, splits], splits, memory }
    }

    /// The grid of tiles of 64 x 64.
    pub(super) fn small(panels: usize, rows: usize) -> [usize; 3] {
        [panels.div_ceil(4) * rows.div_ceil(64), 1, 1]
    }
}
