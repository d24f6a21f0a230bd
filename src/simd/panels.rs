//! Products with packed weights: `out[i][j] = sum over k of x[i][k] w[j][k]`, the heart of every matrix product and
//! convolution here.
//!
//! Weights lie in panels ([`crate::tensor::packed`]). A tile keeps one accumulator an output in registers and runs
//! along K: each line of a panel is loaded once and meets one broadcast of every row of the input. So few rows read
//! the weights at the speed of memory, and many rows use the arithmetic units to the full. Every output is the same
//! sum in the same order, k = 0, 1, 2, ..., whatever the tile's shape and however K is cut.

use super::{Isa, Job, Simd};
use crate::tensor::Mat;
use crate::tensor::packed::{BLOCK, Form, Format, LINE, PANEL, steps_per_unit};
use half::f16;
use std::marker::PhantomData;
use std::ops::Range;

/// Words of a line.
const LINE_WORDS: usize = LINE / 4;

/// Words by which panels are fetched ahead: the hardware's own prefetching stops at each page's end.
const AHEAD: usize = 24 * LINE_WORDS;

/// Words of the panels that one pass over the rows reads again and again: they stay in the second-level cache.
const PASS_WORDS: usize = 64 * 1024;

/// The product of some rows of `x` with some panels.
pub struct Product<'a> {
    /// The left operand, in the format's [`Form`].
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
            Format::Bf16 => isa.run_pairs(Sweep::<Pair>::of(self)),
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
        self.0.sweep::<S, K>(s);
    }
}

// Loops rather than closures over arrays, which nothing forces into the leaf's entry: outside of it the instructions are
// lost.

/// A vector of floats from each place.
///
/// # Safety
/// `LANES` floats are readable at each.
#[inline(always)]
unsafe fn floats<S: Simd, const C: usize>(s: S, from: [*const u32; C]) -> [S::V; C] {
    let mut all = [s.zero(); C];
    for (v, from) in all.iter_mut().zip(from) {
        // SAFETY: the caller's duty is the same.
        *v = unsafe { s.load_ptr(from.cast()) };
    }
    all
}

/// A vector of words from each place.
///
/// # Safety
/// `LANES` words are readable at each.
#[inline(always)]
unsafe fn words<S: Simd, const C: usize>(s: S, from: [*const u32; C]) -> [S::I; C] {
    let mut all = [s.splat_word(0); C];
    for (v, from) in all.iter_mut().zip(from) {
        // SAFETY: the caller's duty is the same.
        *v = unsafe { s.load_words(from) };
    }
    all
}

/// Each place `words` further.
///
/// # Safety
/// So many words lie behind each, in one slice.
#[inline(always)]
unsafe fn moved<const N: usize>(mut from: [*const u32; N], words: usize) -> [*const u32; N] {
    for from in &mut from {
        // SAFETY: the caller's duty is the same.
        *from = unsafe { from.add(words) };
    }
    from
}

/// How a format's numbers meet the input, a unit of lines at a time.
trait Kind {
    /// Numbers along K a unit.
    const NUMBERS: usize;
    /// Words of an input row a unit.
    const WORDS: usize;
    /// Lines of a panel a unit.
    const LINES: usize;

    /// Adds the products of one unit. With `HALF` only the first of a unit's two numbers is there.
    ///
    /// # Safety
    /// `WORDS` words are readable behind each `x` (one with `HALF`), `LINES` lines' share of a vector each behind
    /// each `w`.
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R];
}

/// [`Format::F32`]
struct Single;

impl Kind for Single {
    const NUMBERS: usize = 1;
    const WORDS: usize = 1;
    const LINES: usize = 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: a word of each row and a vector of each panel are readable.
        unsafe {
            let w = floats(s, w);
            for r in 0..R {
                let x = s.splat(*x[r].cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, w[c], acc[r][c]);
                }
            }
        }
        acc
    }
}

/// How two numbers of a word are widened, the lower first.
trait Widen {
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V);
}

/// [`Format::Wide`]
struct WidePair;

impl Widen for WidePair {
    #[inline(always)]
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V) {
        (s.pair_low(w), s.pair_high(w))
    }
}

/// [`Format::F16`]
struct HalfPair;

impl Widen for HalfPair {
    #[inline(always)]
    fn widen<S: Simd>(s: S, w: S::I) -> (S::V, S::V) {
        let (mut words, mut low, mut high) = ([0u32; LINE_WORDS], [0.0f32; LINE_WORDS], [0.0f32; LINE_WORDS]);
        const { assert!(S::LANES <= LINE_WORDS) };
        // SAFETY: a vector has no more words than there is room for.
        unsafe { s.store_words(words.as_mut_ptr(), w) };
        for (word, (low, high)) in words.iter().zip(low.iter_mut().zip(&mut high)) {
            (*low, *high) = (f16::from_bits(*word as u16).to_f32(), f16::from_bits((*word >> 16) as u16).to_f32());
        }
        // SAFETY: as above.
        unsafe { (s.load_ptr(low.as_ptr()), s.load_ptr(high.as_ptr())) }
    }
}

impl<W: Widen> Kind for W {
    const NUMBERS: usize = 2;
    const WORDS: usize = 2;
    const LINES: usize = 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: two words of each row (one with HALF) and a vector of each panel are readable.
        unsafe {
            let w = words(s, w);
            let (mut low, mut high) = ([s.zero(); C], [s.zero(); C]);
            for ((low, high), w) in low.iter_mut().zip(&mut high).zip(w) {
                (*low, *high) = W::widen(s, w);
            }
            for r in 0..R {
                let x = s.splat(*x[r].cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, low[c], acc[r][c]);
                }
            }
            if HALF {
                return acc;
            }
            for r in 0..R {
                let x = s.splat(*x[r].add(1).cast());
                for c in 0..C {
                    acc[r][c] = s.fma(x, high[c], acc[r][c]);
                }
            }
        }
        acc
    }
}

/// [`Format::Bf16`]
struct Pair;

impl Kind for Pair {
    const NUMBERS: usize = 2;
    const WORDS: usize = 1;
    const LINES: usize = 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        // SAFETY: a word of each row and a vector of each panel are readable.
        unsafe {
            let w = words(s, w);
            for r in 0..R {
                let x = s.splat_word(*x[r]);
                for c in 0..C {
                    acc[r][c] = s.dot_pairs(acc[r][c], x, w[c]);
                }
            }
        }
        acc
    }
}

/// [`Format::Q8`]
struct Block;

impl Kind for Block {
    const NUMBERS: usize = BLOCK;
    const WORDS: usize = Form::Blocks.unit().1;
    const LINES: usize = BLOCK / 4 + 1;

    #[inline(always)]
    unsafe fn unit<S: Simd, const R: usize, const C: usize, const HALF: bool>(
        s: S,
        x: [*const u32; R],
        w: [*const u32; C],
        mut acc: [[S::V; C]; R],
    ) -> [[S::V; C]; R] {
        const QUADS: usize = BLOCK / 4;
        // SAFETY: QUADS + 2 words of each row and a vector of QUADS + 1 lines of each panel are readable.
        unsafe {
            // The weights carry 128 too much, so the sum starts with -128 times the inputs' sum.
            let mut sums = [[s.splat_word(0); C]; R];
            for (sums, x) in sums.iter_mut().zip(x) {
                *sums = [s.splat_word(*x.add(QUADS + 1)); C];
            }
            for quad in 0..QUADS {
                for w in w.iter().step_by(PANEL / S::LANES.min(PANEL)) {
                    s.prefetch(w.wrapping_add(quad * LINE_WORDS + AHEAD));
                }
                let w = words(s, moved(w, quad * LINE_WORDS));
                for r in 0..R {
                    let x = s.splat_word(*x[r].add(quad));
                    for c in 0..C {
                        sums[r][c] = s.dot_quads(sums[r][c], w[c], x);
                    }
                }
            }
            let scales = floats(s, moved(w, QUADS * LINE_WORDS));
            for r in 0..R {
                let scale = s.splat(*x[r].add(QUADS).cast());
                for c in 0..C {
                    acc[r][c] = s.fma(s.to_float(sums[r][c]), s.mul(scale, scales[c]), acc[r][c]);
                }
            }
        }
        acc
    }
}

impl Product<'_> {
    /// All panels, as many at once as the registers hold outputs for.
    #[inline(always)]
    fn sweep<S: Simd, K: Kind>(mut self, s: S) {
        let lines = self.format.lines(self.k);
        let width = self.panels.len() * PANEL;
        assert!(self.w.len() >= self.panels.end * lines * LINE_WORDS && self.out.len() >= self.rows.len() * width);
        let all = self.panels.clone();
        match S::LANES {
            // The int8 kernel has two accumulators an output.
            16 if K::NUMBERS == BLOCK && self.rows.len() > 3 => {
                let rest = self.strips::<S, K, 6, 2>(s, all);
                self.strips::<S, K, 6, 1>(s, rest);
            }
            16 => {
                let rest = self.strips::<S, K, 6, 4>(s, all);
                self.strips::<S, K, 6, 1>(s, rest);
            }
            // Numbers that are widened want twice the registers for the weights.
            8 if K::NUMBERS == 2 && self.rows.len() > 3 => {
                self.strips::<S, K, 4, 2>(s, all);
            }
            8 if self.rows.len() > 3 => {
                self.strips::<S, K, 6, 2>(s, all);
            }
            8 => {
                let rest = self.strips::<S, K, 3, 4>(s, all);
                self.strips::<S, K, 6, 2>(s, rest);
            }
            _ if S::REGISTERS >= 32 => {
                self.strips::<S, K, 6, 4>(s, all);
            }
            _ => {
                self.strips::<S, K, 3, 4>(s, all);
            }
        }
    }

    /// Strips of as many panels as `C` vectors are, for all rows, `R` at a time; K in passes, so that a strip stays
    /// in the second-level cache. Returns the panels that no whole strip covers.
    #[inline(always)]
    fn strips<S: Simd, K: Kind, const R: usize, const C: usize>(&mut self, s: S, all: Range<usize>) -> Range<usize> {
        let each = C * S::LANES / PANEL;
        let end = all.start + all.len() / each * each;
        let units = self.k / K::NUMBERS + usize::from(K::NUMBERS == BLOCK && !self.k.is_multiple_of(BLOCK));
        let pass = match self.rows.len() {
            rows if rows <= R => units.max(1),
            _ => (PASS_WORDS / (each * K::LINES * LINE_WORDS)).max(1),
        };
        for panel in (all.start..end).step_by(each) {
            let mut unit = 0;
            loop {
                let some = unit..units.min(unit + pass);
                unit = some.end;
                let mut at = self.rows.start;
                while at + R <= self.rows.end {
                    self.tile::<S, K, R, C>(s, at, panel, some.clone());
                    at += R;
                }
                match self.rows.end - at {
                    5 if R > 5 => self.tile::<S, K, 5, C>(s, at, panel, some),
                    4 if R > 4 => self.tile::<S, K, 4, C>(s, at, panel, some),
                    3 if R > 3 => self.tile::<S, K, 3, C>(s, at, panel, some),
                    2 if R > 2 => self.tile::<S, K, 2, C>(s, at, panel, some),
                    1 => self.tile::<S, K, 1, C>(s, at, panel, some),
                    _ => {}
                }
                if unit == units {
                    break;
                }
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
            for unit in units.clone() {
                let (at, line) = (unit * K::WORDS, unit * K::LINES * LINE_WORDS);
                if K::LINES == 1 {
                    for c in (0..C).step_by(per_panel) {
                        s.prefetch(w[c].wrapping_add(line + AHEAD));
                    }
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

/// Brings a row into a form that products read.
pub struct Prepare<'a> {
    /// The form.
    pub form: Form,
    /// The row.
    pub x: &'a [f32],
    /// [`Form::words`] of it.
    pub to: &'a mut [u32],
}

impl Prepare<'_> {
    /// Does it.
    #[inline]
    pub fn run(self, isa: Isa) {
        isa.run_writing(self.form, self);
    }
}

impl Job for Prepare<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        prepare(s, self.form, self.x, self.to);
    }
}

/// [`Prepare`] within another job.
#[inline(always)]
pub fn prepare<S: Simd>(s: S, form: Form, x: &[f32], to: &mut [u32]) {
    match form {
        Form::Numbers => to.copy_from_slice(bytemuck::cast_slice(x)),
        Form::Pairs => {
            for (x, to) in x.chunks(2 * S::LANES).zip(to.chunks_mut(S::LANES)) {
                pairs(s, x, to);
            }
        }
        Form::Blocks => {
            let (whole, last) = x.as_chunks::<BLOCK>();
            let (to, _) = to.as_chunks_mut::<{ Block::WORDS }>();
            for (to, x) in to.iter_mut().zip(whole) {
                quantise(s, x, to);
            }
            if !last.is_empty() {
                let mut full = [0.0; BLOCK];
                full[..last.len()].copy_from_slice(last);
                quantise(s, &full, &mut to[whole.len()]);
            }
        }
    }
}

/// Up to two vectors of numbers as pairs of bf16.
#[inline(always)]
fn pairs<S: Simd>(s: S, x: &[f32], to: &mut [u32]) {
    if let (true, Some((a, b))) = (to.len() == S::LANES, x.split_at_checked(S::LANES)) {
        // SAFETY: `to` holds LANES words.
        unsafe { s.store_words(to.as_mut_ptr(), s.pairs(s.load(a), s.load_up_to(b))) };
        return;
    }
    const { assert!(S::LANES <= LINE_WORDS) };
    let mut words = [0; LINE_WORDS];
    let (a, b) = x.split_at(x.len().min(S::LANES));
    // SAFETY: a vector has no more words than there is room for.
    unsafe { s.store_words(words.as_mut_ptr(), s.pairs(s.load_up_to(a), s.load_up_to(b))) };
    to.copy_from_slice(&words[..to.len()]);
}

/// One block of an input row.
#[inline(always)]
fn quantise<S: Simd>(s: S, x: &[f32; BLOCK], to: &mut [u32; Block::WORDS]) {
    let mut most = s.zero();
    for x in x.chunks_exact(S::LANES) {
        let x = s.load(x);
        most = s.max(s.max(x, s.sub(s.zero(), x)), most);
    }
    let largest = s.largest(most);
    let per_unit = s.splat(steps_per_unit(largest));
    let mut sum = s.zero();
    let mut bytes = [0i8; BLOCK];
    for (x, bytes) in x.chunks_exact(S::LANES).zip(bytes.chunks_exact_mut(S::LANES)) {
        let steps = s.round(s.mul(s.load(x), per_unit));
        // Whole numbers far below 2^24: exact in any order.
        sum = s.add(sum, steps);
        // SAFETY: the chunk holds LANES bytes, and no step is beyond 127.
        unsafe { s.store_bytes(bytes.as_mut_ptr(), steps) };
    }
    to[..BLOCK / 4].copy_from_slice(&bytemuck::cast::<[i8; BLOCK], [u32; BLOCK / 4]>(bytes));
    to[BLOCK / 4] = (largest / 127.0).to_bits();
    to[BLOCK / 4 + 1] = (-128 * s.sum(sum) as i32) as u32;
}
