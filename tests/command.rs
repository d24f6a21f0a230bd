//! The `discon` command as a user runs it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod running;

use running::{command, discon, done, fails, fixture, names, text};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::tempdir;

/// `generate` from a fixture, with further arguments.
fn generate<'a>(model: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    ["generate", "--model", model].iter().chain(more).copied().collect()
}

fn size(path: impl AsRef<Path>) -> (u32, u32) {
    image::image_dimensions(path).unwrap()
}

#[test]
fn one_image_is_the_same_for_the_same_seed_on_any_number_of_threads() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let run = |file: &str, more: &[&str]| {
        let args = ["--class", "class-3", "--out", file];
        done(&dir, &generate(&model, &[&args, more].concat()));
        fs::read(dir.path().join(file)).unwrap()
    };
    let first = run("a.png", &["--seed", "7", "--threads", "1"]);
    assert_eq!(size(dir.path().join("a.png")), (8, 8));
    assert!(first == run("b.png", &["--seed", "7", "--threads", "1"]), "another image at the second time");
    assert!(first == run("c.png", &["--seed", "7", "--threads", "2"]), "another image on two threads");
    assert!(first == run("d.png", &["--seed", "7"]), "another image on the default number of threads");
    assert!(first != run("e.png", &["--seed", "8"]), "the seed changes nothing");
    run("f.png", &["--scale", "3"]);
    assert_eq!(size(dir.path().join("f.png")), (24, 24));
    // Nothing but what was asked for.
    assert_eq!(names(&dir).len(), 6);
}

#[test]
fn what_the_engine_does_is_told_if_asked_for() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let args = generate(&model, &["--class", "1", "--rounds", "2", "--out", "a.png"]);
    assert_eq!(done(&dir, &args), "");
    for verbose in [&["-v"][..], &["--verbose"]] {
        for args in [[verbose, &args[..]].concat(), [&args[..], verbose].concat()] {
            let out = discon(&dir, &args);
            assert!(out.status.success() && out.stdout.is_empty(), "{args:?}: {}", text(&out.stderr));
            let told = text(&out.stderr);
            let starts = ["discon: info: model `fixture-tiny` opened", "discon: debug: session of `fixture-tiny` made"];
            let starts = [&starts[..], &["discon: debug: request begun", "discon: debug: request finished"]].concat();
            assert_eq!(told.lines().count(), starts.len(), "{told}");
            told.lines().zip(starts).for_each(|(line, start)| assert!(line.starts_with(start), "{line}"));
        }
    }
    let out = discon(&dir, &["-v", "inspect", "nowhere"]);
    let told = text(&out.stderr);
    assert!(told.starts_with("discon: ") && told.ends_with('\n') && told.contains("nowhere"), "{told}");
}

#[test]
fn a_class_may_be_a_number() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    done(&dir, &generate(&model, &["--class", "class-3", "--out", "name.png"]));
    done(&dir, &generate(&model, &["--class", "3", "--out", "number.png"]));
    assert!(fs::read(dir.path().join("name.png")).unwrap() == fs::read(dir.path().join("number.png")).unwrap());
}

#[test]
fn grids_show_every_image_and_any_of_them_can_be_made_alone() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let scale = ["--scale", "4"];
    // 7 classes of 3 images: two sessions, the second of 5 images.
    done(
        &dir,
        &generate(
            &model,
            &[&["--class", "all", "--count", "3", "--seed", "5", "--out", "grid.png"], &scale[..]].concat(),
        ),
    );
    done(&dir, &generate(&model, &[&["--class", "6", "--seed", "7", "--out", "alone.png"], &scale[..]].concat()));
    let grid = image::open(dir.path().join("grid.png")).unwrap().into_rgb8();
    let alone = image::open(dir.path().join("alone.png")).unwrap().into_rgb8();
    // The last line's last image: at the right below, but for a margin.
    let shown = image::imageops::crop_imm(&grid, grid.width() - 4 - 32, grid.height() - 4 - 32, 32, 32).to_image();
    assert!(shown == alone, "the grid shows another image");
    // Labels are dark on white.
    assert!(grid.enumerate_pixels().any(|(x, _, p)| x < 40 && p.0 == [0; 3]));
    done(&dir, &generate(&model, &["--class", "all", "--out", "captioned.png"]));
    assert!(size(dir.path().join("captioned.png")).0 > 3 * 128);
}

#[test]
fn a_folder_gets_a_file_an_image() {
    let (dir, model) = (tempdir().unwrap(), fixture("odd"));
    done(&dir, &generate(&model, &["--class", "1", "--count", "2", "--seed", "40", "--out", "new/"]));
    let made = names(dir.path().join("new"));
    assert_eq!(made.len(), 2);
    assert!(made[0].ends_with("-40.png") && made[1].ends_with("-41.png"), "{made:?}");
    // The folder exists now, so the slash may go.
    done(&dir, &generate(&model, &["--class", "1", "--seed", "41", "--out", "new"]));
    assert_eq!(names(dir.path().join("new")), made);
}

/// A copy of a fixture whose config has other texts.
fn changed(fixture_name: &str, texts: &[(&str, &str)]) -> tempfile::TempDir {
    let (dir, from) = (tempdir().unwrap(), fixture(fixture_name));
    for name in names(&from).iter().filter(|name| name.ends_with(".safetensors")) {
        fs::copy(Path::new(&from).join(name), dir.path().join(name)).unwrap();
    }
    let mut config = fs::read_to_string(Path::new(&from).join("discon.json")).unwrap();
    for (old, new) in texts {
        assert!(config.contains(old), "{old}");
        config = config.replace(old, new);
    }
    fs::write(dir.path().join("discon.json"), config).unwrap();
    dir
}

#[test]
fn classes_of_one_name_have_files_of_their_own() {
    let classes =
        [("class-0", "same"), ("class-1", "same"), ("class-2", "a/b"), ("class-3", "a_b_2"), ("class-4", "SAME")];
    let model = changed("tiny", &[&classes[..], &[("class-5", "same_0"), ("class-6", "other")]].concat());
    let model = model.path().display().to_string();
    let dir = tempdir().unwrap();
    done(&dir, &generate(&model, &["--class", "all", "--rounds", "2", "--seed", "3", "--out", "all/"]));
    let expected = ["SAME_4", "a_b_2", "a_b_2_3", "other", "same_0", "same_0_5", "same_1"];
    assert_eq!(names(dir.path().join("all")), expected.map(|name| format!("{name}-3.png")));
    // Each is that of its class, which has the same name where it is made alone.
    done(&dir, &generate(&model, &["--class", "1", "--rounds", "2", "--seed", "3", "--out", "all"]));
    done(&dir, &generate(&model, &["--class", "1", "--rounds", "2", "--seed", "3", "--out", "one.png"]));
    assert_eq!(names(dir.path().join("all")).len(), expected.len());
    assert!(fs::read(dir.path().join("one.png")).unwrap() == fs::read(dir.path().join("all/same_1-3.png")).unwrap());
    let many = ["--count", "14", "--rounds", "2", "--out", "many"];
    done(&dir, &[&["sample", "--model", &model], &many[..]].concat());
    assert_eq!(names(dir.path().join("many")).len(), expected.len() + 1);
}

#[test]
fn what_a_model_says_does_not_steer_the_terminal() {
    let hostile = r"\u001b[2J\u009b31m\u202e\nattribution: forged";
    let texts = ["fixture-tiny", "class-0"].map(|old| (old, format!("{old}{hostile}")));
    let model = changed("tiny", &texts.each_ref().map(|(old, new)| (*old, new.as_str())));
    let cases = model.path().join("cases");
    fs::create_dir(&cases).unwrap();
    let case = if cfg!(unix) { "head\u{1b}[2J\nforged" } else { "head" };
    let from = Path::new(&fixture("tiny")).join("cases/head_g1.safetensors");
    fs::copy(from, cases.join(format!("{case}.safetensors"))).unwrap();

    let dir = tempdir().unwrap();
    let model = model.path().display().to_string();
    let plain = done(&dir, &["inspect", &fixture("tiny")]);
    let shown = done(&dir, &["inspect", &model]);
    assert_eq!(shown.lines().count(), plain.lines().count(), "{shown}");
    let verified = done(&dir, &["verify", &model]);
    assert_eq!(verified.lines().count(), 2, "{verified}");
    let verbose = text(&discon(&dir, &["-v", "inspect", &model]).stderr);
    let told = text(&discon(&dir, &generate(&model, &["--class", "cat", "--out", "x.png"])).stderr);
    assert_eq!(told.lines().count(), 1, "{told}");
    for all in [&shown, &verified, &verbose, &told] {
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        assert!(!all.contains(steers), "{all:?}");
    }
    let escaped = r"class-0\u001b[2J\u009b31m\u202e";
    assert!(shown.contains(escaped) && told.contains(escaped), "{shown}{told}");
    // As JSON it still is what it was.
    let json: serde_json::Value = serde_json::from_str(&done(&dir, &["inspect", &model, "--json"])).unwrap();
    assert_eq!(json["classes"][0], "class-0\u{1b}[2J\u{9b}31m\u{202e}\nattribution: forged");
}

#[test]
fn the_preview_is_what_the_discrete_tokens_alone_give() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    for count in ["1", "3"] {
        let same = ["--class", "2", "--count", count];
        done(&dir, &generate(&model, &[&same[..], &["--preview", "coarse.png", "--out", "fine.png"]].concat()));
        done(&dir, &generate(&model, &[&same[..], &["--discrete-only", "--out", "only.png"]].concat()));
        let [coarse, fine, only] =
            ["coarse.png", "fine.png", "only.png"].map(|f| fs::read(dir.path().join(f)).unwrap());
        assert!(coarse == only && coarse != fine, "count {count}");
    }
    assert_eq!(names(&dir), ["coarse.png", "fine.png", "only.png"]);
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    let wrong = |code, more: &[&str], names: &[&str]| fails(&dir, code, &generate(&model, more), names);
    let to = |more: &[&'static str]| [&["--class", "1", "--out", "x.png"], more].concat();
    wrong(1, &["--class", "cat", "--out", "x.png"], &["class", "`cat`", "class-0"]);
    wrong(1, &["--class", "7", "--out", "x.png"], &["class", "`7`"]);
    wrong(1, &["--class", "1", "--out", "nowhere/x.png"], &["nowhere/x.png"]);
    wrong(1, &["--class", "1", "--out", "x.gif"], &["x.gif", ".png"]);
    wrong(1, &to(&["--preview", "nowhere/p.png"]), &["nowhere/p.png"]);
    wrong(1, &to(&["--guidance", "nan"]), &["guidance", "NaN"]);
    wrong(1, &to(&["--guidance", "-1"]), &["guidance", "-1"]);
    wrong(1, &to(&["--discrete-guidance", "inf"]), &["discrete_guidance", "inf"]);
    wrong(1, &to(&["--temperature", "-0.5"]), &["temperature", "-0.5"]);
    wrong(1, &to(&["--discrete-temperature", "0"]), &["discrete_temperature", "0"]);
    wrong(1, &to(&["--steps", "0"]), &["steps", "0"]);
    wrong(1, &to(&["--rounds", "17"]), &["rounds", "16", "17"]);
    wrong(1, &to(&["--count", "0"]), &["count", "0"]);
    wrong(1, &to(&["--scale", "0"]), &["scale", "0"]);
    wrong(1, &to(&["--count", "100000", "--scale", "64"]), &["grid", "--out"]);
    wrong(1, &to(&["--isa", "mmx"]), &["mmx", "scalar"]);
    wrong(1, &to(&["--threads", "100000"]), &["threads", "100000"]);
    wrong(2, &to(&["--steps", "many"]), &["many", "--steps"]);
    wrong(2, &to(&["--preview", "p.png", "--discrete-only"]), &["--preview", "--discrete-only"]);
    wrong(2, &["--class", "1"], &["--out"]);
    fails(&dir, 1, &["generate", "--model", "gone", "--class", "1", "--out", "x.png"], &["model", "gone"]);
    fails(&dir, 2, &["paint"], &["paint"]);
    // No attempt left anything behind.
    assert_eq!(names(&dir), [""; 0]);
}

#[test]
fn the_model_may_be_named_by_the_environment() {
    let dir = tempdir().unwrap();
    let run = |model: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discon"));
        let args = ["generate", "--class", "1", "--out", "x.png"];
        command.args(args).current_dir(&dir).env("DISCON_MODEL", model).output().unwrap()
    };
    assert!(run(&fixture("tiny")).status.success());
    let out = run("gone");
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("DISCON_MODEL") && text(&out.stderr).contains("gone"), "{}", text(&out.stderr));
}

#[test]
fn reconstructions_stand_beside_the_picture() {
    let (dir, model) = (tempdir().unwrap(), fixture("tiny"));
    done(&dir, &generate(&model, &["--class", "1", "--out", "right.png"]));
    done(&dir, &generate(&model, &["--class", "1", "--scale", "3", "--out", "wrong.png"]));
    let run = |more: &[&'static str]| [&["reconstruct", "--model", &model, "--out", "out.png"], more].concat();
    let printed = done(&dir, &run(&["right.png"]));
    assert!(
        printed.starts_with("right.png: VQ ") && printed.contains("VAE ") && printed.ends_with("dB\n"),
        "{printed}"
    );
    let one = size(dir.path().join("out.png"));
    fs::remove_file(dir.path().join("out.png")).unwrap();

    fails(&dir, 1, &run(&["wrong.png"]), &["wrong.png", "8 x 8", "24 x 24", "--resize"]);
    fails(&dir, 1, &run(&["right.png", "gone.png"]), &["gone.png"]);
    fs::write(dir.path().join("text.png"), "no picture").unwrap();
    fails(&dir, 1, &run(&["text.png"]), &["text.png"]);
    assert!(!dir.path().join("out.png").exists());
    // Enlarged and made to fit again, it is the same picture: two lines of the same.
    let printed = done(&dir, &run(&["right.png", "wrong.png", "--resize"]));
    assert_eq!(printed.lines().count(), 2);
    let two = size(dir.path().join("out.png"));
    assert!(two.0 == one.0 && two.1 > one.1, "{one:?} {two:?}");
}

#[test]
fn known_answers_are_verified() {
    let dir = tempdir().unwrap();
    for name in ["tiny", "odd"] {
        let cases = fs::read_dir(Path::new(&fixture(name)).join("cases")).unwrap().count();
        let printed = done(&dir, &["verify", &fixture(name)]);
        assert_eq!(printed.lines().count(), cases + 1, "{printed}");
        assert!(printed.ends_with(&format!("{cases} passed, 0 failed\n")), "{printed}");
        let printed = done(&dir, &["verify", &fixture(name), "--tolerance-report", "--threads", "1"]);
        assert!(printed.contains("% used") && printed.contains("worst ") && !printed.contains("NaN"), "{printed}");
    }
}

#[test]
fn precisions_are_held_against_f32() {
    let dir = tempdir().unwrap();
    let tiny = fixture("tiny");
    let run = |more: &[&str]| done(&dir, &[&["compare", &tiny], more].concat());
    // 7 classes, 20 images: two sessions' batches, the second not full.
    let printed = run(&["--count", "20", "--out", "beside.png", "--scale", "2"]);
    assert!(printed.contains("20 images of 16 codes") && printed.matches("PSNR").count() == 2, "{printed}");
    // Sixteen pictures of 16 pixels in a line and a name, three lines.
    let (width, height) = size(dir.path().join("beside.png"));
    assert!(width > 16 * 20 && width < 16 * 20 + 60 && height == 4 + 3 * 20, "{width} x {height}");

    let json = |more: &[&str]| {
        serde_json::from_str::<serde_json::Value>(&run(&[&["--count", "20", "--json"], more].concat())).unwrap()
    };
    let both = json(&["--threads", "1"]);
    assert_eq!((&both["images"], &both["places"]), (&20.into(), &16.into()));
    for dtype in ["bf16", "q8"] {
        let (codes, psnr) = (&both["dtypes"][dtype]["codes"], &both["dtypes"][dtype]["psnr"]);
        let number = |x: &serde_json::Value| x.as_f64().unwrap();
        let (differ, alone) = (number(&codes["differ"]), number(&codes["differ_after_the_same"]));
        assert!((0.0..0.8).contains(&differ) && alone <= differ, "{dtype}: {codes}");
        assert!(number(&psnr["low_5"]) > 10.0 && number(&psnr["low_5"]) <= number(&psnr["median"]), "{dtype}: {psnr}");
    }
    let worse = |key: &str| both["dtypes"]["q8"]["psnr"][key].as_f64() < both["dtypes"]["bf16"]["psnr"][key].as_f64();
    assert!(worse("mean") && worse("median"), "{both}");
    // Whether alone or beside another, the figures are the same.
    assert_eq!(json(&["--dtype", "q8", "--threads", "2"])["dtypes"]["q8"], both["dtypes"]["q8"]);

    fails(&dir, 1, &["compare", &tiny, "--dtype", "f32"], &["dtype", "f32"]);
    fails(&dir, 1, &["compare", &tiny, "--dtype", "bf16,q4"], &["dtype", "q4"]);
    fails(&dir, 1, &["compare", &tiny, "--count", "0"], &["count", "0"]);
    fails(&dir, 2, &["compare", &tiny, "--scale", "2"], &["--out"]);
    fails(&dir, 1, &["compare", &tiny, "--out", "x.gif"], &["x.gif", ".png"]);
    fails(&dir, 1, &["compare", &fixture("odd")], &["given_codes", "discrete tokens"]);
    fails(&dir, 1, &["compare", "gone"], &["gone"]);
    assert_eq!(names(&dir), ["beside.png"]);
}

#[test]
fn a_folder_without_cases_or_without_a_model_is_not_verified() {
    let dir = tempdir().unwrap();
    let copy = dir.path().join("model");
    fs::create_dir(&copy).unwrap();
    for file in ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"] {
        fs::copy(Path::new(&fixture("tiny")).join(file), copy.join(file)).unwrap();
    }
    fails(&dir, 1, &["verify", "model"], &["cases"]);
    fails(&dir, 1, &["verify", "gone"], &["gone"]);
}

#[test]
fn synthetic_models_are_written_inspected_and_measured() {
    let dir = tempdir().unwrap();
    let synth = ["synth", "--size", "tiny", "--dtype", "bf16", "--out", "model"];
    done(&dir, &synth);
    fails(&dir, 1, &synth, &["model", "--force"]);
    done(&dir, &[&synth[..], &["--force"]].concat());
    fails(&dir, 1, &["synth", "--size", "xxl", "--out", "x"], &["size", "xxl", "tiny"]);
    fails(&dir, 1, &["synth", "--size", "tiny", "--dtype", "i32", "--out", "x"], &["dtype", "i32"]);
    assert_eq!(names(dir.path().join("model")).len(), 5);
    // 100 million images, too many even to count them one by one.
    let many = generate("model", &["--class", "all", "--count", "100000", "--out", "many.png"]);
    fails(&dir, 1, &many, &["count", "1000 classes", "1048 of each", "100000"]);

    let printed = done(&dir, &["inspect", "model"]);
    for part in ["stage 1", "stage 2", "VAE", "VQ", "bf16", "in place", "class-999"] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    let json = |args: &[&str]| serde_json::from_str::<serde_json::Value>(&done(&dir, args)).unwrap();
    let [one, two] = ["1", "2"].map(|batch| json(&["inspect", "model", "--json", "--batch", batch]));
    assert_eq!(one["parts"].as_array().unwrap().len(), 4);
    assert!(one["memory"]["weights_in_place"].as_u64() > Some(0), "{}", one["memory"]);
    assert!(one["memory"]["arena"].as_u64() < two["memory"]["arena"].as_u64());
    assert!(one["memory"]["shared"].as_u64() > Some(0) && one["memory"]["shared"] == two["memory"]["shared"]);
    fails(&dir, 1, &["inspect", "model", "--batch", "0"], &["batch"]);
    fails(&dir, 1, &["inspect", "gone"], &["gone"]);

    let quick = ["bench", "--model", "model", "--rounds", "2", "--steps", "2", "--repeat", "1", "--tokens", "3"];
    let run = |more: &[&'static str]| json(&[&quick[..], more, &["--json"]].concat());
    let first = run(&["--ops", "--dtype", "bf16"]);
    for key in ["size", "dtype", "device", "compile", "batch", "rounds", "steps", "tokens", "threads", "image_seconds"]
    {
        assert!(!first[key].is_null(), "no {key}: {first}");
    }
    for stage in ["discrete", "condition", "head", "decode"] {
        assert!(first["seconds"][stage].as_f64() > Some(0.0), "{first}");
    }
    assert_eq!((&first["rounds"], &first["steps"], &first["tokens"]), (&2.into(), &2.into(), &3.into()));
    for peak in ["f32", "bf16", "q8", "read_bytes"] {
        assert!(first["peak"][peak].as_f64() > Some(1e8), "{peak}: {}", first["peak"]);
    }
    let linear = first["ops"].as_array().unwrap().iter().find(|op| op["op"] == "linear").unwrap();
    assert_eq!(linear["precision"], "bf16");
    assert_eq!(first["hash"], run(&["--threads", "1", "--dtype", "bf16"])["hash"]);

    let bench = |more: &[&'static str]| [&quick[..], more].concat();
    fails(&dir, 1, &bench(&["--dtype", "f16"]), &["dtype", "f16", "f32, bf16 or q8"]);
    fails(&dir, 2, &bench(&["--size", "tiny"]), &["--size", "--model"]);
    for (name, value) in [("--tokens", "0"), ("--tokens", "65"), ("--repeat", "0"), ("--batch", "0")] {
        fails(&dir, 1, &["bench", "--model", "model", name, value], &[&name[2..], value]);
    }
}

#[test]
fn help_and_version_are_for_all() {
    let dir = tempdir().unwrap();
    for command in ["generate", "sample", "reconstruct", "verify", "compare", "inspect", "pack", "synth", "bench"] {
        assert!(done(&dir, &[command, "--help"]).contains("Examples:"), "{command}");
        assert!(done(&dir, &[command, "--version"]).contains(env!("CARGO_PKG_VERSION")), "{command}");
    }
    let bare = discon(&dir, &[]);
    assert!(bare.status.code() == Some(2) && text(&bare.stderr).contains("generate"));
}

/// Ctrl-C between two pictures.
#[cfg(unix)]
#[test]
fn cancelled_reconstructions_leave_nothing() {
    let dir = tempdir().unwrap();
    image::RgbImage::new(8, 8).save(dir.path().join("x.png")).unwrap();
    let model = fixture("tiny");
    let pictures = ["x.png"; 20_000];
    let args = [&["reconstruct", "--model", &model, "--out", "out.png"], &pictures[..]].concat();
    let mut child = command(&dir, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It has begun when the first is told of.
    let mut told = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut told).unwrap();
    // Nobody reads the others, which is no reason to stop.
    drop(child.stdout.take());
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr).trim()), (Some(130), "discon: error: cancelled"));
    assert_eq!(names(&dir), ["x.png"]);
}

/// Ctrl-C while it works.
#[cfg(unix)]
#[test]
fn cancelled_work_leaves_nothing() {
    let dir = tempdir().unwrap();
    done(&dir, &["synth", "--size", "tiny", "--out", "model"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_discon"));
    // On the processor, and without a word on why.
    command.args(["generate", "--model", "model", "--class", "all", "--device", "cpu", "--out", "x.png"]);
    command.args(["--steps", "1000", "--rounds", "64"]).current_dir(&dir).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    // The file under its other name shows that the handler is about to stand; it does well before a second is over.
    while names(&dir).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let out = child.wait_with_output().unwrap();
    assert_eq!((out.status.code(), text(&out.stderr).trim()), (Some(130), "discon: error: cancelled"));
    assert_eq!(names(&dir), ["model"]);
}
