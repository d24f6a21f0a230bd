//! A model out of a game's own pack file, read into memory once: nothing of it is copied.
//!
//! `cargo run --release --example pack_in_memory`

use discon::tensor::SharedBytes;
use discon::{Cpu, Model, Precision, Request};
use std::error::Error;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// Files start on a multiple of this, so that weights can be used where they lie.
const ALIGN: usize = 64;

/// A file's bytes inside the pack's.
struct Entry(Arc<Vec<u8>>, Range<usize>);

impl AsRef<[u8]> for Entry {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1.clone()]
    }
}

/// Writes the files of a folder one behind the other: a line `NAME LENGTH` each, an empty line, the bytes.
fn write_pack(folder: &Path, file: &Path) -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push((entry.file_name().into_string().map_err(|_| "a name that is no text")?, entry.path()));
        }
    }
    files.sort();
    let mut index = String::new();
    for (name, path) in &files {
        index += &format!("{name} {}\n", std::fs::metadata(path)?.len());
    }
    let mut to = std::io::BufWriter::new(std::fs::File::create(file)?);
    let pad = |len: usize| vec![b'\n'; len.next_multiple_of(ALIGN) - len];
    to.write_all(index.as_bytes())?;
    // At least the empty line.
    to.write_all(b"\n")?;
    to.write_all(&pad(index.len() + 1))?;
    for (_, path) in &files {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.read_to_end(&mut bytes)?;
        to.write_all(&bytes)?;
        to.write_all(&pad(bytes.len()))?;
    }
    Ok(to.flush()?)
}

/// The files of a pack in memory, each with its name.
fn entries(pack: &Arc<Vec<u8>>) -> Result<Vec<(String, SharedBytes)>, Box<dyn Error>> {
    let end = pack.windows(2).position(|two| two == b"\n\n").ok_or("no index")? + 1;
    let mut at = (end + 1).next_multiple_of(ALIGN);
    let mut files: Vec<(String, SharedBytes)> = Vec::new();
    for line in std::str::from_utf8(&pack[..end])?.lines() {
        let (name, len) = line.rsplit_once(' ').ok_or("an index line without a length")?;
        let range = at..at.checked_add(len.parse()?).filter(|end| *end <= pack.len()).ok_or("a file behind the end")?;
        at = range.end.next_multiple_of(ALIGN);
        files.push((name.to_owned(), Arc::new(Entry(Arc::clone(pack), range))));
    }
    Ok(files)
}

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (packed, file) = (root.join("target/examples-out/avatars-bf16"), root.join("target/examples-out/game.pack"));
    // When the game is built: in kernel order, so that nothing is left to do when it runs.
    discon::pack(&root.join("weights/avatars-64"), &packed, Precision::Bf16, &mut |_, _| ())?;
    write_pack(&packed, &file)?;

    // When it runs.
    let pack = Arc::new(std::fs::read(&file)?);
    let model = Model::from_bytes(entries(&pack)?)?;
    let memory = model.weight_memory();
    println!("{} bytes: {} of weights in place, {} of our own", pack.len(), memory.in_place, memory.own());
    let request = Request { classes: vec![model.class("micah")?], seeds: vec![3], settings: model.settings() };
    let images = model.generate(&Cpu::new(0)?, &request)?;
    let same = Model::open(&packed)?.generate(&Cpu::new(0)?, &request)? == images;
    println!("{} image, {} as from the folder", images.len(), if same { "the same" } else { "not the same" });
    if same { Ok(()) } else { Err("the pictures differ".into()) }
}
