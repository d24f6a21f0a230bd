//! Pictures beside each other in one PNG.

use discon::Image;
use std::error::Error;
use std::path::Path;

/// Writes pictures of one size to `file`, each pixel `scale` times as wide and high.
pub(crate) fn write(file: &Path, images: &[&Image], scale: usize) -> Result<(), Box<dyn Error>> {
    const GAP: usize = 4;
    let Some(first) = images.first() else { return Err("no pictures".into()) };
    let (each, height) = (first.width() * scale, first.height() * scale);
    let width = images.len() * (each + GAP) - GAP;
    let mut rgb = vec![255; width * height * 3];
    for (nth, image) in images.iter().enumerate() {
        for (y, x) in (0..each * height).map(|i| (i / each, i % each)) {
            let from = (y / scale * image.width() + x / scale) * 3;
            let to = (y * width + nth * (each + GAP) + x) * 3;
            rgb[to..to + 3].copy_from_slice(&image.rgb()[from..from + 3]);
        }
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    image::save_buffer(file, &rgb, width as u32, height as u32, image::ColorType::Rgb8)?;
    println!("{}", file.display());
    Ok(())
}
