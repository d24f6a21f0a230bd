//! Ctrl-C.

use discon::{Error, Result};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a shell expects of a command that was interrupted.
pub(crate) const EXIT_CODE: u8 = 130;

/// Becomes true when the user presses Ctrl-C; until then nothing else happens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        handle(move || flag.store(true, Ordering::Relaxed))?;
        Ok(interrupt)
    }

    pub(crate) fn pressed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// On Ctrl-C removes `leftovers`, files and whole folders, and ends the process.
pub(crate) fn clean_up_and_exit(leftovers: Vec<PathBuf>) -> Result<()> {
    handle(move || {
        for path in &leftovers {
            // Some of them may not be there yet.
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        crate::output::tell(&format!("discon: error: {}", Error::Cancelled));
        std::process::exit(i32::from(EXIT_CODE));
    })
}

fn handle(handler: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(handler).map_err(|e| Error::io("the handler of Ctrl-C", std::io::Error::other(e)))
}
