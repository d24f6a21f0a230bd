//! Where an op's matrix lies in the arena.

use crate::tensor::Layout;
use std::ops::Range;

/// The memories that an arena reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Keeps its contents from the plan's start to its end.
    Kept,
    /// Given to one op after the other.
    Scratch,
    /// A block of this number in [`Plan::shared`](super::Plan::shared): written by the segment that makes it, only read
    /// by all others.
    Shared(usize),
}

/// A strided matrix of 4-byte words in the arena, whose start moves by `step` each turn of its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Which memory.
    pub space: Space,
    /// First word in turn 0.
    pub at: usize,
    /// Words by which the start moves each turn.
    pub step: usize,
    /// How the rows lie.
    pub layout: Layout,
}

impl View {
    /// The view's words in turn `turn`: from the first to behind the last. What no memory reaches ends at [`usize::MAX`].
    pub fn span(&self, turn: usize) -> Range<usize> {
        let at = self.at.saturating_add(turn.saturating_mul(self.step));
        at..at.saturating_add(self.layout.extent())
    }

    /// Rows in all groups.
    pub fn count(&self) -> usize {
        self.layout.count()
    }

    /// Elements a row.
    pub fn cols(&self) -> usize {
        self.layout.cols
    }

    /// The same words, one group for each of `groups` equal runs of rows. The view must be one dense group.
    pub fn grouped(self, groups: usize) -> Self {
        let l = self.layout;
        assert!(l.groups == 1 && groups > 0 && l.rows.is_multiple_of(groups), "{self:?} in {groups} groups");
        let rows = l.rows / groups;
        Self { layout: Layout { groups, rows, group_stride: rows * l.row_stride, ..l }, ..self }
    }

    /// Rows `rows` of each group.
    pub fn rows(self, rows: Range<usize>) -> Self {
        let l = self.layout;
        assert!(rows.start <= rows.end && rows.end <= l.rows, "rows {rows:?} of {self:?}");
        Self { at: self.at + rows.start * l.row_stride, layout: Layout { rows: rows.len(), ..l }, ..self }
    }

    /// Columns `cols` of each row.
    pub fn columns(self, cols: Range<usize>) -> Self {
        let l = self.layout;
        assert!(cols.start <= cols.end && cols.end <= l.cols, "columns {cols:?} of {self:?}");
        Self { at: self.at + cols.start, layout: Layout { cols: cols.len(), ..l }, ..self }
    }

    /// Groups `groups` only.
    pub fn groups(self, groups: Range<usize>) -> Self {
        let l = self.layout;
        assert!(groups.start <= groups.end && groups.end <= l.groups, "groups {groups:?} of {self:?}");
        Self { at: self.at + groups.start * l.group_stride, layout: Layout { groups: groups.len(), ..l }, ..self }
    }

    /// The start moved by `words`.
    pub fn offset(self, words: usize) -> Self {
        Self { at: self.at + words, ..self }
    }

    /// The start moves by `words` each turn.
    pub fn stepping(self, words: usize) -> Self {
        Self { step: words, ..self }
    }

    /// Another layout from the same start.
    pub fn relaid(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The one dense group of rows read as `groups` times the same: for a source that several groups share.
    pub fn repeated(self, groups: usize) -> Self {
        assert_eq!(self.layout.groups, 1, "{self:?}");
        Self { layout: Layout { groups, group_stride: 0, ..self.layout }, ..self }
    }

    /// Each of the rows read `times` times, one group a row.
    pub fn each_repeated(self, times: usize) -> Self {
        let l = self.layout;
        assert_eq!(l.groups, 1, "{self:?}");
        let layout = Layout { groups: l.rows, rows: times, group_stride: l.row_stride, row_stride: 0, ..l };
        Self { layout, ..self }
    }

    /// Whether the rows lie one behind the other through all groups.
    pub fn is_dense(&self) -> bool {
        let l = self.layout;
        l.row_stride == l.cols && (l.groups == 1 || l.group_stride == l.rows * l.cols)
    }
}
