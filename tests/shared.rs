//! What no request changes is made once a model, whoever comes first, and never waited for.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Stage;
use discon::{Cpu, Error, Image, Model, Outputs, Session, Settings};
use std::sync::Barrier;
use std::time::Duration;

fn model() -> Model {
    Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap()
}

fn session(model: &Model, steps: usize) -> Session {
    let settings = Settings { rounds: 3, steps, ..model.settings() };
    assert!(settings.discrete_guidance != 1.0 && settings.guidance != 1.0, "there is a class of none");
    model.session(Cpu::new(1).unwrap(), 1, &settings, Outputs::IMAGE).unwrap()
}

/// The picture, in steps of one op, and how many of them prepared.
fn picture(session: &mut Session) -> (Image, usize) {
    session.begin(&[1], &[10]).unwrap();
    let mut preparing = 0;
    while !session.progress().finished {
        preparing += usize::from(session.progress().stage == Stage::Prepare);
        session.step(Duration::ZERO).unwrap();
    }
    (session.images().unwrap().remove(0), preparing)
}

fn shared_bytes(session: &Session) -> u64 {
    session.plan().shared_bytes()
}

fn arena_bytes(session: &Session) -> u64 {
    session.plan().arena_bytes(1)
}

#[test]
fn a_second_session_neither_holds_nor_makes_it() {
    let model = model();
    let mut first = session(&model, 5);
    let (shared, arena) = (shared_bytes(&first), arena_bytes(&first));
    assert!(shared > 0 && model.shared_bytes() == 0);
    assert_eq!(first.own_bytes(), arena + shared);
    let (expected, preparing) = picture(&mut first);
    assert!(preparing > 4, "{preparing}");
    assert_eq!((first.own_bytes(), model.shared_bytes()), (arena, shared));
    assert_eq!(picture(&mut first), (expected.clone(), 0));
    drop(first);
    let mut second = session(&model.clone(), 5);
    assert_eq!(second.own_bytes(), arena);
    assert_eq!(picture(&mut second), (expected, 0));
    assert_eq!(model.shared_bytes(), shared);
}

#[test]
fn sessions_of_other_settings_share_what_they_can() {
    let model = model();
    let alone = picture(&mut session(&model.clone(), 5)).0;
    let of_five = model.shared_bytes();
    let mut other = session(&model, 7);
    let missing = other.own_bytes() - arena_bytes(&other);
    assert!(missing > 0 && missing < shared_bytes(&other) / 2, "{missing} of {}", shared_bytes(&other));
    let expected = picture(&mut session(&self::model(), 7)).0;
    assert_eq!(picture(&mut other).0, expected);
    assert_eq!(model.shared_bytes(), of_five + missing);
    // Without guidance there is no class of none: time embeddings are all.
    let settings = Settings { discrete_guidance: 1.0, guidance: 1.0, rounds: 3, steps: 5, ..model.settings() };
    let plan = model.plan(1, &settings, Outputs::IMAGE).unwrap();
    assert_eq!(plan.shared_bytes(), missing * 5 / 7);
    assert_eq!(picture(&mut session(&model, 5)), (alone, 0));
}

#[test]
fn sessions_on_several_threads_do_not_wait_for_each_other() {
    let expected = picture(&mut session(&model(), 5)).0;
    for _ in 0..10 {
        let model = model();
        // All are made before any runs: each has memory of its own.
        let sessions: Vec<Session> = (0..4).map(|_| session(&model, 5)).collect();
        let barrier = Barrier::new(sessions.len());
        std::thread::scope(|scope| {
            for mut session in sessions {
                let (barrier, expected) = (&barrier, &expected);
                scope.spawn(move || {
                    barrier.wait();
                    assert_eq!(picture(&mut session).0, *expected);
                    // The next run takes the block of whoever was first.
                    assert_eq!(picture(&mut session), (expected.clone(), 0));
                    assert_eq!(session.own_bytes(), arena_bytes(&session));
                });
            }
        });
        assert_eq!(model.shared_bytes(), shared_bytes(&session(&model, 5)));
    }
}

#[test]
fn a_session_stopped_while_it_prepares_keeps_nobody_from_it() {
    let expected = picture(&mut session(&model(), 5)).0;
    for ops in 1.. {
        let model = model();
        let (mut stopped, mut paused, mut other) = (session(&model, 5), session(&model, 5), session(&model, 5));
        let sessions = [&mut stopped, &mut paused];
        for session in sessions.map(|session| (session.begin(&[2], &[20]).unwrap(), session).1) {
            for _ in 0..ops {
                session.step(Duration::ZERO).unwrap();
            }
        }
        if paused.progress().stage != Stage::Prepare {
            assert!(ops > 4, "{ops}");
            break;
        }
        stopped.canceller().cancel();
        assert!(matches!(stopped.step(Duration::ZERO), Err(Error::Cancelled)));
        // It makes again what it had begun.
        assert_eq!(picture(&mut stopped).0, expected);
        assert_eq!(picture(&mut other), (expected.clone(), 0));
        // One in the middle of it goes on with its own.
        paused.run(|_| {}).unwrap();
        assert_ne!(paused.images().unwrap()[0], expected);
        assert_eq!(picture(&mut paused), (expected.clone(), 0));
        assert_eq!(paused.own_bytes(), arena_bytes(&paused));
    }
}
