//! What can be shown before the picture is done: the coarse picture of the discrete tokens, and what stage 2 has drawn so
//! far, after each eighth of the work.
//!
//! `cargo run --release --example previews -- [FILE.png]`

#[path = "common/strip.rs"]
mod strip;

use discon::{Cpu, Image, Model, Outputs, Settings};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let root = env!("CARGO_MANIFEST_DIR");
    let file = std::env::args().nth(1).unwrap_or_else(|| format!("{root}/target/examples-out/previews.png"));
    let model = Model::open(format!("{root}/weights/avatars-64"))?;
    let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE_AND_PREVIEW };
    // More rounds than the picture needs, so that there is more to see on the way.
    let settings = Settings { rounds: 8, ..model.settings() };
    let mut session = model.session(&Cpu::new(0)?, 1, &settings, outputs)?;
    if let Some(cost) = session.preview_cost() {
        println!("a preview costs {:.1} % of the picture", 100.0 * cost);
    }
    session.begin(&[model.class("lorelei")?], &[7])?;
    let (mut coarse, mut partial): (Vec<Image>, Vec<Image>) = (Vec::new(), Vec::new());
    loop {
        let progress = session.step(Duration::from_micros(500))?;
        if coarse.is_empty() {
            coarse.extend(session.previews().unwrap_or_default());
        }
        if progress.finished {
            break;
        }
        // Before the first round there is nothing to show.
        if progress.fraction > (partial.len() + 1) as f64 / 8.0
            && let Ok(images) = session.preview_now()
        {
            partial.extend(images);
        }
    }
    let image = session.images()?;
    strip::write(file.as_ref(), &coarse.iter().chain(&partial).chain(&image).collect::<Vec<_>>(), 3)
}
