//! Strided matrices over borrowed memory, and the disjoint tiles through which several threads write one.

use std::marker::PhantomData;
use std::ops::Range;

/// How the rows of a matrix lie in a flat buffer: `groups` times `rows` rows of `cols` elements. A plain matrix has one
/// group; the q, k and v of a batch, or the same places of every image, have one group an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Groups of rows.
    pub groups: usize,
    /// Rows a group.
    pub rows: usize,
    /// Elements a row.
    pub cols: usize,
    /// Elements from one group's first row to the next's.
    pub group_stride: usize,
    /// Elements from one row to the next.
    pub row_stride: usize,
}

impl Layout {
    /// `rows` rows of `cols` elements, one behind the other.
    pub const fn dense(rows: usize, cols: usize) -> Self {
        Self { groups: 1, rows, cols, group_stride: rows * cols, row_stride: cols }
    }

    /// Rows in all groups.
    pub const fn count(&self) -> usize {
        self.groups * self.rows
    }

    /// Elements from the first to behind the last; 0 for an empty matrix, [`usize::MAX`] for one that no memory holds. Where
    /// it is less, no row starts or ends beyond it.
    pub const fn extent(&self) -> usize {
        if self.groups == 0 || self.rows == 0 || self.cols == 0 {
            return 0;
        }
        let groups = (self.groups - 1).saturating_mul(self.group_stride);
        groups.saturating_add((self.rows - 1).saturating_mul(self.row_stride)).saturating_add(self.cols)
    }

    /// Where row `i`, counted through all groups, starts.
    #[inline(always)]
    pub const fn start(&self, i: usize) -> usize {
        if self.groups == 1 {
            i * self.row_stride
        } else {
            i / self.rows * self.group_stride + i % self.rows * self.row_stride
        }
    }

    /// The parts of `rows` (counted through all groups) that lie in one group each: the group and the rows in it.
    pub fn by_group(self, rows: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let mut at = rows.start;
        std::iter::from_fn(move || {
            (at < rows.end).then(|| {
                let group = at / self.rows;
                let (from, end) = (at, rows.end.min((group + 1) * self.rows));
                at = end;
                (group, from - group * self.rows..end - group * self.rows)
            })
        })
    }

    /// Whether no two rows share an element: what a matrix that is written must be.
    pub const fn is_disjoint(&self) -> bool {
        let within = self.rows <= 1 || self.row_stride >= self.cols;
        let group = if self.rows == 0 { 0 } else { (self.rows - 1) * self.row_stride + self.cols };
        // Groups behind each other, or groups woven between the rows (heads side by side).
        let across = self.groups <= 1
            || self.group_stride >= group
            || (self.group_stride >= self.cols && (self.groups - 1) * self.group_stride + self.cols <= self.row_stride);
        within && across
    }
}

/// A matrix that is read.
#[derive(Debug, Clone, Copy)]
pub struct Mat<'a, T> {
    data: &'a [T],
    layout: Layout,
}

impl<'a, T> Mat<'a, T> {
    /// A matrix over `data`. Panics if the layout reaches past it.
    pub fn new(data: &'a [T], layout: Layout) -> Self {
        assert!(layout.extent() <= data.len(), "{layout:?} over {} elements", data.len());
        Self { data, layout }
    }

    /// The layout.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// The same matrix, its elements read as `U`, of the same size.
    pub fn cast<U: bytemuck::Pod>(self) -> Mat<'a, U>
    where
        T: bytemuck::Pod,
    {
        Mat { data: bytemuck::cast_slice(self.data), layout: self.layout }
    }

    /// The columns `cols` of all rows.
    pub fn columns(&self, cols: Range<usize>) -> Self {
        assert!(cols.end <= self.layout.cols);
        let data = if self.layout.extent() == 0 { self.data } else { &self.data[cols.start..] };
        Self { data, layout: Layout { cols: cols.len(), ..self.layout } }
    }

    /// The elements from the first row of group `g` on.
    pub fn group(&self, g: usize) -> &'a [T] {
        &self.data[g * self.layout.group_stride..]
    }

    /// Row `i`, counted through all groups.
    #[inline(always)]
    pub fn row(&self, i: usize) -> &'a [T] {
        let start = self.layout.start(i);
        &self.data[start..start + self.layout.cols]
    }
}

/// A rectangle of a matrix that one thread writes while others write other rectangles.
#[derive(Debug)]
pub struct TileMut<'a, T> {
    base: *mut T,
    layout: Layout,
    rows: Range<usize>,
    cols: Range<usize>,
    life: PhantomData<&'a mut [T]>,
}

// SAFETY: a tile is an exclusive borrow of its elements, as `&mut [T]` is.
unsafe impl<T: Send> Send for TileMut<'_, T> {}

impl<'a, T> TileMut<'a, T> {
    /// The rectangle `rows` x `cols` of the matrix of that layout at `base`.
    ///
    /// # Safety
    /// For `'a`, nobody else reads or writes the rectangle's elements, which all lie in one allocation at `base`:
    /// [`Layout::extent`] elements do, and `rows` and `cols` are inside the layout. The layout
    /// [is disjoint](Layout::is_disjoint).
    pub unsafe fn new(base: *mut T, layout: Layout, rows: Range<usize>, cols: Range<usize>) -> Self {
        debug_assert!(layout.is_disjoint() && rows.end <= layout.count() && cols.end <= layout.cols);
        Self { base, layout, rows, cols, life: PhantomData }
    }

    /// A tile that is a whole dense matrix: for tests and for callers with memory of their own.
    pub fn whole(data: &'a mut [T], cols: usize) -> Self {
        let layout = Layout::dense(data.len() / cols.max(1), cols);
        let rows = 0..layout.rows;
        // SAFETY: the borrow of `data` is exclusive for 'a and covers the layout.
        unsafe { Self::new(data.as_mut_ptr(), layout, rows, 0..cols) }
    }

    /// Rows of the matrix that the tile covers, counted through all groups.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// Columns of the matrix that the tile covers.
    pub fn cols(&self) -> Range<usize> {
        self.cols.clone()
    }

    /// The same tile, its elements read as `U`, of the same size.
    pub fn cast<U: bytemuck::Pod>(self) -> TileMut<'a, U>
    where
        T: bytemuck::Pod,
    {
        const { assert!(size_of::<T>() == size_of::<U>() && align_of::<T>() == align_of::<U>()) };
        let Self { base, layout, rows, cols, .. } = self;
        TileMut { base: base.cast(), layout, rows, cols, life: PhantomData }
    }

    /// The tile's part of row `i` of the matrix. Panics if the tile does not cover that row.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [T] {
        assert!(self.rows.contains(&i));
        // SAFETY: the row and the columns are inside the rectangle that this tile borrows exclusively (`new`), so the start
        // is below the layout's extent and does not wrap.
        unsafe {
            std::slice::from_raw_parts_mut(self.base.add(self.layout.start(i) + self.cols.start), self.cols.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_that_share_elements_are_found() {
        let heads = Layout { groups: 3, rows: 5, cols: 4, group_stride: 4, row_stride: 12 };
        assert!(heads.is_disjoint() && Layout::dense(7, 3).is_disjoint());
        assert!(Layout { groups: 2, rows: 5, cols: 4, group_stride: 60, row_stride: 12 }.is_disjoint());
        assert!(!Layout { groups: 4, ..heads }.is_disjoint());
        assert!(!Layout { row_stride: 3, groups: 1, ..heads }.is_disjoint());
        assert!(!Layout { groups: 2, rows: 5, cols: 4, group_stride: 16, row_stride: 4 }.is_disjoint());
    }

    #[test]
    fn rows_of_groups_start_where_the_strides_say() {
        let data: Vec<usize> = (0..40).collect();
        let m = Mat::new(&data, Layout { groups: 2, rows: 3, cols: 2, group_stride: 20, row_stride: 5 });
        assert_eq!((0..6).map(|i| m.row(i)[1]).collect::<Vec<_>>(), [1, 6, 11, 21, 26, 31]);
    }
}
