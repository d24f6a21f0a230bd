//! Pixels.

use crate::error::{Error, Result};
use crate::tensor::{Mat, collected};

/// An RGB picture, 8 bits a channel, line by line from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Image {
    /// A picture from its bytes, `width * height * 3` of them.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if bytes != Some(rgb.len()) || rgb.is_empty() {
            let expected = format!("{width} x {height} x 3 bytes, more than none");
            return Err(Error::input("image", expected, format!("{} bytes", rgb.len())));
        }
        Ok(Self { width, height, rgb })
    }

    /// Pixels a line.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Lines.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: red, green and blue of each pixel.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// A copy; unlike `clone` an error where there is no memory for it.
    pub(super) fn copied(&self) -> Result<Self> {
        Ok(Self { rgb: collected("a picture", self.rgb.len(), self.rgb.iter().copied())?, ..*self })
    }

    /// Peak signal-to-noise ratio against a picture of the same size, in dB; infinite for the same picture.
    pub fn psnr(&self, other: &Self) -> Result<f64> {
        if (self.width, self.height) != (other.width, other.height) {
            let found = format!("{} x {}", other.width, other.height);
            return Err(Error::input("image", format!("{} x {} pixels", self.width, self.height), found));
        }
        let pairs = self.rgb.iter().zip(&other.rgb);
        let squares: f64 = pairs.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        Ok(10.0 * (255.0 * 255.0 / (squares / self.rgb.len() as f64)).log10())
    }

    /// This picture where `mask` says so, `other` elsewhere. All of one size.
    pub(crate) fn where_masked(mut self, mask: &[bool], other: &Self) -> Self {
        let pixels = self.rgb.chunks_exact_mut(3).zip(other.rgb.chunks_exact(3)).zip(mask);
        pixels.filter(|(_, masked)| !**masked).for_each(|((to, from), _)| to.copy_from_slice(from));
        self
    }

    /// The picture of pixels `[P, 3]`, P square, nominally from `low` to `high`; rounded half up, clamped.
    pub(super) fn from_pixels(
        pixels: Mat<'_, f32>,
        rows: std::ops::Range<usize>,
        (low, high): (f32, f32),
    ) -> Result<Self> {
        let (side, bytes) = (rows.len().isqrt(), rows.len() * pixels.layout().cols);
        let scale = 255.0 / (high - low);
        let byte = |x: &f32| ((x.clamp(low, high) - low) * scale + 0.5).floor() as u8;
        let rgb = collected("an image", bytes, rows.flat_map(|i| pixels.row(i)).map(byte))?;
        Ok(Self { width: side, height: side, rgb })
    }

    /// The bytes as numbers from `low` to `high`.
    pub(super) fn to_pixels(&self, (low, high): (f32, f32)) -> Result<Vec<f32>> {
        let numbers = self.rgb.iter().map(|&x| f32::from(x) / 255.0 * (high - low) + low);
        collected("the pixels of an image", self.rgb.len(), numbers)
    }
}
