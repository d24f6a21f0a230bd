//! The oracle's answers, on every instruction set of the machine and on one and three threads.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::simd::Isa;
use discon::{Cpu, verify};
use std::path::Path;

fn holds(model: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model);
    for isa in Isa::available() {
        for threads in [1, 3] {
            let cpu = Cpu::new(threads).unwrap().with_isa(isa.name()).unwrap();
            let reports = verify::verify(&folder, &cpu, &mut |r| {
                let failure = r.failure.as_ref().map_or(String::new(), ToString::to_string);
                println!("{model} {isa} {threads} {}: {:.2e} of {:.0e} {failure}", r.name, r.error, r.bound);
            });
            let reports = reports.unwrap();
            assert_eq!(reports.len(), 15, "cases of {model}");
            assert!(reports.iter().all(verify::CaseReport::passed), "{model} on {isa}, {threads} threads");
        }
    }
}

#[test]
fn tiny_holds() {
    holds("tiny");
}

#[test]
fn odd_holds() {
    holds("odd");
}
