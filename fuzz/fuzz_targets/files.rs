//! Damaged model files: each is refused by an error of the right kind, or makes a model that runs.
#![no_main]

use discon::{Cpu, ErrorKind, Model, Outputs, SessionOptions, Settings};
use discon_fuzz::{Edit, FOLDERS, LIMIT};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;
use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

/// A file of a folder, and what is done to it.
#[derive(Arbitrary, Debug)]
struct Damaged {
    folder: u8,
    file: u8,
    /// Mostly the parts that are whole are not there, which is quicker.
    beside: u8,
    first: Damage,
    second: Option<Damage>,
}

#[derive(Arbitrary, Debug)]
enum Damage {
    /// To its JSON: the config, or the header of tensors.
    Json(Change),
    /// To that, twice: what one value says of another may still be true.
    Two(Change, Change),
    /// To that as text.
    Text(Edit),
    /// The header's length.
    Length(u64),
    /// Bytes from the end of the file.
    Cut(u32),
    /// Put behind it.
    Behind(Vec<u8>),
    /// A number put into the data.
    Data(u32, u32),
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
    /// Added to the whole number that is there, or a factor of one that is not.
    Near(i8),
    Text(String),
    Numbers(Vec<u64>),
    Object,
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
    fn done(self, config: bool, mut file: Vec<u8>) -> Vec<u8> {
        let header = (!config).then(|| file.first_chunk().map(|length| u64::from_le_bytes(*length))).flatten();
        // Where the JSON is, as far as it is there.
        let from = if config { 0 } else { file.len().min(8) };
        let to = file.len().min(from.saturating_add(header.map_or(file.len(), |length| length as usize)));
        match self {
            Self::Json(first) => {
                if let Ok(mut document) = serde_json::from_slice(&file[from..to]) {
                    change(&mut document, first);
                    replace(config, &mut file, from..to, document.to_string().as_bytes());
                }
            }
            Self::Two(first, second) => return Self::Json(second).done(config, Self::Json(first).done(config, file)),
            Self::Text(edit) => {
                let mut text = file[from..to].to_vec();
                edit.done(&mut text);
                replace(config, &mut file, from..to, &text);
            }
            Self::Length(length) => {
                if let (false, Some(first)) = (config, file.first_chunk_mut()) {
                    *first = length.to_le_bytes();
                }
            }
            Self::Cut(bytes) => file.truncate(file.len() - bytes as usize % (file.len() + 1)),
            Self::Behind(bytes) => file.extend(bytes),
            Self::Data(at, word) => {
                let data = &mut file[to..];
                let count = data.len() / 4;
                if count > 0 {
                    data[at as usize % count * 4..][..4].copy_from_slice(&word.to_le_bytes());
                }
            }
        }
        file
    }
}

/// Puts other text in the place of the JSON, and its length before it.
fn replace(config: bool, file: &mut Vec<u8>, place: Range<usize>, text: &[u8]) {
    file.splice(place, text.iter().copied());
    if let (false, Some(length)) = (config, file.first_chunk_mut()) {
        *length = (text.len() as u64).to_le_bytes();
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

fuzz_target!(|damaged: Damaged| -> Corpus {
    let Damaged { folder, file, beside, first, second } = damaged;
    let folder = &FOLDERS[usize::from(folder) % FOLDERS.len()];
    // The config half of the time.
    let file = usize::from(file % 8).saturating_sub(3);
    let whole = &folder.files[file];
    let mut changed = first.done(file == 0, whole.to_vec());
    if let Some(second) = second {
        changed = second.done(file == 0, changed);
    }
    if changed == **whole {
        return Corpus::Reject;
    }
    match folder.open_with(file, changed, beside % 16 > 0) {
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
