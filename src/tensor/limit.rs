//! How much memory may be taken, and memory that is an error where there is none left.

use crate::error::{Error, Result};
use std::fmt;

/// A bound of memory, and who set it.
#[derive(Debug, Clone, Copy)]
pub enum Limit {
    /// The caller.
    Set(u64),
    /// The system has no more.
    Left(u64),
}

impl Limit {
    /// What the caller set, else what the system says it has left, if it says so.
    pub fn new(set: Option<u64>) -> Option<Self> {
        set.map(Self::Set).or_else(|| left().map(Self::Left))
    }

    /// [`Error::Memory`] for `what`, if its `bytes` are more.
    pub fn check(self, what: impl FnOnce() -> String, bytes: u64) -> Result<()> {
        let (Self::Set(limit) | Self::Left(limit)) = self;
        if bytes <= limit { Ok(()) } else { Err(Error::Memory { what: what(), bytes, reason: self.to_string() }) }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Set(bytes) => write!(f, "the limit is {bytes} bytes"),
            Self::Left(bytes) => write!(f, "the system has {bytes} bytes left"),
        }
    }
}

/// Bytes that Linux says can be had without swapping; other systems refuse by themselves.
fn left() -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    available(&info)
}

/// The bytes of the line `MemAvailable`.
fn available(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// [`Error::Memory`] for `what`: its `bytes` were asked for, and refused.
pub(crate) fn no_room(what: &str, bytes: u64) -> Error {
    Error::Memory { what: what.to_owned(), bytes, reason: "the system has no more memory to give".to_owned() }
}

/// `items`, `len` of them, one behind the other for `what`: [`Error::Memory`] if there is no room for them.
pub(crate) fn collected<T>(what: &str, len: usize, items: impl Iterator<Item = T>) -> Result<Vec<T>> {
    let mut all = Vec::new();
    all.try_reserve_exact(len).map_err(|_| no_room(what, (len as u64).saturating_mul(size_of::<T>() as u64)))?;
    all.extend(items);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_read() {
        let info = "MemTotal:       24541204 kB\nMemAvailable:   22052100 kB\nBuffers: 1 kB\n";
        assert_eq!(available(info), Some(22_052_100 * 1024));
        for bad in
            ["", "MemAvailable:", "MemAvailable: x kB", "MemAvailable: 99999999999999999999 kB", "MemAvailable: 5"]
        {
            assert_eq!(available(bad), None, "{bad}");
        }
        assert_eq!(left().is_some(), cfg!(target_os = "linux"));
    }

    #[test]
    fn one_byte_too_much_is_an_error_that_names_both() {
        Limit::Set(7).check(|| "it".to_owned(), 7).unwrap();
        let error = Limit::Set(7).check(|| "it".to_owned(), 8).unwrap_err();
        assert_eq!(error.to_string(), "it needs 8 bytes: the limit is 7 bytes");
        let error = Limit::Left(7).check(|| "it".to_owned(), 8).unwrap_err();
        assert_eq!(error.to_string(), "it needs 8 bytes: the system has 7 bytes left");
    }
    #[test]
    fn room_that_no_machine_has_is_an_error() {
        assert_eq!(collected("it", 3, 5..8).unwrap(), [5, 6, 7]);
        for len in [usize::MAX, usize::MAX / 8] {
            let error = collected("the pixels", len, std::iter::empty::<u32>()).unwrap_err();
            assert!(matches!(&error, Error::Memory { what, .. } if what == "the pixels"), "{error}");
        }
    }
}
