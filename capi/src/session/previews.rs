//! What can be shown before a session is finished.

use super::{Progress, SessionHandle};
use crate::picture::{self, Images, Target};
use crate::sized;
use crate::status::{Status, get, give, guard, put};
use discon::Error;
use std::time::Duration;

/// The coarse pictures of a session that makes them, once stage 1 is through.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_previews(session: *const SessionHandle, images: *mut *mut Images) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(Images::from(unsafe { get(session, "session")? }.enter()?.previewing()?.previews()?));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// Copies one coarse picture into the caller's memory, once stage 1 is through.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview(
    session: *const SessionHandle,
    index: usize,
    target: *const Target,
) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { picture::write(&get(session, "session")?.enter()?.previewing()?.preview(index)?, target) })
}

/// What a picture of what is drawn so far costs, as a share of the whole batch, in a session with `partial_previews`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview_cost(session: *const SessionHandle, cost: *mut f64) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let found = unsafe { get(session, "session")? }.enter()?.session()?.preview_cost();
        let none = || Error::input("previews", "a session with `partial_previews`", "one without");
        // SAFETY: as the header asks.
        unsafe { put(cost, "cost", found.ok_or_else(none)?) }
    })
}

/// Takes what is drawn so far, for `discon_session_step_preview` to make pictures of: once a round of stage 2 is over. The run
/// goes on as if nothing had been.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_begin_preview(session: *mut SessionHandle) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        Ok(state.session_mut()?.begin_preview()?)
    })
}

/// Works on the pictures that `discon_session_begin_preview` took for about `budget_us` microseconds, and says where they are. The session
/// may be stepped in between. `progress` may be null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_step_preview(
    session: *mut SessionHandle,
    budget_us: u64,
    progress: *mut Progress,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        let at = Progress::of(&state.session_mut()?.step_preview(Duration::from_micros(budget_us))?);
        if !progress.is_null() {
            // SAFETY: as the header asks.
            unsafe { sized::write(progress, &at)? };
        }
        Ok(())
    })
}

/// The pictures of what was drawn when `discon_session_begin_preview` was called, once they are finished.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_partial_previews(
    session: *const SessionHandle,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    let make = || Ok(Images::from(unsafe { get(session, "session")? }.enter()?.begun()?.partial_previews()?));
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}

/// Pictures of what is drawn so far, from one call that takes as long as they need.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_preview_now(session: *mut SessionHandle, images: *mut *mut Images) -> Status {
    let make = || {
        // SAFETY: as the header asks.
        let mut state = unsafe { get(session, "session")? }.enter()?;
        state.begun()?;
        Ok(Images::from(state.session_mut()?.preview_now()?))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(images, "images", make) })
}
