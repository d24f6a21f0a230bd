//! What the engine tells a host's logger. Alone in its process: there is one logger.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Model, Outputs};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::sync::Mutex;
use std::time::Duration;

struct Collect(Mutex<Vec<(Level, String, String)>>);

impl Log for Collect {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.target().to_owned(), record.args().to_string());
        self.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

static LOGGER: Collect = Collect(Mutex::new(Vec::new()));

/// What was told since the last call: one line with all of `names`.
#[track_caller]
fn told(level: Level, names: &[&str]) {
    let lines = std::mem::take(&mut *LOGGER.0.lock().unwrap());
    let [(found, target, line)] = &lines[..] else { panic!("one line, not {lines:?}") };
    assert_eq!((*found, target.split("::").next()), (level, Some("discon")), "{line}");
    for name in names {
        assert!(line.contains(name), "no `{name}` in: {line}");
    }
}

#[track_caller]
fn told_nothing() {
    assert_eq!(*LOGGER.0.lock().unwrap(), vec![]);
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");

#[test]
fn a_logger_hears_of_models_sessions_and_requests_and_of_nothing_between() {
    // The place of the logger is the host's: opening a model leaves it free.
    Model::open(FOLDER).unwrap();
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(LevelFilter::Trace);

    let model = Model::open(FOLDER).unwrap();
    let parts = ["rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];
    told(Level::Info, &[&["`fixture-tiny`", FOLDER, "f32", "bytes of weights in place"][..], &parts[..]].concat());
    Model::open("/no/such/folder").unwrap_err();
    told(Level::Warn, &["/no/such/folder"]);

    let cpu = Cpu::new(2).unwrap().with_isa("scalar").unwrap();
    told_nothing();
    let mut session = model.session(&cpu, 1, &model.settings(), Outputs::IMAGE).unwrap();
    let bytes = session.own_bytes().to_string();
    told(Level::Debug, &["`fixture-tiny`", "batch 1", " ops", &bytes, "cpu (2 threads, scalar)"]);
    model.session(&cpu, 0, &model.settings(), Outputs::IMAGE).unwrap_err();
    told(Level::Warn, &["`fixture-tiny`", "batch"]);

    session.begin(&[1], &[77]).unwrap();
    told(Level::Debug, &["begun", "[1]", "[77]"]);
    while !session.step(Duration::ZERO).unwrap().finished {
        if !session.progress().finished {
            told_nothing();
        }
    }
    told(Level::Debug, &["finished", "worked", "discrete ", "condition ", "head ", "decode "]);
    session.step(Duration::ZERO).unwrap();
    session.images().unwrap();
    told_nothing();

    session.begin(&[1_000_000], &[77]).unwrap_err();
    told(Level::Warn, &["refused", "class", "1000000"]);
    session.begin_with_codes(&[1], &[77], &[[0u32; 16]]).unwrap_err();
    told(Level::Warn, &["refused", "given_codes"]);
    session.begin(&[2], &[78]).unwrap();
    told(Level::Debug, &["begun"]);
    session.step(Duration::ZERO).unwrap();
    session.canceller().cancel();
    session.step(Duration::ZERO).unwrap_err();
    told(Level::Debug, &["cancelled", "worked"]);
}
