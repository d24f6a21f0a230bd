//! Images of several classes with weights.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::simd::Isa;
use discon::{Cpu, Image, Model, Outputs, Request, Settings, Start};
use std::path::Path;

fn model(name: &str) -> Model {
    Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

type Mix = Vec<(usize, f64)>;

/// Images of mixes in a session for `mix` classes, of seeds 10, 11, ...; the classes beside do not count.
fn mixed(model: &Model, cpu: &Cpu, mix: usize, mixes: &[Mix]) -> Vec<Image> {
    let settings = Settings { rounds: 3, steps: 4, ..model.settings() };
    let outputs = Outputs { mix, ..Outputs::IMAGE };
    let mut session = model.session(cpu, mixes.len(), &settings, outputs).unwrap();
    let seeds: Vec<u64> = (0..mixes.len() as u64).map(|i| 10 + i).collect();
    let start = Start { mixes: mixes.to_vec(), ..Start::default() };
    session.begin_with(&vec![0; mixes.len()], &seeds, &start).unwrap();
    session.run(|_| ()).unwrap();
    session.images().unwrap()
}

fn of_classes(model: &Model, cpu: &Cpu, classes: &[usize]) -> Vec<Image> {
    let settings = Settings { rounds: 3, steps: 4, ..model.settings() };
    let seeds = (0..classes.len() as u64).map(|i| 10 + i).collect();
    model.generate(cpu, &Request { classes: classes.to_vec(), seeds, settings }).unwrap()
}

#[test]
fn a_mix_of_one_class_is_that_class() {
    for name in ["tiny", "odd"] {
        let model = model(name);
        for isa in Isa::distinct(model.precision()) {
            let cpu = Cpu::new(2).unwrap().with_isa(isa.name()).unwrap();
            // The last is of no class.
            let classes = [2, 0, 1, model.config().classes.len()];
            let expected = of_classes(&model, &cpu, &classes);
            let alone: Vec<Mix> = classes.iter().map(|&class| vec![(class, 0.3)]).collect();
            let among: Vec<Mix> = classes.iter().map(|&class| vec![(1, 0.0), (class, 7.0), (0, 0.0)]).collect();
            let halves: Vec<Mix> = classes.iter().map(|&class| vec![(class, 1.0), (class, 1.0)]).collect();
            for (mix, mixes) in [(1, &alone), (2, &alone), (3, &among), (5, &among), (2, &halves)] {
                assert!(mixed(&model, &cpu, mix, mixes) == expected, "{name} on {isa}: {mix} of {mixes:?}");
            }
        }
    }
}

#[test]
fn mixes_lie_between_their_classes_and_do_not_see_their_neighbours() {
    let model = model("tiny");
    let cpu = Cpu::new(2).unwrap();
    let of = |mixes: &[Mix]| mixed(&model, &cpu, 3, mixes);
    let half = vec![(1, 0.5), (2, 0.5)];
    let batch = of(&[half.clone(), vec![], vec![(1, 1.0), (2, 3.0), (3, 0.5)]]);
    assert!(batch[0] != of_classes(&model, &cpu, &[1])[0] && batch[0] != of_classes(&model, &cpu, &[2])[0]);
    // Only the ratio of weights counts, and not their order where they are two.
    assert!(batch[0] == of(&[vec![(1, 80.0), (2, 80.0)]])[0] && batch[0] == of(&[vec![(2, 1e-9), (1, 1e-9)]])[0]);
    assert!(batch[0] != of(&[vec![(1, 0.4), (2, 0.6)]])[0]);
    // An image without a mix is of its class.
    assert!(batch[1] == of_classes(&model, &cpu, &[1, 0])[1]);
    // The class is mixed in both stages: neither alone makes the picture.
    assert!(batch == of(&[half, vec![], vec![(1, 2.0), (2, 6.0), (3, 1.0)]]));
    assert_eq!(
        model.outputs_for(&Start { mixes: vec![vec![], vec![(1, 1.0); 4]], ..Start::default() }).unwrap().mix,
        4
    );
}

/// A second class among them changes what stage 1 draws, and what stage 2 makes of the same codes.
#[test]
fn both_stages_see_the_mix() {
    let model = model("tiny");
    let cpu = Cpu::new(2).unwrap();
    let settings = Settings { rounds: 3, steps: 4, ..model.settings() };
    let run = |mixes: Vec<Mix>, codes: Option<&Vec<Vec<u32>>>| {
        let outputs = Outputs { mix: 2, given_codes: codes.is_some(), ..Outputs::IMAGE };
        let mut session = model.session(&cpu, 1, &settings, outputs).unwrap();
        let given = |codes: &Vec<u32>| codes.iter().map(|&code| Some(code)).collect();
        let codes = codes.map_or_else(Vec::new, |codes| codes.iter().map(given).collect());
        session.begin_with(&[0], &[10], &Start { mixes, codes, ..Start::default() }).unwrap();
        session.run(|_| ()).unwrap();
        (session.codes().unwrap(), session.images().unwrap())
    };
    let (one, other) = (vec![vec![(1, 1.0)]], vec![vec![(1, 1.0), (4, 1.0)]]);
    // Stage 1.
    assert_ne!(run(one.clone(), None).0, run(other.clone(), None).0);
    // Stage 2, from the same codes.
    let codes = run(one.clone(), None).0;
    assert!(run(one.clone(), Some(&codes)).1 == run(one.clone(), None).1);
    assert!(run(one, Some(&codes)).1 != run(other, Some(&codes)).1);
}

#[test]
fn mixes_that_do_not_fit_are_refused() {
    let model = model("tiny");
    let cpu = Cpu::new(1).unwrap();
    let settings = Settings { rounds: 2, steps: 2, ..model.settings() };
    let mut session = model.session(&cpu, 2, &settings, Outputs { mix: 2, ..Outputs::IMAGE }).unwrap();
    let one = || vec![(1, 1.0)];
    let bad: [(Vec<Mix>, &[&str]); 9] = [
        (vec![one()], &["mixes", "2 images", "found 1"]),
        (vec![one(), vec![(1, 1.0), (2, 1.0), (3, 1.0)]], &["classes of image 1", "2 at most", "`mix`", "found 3"]),
        (vec![one(), vec![(9, 1.0)]], &["classes of image 1", "below 7, or 7 for no class", "found 9"]),
        (vec![vec![(1, f64::NAN)], one()], &["weights of image 0", "NaN"]),
        (vec![vec![(1, f64::INFINITY)], one()], &["weights of image 0", "inf"]),
        (vec![vec![(1, 2.0), (2, -0.5)], one()], &["weights of image 0", "-0.5"]),
        (vec![vec![(1, 0.0), (2, 0.0)], one()], &["weights of image 0", "sum above 0", "found 0"]),
        (vec![vec![(1, f64::MAX), (2, f64::MAX)], one()], &["weights of image 0", "finite sum", "inf"]),
        (vec![one(), vec![(usize::MAX, 1.0)]], &["classes of image 1"]),
    ];
    for (mixes, words) in bad {
        let error = session.begin_with(&[0, 0], &[1, 2], &Start { mixes, ..Start::default() }).unwrap_err();
        assert!(words.iter().all(|word| error.to_string().contains(word)), "{words:?}: {error}");
    }
    session.begin(&[0, 1], &[1, 2]).unwrap();
    session.run(|_| ()).unwrap();
    assert_eq!(session.images().unwrap().len(), 2);
}
