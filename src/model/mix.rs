//! Weighted classes where one class could stand.

use crate::error::Result;
use crate::ops::Source;
use crate::plan::{Builder, View};
use crate::tensor::Weight;

/// The classes of a mix by their rows in a table of embeddings, for N sequences.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// `[N, J]` of i32
    pub ids: View,
    /// `[N, J]`; classes of weight 0 do not count.
    pub weights: View,
}

impl Mix {
    /// Buffers for `classes` classes in each of `rows` sequences.
    pub fn new(b: &mut Builder, rows: usize, classes: usize) -> Result<Self> {
        Ok(Self { ids: b.kept(rows, classes)?, weights: b.kept(rows, classes)? })
    }

    /// The weighted sums of rows of `table`, of what `of` makes of the views.
    pub fn source(&self, table: &Weight, of: impl Fn(View) -> View) -> Source {
        Source::Mix { table: table.clone(), ids: of(self.ids), weights: of(self.weights) }
    }
}
