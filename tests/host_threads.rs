//! A host's threads in the place of our own: the same pictures, whatever the host does with its jobs.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Image, Job, Model, Outputs, Session, Settings, Workers};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Enough images that some ops are worth sharing out.
const BATCH: usize = 8;

fn model() -> Model {
    Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap()
}

fn session(model: &Model, cpu: &Cpu) -> Session {
    let settings = Settings { rounds: 4, steps: 6, ..model.settings() };
    let mut session = model.session(cpu, BATCH, &settings, Outputs::IMAGE).unwrap();
    session.begin(&[1; BATCH], &[5, 6, 7, 8, 9, 10, 11, 12]).unwrap();
    session
}

fn pictures(model: &Model, cpu: &Cpu, budget: Option<Duration>) -> Vec<Image> {
    let mut session = session(model, cpu);
    match budget {
        None => session.run(|_| ()).unwrap(),
        Some(budget) => while !session.step(budget).unwrap().finished {},
    }
    session.images().unwrap()
}

/// A host made of a function, and how often it was asked.
struct Host<F>(F, Arc<AtomicUsize>);

impl<F: Fn(Job) + Send + Sync> Workers for Host<F> {
    fn spawn(&self, job: Job) {
        self.1.fetch_add(1, Ordering::Relaxed);
        (self.0)(job);
    }
}

/// The pictures on `threads` threads, one's own and those of a host that does `spawn`, are as on one thread.
fn makes_the_same(name: &str, threads: usize, spawn: impl Fn(Job) + Send + Sync + 'static) {
    let (model, asked) = (model(), Arc::new(AtomicUsize::new(0)));
    let expected = pictures(&model, &Cpu::new(1).unwrap(), None);
    let cpu = Cpu::on(Host(spawn, Arc::clone(&asked)), threads).unwrap();
    assert_eq!(cpu.threads(), threads);
    for budget in [None, Some(Duration::ZERO), Some(Duration::from_micros(300))] {
        assert!(pictures(&model, &cpu, budget) == expected, "{name}, budget {budget:?}");
    }
    assert_eq!(asked.load(Ordering::Relaxed) > 0, threads > 1, "{name}");
}

fn rayon_pool(threads: usize) -> Arc<rayon::ThreadPool> {
    Arc::new(rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap())
}

#[test]
fn on_the_threads_of_rayon() {
    for threads in [2, 4] {
        let pool = rayon_pool(threads - 1);
        makes_the_same("rayon", threads, move |job| rayon::ThreadPool::spawn(&pool, || job.run()));
    }
}

#[test]
fn with_jobs_that_never_run() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::clone(&held);
    makes_the_same("never", 4, move |job| {
        let mut held = host.lock().unwrap();
        held.push(job);
        assert!(held.len() < 4, "more jobs than threads");
    });
    // The sessions and the `Cpu` are gone.
    held.lock().unwrap().drain(..).for_each(Job::run);
}

#[test]
fn with_jobs_that_run_late() {
    makes_the_same("late", 3, |job| {
        thread::spawn(|| {
            thread::sleep(Duration::from_millis(2));
            job.run();
        });
    });
}

#[test]
fn with_jobs_that_run_on_the_callers_thread() {
    makes_the_same("inline", 3, Job::run);
}

#[test]
fn with_jobs_that_are_dropped_or_not_asked_for() {
    makes_the_same("dropped", 3, drop);
    makes_the_same("one thread", 1, |_| panic!("one thread asks for nobody"));
}

/// Where a panic unwinds through a step, an op is done in part: to go on would be to do that part again, in place.
#[test]
fn a_panic_inside_a_step_ends_the_request() {
    let model = model();
    let settings = Settings { rounds: 4, steps: 6, ..model.settings() };
    let expected = pictures(&model, &Cpu::new(1).unwrap(), None);
    let fails = Arc::new(AtomicBool::new(false));
    let host = Arc::clone(&fails);
    let spawn = move |_| assert!(!host.load(Ordering::Relaxed), "no thread to lend");
    let cpu = Cpu::on(Host(spawn, Arc::default()), 3).unwrap();
    let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE };
    let mut session = model.session(&cpu, BATCH, &settings, outputs).unwrap();
    let begin = |session: &mut Session| session.begin(&[1; BATCH], &[5, 6, 7, 8, 9, 10, 11, 12]).unwrap();
    let panics = |f: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(f)).is_err();
    let ends = |session: &mut Session| {
        let error = session.step(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("begin before step"), "{error}");
        assert!(session.images().is_err() && session.codes().is_err());
    };
    // Of the host, which is asked for each op that is worth it.
    begin(&mut session);
    while session.progress().fraction < 0.5 {
        session.step(Duration::ZERO).unwrap();
    }
    fails.store(true, Ordering::Relaxed);
    assert!(panics(&mut || session.run(|_| ()).unwrap()));
    ends(&mut session);
    // Of who watches.
    fails.store(false, Ordering::Relaxed);
    begin(&mut session);
    assert!(panics(&mut || session.run(|p| assert!(p.fraction < 0.7)).unwrap()));
    ends(&mut session);
    // In a preview: the session's own run goes on.
    begin(&mut session);
    while session.begin_preview().is_err() {
        session.step(Duration::ZERO).unwrap();
    }
    fails.store(true, Ordering::Relaxed);
    assert!(panics(&mut || session.step_preview(Duration::MAX).map(drop).unwrap()));
    assert!(session.step_preview(Duration::ZERO).unwrap_err().to_string().contains("begin_preview"));
    assert!(session.partial_previews().is_err());
    fails.store(false, Ordering::Relaxed);
    session.run(|_| ()).unwrap();
    assert!(session.images().unwrap() == expected && session.preview_now().unwrap() == expected);
}

#[test]
fn inside_the_pool_that_helps() {
    let model = model();
    let expected = pictures(&model, &Cpu::new(1).unwrap(), None);
    for threads in [1, 3] {
        let pool = rayon_pool(threads);
        let host = Arc::clone(&pool);
        let cpu =
            Cpu::on(Host(move |job: Job| rayon::ThreadPool::spawn(&host, || job.run()), Arc::default()), 3).unwrap();
        let sessions = || pool.join(|| pictures(&model, &cpu, None), || pictures(&model, &cpu, Some(Duration::ZERO)));
        let (a, b) = sessions();
        assert!(a == expected && b == expected, "{threads} threads");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn on_a_rayon_pool_as_it_is() {
    let model = model();
    let expected = pictures(&model, &Cpu::new(1).unwrap(), None);
    let pool = rayon_pool(3);
    let cpu = Cpu::on_rayon(Arc::clone(&pool)).unwrap();
    assert_eq!(cpu.threads(), 3);
    assert!(pictures(&model, &cpu, None) == expected);
    assert!(pool.install(|| pictures(&model, &cpu, None)) == expected);
    let fewer = Cpu::on(pool, 2).unwrap();
    assert!(pictures(&model, &fewer, None) == expected);
}

#[test]
fn too_many_threads_are_an_error() {
    let error = Cpu::on((), 100_000).unwrap_err();
    assert!(error.to_string().contains("threads") && error.to_string().contains("100000"), "{error}");
}
