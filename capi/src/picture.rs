//! Pixels in and out.

use crate::sized::{self, size_first};
use crate::status::{Failure, Result, Status, free, get, guard, put, room_for, slice, slice_mut};
use discon::{Error, Image as Picture};
use std::borrow::Cow;

/// How pixels lie: 8 bits a channel.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// Red, green, blue.
    Rgb = 0,
    /// Red, green, blue, alpha: written as 255, not read.
    Rgba = 1,
}

/// A picture that somebody else holds, line by line from the top: for reading.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Image {
    /// Bytes of this struct: what `discon_image_init` puts here.
    pub size: usize,
    /// Pixels a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
    /// The pixels.
    pub pixels: *const u8,
    /// Bytes from a line to the next; 0 is as many as a line has.
    pub stride: usize,
    /// A discon_format.
    pub format: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Image, "image", { width: 0, height: 0, pixels: std::ptr::null(), stride: 0, format: 0, reserved: 0 });

/// Memory of the caller for a picture: for writing.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Target {
    /// Bytes of this struct: what `discon_target_init` puts here.
    pub size: usize,
    /// Where the picture goes, line by line from the top.
    pub pixels: *mut u8,
    /// Bytes that are there: at least what the picture needs.
    pub length: usize,
    /// Bytes from a line to the next; 0 is as many as a line has. What lies between two lines is left as it is.
    pub stride: usize,
    /// A discon_format.
    pub format: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Target, "target", { pixels: std::ptr::null_mut(), length: 0, stride: 0, format: 0, reserved: 0 });

/// Pictures that the library holds.
pub struct Images<'a>(pub(crate) Cow<'a, [Picture]>);

impl From<Vec<Picture>> for Images<'_> {
    fn from(pictures: Vec<Picture>) -> Self {
        Self(Cow::Owned(pictures))
    }
}

/// Bytes of a pixel.
fn channels(format: u32) -> Result<usize> {
    match format {
        0 => Ok(3),
        1 => Ok(4),
        _ => Err(Error::input("format", "a discon_format", format).into()),
    }
}

/// Bytes of a line, from a line to the next, and in all.
fn lines(width: usize, height: usize, channels: usize, stride: usize) -> Result<(usize, usize, usize)> {
    let line = width.checked_mul(channels);
    let stride = if stride == 0 { line } else { Some(stride) };
    let all = line.zip(stride).filter(|(line, stride)| line <= stride && *line > 0 && height > 0);
    let all = all.and_then(|(line, stride)| Some((line, stride, stride.checked_mul(height - 1)?.checked_add(line)?)));
    all.ok_or_else(|| {
        let found = format!("{width} x {height}, lines {} bytes apart", stride.unwrap_or(0));
        Error::input("picture", "pixels, and lines that do not overlap", found).into()
    })
}

/// A picture of the caller, for a model whose images have `side` pixels a side: a larger one is refused before it is copied.
///
/// # Safety
/// As of [`sized::read`], and `pixels` is null or valid for reads of what it says.
pub(crate) unsafe fn read(from: *const Image, side: usize) -> Result<Picture> {
    // SAFETY: as the caller says.
    let given = unsafe { sized::read(from)? };
    sized::reserved(&given, given.reserved)?;
    let channels = channels(given.format)?;
    let (line, stride, all) = lines(given.width, given.height, channels, given.stride)?;
    if given.width > side || given.height > side {
        let found = format!("{} x {}", given.width, given.height);
        return Err(Error::input("image", format!("{side} x {side} pixels at most"), found).into());
    }
    // SAFETY: as the caller says.
    let bytes = unsafe { slice(given.pixels, all, "pixels")? };
    let mut rgb = room_for(given.width * given.height * 3, "a picture")?;
    for bytes in bytes.chunks(stride).take(given.height) {
        bytes[..line].chunks_exact(channels).for_each(|pixel| rgb.extend_from_slice(&pixel[..3]));
    }
    Ok(Picture::new(given.width, given.height, rgb)?)
}

/// Copies a picture into the caller's memory.
///
/// # Safety
/// As of [`sized::read`], and `pixels` is null or valid for writes of what it says, by nobody else.
pub(crate) unsafe fn write(picture: &Picture, to: *const Target) -> Result<()> {
    // SAFETY: as the caller says.
    let given = unsafe { sized::read(to)? };
    sized::reserved(&given, given.reserved)?;
    let channels = channels(given.format)?;
    let (line, stride, all) = lines(picture.width(), picture.height(), channels, given.stride)?;
    if given.length < all {
        return Err(Error::input("target", format!("at least {all} bytes"), given.length).into());
    }
    // SAFETY: as the caller says.
    let bytes = unsafe { slice_mut(given.pixels, all, "pixels")? };
    for (to, from) in bytes.chunks_mut(stride).zip(picture.rgb().chunks_exact(picture.width() * 3)) {
        for (to, from) in to[..line].chunks_exact_mut(channels).zip(from.chunks_exact(3)) {
            to[..3].copy_from_slice(from);
            to[3..].fill(u8::MAX);
        }
    }
    Ok(())
}

/// A picture of several, by its number.
pub(crate) fn pick(pictures: &[Picture], index: usize) -> Result<&Picture> {
    pictures
        .get(index)
        .ok_or_else(|| Failure::Engine(Error::input("image", format!("a number below {}", pictures.len()), index)))
}

/// Makes a picture of `size` bytes (`sizeof`) without pixels.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_image_init(image: *mut Image, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(image, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a target of `size` bytes (`sizeof`) without memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_target_init(target: *mut Target, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(target, size, &sized::SizeFirst::DEFAULT) })
}

/// How many pictures there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_images_count(images: *const Images, count: *mut usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { put(count, "count", get(images, "images")?.0.len()) })
}

/// Shows a picture: RGB, without gaps between lines, there until `images` is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_images_get(images: *const Images, index: usize, image: *mut Image) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let picture = pick(&unsafe { get(images, "images")? }.0, index)?;
        let shown = Image {
            size: 0,
            width: picture.width(),
            height: picture.height(),
            pixels: picture.rgb().as_ptr(),
            stride: picture.width() * 3,
            format: Format::Rgb as u32,
            reserved: 0,
        };
        // SAFETY: as the header asks.
        unsafe { sized::write(image, &shown) }
    })
}

/// Copies a picture into the caller's memory.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_images_copy(images: *const Images, index: usize, target: *const Target) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { write(pick(&get(images, "images")?.0, index)?, target) })
}

/// Frees pictures. Null is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_images_free(images: *mut Images) -> Status {
    // SAFETY: as the header asks.
    unsafe { free(images) }
}
