//! Once a request has begun, working on it neither takes memory nor gives any back: a frame cannot stall on it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

mod counting;

use discon::{Cpu, Job, Model, Outputs, Workers};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// A host's thread, and the job that it is to run next.
#[derive(Default)]
struct Host {
    job: Mutex<Option<Job>>,
    bell: Condvar,
    jobs: AtomicUsize,
}

impl Workers for Host {
    fn spawn(&self, job: Job) {
        *self.job.lock().unwrap() = Some(job);
        self.bell.notify_one();
    }
}

impl Host {
    /// Runs jobs for ever.
    fn serve(&self) {
        loop {
            let job = self.bell.wait_while(self.job.lock().unwrap(), |job| job.is_none()).unwrap().take();
            self.jobs.fetch_add(1, Ordering::Relaxed);
            job.into_iter().for_each(Job::run);
        }
    }
}

/// Alone in its process, without even the harness: what others allocate would count too.
fn main() {
    let host = Arc::new(Host::default());
    let thread = Arc::clone(&host);
    std::thread::spawn(move || thread.serve());
    let hosted = Cpu::on(Arc::clone(&host), 2).unwrap();
    for (threads, cpu) in [("1", Cpu::new(1).unwrap()), ("2", Cpu::new(2).unwrap()), ("2 of a host's", hosted)] {
        // Some ops of 8 images are worth sharing out.
        let previewing = Outputs { partial_previews: true, mix: 3, ..Outputs::IMAGE };
        for (batch, outputs) in [(1, Outputs::IMAGE_AND_PREVIEW), (8, previewing)] {
            let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
            let new = || model.session(&cpu, batch, &model.settings(), outputs).unwrap();
            // The first makes what sessions share; the second begins before that and makes its own in vain.
            let mut sessions = [new(), new()];
            for session in &mut sessions {
                session.begin(&vec![1; batch], &vec![10; batch]).unwrap();
            }
            for session in &mut sessions {
                let mut steps = 1;
                // Threads may still be starting, which is theirs to allocate for, until the first step is over or a
                // while.
                session.step(Duration::ZERO).unwrap();
                std::thread::sleep(Duration::from_millis(100));
                let before = counting::calls();
                while !session.step(Duration::ZERO).unwrap().finished {
                    steps += 1;
                }
                let calls = counting::calls() - before;
                assert_eq!(calls, 0, "allocations and frees in {steps} steps, batch {batch}, {threads} threads");
                assert!(steps > 1000, "{steps}");
                if outputs.partial_previews {
                    session.begin_preview().unwrap();
                    let before = counting::calls();
                    while !session.step_preview(Duration::ZERO).unwrap().finished {}
                    assert_eq!(counting::calls() - before, 0, "previews of {batch}, {threads} threads");
                    assert!(session.partial_previews().unwrap() == session.images().unwrap());
                }
            }
        }
    }
    let jobs = host.jobs.load(Ordering::Relaxed);
    assert!(jobs > 0, "{jobs} jobs of a host");
    println!("no allocation in the steps of any session");
}
