//! What the fuzz targets share: the folders that they start from, an edit of text.

use discon::tensor::SharedBytes;
use discon::{Model, OpenOptions, Precision, Result};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// Bytes that a model or a session may take.
pub const LIMIT: u64 = 256 << 20;

/// The files of a model folder, the config first.
pub const FILES: [&str; 5] =
    ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];

/// A model folder in memory: the bytes of each of [`FILES`].
pub struct Folder {
    pub files: [Arc<Vec<u8>>; 5],
}

impl Folder {
    fn read(folder: &Path) -> Self {
        let read = |file| fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{}/{file}: {e}", folder.display()));
        Self { files: FILES.map(|file| Arc::new(read(file))) }
    }

    /// The model in it.
    pub fn open(&self) -> Result<Model> {
        self.opened(|_| true, None)
    }

    /// The model in it with a file replaced, which is `alone` but for the config or beside the others.
    pub fn open_with(&self, file: usize, bytes: Vec<u8>, alone: bool) -> Result<Model> {
        self.opened(|other| !alone || other == 0 || other == file, Some((file, bytes)))
    }

    fn opened(&self, takes: impl Fn(usize) -> bool, changed: Option<(usize, Vec<u8>)>) -> Result<Model> {
        let mut files = self.files.clone();
        if let Some((file, bytes)) = changed {
            files[file] = Arc::new(bytes);
        }
        let files = FILES.iter().zip(files).enumerate().filter(|(file, _)| takes(*file));
        let files = files.map(|(_, (&name, bytes))| (name.to_owned(), bytes as SharedBytes));
        Model::from_bytes_with(files, &OpenOptions { memory_limit: Some(LIMIT), ..OpenOptions::default() })
    }
}

/// The fixtures' models as they are, and packed for each precision.
pub static FOLDERS: LazyLock<Vec<Folder>> = LazyLock::new(|| {
    let mut all = Vec::new();
    for name in ["tiny", "odd"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name);
        all.push(Folder::read(&folder));
        for precision in Precision::ALL {
            let packed = tempfile::tempdir().expect("a folder for temporary files");
            discon::pack(&folder, packed.path(), precision, &mut |_, _| ()).expect("a fixture can be packed");
            all.push(Folder::read(packed.path()));
        }
    }
    all
});

/// Bytes of a text replaced by others.
#[derive(Arbitrary, Debug)]
pub struct Edit {
    at: u16,
    remove: u8,
    insert: Vec<u8>,
}

impl Edit {
    pub fn done(self, text: &mut Vec<u8>) {
        let at = usize::from(self.at) % (text.len() + 1);
        let end = text.len().min(at + usize::from(self.remove));
        text.splice(at..end, self.insert);
    }
}
