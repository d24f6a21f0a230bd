//! All at once: models, sessions, threads of one's own, shared or a host's, previews, cancels at any moment. What comes out
//! is what each session makes alone.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Canceller, Cpu, ErrorKind, Event, Image, Model, Outputs, Result, Session, Settings};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Callers at a time.
const CALLERS: u64 = 6;
/// Runs of each.
const RUNS: usize = 16;
/// After so long a caller stops, on a machine that is busy with other things.
const AT_MOST: Duration = Duration::from_secs(15);

/// Numbers that differ, by splitmix64: the same in every run, though what happens when is not.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 32) as usize) % n
    }
}

/// A thing to make, and what it looks like.
struct Job {
    model: Model,
    settings: Settings,
    classes: Vec<usize>,
    seeds: Vec<u64>,
    outputs: Outputs,
    pictures: (Option<Vec<Image>>, Vec<Image>),
}

impl Job {
    fn new(model: &Model, batch: usize, seed: u64, outputs: Outputs) -> Self {
        let settings = Settings { rounds: 2, steps: 4, ..model.settings() };
        let classes = (0..batch).map(|i| (seed as usize + i) % model.config().classes.len()).collect();
        let seeds = (0..batch as u64).map(|i| seed + i).collect();
        let mut job = Self { model: model.clone(), settings, classes, seeds, outputs, pictures: (None, vec![]) };
        let mut session = job.session(&Cpu::new(1).unwrap());
        job.begin(&mut session);
        session.run(|_| ()).unwrap();
        job.pictures = pictures(&session);
        job
    }

    fn session(&self, cpu: &Cpu) -> Session {
        self.model.session(cpu, self.seeds.len(), &self.settings, self.outputs).unwrap()
    }

    fn begin(&self, session: &mut Session) {
        session.begin(&self.classes, &self.seeds).unwrap();
    }
}

fn pictures(session: &Session) -> (Option<Vec<Image>>, Vec<Image>) {
    (session.previews().ok(), session.images().unwrap())
}

/// Runs to the end in one of the ways there are.
fn run(mut session: Session, numbers: &mut Numbers, seen: &Mutex<Option<Vec<Image>>>) -> (Session, Result<()>) {
    let budget = Duration::from_micros(numbers.below(3000) as u64);
    let keep = |event: &Event| {
        if let Event::Preview(pictures) = event {
            *seen.lock().unwrap() = Some(pictures.clone());
        }
    };
    let done = match numbers.below(4) {
        0 => session.run(|_| ()),
        1 => loop {
            match session.step(budget) {
                Ok(p) if p.finished => break Ok(()),
                Ok(_) => (),
                Err(e) => break Err(e),
            }
        },
        2 => session.events(budget).try_for_each(|event| event.map(|event| keep(&event))),
        _ => {
            let told = Arc::new(Mutex::new(None));
            let tell = Arc::clone(&told);
            let background = session.in_background(move |event| {
                if let Event::Preview(pictures) = event {
                    *tell.lock().unwrap() = Some(pictures.clone());
                }
            });
            let (back, done) = background.unwrap().join().unwrap();
            *seen.lock().unwrap() = told.lock().unwrap().take();
            session = back;
            done
        }
    };
    (session, done)
}

/// Cancels at some moment within 20 milliseconds; the thread ends before the next request begins.
fn cancel_soon(canceller: Canceller, numbers: &mut Numbers) -> thread::JoinHandle<()> {
    let wait = Duration::from_micros(numbers.below(20_000) as u64);
    thread::spawn(move || {
        thread::sleep(wait);
        canceller.cancel();
    })
}

#[test]
fn sessions_beside_each_other_make_what_they_make_alone() {
    let open = |folder: &str| Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let (shipped, tiny) = (open("weights/avatars-64"), open("tests/fixtures/tiny"));
    let mut jobs = [
        Job::new(&shipped, 1, 3, Outputs::IMAGE),
        Job::new(&shipped, 2, 4, Outputs::IMAGE_AND_PREVIEW),
        Job::new(&tiny, 1, 5, Outputs::IMAGE_AND_PREVIEW),
        Job::new(&tiny, 8, 6, Outputs::IMAGE),
    ];
    // The models anew, with nothing made for their sessions yet.
    let (shipped, tiny) = (open("weights/avatars-64"), open("tests/fixtures/tiny"));
    let models = [&shipped, &shipped, &tiny, &tiny];
    jobs.iter_mut().zip(models).for_each(|(job, model)| job.model = model.clone());
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap());
    let shared = [Cpu::new(1).unwrap(), Cpu::new(3).unwrap(), Cpu::on(Rayon(pool), 3).unwrap()];
    let (made, cancelled, previewed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let count = |n: &AtomicUsize| n.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (jobs, shared) = (&jobs, &shared);
            let (made, cancelled, previewed) = (&made, &cancelled, &previewed);
            scope.spawn(move || {
                let mut numbers = Numbers(caller);
                // One session lasts, the others come and go.
                let mut lasting: Option<(usize, Session)> = None;
                for turn in 0..RUNS {
                    if start.elapsed() > AT_MOST {
                        break;
                    }
                    let (which, mut session) = match lasting.take() {
                        Some(lasting) => lasting,
                        None => {
                            let which = numbers.below(jobs.len());
                            let own = numbers.below(4) == 0;
                            let cpu = if own { Cpu::new(2).unwrap() } else { shared[turn % shared.len()].clone() };
                            (which, jobs[which].session(&cpu))
                        }
                    };
                    let job = &jobs[which];
                    job.begin(&mut session);
                    let canceller = (numbers.below(2) == 0).then(|| cancel_soon(session.canceller(), &mut numbers));
                    let seen = Mutex::new(None);
                    let (session, done) = run(session, &mut numbers, &seen);
                    let expected = canceller.is_some();
                    if let Some(thread) = canceller {
                        thread.join().unwrap();
                    }
                    match done {
                        Ok(()) => {
                            count(made);
                            assert!(pictures(&session) == job.pictures, "caller {caller}, turn {turn}, job {which}");
                            if let Some(coarse) = seen.into_inner().unwrap() {
                                count(previewed);
                                assert!(Some(coarse) == job.pictures.0, "caller {caller}, turn {turn}, job {which}");
                            }
                        }
                        Err(e) => {
                            assert!(e.kind() == ErrorKind::Cancelled && expected, "{e}");
                            assert_eq!(session.images().unwrap_err().kind(), ErrorKind::Request);
                            count(cancelled);
                        }
                    }
                    if numbers.below(3) > 0 {
                        lasting = Some((which, session));
                    }
                }
            });
        }
    });
    let all = [made, cancelled, previewed].map(AtomicUsize::into_inner);
    println!("{all:?} made, cancelled, previewed in {:.1?}", start.elapsed());
    assert!(all.iter().all(|&n| n > 0), "{all:?} made, cancelled, previewed");
}

struct Rayon(Arc<rayon::ThreadPool>);

impl discon::Workers for Rayon {
    fn spawn(&self, job: discon::Job) {
        rayon::ThreadPool::spawn(&self.0, || job.run());
    }
}
