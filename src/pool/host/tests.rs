//! A host may run its jobs soon, late, never, or on the caller's thread: every chunk comes once, nobody waits for ever, and
//! the host never holds more than it was told.

use super::super::tests::{of, wait_until};
use super::super::{Pool, Split};
use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, Weak};
use std::thread::{self, JoinHandle};

/// A host made of a function.
struct Host<F>(F);

impl<F: Fn(Job) + Send + Sync> Workers for Host<F> {
    fn spawn(&self, job: Job) {
        (self.0)(job);
    }
}

fn pool(threads: usize, spawn: impl Fn(Job) + Send + Sync + 'static) -> Pool {
    Pool::on(Host(spawn), threads).unwrap()
}

/// Threads that take jobs as they come.
fn crew(threads: usize) -> (Sender<Job>, Vec<JoinHandle<()>>) {
    let (sender, jobs) = channel::<Job>();
    let jobs = Arc::new(Mutex::new(jobs));
    let next = |jobs: &Mutex<std::sync::mpsc::Receiver<Job>>| jobs.lock().unwrap().recv();
    let thread = |_| {
        let jobs = Arc::clone(&jobs);
        thread::spawn(move || {
            while let Ok(job) = next(&jobs) {
                job.run();
            }
        })
    };
    (sender, (0..threads).map(thread).collect())
}

/// Runs `jobs` jobs of some chunks and checks that each chunk comes once, from a worker of `threads`.
fn each_once(pool: &Pool, jobs: usize) {
    pool.enter(|| {
        for size in (0..jobs).map(|job| job % 9) {
            let seen: [AtomicU32; 9] = Default::default();
            pool.for_each(0..size, Split::EACH, |worker, i| {
                assert!(worker < pool.threads());
                seen[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(seen.iter().enumerate().all(|(i, n)| n.load(Ordering::Relaxed) == u32::from(i < size)));
        }
    });
}

fn offered(pool: &Pool) -> usize {
    pool.shared.offered.load(Ordering::Relaxed)
}

#[test]
fn a_hosts_threads_come_when_there_is_work_and_leave_when_there_is_none() {
    let (jobs, threads) = crew(2);
    let pool = pool(3, move |job| jobs.send(job).unwrap());
    for _ in 0..of(20).max(2) {
        assert_eq!(offered(&pool), 0, "nothing is asked for without work");
        pool.enter(|| {
            let present = AtomicUsize::new(0);
            // Nobody goes on before all three are there, each with a number of its own.
            pool.for_each(0..3, Split::EACH, |worker, _| {
                assert_eq!(present.fetch_or(1 << worker, Ordering::Relaxed) & 1 << worker, 0);
                wait_until(|| present.load(Ordering::Relaxed) == 0b111);
            });
        });
        wait_until(|| offered(&pool) == 0);
    }
    each_once(&pool, of(20_000));
    drop(pool);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn jobs_that_never_run_are_few_and_keep_nobody_waiting() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::clone(&held);
    let pool = pool(4, move |job| host.lock().unwrap().push(job));
    pool.for_each(0..2, Split::EACH, |_, _| ());
    assert_eq!(held.lock().unwrap().len(), 1, "one chunk for others");
    each_once(&pool, of(5000));
    assert_eq!((held.lock().unwrap().len(), offered(&pool)), (3, 3));
    // Late, when no run is under way: they leave again and are offered anew.
    held.lock().unwrap().drain(..).for_each(Job::run);
    assert_eq!(offered(&pool), 0);
    each_once(&pool, of(5000));
    // Dropped, or started when the pool is gone.
    let shared = Arc::downgrade(&pool.shared);
    drop(held.lock().unwrap().pop());
    assert_eq!(offered(&pool), 2);
    drop(pool);
    let mut held = held.lock().unwrap();
    assert_eq!((held.len(), Weak::strong_count(&shared)), (2, 2));
    held.drain(..).for_each(Job::run);
    assert_eq!(Weak::strong_count(&shared), 0, "what a job holds goes with it");
}

#[test]
fn a_late_job_helps_with_what_is_there_then() {
    let held = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::clone(&held);
    let pool = pool(2, move |job| host.lock().unwrap().push(job));
    each_once(&pool, 10);
    assert_eq!(held.lock().unwrap().len(), 1);
    let helped = AtomicUsize::new(0);
    // A job whose caller has no core for a while leaves, as it should, and the next run holds another.
    let late = || {
        let job = held.lock().unwrap().pop();
        job.into_iter().for_each(Job::run);
        helped.load(Ordering::Relaxed) > 0
    };
    thread::scope(|scope| {
        pool.enter(|| {
            scope.spawn(|| wait_until(late));
            wait_until(|| {
                pool.for_each(0..2, Split::EACH, |worker, _| {
                    helped.fetch_add(worker, Ordering::Relaxed);
                    thread::yield_now();
                });
                helped.load(Ordering::Relaxed) > 0
            });
        });
    });
}

#[test]
fn a_job_run_on_the_callers_thread_does_nothing() {
    for threads in [1, 2, 5] {
        let spawned = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&spawned);
        let pool = pool(threads, move |job| {
            count.fetch_add(1, Ordering::Relaxed);
            job.run();
        });
        pool.enter(|| {
            pool.for_each(0..3, Split::EACH, |worker, _| assert_eq!(worker, 0));
        });
        assert_eq!((spawned.load(Ordering::Relaxed), offered(&pool)), (4.min(threads - 1), 0));
        each_once(&pool, of(5000));
        assert_eq!(spawned.load(Ordering::Relaxed) == 0, threads == 1, "one thread asks for nobody");
    }
}

#[test]
fn a_host_that_waits_for_its_jobs_is_waited_for() {
    let pool = pool(3, |job| thread::spawn(|| job.run()).join().unwrap());
    each_once(&pool, of(50));
}

#[test]
fn dropped_jobs_are_help_that_does_not_come() {
    let pool = Pool::on((), 3).unwrap();
    each_once(&pool, of(5000));
    assert_eq!(offered(&pool), 0);
    let nested: Box<dyn Workers> = Box::new(Arc::new(()));
    each_once(&Pool::on(nested, 3).unwrap(), 20);
}

#[test]
fn a_host_written_in_c_has_a_function_and_a_pointer() {
    struct Carried(RawJob);
    // SAFETY: the functions may be called from any thread (`RawJob`).
    unsafe impl Send for Carried {}
    let done = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&done);
    let pool = pool(3, move |job| {
        let raw = Carried(job.into_raw());
        if count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            // SAFETY: once, with its own data.
            unsafe { (raw.0.discard)(raw.0.data) };
            return;
        }
        thread::spawn(move || {
            let Carried(raw) = { raw };
            // SAFETY: once, with its own data.
            unsafe { (raw.run)(raw.data) };
        });
    });
    each_once(&pool, of(2000));
    assert!(done.load(Ordering::Relaxed) >= 2);
    let shared = Arc::downgrade(&pool.shared);
    drop(pool);
    wait_until(|| Weak::strong_count(&shared) == 0);
}

#[test]
fn a_panic_of_the_host_reaches_the_caller_and_the_pool_works_on() {
    let calls = AtomicUsize::new(0);
    let pool = pool(3, move |_| assert!(calls.fetch_add(1, Ordering::Relaxed) > 0, "the host broke"));
    let result = catch_unwind(AssertUnwindSafe(|| pool.for_each(0..9, Split::EACH, |_, _| ())));
    assert!(result.unwrap_err().downcast_ref::<&str>().is_some_and(|text| *text == "the host broke"));
    assert_eq!(offered(&pool), 0);
    assert!(!SPAWNING.get());
    each_once(&pool, of(2000));
}

#[test]
fn a_panic_on_a_hosts_thread_reaches_the_caller() {
    let (jobs, threads) = crew(1);
    let pool = pool(2, move |job| jobs.send(job).unwrap());
    for _ in 0..of(20).max(2) {
        let helped = AtomicU32::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.for_each(0..9, Split::EACH, |worker, _| {
                helped.fetch_add(worker as u32, Ordering::Relaxed);
                wait_until(|| helped.load(Ordering::Relaxed) > 0);
                assert_eq!(worker, 0, "a helper broke");
            });
        }));
        assert!(result.unwrap_err().downcast_ref::<String>().is_some_and(|text| text.contains("a helper broke")));
    }
    drop(pool);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
