//! Memory that is told before it is taken, and limits of it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

mod counting;

use discon::tensor::SharedBytes;
use discon::{Cpu, Error, Model, OpenOptions, Outputs, Precision, SessionOptions, Settings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Aligned memory starts on a cache line, which costs up to one more each.
const LINE: usize = 64;

/// Bytes beside what is told: for lists of buffers, stages, names.
const BOOKKEEPING: usize = 16 << 10;

/// Alone in its process: another test's allocations would count too.
#[test]
fn what_is_told_is_what_is_taken() {
    for name in ["tests/fixtures/tiny", "tests/fixtures/odd"] {
        weights(&folder(name));
        sessions(&folder(name));
    }
    huge();
}

/// Bytes asked for in `f` as aligned memory, and those that are still allocated behind it.
fn taken<T>(f: impl FnOnce() -> T) -> (T, usize, usize) {
    let ((bytes, calls), live) = (counting::zeroed(), counting::live());
    let made = f();
    let (bytes_after, calls_after) = counting::zeroed();
    (made, bytes_after - bytes - LINE * (calls_after - calls), counting::live() - live)
}

fn sessions(folder: &Path) {
    let previewing = Outputs { partial_previews: true, ..Outputs::IMAGE };
    let editing = Outputs { known_places: 3, encodes: true, ..Outputs::IMAGE };
    for (threads, batch, outputs) in [
        (1, 1, Outputs::IMAGE),
        (3, 2, Outputs::IMAGE_AND_PREVIEW),
        (2, 3, Outputs { mix: 4, ..previewing }),
        (2, 1, editing),
        (1, 2, Outputs { preview: true, ..previewing }),
        (1, 5, Outputs::DISCRETE_ONLY),
    ] {
        let cpu = Cpu::new(threads).unwrap();
        let model = Model::open(folder).unwrap();
        // Threads that start allocate too.
        std::thread::sleep(Duration::from_millis(100));
        let settings = Settings { rounds: 3, steps: 4, ..model.settings() };
        let told = model.memory(&cpu, batch, &settings, outputs).unwrap();
        assert_eq!((told.host(), told.device(), told.weights), (told.bytes(), 0, 0));
        let (session, aligned, live) = taken(|| model.session(&cpu, batch, &settings, outputs).unwrap());
        assert_eq!(aligned as u64, told.bytes() - told.plan, "{told:?}");
        assert_eq!(session.own_bytes(), told.bytes() - told.plan);
        assert_eq!(session.plan().arena_bytes(threads), told.arena + told.workers);
        assert_eq!((told.previews > 0, told.shared), (outputs.partial_previews, session.plan().shared_bytes()));
        let rest = live as u64 - told.bytes();
        assert!(live as u64 >= told.bytes() && rest < BOOKKEEPING as u64, "{rest} beside {told:?}");
        let plan = model.plan(batch, &settings, outputs).unwrap();
        assert!(outputs.partial_previews || plan.program_bytes() == told.plan);
        drop(session);

        // To the byte, and nothing is taken before it is refused.
        let within = |limit| {
            let options = SessionOptions { memory_limit: Some(limit) };
            model.session_with(&cpu, batch, &settings, outputs, &options)
        };
        let (refused, aligned, _) = taken(|| within(told.bytes() - 1));
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::Memory { bytes, .. } if bytes == told.bytes()), "{error}");
        let names = [told.bytes(), told.bytes() - 1].map(|bytes| bytes.to_string());
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
        assert_eq!(aligned, 0, "before it was refused");
        let mut session = within(told.bytes()).unwrap();
        if !outputs.encodes {
            session.begin(&vec![1; batch], &vec![2; batch]).unwrap();
            session.run(|_| ()).unwrap();
            // What it made for all, the next session need not.
            let next = model.memory(&cpu, batch, &settings, outputs).unwrap();
            assert_eq!(next, discon::SessionMemory { shared: 0, ..told });
            assert!(next.bytes() < told.bytes() || told.shared == 0);
            within(next.bytes()).unwrap();
        }
    }
}

fn weights(folder: &Path) {
    let files = ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];
    for precision in Precision::ALL {
        // One byte in front: nothing is aligned, so all is copied.
        let shifted = || {
            files.map(|file| {
                let bytes = [vec![0], std::fs::read(folder.join(file)).unwrap()].concat();
                (file.to_owned(), Arc::new(Shifted(bytes)) as SharedBytes)
            })
        };
        for in_memory in [false, true] {
            let options = |memory_limit| OpenOptions { precision: Some(precision), memory_limit };
            let files = if in_memory { Some(shifted()) } else { None };
            let open = |limit| match files.clone() {
                None => Model::open_with(folder, &options(limit)),
                Some(files) => Model::from_bytes_with(files, &options(limit)),
            };
            counting::largest();
            let (model, _, live) = taken(|| open(None).unwrap());
            let largest = counting::largest();
            // The largest filter alone has half as much again.
            assert!(largest < 96 << 10, "{largest} bytes that may not be refused");
            let memory = model.weight_memory();
            let own = memory.own();
            assert!(memory.derived > 0 && memory.copied > 0 && own == memory.copied + memory.derived, "{memory:?}");
            // Beside them, names and shapes of some hundred tensors.
            let rest = live as i64 - own as i64;
            println!("{} {precision} in memory {in_memory}: {rest} beside {memory:?}", folder.display());
            assert!((0..512 << 10).contains(&rest), "{rest} beside {memory:?}");
            drop(model);
            let error = open(Some(own - 1)).unwrap_err();
            assert!(matches!(error, Error::Memory { bytes, .. } if bytes == own), "{error}");
            assert!(error.to_string().contains(&(own - 1).to_string()), "{error}");
            open(Some(own)).unwrap();
            let error = open(Some(0)).unwrap_err();
            assert!(matches!(error, Error::Memory { .. }) && error.to_string().contains("0 bytes"), "{error}");
        }
    }
}

/// Bytes behind the first one.
#[derive(Clone)]
struct Shifted(Vec<u8>);

impl AsRef<[u8]> for Shifted {
    fn as_ref(&self) -> &[u8] {
        &self.0[1..]
    }
}

/// More than any machine that runs this has: refused before it is asked for, where the system says what it has left.
fn huge() {
    let model = Model::open(folder("weights/avatars-64")).unwrap();
    let cpu = Cpu::new(1).unwrap();
    let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE_AND_PREVIEW };
    let told = model.memory(&cpu, 65_536, &model.settings(), outputs).unwrap();
    assert!(told.bytes() > 1 << 38, "{told:?}");
    let (refused, aligned, _) = taken(|| model.session(&cpu, 65_536, &model.settings(), outputs));
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Memory { .. }), "{error}");
    if cfg!(target_os = "linux") {
        assert!(error.to_string().contains(&told.bytes().to_string()), "{error}");
        assert!(error.to_string().contains("the system has"), "{error}");
        assert_eq!(aligned, 0);
    }
    let mut session = model.session(&cpu, 1, &Settings { rounds: 1, steps: 1, ..model.settings() }, outputs).unwrap();
    session.begin(&[1], &[1]).unwrap();
    session.run(|_| ()).unwrap();
}
