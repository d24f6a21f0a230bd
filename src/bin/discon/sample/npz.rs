//! `.npz` as the evaluation suite of ADM reads it (Dhariwal and Nichol, "Diffusion Models Beat GANs on Image Synthesis",
//! NeurIPS 2021): a ZIP archive of `arr_0.npy`, images `[N, H, W, 3]` of u8, and `arr_1.npy`, classes `[N]` of i64. The archive's
//! comment is the task's text.

use super::held::{self, Unfinished};
use super::task::Task;
use discon::{Error, Result};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

const IMAGES: &str = "arr_0.npy";
const CLASSES: &str = "arr_1.npy";
const BUFFER: usize = 1 << 20;

/// Refuses a name that does not end in `.npz`.
pub(super) fn check_name(path: &Path) -> Result<()> {
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        return Ok(());
    }
    Err(Error::input("npz", "a name that ends in .npz", path.display()))
}

/// A task's text, which has to fit an archive's comment.
pub(super) fn comment(task: &Task) -> Result<String> {
    let text = task.text()?;
    if text.len() <= usize::from(u16::MAX) {
        return Ok(text);
    }
    let expected = format!("at most {} bytes of text, which are noted in an .npz", u16::MAX);
    let (longest, length) = task.longest()?;
    Err(Error::input("task", expected, format!("{} bytes, of which its `{longest}` takes {length}", text.len())))
}

/// What a file is called until it is whole.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    held::beside(path, ".unfinished")
}

/// Whether a file is there, which is then of that task.
pub(super) fn is_there(path: &Path, task: &Task) -> Result<bool> {
    if !path.try_exists().map_err(|e| Error::io(path, e))? {
        return Ok(false);
    }
    task.check(&Npz::open(path)?.task, path).map(|()| true)
}

/// Writes the images of a task, which `fill` hands over in their order; nothing is at `path` before all is.
pub(super) fn write(
    path: &Path,
    task: &Task,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let (unfinished, file) = Unfinished::create(path, unfinished(path))?;
    let failed = Rc::new(RefCell::new(None));
    let sink = Sink { file: BufWriter::with_capacity(BUFFER, file), at: 0, end: 0, failed: Rc::clone(&failed) };
    let sound = || failed.borrow_mut().take().map_or(Ok(()), |e| Err(Error::io(path, e)));
    let wrong = |e: ZipError| Error::io(path, e.into());

    let mut zip = ZipWriter::new(sink);
    zip.set_comment(comment(task)?).map_err(wrong)?;
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644)
        .large_file(true);
    zip.start_file(IMAGES, options).map_err(wrong)?;
    zip.write_all(&images_header(task)).map_err(|e| wrong(e.into()))?;
    fill(&mut |image| {
        zip.write_all(image).map_err(|e| wrong(e.into()))?;
        sound()
    })?;
    zip.start_file(CLASSES, options).map_err(wrong)?;
    zip.write_all(&header("<i8", &format!("({},)", task.range().len()))).map_err(|e| wrong(e.into()))?;
    for i in task.range() {
        zip.write_all(&(task.job(i).class as i64).to_le_bytes()).map_err(|e| wrong(e.into()))?;
    }
    let mut sink = zip.finish().map_err(wrong)?;
    sink.flush().map_err(|e| Error::io(path, e))?;
    sound()?;
    unfinished.finish(sink.file.get_ref())
}

fn images_header(task: &Task) -> Vec<u8> {
    header("|u1", &format!("({}, {size}, {size}, 3)", task.range().len(), size = task.size))
}

/// The header of an array in version 1.0 of NumPy's format: padded so that data begins at a multiple of 64 bytes.
fn header(dtype: &str, shape: &str) -> Vec<u8> {
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    const BEFORE: usize = 10;
    let length = (BEFORE + text.len() + 1).next_multiple_of(64) - BEFORE;
    text.extend(std::iter::repeat_n(' ', length - text.len() - 1));
    text.push('\n');
    [b"\x93NUMPY\x01\x00", &(length as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A file that takes everything after it has failed, and keeps why: the archive's writer, dropped, writes the rest, and would
/// tell standard error that it cannot.
struct Sink {
    file: BufWriter<File>,
    at: u64,
    end: u64,
    failed: Rc<RefCell<Option<io::Error>>>,
}

impl Sink {
    fn unless_failed(&mut self, run: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) {
        let mut failed = self.failed.borrow_mut();
        if failed.is_none() {
            *failed = run(&mut self.file).err();
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_failed(|file| file.write_all(bytes));
        self.at += bytes.len() as u64;
        self.end = self.end.max(self.at);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_failed(BufWriter::flush);
        Ok(())
    }
}

impl Seek for Sink {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (from, by) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::End(by) => (self.end, by),
            SeekFrom::Current(by) => (self.at, by),
        };
        self.at = from.checked_add_signed(by).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let at = self.at;
        self.unless_failed(|file| file.seek(SeekFrom::Start(at)).map(drop));
        Ok(at)
    }
}

/// A file that [`write`] wrote.
pub(super) struct Npz {
    path: PathBuf,
    archive: ZipArchive<BufReader<File>>,
    pub(super) task: Task,
}

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let foreign = |found: String| foreign(path, "archive", "an .npz that `discon sample` wrote", found);
        let archive = ZipArchive::new(BufReader::with_capacity(BUFFER, file)).map_err(|e| foreign(e.to_string()))?;
        let task = Task::read(archive.comment()).ok_or_else(|| foreign("another archive".to_owned()))?;
        Ok(Self { path: path.to_owned(), archive, task })
    }

    /// Hands over all images in their order.
    pub(super) fn read(&mut self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let Self { path, archive, task } = self;
        let wrong = |found: String| foreign(path, IMAGES, "the images that its comment names", found);
        let mut images = archive.by_name(IMAGES).map_err(|e| wrong(e.to_string()))?;
        let (expected, mut image) = (images_header(task), vec![0; task.image_bytes()]);
        let mut header = vec![0; expected.len()];
        images.read_exact(&mut header).map_err(|e| wrong(e.to_string()))?;
        if header != expected {
            return Err(wrong(String::from_utf8_lossy(&header).trim_end().to_owned()));
        }
        for _ in task.range() {
            images.read_exact(&mut image).map_err(|e| wrong(e.to_string()))?;
            each(&image)?;
        }
        // The end of the file is where its checksum is looked at.
        match images.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(wrong("more bytes".to_owned())),
            Err(e) => Err(wrong(e.to_string())),
        }
    }
}

fn foreign(path: &Path, what: &str, expected: &str, found: String) -> Error {
    let (file, what, expected) = (path.display().to_string(), what.to_owned(), expected.to_owned());
    Error::Format { file, what, expected, found }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_that_no_comment_holds_is_refused_by_what_is_long_in_it() {
        let comment = |name: &str, classes: Vec<usize>| {
            let task = json!({
                "discon": "0", "model": name, "files": {}, "device": "avx2", "dtype": "f32", "what": "image", "settings": {},
                "classes": { "listed": classes }, "count": 1, "seed": 0, "size": 8,
            });
            comment(&Task::read(task.to_string().as_bytes()).unwrap()).map_err(|e| e.to_string())
        };
        assert!(comment("short", (0..10_000).collect()).is_ok());
        let told = comment("short", (0..20_000).collect()).unwrap_err();
        assert!(told.contains("65535 bytes") && told.contains("`classes`"), "{told}");
        let told = comment(&"long".repeat(20_000), vec![1]).unwrap_err();
        assert!(told.contains("65535 bytes") && told.contains("`model`"), "{told}");
    }
}
