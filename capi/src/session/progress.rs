//! Where a session is.

use super::SessionHandle;
use crate::sized::{self, size_first};
use crate::status::{Status, get, guard};
use discon::plan::Stage as At;

/// The parts of a run.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    /// What no request changes, made by a model's first session.
    Prepare = 0,
    /// A picture to tokens: before stage 1 one that is given, after DISCON_STAGE_PREVIEW the coarse one, for pictures of what is
    /// drawn so far.
    Encode = 1,
    /// Stage 1: discrete tokens.
    Discrete = 2,
    /// The coarse picture of the discrete tokens.
    Preview = 3,
    /// Stage 2: conditions.
    Condition = 4,
    /// Stage 2: the diffusion head.
    Head = 5,
    /// Stage 3: pixels.
    Decode = 6,
}

/// Where a session is.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Progress {
    /// Bytes of this struct: what `discon_progress_init` puts here.
    pub size: usize,
    /// Share of the work done, by cost, from 0 to 1.
    pub fraction: f64,
    /// About how many microseconds of work are left; UINT64_MAX while that is not known.
    pub left_us: u64,
    /// The part at work: a discon_stage.
    pub stage: u32,
    /// Its place, round or level.
    pub index: u32,
    /// Whether all is done: 0 or 1.
    pub finished: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Progress, "progress", { fraction: 0.0, left_us: u64::MAX, stage: 0, index: 0, finished: 0, reserved: 0 });

impl Progress {
    pub(super) fn of(progress: &discon::Progress) -> Self {
        Self {
            size: size_of::<Self>(),
            fraction: progress.fraction,
            left_us: progress.left.map_or(u64::MAX, |left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX)),
            stage: match progress.stage {
                At::Prepare => Stage::Prepare,
                At::Encode => Stage::Encode,
                At::Discrete => Stage::Discrete,
                At::Preview => Stage::Preview,
                At::Condition => Stage::Condition,
                At::Head => Stage::Head,
                At::Decode => Stage::Decode,
            } as u32,
            index: u32::try_from(progress.index).unwrap_or(u32::MAX),
            finished: progress.finished.into(),
            reserved: 0,
        }
    }
}

/// Makes a struct of `size` bytes (`sizeof`) for where a session is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_progress_init(progress: *mut Progress, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(progress, size, &sized::SizeFirst::DEFAULT) })
}

/// Says where a session is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_progress(session: *const SessionHandle, progress: *mut Progress) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::write(progress, &Progress::of(&get(session, "session")?.enter()?.session()?.progress())) })
}
