//! Once a request has begun, working on it neither takes memory nor gives any back: a frame cannot stall on it.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

mod counting;

use discon::{Cpu, Model, Outputs};
use std::time::Duration;

/// Alone in its process: another test's allocations would count too.
#[test]
fn steps_do_not_allocate() {
    for threads in [1, 2] {
        let cpu = Cpu::new(threads).unwrap();
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
}
