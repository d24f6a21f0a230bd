//! Products with packed weights: `out[i][j] = sum over k of x[i][k] w[j][k]`, the heart of every matrix product and
//! convolution here.
//!
//! Weights lie in panels ([`crate::tensor::packed`]). A tile keeps one accumulator an output in registers and runs
//! along K: each line of a panel is loaded once and meets one broadcast of every row of the input. So few rows read
//! the weights at the speed of memory, and many rows use the arithmetic units to the full. Every output is the same
//! sum in the same order, k = 0, 1, 2, ..., whatever the tile's shape and however K is cut.

mod kinds;
mod rows;

use super::{Isa, Job, Simd};
use crate::tensor::Mat;
use crate::tensor::packed::{BLOCK, Form, Format, LINE_WORDS, PANEL};
use kinds::{Block, HalfPair, Kind, Pair, Single, SpreadBlock, WidePair, fetch_ahead, moved};
pub use rows::{Prepare, Spread, prepare};
use std::marker::PhantomData;
use std::ops::Range;

/// Rows of the largest tile.
pub const ROWS: usize = 6;

/// Vectors of outputs of the largest tile.
const VECTORS: usize = 4;

/// Lines that are fetched ahead, in all panels of a tile together: the hardware's own prefetching stops at each page's end. The
/// fewer panels, the sooner each needs its next line.
const AHEAD: usize = 96;

/// Words of the input, and of a strip of panels, that a pass along K takes at most: all panels read the one again, all rows
/// the other, and find them in the second-level cache. 96 rows of 768 numbers are one pass.
const PASS_WORDS: usize = 72 * 1024;

/// Units that a tile of one panel takes in one turn of its loop: it is so small that what is not arithmetic in a turn counts.
const UNROLLED: usize = 4;

/// The product of some rows of `x` with some panels.
pub struct Product<'a> {
    /// The left operand, in the format's [`Form`], taken apart ([`Spread`]) where the instruction set wants that.
    pub x: Mat<'a, u32>,
    /// Rows of `x` to take.
    pub rows: Range<usize>,
    /// All panels.
    pub w: &'a [u32],
    /// How they are stored.
    pub format: Format,
    /// Length of the sums.
    pub k: usize,
    /// Panels to take.
    pub panels: Range<usize>,
    /// The result, dense rows of `16 panels.len()`.
    pub out: &'a mut [f32],
}

impl Product<'_> {
    /// Computes it.
    pub fn run(self, isa: Isa) {
        match self.format {
            Format::F32 => isa.run(Sweep::<Single>::of(self)),
            Format::Wide => isa.run(Sweep::<WidePair>::of(self)),
            Format::F16 => isa.run(Sweep::<HalfPair>::of(self)),
            Format::Bf16 if isa.spreads(Form::Pairs) => isa.run(Sweep::<WidePair>::of(self)),
            Format::Bf16 => isa.run_pairs(Sweep::<Pair>::of(self)),
            Format::Q8 if isa.spreads(Form::Blocks) => isa.run(Sweep::<SpreadBlock>::of(self)),
            Format::Q8 => isa.run_quads(Sweep::<Block>::of(self)),
        }
    }
}

/// A product of a kind of numbers: a job of its own, so that no kind is compiled for leaves that are alike to it.
struct Sweep<'a, K>(Product<'a>, PhantomData<K>);

impl<'a, K> Sweep<'a, K> {
    fn of(product: Product<'a>) -> Self {
        Self(product, PhantomData)
    }
}

impl<K: Kind> Job for Sweep<'_, K> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // Known to the compiler: in a leaf that it is not for, nothing else is left of it.
        assert!(K::is_for::<S>(), "`Product::run` chose a kind of another leaf");
        self.0.sweep::<S, K>(s);
    }
}

impl Product<'_> {
    /// All panels, K in passes.
    #[inline(always)]
    fn sweep<S: Simd, K: Kind>(mut self, s: S) {
        let lines = self.format.lines(self.k);
        let width = self.panels.len() * PANEL;
        assert!(self.w.len() >= self.panels.end * lines * LINE_WORDS && self.out.len() >= self.rows.len() * width);
        let all = self.k / K::NUMBERS + usize::from(K::NUMBERS == BLOCK && !self.k.is_multiple_of(BLOCK));
        let strip = VECTORS * S::LANES / PANEL * K::LINES * LINE_WORDS;
        let passes = match self.rows.len() {
            // One tile reads everything but once.
            ..=ROWS => 1,
            rows => (all * strip.max(rows * K::WORDS)).div_ceil(PASS_WORDS).max(1),
        };
        let pass = all.div_ceil(passes).max(1);
        let mut done = 0;
        loop {
            let units = done..all.min(done + pass);
            done = units.end;
            self.pass::<S, K>(s, units);
            if done == all {
                break;
            }
        }
    }

    /// Some units of all panels, as many panels at once as the registers hold outputs for.
    #[inline(always)]
    fn pass<S: Simd, K: Kind>(&mut self, s: S, units: Range<usize>) {
        let all = self.panels.clone();
        match S::LANES {
            // The int8 kernel has two accumulators an output: while it sums a block of integers in registers, its floats wait in memory.
            16 => {
                let rest = self.strips::<S, K, ROWS, VECTORS>(s, all, &units);
                self.strips::<S, K, ROWS, 1>(s, rest, &units);
            }
            // Weights that are widened or taken apart take twice the registers.
            8 if K::NUMBERS == BLOCK && S::SPREADS_QUADS || K::NUMBERS == 2 && self.rows.len() > 3 => {
                self.strips::<S, K, 4, 2>(s, all, &units);
            }
            8 if self.rows.len() > 3 => {
                self.strips::<S, K, ROWS, 2>(s, all, &units);
            }
            8 => {
                let rest = self.strips::<S, K, 3, VECTORS>(s, all, &units);
                self.strips::<S, K, ROWS, 2>(s, rest, &units);
            }
            _ if S::REGISTERS >= 32 => {
                self.strips::<S, K, ROWS, VECTORS>(s, all, &units);
            }
            _ => {
                self.strips::<S, K, 3, VECTORS>(s, all, &units);
            }
        }
    }

    /// Some units of strips of as many panels as `C` vectors are, for all rows, `R` at a time. Returns the panels that no whole
    /// strip covers.
    #[inline(always)]
    fn strips<S: Simd, K: Kind, const R: usize, const C: usize>(
        &mut self,
        s: S,
        all: Range<usize>,
        units: &Range<usize>,
    ) -> Range<usize> {
        let each = C * S::LANES / PANEL;
        let end = all.start + all.len() / each * each;
        for panel in (all.start..end).step_by(each) {
            let (mut at, units) = (self.rows.start, units.clone());
            while at + R <= self.rows.end {
                self.tile::<S, K, R, C>(s, at, panel, units.clone());
                at += R;
            }
            match self.rows.end - at {
                5 if R > 5 => self.tile::<S, K, 5, C>(s, at, panel, units),
                4 if R > 4 => self.tile::<S, K, 4, C>(s, at, panel, units),
                3 if R > 3 => self.tile::<S, K, 3, C>(s, at, panel, units),
                2 if R > 2 => self.tile::<S, K, 2, C>(s, at, panel, units),
                1 => self.tile::<S, K, 1, C>(s, at, panel, units),
                _ => {}
            }
        }
        end..all.end
    }

    /// Adds `units` to the outputs of `R` rows from `row` and `C` vectors from `panel`; the first units start them.
    #[inline(always)]
    fn tile<S: Simd, K: Kind, const R: usize, const C: usize>(
        &mut self,
        s: S,
        row: usize,
        panel: usize,
        units: Range<usize>,
    ) {
        // The rows that come after find the lines in a cache.
        let fetch = row == self.rows.start;
        let lines = self.format.lines(self.k);
        let half = K::NUMBERS == 2 && !self.k.is_multiple_of(2) && units.end == self.k / 2;
        let words = units.end * K::WORDS + usize::from(half);
        let per_panel = PANEL / S::LANES;
        let x: [*const u32; R] = self.inputs(row, words);
        let w: [*const u32; C] = self.weights(panel, lines, per_panel);
        let out: [*mut f32; R] = self.results(row, panel, C * S::LANES);
        // SAFETY: `words` words were sliced off each row; the panels of this strip end within `w`, as `sweep` checked,
        // and `units` within a panel; `C` vectors were sliced off each row of `out`.
        unsafe {
            let mut acc = [[s.zero(); C]; R];
            if units.start > 0 {
                for (acc, out) in acc.iter_mut().zip(out) {
                    for (c, acc) in acc.iter_mut().enumerate() {
                        *acc = s.load_ptr(out.add(c * S::LANES));
                    }
                }
            }
            let mut unit = units.start;
            if S::LANES == 8 && C == 2 && K::LINES == 1 {
                while unit + UNROLLED <= units.end {
                    let (x, w) = (moved(x, unit * K::WORDS), moved(w, unit * LINE_WORDS));
                    if fetch {
                        for next in 0..UNROLLED {
                            s.prefetch(w[0].wrapping_add((next + AHEAD) * LINE_WORDS));
                        }
                    }
                    for next in 0..UNROLLED {
                        acc = K::unit::<S, R, C, false>(s, moved(x, next * K::WORDS), moved(w, next * LINE_WORDS), acc);
                    }
                    unit += UNROLLED;
                }
            }
            for unit in unit..units.end {
                let (at, line) = (unit * K::WORDS, unit * K::LINES * LINE_WORDS);
                if K::LINES == 1 {
                    fetch_ahead(s, w, unit);
                }
                acc = K::unit::<S, R, C, false>(s, moved(x, at), moved(w, line), acc);
            }
            if half {
                let (at, line) = (units.end * K::WORDS, units.end * K::LINES * LINE_WORDS);
                acc = K::unit::<S, R, C, true>(s, moved(x, at), moved(w, line), acc);
            }
            for (out, acc) in out.into_iter().zip(acc) {
                for (c, v) in acc.into_iter().enumerate() {
                    s.store_ptr(out.add(c * S::LANES), v);
                }
            }
        }
    }
}

// Without a leaf or a kind: compiled once for them all.
impl Product<'_> {
    /// Where `R` rows of the input from `row` lie, which have `words` words.
    fn inputs<const R: usize>(&self, row: usize, words: usize) -> [*const u32; R] {
        std::array::from_fn(|r| self.x.row(row + r)[..words].as_ptr())
    }

    /// Where `C` vectors of panels of `lines` lines lie, from `panel` on.
    fn weights<const C: usize>(&self, panel: usize, lines: usize, per_panel: usize) -> [*const u32; C] {
        let start = |c| ((panel + c / per_panel) * lines) * LINE_WORDS + c % per_panel * (PANEL / per_panel);
        std::array::from_fn(|c| self.w[start(c)..].as_ptr())
    }

    /// Where `numbers` results of each of `R` rows lie, from `row` and `panel` on.
    fn results<const R: usize>(&mut self, row: usize, panel: usize, numbers: usize) -> [*mut f32; R] {
        let width = self.panels.len() * PANEL;
        let first = (row - self.rows.start) * width + (panel - self.panels.start) * PANEL;
        // One borrow for all rows: another would end what the pointers of the rows before may do.
        let out = &mut self.out[first..][..R.saturating_sub(1) * width + numbers];
        let start = out.as_mut_ptr();
        std::array::from_fn(|r| start.wrapping_add(r * width))
    }
}
