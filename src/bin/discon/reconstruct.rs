//! `discon reconstruct`

use crate::common::{DeviceArgs, ModelArgs, within};
use crate::interrupt::Interrupt;
use crate::output::{Png, line};
use crate::sheet::{Sheet, default_scale};
use discon::{Error, Image, Result};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, RgbImage};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show what a model's two autoencoders keep of a picture
///
/// Puts each picture beside its discrete reconstruction (VQ) and its continuous one (VAE), with the peak
/// signal-to-noise ratio of both, which are printed too. Transparent pixels are laid over white.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:
  discon reconstruct face.png --out compared.png
  discon reconstruct photo.jpg drawing.webp --resize --out compared.png")]
pub(crate) struct Args {
    /// Pictures: PNG, JPEG or WebP
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    device: DeviceArgs,
    /// The file to write
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
    /// Make pictures of other sizes fit: the square in their middle, resized
    #[arg(long)]
    resize: bool,
    /// Enlarge each picture so many times; without it what makes small ones readable
    #[arg(long, value_name = "K")]
    scale: Option<usize>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    within("scale", args.scale.unwrap_or(1), 64)?;
    let model = args.model.open()?;
    let device = args.device.device(&model)?;
    let interrupt = Interrupt::install()?;
    let out = Png::create(&args.out)?;
    let size = model.image_size();
    let (mut names, mut pictures) = (Vec::new(), Vec::new());
    for path in &args.images {
        if interrupt.pressed() {
            return Err(Error::Cancelled);
        }
        let image = read(path, args.resize.then_some(size))?;
        let named = |e| match e {
            Error::Input { what, expected, found } => Error::input(
                format!("{}: {what}", path.display()),
                format!("{expected} (--resize makes it fit)"),
                found,
            ),
            other => other,
        };
        let discrete = model.reconstruct_discrete(&device, &image).map_err(named)?;
        let continuous = model.reconstruct(&device, &image).map_err(named)?;
        let (vq, vae) = (image.psnr(&discrete)?, image.psnr(&continuous)?);
        line(&format!("{}: VQ {vq:.2} dB, VAE {vae:.2} dB", path.display()))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        names.extend([name, format!("VQ {vq:.2} dB"), format!("VAE {vae:.2} dB")]);
        pictures.extend([image, discrete, continuous].map(Some));
    }
    let scale = args.scale.unwrap_or_else(|| default_scale(size));
    out.write(&Sheet::captioned(&names, 3, size, scale)?.draw(&pictures))?;
    Ok(ExitCode::SUCCESS)
}

/// Reads a picture, cut to a square and resized to `size` pixels a side if that is given.
fn read(path: &Path, size: Option<usize>) -> Result<Image> {
    let failed = |e: image::ImageError| match e {
        image::ImageError::IoError(e) => Error::io(path, e),
        other => Error::io(path, io::Error::other(other)),
    };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| Error::io(path, e))?;
    let mut picture = reader.decode().map_err(failed)?;
    if let Some(size) = size {
        let (width, height) = (picture.width(), picture.height());
        let side = width.min(height);
        picture = picture.crop_imm((width - side) / 2, (height - side) / 2, side, side);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        if side != size {
            picture = picture.resize_exact(size, size, FilterType::CatmullRom);
        }
    }
    let rgb = over_white(picture);
    Image::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
}

fn over_white(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let rgba = picture.into_rgba8();
    let blend = |x: u8, alpha: u8| {
        let (x, alpha) = (u32::from(x), u32::from(alpha));
        ((x * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        image::Rgb([r, g, b].map(|c| blend(c, a)))
    })
}
