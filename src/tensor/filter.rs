//! Filters of convolutions, in the two forms that the kernels take.

use super::packed::PANEL;
use super::{AlignedBytes, DType, Elements, Format, Matrix, Weight};
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

    /// The filters `[cout, k k cin]` in f32: of [`Filter::Winograd`] to some 2 roundings of the largest tap.
    #[cfg(feature = "cuda")]
    pub(crate) fn taps(&self, cout: usize) -> Result<Matrix> {
        let w = match self {
            Self::Taps(w) => return Ok(w.clone()),
            Self::Winograd(w) => w,
        };
        let (cin, u, each) = (w.cols(), w.to_f32(), w.rows() / 16);
        let mut bytes = AlignedBytes::zeroed(cout * 9 * cin * 4, w.name())?;
        let to: &mut [f32] = bytemuck::cast_slice_mut(bytes.bytes_mut());
        // `side` of `transform`, the other way.
        let back = |u: [f32; 4]| [u[0], u[1] - u[2], u[3]];
        for (o, taps) in to.chunks_exact_mut((9 * cin).max(1)).enumerate() {
            for c in 0..cin {
                let u = |y: usize, x: usize| u[((4 * y + x) * each + o) * cin + c];
                let half: [[f32; 3]; 4] = std::array::from_fn(|y| back([u(y, 0), u(y, 1), u(y, 2), u(y, 3)]));
                for x in 0..3 {
                    let column = back([half[0][x], half[1][x], half[2][x], half[3][x]]);
                    column.into_iter().enumerate().for_each(|(y, tap)| taps[(3 * y + x) * cin + c] = tap);
                }
            }
        }
        Matrix::pack(&Weight::from_aligned(w.name(), DType::F32, &[cout, 9 * cin], bytes), Format::F32)
    }

    /// Transforms 3x3 filters `[cout, 9 cin]` whose input channel is innermost.
    pub(crate) fn winograd(w: &Weight) -> Result<Self> {
        let (cout, cin) = (w.rows(), w.cols() / 9);
        let rows = Self::winograd_rows(cout);
        let mut bytes = AlignedBytes::zeroed(rows * cin * 4, w.name())?;
        let to: &mut [f32] = bytemuck::cast_slice_mut(bytes.bytes_mut());
        match w.elements() {
            Elements::F32(taps) => transform(taps, |tap| tap, cin, rows, to),
            Elements::F16(taps) => transform(taps, |tap| tap.to_f32(), cin, rows, to),
            Elements::BF16(taps) => transform(taps, |tap| tap.to_f32(), cin, rows, to),
        }
        let w = Weight::from_aligned(w.name(), DType::F32, &[rows, cin], bytes);
        Ok(Self::Winograd(Matrix::pack(&w, Format::F32)?))
    }
}

/// The filters of [`Filter::winograd`], read as `number` says: `rows / 16` rows of `cin` for each place of a patch.
fn transform<T: Copy>(taps: &[T], number: impl Fn(T) -> f32, cin: usize, rows: usize, to: &mut [f32]) {
    let side = |[a, b, c]: [f32; 3]| [a, (a + b + c) * 0.5, (a - b + c) * 0.5, c];
    for (o, taps) in taps.chunks_exact((9 * cin).max(1)).enumerate() {
        for c in 0..cin {
            let g = |y: usize, x: usize| number(taps[(3 * y + x) * cin + c]);
            let half: [[f32; 4]; 3] = std::array::from_fn(|x| side([g(0, x), g(1, x), g(2, x)]));
            for y in 0..4 {
                for (x, u) in side([half[0][y], half[1][y], half[2][y]]).into_iter().enumerate() {
                    to[((4 * y + x) * rows / 16 + o) * cin + c] = u;
                }
            }
        }
    }
}
