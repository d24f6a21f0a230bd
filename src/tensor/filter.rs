//! Filters of convolutions, in the two forms that the kernels take.

use super::packed::PANEL;
use super::{AlignedBytes, DType, Format, Matrix, Weight};
use crate::error::Result;

/// The filters of a convolution.
#[derive(Debug, Clone)]
pub enum Filter {
    /// `[cout, k k cin]`, the input channel innermost.
    Taps(Matrix),
    /// Of 3x3 filters, transformed to `G g G^T` (Lavin and Gray, 1509.09308, section 4.1): sixteen matrices
    /// `[cout, cin]` one below the other, one for each place of a 4 x 4 patch, each of a multiple of 16 rows.
    Winograd(Matrix),
}

impl Filter {
    /// The matrix of either form.
    pub fn matrix(&self) -> &Matrix {
        match self {
            Self::Taps(w) | Self::Winograd(w) => w,
        }
    }

    /// Rows of the matrix of [`Filter::Winograd`].
    pub(crate) fn winograd_rows(cout: usize) -> usize {
        16 * cout.next_multiple_of(PANEL)
    }

    /// Transforms 3x3 filters `[cout, 9 cin]` whose input channel is innermost.
    pub(crate) fn winograd(w: &Weight) -> Result<Self> {
        let (cout, cin) = (w.rows(), w.cols() / 9);
        let rows = Self::winograd_rows(cout);
        let taps = w.to_f32();
        let mut bytes = AlignedBytes::zeroed(rows * cin * 4, w.name())?;
        let to: &mut [f32] = bytemuck::cast_slice_mut(bytes.bytes_mut());
        let side = |[a, b, c]: [f32; 3]| [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c];
        for (o, taps) in taps.chunks_exact((9 * cin).max(1)).enumerate() {
            for c in 0..cin {
                let g = |y: usize, x: usize| taps[(3 * y + x) * cin + c];
                let half: [[f32; 4]; 3] = std::array::from_fn(|x| side([g(0, x), g(1, x), g(2, x)]));
                for y in 0..4 {
                    for (x, u) in side([half[0][y], half[1][y], half[2][y]]).into_iter().enumerate() {
                        to[((4 * y + x) * rows / 16 + o) * cin + c] = u;
                    }
                }
            }
        }
        let w = Weight::from_aligned(w.name(), DType::F32, &[rows, cin], bytes);
        Ok(Self::Winograd(Matrix::pack(&w, Format::F32)?))
    }
}
