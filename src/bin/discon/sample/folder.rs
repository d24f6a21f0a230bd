//! Images as a PNG each: `CLASS/NUMBER.png` in a folder, beside the task's text in `sample.json`.
//!
//! A file is whole when it gets its name, so what is there need not be made again. Shards share a folder: each writes under a
//! name of its own before.

use super::held::{self, Unfinished};
use super::task::Task;
use crate::output::{HIDDEN, encode, scaled};
use discon::{Error, Image, Result};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const TASK_FILE: &str = "sample.json";

pub(super) struct Folder {
    dir: PathBuf,
    /// Of each class that has images, its folder's name, by class.
    names: Vec<String>,
    size: usize,
    task: Task,
    /// The file that keeps others from the same shard.
    lock: PathBuf,
    /// What an image is called until it is whole.
    partial: PathBuf,
    /// Held until the end.
    _held: File,
}

impl Folder {
    /// A folder that is new, or empty, or of that task; `names` are those of all classes.
    pub(super) fn open(dir: &Path, task: &Task, names: Vec<String>) -> Result<Self> {
        fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let whole = task.whole();
        // Nothing is left in a folder of something else.
        begun(dir, &whole)?;
        let shard = task.shard.map_or("all".to_owned(), |shard| format!("{}-of-{}", shard.number, shard.of));
        let own = |ending: &str| dir.join(format!("{HIDDEN}{shard}{ending}"));
        let (lock, partial) = (own(".lock"), own(".partial"));
        let held = held::open(&lock)?;
        if let Err(e) = begin(dir, &whole, &partial) {
            let _ = fs::remove_file(&lock);
            return Err(e);
        }
        Ok(Self { dir: dir.to_owned(), names, size: task.size, task: task.clone(), lock, partial, _held: held })
    }

    /// The images of the task that are not there.
    pub(super) fn missing(&self) -> Vec<usize> {
        self.task.range().filter(|&i| !self.has(i)).collect()
    }

    /// Whether an image is there, and whole even where the machine went down after it was written.
    fn has(&self, i: usize) -> bool {
        let size = (self.size as u32, self.size as u32);
        image::open(self.path(i)).is_ok_and(|image| (image.width(), image.height()) == size)
    }

    fn path(&self, i: usize) -> PathBuf {
        self.dir.join(&self.names[self.task.job(i).class]).join(format!("{i:06}.png"))
    }

    pub(super) fn put(&self, i: usize, image: &Image) -> Result<()> {
        let path = self.path(i);
        let parent = path.parent().unwrap_or(&self.dir);
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, e))?;
        let file = File::create(&self.partial).map_err(|e| Error::io(&self.partial, e))?;
        encode(&scaled(image, 1), file).and_then(|()| fs::rename(&self.partial, &path)).map_err(|e| Error::io(path, e))
    }

    /// Takes away what is not an image.
    pub(super) fn finish(self) -> Result<()> {
        let partial = match fs::remove_file(&self.partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(&self.partial, e)),
            _ => Ok(()),
        };
        partial.and(fs::remove_file(&self.lock).map_err(|e| Error::io(&self.lock, e)))
    }
}

/// What of a task is in a folder.
enum Begun {
    No,
    /// A file without a word, as a machine that went down may leave it.
    Empty,
    Yes,
}

/// Whether a folder is that of a task, or may become it.
fn begun(dir: &Path, task: &Task) -> Result<Begun> {
    let path = dir.join(TASK_FILE);
    loop {
        let there = match fs::read(&path) {
            Ok(text) if text.is_empty() => true,
            Ok(text) => {
                let expected = "the task of a folder that `discon sample` began";
                let foreign = || Error::input(path.display().to_string(), expected, "something else");
                return task.check(&Task::read(&text).ok_or_else(foreign)?, &path).map(|()| Begun::Yes);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(Error::io(path, e)),
        };
        let entries = fs::read_dir(dir).and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect());
        let entries: Vec<_> = entries.map_err(|e: io::Error| Error::io(dir, e))?;
        let own = |name: &OsString| name.to_string_lossy().starts_with(HIDDEN) || there && name == TASK_FILE;
        match entries.iter().find(|&name| !own(name)) {
            // Another process may have begun since.
            Some(_) if fs::metadata(&path).is_ok_and(|file| file.len() > 0) => continue,
            Some(name) => {
                let expected = "a new or empty folder, or one that `discon sample` began";
                return Err(Error::input(dir.display().to_string(), expected, format!("`{}`", name.display())));
            }
            None if there => return Ok(Begun::Empty),
            None => return Ok(Begun::No),
        }
    }
}

/// Writes the task into a folder, by the name `partial` of this process until it is whole, or finds it there. Several processes may
/// do so at once.
fn begin(dir: &Path, task: &Task, partial: &Path) -> Result<()> {
    let (path, text) = (dir.join(TASK_FILE), format!("{}\n", task.text()?));
    loop {
        match begun(dir, task)? {
            Begun::Yes => return Ok(()),
            Begun::Empty => held::fill_if_empty(&held::open(&path)?, text.as_bytes(), &path)?,
            Begun::No => {
                let (unfinished, mut file) = Unfinished::create(&path, partial.to_owned())?;
                file.write_all(text.as_bytes()).map_err(|e| Error::io(&path, e))?;
                match unfinished.finish(&file) {
                    Err(e) if !path.exists() => return Err(e),
                    // Whoever wrote it, it is there now.
                    _ => {}
                }
            }
        }
    }
}
