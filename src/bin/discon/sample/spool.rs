//! Images of an `.npz` to be, one behind the other: the task's text in a line, and for each image its bytes and their CRC-32.
//!
//! What a process that is killed, or a machine that goes down, leaves of its last images does not have their checksums, and they
//! are made again.

use super::held::{self, Unfinished};
use super::npz;
use super::task::Task;
use discon::{Error, Image, Result};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// What the spool of an `.npz` has behind its name.
const ENDING: &str = ".partial";
/// What a spool begins with.
const MAGIC: &[u8] = b"discon sample ";
/// The longest first line.
const LINE: u64 = 1 << 17;
const CHECKSUM: usize = 4;
const BUFFER: usize = 1 << 20;

pub(super) struct Spool {
    npz: PathBuf,
    path: PathBuf,
    file: File,
    task: Task,
    /// Where the images begin.
    start: u64,
    /// Images that are there.
    done: usize,
}

impl Spool {
    /// The spool of an `.npz`, which goes on where it was; none if the `.npz` itself is there.
    pub(super) fn open(npz: &Path, task: &Task) -> Result<Option<Self>> {
        npz::check_name(npz)?;
        let path = held::beside(npz, ENDING);
        let there = npz::is_there(npz, task)?;
        let file = match File::options().read(true).write(true).open(&path) {
            Ok(file) => {
                held::hold(&file, &path)?;
                held::fill_if_empty(&file, &first_line(task)?, &path)?;
                file
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && there => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => create(&path, npz, task)?,
            Err(e) => return Err(Error::io(path, e)),
        };
        let mut spool = Self { npz: npz.to_owned(), path, file, task: task.clone(), start: 0, done: 0 };
        spool.start = spool.check()?;
        if there {
            spool.remove()?;
            return Ok(None);
        }
        spool.recover()?;
        Ok(Some(spool))
    }

    /// Images that are there.
    pub(super) fn done(&self) -> usize {
        self.done
    }

    /// Appends the next image.
    pub(super) fn put(&mut self, image: &Image) -> Result<()> {
        let sum = crc32fast::hash(image.rgb()).to_le_bytes();
        self.file.write_all(&[image.rgb(), &sum].concat()).map_err(|e| Error::io(&self.path, e))?;
        self.done += 1;
        Ok(())
    }

    /// Makes the `.npz` of all images, and goes away.
    pub(super) fn finish(self, mut each: impl FnMut() -> Result<()>) -> Result<()> {
        npz::write(&self.npz, &self.task, |write| {
            let mut images = self.images()?;
            for _ in self.task.range() {
                write(images.next()?.ok_or_else(|| self.cut())?)?;
                each()?;
            }
            Ok(())
        })?;
        self.remove()
    }

    fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| Error::io(&self.path, e))
    }

    fn cut(&self) -> Error {
        Error::io(&self.path, io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// Holds the first line against the task; where it ends.
    fn check(&self) -> Result<u64> {
        let (mut file, mut line) = (&self.file, Vec::new());
        let read = file.rewind().and_then(|()| BufReader::new(file).take(LINE).read_until(b'\n', &mut line));
        read.map_err(|e| Error::io(&self.path, e))?;
        let found = line.strip_suffix(b"\n").and_then(|line| line.strip_prefix(MAGIC)).and_then(Task::read);
        let foreign = || {
            let what = self.path.display().to_string();
            Error::input(what, "images that `discon sample` began with, or no file", "something else")
        };
        self.task.check(&found.ok_or_else(foreign)?, &self.path)?;
        Ok(line.len() as u64)
    }

    /// Counts the images whose checksums are right, and cuts off what follows.
    fn recover(&mut self) -> Result<()> {
        let mut images = self.images()?;
        let mut done = 0;
        while done < self.task.range().len() && images.next()?.is_some() {
            done += 1;
        }
        self.done = done;
        let end = self.start + (done * (self.task.image_bytes() + CHECKSUM)) as u64;
        let cut = self.file.set_len(end).and_then(|()| self.file.seek(SeekFrom::Start(end)));
        cut.map(drop).map_err(|e| Error::io(&self.path, e))
    }

    fn images(&self) -> Result<Images<'_>> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.start)).map_err(|e| Error::io(&self.path, e))?;
        let record = vec![0; self.task.image_bytes() + CHECKSUM];
        Ok(Images { path: &self.path, file: BufReader::with_capacity(BUFFER, file), record })
    }
}

/// A spool of an `.npz` without images. It is whole when it gets its name.
fn create(path: &Path, npz: &Path, task: &Task) -> Result<File> {
    let (unfinished, mut file) = Unfinished::create(path, npz::unfinished(npz))?;
    file.write_all(&first_line(task)?).map_err(|e| Error::io(path, e))?;
    unfinished.finish(&file)?;
    Ok(file)
}

fn first_line(task: &Task) -> Result<Vec<u8>> {
    Ok([MAGIC, task.text()?.as_bytes(), b"\n"].concat())
}

/// The images of a spool, in their order.
struct Images<'a> {
    path: &'a Path,
    file: BufReader<&'a File>,
    record: Vec<u8>,
}

impl Images<'_> {
    /// The next one, if it is there and whole.
    fn next(&mut self) -> Result<Option<&[u8]>> {
        match self.file.read_exact(&mut self.record) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            done => done.map_err(|e| Error::io(self.path, e))?,
        }
        let (image, sum) = self.record.split_at(self.record.len() - CHECKSUM);
        Ok((crc32fast::hash(image).to_le_bytes() == sum).then_some(image))
    }
}
