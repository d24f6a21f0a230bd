//! What the library does, for a host's log.

use crate::status::{Failure, Status, Text, guard};
use ::log::{LevelFilter, Log, Metadata, Record};
use std::ffi::{c_char, c_void};
use std::sync::{PoisonError, RwLock};

/// How much is told.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum LogLevel {
    /// Nothing.
    Off = 0,
    /// What fails and nobody is told of otherwise.
    Error = 1,
    /// What fails, or is much slower than it should be.
    Warn = 2,
    /// Models.
    Info = 3,
    /// Sessions and requests.
    Debug = 4,
    /// All.
    Trace = 5,
}

/// Told of a line of the log, by any thread, several at once, from inside of calls. `level` is a discon_log_level, `text` ends with a
/// zero and stays only while it is told.
pub type OnLog = Option<unsafe extern "C" fn(user: *mut c_void, level: u32, text: *const c_char)>;

#[derive(Clone, Copy)]
struct Listener {
    call: unsafe extern "C" fn(*mut c_void, u32, *const c_char),
    user: *mut c_void,
}

// SAFETY: the header says that any thread may call the function with `user`.
unsafe impl Send for Listener {}
// SAFETY: the same.
unsafe impl Sync for Listener {}

struct Logger(RwLock<Option<Listener>>);

static LOGGER: Logger = Logger(RwLock::new(None));

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        // Not held while the host is told: it may set another.
        let listener = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Listener { call, user }) = listener {
            let text = Text::of(record.args());
            // SAFETY: as the header asks; the text is ended by a zero.
            unsafe { call(user, record.level() as u32, text.as_ptr()) };
        }
    }

    fn flush(&self) {}
}

/// Has `on_log` told what the library does, up to `level` (a discon_log_level), in place of whoever was told before. For the whole process:
/// sessions have no log of their own. Null, or DISCON_LOG_LEVEL_OFF, is nobody, as at the start. DISCON_STATUS_MISUSE if something else in this copy of
/// the library listens already. A thread that is inside the former `on_log` may still be so when this returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_set_log(level: u32, on_log: OnLog, user: *mut c_void) -> Status {
    guard(|| {
        let filter = LevelFilter::iter().nth(level as usize);
        let filter = filter.ok_or_else(|| discon::Error::input("level", "a discon_log_level", level))?;
        let mut listener = LOGGER.0.write().unwrap_or_else(PoisonError::into_inner);
        if ::log::set_logger(&LOGGER).is_err() && !std::ptr::addr_eq(::log::logger(), &raw const LOGGER) {
            return Err(Failure::Misuse("log: expected none, found another that listens already"));
        }
        *listener = on_log.map(|call| Listener { call, user });
        ::log::set_max_level(if listener.is_some() { filter } else { LevelFilter::Off });
        Ok(())
    })
}
