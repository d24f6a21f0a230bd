//! `discon sample` as a user runs it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "cuda")]
mod fake_driver;
mod running;

use running::{command, done, fails, fixture, names, text};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::{TempDir, tempdir};
use zip::{CompressionMethod, ZipArchive};

/// Bytes of an image of the fixture, 8 x 8 pixels.
const IMAGE: usize = 8 * 8 * 3;

/// `sample` of a fixture's 7 classes, with further arguments.
fn sample<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["sample", "--model", model].iter().chain(more).copied().collect()
}

/// All files below a folder, by their paths in it.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in names(dir) {
        let path = dir.join(&name);
        if path.is_dir() {
            files.extend(tree(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

/// An array's header and data, as stored in a file.
fn array(path: &Path, name: &str) -> (String, Vec<u8>) {
    let mut zip = ZipArchive::new(File::open(path).unwrap()).unwrap();
    let mut file = zip.by_name(name).unwrap();
    assert_eq!(file.compression(), CompressionMethod::Stored);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{name}");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(end % 64 == 0 && bytes[end - 1] == b'\n', "{name}");
    (text(&bytes[10..end]).trim_end().to_owned(), bytes[end..].to_vec())
}

#[test]
fn an_image_is_that_of_generate_with_its_class_and_seed() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let settings = ["--rounds", "3", "--steps", "4", "--guidance", "2.5", "--temperature", "0.9"];
    let stage1 = ["--discrete-guidance", "3", "--discrete-temperature", "1.1"];
    let settings = [&settings[..], &stage1].concat();
    let listed = (["class-5", "2", "class-0"], "class-5,2,class-0");
    let all = ["0", "1", "2", "3", "4", "5", "6"];
    for (what, generate, classes, name) in [
        ("image", &[][..], &listed.0[..], listed.1),
        ("discrete", &["--discrete-only"], &listed.0, listed.1),
        ("image", &[], &all, "balanced"),
    ] {
        let out = format!("{what}-{name}");
        let args = ["--classes", name, "--count", "17", "--seed", "40", "--what", what, "--out", &out];
        done(&dir, &sample(&model, &[&args, &settings[..]].concat()));
        let made = tree(&dir.path().join(&out));
        assert_eq!(made.len(), 17 + 1, "{:?}", made.keys());
        for i in 0..17 {
            let (class, seed) = (classes[i % classes.len()], (40 + i / classes.len()).to_string());
            let args = ["generate", "--model", &model, "--class", class, "--seed", &seed, "--out", "one.png"];
            done(&dir, &[&args, generate, &settings[..]].concat());
            let number = class.trim_start_matches("class-");
            let own = &made[&format!("class-{number}/{i:06}.png")];
            assert!(*own == fs::read(dir.path().join("one.png")).unwrap(), "{what} {i} of {name}");
        }
    }
    // Seeds have no end.
    let last = u64::MAX.to_string();
    done(&dir, &sample(&model, &["--classes", "1", "--count", "2", "--seed", &last, "--out", "last"]));
    done(&dir, &["generate", "--model", &model, "--class", "1", "--seed", "0", "--out", "one.png"]);
    assert!(
        fs::read(dir.path().join("last/class-1/000001.png")).unwrap() == fs::read(dir.path().join("one.png")).unwrap()
    );
}

#[test]
fn the_npz_holds_images_and_classes_as_evaluations_read_them() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let args = ["--classes", "6,1", "--count", "5", "--seed", "3"];
    let printed = done(&dir, &sample(&model, &[&args[..], &["--npz", "some.npz"]].concat()));
    assert!(printed.starts_with("5 images in ") && printed.contains(" images/s: some.npz\n"), "{printed}");
    assert_eq!(printed.lines().count(), 1);
    done(&dir, &sample(&model, &[&args[..], &["--out", "some"]].concat()));
    assert_eq!(names(&dir), ["some", "some.npz"]);

    let path = dir.path().join("some.npz");
    let (header, images) = array(&path, "arr_0.npy");
    assert_eq!(header, "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 8, 8, 3), }");
    for (i, class) in [6, 1, 6, 1, 6].into_iter().enumerate() {
        let png = image::open(dir.path().join(format!("some/class-{class}/{i:06}.png"))).unwrap().into_rgb8();
        assert!(images[i * IMAGE..][..IMAGE] == *png.as_raw(), "image {i}");
    }
    assert_eq!(images.len(), 5 * IMAGE);
    let (header, classes) = array(&path, "arr_1.npy");
    assert_eq!(header, "{'descr': '<i8', 'fortran_order': False, 'shape': (5,), }");
    assert_eq!(classes, [6i64, 1, 6, 1, 6].map(i64::to_le_bytes).concat());
    assert_eq!(ZipArchive::new(File::open(&path).unwrap()).unwrap().len(), 2);
}

#[test]
fn shards_batches_and_threads_change_no_byte() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let run = |more: &[&str]| done(&dir, &sample(&model, &[&["--count", "23", "--seed", "9"], more].concat()));
    let npz = |name: &str| fs::read(dir.path().join(name)).unwrap();
    run(&["--npz", "whole.npz"]);
    run(&["--out", "whole"]);
    for (batch, threads) in [("1", "1"), ("5", "2"), ("4096", "3")] {
        let name = format!("{batch}.npz");
        run(&["--batch", batch, "--threads", threads, "--npz", &name]);
        assert!(npz(&name) == npz("whole.npz"), "batch {batch}, {threads} threads");
    }
    for of in ["1", "4", "23"] {
        let name = format!("of-{of}");
        let file = format!("{name}.npz");
        // The last one first.
        for shard in (1..=of.parse().unwrap()).rev().map(|number: usize| format!("{number}/{of}")) {
            run(&["--shard", &shard, "--npz", &file]);
            run(&["--shard", &shard, "--out", &name, "--batch", "3"]);
        }
        assert!(tree(&dir.path().join(&name)) == tree(&dir.path().join("whole")), "{of} shards");
        let shards: Vec<String> =
            names(&dir).into_iter().filter(|shard| shard.ends_with(&format!("-of-{of}.npz"))).collect();
        assert_eq!(shards.len(), of.parse::<usize>().unwrap());
        let shards: Vec<&str> = shards.iter().map(String::as_str).collect();
        let join = [&["sample", "--npz", &file, "--join"], &shards[..]].concat();
        let printed = done(&dir, &join);
        assert_eq!(printed, format!("23 images of {of} shards: {file}\n"));
        assert!(npz(&file) == npz("whole.npz"), "{of} shards");
        // A second time, nothing is left to do.
        done(&dir, &join);
        // And the whole is what one that goes on takes for its own.
        assert_eq!(run(&["--npz", &file]), format!("23 images were there: {file}\n"));
    }
    assert_eq!(run(&["--out", "whole"]), "23 images were there: whole\n");
    assert!(names(&dir).iter().all(|name| !name.contains("partial") && !name.contains("unfinished")));
}

#[test]
fn what_does_not_fit_together_is_not_joined() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let run = |more: &[&str]| done(&dir, &sample(&model, more));
    for shard in ["1/3", "2/3", "3/3"] {
        run(&["--count", "8", "--npz", "a.npz", "--shard", shard]);
    }
    run(&["--count", "8", "--npz", "b.npz", "--seed", "1", "--shard", "3/3"]);
    run(&["--count", "8", "--npz", "c.npz", "--shard", "2/2"]);
    run(&["--count", "8", "--npz", "whole.npz"]);
    let [one, two, three] = [1, 2, 3].map(|i| format!("a.{i}-of-3.npz"));
    let wrong = |shards: &[&str], names: &[&str]| {
        fails(&dir, 1, &[&["sample", "--npz", "x.npz", "--join"], shards].concat(), names);
        assert!(!dir.path().join("x.npz").exists());
    };
    wrong(&[&one, &three], &["shard 2 of 3", "none"]);
    wrong(&[&one, &three, &one, &two], &["shard 1 of 3", &one]);
    wrong(&[&one, &two, "b.3-of-3.npz"], &["b.3-of-3.npz", "seed", "0", "1"]);
    wrong(&[&one, "c.2-of-2.npz"], &["c.2-of-2.npz", "3", "2"]);
    wrong(&[&one, "whole.npz"], &["whole.npz", "shard"]);
    wrong(&[&one, "gone.npz"], &["gone.npz"]);
    fs::write(dir.path().join("text.npz"), "no archive").unwrap();
    wrong(&[&one, "text.npz"], &["text.npz", "sample"]);
    // A bit of an image is not what it was.
    let mut bytes = fs::read(dir.path().join(&two)).unwrap();
    bytes[400] ^= 1;
    fs::write(dir.path().join(&two), bytes).unwrap();
    wrong(&[&one, &two, &three], &[&two, "arr_0.npy"]);
    // What is there already is not written over.
    fs::write(dir.path().join("mine.npz"), "mine").unwrap();
    fails(&dir, 1, &["sample", "--npz", "mine.npz", "--join", &one, &two, &three], &["mine.npz"]);
    assert_eq!(fs::read(dir.path().join("mine.npz")).unwrap(), b"mine");
}

/// Writes the same images as `args` to `whole`, undisturbed.
fn undisturbed(dir: &TempDir, args: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let npz = dir.path().join("whole.npz");
    done(dir, &[args, &["--npz", "whole.npz"]].concat());
    done(dir, &[args, &["--out", "whole"]].concat());
    let mut files = tree(&dir.path().join("whole"));
    files.insert("npz".to_owned(), fs::read(npz).unwrap());
    files
}

/// Whether the images in `made` and `made.npz` are the same, and nothing else is there.
#[track_caller]
fn same(dir: &TempDir, whole: &BTreeMap<String, Vec<u8>>) {
    let mut files = tree(&dir.path().join("made"));
    files.insert("npz".to_owned(), fs::read(dir.path().join("made.npz")).unwrap());
    let other: Vec<_> = files.keys().chain(whole.keys()).filter(|&name| files.get(name) != whole.get(name)).collect();
    assert!(other.is_empty(), "{other:?}");
    assert_eq!(names(dir), ["made", "made.npz", "whole", "whole.npz"]);
}

/// What an `.npz` of the fixture was before its end: its task in a line, then each image and its checksum.
fn spool(npz: &Path) -> Vec<u8> {
    let task = ZipArchive::new(File::open(npz).unwrap()).unwrap().comment().to_vec();
    let (_, images) = array(npz, "arr_0.npy");
    let image = |image: &[u8]| [image, &crc32fast::hash(image).to_le_bytes()].concat();
    let images: Vec<u8> = images.chunks(IMAGE).flat_map(image).collect();
    [b"discon sample ", &task[..], b"\n", &images].concat()
}

#[test]
fn stopped_anywhere_it_goes_on_to_the_same_bytes() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let args = sample(&model, &["--count", "12", "--batch", "5"]);
    let whole = undisturbed(&dir, &args);
    let (npz, out) = (["--npz", "made.npz"], ["--out", "made"]);
    let (partial, made) = (dir.path().join("made.npz.partial"), dir.path().join("made"));
    let spool = spool(&dir.path().join("whole.npz"));
    let line = spool.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    assert_eq!(spool.len(), line + 12 * (IMAGE + 4));

    let mut states: Vec<(Vec<u8>, usize)> = Vec::new();
    for (images, bytes) in [(0, 0), (0, 1), (3, 0), (3, IMAGE), (7, IMAGE + 3), (11, 100), (12, 0)] {
        states.push((spool[..line + images * (IMAGE + 4) + bytes].to_vec(), images));
    }
    // Zeros, as a machine that went down leaves them, then what looks like images again; more than there should be.
    let mut zeros = spool.clone();
    zeros[line + 4 * (IMAGE + 4)..][..IMAGE + 4].fill(0);
    states.push((zeros, 4));
    states.push(([&spool[..], &[7; 1000]].concat(), 12));
    for (state, there) in states {
        fs::write(&partial, &state).unwrap();
        fs::write(dir.path().join("made.npz.unfinished"), "half").unwrap();
        let printed = done(&dir, &[&args[..], &npz].concat());
        let told = match there {
            0 => "12 images in ".to_owned(),
            12 => "12 images were there".to_owned(),
            there => format!("{} images in ", 12 - there),
        };
        assert!(printed.starts_with(&told), "{printed}");
        assert!(there == 0 || printed.contains(&format!("{there} ")), "{printed}");
        done(&dir, &[&args[..], &out].concat());
        same(&dir, &whole);
        fs::remove_file(dir.path().join("made.npz")).unwrap();
    }
    // Empty, as a machine that went down may leave what was new.
    fs::write(&partial, "").unwrap();
    done(&dir, &[&args[..], &npz].concat());
    fs::remove_dir_all(&made).unwrap();
    fs::create_dir(&made).unwrap();
    fs::write(made.join("sample.json"), "").unwrap();
    done(&dir, &[&args[..], &out].concat());
    same(&dir, &whole);
    // Between the end of the .npz and that of its spool.
    fs::write(&partial, &spool).unwrap();
    fs::copy(dir.path().join("whole.npz"), dir.path().join("made.npz")).unwrap();
    done(&dir, &[&args[..], &npz].concat());
    same(&dir, &whole);

    // A folder: some that are missing, one cut, one that is another picture's size, half of one under another name.
    fs::remove_dir_all(made.join("class-3")).unwrap();
    fs::remove_file(made.join("class-0/000007.png")).unwrap();
    let cut = fs::read(made.join("class-1/000001.png")).unwrap();
    fs::write(made.join("class-1/000001.png"), &cut[..cut.len() - 20]).unwrap();
    image::RgbImage::new(4, 4).save(made.join("class-2/000002.png")).unwrap();
    fs::write(made.join(".discon-all.partial"), &cut[..20]).unwrap();
    fs::write(made.join(".discon-all.lock"), "").unwrap();
    let printed = done(&dir, &[&args[..], &out].concat());
    assert!(printed.starts_with("5 images in ") && printed.contains("after 7 that were there"), "{printed}");
    same(&dir, &whole);
}

/// Killed again and again, with no chance to clean up.
#[cfg(unix)]
#[test]
fn killed_at_any_time_it_goes_on_to_the_same_bytes() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let args = sample(&model, &["--count", "300", "--batch", "3", "--threads", "1", "--rounds", "4", "--steps", "8"]);
    let whole = undisturbed(&dir, &args);
    for target in [["--npz", "made.npz"], ["--out", "made"]] {
        let args = [&args[..], &target].concat();
        let mut kills = 0;
        loop {
            let mut child = command(&dir, &args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(40 + 23 * kills));
            child.kill().unwrap();
            let out = child.wait_with_output().unwrap();
            assert_eq!(text(&out.stderr), "", "{target:?}");
            if out.status.success() {
                break;
            }
            kills += 1;
        }
        assert!(kills >= 2, "{target:?} was done before it could be killed");
    }
    same(&dir, &whole);

    // As soon as there is anything in the folder.
    let made = dir.path().join("made");
    for _ in 0..20 {
        fs::remove_dir_all(&made).unwrap();
        let mut child = command(&dir, &[&args[..], &["--out", "made"]].concat()).stdout(Stdio::null()).spawn().unwrap();
        while !fs::read_dir(&made).is_ok_and(|mut entries| entries.next().is_some()) {
            assert_eq!(child.try_wait().unwrap(), None);
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    done(&dir, &[&args[..], &["--out", "made"]].concat());
    same(&dir, &whole);
}

/// Ctrl-C keeps what is there.
#[cfg(unix)]
#[test]
fn cancelled_it_keeps_what_is_there() {
    let dir = tempdir().unwrap();
    done(&dir, &["synth", "--size", "tiny", "--out", "model"]);
    let args =
        sample("model", &["--count", "100000", "--batch", "1", "--steps", "2", "--rounds", "2", "--npz", "made.npz"]);
    let child = command(&dir, &args).stderr(Stdio::piped()).spawn().unwrap();
    let partial = dir.path().join("made.npz.partial");
    let length = || fs::metadata(&partial).map_or(0, |file| file.len());
    while length() < 10_000 {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr).trim()), (Some(130), "discon: error: cancelled"));
    assert!(length() >= 10_000);
    assert_eq!(names(&dir), ["made.npz.partial", "model"]);
}

/// On a GPU an image's bytes depend on how many are made with it: stopped or in shards, they are the same, and another batch is
/// another task. Over the fake driver, or whichever `DISCON_CUDA_DRIVER` names: without kernels it shows the task alone.
#[cfg(feature = "cuda")]
#[test]
fn on_a_gpu_a_task_has_one_batch() {
    let Some(driver) = std::env::var_os(fake_driver::DRIVER).or_else(|| fake_driver::driver().map(Into::into)) else {
        return;
    };
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let run = |more: &[&str]| {
        let settings = ["--count", "23", "--rounds", "2", "--steps", "2", "--dtype", "bf16", "--device", "cuda"];
        let args = sample(&model, &[&settings, more].concat());
        let out = command(&dir, &args).env(fake_driver::DRIVER, &driver).output().unwrap();
        let told = text(&out.stderr);
        assert!(!told.contains("panicked"), "{told}");
        (out.status.success(), told, text(&out.stdout))
    };
    let done = |more: &[&str]| {
        let (success, told, printed) = run(more);
        assert!(success, "{more:?}: {told}");
        printed
    };
    let whole = |batch| done(&["--batch", batch, "--npz", "whole.npz"]);
    let npz = |name: &str| fs::read(dir.path().join(name)).unwrap();
    whole("5");
    let (success, told, _) = run(&["--batch", "4", "--npz", "whole.npz"]);
    assert!(!success && told.contains("`gpu.batch`") && told.contains("4, as asked for, found 5"), "{told}");
    let (success, told, _) = run(&["--batch", "5", "--kernels", "kernels", "--npz", "whole.npz"]);
    assert!(!success && told.contains("kernels"), "{told}");

    // From the middle of a batch on.
    let spool = spool(&dir.path().join("whole.npz"));
    fs::write(dir.path().join("made.npz.partial"), &spool[..spool.len() - 7 * (IMAGE + 4)]).unwrap();
    let printed = done(&["--batch", "5", "--npz", "made.npz"]);
    assert!(printed.starts_with("7 images in ") && printed.contains("after 16 that were there"), "{printed}");
    assert!(npz("made.npz") == npz("whole.npz"), "stopped and gone on");
    done(&["--batch", "5", "--out", "whole"]);
    for shard in ["3/3", "1/3", "2/3"] {
        done(&["--batch", "5", "--npz", "parts.npz", "--shard", shard]);
        done(&["--batch", "5", "--out", "parts", "--shard", shard]);
    }
    let join = ["sample", "--npz", "parts.npz", "--join", "parts.1-of-3.npz", "parts.2-of-3.npz", "parts.3-of-3.npz"];
    running::done(&dir, &join);
    assert!(npz("parts.npz") == npz("whole.npz"), "in shards");
    assert!(tree(&dir.path().join("parts")) == tree(&dir.path().join("whole")), "in shards of a folder");
    // A shard does not decide the batch.
    done(&["--npz", "default.npz"]);
    done(&["--npz", "default.npz", "--shard", "1/2"]);
    done(&["--npz", "default.npz", "--shard", "2/2"]);
    running::done(&dir, &["sample", "--npz", "other.npz", "--join", "default.1-of-2.npz", "default.2-of-2.npz"]);
    assert!(npz("other.npz") == npz("default.npz"), "in shards without --batch");
}

fn copy_model(to: &Path, files: &[&str]) {
    for file in files {
        fs::copy(Path::new(&fixture("tiny")).join(file), to.join(file)).unwrap();
    }
}

#[test]
fn other_settings_or_another_model_are_not_mixed_in() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let copy = dir.path().join("model");
    fs::create_dir(&copy).unwrap();
    copy_model(&copy, &["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"]);
    let mut bytes = fs::read(copy.join("vae.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(copy.join("vae.safetensors"), bytes).unwrap();

    let args = sample(&model, &["--count", "9", "--rounds", "4"]);
    done(&dir, &[&args[..], &["--npz", "whole.npz"]].concat());
    done(&dir, &[&args[..], &["--out", "folder"]].concat());
    // One that is not done.
    let begun = spool(&dir.path().join("whole.npz"));
    fs::write(dir.path().join("begun.npz.partial"), &begun[..begun.len() - 5 * IMAGE]).unwrap();

    let before = tree(dir.path());
    for (target, file) in [
        (["--npz", "whole.npz"], "whole.npz"),
        (["--npz", "begun.npz"], "begun.npz.partial"),
        (["--out", "folder"], "sample.json"),
    ] {
        let wrong = |model: &str, more: &[&str], names: &[&str]| {
            let args = sample(model, &[more, &target].concat());
            fails(&dir, 1, &args, &[names, &[file]].concat());
        };
        let rounds = ["--rounds", "4"];
        wrong(&model, &["--count", "9", "--rounds", "5"], &["settings.rounds", "4", "5"]);
        wrong(&model, &[&rounds[..], &["--count", "10"]].concat(), &["count", "9", "10"]);
        wrong(&model, &[&rounds[..], &["--count", "9", "--seed", "1"]].concat(), &["seed", "0", "1"]);
        wrong(&model, &[&rounds[..], &["--count", "9", "--classes", "1,2"]].concat(), &["classes"]);
        wrong(&model, &[&rounds[..], &["--count", "9", "--what", "discrete"]].concat(), &["what", "image", "discrete"]);
        wrong(&model, &[&rounds[..], &["--count", "9", "--dtype", "bf16"]].concat(), &["dtype", "f32", "bf16"]);
        wrong(&model, &[&rounds[..], &["--count", "9", "--guidance", "1.25"]].concat(), &["settings.guidance", "1.25"]);
        wrong("model", &[&rounds[..], &["--count", "9"]].concat(), &["files.vae.safetensors", "CRC-32"]);
    }
    assert!(tree(dir.path()) == before);
    // All of it goes on as it was begun.
    done(&dir, &[&args[..], &["--npz", "begun.npz"]].concat());
    assert!(fs::read(dir.path().join("begun.npz")).unwrap() == before["whole.npz"]);
}

#[test]
fn files_of_others_stay_as_they_are() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let wrong = |more: &[&str], names: &[&str]| {
        let before = tree(dir.path());
        fails(&dir, 1, &sample(&model, &[&["--count", "3"], more].concat()), names);
        assert!(tree(dir.path()) == before, "{more:?}");
    };
    for (file, text) in
        [("a.npz", "mine"), ("b.npz.partial", "mine"), ("c.npz.partial", "discon sample {}\n"), ("d", "mine")]
    {
        fs::write(dir.path().join(file), text).unwrap();
    }
    fs::create_dir_all(dir.path().join("e/f")).unwrap();
    fs::create_dir_all(dir.path().join("g")).unwrap();
    fs::write(dir.path().join("e/holiday.png"), "mine").unwrap();
    fs::write(dir.path().join("g/sample.json"), "{}").unwrap();
    fs::create_dir_all(dir.path().join("j")).unwrap();
    fs::write(dir.path().join("j/sample.json"), "").unwrap();
    fs::write(dir.path().join("j/holiday.png"), "mine").unwrap();
    wrong(&["--npz", "a.npz"], &["a.npz", "discon sample"]);
    wrong(&["--npz", "b.npz"], &["b.npz.partial", "something else"]);
    wrong(&["--npz", "c.npz"], &["c.npz.partial", "something else"]);
    wrong(&["--out", "d"], &["d: "]);
    wrong(&["--out", "d/e"], &["d/e"]);
    wrong(&["--out", "e"], &["e: ", "empty folder", "`"]);
    wrong(&["--out", "g"], &["sample.json", "something else"]);
    wrong(&["--out", "j"], &["j: ", "empty folder", "holiday.png"]);
    wrong(&["--npz", "nowhere/a.npz"], &["nowhere/a.npz"]);
    // Nor is a file taken from one who is writing it.
    let held = File::create(dir.path().join("h.npz.partial")).unwrap();
    held.lock().unwrap();
    wrong(&["--npz", "h.npz"], &["h.npz.partial", "another"]);
    drop(held);
    done(&dir, &sample(&model, &["--count", "3", "--out", "i"]));
    let held = File::create(dir.path().join("i/.discon-all.lock")).unwrap();
    held.lock().unwrap();
    wrong(&["--out", "i"], &[".discon-all.lock", "another"]);
    // Another shard's worker is in nobody's way.
    done(&dir, &sample(&model, &["--count", "3", "--out", "i", "--shard", "1/2"]));
}

/// A file that may not grow, as on a disk that is full.
#[cfg(unix)]
#[test]
fn on_a_full_disk_nothing_is_lost() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let args = sample(&model, &["--count", "2000", "--batch", "64", "--steps", "2", "--rounds", "2"]);
    let whole = undisturbed(&dir, &args);
    let npz = whole["npz"].len();
    let limited = |blocks: usize, target: &[&str]| {
        let mut bash = Command::new("bash");
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        bash.args(["-c", &script, "bash", env!("CARGO_BIN_EXE_discon")]).args(&args).args(target);
        let out = bash.current_dir(&dir).env("DISCON_DEVICE", "cpu").output().unwrap();
        let told = text(&out.stderr);
        assert_eq!((out.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        told
    };
    let partial = dir.path().join("made.npz.partial");
    // No image fits, some do, all do but the .npz, which is longer by what it tells of the classes, does not.
    for (blocks, names) in [
        (0, ["made.npz.partial", "large"]),
        (100, ["made.npz.partial", "large"]),
        ((npz - 1) / 1024, ["made.npz: ", "large"]),
    ] {
        let told = limited(blocks, &["--npz", "made.npz"]);
        names.iter().for_each(|name| assert!(told.contains(name), "{blocks}: {told}"));
        let length = fs::metadata(&partial).map_or(0, |file| file.len() as usize);
        assert!(length <= blocks * 1024 && length + 1024 > blocks.min(npz / 1024 - 9) * 1024, "{blocks}: {length}");
        assert_eq!(names_of(&dir, "made"), if blocks == 0 { vec![] } else { vec!["made.npz.partial"] });
    }
    let told = limited(0, &["--out", "made"]);
    assert!(told.contains("made"), "{told}");
    done(&dir, &[&args[..], &["--npz", "made.npz"]].concat());
    done(&dir, &[&args[..], &["--out", "made"]].concat());
    same(&dir, &whole);
}

fn names_of(dir: &TempDir, start: &str) -> Vec<String> {
    names(dir).into_iter().filter(|name| name.starts_with(start)).collect()
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let wrong = |code, more: &[&str], names: &[&str]| fails(&dir, code, &sample(&model, more), names);
    let to = |more: &[&'static str]| [&["--count", "4", "--npz", "x.npz"], more].concat();
    for count in ["0", "10000001"] {
        wrong(1, &["--count", count, "--npz", "x.npz"], &["count", "10000000", count]);
    }
    for shard in ["0/0", "0/4", "5/4", "4", "-1/4", "a/b", "1/4/2"] {
        let shard = format!("--shard={shard}");
        wrong(2, &["--count", "4", "--npz", "x.npz", &shard], &["--shard", "I/N", &shard[8..]]);
    }
    wrong(1, &to(&["--shard", "1/5"]), &["shard", "4", "5"]);
    wrong(1, &to(&["--batch", "0"]), &["batch", "4096", "0"]);
    wrong(1, &to(&["--batch", "4097"]), &["batch", "4096", "4097"]);
    wrong(1, &to(&["--classes", "cat"]), &["class", "`cat`", "class-0"]);
    wrong(1, &to(&["--classes", "1,7"]), &["class", "`7`"]);
    wrong(1, &to(&["--classes", ""]), &["class", "``"]);
    wrong(1, &to(&["--classes", "1,class-1"]), &["classes", "once", "`class-1`"]);
    wrong(1, &to(&["--rounds", "17"]), &["rounds", "16", "17"]);
    wrong(1, &to(&["--steps", "0"]), &["steps", "0"]);
    wrong(1, &to(&["--guidance", "nan"]), &["guidance", "NaN"]);
    wrong(1, &to(&["--temperature", "-1"]), &["temperature", "-1"]);
    wrong(1, &to(&["--dtype", "f8"]), &["f8"]);
    wrong(1, &["--count", "4", "--npz", "x.zip"], &["x.zip", ".npz"]);
    wrong(2, &["--count", "four", "--npz", "x.npz"], &["--count", "four"]);
    wrong(2, &["--npz", "x.npz"], &["--count"]);
    wrong(2, &["--count", "4"], &["--npz", "--out"]);
    wrong(2, &to(&["--out", "x"]), &["--npz", "--out"]);
    wrong(2, &to(&["--what", "sound"]), &["--what", "sound", "discrete"]);
    let making =
        ["--count", "--seed", "--model", "--out", "--shard=1/2", "--batch", "--classes", "--what=image", "--dtype"];
    let drawing =
        ["--rounds", "--steps", "--guidance", "--discrete-guidance", "--temperature", "--discrete-temperature"];
    for option in [&making[..], &drawing, &["--device", "--threads", "--isa"]].concat() {
        let (name, value) = option.split_once('=').unwrap_or((option, "1"));
        fails(&dir, 2, &["sample", "--npz", "x.npz", name, value, "--join", "a.npz"], &["cannot be used with", name]);
    }
    if cfg!(feature = "cuda") {
        fails(&dir, 2, &["sample", "--npz", "x.npz", "--no-wgmma", "--join", "a.npz"], &["--join", "--no-wgmma"]);
        fails(&dir, 2, &["sample", "--npz", "x.npz", "--kernels", "x", "--join", "a.npz"], &["--join", "--kernels"]);
    }
    // Before any image is made, even where that takes long.
    let long = tempdir().unwrap();
    copy_model(long.path(), &["rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"]);
    let config = fs::read_to_string(Path::new(&model).join("discon.json")).unwrap();
    fs::write(long.path().join("discon.json"), config.replace("fixture-tiny", &"long".repeat(20_000))).unwrap();
    let names_what = ["task", "65535", "`model`"];
    let long = long.path().display().to_string();
    fails(&dir, 1, &sample(&long, &["--count", "10000000", "--npz", "x.npz"]), &names_what);
    fails(&dir, 1, &sample("gone", &to(&[])), &["model", "gone"]);
    let part = tempdir().unwrap();
    copy_model(part.path(), &["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors"]);
    fails(&dir, 1, &sample(&part.path().display().to_string(), &to(&["--what", "discrete"])), &["vq.safetensors"]);
    // No attempt left anything behind.
    assert_eq!(names(&dir), [""; 0]);
}
