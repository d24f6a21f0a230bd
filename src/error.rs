//! The one error type of the crate.
//!
//! Every error names the thing, what was expected and what was found. A caller that wants to react matches on
//! [`Error::kind`]; a caller that wants to tell a person prints it.

use std::any::Any;
use std::path::PathBuf;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, with the names a person needs to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read, mapped or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what its name says: truncated, damaged or of another format.
    #[error("{file}: {what}: expected {expected}, found {found}")]
    Format {
        /// The file, or the name of the bytes given in memory.
        file: String,
        /// The part of the file.
        what: String,
        /// What the format asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A key of `discon.json` is missing, unknown or out of range.
    #[error("{file}: `{key}`: expected {expected}, found {found}")]
    Config {
        /// The file.
        file: String,
        /// The key, with its parents: `discon.head.width`.
        key: String,
        /// What the key may hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A tensor is missing, superfluous or of the wrong dtype or shape.
    #[error("{file}: tensor `{tensor}`: expected {expected}, found {found}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// The dtype and shape that the config asks for.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// The model folder lacks a part that the call needs.
    #[error("this model has no {part}: {needed_for} needs it")]
    MissingPart {
        /// The part's file.
        part: &'static str,
        /// What was asked for.
        needed_for: &'static str,
    },
    /// A setting of a request is out of range.
    #[error("setting `{name}`: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        found: String,
    },
    /// An input (class, codes, image, tokens) does not fit the model.
    #[error("{what}: expected {expected}, found {found}")]
    Input {
        /// The input.
        what: String,
        /// What the model takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// Memory that a plan needs could not be had, or is over the limit that the caller set.
    #[error("{what} needs {bytes} bytes: {reason}")]
    Memory {
        /// What the memory is for.
        what: String,
        /// How much of it.
        bytes: u64,
        /// Why it was not given.
        reason: String,
    },
    /// An instruction set was asked for that this machine or this build does not have.
    #[error("instruction set `{asked}`: expected one of {available}")]
    Isa {
        /// What was asked for.
        asked: String,
        /// What there is.
        available: String,
    },
    /// A GPU or its driver is not there, or did not do what it was asked for.
    #[error("{what}: expected {expected}, found {found}")]
    Device {
        /// What sort of trouble it is, for callers that react to it.
        problem: DeviceProblem,
        /// The driver, the device, or what was to be done on it.
        what: String,
        /// What it would take.
        expected: String,
        /// What there is, or what the driver said.
        found: String,
    },
    /// The caller cancelled the request. Not a failure: the session can be used again at once.
    #[error("cancelled")]
    Cancelled,
    /// A function of the host's, called by the engine, panicked.
    #[error("{what} panicked: {reason}")]
    Callback {
        /// The function.
        what: &'static str,
        /// What it panicked with.
        reason: String,
    },
    /// Worker threads could not be started.
    #[error("could not start {threads} worker threads: {reason}")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the operating system said.
        reason: String,
    },
}

/// The sorts of [`Error::Device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceProblem {
    /// This machine has no driver for GPUs, or this build cannot use any.
    NoDriver,
    /// The driver is older than the kernels of this crate ask for.
    OldDriver,
    /// There is a driver, and no GPU that it lets this process use.
    NoDevice,
    /// The GPU has not enough free memory. The next call works.
    Memory,
    /// GPUs do not compute this, the processor does: 8-bit products, very wide heads, wide ones of many keys.
    Unsupported,
    /// The driver refuses a kernel: PTX that it cannot read, or for another GPU.
    Kernel,
    /// Kernels could not be launched, or failed as they ran. After the latter the driver refuses all work of the context.
    Launch,
    /// Another call of the driver failed.
    Call,
}

/// The kinds of [`Error`], for callers that react to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused a file.
    Io,
    /// A model file is damaged or does not fit its config.
    Model,
    /// The request does not fit the model: class, setting, image.
    Request,
    /// Not enough memory, or threads.
    Resources,
    /// This machine or model lacks what was asked for.
    Unsupported,
    /// A GPU or its driver: [`DeviceProblem`] says more.
    Device,
    /// The caller cancelled.
    Cancelled,
    /// A function of the host's, called by the engine, failed.
    Callback,
}

impl Error {
    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Io { .. } => ErrorKind::Io,
            Error::Format { .. } | Error::Config { .. } | Error::Tensor { .. } => ErrorKind::Model,
            Error::Setting { .. } | Error::Input { .. } => ErrorKind::Request,
            Error::Memory { .. } | Error::Threads { .. } => ErrorKind::Resources,
            Error::MissingPart { .. } | Error::Isa { .. } => ErrorKind::Unsupported,
            Error::Device { .. } => ErrorKind::Device,
            Error::Cancelled => ErrorKind::Cancelled,
            Error::Callback { .. } => ErrorKind::Callback,
        }
    }

    /// An [`Error::Input`].
    pub fn input(what: impl Into<String>, expected: impl Into<String>, found: impl ToString) -> Self {
        Error::Input { what: what.into(), expected: expected.into(), found: found.to_string() }
    }

    /// An [`Error::Setting`].
    pub fn setting(name: &'static str, expected: impl Into<String>, found: impl ToString) -> Self {
        Error::Setting { name, expected: expected.into(), found: found.to_string() }
    }

    /// An [`Error::Io`].
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Error::Io { path: path.into(), source }
    }
}

/// What a panic says.
pub(crate) fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return *text,
        Err(other) => other,
    };
    match payload.downcast::<&'static str>() {
        Ok(text) => (*text).to_owned(),
        Err(other) => {
            // Leaked, not dropped: that could panic too.
            std::mem::forget(other);
            "something that is no text".to_owned()
        }
    }
}
