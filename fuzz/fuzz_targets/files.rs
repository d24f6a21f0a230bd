//! Damaged model files: each is refused by an error of the right kind, or makes a model that runs.
#![no_main]

use discon::{Cpu, ErrorKind, Model, Outputs, SessionOptions, Settings};
use discon_fuzz::{FOLDERS, LIMIT};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use std::sync::LazyLock;
use std::time::Duration;

/// What is done to one file of a folder.
#[derive(Arbitrary, Debug)]
struct Damage {
    folder: u8,
    file: u8,
    /// The parts that are whole are not there, which is quicker.
    alone: bool,
    /// To its JSON: the config, or the header of tensors.
    json: Vec<Change>,
    /// To that as text.
    text: Vec<Edit>,
    /// In the place of the header's length.
    length: Option<u64>,
    /// Bytes from the end of the file.
    cut: Option<u32>,
    /// Put behind it.
    behind: Vec<u8>,
    /// Numbers put into the data.
    data: Vec<(u32, u32)>,
}

#[derive(Arbitrary, Debug)]
enum Change {
    Set(u16, Leaf),
    Remove(u16),
    /// The key in the place of another of the same object.
    Rename(u16, u16),
    /// Another value of the document.
    Copy(u16, u16),
}

#[derive(Arbitrary, Debug)]
enum Leaf {
    Null,
    Bool(bool),
    Number(u64),
    Float(f64),
    /// Added to the number that is there.
    Near(i8),
    Text(String),
    Numbers(Vec<u64>),
    Object,
}

#[derive(Arbitrary, Debug)]
struct Edit {
    at: u16,
    remove: u8,
    insert: Vec<u8>,
}

/// The paths to all values of a document.
fn paths(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                paths(value, format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
            }
        }
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(i, value)| paths(value, format!("{at}/{i}"), all));
        }
        _ => {}
    }
    all.push(at);
}

fn change(document: &mut Value, change: Change) {
    let mut all = Vec::new();
    paths(document, String::new(), &mut all);
    let path = |i: u16| all[usize::from(i) % all.len()].clone();
    match change {
        Change::Set(i, leaf) => {
            let Some(value) = document.pointer_mut(&path(i)) else { return };
            *value = match leaf {
                Leaf::Null => Value::Null,
                Leaf::Bool(x) => x.into(),
                Leaf::Number(x) => x.into(),
                Leaf::Float(x) => x.into(),
                Leaf::Near(by) => match value.as_i64() {
                    Some(x) => x.wrapping_add(by.into()).into(),
                    None => value.as_f64().map_or(Value::Null, |x| (x * f64::from(by)).into()),
                },
                Leaf::Text(text) => text.into(),
                Leaf::Numbers(numbers) => numbers.into(),
                Leaf::Object => Value::Object(Default::default()),
            };
        }
        Change::Remove(i) => {
            let path = path(i);
            let Some((parent, key)) = path.rsplit_once('/') else { return };
            match document.pointer_mut(parent) {
                Some(Value::Object(members)) => drop(members.remove(&key.replace("~1", "/").replace("~0", "~"))),
                Some(Value::Array(values)) => drop(key.parse().map(|i: usize| values.remove(i))),
                _ => {}
            }
        }
        Change::Rename(i, j) => {
            let (from, to) = (path(i), path(j));
            let (Some((parent, from)), Some((_, to))) = (from.rsplit_once('/'), to.rsplit_once('/')) else { return };
            if let Some(Value::Object(members)) = document.pointer_mut(parent)
                && let Some(value) = members.remove(&from.replace("~1", "/").replace("~0", "~"))
            {
                members.insert(to.to_owned(), value);
            }
        }
        Change::Copy(i, j) => {
            let copy = document.pointer(&path(i)).cloned();
            if let (Some(to), Some(copy)) = (document.pointer_mut(&path(j)), copy) {
                *to = copy;
            }
        }
    }
}

impl Damage {
    fn file(&self) -> usize {
        usize::from(self.file % 8).saturating_sub(3)
    }

    /// The damaged file.
    fn done(self, whole: &[u8]) -> Vec<u8> {
        let (json, data) = match self.file() {
            0 => (whole, &[][..]),
            _ => {
                let (length, rest) = whole.split_at(8);
                rest.split_at(u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize)
            }
        };
        let (is_config, mut data) = (self.file() == 0, data.to_vec());
        let mut text = json.to_vec();
        if !self.json.is_empty() {
            let mut document = serde_json::from_slice(json).expect("a fixture's JSON");
            self.json.into_iter().take(8).for_each(|it| change(&mut document, it));
            text = serde_json::to_vec(&document).expect("a document is text");
        }
        for Edit { at, remove, insert } in self.text {
            let at = usize::from(at) % (text.len() + 1);
            let end = text.len().min(at + usize::from(remove));
            text.splice(at..end, insert);
        }
        for (at, word) in self.data {
            let count = data.len() / 4;
            if count > 0 {
                data[at as usize % count * 4..][..4].copy_from_slice(&word.to_le_bytes());
            }
        }
        let mut file = Vec::new();
        if !is_config {
            file.extend(self.length.unwrap_or(text.len() as u64).to_le_bytes());
        }
        file.extend(text);
        file.extend(data);
        file.truncate(file.len() - self.cut.map_or(0, |cut| cut as usize % (file.len() + 1)));
        file.extend(self.behind);
        file
    }
}

static CPU: LazyLock<Cpu> = LazyLock::new(|| Cpu::new(1).expect("one thread"));

/// Begins a picture and goes some way.
fn run(model: &Model) -> discon::Result<()> {
    let defaults = model.settings();
    let settings = Settings { rounds: defaults.rounds.min(2), steps: defaults.steps.min(2), ..defaults };
    let options = SessionOptions { memory_limit: Some(LIMIT) };
    let mut session = model.session_with(&*CPU, 1, &settings, Outputs::IMAGE_AND_PREVIEW, &options)?;
    session.begin(&[0], &[7])?;
    for _ in 0..400 {
        if session.step(Duration::ZERO)?.finished {
            let _ = (session.images()?, session.tokens()?, session.codes()?);
            break;
        }
    }
    Ok(())
}

fuzz_target!(|damage: Damage| -> Corpus {
    let folder = &FOLDERS[usize::from(damage.folder) % FOLDERS.len()];
    let (file, alone) = (damage.file(), damage.alone);
    let changed = damage.done(&folder.files[file]);
    if changed == *folder.files[file] {
        return Corpus::Reject;
    }
    match folder.open_with(file, changed, alone) {
        Ok(model) => {
            // A config that is taken asks for settings that are.
            if let Some(masked) = &model.config().discon {
                let checked = model.settings().check(masked.seq_len, masked.head.train_steps);
                assert!(checked.is_ok(), "{checked:?}");
            }
            if let Err(e) = run(&model) {
                assert!(matches!(e.kind(), ErrorKind::Model | ErrorKind::Resources | ErrorKind::Unsupported), "{e:?}");
            }
        }
        Err(e) => assert!(matches!(e.kind(), ErrorKind::Model | ErrorKind::Resources), "{e:?}"),
    }
    Corpus::Keep
});
