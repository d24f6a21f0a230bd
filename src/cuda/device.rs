//! What GPUs there are.

use super::{driver, failed};
use crate::error::{Error, Result};
use cust::device::DeviceAttribute;
use std::fmt;

/// A version of CUDA, as a driver counts them: 1000 times the major number and 10 times the minor one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriverVersion(pub(super) u32);

impl DriverVersion {
    /// The oldest that takes the kernels of this crate.
    pub const NEEDED: Self = driver::NEEDED;

    /// Of 12.4 the 12.
    pub fn major(self) -> u32 {
        self.0 / 1000
    }

    /// Of 12.4 the 4.
    pub fn minor(self) -> u32 {
        self.0 % 1000 / 10
    }
}

impl fmt::Display for DriverVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major(), self.minor())
    }
}

/// What instructions a GPU has: 8.0 and above run the kernels of this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComputeCapability {
    /// The generation.
    pub major: u32,
    /// The variant.
    pub minor: u32,
}

impl ComputeCapability {
    /// The least that the kernels of this crate ask for.
    pub const NEEDED: Self = Self { major: 8, minor: 0 };

    /// Of H100 and H200, which alone have products of warp groups (`wgmma`).
    pub const HOPPER: Self = Self { major: 9, minor: 0 };
}

impl fmt::Display for ComputeCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    pub(super) raw: cust::device::Device,
    ordinal: usize,
    name: String,
    compute_capability: ComputeCapability,
    memory: u64,
    multiprocessors: usize,
    driver: DriverVersion,
}

impl Device {
    /// All GPUs that the driver shows this process, in its order; at least one.
    ///
    /// [`Error::Device`] if there is none, no driver, or one older than [`DriverVersion::NEEDED`]. A GPU below
    /// [`ComputeCapability::NEEDED`] is listed too.
    pub fn all() -> Result<Vec<Self>> {
        let version = driver::start()?;
        match cust::device::Device::num_devices().map_err(said("number of GPUs"))? {
            0 => Err(driver::no_device()),
            count => (0..count).map(|ordinal| Self::at(ordinal, version)).collect(),
        }
    }

    /// The GPU of that number.
    pub fn open(ordinal: usize) -> Result<Self> {
        let all = Self::all()?;
        let count = all.len();
        let found = all.into_iter().nth(ordinal);
        found.ok_or_else(|| Error::input("GPU", format!("a number below {count}"), ordinal))
    }

    pub(super) fn at(ordinal: u32, driver: DriverVersion) -> Result<Self> {
        let raw = cust::device::Device::get_device(ordinal).map_err(said("a GPU"))?;
        let attribute = |attribute| -> Result<u32> {
            let value = raw.get_attribute(attribute).map_err(said("attribute of a GPU"))?;
            Ok(u32::try_from(value).unwrap_or(0))
        };
        Ok(Self {
            raw,
            ordinal: ordinal as usize,
            name: raw.name().map_err(said("name of a GPU"))?,
            compute_capability: ComputeCapability {
                major: attribute(DeviceAttribute::ComputeCapabilityMajor)?,
                minor: attribute(DeviceAttribute::ComputeCapabilityMinor)?,
            },
            memory: raw.total_memory().map_err(said("memory of a GPU"))? as u64,
            multiprocessors: attribute(DeviceAttribute::MultiprocessorCount)? as usize,
            driver,
        })
    }

    /// Its number, as the driver counts them for this process.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// What it calls itself.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What instructions it has.
    pub fn compute_capability(&self) -> ComputeCapability {
        self.compute_capability
    }

    /// Bytes of memory in all. How many are free a [`Context`](super::Context) tells.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Its streaming multiprocessors: blocks of threads that run at once are a multiple of them.
    pub fn multiprocessors(&self) -> usize {
        self.multiprocessors
    }

    /// The CUDA of its driver.
    pub fn driver(&self) -> DriverVersion {
        self.driver
    }
}

/// The error of a call that cust made.
fn said(what: &'static str) -> impl FnOnce(cust::error::CudaError) -> Error {
    move |error| failed(what)(error.into())
}
