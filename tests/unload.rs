//! Models and sessions leave nothing behind: loaded, run and dropped a hundred times.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

mod counting;

use discon::{Cpu, Edit, Image, Model, Outputs, Request, Settings, Start, pack};
use std::path::Path;

/// Whole-process memory may grow by so much over the later turns: the allocator's own doing, far below what one turn takes.
const RSS_GROWTH: u64 = 4 << 20;

const TURNS: usize = 100;
/// Turns until everything that is made once a process is there.
const WARM: usize = 3;

/// One turn: a model from mapped files and one from memory, on threads of its own, with every kind of session.
fn turn(folder: &Path, turn: usize) {
    let cpu = Cpu::new(2).unwrap();
    let model = Model::open(folder).unwrap();
    let settings = Settings { rounds: 2, steps: 3, ..model.settings() };
    let outputs = Outputs { partial_previews: true, mix: 2, ..Outputs::IMAGE_AND_PREVIEW };
    let mut session = model.session(&cpu, 2, &settings, outputs).unwrap();
    let start = Start { mixes: vec![vec![(1, 1.0), (2, 1.0)], vec![]], ..Start::default() };
    session.begin_with(&[1, 2], &[3, turn as u64], &start).unwrap();
    session.run(|_| ()).unwrap();
    assert!(session.preview_now().unwrap() == session.images().unwrap());
    let size = model.image_size();
    let image = Image::new(size, size, vec![90; size * size * 3]).unwrap();
    let request = Request { classes: vec![1], seeds: vec![turn as u64], settings: settings.clone() };
    let mut edit = model.edit(&cpu, &Edit::Redraw { image, share: 0.5 }, &request).unwrap();
    // Dropped in the middle, as one that was cancelled.
    edit.step(std::time::Duration::ZERO).unwrap();
    if turn.is_multiple_of(2) {
        session.begin(&[0, 0], &[0, 0]).unwrap();
        session.canceller().cancel();
        session.run(|_| ()).unwrap_err();
    }
    // What is refused leaves nothing either.
    model.session(&cpu, 0, &settings, outputs).unwrap_err();
    Model::open(folder.join("nothing")).unwrap_err();
}

/// A line of a file of `/proc/self`, if there is one.
fn proc(file: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/self/{file}")).ok()
}

fn rss() -> Option<u64> {
    let status = proc("status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(1024 * line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?)
}

fn threads() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/task").ok()?.count())
}

/// Alone in its process: another test's allocations would count too.
#[test]
fn a_hundred_turns_leave_nothing() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    let packed = tempfile::tempdir().unwrap();
    pack(&fixtures, packed.path(), discon::Precision::F32, &mut |_, _| ()).unwrap();
    let (before, name) = (threads(), packed.path().to_str().unwrap().to_owned());
    let (mut live, mut resident) = (0, None);
    for i in 0..TURNS {
        turn(packed.path(), i);
        // A thread that was waited for is there a moment longer.
        for _ in 0..100 {
            if threads() == before {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(threads(), before, "threads after turn {i}");
        let left = counting::live();
        if let Some(maps) = proc("maps") {
            assert!(!maps.contains(&name), "mappings after turn {i}");
        }
        if i == WARM {
            (live, resident) = (counting::live(), rss());
            continue;
        }
        assert!(i < WARM || left == live, "{left} bytes after turn {i}, {live} after turn {WARM}");
    }
    if let (Some(first), Some(last)) = (resident, rss()) {
        println!("resident: {first} bytes after turn {WARM}, {last} after turn {TURNS}");
        assert!(last <= first + RSS_GROWTH, "resident: {first} bytes, then {last}");
    }
}
