//! Models on an NVIDIA GPU, where there is one. `DISCON_CUDA_DRIVER` may name a driver that emulates it: see docs/cuda.md.

#![cfg(feature = "cuda")]
#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::cuda::Gpu;
use discon::plan::{Cost, Profile};
use discon::simd::Isa;
use discon::{
    Cpu, Device, DeviceProblem, Edit, Error, Image, Model, Outputs, Precision, Request, Session, SessionOptions,
    Settings, Start, verify,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

/// The GPU; says aloud if there is none.
fn gpu() -> Option<&'static Gpu> {
    static FOUND: OnceLock<Option<Gpu>> = OnceLock::new();
    let find = || match Gpu::new(0) {
        Ok(gpu) => Some(gpu),
        Err(Error::Device { problem: DeviceProblem::NoDriver | DeviceProblem::NoDevice, found, .. }) => {
            eprintln!("NOT TESTED on a GPU: {found}");
            None
        }
        Err(e) => panic!("{e}"),
    };
    FOUND.get_or_init(find).as_ref()
}

/// Where the sources are. Cargo says so where it runs the tests, `benches/gpu.sh` on a machine without it.
fn sources() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

fn folder(model: &str) -> PathBuf {
    sources().join("tests/fixtures").join(model)
}

fn holds(model: &str, precision: Precision) {
    let Some(gpu) = gpu() else { return };
    let opened = Model::open_as(folder(model), precision).unwrap();
    let reports = verify::verify(&opened, &folder(model), gpu, &mut |r| {
        let failure = r.failure.as_ref().map_or(String::new(), ToString::to_string);
        println!("{model} {precision} {}: {:.2e} of {:.0e} {failure}", r.name, r.error, r.bound);
    });
    let reports = reports.unwrap();
    assert_eq!(reports.len(), 15, "cases of {model}");
    assert!(reports.iter().all(verify::CaseReport::passed), "{model} in {precision}");
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

const BATCH: usize = 3;

fn settings(model: &Model) -> Settings {
    Settings { rounds: 3, steps: 4, ..model.settings() }
}

fn begin(session: &mut Session) {
    session.begin(&[0, 2, 1], &[5, 6, 7]).unwrap();
}

/// The mean difference of all bytes.
fn difference(a: &[Image], b: &[Image]) -> f64 {
    let bytes = |images: &[Image]| images.iter().flat_map(|image| image.rgb().to_vec()).collect::<Vec<_>>();
    let (a, b) = (bytes(a), bytes(b));
    assert_eq!(a.len(), b.len());
    a.iter().zip(&b).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / a.len() as f64
}

#[test]
fn pictures_from_the_same_codes_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let shipped = sources().join("weights/avatars-64");
    for precision in [Precision::F32, Precision::Bf16] {
        let model = Model::open_as(&shipped, precision).unwrap();
        // An emulated GPU takes its time. With fewer steps roundings say little of a GPU: the steps are then so long that
        // on the processor, too, pictures in bf16 are some 8 of 255 away from those in f32.
        let settings = match std::env::var_os("DISCON_CUDA_DRIVER") {
            None => model.settings(),
            Some(_) => Settings { rounds: 2, steps: 10, ..model.settings() },
        };
        let (classes, seeds) = ([3, 9], [5, 6]);
        let outputs = Outputs { given_codes: true, ..Outputs::IMAGE };
        let codes: Vec<Vec<u32>> = (0..2).map(|i| (0..64).map(|p| (i * 37 + p * 7) % 512).collect()).collect();
        let mut on_cpu = model.session(Cpu::new(2).unwrap(), 2, &settings, outputs).unwrap();
        let mut on_gpu = model.session(gpu, 2, &settings, outputs).unwrap();
        for session in [&mut on_cpu, &mut on_gpu] {
            session.begin_with_codes(&classes, &seeds, &codes).unwrap();
            session.run(|_| ()).unwrap();
        }
        assert_eq!(on_gpu.codes().unwrap(), codes);
        let mean = difference(&on_cpu.images().unwrap(), &on_gpu.images().unwrap());
        println!("{precision}: mean difference {mean} of 255");
        assert!(mean <= 2.0, "{precision}: {mean}");
    }
}

#[test]
fn pauses_do_not_show_and_a_session_makes_the_same_again() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open(folder("tiny")).unwrap();
    let mut session = model.session(gpu, BATCH, &settings(&model), Outputs::IMAGE_AND_PREVIEW).unwrap();
    let mut made = Vec::new();
    for pausing in [false, true, false] {
        begin(&mut session);
        let mut last = 0.0;
        while pausing && !session.step(Duration::ZERO).unwrap().finished {
            assert!(session.progress().fraction >= last);
            last = session.progress().fraction;
        }
        session.run(|_| ()).unwrap();
        assert!(session.progress().finished && session.progress().fraction == 1.0);
        made.push((session.codes().unwrap(), session.previews().unwrap(), session.images().unwrap()));
    }
    assert!(made.iter().all(|m| *m == made[0]));
    let stages: BTreeSet<_> = session.times().iter().filter(|(_, t)| !t.is_zero()).map(|(s, _)| s.name()).collect();
    for stage in ["discrete", "preview", "condition", "head", "decode"] {
        assert!(stages.contains(stage), "{stages:?}");
    }
}

#[test]
fn a_cancelled_session_can_be_used_again_at_once() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open(folder("tiny")).unwrap();
    let mut session = model.session(gpu, BATCH, &settings(&model), Outputs::IMAGE).unwrap();
    begin(&mut session);
    session.run(|_| ()).unwrap();
    let images = session.images().unwrap();
    for after in [0, 1, 7, 30] {
        begin(&mut session);
        for _ in 0..after {
            session.step(Duration::ZERO).unwrap();
        }
        session.canceller().cancel();
        assert!(matches!(session.run(|_| ()), Err(Error::Cancelled)));
        assert!(session.images().is_err());
        begin(&mut session);
        session.run(|_| ()).unwrap();
        assert_eq!(session.images().unwrap(), images, "after {after} steps");
    }
}

#[test]
fn sessions_share_weights_and_run_beside_each_other() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open_as(folder("tiny"), Precision::Bf16).unwrap();
    assert_eq!(model.gpu_bytes(), 0);
    let settings = settings(&model);
    let mut first = model.session(gpu, BATCH, &settings, Outputs::IMAGE).unwrap();
    begin(&mut first);
    first.run(|_| ()).unwrap();
    let (images, bytes) = (first.images().unwrap(), model.gpu_bytes());
    assert!(bytes > 0 && first.own_bytes() > 0);
    std::thread::scope(|scope| {
        let one = || {
            let mut session = model.session(gpu, BATCH, &settings, Outputs::IMAGE).unwrap();
            for _ in 0..3 {
                begin(&mut session);
                session.run(|_| ()).unwrap();
                assert!(session.images().unwrap() == images);
            }
        };
        let both = [scope.spawn(one), scope.spawn(one)];
        both.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(model.gpu_bytes(), bytes, "what the first session brought serves all");
}

#[test]
fn a_profile_names_every_op_and_changes_nothing() {
    profiled("tiny", Precision::F32, &["linear_few_f32", "token_draw", "diffusion_step", "conv_f32"]);
}

#[test]
fn a_profile_in_bf16_changes_nothing_though_graphs_share_launches() {
    profiled("tiny", Precision::Bf16, &["linear_few_bf16", "layer_norm", "token_draw", "diffusion_step"]);
}

fn profiled(model: &str, precision: Precision, kernels: &[&str]) {
    let Some(gpu) = gpu() else { return };
    let model = Model::open_as(folder(model), precision).unwrap();
    let outputs = Outputs::IMAGE;
    let profiled = |device: discon::Device| {
        let mut session = model.session(device, BATCH, &settings(&model), outputs).unwrap();
        begin(&mut session);
        session.run(|_| ()).unwrap();
        let images = session.images().unwrap();
        session.enable_profile();
        begin(&mut session);
        session.run(|_| ()).unwrap();
        assert!(session.images().unwrap() == images);
        session.profile().unwrap().clone()
    };
    let ops = |profile: &Profile| {
        profile.ops.iter().map(|op| (op.stage.name(), op.name, op.calls, op.cost)).collect::<Vec<_>>()
    };
    let (on_gpu, on_cpu) = (profiled(gpu.into()), profiled(Cpu::new(1).unwrap().into()));
    assert_eq!(ops(&on_gpu), ops(&on_cpu));
    // All of it by kernel too.
    let all = |parts: &mut dyn Iterator<Item = (u64, Cost)>| {
        parts.fold((0, Cost::default()), |(calls, cost), (more, other)| (calls + more, cost + other))
    };
    let by_op = all(&mut on_gpu.ops.iter().map(|op| (op.calls, op.cost)));
    assert_eq!(all(&mut on_gpu.kernels.iter().map(|kernel| (kernel.calls, kernel.cost))), by_op);
    let times = |times: &mut dyn Iterator<Item = Duration>| times.sum::<Duration>();
    let by_op = times(&mut on_gpu.ops.iter().map(|op| op.time));
    assert_eq!(times(&mut on_gpu.kernels.iter().map(|kernel| kernel.time)), by_op);
    for name in kernels {
        assert_eq!(on_gpu.kernels.iter().filter(|kernel| kernel.name == *name).count(), 1, "{name}");
    }
    assert!(on_cpu.kernels.is_empty());
}

#[test]
fn eight_bits_are_an_error_and_the_next_call_works() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open_as(folder("tiny"), Precision::Q8).unwrap();
    let error = model.session(gpu, 1, &settings(&model), Outputs::IMAGE).unwrap_err();
    assert!(matches!(error, Error::Device { problem: DeviceProblem::Unsupported, .. }), "{error}");
    assert!(error.to_string().contains("q8"), "{error}");
    let model = Model::open_as(folder("tiny"), Precision::Bf16).unwrap();
    let request = Request { classes: vec![1], seeds: vec![3], settings: settings(&model) };
    assert_eq!(model.generate(gpu, &request).unwrap().len(), 1);
}

#[test]
fn pictures_go_through_the_autoencoders() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open(folder("tiny")).unwrap();
    let size = model.image_size();
    let rgb = (0..size * size * 3).map(|i| (i * 7 % 251) as u8).collect();
    let image = Image::new(size, size, rgb).unwrap();
    let cpu = Cpu::new(1).unwrap().with_isa(Isa::detect().name()).unwrap();
    let pairs = [
        (model.reconstruct(gpu, &image), model.reconstruct(&cpu, &image)),
        (model.reconstruct_discrete(gpu, &image), model.reconstruct_discrete(&cpu, &image)),
    ];
    for (on_gpu, on_cpu) in pairs {
        let mean = difference(&[on_gpu.unwrap()], &[on_cpu.unwrap()]);
        assert!(mean <= 0.1, "{mean}");
    }
}

#[test]
fn edits_mixes_and_previews_are_those_of_the_processor() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open(folder("tiny")).unwrap();
    let size = model.image_size();
    let rgb = (0..size * size * 3).map(|i| (i * 7 % 251) as u8).collect();
    let edit = Edit::Redraw { image: Image::new(size, size, rgb).unwrap(), share: 0.5 };
    let mixes = vec![vec![(1, 1.0), (2, 3.0)], vec![], vec![(4, 1.0)]];
    let start = Start { mixes, ..Start::of(edit) };
    let outputs = Outputs { preview: true, partial_previews: true, ..model.outputs_for(&start).unwrap() };
    let made = |device: Device| {
        let mut session = model.session(device, BATCH, &settings(&model), outputs).unwrap();
        session.begin_with(&[0, 2, 1], &[5, 6, 7], &start).unwrap();
        let mut partial = Vec::new();
        while !session.step(Duration::ZERO).unwrap().finished {
            if partial.is_empty() {
                partial = session.preview_now().unwrap_or_default();
            }
        }
        assert!(session.preview_now().unwrap() == session.images().unwrap());
        (partial, session.codes().unwrap(), session.images().unwrap())
    };
    let (on_gpu, on_cpu) = (made(gpu.into()), made(Cpu::new(1).unwrap().into()));
    assert_eq!(on_gpu.1, on_cpu.1);
    assert!(difference(&on_gpu.0, &on_cpu.0) <= 0.5 && difference(&on_gpu.2, &on_cpu.2) <= 0.5);
}

#[test]
fn memory_is_told_to_the_byte_and_limited() {
    let Some(gpu) = gpu() else { return };
    let model = Model::open_as(folder("tiny"), Precision::Bf16).unwrap();
    let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE_AND_PREVIEW };
    let told = model.memory(gpu, BATCH, &settings(&model), outputs).unwrap();
    assert!(told.on_gpu && told.weights > 0 && told.workers == 0 && told.host() == told.plan && model.gpu_bytes() == 0);
    let within = |limit| {
        let options = SessionOptions { memory_limit: Some(limit) };
        model.session_with(gpu, BATCH, &settings(&model), outputs, &options)
    };
    let error = within(told.bytes() - 1).unwrap_err();
    assert!(matches!(error, Error::Memory { bytes, .. } if bytes == told.bytes()), "{error}");
    assert_eq!(model.gpu_bytes(), 0);
    let mut session = within(told.bytes()).unwrap();
    assert_eq!(session.own_bytes() + model.gpu_bytes(), told.device());
    begin(&mut session);
    session.run(|_| ()).unwrap();
    assert_eq!(session.own_bytes() + model.gpu_bytes(), told.device());
    let next = model.memory(gpu, BATCH, &settings(&model), outputs).unwrap();
    assert_eq!((next.weights, next.shared, next.arena, next.previews), (0, 0, told.arena, told.previews));
}
