//! What computes.

#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::error::Result;
use crate::pool::{Pool, Workers};
use crate::simd::Isa;
use log::warn;
use std::fmt;
use std::sync::Arc;

/// What to compute on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Device {
    /// The processor.
    Cpu(Cpu),
    /// An NVIDIA GPU.
    #[cfg(feature = "cuda")]
    Gpu(Gpu),
}

impl Device {
    /// Threads of the processor that compute; 0 on a GPU.
    pub fn threads(&self) -> usize {
        match self {
            Self::Cpu(cpu) => cpu.threads(),
            #[cfg(feature = "cuda")]
            Self::Gpu(_) => 0,
        }
    }
}

/// As `cpu (2 threads, avx2)`; a GPU by its name.
impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(cpu) => {
                let threads = cpu.threads();
                write!(f, "cpu ({threads} thread{}, {})", if threads == 1 { "" } else { "s" }, cpu.isa)
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => f.write_str(gpu.device().name()),
        }
    }
}

#[cfg(feature = "cuda")]
impl From<Gpu> for Device {
    fn from(gpu: Gpu) -> Self {
        Self::Gpu(gpu)
    }
}

#[cfg(feature = "cuda")]
impl From<&Gpu> for Device {
    fn from(gpu: &Gpu) -> Self {
        Self::Gpu(gpu.clone())
    }
}

impl From<Cpu> for Device {
    fn from(cpu: Cpu) -> Self {
        Self::Cpu(cpu)
    }
}

impl From<&Cpu> for Device {
    fn from(cpu: &Cpu) -> Self {
        Self::Cpu(cpu.clone())
    }
}

impl From<&Device> for Device {
    fn from(device: &Device) -> Self {
        device.clone()
    }
}

/// The processor to run on: threads and an instruction set. Cloning shares the threads.
///
/// # Threads
///
/// The thread that calls a session is always one of them. The others are the crate's own ([`Cpu::new`]): named `discon-1`
/// and so on, with the priority, the affinity and all else that the system gives to a new thread of the process. They
/// work while a session does, look for work for some 200 microseconds within a step and for 20 after it, and sleep at all
/// other times. A host that wants them below its own threads, or on certain cores, sets that from inside them
/// ([`Cpu::new_with`]). Or it lends threads that it has ([`Cpu::on`]).
///
/// The pictures are the same, bit for bit, whoever helps and whether anybody does.
#[derive(Debug, Clone)]
pub struct Cpu {
    pub(crate) pool: Arc<Pool>,
    pub(crate) isa: Isa,
}

impl Cpu {
    /// The best instruction set on `threads` threads, the caller's among them; 0 is one a core. With 1 no thread is made.
    pub fn new(threads: usize) -> Result<Self> {
        Pool::new(threads).map(Self::with_pool)
    }

    /// As [`Cpu::new`]; each thread that is made first calls `at_start` with its number, from 1 on, so that the host can
    /// set its priority, its affinity or another name. All have called it when this returns. A panic in it is an
    /// [`Error::Threads`](crate::Error::Threads), and no thread is left.
    pub fn new_with(threads: usize, at_start: impl Fn(usize) + Send + Sync + 'static) -> Result<Self> {
        Pool::new_with(threads, at_start).map(Self::with_pool)
    }

    /// On the caller's thread and a host's: up to `threads - 1` of them are asked for help at a time, by jobs that
    /// [`Workers::spawn`] is given from inside a step; 0 is one a core. With 1 it is never called.
    ///
    /// A job takes its thread until the step or run that wanted it is over, so a host that wants its threads back soon
    /// steps with small budgets. Nobody waits for a job that has not begun: with jobs that never run, the caller does all
    /// the work. One that is run inside `spawn`, on the caller's thread, returns at once and does nothing. A panic of
    /// `spawn` ends the step with it, and the session must begin again.
    pub fn on(workers: impl Workers + 'static, threads: usize) -> Result<Self> {
        Pool::on(workers, threads).map(Self::with_pool)
    }

    /// On a rayon pool, with all of its threads: a step that is called on one of them has the others' help, one that is
    /// called elsewhere all but one's. For fewer threads give the pool to [`Cpu::on`].
    #[cfg(feature = "rayon")]
    pub fn on_rayon(pool: Arc<rayon::ThreadPool>) -> Result<Self> {
        let threads = pool.current_num_threads().min(crate::pool::MAX_THREADS);
        Self::on(pool, threads)
    }

    fn with_pool(pool: Pool) -> Self {
        let isa = Isa::detect();
        if isa.name() == "scalar" {
            warn!("no vector instructions of this processor are known: computing in plain Rust, many times slower");
        }
        Self { pool: Arc::new(pool), isa }
    }

    /// With another instruction set, by its [name](Isa::name).
    pub fn with_isa(mut self, name: &str) -> Result<Self> {
        self.isa = Isa::named(name)?;
        Ok(self)
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many threads, the caller's among them; at most, where they are a host's.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}
