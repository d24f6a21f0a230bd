//! What the command writes: lines, and pictures that are whole or not there.

use discon::{Error, Image, Result};
use image::{ImageFormat, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a line on standard output. A reader that has gone away (`| head`) is no error.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(format!("{text}\n").as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// Writes a line on standard error, where nothing can be done about it if that fails.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end().replace('\n', " "));
}

/// A progress bar of a thousand steps.
pub(crate) fn bar(quiet: bool) -> ProgressBar {
    if quiet {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg:24} [{bar:32}] {percent:>3}%  {eta} left");
    // Hidden by itself where standard error is no terminal.
    ProgressBar::new(1000).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// A PNG file to be. It grows under another name beside its own, which it takes when it is whole; dropped before, it
/// leaves nothing.
#[derive(Debug)]
pub(crate) struct Png {
    path: PathBuf,
    file: NamedTempFile,
}

impl Png {
    /// Finds out whether the file can be written, before anybody works for it.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("png")) {
            let expected = "a name that ends in .png, or a folder: one that exists or a name that ends in /";
            return Err(Error::input("output", expected, path.display()));
        }
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".discon-").suffix(".partial");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        // Its own message would name the other name.
        let file = builder.tempfile_in(folder).map_err(|e| Error::io(path, io::Error::from(e.kind())))?;
        if path.is_dir() {
            return Err(Error::io(path, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn write(mut self, picture: &RgbImage) -> Result<()> {
        let mut out = BufWriter::new(self.file.as_file_mut());
        let written = picture.write_to(&mut out, ImageFormat::Png).map_err(io::Error::other);
        written.and_then(|()| out.flush()).map_err(|e| Error::io(&self.path, e))?;
        drop(out);
        let persisted: Result<File, _> = self.file.persist(&self.path);
        persisted.map(drop).map_err(|e| Error::io(&self.path, e.error))
    }
}

/// A picture with each pixel repeated `scale` times either way.
pub(crate) fn scaled(image: &Image, scale: usize) -> RgbImage {
    let (width, height) = (image.width() * scale, image.height() * scale);
    let lines = image.rgb().chunks_exact(3 * image.width());
    let wide = |line: &[u8]| line.chunks_exact(3).flat_map(|pixel| pixel.repeat(scale)).collect::<Vec<u8>>();
    let bytes = lines.flat_map(|line| wide(line).repeat(scale)).collect();
    // As many bytes as asked for, by construction.
    RgbImage::from_raw(width as u32, height as u32, bytes).unwrap_or_default()
}
