//! The engine works on threads of a `Cpu`'s own: as many as were asked for, and none once it is gone.
#![cfg(target_os = "linux")] // where a process can list its threads
#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Model, Outputs, Settings};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

fn tasks() -> Vec<PathBuf> {
    fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path()).collect()
}

/// Whether the threads that were not there before have these names, soon: the system lists a thread for a moment after
/// it has ended, and names it a moment after it has begun.
fn has_besides(before: &[PathBuf], expected: &[&str]) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(20) {
        let new = tasks().into_iter().filter(|task| !before.contains(task));
        // One that ends meanwhile has no name to read.
        let names = new.filter_map(|task| fs::read_to_string(task.join("comm")).ok());
        let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        names.sort();
        if names == expected {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[test]
fn a_cpu_has_the_threads_it_was_asked_for_and_takes_them_along() {
    let before = tasks();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    let model = Model::open(folder).unwrap();
    let settings = Settings { rounds: 2, steps: 2, ..model.settings() };
    assert!(has_besides(&before, &[]));
    // Enough images that some ops are worth sharing out.
    let (cpu, batch) = (Cpu::new(3).unwrap(), 8);
    let mut session = model.session(&cpu, batch, &settings, Outputs::IMAGE).unwrap();
    session.begin(&vec![0; batch], &vec![1; batch]).unwrap();
    session.run(|_| {}).unwrap();
    assert!(has_besides(&before, &["discon-1", "discon-2"]));
    drop(cpu);
    session.begin(&vec![0; batch], &vec![1; batch]).unwrap();
    session.run(|_| {}).unwrap();
    assert!(has_besides(&before, &["discon-1", "discon-2"]), "the session has them still");
    drop(session);
    assert!(has_besides(&before, &[]));
}
