//! kernels/peak.cu

use super::abi::Peak;
use super::lab::*;

#[test]
fn the_copy_copies_all_and_nothing_else() {
    if !can_run() {
        return;
    }
    for (words, blocks) in [(4usize, 1usize), (4096, 2), (4 * 5000, 3)] {
        let from: Vec<u128> = (0..words / 4).map(|i| i as u128 * 0x1_0000_0001_0000_0001_0000_0001 + 7).collect();
        for order in [Order::Forwards, Order::Backwards] {
            let mut to = vec![1u128; words / 4 + 1];
            let p = Peak { from: address(&from), to: address_mut(&mut to), words: words as i64, turns: 0, unused: 0 };
            launch("peak", "peak_copy", &p, [blocks, 1, 1], order);
            assert_eq!(std::hint::black_box(&to)[..words / 4], from);
            assert_eq!(to[words / 4], 1);
        }
    }
}

#[test]
fn the_chains_end_and_write_nothing() {
    if can_run() {
        let mut to = [5u128];
        let p = Peak { from: 0, to: address_mut(&mut to), words: 0, turns: 3, unused: 0 };
        launch("peak", "peak_f32", &p, [2, 1, 1], Order::Forwards);
        launch("peak", "peak_bf16", &p, [2, 1, 1], Order::Forwards);
        assert_eq!(std::hint::black_box(to), [5]);
    }
}
