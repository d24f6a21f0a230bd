//! Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC
//! 2011), and the numbers made of its words.
//!
//! The key is the image's seed (low word first). The counter says which number: `[i, place, step, stream]`. So every
//! number is a function of seed, stream and place alone, whatever the batch, the thread or the device. Counters by
//! stream:
//!
//! | stream | i | place | step | gives |
//! |---|---|---|---|---|
//! | 0 order | p / 4 | 0 | 0 | word p mod 4 is the sort key of place p |
//! | 1 uniforms | p / 4 | 0 | 0 | word p mod 4 draws the code of place p |
//! | 2 start | c / 4 | p | 0 | normal c mod 4 starts channel c of place p |
//! | 3 noise | c / 4 | p | j | normal c mod 4 is the noise of diffusion step j (0 is the first made) |
//!
//! Normals use products, sums and square roots only, each rounded once (never fused), so that any IEEE processor
//! gives the same bits.

/// What a number is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Stream {
    /// Sort keys of the places.
    Order = 0,
    /// Draws of stage 1.
    Uniforms = 1,
    /// Starts of the diffusion.
    Start = 2,
    /// Noise of the diffusion steps.
    Noise = 3,
}

/// The four words of `[i, place, step]` in `stream` for `seed`.
pub fn words(seed: u64, stream: Stream, i: u32, place: u32, step: u32) -> [u32; 4] {
    philox4x32([i, place, step, stream as u32], [seed as u32, (seed >> 32) as u32])
}

/// Ten rounds of Philox on a counter and a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b, c, d] = counter;
        let low = u64::from(a) * 0xD251_1F53;
        let high = u64::from(c) * 0xCD9E_8D57;
        counter = [(high >> 32) as u32 ^ b ^ key[0], high as u32, (low >> 32) as u32 ^ d ^ key[1], low as u32];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

/// A number in [0, 1): the word's upper 24 bits.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Four numbers of the standard normal distribution (Box and Muller, 1958): two pairs.
pub fn normals(w: [u32; 4]) -> [f32; 4] {
    let [a, b] = pair(w[0], w[1]);
    let [c, d] = pair(w[2], w[3]);
    [a, b, c, d]
}

fn pair(radius: u32, angle: u32) -> [f32; 2] {
    // (0, 1]: never the logarithm of zero.
    let u = ((radius >> 8) + 1) as f32 * (1.0 / 16_777_216.0);
    let r = (-2.0 * ln(u)).sqrt();
    let (sin, cos) = sin_cos_turns(angle);
    [r * cos, r * sin]
}

/// The natural logarithm of a normal positive number; absolute error below 2e-7 max(1, |ln x|). Polynomial of
/// Cephes' logf.
fn ln(x: f32) -> f32 {
    // x = m 2^e with m in [sqrt 1/2, sqrt 2).
    let bits = x.to_bits();
    let mut e = (bits >> 23) as i32 - 126;
    let mut m = f32::from_bits((bits & 0x007F_FFFF) | 0x3F00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        e -= 1;
        m += m;
    }
    let z = m - 1.0;
    let square = z * z;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        0.333_333_1,
    ] {
        p = p * z + c;
    }
    let e = e as f32;
    let tail = p * z * square + e * -2.121_944_4e-4 - 0.5 * square;
    z + tail + e * 0.693_359_4
}

/// Sine and cosine of `word / 2^32` turns; absolute error below 2e-7. Polynomials of Cephes' sinf and cosf.
fn sin_cos_turns(word: u32) -> (f32, f32) {
    // The nearest quarter turn and what is left of it, in [-1/8, 1/8] turns, exactly.
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let left = word.wrapping_sub(quarter << 30) as i32;
    let x = (left >> 6) as f32 * (std::f32::consts::TAU / 67_108_864.0);
    let z = x * x;
    let sin = ((-1.951_529_6e-4 * z + 8.332_161e-3) * z - 1.666_665_5e-1) * z * x + x;
    let cos = ((2.443_315_7e-5 * z - 1.388_731_6e-3) * z + 4.166_664_6e-2) * z * z - 0.5 * z + 1.0;
    match quarter {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with their generator (kat_vectors of Random123).
    #[test]
    fn gives_the_published_answers() {
        let all = u32::MAX;
        assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox4x32([all; 4], [all; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn logarithm_and_circle_keep_their_stated_accuracy() {
        let (mut worst_ln, mut worst_turn) = (0f64, 0f64);
        for i in (0..1u64 << 24).step_by(97) {
            let x = (i + 1) as f32 / 16_777_216.0;
            let exact = (x as f64).ln();
            worst_ln = worst_ln.max((ln(x) as f64 - exact).abs() / exact.abs().max(1.0));
            let word = (i << 8) as u32 | 0x5A;
            let angle = word as f64 / 4_294_967_296.0 * std::f64::consts::TAU;
            let (s, c) = sin_cos_turns(word);
            worst_turn = worst_turn.max((s as f64 - angle.sin()).abs()).max((c as f64 - angle.cos()).abs());
        }
        assert!(worst_ln < 2e-7 && worst_turn < 2e-7, "{worst_ln:e} {worst_turn:e}");
    }

    /// The bits themselves: another kind of processor, or another compiler, must give these too.
    #[test]
    fn normals_have_the_same_bits_everywhere() {
        let first = normals(words(7, Stream::Noise, 0, 0, 3));
        assert_eq!(first.map(f32::to_bits), [0x3ee1_102e, 0x3f6f_d2bf, 0x3fa9_d30e, 0x3dff_a8c6]);
        let mut sum = 0u64;
        for i in 0..100_000 {
            for x in normals(words(7, Stream::Noise, 0, i, 3)) {
                sum = sum.rotate_left(5).wrapping_add(u64::from(x.to_bits()));
            }
        }
        assert_eq!(sum, 0x73ae_cae0_9f59_e387);
    }

    #[test]
    fn normals_have_the_moments_of_a_normal_distribution() {
        let n = 400_000u32;
        let mut sums = [0f64; 4];
        for i in 0..n / 4 {
            for x in normals(words(7, Stream::Noise, 0, i, 3)) {
                (0..4).for_each(|k| sums[k] += (x as f64).powi(k as i32 + 1));
            }
        }
        let m = sums.map(|s| s / n as f64);
        // Four standard errors: 1, sqrt 2, sqrt 15, sqrt 96 over sqrt n.
        let fine = |k: usize, exact: f64, dev: f64| (m[k] - exact).abs() < 4.0 * dev / (n as f64).sqrt();
        assert!(fine(0, 0.0, 1.0) && fine(1, 1.0, 1.42) && fine(2, 0.0, 3.88) && fine(3, 3.0, 9.8), "{m:?}");
    }

    #[test]
    fn streams_places_and_seeds_differ() {
        let base = words(1, Stream::Noise, 0, 0, 0);
        let others = [
            words(2, Stream::Noise, 0, 0, 0),
            words(1 << 32, Stream::Noise, 0, 0, 0),
            words(1, Stream::Start, 0, 0, 0),
            words(1, Stream::Noise, 1, 0, 0),
            words(1, Stream::Noise, 0, 1, 0),
            words(1, Stream::Noise, 0, 0, 1),
        ];
        assert!(others.iter().all(|o| *o != base));
    }
}
