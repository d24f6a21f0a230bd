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

/// Rows up to which a product has kernels of few rows.
pub(super) const FEW: usize = 32;

/// Blocks that keep a large GPU busy: some for each of 132 multiprocessors. All GPUs get the same grids, so that those of one
/// generation add up in the same order.
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

/// How a bf16 product of many rows is cut for Hopper's `wgmma`, in tiles of 128 outputs by 256 rows: none of one that does not
/// keep three quarters of 132 multiprocessors busy, or not for long, nor of few rows, which would leave most of a tile empty.
pub(super) fn wide(panels: usize, rows: usize, k: usize) -> Option<[usize; 3]> {
    const TILES: usize = 99;
    const NUMBERS: usize = 256;
    let tiles = panels.div_ceil(8) * rows.div_ceil(256);
    (rows > FEW && tiles >= TILES && k >= NUMBERS).then_some([tiles, 1, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_products_alone_are_for_wgmma() {
        assert_eq!(wide(256, 4096, 4096), Some([32 * 16, 1, 1]));
        assert_eq!(wide(88, 9 * 256, 256), Some([99, 1, 1]));
        assert_eq!([wide(192, 512, 768), wide(88, 8 * 256, 256), wide(256, 4096, 255)], [None; 3]);
        // However many outputs there are, few rows are for the kernels of few rows.
        assert_eq!([2, 32, 33].map(|rows| wide(792, rows, 4096)), [None, None, Some([99, 1, 1])]);
    }

    /// A grid takes 2^31 - 1 blocks across and 65535 in the other directions: 64 pictures of 512 x 512 in f32 among them.
    #[test]
    fn grids_of_products_have_room_for_all_rows_that_a_batch_brings() {
        for (panels, rows, k) in [(8, 64 << 16, 1152), (16, 64 << 18, 1152), (1, 64 << 18, 1152), (192, 64 * 576, 768)]
        {
            for grid in [Tall::of(panels, rows, k).grid, Tall::small(panels, rows)] {
                let [x, y, z] = grid;
                assert!(x < 1 << 31 && y < 1 << 16 && z < 1 << 16, "{panels} {rows}: {grid:?}");
            }
        }
    }
}
