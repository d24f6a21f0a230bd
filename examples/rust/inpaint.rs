//! Part of a picture drawn anew, a frame's two milliseconds at a time: before, mask and after beside each other.
//!
//! `cargo run --release --example inpaint -- [FILE.png]`

#[path = "common/strip.rs"]
mod strip;

use discon::{Cpu, Edit, Image, Model, Request};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let root = env!("CARGO_MANIFEST_DIR");
    let file = std::env::args().nth(1).unwrap_or_else(|| format!("{root}/target/examples-out/inpaint.png"));
    let (model, cpu) = (Model::open(format!("{root}/weights/avatars-64"))?, Cpu::new(0)?);
    let class = model.class("lorelei")?;
    let request = |seeds: &[u64]| Request {
        classes: vec![class; seeds.len()],
        seeds: seeds.to_vec(),
        settings: model.settings(),
    };
    let before = model.generate(&cpu, &request(&[7]))?.remove(0);

    // A circle around the face.
    let size = model.image_size();
    let inside =
        |i: usize| (i % size).abs_diff(size / 2).pow(2) + (i / size).abs_diff(size / 2).pow(2) < (size / 4).pow(2);
    let mask: Vec<bool> = (0..size * size).map(inside).collect();
    let shown = mask.iter().flat_map(|masked| [if *masked { 255 } else { 0 }; 3]).collect();

    // Three seeds at once. The picture is encoded in the session, as the first of its stages.
    let edit = Edit::Inpaint { image: before.clone(), mask };
    let mut session = model.edit(&cpu, &edit, &request(&[1, 2, 3]))?;
    let mut steps = 1;
    while !session.step(Duration::from_millis(2))?.finished {
        steps += 1;
    }
    println!("{steps} steps");
    let after = session.images()?;
    let all: Vec<Image> = [before, Image::new(size, size, shown)?].into_iter().chain(after).collect();
    strip::write(file.as_ref(), &all.iter().collect::<Vec<_>>(), 3)
}
