//! Files of tensors with any header: each is refused by an error that names the file, or all that it names can be read.
#![no_main]

use discon::ErrorKind;
use discon::weights::TensorFile;
use discon_fuzz::Edit;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

#[derive(Arbitrary, Debug)]
struct File {
    tensors: Vec<Tensor>,
    /// Added to the length of the header.
    longer: Option<i64>,
    /// Bytes behind the tensors' own.
    behind: u8,
    text: Vec<Edit>,
}

#[derive(Arbitrary, Debug)]
struct Tensor {
    name: u8,
    dtype: u8,
    shape: Vec<Number>,
    /// From where the last one ended, or from any place to any other.
    place: Option<[Number; 2]>,
}

#[derive(Arbitrary, Debug)]
enum Number {
    Small(u8),
    Any(u64),
    /// A power of two.
    Power(u8),
}

impl Number {
    fn get(&self) -> u64 {
        match *self {
            Self::Small(n) => n.into(),
            Self::Any(n) => n,
            Self::Power(n) => 1 << (n % 64),
        }
    }
}

/// The file, with data for what of it is small.
fn written(file: File) -> Vec<u8> {
    let dtypes = [("F32", 4), ("F16", 2), ("BF16", 2), ("I32", 4), ("U8", 1), ("F64", 8)];
    let (mut entries, mut end) = (Vec::new(), 0u64);
    for Tensor { name, dtype, shape, place } in file.tensors.into_iter().take(12) {
        let (dtype, size) = dtypes[usize::from(dtype) % dtypes.len()];
        let shape: Vec<u64> = shape.iter().map(Number::get).collect();
        let bytes = shape.iter().fold(size, |bytes: u64, &n| bytes.wrapping_mul(n));
        let [from, to] = place.map_or([end, end.wrapping_add(bytes)], |place| place.map(|number| number.get()));
        end = to;
        entries
            .push(format!("\"t{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{from},{to}]}}"));
    }
    let mut text = format!("{{{}}}", entries.join(",")).into_bytes();
    file.text.into_iter().for_each(|edit| edit.done(&mut text));
    let length = (text.len() as u64).wrapping_add_signed(file.longer.unwrap_or(0));
    let data = end.min(1 << 16) as usize + usize::from(file.behind % 4);
    [length.to_le_bytes().as_slice(), &text, &vec![1; data]].concat()
}

fuzz_target!(|file: File| {
    match TensorFile::from_bytes("fuzzed", Arc::new(written(file))) {
        Ok(file) => {
            for name in file.names() {
                let _ = (file.f32s(name), file.i32s(name), file.u8s(name));
            }
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Model, "{e:?}");
            assert!(e.to_string().starts_with("fuzzed: "), "{e}");
        }
    }
});
