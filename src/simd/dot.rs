//! Products of rows: `out[i][j] = sum over k of a[i][k] w[j][k]`, the heart of every matrix product and convolution
//! here.
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
            for at in (0..n).step_by(WIDE_ROWS) {
                let some = WIDE_ROWS.min(n - at);
                for c in 0..some {
                    widen(s, w.row(cols.start + at + c, k), &mut wide[c * k..(c + 1) * k]);
                }
                let w = WeightRows::new(wide, k);
                Sweep { a, rows: rows.clone(), w, cols: 0..some, out: &mut out[at..], stride: n }.run(s);
            }
        } else {
            Sweep { a, rows, w, cols, out, stride: n }.run(s);
        }
    }
}

/// A product cut into tiles; the rows of the result are `stride` apart.
struct Sweep<'a, W> {
    a: Mat<'a, f32>,
    rows: Range<usize>,
    w: WeightRows<'a, W>,
    cols: Range<usize>,
    out: &'a mut [f32],
    stride: usize,
}

impl<W: Element> Sweep<'_, W> {
    /// All tiles. Few rows take more columns each, so that all accumulators are always at work.
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        match (S::ACCUMULATORS, self.rows.len()) {
            (16, 4..) => self.tiles::<S, 4, 4>(s),
            (16, 2..) => self.tiles::<S, 2, 8>(s),
            (16, _) => self.tiles::<S, 1, 16>(s),
            (_, 4..) => self.tiles::<S, 4, 2>(s),
            (_, 2..) => self.tiles::<S, 2, 4>(s),
            (_, _) => self.tiles::<S, 1, 8>(s),
        }
    }

    /// Tiles of `R x C`, fewer rows at the end: column by column, so that each weight is read once from far away.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const C: usize>(&mut self, s: S) {
        for j in self.cols.clone().step_by(C) {
            let mut i = self.rows.start;
            while i + R <= self.rows.end {
                self.tile::<S, R, C>(s, i, j);
                i += R;
            }
            if R == 4 && i + 2 <= self.rows.end {
                self.tile::<S, 2, C>(s, i, j);
                i += 2;
            }
            while i < self.rows.end {
                self.tile::<S, 1, C>(s, i, j);
                i += 1;
            }
        }
    }

    /// The tile of `R` rows from `i` and up to `C` columns from `j`.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const C: usize>(&mut self, s: S, i: usize, j: usize) {
        let k = self.a.layout().cols;
        let width = C.min(self.cols.end - j);
        let left: [&[f32]; R] = std::array::from_fn(|r| self.a.row(i + r));
        // Columns past the end repeat the last one; their sums are dropped.
        let right: [&[W]; C] = std::array::from_fn(|c| self.w.row(j + c.min(width - 1), k));
        // SAFETY: all rows are slices of k elements.
        let sums = unsafe { accumulate(s, left.map(<[f32]>::as_ptr), right.map(<[W]>::as_ptr), k) };
        // By index, not by iterator: so the compiler keeps all accumulators in registers.
        let flat: [S::V; 16] = std::array::from_fn(|i| if i < R * C { sums[i / C][i % C] } else { s.zero() });
        let mut put = |sums: &[f32]| {
            for r in 0..R {
                let to = (i + r - self.rows.start) * self.stride + (j - self.cols.start);
                self.out[to..to + width].copy_from_slice(&sums[r * C..r * C + width]);
            }
        };
        if R * C > 8 { put(&s.sums(flat)) } else { put(&s.sums::<8>(std::array::from_fn(|i| flat[i]))) }
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
