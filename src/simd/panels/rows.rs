//! Rows of the input, brought into the forms that products read.

use super::kinds::{Block, Kind, QUADS, SpreadBlock};
use crate::simd::{Isa, Job, Simd};
use crate::tensor::packed::{BLOCK, Form, LINE_WORDS, steps_per_unit};

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

/// Takes a row apart: from its form's words to [`Form::spread_words`].
pub struct Spread<'a> {
    /// The form.
    pub form: Form,
    /// [`Form::words`] of the row.
    pub x: &'a [u32],
    /// [`Form::spread_words`] of it.
    pub to: &'a mut [u32],
}

impl Job for Spread<'_> {
    type Out = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(QUADS.is_multiple_of(S::LANES)) };
        let Self { form, x, to } = self;
        match form {
            Form::Numbers => {}
            Form::Pairs => {
                assert_eq!(to.len(), 2 * x.len());
                let whole = x.len() / S::LANES * S::LANES;
                for (x, to) in x.chunks_exact(S::LANES).zip(to.chunks_exact_mut(2 * S::LANES)) {
                    // SAFETY: `x` holds LANES words and `to` twice as many.
                    unsafe {
                        let x = s.load_words(x.as_ptr());
                        let (first, second) = s.interleave(s.pair_low(x), s.pair_high(x));
                        s.store_ptr(to.as_mut_ptr().cast(), first);
                        s.store_ptr(to.as_mut_ptr().add(S::LANES).cast(), second);
                    }
                }
                for (x, to) in x[whole..].iter().zip(to[2 * whole..].chunks_exact_mut(2)) {
                    to.copy_from_slice(&[x << 16, x & 0xffff_0000]);
                }
            }
            Form::Blocks => {
                let (x, _) = x.as_chunks::<{ Block::WORDS }>();
                let (to, _) = to.as_chunks_mut::<{ SpreadBlock::WORDS }>();
                for (x, to) in x.iter().zip(to) {
                    for at in (0..QUADS).step_by(S::LANES) {
                        // SAFETY: LANES divides QUADS, of which `x` has one and `to` two.
                        unsafe {
                            let [even, odd] = s.signed_halves(s.load_words(x.as_ptr().add(at)));
                            s.store_words(to.as_mut_ptr().add(at), even);
                            s.store_words(to.as_mut_ptr().add(QUADS + at), odd);
                        }
                    }
                    to[2 * QUADS..].copy_from_slice(&x[QUADS..]);
                }
            }
        }
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
