//! Products of rows: `out[i][j] = sum over k of a[i][k] w[j][k]`, the heart of every matrix product and convolution here.
//!
//! Both operands have `k` innermost, as weights lie in their files, so nothing is packed. A tile keeps one vector
//! accumulator an output and adds their lanes at the end. Every output is the same sum in the same order whatever
//! the tile's shape: lane l takes k = l, l + LANES, ..., then the lanes meet in the leaf's one tree.

use super::{Element, Job, Simd};
use crate::tensor::Mat;
use std::any::TypeId;
use std::ops::Range;

/// Rows of `w`: row `j` starts at `j * stride`.
#[derive(Debug, Clone, Copy)]
pub struct WeightRows<'a, W> {
    data: &'a [W],
    stride: usize,
}

impl<'a, W> WeightRows<'a, W> {
    /// Rows `stride` elements apart.
    pub fn new(data: &'a [W], stride: usize) -> Self {
        Self { data, stride }
    }

    /// The first `k` elements of row `j`.
    #[inline(always)]
    fn row(&self, j: usize, k: usize) -> &'a [W] {
        &self.data[j * self.stride..][..k]
    }
}

/// The product of `rows` of `a` with `cols` of `w`, as dense rows of `cols.len()` in `out`.
pub struct Product<'a, W> {
    /// The left operand; its width is the length of the sums.
    pub a: Mat<'a, f32>,
    /// Rows of `a` to take.
    pub rows: Range<usize>,
    /// The right operand.
    pub w: WeightRows<'a, W>,
    /// Rows of `w` to take: columns of the result.
    pub cols: Range<usize>,
    /// The result, `rows.len() * cols.len()`.
    pub out: &'a mut [f32],
    /// [`WIDE_ROWS`] rows of `k` for widened weights; may be empty for `f32`.
    pub wide: &'a mut [f32],
}

/// Rows of scratch that [`Product::wide`] needs.
pub const WIDE_ROWS: usize = 4;

/// From this many rows on, weights that are not `f32` are widened once a tile rather than once a row.
const WIDEN_FROM: usize = 8;

impl<W: Element> Job for Product<'_, W> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Product { a, rows, w, cols, out, wide } = self;
        let (k, n) = (a.layout().cols, cols.len());
        assert!(out.len() >= rows.len() * n);
        if rows.len() >= WIDEN_FROM && TypeId::of::<W>() != TypeId::of::<f32>() {
            for j in (0..n).step_by(WIDE_ROWS) {
                let some = WIDE_ROWS.min(n - j);
                for c in 0..some {
                    widen(s, w.row(cols.start + j + c, k), &mut wide[c * k..(c + 1) * k]);
                }
                let wide = WeightRows::new(wide, k);
                sweep(s, a, &rows, wide, 0..some, j, n, out);
            }
        } else {
            sweep(s, a, &rows, w, cols, 0, n, out);
        }
    }
}

/// All tiles of `rows` x `cols`; results go to columns `at..` of `out`, whose rows are `n` long.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // one loop nest, taken out because it stands twice in `run`
fn sweep<S: Simd, W: Element>(
    s: S,
    a: Mat<'_, f32>,
    rows: &Range<usize>,
    w: WeightRows<'_, W>,
    cols: Range<usize>,
    at: usize,
    n: usize,
    out: &mut [f32],
) {
    let m = rows.len();
    // Few rows take more columns a tile, so that the accumulators are always all at work.
    let height = if m >= 4 {
        4
    } else if m >= 2 {
        2
    } else {
        1
    };
    let step = S::ACCUMULATORS / height;
    for j in cols.clone().step_by(step) {
        let width = step.min(cols.end - j);
        let mut i = 0;
        while i < m {
            let mut place = |r: usize, sums: &[f32]| {
                let to = (i + r) * n + at + (j - cols.start);
                out[to..to + width].copy_from_slice(&sums[..width]);
            };
            let left = m - i;
            i += if left >= 4 && height == 4 {
                tile::<S, W, 4, 4, 2>(s, a, rows.start + i, w, j, width, &mut place)
            } else if left >= 2 && step >= S::ACCUMULATORS / 2 {
                tile::<S, W, 2, 8, 4>(s, a, rows.start + i, w, j, width, &mut place)
            } else if left >= 2 {
                tile::<S, W, 2, 4, 2>(s, a, rows.start + i, w, j, width, &mut place)
            } else if step >= S::ACCUMULATORS {
                tile::<S, W, 1, 16, 8>(s, a, rows.start + i, w, j, width, &mut place)
            } else if step >= S::ACCUMULATORS / 2 {
                tile::<S, W, 1, 8, 4>(s, a, rows.start + i, w, j, width, &mut place)
            } else {
                tile::<S, W, 1, 4, 2>(s, a, rows.start + i, w, j, width, &mut place)
            };
        }
    }
}

/// One tile of `R` rows from `i` and up to `C16` columns from `j` (`C8` for leaves of eight accumulators); gives each
/// row's sums to `place` and returns `R`.
#[inline(always)]
fn tile<S: Simd, W: Element, const R: usize, const C16: usize, const C8: usize>(
    s: S,
    a: Mat<'_, f32>,
    i: usize,
    w: WeightRows<'_, W>,
    j: usize,
    width: usize,
    place: &mut impl FnMut(usize, &[f32]),
) -> usize {
    if S::ACCUMULATORS == 16 {
        tile_of::<S, W, R, C16>(s, a, i, w, j, width, place);
    } else {
        tile_of::<S, W, R, C8>(s, a, i, w, j, width, place);
    }
    R
}

#[inline(always)]
fn tile_of<S: Simd, W: Element, const R: usize, const C: usize>(
    s: S,
    a: Mat<'_, f32>,
    i: usize,
    w: WeightRows<'_, W>,
    j: usize,
    width: usize,
    place: &mut impl FnMut(usize, &[f32]),
) {
    let k = a.layout().cols;
    let left: [&[f32]; R] = std::array::from_fn(|r| a.row(i + r));
    // Columns past the end repeat the last one; their sums are dropped.
    let right: [&[W]; C] = std::array::from_fn(|c| w.row(j + c.min(width - 1), k));
    // SAFETY: all rows are slices of k elements.
    let sums = unsafe { accumulate(s, left.map(<[f32]>::as_ptr), right.map(<[W]>::as_ptr), k) };
    let mut flat = [s.zero(); 16];
    for r in 0..R {
        for c in 0..C {
            flat[r * C + c] = sums[r][c];
        }
    }
    if R * C > 8 {
        let out = s.sums(flat);
        for r in 0..R {
            place(r, &out[r * C..(r + 1) * C]);
        }
    } else {
        let out = s.sums::<8>(std::array::from_fn(|i| flat[i]));
        for r in 0..R {
            place(r, &out[r * C..(r + 1) * C]);
        }
    }
}

/// `R x C` vector accumulators over `k` elements.
///
/// # Safety
/// Every pointer is valid for reading `k` elements.
#[inline(always)]
unsafe fn accumulate<S: Simd, W: Element, const R: usize, const C: usize>(
    s: S,
    a: [*const f32; R],
    w: [*const W; C],
    k: usize,
) -> [[S::V; C]; R] {
    let mut acc = [[s.zero(); C]; R];
    let mut at = 0;
    while at + S::LANES <= k {
        // SAFETY: at + LANES <= k elements are readable behind every pointer.
        unsafe {
            let x: [S::V; R] = std::array::from_fn(|r| s.load_ptr(a[r].add(at)));
            for c in 0..C {
                let y = W::load(s, w[c].add(at));
                for r in 0..R {
                    acc[r][c] = s.fma(x[r], y, acc[r][c]);
                }
            }
        }
        at += S::LANES;
    }
    if at < k {
        // SAFETY: k - at < LANES elements are readable behind every pointer.
        unsafe {
            let x: [S::V; R] = std::array::from_fn(|r| s.load_tail_ptr(a[r].add(at), k - at));
            for c in 0..C {
                let y = W::load_tail(s, w[c].add(at), k - at);
                for r in 0..R {
                    acc[r][c] = s.fma(x[r], y, acc[r][c]);
                }
            }
        }
    }
    acc
}

/// `to[i] = from[i]` as `f32`.
#[inline(always)]
pub fn widen<S: Simd, W: Element>(s: S, from: &[W], to: &mut [f32]) {
    assert!(to.len() >= from.len());
    let mut at = 0;
    while at + S::LANES <= from.len() {
        // SAFETY: at + LANES elements are readable in `from` and writable in `to`.
        unsafe { s.store_ptr(to.as_mut_ptr().add(at), W::load(s, from.as_ptr().add(at))) };
        at += S::LANES;
    }
    for (to, from) in to[at..].iter_mut().zip(&from[at..]) {
        *to = from.widen();
    }
}
