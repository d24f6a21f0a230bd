//! What the command writes: lines, and pictures that are whole or not there.

use discon::{Error, Image, Result};
use image::{ImageFormat, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Text as a terminal shows it and does nothing else: characters that would steer it, or begin another line, or turn round what
/// stands beside them, as `\u001b`, as JSON has them. Names in it come from models, which anybody may have made.
fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown = |c: char| if steers(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// Writes a line on standard output. A reader that has gone away (`| head`) is no error.
pub(crate) fn line(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(format!("{}\n", printable(text)).as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Error::io("standard output", e)),
        _ => Ok(()),
    }
}

/// Writes a line on standard error, where nothing can be done about it if that fails.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&text.trim_end().replace('\n', " ")));
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

/// What every name begins with that a file has before its own.
pub(crate) const HIDDEN: &str = ".discon-";

/// A file beside `path`, to get its name when it is whole; dropped before, it leaves nothing.
fn unnamed(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(HIDDEN).suffix(".partial");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    // Its own message would name the other name.
    builder.tempfile_in(folder).map_err(|e| Error::io(path, io::Error::from(e.kind())))
}

/// Writes a picture as PNG.
pub(crate) fn encode(picture: &RgbImage, mut file: impl Write) -> io::Result<()> {
    // The encoder seeks nowhere, but asks for it.
    let mut png = io::Cursor::new(Vec::new());
    picture.write_to(&mut png, ImageFormat::Png).map_err(io::Error::other)?;
    file.write_all(png.get_ref())
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
        let file = unnamed(path)?;
        if path.is_dir() {
            return Err(Error::io(path, io::Error::from(io::ErrorKind::IsADirectory)));
        }
        Ok(Self { path: path.to_owned(), file })
    }

    pub(crate) fn write(mut self, picture: &RgbImage) -> Result<()> {
        encode(picture, self.file.as_file_mut()).map_err(|e| Error::io(&self.path, e))?;
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
