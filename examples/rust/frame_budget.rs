//! Work cut to fit a frame: a loop at 60 Hz gives the generator two milliseconds of each frame.
//!
//! `cargo run --release --example frame_budget`

use discon::{Cpu, Model, Outputs};
use std::error::Error;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/avatars-64"))?;
    let mut session = model.session(&Cpu::new(1)?, 1, &model.settings(), Outputs::IMAGE)?;
    session.begin(&[model.class("fun-emoji")?], &[1])?;

    let (frame, budget) = (Duration::from_micros(16_667), Duration::from_micros(2_000));
    let (mut frames, mut longest) = (0, Duration::ZERO);
    loop {
        let start = Instant::now();
        let progress = session.step(budget)?;
        longest = longest.max(start.elapsed());
        frames += 1;
        if frames % 60 == 0 || progress.finished {
            println!("frame {frames}: {} {:.0} %", progress.stage, 100.0 * progress.fraction);
        }
        if progress.finished {
            break;
        }
        // The host's own work: drawing, input, sound.
        std::thread::sleep(frame.saturating_sub(start.elapsed()));
    }
    println!("{} image in {frames} frames, longest step {longest:?}", session.images()?.len());
    Ok(())
}
