//! Tests against a driver that is not NVIDIA's: `fake.h` beside this says what it does.
//!
//! A process loads one driver, once, so each test that wants one runs itself again as a child: [`run`].
#![allow(dead_code, reason = "each of the tests that share this uses a part")]

use std::any::type_name;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// What a driver's library is named by.
pub(crate) const DRIVER: &str = "DISCON_CUDA_DRIVER";
/// Set in the processes that [`run`] starts.
const CHILD: &str = "DISCON_TEST_CHILD";

/// What the fake driver has counted: `fake_cuda_count` in devices.cpp names them.
#[derive(Debug)]
pub(crate) struct Counts {
    counts: BTreeMap<String, i64>,
    first_misuse: String,
}

impl Counts {
    /// The count of that name.
    #[track_caller]
    pub(crate) fn of(&self, name: &str) -> i64 {
        self.counts[name]
    }

    /// Nothing is left, and nothing was called as it may not be.
    #[track_caller]
    pub(crate) fn clean(&self) {
        assert_eq!(self.of("misuses"), 0, "{}", self.first_misuse);
        for name in ["contexts", "streams", "events", "buffers", "bytes", "modules", "graphs", "left_behind"] {
            assert_eq!(self.of(name), 0, "{name} that are left: {:?}", self.counts);
        }
    }

    /// What the first call was that may not be made so.
    pub(crate) fn first_misuse(&self) -> &str {
        &self.first_misuse
    }
}

/// Runs `body`, a closure in a test, in a process of its own over the fake driver with these settings, and hands out what was
/// counted; of a process that has not loaded the driver, nothing. It tests nothing, and says so, without a C++ compiler.
#[track_caller]
pub(crate) fn run<F: FnOnce()>(settings: &[(&str, &str)], body: F) -> Option<Counts> {
    if std::env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    let driver = driver()?;
    // The name of a closure is that of its function and a mark.
    let (_, name) = type_name::<F>().split_once("::").unwrap();
    let name = name.trim_end_matches("::{{closure}}");
    let report = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1").env(DRIVER, driver);
    child.env("FAKE_CUDA_REPORT", report.path()).envs(settings.iter().copied());
    let out = child.output().unwrap();
    let (said, cried) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(said.contains("running 1 test"), "no test is named {name}: {said}{cried}");
    assert!(out.status.success(), "with {settings:?}:\n{said}{cried}");
    let report = std::fs::read_to_string(report.path()).unwrap();
    let mut lines = report.lines().filter_map(|line| line.split_once(' '));
    let counts = lines.clone().filter_map(|(name, n)| Some((name.to_owned(), n.parse().ok()?))).collect();
    let first_misuse = lines.next_back().map(|(_, text)| text.to_owned()).unwrap_or_default();
    Some(Counts { counts, first_misuse })
}

/// As [`run`], and in the end nothing is left and nothing was called as it may not be.
#[track_caller]
pub(crate) fn run_clean<F: FnOnce()>(settings: &[(&str, &str)], body: F) {
    if let Some(counts) = run(settings, body) {
        counts.clean();
    }
}

/// The count of that name now, in a process that [`run`] started.
#[cfg(feature = "cuda")]
#[track_caller]
pub(crate) fn count(name: &str) -> i64 {
    let path = std::env::var_os(DRIVER).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: the library of this folder, loaded already; the function's type is what it has there.
    let count = unsafe {
        let library = libloading::Library::new(path).unwrap();
        let count: libloading::Symbol<unsafe extern "C" fn(*const std::ffi::c_char) -> i64> =
            library.get(b"fake_cuda_count\0").unwrap();
        count(name.as_ptr())
    };
    assert!(count >= 0, "the fake driver counts no {name:?}");
    count
}

/// The fake driver, compiled. Without a C++ compiler none, which is said aloud.
pub(crate) fn driver() -> Option<&'static Path> {
    static DRIVER: OnceLock<Option<PathBuf>> = OnceLock::new();
    let sources = ["devices.cpp", "kernels.cpp", "memory.cpp", "streams.cpp"];
    DRIVER.get_or_init(|| compiled("fake_cuda.so", &sources)).as_deref()
}

/// The folder of the kernels of `lab.ptx`, compiled for the host.
pub(crate) fn kernels() -> Option<&'static Path> {
    static KERNELS: OnceLock<Option<PathBuf>> = OnceLock::new();
    KERNELS.get_or_init(|| compiled("lab.so", &["lab.cpp"])?.parent().map(Path::to_owned)).as_deref()
}

/// The PTX of those kernels.
pub(crate) const LAB: &str = include_str!("lab.ptx");

/// A shared library of sources beside this one, compiled if it is older than any file here.
fn compiled(name: &str, sources: &[&str]) -> Option<PathBuf> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned());
    if !Command::new(&compiler).arg("--version").output().is_ok_and(|out| out.status.success()) {
        eprintln!("NOT TESTED: no C++ compiler ({compiler}); set CXX to a g++");
        return None;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_driver");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake_driver");
    std::fs::create_dir_all(&folder).unwrap();
    let to = folder.join(name);
    let written = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    let files = std::fs::read_dir(&here).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|f| f.extension() != Some(OsStr::new("rs"))).map(|f| written(&f)).max().unwrap();
    if written(&to) < newest {
        // Other tests may be doing the same.
        let new = tempfile::NamedTempFile::new_in(&folder).unwrap();
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]);
        command.args(sources.iter().map(|source| here.join(source))).arg("-ldl").arg("-o").arg(new.path());
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        new.persist(&to).unwrap();
    }
    Some(to)
}
