//! Many pictures on one sheet, with their names.

use crate::output::scaled;
use discon::{Error, Image, Result};
use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::iso_8859_1::{FONT_6X10, FONT_9X15, FONT_10X20};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::text::{Baseline, Text};
use image::{Rgb, RgbImage};
use std::convert::Infallible;

/// Pixels between pictures.
const GAP: usize = 4;
/// The longest label, in characters.
const LONGEST: usize = 28;
/// The largest picture, in bytes.
const LARGEST: usize = 1 << 30;
/// Pictures smaller than this are enlarged on sheets.
const READABLE: usize = 128;

/// Where each picture and each label goes.
#[derive(Debug)]
pub(crate) struct Sheet {
    width: usize,
    height: usize,
    scale: usize,
    font: &'static MonoFont<'static>,
    labels: Vec<(Point, String)>,
    places: Vec<(usize, usize)>,
}

/// How large pictures of `size` pixels a side are shown on a sheet, unless the user says so.
pub(crate) fn default_scale(size: usize) -> usize {
    (READABLE / size.max(1)).max(1)
}

/// Refuses a picture alone, of `size` pixels a side, that is too large when it is enlarged.
pub(crate) fn check_alone(size: usize, scale: usize) -> Result<()> {
    let side = size.saturating_mul(scale);
    fits("the picture", side, side, "take a smaller --scale")
}

fn fits(what: &str, width: usize, height: usize, instead: &str) -> Result<()> {
    let bytes = width.checked_mul(height).and_then(|n| n.checked_mul(3)).unwrap_or(usize::MAX);
    if bytes <= LARGEST {
        return Ok(());
    }
    let reason = format!("more than {LARGEST} for one picture; {instead}");
    Err(Error::Memory { what: what.to_owned(), bytes: bytes as u64, reason })
}

impl Sheet {
    /// A line of pictures for each name, which stands at its left; lines of more than `columns` go on below.
    pub(crate) fn lines(lines: &[(String, usize)], columns: usize, size: usize, scale: usize) -> Result<Self> {
        let (cell, font, columns) = (size.saturating_mul(scale), font(size.saturating_mul(scale)), columns.max(1));
        let names: Vec<String> = lines.iter().map(|(name, _)| shortened(name)).collect();
        let left = text_width(font, names.iter()) + 2 * GAP;
        let step = cell.saturating_add(GAP);
        let (mut labels, mut places, mut line) = (Vec::new(), Vec::new(), 0);
        for (name, (_, count)) in names.into_iter().zip(lines) {
            let y = GAP + line * step + cell.saturating_sub(text_height(font)) / 2;
            labels.push((point(GAP, y), name));
            places.extend((0..*count).map(|i| (left + i % columns * step, GAP + (line + i / columns) * step)));
            line += count.div_ceil(columns);
        }
        let widest = lines.iter().map(|(_, count)| *count).max().unwrap_or(0).min(columns);
        Self { width: left + widest * step, height: GAP + line * step, scale, font, labels, places }.checked()
    }

    /// A grid of pictures, each below its name.
    pub(crate) fn captioned(names: &[String], columns: usize, size: usize, scale: usize) -> Result<Self> {
        let (cell, font, columns) = (size.saturating_mul(scale), font(size.saturating_mul(scale)), columns.max(1));
        let names: Vec<String> = names.iter().map(|name| shortened(name)).collect();
        let above = text_height(font) + 2;
        let (across, down) = (cell.max(text_width(font, names.iter())) + GAP, cell + above + GAP);
        let corner = |i: usize| (GAP + i % columns * across, GAP + i / columns * down);
        let lines = names.len().div_ceil(columns);
        let places = (0..names.len()).map(corner).map(|(x, y)| (x, y + above)).collect();
        let width = GAP + names.len().min(columns) * across;
        let labels = names.into_iter().enumerate().map(|(i, name)| (point(corner(i).0, corner(i).1), name)).collect();
        Self { width, height: GAP + lines * down, scale, font, labels, places }.checked()
    }

    fn checked(self) -> Result<Self> {
        fits("the grid", self.width, self.height, "take fewer, a smaller --scale, or a folder as --out").map(|()| self)
    }

    /// The sheet with those pictures that are there.
    pub(crate) fn draw(&self, pictures: &[Option<Image>]) -> RgbImage {
        let mut canvas = Canvas(RgbImage::from_pixel(self.width as u32, self.height as u32, Rgb([255; 3])));
        for (picture, &(x, y)) in pictures.iter().zip(&self.places) {
            if let Some(picture) = picture {
                image::imageops::replace(&mut canvas.0, &scaled(picture, self.scale), x as i64, y as i64);
            }
        }
        let style = MonoTextStyle::new(self.font, Rgb888::BLACK);
        for (at, text) in &self.labels {
            // Drawing on this canvas cannot fail.
            let _ = Text::with_baseline(text, *at, style, Baseline::Top).draw(&mut canvas);
        }
        canvas.0
    }
}

fn font(cell: usize) -> &'static MonoFont<'static> {
    match cell {
        0..128 => &FONT_6X10,
        128..256 => &FONT_9X15,
        _ => &FONT_10X20,
    }
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(LONGEST) {
        Some(_) => name.chars().take(LONGEST - 2).chain("..".chars()).collect(),
        None => name.to_owned(),
    }
}

fn text_width<'a>(font: &MonoFont<'_>, names: impl Iterator<Item = &'a String>) -> usize {
    let each = font.character_size.width + font.character_spacing;
    names.map(|name| name.chars().count()).max().unwrap_or(0) * each as usize
}

fn text_height(font: &MonoFont<'_>) -> usize {
    font.character_size.height as usize
}

fn point(x: usize, y: usize) -> Point {
    Point::new(i32::try_from(x).unwrap_or(i32::MAX), i32::try_from(y).unwrap_or(i32::MAX))
}

/// A picture to letter on.
struct Canvas(RgbImage);

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Infallible> {
        for Pixel(at, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(at.x), u32::try_from(at.y)) else { continue };
            if let Some(pixel) = self.0.get_pixel_mut_checked(x, y) {
                *pixel = Rgb([color.r(), color.g(), color.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_alone_have_the_limit_of_sheets() {
        assert!(check_alone(8, 64).is_ok() && check_alone(256, 64).is_ok());
        for (size, scale) in [(512, 64), (8192, 3), (usize::MAX, 64)] {
            let told = check_alone(size, scale).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(told.starts_with("the picture needs ") && told.contains("--scale"), "{size} by {scale}: {told}");
        }
    }
}
