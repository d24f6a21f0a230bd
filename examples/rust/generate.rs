//! The smallest program: a class, a seed, a picture.
//!
//! `cargo run --release --example generate -- [CLASS] [SEED] [FILE.png]`

use discon::{Cpu, Model, Request};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let class = args.next().unwrap_or_else(|| "lorelei".to_owned());
    let seed = args.next().map_or(Ok(7), |s| s.parse())?;
    let file = args.next().unwrap_or_else(|| "avatar.png".to_owned());

    let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/weights/avatars-64"))?;
    let request = Request { classes: vec![model.class(&class)?], seeds: vec![seed], settings: model.settings() };
    let images = model.generate(&Cpu::new(0)?, &request)?;

    let (width, height) = (images[0].width() as u32, images[0].height() as u32);
    image::save_buffer(&file, images[0].rgb(), width, height, image::ColorType::Rgb8)?;
    println!("{class} from seed {seed}: {file}");
    Ok(())
}
