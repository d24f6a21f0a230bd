//! What sessions ask of the driver. Its kernels only count here, so pictures are not looked at.

use crate::fake_driver::{count, run_clean};
use discon::cuda::Gpu;
use discon::{Error, Model, Outputs, Precision, Settings};

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
