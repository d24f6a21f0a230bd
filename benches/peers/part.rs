//! What `parts` measures, for its programs in Rust: sizes, numbers, the clock and the line that is printed.
//! `python_parts.py` says the same in Python.

use std::time::{Duration, Instant};

/// Width of the block, and inputs of the product.
pub(crate) const WIDTH: usize = 768;
/// Hidden layer of the block, and outputs of the product.
pub(crate) const HIDDEN: usize = 4 * WIDTH;
pub(crate) const HEADS: usize = 16;
/// Rows of the product.
pub(crate) const ROWS: [usize; 5] = [1, 2, 16, 64, 512];
/// Sequences of the block, and places of each.
pub(crate) const SEQUENCES: usize = 2;
pub(crate) const PLACES: [usize; 2] = [576, 64];
/// One run goes through so many weights of the product or blocks, more than the caches hold: as a network does.
pub(crate) const PRODUCTS: usize = 16;
pub(crate) const BLOCKS: usize = 4;

/// The tensors of a block in the order of their seeds: rows (0: a vector) and columns.
pub(crate) const BLOCK: [(usize, usize); 12] = [
    (0, WIDTH), // norm 1
    (0, WIDTH),
    (3 * WIDTH, WIDTH), // query, key and value
    (0, 3 * WIDTH),
    (WIDTH, WIDTH), // projection
    (0, WIDTH),
    (0, WIDTH), // norm 2
    (0, WIDTH),
    (HIDDEN, WIDTH), // multi-layer perceptron
    (0, HIDDEN),
    (WIDTH, HIDDEN),
    (0, WIDTH),
];

/// `n` numbers from -1 to 1 by hashing their place, so that every engine computes the same.
pub(crate) fn numbers(n: usize, seed: usize) -> Vec<f32> {
    let number = |i: usize| {
        let mut x = i as u32 ^ (seed as u32).wrapping_mul(0x9e37_79b9);
        x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
        x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
        ((x ^ x >> 16) >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..n).map(number).collect()
}

/// Tensor `seed` of that size: a matrix scaled to keep the size of what it multiplies, or a vector.
pub(crate) fn tensor(rows: usize, cols: usize, seed: usize) -> Vec<f32> {
    let scale = if rows == 0 { 0.1 } else { 1.0 / (cols as f32).sqrt() };
    numbers(rows.max(1) * cols, seed).into_iter().map(|x| scale * x).collect()
}

/// Median seconds of a run, after two to warm up.
pub(crate) fn seconds<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    run()?;
    run()?;
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 5 || start.elapsed() < Duration::from_millis(300) {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Prints what one product or block took; the mean of `out`'s magnitudes tells whether engines computed the same.
pub(crate) fn tell(engine: &str, dtype: &str, part: &str, rows: usize, seconds: f64, out: &[f32]) {
    let mean = out.iter().map(|x| f64::from(x.abs())).sum::<f64>() / out.len() as f64;
    println!(
        r#"{{"engine": "{engine}", "dtype": "{dtype}", "part": "{part}", "rows": {rows}, "seconds": {seconds:.3e}, "mean": {mean:.6}}}"#
    );
}
