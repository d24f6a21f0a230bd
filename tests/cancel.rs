//! Cancelling: from any thread, before the next tiles of work, and the session can be used again at once.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Plan;
use discon::{Cpu, Error, ErrorKind, Image, Model, Outputs, Session, Settings};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

fn session(threads: usize, batch: usize) -> Session {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
    let settings = Settings { rounds: 4, steps: 6, ..model.settings() };
    model.session(Cpu::new(threads).unwrap(), batch, &settings, Outputs::IMAGE).unwrap()
}

fn begin(session: &mut Session, batch: usize) {
    session.begin(&vec![1; batch], &vec![10; batch]).unwrap();
}

fn pictures(session: &mut Session, batch: usize) -> Vec<Image> {
    begin(session, batch);
    session.run(|_| ()).unwrap();
    session.images().unwrap()
}

/// The share of the dearest op in all.
fn largest(plan: &Plan) -> f64 {
    let ops = plan.segments.iter().flat_map(|s| &s.steps);
    ops.map(|step| step.weight).max().unwrap() as f64 / plan.weight as f64
}

#[test]
fn a_cancel_from_another_thread_stops_before_the_next_chunk_but_one() {
    for (threads, batch) in [(1, 1), (2, 8)] {
        let expected = pictures(&mut session(1, batch), batch);
        let mut session = session(threads, batch);
        let largest = largest(session.plan());
        for turn in [1, 2, 7, 100, 1000] {
            begin(&mut session, batch);
            let canceller = session.canceller();
            let ((ask, asked), (tell, told)) = (channel::<()>(), channel::<()>());
            let other = thread::spawn(move || {
                asked.recv().unwrap();
                canceller.cancel();
                tell.send(()).unwrap();
            });
            let (mut looks, mut at) = (0, 0.0);
            let result = session.run(|p| {
                looks += 1;
                at = p.fraction;
                if looks == turn {
                    ask.send(()).unwrap();
                    told.recv().unwrap();
                }
            });
            other.join().unwrap();
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Cancelled) && error.kind() == ErrorKind::Cancelled, "{error}");
            assert_eq!(looks, turn, "looked at again after it was cancelled, {threads} threads");
            let further = session.progress().fraction - at;
            assert!((0.0..=largest * 1.001).contains(&further), "{further} of {largest}");
            // At once, and nothing of what was cancelled shows.
            assert!(pictures(&mut session, batch) == expected);
        }
    }
}

#[test]
fn a_cancelled_step_does_nothing_and_needs_a_new_request() {
    let mut session = session(1, 1);
    begin(&mut session, 1);
    session.step(Duration::ZERO).unwrap();
    let before = session.progress().fraction;
    let canceller = session.canceller();
    thread::spawn(move || canceller.cancel()).join().unwrap();
    assert_eq!(session.step(Duration::from_secs(60)).unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(session.progress().fraction, before);
    assert_eq!(session.step(Duration::ZERO).unwrap_err().kind(), ErrorKind::Request);
    begin(&mut session, 1);
    session.step(Duration::ZERO).unwrap();
}
