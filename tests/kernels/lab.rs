//! Kernels on the host, and matrices for them to read and write.

use super::abi::{Address, Packed, View};
use discon::tensor::{Format, Matrix, Weight};
use half::{bf16, f16};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
    fn dlerror() -> *const c_char;
}

/// Whether kernels can be run: says aloud if not.
pub(crate) fn can_run() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = Command::new(compiler()).arg("--version").output().is_ok_and(|out| out.status.success());
        if !found {
            eprintln!("NOT TESTED: no C++ compiler ({}); set CXX to a g++", compiler());
        }
        found
    })
}

fn compiler() -> String {
    std::env::var("CXX").unwrap_or_else(|_| "g++".to_owned())
}

/// Where the libraries of kernels are.
fn folder() -> PathBuf {
    let sanitized = std::env::var_os("KERNELS_SANITIZE").is_some();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(if sanitized { "kernels-sanitized" } else { "kernels" });
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A copy of `kernels/FILE.cu` that has `to` where that has `from`, under a name that [`launch`] takes for a file's.
pub(crate) fn changed(file: &str, name: &str, from: &str, to: &str) -> String {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels").join(format!("{file}.cu"));
    let text = std::fs::read_to_string(source).unwrap();
    assert_eq!(text.matches(from).count(), 1, "{from} in {file}.cu");
    let name = format!("{file}-{name}");
    std::fs::write(folder().join(format!("{name}.cu")), text.replace(from, to)).unwrap();
    name
}

/// The library of `kernels/FILE.cu`, or of a changed one, compiled for the host if it is older than any source.
fn library(file: &str) -> usize {
    static LOADED: Mutex<BTreeMap<String, Arc<OnceLock<usize>>>> = Mutex::new(BTreeMap::new());
    // Other files are compiled meanwhile.
    let loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner).entry(file.to_owned()).or_default().clone();
    *loaded.get_or_init(|| {
        let path = CString::new(compiled(file).to_str().unwrap()).unwrap();
        // SAFETY: a path, and a library whose loading runs nothing of ours.
        let library = unsafe { dlopen(path.as_ptr(), 2) };
        // SAFETY: dlerror gives a text after a failure.
        assert!(!library.is_null(), "{:?}", unsafe { CStr::from_ptr(dlerror()) });
        library as usize
    })
}

fn compiled(file: &str) -> PathBuf {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let sanitized = std::env::var_os("KERNELS_SANITIZE").is_some();
    let name = format!("{file}.cu");
    let source = if kernels.join(&name).exists() { kernels.join(name) } else { folder().join(name) };
    let to = folder().join(format!("{file}.so"));
    let time = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let header = kernels.join("emulate/cuda_on_host.h");
    let folders = [kernels.clone(), kernels.join("emulate")];
    let sources = folders.iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let sources = sources.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some());
    let newest = sources.chain([source.clone()]).filter_map(|p| time(&p)).max();
    if time(&to) < newest {
        let mut command = Command::new(compiler());
        command.args(["-std=c++17", "-g1", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC", "-Wall"]);
        command.args(["-Werror", "-Wno-unknown-pragmas", "-include"]).arg(&header).arg("-I").arg(&kernels);
        if sanitized {
            command.args(["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
        } else {
            command.arg("-O2");
        }
        let new = to.with_extension("new");
        let out = command.args(["-x", "c++"]).arg(source).arg("-o").arg(&new).output();
        let out = out.unwrap();
        assert!(out.status.success(), "{file}.cu: {}", String::from_utf8_lossy(&out.stderr));
        std::fs::rename(new, &to).unwrap();
    }
    to
}

/// In which order blocks, and threads within them, run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Order {
    Forwards,
    Backwards,
}

/// Runs kernel `name` of `kernels/FILE.cu`.
pub(crate) fn launch<P: Copy>(file: &str, name: &str, params: &P, grid: [usize; 3], order: Order) {
    let library = library(file) as *mut c_void;
    let symbol = |name: String| {
        let name = CString::new(name).unwrap();
        // SAFETY: an open library and a text.
        let symbol = unsafe { dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?} in {file}.cu");
        symbol
    };
    let grid = grid.map(|n| n as u32);
    // SAFETY: the macro KERNEL defines both functions with these types; the parameters are what the kernel takes, by
    // their size and by the tests' care.
    unsafe {
        let size: extern "C" fn() -> c_int = std::mem::transmute(symbol(format!("{name}_params")));
        assert_eq!(size() as usize, size_of::<P>(), "{name}");
        let run: extern "C" fn(*const c_void, *const u32, c_int) = std::mem::transmute(symbol(name.to_owned()));
        run(std::ptr::from_ref(params).cast(), grid.as_ptr(), c_int::from(order == Order::Backwards));
    }
}

/// What `run` gives, which must be the same bits in either order.
pub(crate) fn both(run: impl Fn(Order) -> Vec<f32>) -> Vec<f32> {
    let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
    let y = run(Order::Forwards);
    assert_eq!(bits(&y), bits(&run(Order::Backwards)), "the result depends on the order of threads");
    y
}

/// Where a kernel finds these; they must live, and not be looked at, while it runs.
pub(crate) fn address<T>(of: &[T]) -> Address {
    of.as_ptr().expose_provenance() as Address
}

/// The same of what kernels write.
pub(crate) fn address_mut<T>(of: &mut [T]) -> Address {
    of.as_mut_ptr().expose_provenance() as Address
}

/// How a matrix lies in memory: words before it, between its rows, between its groups, and a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lie {
    pub(crate) lead: usize,
    pub(crate) gap: usize,
    pub(crate) group_gap: usize,
    pub(crate) step: usize,
}

/// Dense; rows on 16 bytes; anywhere.
pub(crate) const LIES: [Lie; 3] = [
    Lie { lead: 0, gap: 0, group_gap: 0, step: 0 },
    Lie { lead: 4, gap: 8, group_gap: 12, step: 16 },
    Lie { lead: 1, gap: 3, group_gap: 5, step: 7 },
];

/// The turn that all matrices of the tests are read in.
pub(crate) const TURN: i32 = 3;

/// Where kernels find it.
pub(crate) fn turn() -> Address {
    static LYING: [i32; 1] = [TURN];
    address(&LYING)
}

/// Memory for `n` floats, each a NaN.
pub(crate) fn floats_on_16(n: usize) -> Vec<u128> {
    vec![u128::MAX; n.div_ceil(4)]
}

/// What lies around a matrix: it reads as a NaN, and no kernel may write it.
const AROUND: u32 = 0xffff_dead;

/// A matrix in memory of its own, not a word longer than it.
pub(crate) struct Buffer {
    words: Vec<u128>,
    from: usize,
    view: View,
}

impl Buffer {
    pub(crate) fn new(groups: usize, rows: usize, cols: usize, lie: Lie, data: impl Fn(usize) -> u32) -> Self {
        // Rows on 16 bytes where the lie wants it.
        let row_stride =
            if lie.gap > 0 && lie.gap.is_multiple_of(4) { cols.next_multiple_of(4) + lie.gap } else { cols + lie.gap };
        let group_stride = rows * row_stride + lie.group_gap;
        let at = lie.lead + TURN as usize * lie.step;
        let extent = (groups - 1) * group_stride + (rows - 1) * row_stride + cols;
        // At the end of the allocation, so that a word behind it is not the matrix's: whole 16 bytes are allocated.
        let words = vec![0u128; (at + extent).div_ceil(4)];
        let mut new = Self {
            words,
            from: at,
            view: View {
                base: 0,
                step: lie.step as i32,
                groups: groups as i32,
                rows: rows as i32,
                cols: cols as i32,
                group_stride: group_stride as i32,
                row_stride: row_stride as i32,
            },
        };
        new.all_mut().fill(AROUND);
        for i in 0..groups * rows {
            let start = new.start(i);
            (0..cols).for_each(|c| new.all_mut()[start + c] = data(i * cols + c));
        }
        new
    }

    pub(crate) fn numbers(groups: usize, rows: usize, cols: usize, lie: Lie, data: &[f32]) -> Self {
        assert_eq!(data.len(), groups * rows * cols);
        Self::new(groups, rows, cols, lie, |i| data[i].to_bits())
    }

    /// Rows in pairs of bf16, odd ones filled up with a zero.
    pub(crate) fn pairs(groups: usize, rows: usize, cols: usize, lie: Lie, data: &[f32]) -> Self {
        let words = cols.div_ceil(2);
        let at =
            |row: usize, c: usize| if c < cols { u32::from(bf16::from_f32(data[row * cols + c]).to_bits()) } else { 0 };
        Self::new(groups, rows, words, lie, |i| {
            let (row, c) = (i / words, i % words * 2);
            at(row, c) | at(row, c + 1) << 16
        })
    }

    fn all(&self) -> &[u32] {
        bytemuck::cast_slice(&self.words)
    }

    fn all_mut(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.words)
    }

    fn start(&self, i: usize) -> usize {
        let v = &self.view;
        self.from + i / v.rows as usize * v.group_stride as usize + i % v.rows as usize * v.row_stride as usize
    }

    /// The view; the buffer must live, and not be looked at, while a kernel uses it.
    pub(crate) fn view(&mut self) -> View {
        let base = address_mut(self.all_mut()).wrapping_add(4 * self.from as u64);
        View { base: base.wrapping_sub(4 * (TURN * self.view.step) as u64), ..self.view }
    }

    /// The words of the matrix. Panics if anything around it was written.
    pub(crate) fn contents(&self) -> Vec<u32> {
        let (rows, cols) = ((self.view.groups * self.view.rows) as usize, self.view.cols as usize);
        let mut left = self.all().to_vec();
        let mut all = Vec::new();
        for i in 0..rows {
            let row = self.start(i)..self.start(i) + cols;
            all.extend(&self.all()[row.clone()]);
            left[row].fill(AROUND);
        }
        assert!(left.iter().all(|&word| word == AROUND), "written outside of the matrix");
        all
    }

    pub(crate) fn result(&self) -> Vec<f32> {
        self.contents().into_iter().map(f32::from_bits).collect()
    }

    /// Rows of pairs of bf16 as `cols` numbers each; what fills up an odd row must be zero.
    pub(crate) fn result_of_pairs(&self, cols: usize) -> Vec<f32> {
        let mut all = Vec::new();
        for row in self.contents().chunks(self.view.cols as usize) {
            let halves = row.iter().flat_map(|&w| [w << 16, w & 0xffff_0000]).map(f32::from_bits).collect::<Vec<_>>();
            assert!(halves[cols..].iter().all(|&x| x == 0.0));
            all.extend(&halves[..cols]);
        }
        all
    }
}

/// `[rows, k]` packed, and what its numbers became.
pub(crate) fn packed(rows: usize, k: usize, first: usize, format: Format, data: &[f32]) -> (Matrix, Vec<f32>) {
    let weight = Weight::owned("w", &[rows + first, k], data).unwrap();
    let matrix = Matrix::pack(&weight, format).unwrap().slice_rows(first..first + rows);
    let numbers = matrix.to_f32();
    (matrix, numbers)
}

/// The matrix as kernels take it.
pub(crate) fn packed_params(w: &Matrix) -> Packed {
    let start = w.panels(0..w.rows()).start * w.panel_words();
    let format = match w.format() {
        Format::F32 => 0,
        Format::Wide => 1,
        Format::Bf16 => 2,
        Format::F16 => 3,
        Format::Q8 => panic!("no kernel takes blocks of bytes"),
    };
    Packed {
        words: address(&w.words()[start..]),
        rows: w.rows() as i32,
        k: w.cols() as i32,
        format,
        skip: w.skip(0) as i32,
    }
}

/// Numbers in [-1, 1).
pub(crate) fn numbers(n: usize, seed: u32) -> Vec<f32> {
    let mut x = seed.wrapping_mul(2_654_435_769).wrapping_add(1);
    let next = |_| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(next).collect()
}

/// Numbers rounded to bf16.
pub(crate) fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| bf16::from_f32(x).to_f32()).collect()
}

/// Numbers rounded to f16.
pub(crate) fn halved(x: &[f32]) -> Vec<f32> {
    x.iter().map(|&x| f16::from_f32(x).to_f32()).collect()
}

/// Every element within `bound` of the exact one, or within `relative` of its size; NaN is not.
pub(crate) fn close(y: &[f32], exact: &[f64], bound: f64, relative: f64, what: impl std::fmt::Debug) {
    assert_eq!(y.len(), exact.len(), "{what:?}");
    for (i, (&y, &e)) in y.iter().zip(exact).enumerate() {
        let bound = bound + relative * e.abs();
        assert!((f64::from(y) - e).abs() <= bound, "{what:?}: element {i}: {y}, exactly {e}, bound {bound:e}");
    }
}

/// An activation by its number in the ABI.
pub(crate) fn activated(activation: i32, x: f64) -> f64 {
    match activation {
        1 => x / (1.0 + (-x).exp()),
        2 => {
            let z = x / 2f64.sqrt();
            let (mut term, mut sum) = (z, z);
            for n in 1..150 {
                term *= -z * z / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            let erf = if z.abs() > 5.0 { z.signum() } else { sum * std::f64::consts::FRAC_2_SQRT_PI };
            x * (1.0 + erf) / 2.0
        }
        _ => x,
    }
}
