//! What sessions ask of the driver. Its kernels only count here, so pictures are not looked at.

use crate::fake_driver::{count, run_clean};
use discon::cuda::{DeviceBuffer, Gpu};
use discon::{DeviceProblem, Error, Model, Outputs, Precision, Result, Session, Settings};

fn model() -> Model {
    Model::open_as(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny"), Precision::Bf16).unwrap()
}

fn settings(model: &Model) -> Settings {
    Settings { rounds: 3, steps: 4, ..model.settings() }
}

/// Who cancels, or whose budget is over, waits for two turns: also where many segments of one stage have a turn each.
#[test]
fn no_more_than_two_turns_are_on_their_way() {
    run_clean(&[("FAKE_CUDA_LAZY", "1")], || {
        let (gpu, model) = (Gpu::new(0).unwrap(), model());
        let mut session = model.session(&gpu, 2, &settings(&model), Outputs::IMAGE_AND_PREVIEW).unwrap();
        session.begin(&[1, 2], &[3, 4]).unwrap();
        let mut most = 0;
        session.run(|_| most = most.max(count("graph_launches") - count("graphs_run"))).unwrap();
        assert_eq!((most, count("graph_launches") - count("graphs_run")), (2, 0));
        // A canceller that comes as the decoder begins.
        session.begin(&[1, 2], &[3, 4]).unwrap();
        let canceller = session.canceller();
        let mut launched = None;
        let done = session.run(|p| {
            if p.stage.name() == "decode" && launched.is_none() {
                launched = Some(count("graph_launches"));
                canceller.cancel();
            }
        });
        assert!(matches!(done, Err(Error::Cancelled)));
        assert!(count("graph_launches") <= launched.unwrap() + 1);
    });
}

/// A session that finds too little memory takes nothing, be it at its first allocation or at its last.
#[test]
fn what_a_session_that_failed_had_taken_is_given_back() {
    run_clean(&[("FAKE_CUDA_MEMORY", "8000000")], || {
        let (gpu, model) = (Gpu::new(0).unwrap(), model());
        let free = || gpu.context().memory().unwrap().free;
        let make = |outputs: Outputs| model.session(&gpu, 2, &settings(&model), outputs);
        // With only so many bytes free.
        let fails = |outputs: Outputs, bytes: u64| {
            let ballast = DeviceBuffer::<u8>::new(gpu.context(), "ballast", (free() - bytes) as usize).unwrap();
            let result: Result<Session> = make(outputs);
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Device { problem: DeviceProblem::Memory, .. }), "{error}");
            drop(ballast);
        };
        let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE };
        let told = model.memory(&gpu, 2, &settings(&model), outputs).unwrap();
        assert!(told.weights > 0 && told.previews > 0);
        let before = free();
        // Among weights, as the last of them is brought, and as the decoder of previews is made.
        for bytes in
            [told.device() - told.previews - told.weights / 2, told.device() - told.previews - 1, told.device() - 1]
        {
            fails(outputs, bytes);
            assert_eq!((free(), model.gpu_bytes()), (before, 0));
        }
        // Weights that others use stay, whether they have begun or not.
        for begins in [false, true] {
            let mut session = make(Outputs::DISCRETE_ONLY).unwrap();
            if begins {
                session.begin(&[1, 2], &[3, 4]).unwrap();
            }
            let (left, bytes) = (free(), model.gpu_bytes());
            let more = model.memory(&gpu, 2, &settings(&model), outputs).unwrap();
            assert!(bytes > 0 && more.weights > 0 && more.weights < told.weights);
            fails(outputs, more.device() - more.previews - 1);
            assert_eq!((free(), model.gpu_bytes()), (left, bytes));
            session.begin(&[1, 2], &[3, 4]).unwrap();
            session.run(|_| ()).unwrap();
        }
        // From then on they are the model's.
        assert!(model.gpu_bytes() > 0);
        make(outputs).unwrap();
    });
}
