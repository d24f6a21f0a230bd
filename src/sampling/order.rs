//! The order in which places are predicted, how many of them each round, and the guidance of a round.

use super::philox::{Stream, uniform, words};
use std::ops::Range;

/// Word `place mod 4` of the counter `place / 4`.
fn word(seed: u64, stream: Stream, place: usize) -> u32 {
    words(seed, stream, (place / 4) as u32, 0, 0)[place % 4]
}

/// The order of `places` places for `seed`: a permutation sorted by the places' random words (a tie goes to the
/// lower place). The first entries are the last to be predicted.
pub fn order(seed: u64, places: usize) -> Vec<i32> {
    let mut keyed: Vec<(u32, i32)> = (0..places).map(|p| (word(seed, Stream::Order, p), p as i32)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, p)| p).collect()
}

/// In which order the places of stage 2 are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By the seed: what the model was trained for.
    #[default]
    Random,
    /// Line by line from the top left.
    Raster,
    /// From the centre out.
    CentreOut,
    /// From the known places on: what lies next to them first. Without known places as random.
    FromKnown,
}

impl Order {
    /// The places of the slots of an image `side` places wide, for `seed`: the last slots are the known ones', of the
    /// others the last is drawn first.
    pub fn slots(self, seed: u64, side: usize, known: &[bool]) -> Vec<i32> {
        let all = order(seed, known.len());
        let is_known = |place: &i32| known[*place as usize];
        let (behind, mut slots): (Vec<i32>, Vec<i32>) = all.into_iter().partition(is_known);
        let at = |place: i32| ((place as usize / side) as i64, (place as usize % side) as i64);
        let apart = |a: (i64, i64), b: (i64, i64)| (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2);
        // Sorted from the last to be drawn to the first; ties stay in the seed's order.
        match self {
            Self::Random => {}
            Self::Raster => slots.sort_by_key(|&place| std::cmp::Reverse(place)),
            Self::CentreOut => {
                // In halves of a place: the centre may lie between two.
                let centre = (side as i64 - 1, side as i64 - 1);
                slots.sort_by_key(|&place| std::cmp::Reverse(apart((2 * at(place).0, 2 * at(place).1), centre)));
            }
            Self::FromKnown => {
                let nearest = |place: i32| behind.iter().map(|&known| apart(at(place), at(known))).min().unwrap_or(0);
                slots.sort_by_cached_key(|&place| std::cmp::Reverse(nearest(place)));
            }
        }
        slots.extend(behind);
        slots
    }
}

/// The numbers that draw the codes of `places` places for `seed`, in [0, 1).
pub fn uniforms(seed: u64, places: usize) -> Vec<f32> {
    (0..places).map(|p| uniform(word(seed, Stream::Uniforms, p))).collect()
}

/// How many of `places` are still masked after round `round` (from 0) of `rounds`, of `left` before it (MaskGIT's
/// cosine, 2202.04200). The last round leaves none: then the answer only sets the guidance.
pub fn kept_masked(places: usize, left: usize, round: usize, rounds: usize) -> usize {
    let cosine = (std::f64::consts::FRAC_PI_2 * (round + 1) as f64 / rounds as f64).cos();
    let keep = (places as f64 * cosine).floor().max(0.0) as usize;
    keep.min(left.saturating_sub(1)).max(1)
}

/// What each of at most `most` rounds draws of `places` places: how many are masked afterwards, as [`kept_masked`] has
/// it, and the slots, from the last ones to the first.
pub fn rounds(places: usize, most: usize) -> Vec<(usize, Range<usize>)> {
    let (mut left, count) = (places, most.min(places));
    let round = |round| {
        let keep = kept_masked(places, left, round, count);
        let slots = if round + 1 == count { 0..left } else { keep..left };
        left = slots.start;
        (keep, slots)
    };
    (0..count).map(round).take_while(|(_, slots)| !slots.is_empty()).collect()
}

/// Stage 1's guidance scale at `step` of `places`: from 1 to `guidance` along a raised cosine (RAR, 2411.00776,
/// section 4).
pub fn guidance_at(guidance: f64, power: f64, step: usize, places: usize) -> f64 {
    let ramp = (1.0 - ((step as f64 / places as f64).powf(power) * std::f64::consts::PI).cos()) / 2.0;
    (guidance - 1.0) * ramp + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_permutations_that_follow_the_seed() {
        for n in [1, 2, 25, 64, 256] {
            let mut o = order(5, n);
            assert!(n < 10 || o != order(6, n));
            o.sort_unstable();
            assert!(o.iter().enumerate().all(|(i, &p)| i as i32 == p));
        }
        // Part of the format: the same seed gives the same picture in every release.
        assert_eq!(order(0, 8), [7, 5, 0, 3, 6, 2, 1, 4]);
    }

    #[test]
    fn orders_are_what_their_names_say_and_known_places_come_last() {
        let known: Vec<bool> = (0..25).map(|place| place % 5 < 2).collect();
        let drawn = |order: Order, seed, known: &[bool]| {
            let slots = order.slots(seed, 5, known);
            let mut sorted = slots.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().enumerate().all(|(i, &place)| i as i32 == place));
            let count = known.iter().filter(|k| !**k).count();
            assert!(slots[count..].iter().all(|&place| known[place as usize]));
            slots[..count].iter().rev().copied().collect::<Vec<_>>()
        };
        let none = [false; 25];
        assert_eq!(Order::Random.slots(9, 5, &none), order(9, 25));
        assert_eq!(Order::FromKnown.slots(9, 5, &none), order(9, 25));
        assert_ne!(drawn(Order::Random, 1, &known), drawn(Order::Random, 2, &known));
        assert_eq!(drawn(Order::Raster, 3, &none), (0..25).collect::<Vec<_>>());
        assert_eq!(drawn(Order::Raster, 3, &known)[..4], [2, 3, 4, 7]);
        let from_centre = drawn(Order::CentreOut, 3, &none);
        assert_eq!(from_centre[0], 12);
        assert!(from_centre[1..5].iter().all(|place| [7, 11, 13, 17].contains(place)));
        assert!(from_centre[21..].iter().all(|place| [0, 4, 20, 24].contains(place)));
        let from_known = drawn(Order::FromKnown, 3, &known);
        assert!(from_known[..5].iter().all(|place| place % 5 == 2) && from_known[10..].iter().all(|p| p % 5 == 4));
    }

    #[test]
    fn every_round_predicts_a_place_and_the_last_all_that_is_left() {
        for places in [1usize, 2, 16, 25, 256] {
            for rounds in 1..=places.min(40) {
                let mut left = places;
                for r in 0..rounds - 1 {
                    let keep = kept_masked(places, left, r, rounds);
                    assert!(keep >= 1 && keep < left.max(2), "{places} {rounds} {r}");
                    left = keep;
                }
                assert!(left >= 1);
            }
        }
        assert_eq!(kept_masked(256, 256, 0, 32), 255);
        assert_eq!(kept_masked(16, 16, 2, 5), 9);
    }

    #[test]
    fn rounds_draw_every_slot_once() {
        for places in [1usize, 2, 16, 25, 256] {
            for most in [1, 2, 3, 16, 300] {
                let all = rounds(places, most);
                assert!(!all.is_empty() && all.len() <= most.min(places), "{places} {most}");
                let mut left = places;
                for (_, slots) in &all {
                    assert!(slots.end == left && !slots.is_empty(), "{places} {most}");
                    left = slots.start;
                }
                assert_eq!(left, 0, "{places} {most}");
            }
        }
    }

    #[test]
    fn guidance_rises_from_one() {
        assert_eq!(guidance_at(4.0, 2.5, 0, 256), 1.0);
        assert!((guidance_at(4.0, 2.5, 256, 256) - 4.0).abs() < 1e-12);
        assert_eq!(guidance_at(1.0, 2.5, 100, 256), 1.0);
    }
}
