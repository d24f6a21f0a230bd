//! Runs the `discon` command as a user does.
#![allow(dead_code, reason = "every test takes some of it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of a model of random weights.
pub(crate) fn fixture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name].iter().collect();
    path.display().to_string()
}

/// The command in `dir`, to be run.
pub(crate) fn command(dir: impl AsRef<Path>, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discon"));
    command.args(args).current_dir(dir).env_remove("DISCON_MODEL").env("DISCON_DEVICE", "cpu");
    command
}

/// Runs the command in `dir`. Whatever happens, it does not panic.
pub(crate) fn discon(dir: impl AsRef<Path>, args: &[&str]) -> Output {
    let out = command(dir, args).output().unwrap();
    assert!(!text(&out.stderr).contains("panicked"), "{args:?}: {}", text(&out.stderr));
    out
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs what has to succeed, and returns what it printed.
#[track_caller]
pub(crate) fn done(dir: impl AsRef<Path>, args: &[&str]) -> String {
    let out = discon(dir, args);
    assert!(out.status.success(), "{args:?}: {}", text(&out.stderr));
    assert_eq!(text(&out.stderr), "", "{args:?}");
    text(&out.stdout)
}

/// Runs what has to fail with that exit code and one line that names all of `names`.
#[track_caller]
pub(crate) fn fails(dir: impl AsRef<Path>, code: i32, args: &[&str], names: &[&str]) {
    let out = discon(dir, args);
    let message = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{args:?}: {message}");
    assert!(message.starts_with("discon: error: ") && message.lines().count() == 1, "{args:?}: {message}");
    for name in names {
        assert!(message.contains(name), "{args:?}: no `{name}` in: {message}");
    }
}

/// What a folder holds, by name.
pub(crate) fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
