//! A run as events, on the caller's thread or in the background, and how long it will take.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::plan::Stage;
use discon::{Background, Cpu, Error, ErrorKind, Event, Image, Model, Outputs, Session, Settings};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

fn session(outputs: Outputs) -> Session {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
    let settings = Settings { rounds: 4, steps: 6, ..model.settings() };
    let mut session = model.session(Cpu::new(1).unwrap(), 2, &settings, outputs).unwrap();
    begin(&mut session);
    session
}

fn begin(session: &mut Session) {
    session.begin(&[1, 2], &[10, 11]).unwrap();
}

/// Some thousand steps' worth of work.
fn long_session() -> Session {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
    let settings = Settings { rounds: 16, steps: 1000, ..model.settings() };
    let mut session = model.session(Cpu::new(1).unwrap(), 16, &settings, Outputs::IMAGE).unwrap();
    session.begin(&[1; 16], &[10; 16]).unwrap();
    session
}

fn pictures(outputs: Outputs) -> (Option<Vec<Image>>, Option<Vec<Image>>) {
    let mut session = session(outputs);
    session.run(|_| ()).unwrap();
    (session.previews().ok(), session.images().ok())
}

/// What came, in order: p a step, c the coarse pictures, i the images; runs of p as one.
fn order(events: &[Event]) -> String {
    let mut order: Vec<char> = events
        .iter()
        .map(|event| match event {
            Event::Progress(_) => 'p',
            Event::Preview(_) => 'c',
            Event::Images(_) => 'i',
            _ => '?',
        })
        .collect();
    order.dedup();
    order.into_iter().collect()
}

#[test]
fn each_event_is_a_step_and_the_pictures_come_once() {
    for (outputs, expected) in
        [(Outputs::IMAGE, "pi"), (Outputs::IMAGE_AND_PREVIEW, "pcpi"), (Outputs::DISCRETE_ONLY, "pc")]
    {
        let mut session = session(outputs);
        let events: Vec<Event> = session.events(Duration::ZERO).map(|event| event.unwrap()).collect();
        assert_eq!(order(&events), expected, "{outputs:?}");
        let (mut coarse, mut images, mut stages) = (None, None, Vec::new());
        for event in events {
            match event {
                Event::Progress(p) if coarse.is_none() && outputs.preview => stages.push(p.stage),
                Event::Preview(pictures) => assert!(coarse.replace(pictures).is_none()),
                Event::Images(pictures) => assert!(images.replace(pictures).is_none()),
                _ => (),
            }
        }
        assert_eq!((coarse, images), pictures(outputs), "{outputs:?}");
        // The step that ended the preview is the last before it.
        let early = |stage: &Stage| matches!(stage, Stage::Prepare | Stage::Discrete | Stage::Preview);
        assert!(stages.iter().rev().skip(1).all(early), "{stages:?}");
        // A session at its end has no more to do than to say so and give its pictures again.
        let again: Vec<Event> = session.events(Duration::ZERO).map(|event| event.unwrap()).collect();
        assert_eq!(again.len(), 1 + usize::from(outputs.image) + usize::from(outputs.preview));
    }
}

#[test]
fn events_dropped_halfway_leave_the_session_where_it_is() {
    let mut session = session(Outputs::IMAGE);
    let some: Vec<_> = session.events(Duration::ZERO).take(20).collect();
    let Some(Ok(Event::Progress(p))) = some.last() else { panic!("{some:?}") };
    assert_eq!(session.progress().fraction, p.fraction);
    session.run(|_| ()).unwrap();
    assert_eq!(session.images().ok(), pictures(Outputs::IMAGE).1);
}

#[test]
fn events_end_after_an_error() {
    let mut session = session(Outputs::IMAGE);
    let canceller = session.canceller();
    let mut events = session.events(Duration::ZERO);
    assert!(matches!(events.next(), Some(Ok(Event::Progress(_)))));
    canceller.cancel();
    assert!(matches!(events.next(), Some(Err(Error::Cancelled))));
    assert!(events.next().is_none());
    // The same for one that has not begun.
    let errors: Vec<_> = session.events(Duration::ZERO).collect();
    assert!(matches!(&errors[..], [Err(e)] if e.kind() == ErrorKind::Request), "{errors:?}");
}

#[test]
fn the_time_left_is_that_of_the_work_left_at_the_speed_so_far() {
    let mut session = session(Outputs::IMAGE);
    assert_eq!(session.progress().left, None);
    let (mut spent, mut known, mut last) = (Duration::ZERO, 0, None);
    loop {
        let before = session.progress();
        // Time outside of the session does not count.
        if known < 3 {
            thread::sleep(Duration::from_millis(20));
        }
        let start = Instant::now();
        let p = session.step(Duration::ZERO).unwrap();
        spent += start.elapsed();
        assert_eq!(session.progress(), p);
        if p.finished {
            assert_eq!(p.left, Some(Duration::ZERO));
            break;
        }
        assert_eq!(p.left.is_some(), p.fraction >= 0.001, "{p:?}");
        if let Some(left) = p.left {
            known += 1;
            // The clock outside has seen a little more than the one inside.
            let most = spent.as_secs_f64() * (1.0 - p.fraction) / p.fraction;
            assert!(left.as_secs_f64() <= most * 1.01 + 1e-6, "{left:?} of {most} s at {}", p.fraction);
            assert!(left > Duration::ZERO);
            last = Some(left).filter(|_| before.fraction < 0.99);
        }
    }
    assert!(known > 100 && last.is_none());
    // Of the next request nothing is known, whatever the last one took.
    begin(&mut session);
    assert_eq!(session.progress().left, None);
    // Inside a run too.
    let mut lefts = Vec::new();
    session.run(|p| lefts.push(p.left)).unwrap();
    assert!(lefts[0].is_none() && lefts[lefts.len() / 2].is_some_and(|left| !left.is_zero()));
    assert_eq!(lefts.last(), Some(&Some(Duration::ZERO)));
}

#[test]
fn work_that_was_there_already_does_not_make_a_session_look_fast() {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
    let settings = Settings { rounds: 2, steps: 1000, ..model.settings() };
    let mut session = model.session(Cpu::new(1).unwrap(), 1, &settings, Outputs::IMAGE).unwrap();
    for _ in 0..2 {
        session.begin(&[1], &[1]).unwrap();
        let at_begin = session.progress();
        while session.progress().left.is_none() {
            session.step(Duration::ZERO).unwrap();
        }
        let p = session.progress();
        assert!(p.fraction - at_begin.fraction >= 0.001, "{p:?} after {at_begin:?}");
        session.run(|_| ()).unwrap();
    }
    // The second began with what the first had prepared.
    session.begin(&[1], &[1]).unwrap();
    assert!(session.progress().fraction > 0.0);
}

#[test]
fn a_session_runs_in_the_background() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&events);
    let background = session(Outputs::IMAGE_AND_PREVIEW).in_background(move |event| {
        assert_eq!(thread::current().name(), Some("discon-session"));
        told.lock().unwrap().push(event.clone());
    });
    let (session, done) = background.unwrap().join().unwrap();
    done.unwrap();
    let events = events.lock().unwrap();
    // A preview may be there after the last step of all, and come after it.
    assert!(["pcpi", "pci"].contains(&&*order(&events)), "{}", order(&events));
    assert_eq!(session.images().ok(), pictures(Outputs::IMAGE_AND_PREVIEW).1);
}

/// A run in the background that is under way, and the shares of its work that it tells.
fn start(session: Session) -> (Background, Receiver<f64>) {
    let (tell, told) = channel();
    let background = session.in_background(move |event| {
        if let Event::Progress(p) = event {
            tell.send(p.fraction).unwrap_or(());
        }
    });
    let background = background.unwrap();
    told.recv().unwrap();
    (background, told)
}

#[test]
fn a_background_run_can_be_cancelled_and_its_session_used_again() {
    let (background, _told) = start(long_session());
    assert!(!background.is_finished());
    background.cancel();
    let (mut session, done) = background.join().unwrap();
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    session.begin(&[1; 16], &[10; 16]).unwrap();
    // Cancelled before it begins.
    let (mut session, done) = {
        session.canceller().cancel();
        session.in_background(|_| ()).unwrap().join().unwrap()
    };
    assert_eq!(done.unwrap_err().kind(), ErrorKind::Cancelled);
    session.begin(&[1; 16], &[10; 16]).unwrap();
    session.step(Duration::ZERO).unwrap();
}

#[test]
fn a_background_run_ends_when_it_is_dropped() {
    let (background, told) = start(long_session());
    drop(background);
    // The callback is gone, so the thread is through.
    let last = told.into_iter().last();
    assert!(last.is_none_or(|fraction| fraction < 0.9), "{last:?}");
    // Dropped by its own callback it does not wait for itself.
    let place: Arc<Mutex<Option<Background>>> = Arc::default();
    let (tell, told) = channel();
    let own = Arc::clone(&place);
    let background = long_session().in_background(move |_| {
        let mine = own.lock().unwrap().take();
        if mine.is_some() {
            drop(mine);
            tell.send(()).unwrap();
        }
    });
    *place.lock().unwrap() = Some(background.unwrap());
    told.recv().unwrap();
}

#[test]
fn a_background_run_is_not_joined_by_its_own_callback() {
    let place: Arc<Mutex<Option<Background>>> = Arc::default();
    let (tell, told) = channel();
    let own = Arc::clone(&place);
    let background = long_session().in_background(move |_| {
        if let Some(mine) = own.lock().unwrap().take() {
            let inside = mine.is_current();
            tell.send((inside, mine.join().map(drop))).unwrap();
        }
    });
    let background = background.unwrap();
    assert!(!background.is_current());
    *place.lock().unwrap() = Some(background);
    let (inside, joined) = told.recv().unwrap();
    let error = joined.unwrap_err();
    assert!(inside && error.kind() == ErrorKind::Request && error.to_string().contains("`on_event`"), "{error}");
    // It was cancelled, as if dropped: the callback goes with its thread.
    assert!(told.recv().is_err());
}

#[test]
fn codes_are_there_once_stage_1_is_through() {
    let mut session = session(Outputs::IMAGE);
    let (mut early, mut last) = (0, None);
    while !session.progress().finished {
        let through = !matches!(session.progress().stage, Stage::Prepare | Stage::Discrete);
        assert_eq!(session.has_codes(), through);
        match session.codes() {
            Ok(codes) => assert!(through && *last.get_or_insert_with(|| codes.clone()) == codes),
            Err(error) => {
                assert!(error.to_string().contains("codes: expected a session after stage 1"), "{error}");
                early += 1;
            }
        }
        session.step(Duration::ZERO).unwrap();
    }
    assert!(early > 10 && session.codes().ok() == last);
    // Those of a finished request are not those of the next.
    begin(&mut session);
    assert!(!session.has_codes() && session.codes().is_err());
    // Given ones are there from the start.
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
    let given = Outputs { given_codes: true, ..Outputs::IMAGE };
    let mut session = model.session(Cpu::new(1).unwrap(), 2, &model.settings(), given).unwrap();
    assert!(!session.has_codes() && session.codes().is_err());
    session.begin_with_codes(&[1, 2], &[10, 11], &last.clone().unwrap()).unwrap();
    assert!(session.has_codes() && session.codes().ok() == last);
    // A model without a discrete stage has none ever.
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/odd")).unwrap();
    let mut session = model.session(Cpu::new(1).unwrap(), 1, &model.settings(), Outputs::IMAGE).unwrap();
    session.begin(&[1], &[1]).unwrap();
    assert!(!session.has_codes() && session.codes().unwrap_err().to_string().contains("found one without"));
}

#[test]
fn one_image_is_had_without_the_others() {
    let mut session = session(Outputs::IMAGE);
    assert!(session.image(0).is_err());
    session.run(|_| ()).unwrap();
    let images = session.images().unwrap();
    assert!(images.len() == 2 && images[0] != images[1]);
    assert!(session.image(0).unwrap() == images[0] && session.image(1).unwrap() == images[1]);
    let error = session.image(2).unwrap_err().to_string();
    assert_eq!(error, "image: expected a number below 2, found 2");
    assert!(session.preview(0).unwrap_err().to_string().starts_with("previews: expected a session that makes them"));
}

#[test]
fn one_coarse_picture_is_had_without_the_others() {
    let mut session = session(Outputs { preview: true, ..Outputs::IMAGE });
    assert!(session.preview(0).is_err());
    session.run(|_| ()).unwrap();
    let previews = session.previews().unwrap();
    assert!(previews.len() == 2 && previews[0] != previews[1]);
    assert!(session.preview(0).unwrap() == previews[0] && session.preview(1).unwrap() == previews[1]);
    let error = session.preview(2).unwrap_err().to_string();
    assert_eq!(error, "image: expected a number below 2, found 2");
}

#[test]
fn a_background_run_tells_when_it_is_over() {
    let background = session(Outputs::IMAGE).in_background(|_| ()).unwrap();
    let start = Instant::now();
    while !background.is_finished() {
        assert!(start.elapsed() < Duration::from_secs(60), "not in a minute");
        thread::sleep(Duration::from_millis(1));
    }
    // Too late to cancel.
    background.cancel();
    let (session, done) = background.join().unwrap();
    done.unwrap();
    assert_eq!(session.images().ok(), pictures(Outputs::IMAGE).1);
}

#[test]
fn a_panic_of_the_callback_is_an_error() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let background = session(Outputs::IMAGE).in_background(move |_| {
        assert!(count.fetch_add(1, Ordering::Relaxed) > 0, "no room for events");
    });
    let (mut session, done) = background.unwrap().join().unwrap();
    let error = done.unwrap_err();
    assert!(matches!(&error, Error::Callback { what: "`on_event`", .. }) && error.kind() == ErrorKind::Callback);
    assert_eq!(error.to_string(), "`on_event` panicked: no room for events");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    begin(&mut session);
    session.run(|_| ()).unwrap();
    assert_eq!(session.images().ok(), pictures(Outputs::IMAGE).1);
}
