//! Every chunk once, whoever takes it; nothing waits for ever; a panic arrives and does no harm.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Weak;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread::{self, ThreadId};

/// Miri runs a thousand times slower.
pub(super) const fn of(n: usize) -> usize {
    if cfg!(miri) { n.div_ceil(1000) } else { n }
}

/// Waits for something that another thread does, with time for a machine that is busy with other things.
pub(super) fn wait_until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain");
        thread::yield_now();
    }
}

#[test]
fn every_index_comes_once_and_a_worker_is_one_thread() {
    for threads in [1, 2, 3, 16] {
        let pool = Pool::new(threads).unwrap();
        assert_eq!(pool.threads(), threads);
        for size in [0, 1, 2, 3, 17, 64, 1000] {
            for parallel in [false, true] {
                let seen: Vec<AtomicU32> = (0..size).map(|_| AtomicU32::new(0)).collect();
                let who: Vec<Mutex<Option<ThreadId>>> = (0..threads).map(|_| Mutex::default()).collect();
                let last: Vec<AtomicUsize> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(7..7 + size, Split { parallel, claim: 5 }, |worker, i| {
                    seen[i - 7].fetch_add(1, Ordering::Relaxed);
                    let me = thread::current().id();
                    assert_eq!(*who[worker].lock().unwrap().get_or_insert(me), me);
                    let before = last[worker].swap(i, Ordering::Relaxed);
                    // From the front they go up; from the back a claim lies below the one before it.
                    let (near, far) = (before + 1 == i, if worker % 2 == 0 { before < i } else { before > i });
                    assert!(before == 0 || near || far, "worker {worker}: {i} after {before}");
                    assert!(parallel || worker == 0);
                });
                assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{threads} threads, {size}");
                let caller = who[0].lock().unwrap().unwrap_or(thread::current().id());
                assert_eq!(caller, thread::current().id());
            }
        }
    }
}

#[test]
fn a_pause_leaves_a_range_that_nobody_started() {
    for (threads, claim) in [(1, 1), (1, 7), (2, 1), (3, 4), (8, 1)] {
        let pool = Pool::new(threads).unwrap();
        for parallel in [false, true] {
            let seen: Vec<AtomicU32> = (0..200).map(|_| AtomicU32::new(0)).collect();
            let (mut left, mut pauses) = (10..200, 0);
            while !left.is_empty() {
                let before = left.clone();
                let mut asked = 0;
                let pause = || {
                    asked += 1;
                    asked == 2
                };
                left = pool.until(left, Split { parallel, claim }, pause, |_, i| {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                    // Long enough for the others to come.
                    (0..1000).for_each(|_| std::hint::spin_loop());
                });
                pauses += 1;
                assert!(left.is_empty() || before.start <= left.start && left.end <= before.end, "{left:?}");
                assert!(asked <= 2 && left.len() < before.len());
                let times = |i: usize| u32::from(i >= 10 && !left.contains(&i));
                assert!((0..200).all(|i| seen[i].load(Ordering::Relaxed) == times(i)), "{left:?} of {before:?}");
            }
            // Ends with the claim after which nothing is left, asked or not.
            assert!(parallel && threads > 1 || pauses == 190usize.div_ceil(2 * claim), "{pauses}");
        }
    }
}

#[test]
fn numbers_of_chunks_that_no_ticket_holds_are_left_to_the_caller() {
    let pool = Pool::new(2).unwrap();
    let stopped = catch_unwind(AssertUnwindSafe(|| {
        pool.for_each(0..usize::MAX, Split::EACH, |worker, i| assert!(worker == 0 && i < 1000));
    }));
    assert!(stopped.is_err());
    assert_eq!(pool.shared.board.epoch(), 0);
}

#[test]
fn what_a_chunk_writes_is_there_after_the_call() {
    let pool = Pool::new(3).unwrap();
    let mut numbers = vec![0u64; 64];
    for turn in 1..of(5000) as u64 {
        let cells: Vec<AtomicU64> = numbers.iter().map(|&n| AtomicU64::new(n)).collect();
        pool.for_each(0..cells.len(), Split::EACH, |_, i| {
            // Not a read-modify-write: it would be lost if the chunk before were not over.
            let old = cells[i].load(Ordering::Relaxed);
            cells[i].store(old + turn, Ordering::Relaxed);
        });
        numbers = cells.into_iter().map(AtomicU64::into_inner).collect();
        assert!(numbers.iter().all(|&n| n == turn * (turn + 1) / 2));
    }
}

#[test]
fn threads_sleep_when_idle_and_come_when_called() {
    let pool = Pool::new(3).unwrap();
    for _ in 0..of(20).max(2) {
        wait_until(|| pool.shared.asleep.load(Ordering::Relaxed) == 2);
        let present = AtomicUsize::new(0);
        // Nobody goes on before all three are there, each with a number of its own.
        pool.for_each(0..3, Split::EACH, |worker, _| {
            assert_eq!(present.fetch_or(1 << worker, Ordering::Relaxed) & 1 << worker, 0);
            wait_until(|| present.load(Ordering::Relaxed) == 0b111);
        });
    }
    assert_eq!(pool.shared.door().passes, 0);
}

#[test]
fn only_as_many_are_called_as_there_are_chunks() {
    let pool = Pool::new(4).unwrap();
    wait_until(|| pool.shared.asleep.load(Ordering::Relaxed) == 3);
    pool.shared.wake(1, 3);
    // The one that was called may be asleep again.
    assert!(pool.shared.asleep.load(Ordering::Relaxed) >= 2);
}

#[test]
fn a_board_without_helpers_is_done_by_its_caller() {
    let board = Board::new(2);
    let sum = AtomicUsize::new(0);
    let add = |worker: usize, i: usize| assert!(worker == 0 && sum.fetch_add(i, Ordering::Relaxed) <= 45);
    assert!(board.run(0..10, 3, || (), || false, &add).is_some_and(|left| left.is_empty()));
    assert_eq!(sum.into_inner(), 45);
    assert!(!board.help(1));
}

#[test]
fn two_callers_share_a_pool() {
    let pool = Pool::new(3).unwrap();
    let (started, go_on) = (AtomicBool::new(false), AtomicBool::new(false));
    let times = |n: usize| (0..n).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    let once = |seen: &[AtomicU32]| seen.iter().all(|n| n.load(Ordering::Relaxed) == 1);
    thread::scope(|scope| {
        scope.spawn(|| {
            let seen = times(40);
            pool.for_each(100..140, Split::EACH, |_, i| {
                started.store(true, Ordering::Relaxed);
                wait_until(|| go_on.load(Ordering::Relaxed));
                seen[i - 100].fetch_add(1, Ordering::Relaxed);
            });
            assert!(once(&seen));
        });
        wait_until(|| started.load(Ordering::Relaxed));
        let (seen, me) = (times(20), thread::current().id());
        pool.for_each(0..20, Split::EACH, |worker, i| {
            assert!(worker == 0 && thread::current().id() == me);
            seen[i].fetch_add(1, Ordering::Relaxed);
        });
        assert!(once(&seen));
        go_on.store(true, Ordering::Relaxed);
    });
}

#[test]
fn two_callers_hurry() {
    let pool = Pool::new(3).unwrap();
    thread::scope(|scope| {
        for caller in 0..2 {
            let pool = &pool;
            scope.spawn(move || {
                let me = thread::current().id();
                for turn in 0..of(5000) {
                    let base = caller * 1_000_000 + turn;
                    let seen: [AtomicUsize; 9] = Default::default();
                    pool.for_each(base..base + 9, Split::EACH, |worker, i| {
                        seen[i - base].fetch_add(1, Ordering::Relaxed);
                        assert_eq!(worker == 0, thread::current().id() == me);
                    });
                    assert!(seen.iter().all(|n| n.load(Ordering::Relaxed) == 1));
                }
            });
        }
    });
}

#[test]
fn a_call_from_within_a_chunk_runs_where_it_is() {
    let pool = Pool::new(3).unwrap();
    let sum = AtomicUsize::new(0);
    pool.for_each(0..50, Split::EACH, |_, i| {
        let me = thread::current().id();
        pool.enter(|| {
            pool.for_each(0..4, Split::EACH, |worker, j| {
                assert!(worker == 0 && thread::current().id() == me);
                sum.fetch_add(i * j, Ordering::Relaxed);
            });
        });
    });
    assert_eq!(sum.into_inner(), 49 * 50 / 2 * 6);
}

#[test]
fn pools_within_pools_work() {
    let (outer, inner) = (Pool::new(3).unwrap(), Pool::new(2).unwrap());
    let sum = AtomicUsize::new(0);
    outer.for_each(0..of(500), Split::EACH, |_, _| {
        inner.for_each(0..4, Split::EACH, |worker, _| {
            assert!(worker < 2);
            sum.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(sum.into_inner(), 4 * of(500));
}

/// Runs a job of which the chunk `bad` says so panics, and checks that it arrives when nobody is at work any more.
fn panicking(pool: &Pool, bad: impl Fn(usize) -> bool + Sync) {
    let (at_work, helped) = (AtomicUsize::new(0), AtomicBool::new(false));
    struct Leaving<'a>(&'a AtomicUsize);
    impl Drop for Leaving<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let result = catch_unwind(AssertUnwindSafe(|| {
        pool.for_each(0..64, Split::EACH, |worker, _| {
            at_work.fetch_add(1, Ordering::Relaxed);
            let _leaving = Leaving(&at_work);
            helped.fetch_or(worker > 0, Ordering::Relaxed);
            // So that a helper has its share: it holds a chunk when the caller goes on.
            wait_until(|| helped.load(Ordering::Relaxed));
            if bad(worker) {
                panic!("worker {worker} broke");
            }
            thread::sleep(Duration::from_millis(1));
        });
    }));
    let payload = result.unwrap_err();
    assert!(payload.downcast_ref::<String>().unwrap().ends_with("broke"));
    assert_eq!(at_work.into_inner(), 0, "the call ended with threads in its closure");
}

#[test]
fn a_panic_reaches_the_caller_and_the_pool_works_on() {
    let pool = Pool::new(3).unwrap();
    for _ in 0..of(20) {
        panicking(&pool, |worker| worker == 0);
        panicking(&pool, |worker| worker > 0);
        panicking(&pool, |_| true);
        // All threads are still there, and no panic is left over.
        let present = AtomicUsize::new(0);
        pool.for_each(0..3, Split::EACH, |_, _| {
            present.fetch_add(1, Ordering::Relaxed);
            wait_until(|| present.load(Ordering::Relaxed) == 3);
        });
    }
    let inside = catch_unwind(AssertUnwindSafe(|| pool.enter(|| panic!("in the run"))));
    assert!(inside.is_err() && pool.shared.inside.load(Ordering::Relaxed) == 0);
}

#[test]
fn dropping_a_pool_ends_its_threads() {
    for wait in [0, 1, 3, 10] {
        let pool = Pool::new(5).unwrap();
        pool.for_each(0..9, Split::EACH, |_, _| ());
        let shared = Arc::downgrade(&pool.shared);
        thread::sleep(Duration::from_millis(wait));
        drop(pool);
        assert_eq!(Weak::strong_count(&shared), 0);
    }
    for _ in 0..of(200) {
        drop(Pool::new(3).unwrap());
    }
}

#[test]
fn threads_that_cannot_be_had_are_an_error_and_those_that_could_end() {
    let (made, ended) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let result = Pool::start(5, |name, work| {
        let nth = made.fetch_add(1, Ordering::Relaxed) + 1;
        assert_eq!(name, format!("discon-{nth}"));
        if nth == 3 {
            return Err(io::Error::other("no more"));
        }
        let ended = Arc::clone(&ended);
        thread::Builder::new().name(name).spawn(move || {
            work();
            ended.fetch_add(1, Ordering::Relaxed);
        })
    });
    let error = result.unwrap_err();
    assert!(matches!(&error, Error::Threads { threads: 5, reason } if reason == "no more"), "{error}");
    assert_eq!((made.into_inner(), ended.load(Ordering::Relaxed)), (3, 2));
    Pool::new(MAX_THREADS + 1).unwrap_err();
}

#[test]
fn each_thread_calls_what_it_is_told_to_at_its_start() {
    for threads in [1, 2, 4] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let pool = Pool::new_with(threads, move |worker| {
            let name = thread::current().name().unwrap().to_owned();
            told.lock().unwrap().push((worker, name));
        });
        let pool = pool.unwrap();
        let mut seen = std::mem::take(&mut *seen.lock().unwrap());
        seen.sort();
        let expected: Vec<_> = (1..threads).map(|worker| (worker, format!("discon-{worker}"))).collect();
        assert_eq!(seen, expected);
        assert_eq!(pool.threads(), threads);
    }
}

#[test]
fn a_thread_that_cannot_start_as_told_is_an_error() {
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let result = Pool::new_with(4, move |worker| assert!(worker != 2 || Arc::strong_count(&held) == 0, "no such core"));
    let error = result.unwrap_err();
    assert!(error.to_string().contains("no such core"), "{error}");
    assert_eq!(Arc::strong_count(&alive), 1, "no thread is left");
}

#[test]
fn many_tiny_jobs_take_little_time() {
    let jobs = of(100_000);
    for threads in [2, 4, 8] {
        let pool = Pool::new(threads).unwrap();
        let start = Instant::now();
        let sum = AtomicUsize::new(0);
        pool.enter(|| {
            for job in 0..jobs {
                pool.for_each(0..1 + job % 5, Split::EACH, |_, i| {
                    sum.fetch_add(i + 1, Ordering::Relaxed);
                });
            }
        });
        assert_eq!(sum.into_inner(), jobs / 5 * (1 + 3 + 6 + 10 + 15) + [0, 1, 4, 10, 20][jobs % 5]);
        // Some 10 to 50 ms on a machine with cores to spare, more where threads take turns.
        println!("{jobs} jobs on {threads} threads: {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(60), "{threads} threads: {:?}", start.elapsed());
    }
}
