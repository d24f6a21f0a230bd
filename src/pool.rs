//! The crate's own worker threads. rayon's global pool is never touched.

use crate::error::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// A number of threads that share the chunks of an op.
#[derive(Debug)]
pub struct Pool {
    /// `None`: one thread, the caller's own.
    workers: Option<rayon::ThreadPool>,
}

impl Pool {
    /// `threads` threads; 0 stands for one a core that the process may use.
    pub fn new(threads: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if threads == 0 { cores } else { threads };
        if threads > MAX_THREADS {
            return Err(Error::setting("threads", format!("at most {MAX_THREADS}"), threads));
        }
        if threads == 1 {
            return Ok(Self { workers: None });
        }
        let workers = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("discon-{i}"))
            .build()
            .map_err(|e| Error::Threads { threads, reason: e.to_string() })?;
        Ok(Self { workers: Some(workers) })
    }

    /// How many threads work.
    pub fn threads(&self) -> usize {
        self.workers.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }

    /// Runs `f` as one of the pool's threads, so that its calls of [`Pool::for_each`] start at once.
    pub fn enter<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        match &self.workers {
            Some(workers) => workers.install(f),
            None => f(),
        }
    }

    /// Calls `f(worker, i)` for each `i`, on several threads if `parallel`. `worker` is below [`Pool::threads`] and
    /// belongs to one thread at a time. Call from within [`Pool::enter`].
    pub fn for_each(&self, range: Range<usize>, parallel: bool, f: impl Fn(usize, usize) + Sync) {
        if parallel && self.workers.is_some() && range.len() > 1 {
            range.into_par_iter().with_max_len(1).for_each(|i| f(rayon::current_thread_index().unwrap_or(0), i));
        } else {
            let worker = self.workers.as_ref().and_then(rayon::ThreadPool::current_thread_index).unwrap_or(0);
            range.for_each(|i| f(worker, i));
        }
    }
}

/// More threads than any machine of the day has cores: a guard against a wrong number, not a tuning.
pub const MAX_THREADS: usize = 1024;
