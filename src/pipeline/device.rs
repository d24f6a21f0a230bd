//! What computes.

#[cfg(feature = "cuda")]
use crate::cuda::Gpu;
use crate::error::Result;
use crate::pool::Pool;
use crate::simd::Isa;
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

/// The processor to run on: threads of its own and an instruction set. Cloning shares the threads.
#[derive(Debug, Clone)]
pub struct Cpu {
    pub(crate) pool: Arc<Pool>,
    pub(crate) isa: Isa,
}

impl Cpu {
    /// The best instruction set on `threads` threads; 0 is one a core.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Self { pool: Arc::new(Pool::new(threads)?), isa: Isa::detect() })
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

    /// How many threads.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
}
