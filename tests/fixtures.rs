//! The oracle's answers, in every precision, on every instruction set of the machine that computes it in its own way, on
//! one and three threads by turns: that threads do not show is `same_picture`'s to hold.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::simd::Isa;
use discon::{Cpu, Model, Precision, verify};
use std::path::{Path, PathBuf};

fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(model)
}

fn holds(model: &str, precision: Precision) {
    let opened = Model::open_as(folder(model), precision).unwrap();
    for (isa, threads) in Isa::distinct(precision).into_iter().zip([3, 1].into_iter().cycle()) {
        let cpu = Cpu::new(threads).unwrap().with_isa(isa.name()).unwrap();
        let reports = verify::verify(&opened, &folder(model), &cpu, &mut |r| {
            let failure = r.failure.as_ref().map_or(String::new(), ToString::to_string);
            println!("{model} {precision} {isa} {threads} {}: {:.2e} of {:.0e} {failure}", r.name, r.error, r.bound);
        });
        let reports = reports.unwrap();
        assert_eq!(reports.len(), 15, "cases of {model}");
        let passed = reports.iter().all(verify::CaseReport::passed);
        assert!(passed, "{model} in {precision} on {isa}, {threads} threads");
    }
}

#[test]
fn tiny_holds() {
    holds("tiny", Precision::F32);
}

#[test]
fn odd_holds() {
    holds("odd", Precision::F32);
}

#[test]
fn tiny_holds_in_bf16() {
    holds("tiny", Precision::Bf16);
}

#[test]
fn odd_holds_in_bf16() {
    holds("odd", Precision::Bf16);
}

#[test]
fn tiny_holds_in_q8() {
    holds("tiny", Precision::Q8);
}

#[test]
fn odd_holds_in_q8() {
    holds("odd", Precision::Q8);
}
