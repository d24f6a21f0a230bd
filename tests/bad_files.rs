//! Model files as nobody should have made them: each is refused by an error of the right kind that names the thing.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use discon::tensor::SharedBytes;
use discon::weights::{ModelFiles, Part, TensorFile};
use discon::{Error, ErrorKind};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

const FILES: [&str; 5] = ["discon.json", "rar.safetensors", "discon.safetensors", "vae.safetensors", "vq.safetensors"];

fn fixture(file: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny").join(file)).unwrap()
}

/// A copy of the tiny model with one file replaced, or removed if there are no bytes.
fn model_with(file: &str, bytes: Option<&[u8]>) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for name in FILES {
        match bytes {
            Some(bytes) if name == file => fs::write(dir.path().join(name), bytes).unwrap(),
            None if name == file => {}
            _ => fs::write(dir.path().join(name), fixture(name)).unwrap(),
        }
    }
    dir
}

/// The tiny model in memory with one file replaced.
fn pack_with(file: &str, bytes: &[u8]) -> Vec<(String, SharedBytes)> {
    FILES
        .iter()
        .map(|&name| {
            let bytes = if name == file { bytes.to_vec() } else { fixture(name) };
            (name.to_owned(), Arc::new(bytes) as SharedBytes)
        })
        .collect()
}

/// A file of that header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn entry(name: &str, dtype: &str, shape: &str, start: u64, end: u64) -> String {
    format!("\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}")
}

fn parse(bytes: Vec<u8>) -> discon::Result<TensorFile> {
    TensorFile::from_bytes("some.safetensors", Arc::new(bytes))
}

/// The message of a refused file, which names the file and is of a model error's kind.
fn refusal(bytes: Vec<u8>) -> String {
    let e = parse(bytes).unwrap_err();
    assert!(matches!(e, Error::Format { .. }), "{e:?}");
    assert_eq!(e.kind(), ErrorKind::Model);
    assert!(e.to_string().starts_with("some.safetensors: "), "{e}");
    e.to_string()
}

#[track_caller]
fn assert_refused(bytes: Vec<u8>, parts: &[&str]) {
    let message = refusal(bytes);
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn whole_models_open_from_folder_and_memory() {
    for name in ["tiny", "odd"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        let model = ModelFiles::open(&dir).unwrap();
        assert!(model.rar.is_some() && model.masked.is_some() && model.vae.is_some() && model.vq.is_some());
        let pack = FILES.map(|f| (f.to_owned(), Arc::new(fs::read(dir.join(f)).unwrap()) as SharedBytes));
        assert_eq!(ModelFiles::from_bytes(pack).unwrap().config, model.config);
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = fixture("rar.safetensors");
    let dir = model_with("rar.safetensors", None);
    let path = dir.path().join("rar.safetensors");
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let mut cuts = vec![0, 1, 7, 8, 9, header - 1, header, header + 1, whole.len() - 1, whole.len() - 4];
    cuts.extend((1..20).map(|i| i * whole.len() / 20));
    for cut in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        let e = ModelFiles::open(dir.path()).unwrap_err();
        assert!(matches!(e, Error::Format { .. }), "cut at {cut}: {e:?}");
        assert!(e.to_string().starts_with(&path.display().to_string()), "{e}");
        let e = ModelFiles::from_bytes(pack_with("rar.safetensors", &whole[..cut])).unwrap_err();
        assert!(e.to_string().starts_with("rar.safetensors: "), "{e}");
    }
    fs::write(&path, [whole.as_slice(), &[0; 3]].concat()).unwrap();
    let e = ModelFiles::open(dir.path()).unwrap_err();
    assert!(e.to_string().contains("end of the file: expected it where tensor `timesteps_embeddings` ends"), "{e}");
    assert!(e.to_string().contains("3 more bytes"), "{e}");
}

#[test]
fn header_lengths_past_the_file_are_refused_before_anything_is_allocated() {
    for length in [u64::MAX, 1 << 63, u64::MAX - 7, (32 << 20) + 1] {
        let bytes = [length.to_le_bytes().as_slice(), b"{}"].concat();
        assert_refused(bytes, &["header length", "at most 33554432", &length.to_string()]);
    }
    assert_refused([3u64.to_le_bytes().as_slice(), b"{}"].concat(), &["header: expected 3 bytes, found 2 bytes"]);
    assert_refused(vec![], &["header length", "a file of 0 bytes"]);
}

#[test]
fn headers_that_are_no_object_of_tensors_are_refused() {
    for header in ["", "{", "[]", "null", "{}{}", "\u{0}", "{\"a\":1}", "{\"a\":{}}", "{\"__metadata__\":{\"a\":1}}"] {
        assert_refused(file(header, &[]), &["header: expected the JSON object of a safetensors file"]);
    }
    assert_refused([2u64.to_le_bytes().as_slice(), &[0xff, 0xfe]].concat(), &["header"]);
    let extra = "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"x\":[]}}";
    assert_refused(file(extra, &[0]), &["tensor `a`", "unknown field `x`"]);
    let negative = "{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]}}";
    assert_refused(file(negative, &[0]), &["tensor `a`", "-1"]);
    let deep = format!("{{{}}}", entry("a", "U8", &format!("[{}1]", "1,".repeat(100_000)), 0, 1));
    assert_refused(file(&deep, &[0]), &["tensor `a`", "at most 8 dimensions"]);
}

#[test]
fn offsets_that_do_not_fill_the_file_in_order_are_refused() {
    let two = |a: (u64, u64), b: (u64, u64)| {
        let size = |(start, end): (u64, u64)| format!("[{}]", end.saturating_sub(start) / 4);
        let tensors = [entry("a", "F32", &size(a), a.0, a.1), entry("b", "F32", &size(b), b.0, b.1)];
        file(&format!("{{{}}}", tensors.join(",")), &[0; 16])
    };
    assert!(parse(two((0, 8), (8, 16))).is_ok());
    assert!(parse(two((8, 16), (0, 8))).is_ok());
    assert_refused(two((8, 0), (8, 16)), &["data_offsets of tensor `a`", "8 to 0"]);
    assert_refused(two((0, 12), (8, 16)), &["data_offsets of tensor `b`", "an overlap of 4 bytes", "tensor `a` ends"]);
    assert_refused(two((0, 4), (8, 16)), &["data_offsets of tensor `b`", "a gap of 4 bytes", "to start at 4"]);
    assert_refused(two((4, 8), (8, 16)), &["data_offsets of tensor `a`", "a gap of 4 bytes", "the header ends"]);
    assert_refused(two((0, 8), (8, 20)), &["data_offsets of tensor `b`", "16 bytes of data", "8 to 20"]);
    assert_refused(two((0, 8), (8, 1 << 63)), &["data_offsets of tensor `b`", "9223372036854775808"]);
    assert_refused(two((0, 8), (8, 12)), &["end of the file", "tensor `b` ends", "4 more bytes"]);
    let past_u64 = "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,18446744073709551616]}}";
    assert_refused(file(past_u64, &[0]), &["tensor `a`"]);
}

#[test]
fn shapes_that_do_not_fit_their_bytes_are_refused() {
    let one = |dtype, shape| file(&format!("{{{}}}", entry("w", dtype, shape, 0, 16)), &[0; 16]);
    assert!(parse(one("F32", "[2,2]")).is_ok());
    assert!(parse(one("BF16", "[8]")).is_ok());
    assert_refused(one("F32", "[2,3]"), &["tensor `w`", "24 bytes for f32 [2, 3]", "0 to 16: 16 bytes"]);
    // 2^40 * 2^40 wraps to 0, and 2^62 * 4 bytes too.
    assert_refused(one("F32", "[1099511627776,1099511627776]"), &["shape of tensor `w`", "1099511627776"]);
    assert_refused(one("F32", "[4611686018427387904]"), &["shape of tensor `w`"]);
    let empty = file(&format!("{{{}}}", entry("w", "F32", "[1099511627776,1099511627776]", 0, 0)), &[]);
    assert_refused(empty, &["shape of tensor `w`"]);
}

#[test]
fn dtypes_that_the_engine_does_not_have_are_refused() {
    for dtype in ["F64", "I64", "F8_E4M3", "BOOL", "f32", ""] {
        let bytes = file(&format!("{{{}}}", entry("w", dtype, "[1]", 0, 8)), &[0; 8]);
        assert_refused(bytes, &["dtype of tensor `w`", &format!("{dtype:?}")]);
    }
}

#[test]
fn a_name_stands_in_a_header_once() {
    let (a, b) = (entry("w", "U8", "[1]", 0, 1), entry("w", "U8", "[1]", 1, 2));
    assert_refused(file(&format!("{{{a},{b}}}"), &[0; 2]), &["tensor `w` twice"]);
    let twice = "{\"__metadata__\":{},\"__metadata__\":{}}";
    assert_refused(file(twice, &[]), &["`__metadata__` twice"]);
}

#[test]
fn a_hundred_thousand_tensors_are_too_many() {
    let many = |n: usize| {
        let tensors: Vec<_> = (0..n).map(|i| entry(&format!("t{i}"), "U8", "[0]", 0, 0)).collect();
        file(&format!("{{{}}}", tensors.join(",")), &[])
    };
    assert_refused(many(100_000), &["more than 65536 tensors"]);
    assert_eq!(parse(many(65_536)).unwrap().names().len(), 65_536);
}

fn small() -> Vec<u8> {
    let tensors = [
        entry("f", "F32", "[2,3]", 0, 24),
        entry("h", "F16", "[1,4,2]", 24, 40),
        entry("b", "BF16", "[2,1,3,3]", 40, 76),
        entry("i", "I32", "[2]", 76, 84),
        entry("u", "U8", "[3]", 84, 87),
    ];
    let data: Vec<u8> = (0..87).collect();
    file(&format!("{{\"__metadata__\":{{\"kind\":\"test\"}},{}}}", tensors.join(",")), &data)
}

#[track_caller]
fn assert_tensor_error<T: std::fmt::Debug>(result: discon::Result<T>, name: &str, expected: &str, found: &str) {
    let e = result.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Model);
    match e {
        Error::Tensor { file, tensor, expected: e, found: f } => {
            assert_eq!((file.as_str(), tensor.as_str()), ("some.safetensors", name));
            assert_eq!((e.as_str(), f.as_str()), (expected, found));
        }
        e => panic!("{e:?}"),
    }
}

#[test]
fn a_part_gives_no_tensor_of_another_dtype_or_shape() {
    let mut part = Part::new(parse(small()).unwrap()).unwrap();
    assert_tensor_error(part.take("f", &[3, 2]), "f", "f32, f16 or bf16 [3, 2]", "f32 [2, 3]");
    assert_tensor_error(part.take("f", &[6]), "f", "f32, f16 or bf16 [6]", "f32 [2, 3]");
    assert_tensor_error(part.take("i", &[2]), "i", "f32, f16 or bf16 [2]", "i32 [2]");
    assert_tensor_error(part.take("nil", &[1]), "nil", "f32, f16 or bf16 [1]", "nothing");
    assert_tensor_error(part.take_vector("f", 6), "f", "f32, f16 or bf16 [6]", "f32 [2, 3]");
    assert_tensor_error(part.take_rows("h", 5, 2), "h", "f32, f16 or bf16 [1, at least 5, 2]", "f16 [1, 4, 2]");
    assert_tensor_error(part.take_rows("b", 1, 3), "b", "f32, f16 or bf16 [1, at least 1, 3]", "bf16 [2, 1, 3, 3]");
    assert_tensor_error(part.take_table("h", 3, 2), "h", "f32, f16 or bf16 [1, 3, 2]", "f16 [1, 4, 2]");
    assert_tensor_error(part.take_conv("b", 2, 3, 1, true), "b", "f32, f16 or bf16 [2, 3, 1, 1]", "bf16 [2, 1, 3, 3]");
    assert_tensor_error(part.take_conv("b", 1, 2, 3, true), "b", "f32, f16 or bf16 [1, 2, 3, 3]", "bf16 [2, 1, 3, 3]");
    let found = "bf16 [2, 1, 3, 3] and 4 more that nothing asks for: `f`, `h`, `i`, `u`";
    assert_tensor_error(part.finish(), "b", "no such tensor: the config does not ask for it", found);
}

#[test]
fn reading_by_type_refuses_other_types() {
    let file = parse(small()).unwrap();
    assert_eq!(file.metadata()["kind"], "test");
    assert_tensor_error(file.f32s("i"), "i", "f32 or f16 or bf16", "i32 [2]");
    assert_tensor_error(file.i32s("f"), "f", "i32", "f32 [2, 3]");
    assert_tensor_error(file.u8s("nil"), "nil", "u8", "nothing");
    assert_eq!(file.u8s("u").unwrap(), (vec![3], vec![84, 85, 86]));
    assert_eq!(file.i32s("i").unwrap().1[0], i32::from_le_bytes([76, 77, 78, 79]));
}

#[test]
fn a_model_with_a_tensor_too_few_or_too_many_is_refused() {
    let bytes = fixture("rar.safetensors");
    // Of the same length, so that the header keeps its own.
    let at = bytes.windows(9).position(|w| w == b"lm_head.b").unwrap();
    let mut renamed = bytes.clone();
    renamed[at..at + 9].copy_from_slice(b"lm_haed.b");
    let dir = model_with("rar.safetensors", Some(&renamed));
    let mut part = ModelFiles::open(dir.path()).unwrap().rar.unwrap();
    let e = part.take_vector("lm_head.bias", 40).unwrap_err();
    assert!(e.to_string().contains("tensor `lm_head.bias`: expected f32, f16 or bf16 [40], found nothing"), "{e}");
    let names: Vec<String> = part.file().names().filter(|n| *n != "lm_haed.bias").map(str::to_owned).collect();
    for name in names {
        let shape = part.file().view(&name).unwrap().shape.to_vec();
        part.take(&name, &shape).unwrap();
    }
    let e = part.finish().unwrap_err();
    assert!(e.to_string().contains("tensor `lm_haed.bias`: expected no such tensor"), "{e}");
}

/// The error of a tiny model whose config has `from` replaced by `to`.
fn config_error(from: &str, to: &str) -> Error {
    let text = String::from_utf8(fixture("discon.json")).unwrap();
    assert!(text.contains(from), "{from}");
    let bytes = text.replacen(from, to, 1).into_bytes();
    let dir = model_with("discon.json", Some(&bytes));
    let e = ModelFiles::open(dir.path()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Model);
    let path = dir.path().join("discon.json").display().to_string();
    assert!(e.to_string().starts_with(&path), "{e}");
    let in_memory = ModelFiles::from_bytes(pack_with("discon.json", &bytes)).unwrap_err();
    assert_eq!(in_memory.to_string(), e.to_string().replace(&path, "discon.json"));
    e
}

#[test]
fn configs_that_no_model_has_are_refused_by_key() {
    for (from, to, key, found) in [
        ("\"vq\": {", "\"vqq\": {", "vqq", "an unknown key"),
        ("\"width\": 80", "\"width\": 80, \"dropout\": 0", "discon.head.dropout", "an unknown key"),
        ("\"depth\": 2,", "", "rar.depth", "nothing"),
        ("\"depth\": 2", "\"depth\": 1000000000000000000", "rar.depth", "1000000000000000000"),
        ("\"hidden_size\": 64", "\"hidden_size\": 9223372036854775808", "rar.hidden_size", "9223372036854775808"),
        ("\"hidden_size\": 64", "\"hidden_size\": 64.5", "rar.hidden_size", "floating point `64.5`"),
        ("\"hidden_size\": 64", "\"hidden_size\": -1", "rar.hidden_size", "integer `-1`"),
        ("\"heads\": 4", "\"heads\": \"4\"", "rar.heads", "string \"4\""),
        ("\"classes\": [", "\"classes\": [\"one more\",", "rar.num_classes", "7"),
        ("\"temperature\": 1.0", "\"temperature\": \"NaN\"", "sampling.rar.temperature", "string \"NaN\""),
        ("\"clip_x0\": null", "\"clip_x0\": 1e39", "sampling.discon.clip_x0", "inf"),
        ("\"linear\"", "\"sine\"", "sampling.discon.guidance_schedule", "`sine`"),
        ("\"discon/1\"", "\"discon/2\"", "format", "\"discon/2\""),
    ] {
        match config_error(from, to) {
            Error::Config { key: k, found: f, .. } => assert_eq!((k.as_str(), f.as_str()), (key, found)),
            e => panic!("{to}: {e:?}"),
        }
    }
    for (from, to, what) in [
        ("\"temperature\": 1.0", "\"temperature\": NaN", "JSON at `sampling.rar.temperature`"),
        ("\"temperature\": 1.0", "\"temperature\": 1e400", "JSON at `sampling.rar.temperature`"),
        ("\"format\"", "format", "JSON"),
    ] {
        match config_error(from, to) {
            Error::Format { what: w, .. } => assert_eq!(w, what),
            e => panic!("{to}: {e:?}"),
        }
    }
}

#[test]
fn a_folder_without_config_says_which_file_it_lacks() {
    let dir = model_with("discon.json", None);
    for folder in [dir.path().to_owned(), PathBuf::from("/no/such/folder")] {
        let e = ModelFiles::open(&folder).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().starts_with(&folder.join("discon.json").display().to_string()), "{e}");
    }
    let e = ModelFiles::from_bytes([]).unwrap_err();
    assert!(e.to_string().contains("discon.json"), "{e}");
    let e = ModelFiles::from_bytes([pack_with("", &[]), pack_with("", &[])].concat()).unwrap_err();
    assert!(e.to_string().contains("`discon.json` twice"), "{e}");
}

#[test]
fn a_part_may_be_absent_but_not_unannounced() {
    let dir = model_with("vq.safetensors", None);
    let model = ModelFiles::open(dir.path()).unwrap();
    assert!(model.vq.is_none() && model.config.vq.is_some() && model.vae.is_some());

    let text = String::from_utf8(fixture("discon.json")).unwrap();
    let (start, end) = (text.find("\"vq\"").unwrap(), text.find("\"sampling\"").unwrap());
    let without = text[..start].to_owned() + &text[end..];
    let dir = model_with("discon.json", Some(without.as_bytes()));
    let e = ModelFiles::open(dir.path()).unwrap_err();
    assert!(matches!(&e, Error::Config { key, .. } if key == "vq"), "{e}");
    assert!(e.to_string().contains("vq.safetensors"), "{e}");
}

#[test]
fn a_folder_in_a_files_place_is_refused() {
    for file in FILES {
        let dir = model_with(file, None);
        let path = dir.path().join(file);
        fs::create_dir(&path).unwrap();
        let e = ModelFiles::open(dir.path()).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Io);
        assert!(e.to_string().starts_with(&path.display().to_string()), "{e}");
    }
}

/// A case of the diffusion head in `steps` steps with noise of that shape for `noise` of them.
fn head_case(steps: usize, noise: usize) -> Vec<u8> {
    let sizes = [("in.start", "[1,8]", 8), ("in.z", "[1,64]", 64), ("out.tokens", "[1,8]", 8)];
    let noise_shape = format!("[{noise},1,8]");
    let (mut tensors, mut end) = (Vec::new(), 0);
    for (name, shape, count) in sizes.into_iter().chain([("in.noise", noise_shape.as_str(), noise * 8)]) {
        tensors.push(entry(name, "F32", shape, end, end + 4 * count as u64));
        end += 4 * count as u64;
    }
    let params = format!(r#"{{\"diffusion_steps\":{steps},\"temperature\":1.0,\"guidance\":1.0,\"clip_x0\":null}}"#);
    let metadata = format!(r#""__metadata__":{{"kind":"head_sample","params":"{params}","rtol":"1e-3"}}"#);
    file(&format!("{{{metadata},{}}}", tensors.join(",")), &vec![0; end as usize])
}

#[test]
fn a_case_of_no_or_too_many_steps_fails_and_names_them() {
    let dir = model_with("", None);
    let cases = dir.path().join("cases");
    fs::create_dir(&cases).unwrap();
    for (name, steps, noise) in [("a", 0, 0), ("b", 0, 1), ("c", 1001, 1), ("d", 1, 2), ("e", 2, 2)] {
        fs::write(cases.join(format!("{name}.safetensors")), head_case(steps, noise)).unwrap();
    }
    let model = discon::Model::open(dir.path()).unwrap();
    let reports = discon::verify::verify(&model, dir.path(), discon::Cpu::new(1).unwrap(), &mut |_| ()).unwrap();
    let told: Vec<String> =
        reports.iter().map(|r| r.failure.as_ref().map_or(String::new(), Error::to_string)).collect();
    for (told, found) in told.iter().zip(["0", "0", "1001"]) {
        assert!(told.ends_with(&format!("params `diffusion_steps`: expected 1 to 1000, found {found}")), "{told}");
    }
    assert!(told[3].contains("in.noise") && told[4].is_empty(), "{told:?}");
}

/// Everything that can be done with a file: whatever it holds, nothing panics.
fn use_all(bytes: Vec<u8>) {
    let Ok(file) = parse(bytes) else { return };
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    for name in &names {
        let _ = (file.f32s(name), file.i32s(name), file.u8s(name));
    }
    let mut part = Part::new(file).unwrap();
    for name in &names {
        let shape = part.file().view(name).unwrap().shape.to_vec();
        let last = shape.last().copied().unwrap_or(0);
        let _ = (part.take(name, &shape), part.take_vector(name, last), part.take_rows(name, 0, last));
        if let [cout, cin, k, _] = shape[..] {
            let _ = part.take_conv(name, cout, cin, k, true);
        }
    }
    let _ = part.finish();
}

proptest! {
    #[test]
    fn flipped_bytes_never_panic(flips in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = small();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        use_all(bytes);
    }

    #[test]
    fn flipped_digits_in_a_header_never_panic(flips in proptest::collection::vec((any::<proptest::sample::Index>(), b'0'..=b'9'), 1..4)) {
        let mut bytes = small();
        let digits: Vec<usize> = (8..bytes.len() - 87).filter(|&i| bytes[i].is_ascii_digit()).collect();
        for (at, value) in flips {
            bytes[digits[at.index(digits.len())]] = value;
        }
        use_all(bytes);
    }

    #[test]
    fn flipped_bytes_in_a_config_never_panic(at in any::<proptest::sample::Index>(), value in any::<u8>()) {
        let mut bytes = fixture("discon.json");
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = discon::weights::Config::parse("discon.json", &bytes);
    }
}
