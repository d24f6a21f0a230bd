//! The header of a safetensors file, read as hostile input.
//!
//! The `safetensors` crate parses and checks headers too, but a duplicate name is lost in its map, its errors seldom
//! name the tensor, and it accepts headers far larger than a model needs. So the header is first read here, entry by
//! entry, with caps; what passes is given to the crate, which has the last word on what the format is.

use crate::error::{Error, Result};
use crate::tensor::DType;
use safetensors::SafeTensors;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry as Slot};
use std::fmt;
use std::ops::Range;

/// The longest header that is read.
pub const MAX_HEADER_BYTES: u64 = 32 << 20;

/// The most tensors in one file.
pub const MAX_TENSORS: usize = 65_536;

/// The most dimensions of a tensor.
pub const MAX_DIMS: usize = 8;

/// The bytes of the length in front of a header.
const LENGTH_BYTES: usize = 8;

/// Where a tensor lies.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    /// In the file, not only its data: inside the bytes that [`read`] was given.
    pub(super) range: Range<usize>,
}

/// What a header says, after all checks.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, Entry>,
    pub(super) metadata: HashMap<String, String>,
}

/// Reads and checks the header of the file in `bytes`; `file` names it in errors.
pub(super) fn read(file: &str, bytes: &[u8]) -> Result<Header> {
    let fault = |what: &str, expected: String, found: String| Error::Format {
        file: file.to_owned(),
        what: what.to_owned(),
        expected,
        found,
    };
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        let found = format!("a file of {} bytes", bytes.len());
        return Err(fault("header length", format!("{LENGTH_BYTES} bytes"), found));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return Err(fault("header length", format!("at most {MAX_HEADER_BYTES} bytes"), format!("{length} bytes")));
    }
    // At most `MAX_HEADER_BYTES`: fits any usize of 32 bits or more.
    let length = length as usize;
    let Some((header, data)) = rest.split_at_checked(length) else {
        let found = format!("{} bytes, then the end of the file", rest.len());
        return Err(fault("header", format!("{length} bytes"), found));
    };
    let raw: Raw = serde_json::from_slice(header)
        .map_err(|e| fault("header", "the JSON object of a safetensors file".to_owned(), e.to_string()))?;

    let mut tensors = BTreeMap::new();
    for (name, info) in raw.tensors {
        let entry = info
            .check(data.len(), LENGTH_BYTES + length)
            .map_err(|(what, expected, found)| fault(&format!("{what} of tensor `{name}`"), expected, found))?;
        tensors.insert(name, entry);
    }
    check_layout(&tensors, LENGTH_BYTES + length, bytes.len())
        .map_err(|(what, expected, found)| fault(&what, expected, found))?;
    SafeTensors::read_metadata(bytes)
        .map_err(|e| fault("header", "one that the safetensors crate takes".to_owned(), e.to_string()))?;
    Ok(Header { tensors, metadata: raw.metadata })
}

/// What, expected, found.
type Fault<W> = (W, String, String);

/// One tensor's entry as it stands in the JSON, nothing checked but its form.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: Dims,
    data_offsets: (u64, u64),
}

impl RawInfo {
    /// Holds the entry against the file's `data_len` bytes of data, which start at `data_start`.
    fn check(self, data_len: usize, data_start: usize) -> std::result::Result<Entry, Fault<&'static str>> {
        let dtype = match self.dtype.as_str() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::BF16,
            "I32" => DType::I32,
            "U8" => DType::U8,
            other => return Err(("dtype", "F32, F16, BF16, I32 or U8".to_owned(), format!("{other:?}"))),
        };
        let (start, end) = self.data_offsets;
        if start > end {
            return Err(("data_offsets", "a start before the end".to_owned(), format!("{start} to {end}")));
        }
        if end > data_len as u64 {
            let expected = format!("an end within the file's {data_len} bytes of data");
            return Err(("data_offsets", expected, format!("{start} to {end}")));
        }
        let mut shape = Vec::with_capacity(self.shape.0.len());
        let mut size = Some(dtype.size() as u64);
        for dim in self.shape.0 {
            size = size.and_then(|s| s.checked_mul(dim));
            shape
                .push(usize::try_from(dim).map_err(|_| ("shape", "one that fits memory".to_owned(), dim.to_string()))?);
        }
        match size {
            Some(size) if size == end - start => {}
            Some(size) => {
                let expected = format!("{size} bytes for {dtype} {shape:?}");
                return Err(("data_offsets", expected, format!("{start} to {end}: {} bytes", end - start)));
            }
            None => return Err(("shape", "a product below 2^64 bytes".to_owned(), format!("{dtype} {shape:?}"))),
        }
        // Both ends lie within the data, so within a slice: they fit usize.
        let range = data_start + start as usize..data_start + end as usize;
        Ok(Entry { dtype, shape, range })
    }
}

/// The tensors follow each other without overlap or gap, from the header to the end of the file.
fn check_layout(
    tensors: &BTreeMap<String, Entry>,
    data_start: usize,
    file_len: usize,
) -> std::result::Result<(), Fault<String>> {
    let mut by_place: Vec<_> = tensors.iter().map(|(name, t)| (t.range.start, t.range.end, name)).collect();
    by_place.sort_unstable();
    let (mut at, mut before) = (data_start, "the header".to_owned());
    for (start, end, name) in by_place {
        if start != at {
            let relation = if start < at { "an overlap" } else { "a gap" };
            let expected = format!("to start at {}, where {before} ends", at - data_start);
            let found = format!("{} ({relation} of {} bytes)", start - data_start, at.abs_diff(start));
            return Err((format!("data_offsets of tensor `{name}`"), expected, found));
        }
        (at, before) = (end, format!("tensor `{name}`"));
    }
    if at != file_len {
        let found = format!("{} more bytes that belong to no tensor", file_len - at);
        return Err(("end of the file".to_owned(), format!("it where {before} ends"), found));
    }
    Ok(())
}

/// A shape of at most [`MAX_DIMS`] dimensions.
struct Dims(Vec<u64>);

impl<'de> Deserialize<'de> for Dims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct DimsVisitor;
        impl<'de> Visitor<'de> for DimsVisitor {
            type Value = Dims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a shape of at most {MAX_DIMS} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Dims, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = seq.next_element()? {
                    if dims.len() == MAX_DIMS {
                        return Err(de::Error::invalid_length(MAX_DIMS + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(Dims(dims))
            }
        }
        deserializer.deserialize_seq(DimsVisitor)
    }
}

/// A header as it stands in the JSON: capped in number, each name once.
struct Raw {
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, RawInfo>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct RawVisitor;
        impl<'de> Visitor<'de> for RawVisitor {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Raw, A::Error> {
                let (mut metadata, mut tensors) = (None, BTreeMap::new());
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        if metadata.replace(map.next_value()?).is_some() {
                            return Err(de::Error::custom("`__metadata__` twice"));
                        }
                        continue;
                    }
                    if tensors.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format_args!("more than {MAX_TENSORS} tensors")));
                    }
                    match tensors.entry(name) {
                        Slot::Occupied(slot) => {
                            return Err(de::Error::custom(format_args!("tensor `{}` twice", slot.key())));
                        }
                        Slot::Vacant(slot) => {
                            let info = map
                                .next_value()
                                .map_err(|e| de::Error::custom(format_args!("tensor `{}`: {e}", slot.key())))?;
                            slot.insert(info);
                        }
                    }
                }
                Ok(Raw { metadata: metadata.unwrap_or_default(), tensors })
            }
        }
        deserializer.deserialize_map(RawVisitor)
    }
}
