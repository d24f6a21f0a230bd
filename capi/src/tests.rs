//! What C cannot show: panics inside of calls, structs of other versions.

use crate::sized::{self, size_first};
use crate::*;
use std::cell::Cell;
use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// A defect in the middle of a run, for tests.
pub(crate) fn panic_if_asked() {
    if ASKED.replace(false) {
        panic!("a defect {}", "as asked");
    }
}

fn last_error() -> String {
    let mut text = [1; 4096];
    // SAFETY: as large as it says.
    let length = unsafe { discon_last_error(text.as_mut_ptr(), text.len()) };
    // SAFETY: it is ended by a zero.
    let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned();
    assert_eq!(text.len(), length);
    text
}

struct Opened(*mut ModelHandle, *mut DeviceHandle, *mut SessionHandle);

impl Opened {
    fn tiny() -> Self {
        let folder = CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tiny")).unwrap();
        let mut opened = Self(null_mut(), null_mut(), null_mut());
        // SAFETY: all pointers are what they say.
        unsafe {
            assert_eq!(discon_model_open(folder.as_ptr(), null(), &mut opened.0), Status::Ok, "{}", last_error());
            assert_eq!(discon_device_cpu(null(), &mut opened.1), Status::Ok);
            assert_eq!(discon_session_new(opened.0, opened.1, null(), null(), &mut opened.2), Status::Ok);
        }
        opened
    }

    fn begin(&self) -> Status {
        // SAFETY: all pointers are what they say.
        unsafe { discon_session_begin(self.2, &1, &7, 1, null()) }
    }

    fn image(&self) -> Vec<u8> {
        let mut images = null_mut();
        // SAFETY: all pointers are what they say.
        unsafe {
            assert_eq!(discon_session_images(self.2, &mut images), Status::Ok, "{}", last_error());
            let rgb = (&(*images).0)[0].rgb().to_vec();
            assert_eq!(discon_images_free(images), Status::Ok);
            rgb
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: all are from their calls.
        unsafe {
            assert_eq!(discon_session_free(self.2), Status::Ok);
            assert_eq!(discon_model_free(self.0), Status::Ok);
            assert_eq!(discon_device_free(self.1), Status::Ok);
        }
    }
}

#[test]
fn a_panic_is_a_status_and_the_session_begins_anew() {
    let opened = Opened::tiny();
    // SAFETY: all pointers are what they say.
    let run = || unsafe { discon_session_run(opened.2, None, null_mut()) };
    assert_eq!((opened.begin(), run()), (Status::Ok, Status::Ok));
    let image = opened.image();
    assert_eq!(opened.begin(), Status::Ok);
    ASKED.set(true);
    assert_eq!(run(), Status::Panic);
    assert!(last_error().contains("a defect as asked"), "{}", last_error());
    // What it left is not used for anything.
    assert_eq!(run(), Status::Misuse);
    // SAFETY: all pointers are what they say.
    unsafe {
        assert_eq!(discon_session_step(opened.2, 0, null_mut()), Status::Misuse);
        assert_eq!(discon_session_images(opened.2, &mut null_mut()), Status::Misuse);
        assert_eq!(discon_session_codes(opened.2, 0, null_mut(), 0), Status::Misuse);
    }
    assert_eq!((opened.begin(), run()), (Status::Ok, Status::Ok));
    assert_eq!(opened.image(), image);
}

#[test]
fn a_session_that_panicked_can_be_freed() {
    let opened = Opened::tiny();
    assert_eq!(opened.begin(), Status::Ok);
    ASKED.set(true);
    // SAFETY: all pointers are what they say.
    assert_eq!(unsafe { discon_session_run(opened.2, None, null_mut()) }, Status::Panic);
}

#[test]
fn a_panic_with_any_payload_is_told() {
    assert_eq!(crate::status::guard(|| std::panic::panic_any(7)), Status::Panic);
    assert!(last_error().contains("it panicked"), "{}", last_error());
}

#[test]
fn an_error_longer_than_its_room_is_cut_between_characters() {
    let long = CString::new("é".repeat(3000)).unwrap();
    // SAFETY: all pointers are what they say.
    unsafe {
        assert_eq!(discon_model_open(long.as_ptr(), null(), &mut null_mut()), Status::Io);
        assert!((2047..=2048).contains(&last_error().len()), "{}", last_error().len());
        let mut text = [1; 8];
        assert!(discon_last_error(text.as_mut_ptr(), 4) > 2000);
        assert_eq!(CStr::from_ptr(text.as_ptr()).to_str().unwrap(), "é");
        assert_eq!(text[4], 1);
    }
}

/// A struct as the next version could have it, and the one before.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Grown {
    size: usize,
    first: u32,
    second: u32,
    third: u64,
}

size_first!(Grown, "grown", { first: 1, second: 2, third: 3 });

#[test]
fn structs_of_other_sizes_are_read_as_far_as_they_go() {
    let full = Grown { size: 24, first: 10, second: 20, third: 30 };
    // SAFETY: all pointers are what they say.
    let read = |bytes: &[u64]| unsafe { sized::read::<Grown>(bytes.as_ptr().cast()) };
    let second_of = |x: u64| x << 32;
    let words = |size: u64| [size, 10 | second_of(20), 30, 0, 0];
    let fields = |g: Grown| (g.first, g.second, g.third);
    if cfg!(target_endian = "big") || size_of::<usize>() != 8 {
        return;
    }
    assert_eq!(fields(read(&words(24)).unwrap()), fields(full));
    assert_eq!(fields(read(&words(16)).unwrap()), (10, 20, 3));
    // A field that is not whole is not there.
    assert_eq!(fields(read(&words(20)).unwrap()), (10, 20, 3));
    assert_eq!(fields(read(&words(12)).unwrap()), (10, 2, 3));
    assert_eq!(fields(read(&words(8)).unwrap()), (1, 2, 3));
    // A later version's, whose new fields have their defaults.
    assert_eq!(fields(read(&words(40)).unwrap()), fields(full));
    assert!(read(&[40, 0, 0, 0, 1]).is_err());
    assert!(read(&[33, 0, 0, 0, 1]).is_err());
    for size in [0, 7, 4097, u64::MAX] {
        assert!(read(&words(size)).is_err(), "{size}");
    }
}

#[test]
fn structs_of_other_sizes_are_written_as_far_as_they_go() {
    if cfg!(target_endian = "big") || size_of::<usize>() != 8 {
        return;
    }
    let full = Grown { size: 0, first: 10, second: 20, third: 30 };
    let write = |size: u64| {
        let mut words = [size, u64::MAX, u64::MAX, u64::MAX, u64::MAX];
        // SAFETY: all pointers are what they say.
        unsafe { sized::write(words.as_mut_ptr().cast(), &full).unwrap() };
        words
    };
    let fields = 10 | 20 << 32;
    assert_eq!(write(24), [24, fields, 30, u64::MAX, u64::MAX]);
    assert_eq!(write(16), [16, fields, u64::MAX, u64::MAX, u64::MAX]);
    assert_eq!(write(12), [12, 10 | u64::from(u32::MAX) << 32, u64::MAX, u64::MAX, u64::MAX]);
    assert_eq!(write(32), [32, fields, 30, 0, u64::MAX]);
    let mut words = [u64::MAX; 5];
    // SAFETY: all pointers are what they say.
    unsafe { sized::init::<Grown>(words.as_mut_ptr().cast(), 32, &full).unwrap() };
    assert_eq!(words, [32, fields, 30, 0, u64::MAX]);
    // SAFETY: all pointers are what they say.
    assert!(unsafe { sized::init::<Grown>(words.as_mut_ptr().cast(), 7, &full) }.is_err());
}

/// Every kind of error has a status of its own.
#[test]
fn versions_and_names() {
    assert_eq!(discon_version(), 1 << 8);
    // SAFETY: names are ended by a zero.
    let name = |status: i32| unsafe { CStr::from_ptr(discon_status_name(status)) }.to_str().unwrap();
    assert_eq!((name(0), name(Status::Busy as i32), name(Status::Other as i32)), ("ok", "busy", "other"));
    assert_eq!((name(-1), name(14), name(i32::MAX)), ("unknown", "unknown", "unknown"));
    let version = format!("{VERSION_MAJOR}.{VERSION_MINOR}.{VERSION_PATCH}");
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
}
