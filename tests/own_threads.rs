//! The engine works on threads of its own and leaves rayon's global pool, which belongs to the host, alone.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Model, Outputs, Settings};

#[test]
fn the_global_pool_is_still_the_hosts_to_build() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny");
    let model = Model::open(folder).unwrap();
    let settings = Settings { rounds: 2, steps: 2, ..model.settings() };
    // Enough images that some ops are worth sharing out.
    let batch = 64;
    let mut session = model.session(&Cpu::new(3).unwrap(), batch, &settings, Outputs::IMAGE).unwrap();
    session.begin(&vec![0; batch], &vec![1; batch]).unwrap();
    session.run(|_| {}).unwrap();
    // Fails if anything has used the global pool before.
    rayon::ThreadPoolBuilder::new().num_threads(1).build_global().unwrap();
}
