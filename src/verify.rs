//! Holds the engine against known answers: the `cases/` of a model folder.
//!
//! Each `cases/*.safetensors` has tensors `in.*` and `out.*` and the metadata `kind`, `params` (JSON) and `rtol`.
//! Random numbers are inputs, so sampling is compared token for token. The error is ||out - ref|| / ||ref|| over the
//! whole tensor, for pictures mean |difference| / 255, for codes the share that differs; what is not a number fails.
//!
//! `rtol` is the bound of [`Precision::F32`]. What rounds more has bounds of its own, by what amplifies a rounding:
//!
//! | case | bf16 | q8 | why |
//! |---|---|---|---|
//! | a network once; diffusion with bounded tokens | 2e-2 | 4e-2 | inputs and weights of each product are rounded by up to 2^-8 of their size (bf16) or 1/254 of their block's largest (q8); depth adds to it |
//! | pictures of bounded tokens | 2e-2 | 4e-2 | as above |
//! | diffusion with unbounded tokens | 0.4 | 0.6 | the first steps divide the estimate's error by the square root of what signal is left, about 1/100 |
//! | pictures of unbounded tokens | 0.15 | 0.2 | the same, decoded and clamped |
//! | codes | 0.25 | 0.5 | a near tie may fall the other way, and in a sequence all that follows then differs; `rar_logits` is the sharp check |

mod cases;

use crate::error::{Error, Result};
use crate::pipeline::{Device, Model};
use crate::tensor::Precision;
use crate::weights::{CASES, TensorFile};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What became of one case.
#[derive(Debug)]
pub struct CaseReport {
    /// The case's file, without ending.
    pub name: String,
    /// What it checks: `rar_logits`, `vae_decode`, ...
    pub kind: String,
    /// The largest relative error allowed.
    pub bound: f64,
    /// The relative error; not a number if it could not be had.
    pub error: f64,
    /// The largest absolute difference of an element.
    pub worst: f64,
    /// Why the case could not be run.
    pub failure: Option<Error>,
}

impl CaseReport {
    /// Whether the error is within the bound.
    pub fn passed(&self) -> bool {
        self.failure.is_none() && self.error <= self.bound
    }
}

/// Runs every case in `folder`'s `cases/`, in the order of their names, with `model`, which was opened there in
/// whatever precision; `watch` is told of each.
pub fn verify(
    model: &Model,
    folder: &Path,
    device: impl Into<Device>,
    watch: &mut dyn FnMut(&CaseReport),
) -> Result<Vec<CaseReport>> {
    let device = device.into();
    let mut reports = Vec::new();
    for path in case_files(&folder.join(CASES))? {
        let report = one(model, &device, &path);
        watch(&report);
        reports.push(report);
    }
    Ok(reports)
}

fn case_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn one(model: &Model, device: &Device, path: &Path) -> CaseReport {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let mut report = CaseReport {
        name,
        kind: "unknown".to_owned(),
        bound: f64::NAN,
        error: f64::NAN,
        worst: f64::NAN,
        failure: None,
    };
    let run = |report: &mut CaseReport| {
        let case = Case::open(path)?;
        report.kind = case.kind.clone();
        report.bound = case.bound_in(model.precision());
        let difference = cases::run(model, device, &case)?;
        (report.error, report.worst) = (difference.relative, difference.worst);
        Ok(())
    };
    if let Err(error) = run(&mut report) {
        report.failure = Some(error);
    }
    report
}

/// A case's file.
#[derive(Debug)]
struct Case {
    file: TensorFile,
    kind: String,
    params: Value,
    bound: f64,
}

impl Case {
    fn open(path: &Path) -> Result<Self> {
        let file = TensorFile::open(path)?;
        let text = |key: &str| {
            let found = file.metadata().get(key).cloned();
            found.ok_or_else(|| fault(&file, &format!("metadata `{key}`"), "a text", "nothing"))
        };
        let (kind, params, bound) = (text("kind")?, text("params")?, text("rtol")?);
        let params =
            serde_json::from_str(&params).map_err(|e| fault(&file, "metadata `params`", "JSON", &e.to_string()))?;
        let bound = bound.parse().map_err(|_| fault(&file, "metadata `rtol`", "a number", &bound))?;
        Ok(Self { kind, params, bound, file })
    }

    /// The largest error allowed in that precision: the module says why.
    fn bound_in(&self, precision: Precision) -> f64 {
        let unbounded = self.params.get("clip_x0").is_none_or(Value::is_null);
        let (bf16, q8) = match self.kind.as_str() {
            "rar_sample" | "vq_encode" => (0.25, 0.5),
            "pipeline" if unbounded => (0.15, 0.2),
            "head_sample" | "discon_sample" if unbounded => (0.4, 0.6),
            _ => (2e-2, 4e-2),
        };
        match precision {
            Precision::F32 => self.bound,
            Precision::Bf16 => bf16,
            Precision::Q8 => q8,
        }
    }

    /// The f32 tensor `name` of that shape.
    fn f32s(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (found, data) = self.file.f32s(name)?;
        self.check(name, shape, &found)?;
        Ok(data)
    }

    /// The i32 tensor `name` of that shape, each from 0 and below `limit`.
    fn indices(&self, name: &str, shape: &[usize], limit: usize) -> Result<Vec<i32>> {
        let (found, data) = self.file.i32s(name)?;
        self.check(name, shape, &found)?;
        match data.iter().find(|&&x| x < 0 || x as usize >= limit) {
            Some(x) => Err(fault(&self.file, name, &format!("numbers from 0 and below {limit}"), &x.to_string())),
            None => Ok(data),
        }
    }

    /// The first dimension of tensor `name`.
    fn batch(&self, name: &str) -> Result<usize> {
        let view = self.file.view(name).and_then(|v| v.shape.first().copied()).filter(|&n| n > 0);
        view.ok_or_else(|| fault(&self.file, name, "a tensor of one row and more", "none"))
    }

    fn check(&self, name: &str, expected: &[usize], found: &[usize]) -> Result<()> {
        if expected == found {
            return Ok(());
        }
        Err(fault(&self.file, name, &format!("{expected:?}"), &format!("{found:?}")))
    }

    /// The number `key` of the params.
    fn number(&self, key: &str) -> Result<f64> {
        let found = self.params.get(key).and_then(Value::as_f64);
        found.ok_or_else(|| fault(&self.file, &format!("params `{key}`"), "a number", "none"))
    }

    /// The whole number `key` of the params, from 1 to `most`.
    fn count(&self, key: &str, most: usize) -> Result<usize> {
        let found = self.params.get(key);
        let count = found.and_then(Value::as_u64).filter(|n| (1..=most as u64).contains(n));
        count.map(|n| n as usize).ok_or_else(|| {
            let found = found.map_or("none".to_owned(), Value::to_string);
            fault(&self.file, &format!("params `{key}`"), &format!("1 to {most}"), &found)
        })
    }
}

fn fault(file: &TensorFile, what: &str, expected: &str, found: &str) -> Error {
    let (file, what) = (file.name().to_owned(), what.to_owned());
    Error::Format { file, what, expected: expected.to_owned(), found: found.to_owned() }
}

/// How far results are from the right ones.
#[derive(Debug, Clone, Copy)]
struct Difference {
    relative: f64,
    worst: f64,
}

impl Difference {
    /// ||a - b|| / ||b||
    fn of(a: impl IntoIterator<Item = f64>, b: impl IntoIterator<Item = f64>) -> Self {
        let (mut squares, mut norm, mut worst) = (0.0, 0.0, 0.0f64);
        for (a, b) in a.into_iter().zip(b) {
            squares += (a - b) * (a - b);
            norm += b * b;
            // `max` would pass over what is not a number.
            worst = if (a - b).abs() <= worst { worst } else { (a - b).abs() };
        }
        Self { relative: if squares == 0.0 { 0.0 } else { (squares / norm).sqrt() }, worst }
    }

    fn of_f32(a: &[f32], b: &[f32]) -> Self {
        assert_eq!(a.len(), b.len());
        Self::of(a.iter().map(|&x| x.into()), b.iter().map(|&x| x.into()))
    }

    /// The larger of two, where a case has two results.
    fn or(self, other: Self) -> Self {
        let larger = |a: f64, b: f64| if a <= b { b } else { a };
        Self { relative: larger(self.relative, other.relative), worst: larger(self.worst, other.worst) }
    }
}
