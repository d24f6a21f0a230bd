//! Pictures made of pictures: what masked autoregression gives for nothing, since what is known may be anything.
//!
//! A picture becomes tokens; some places keep theirs, the others are drawn, by the same rounds that make a whole picture.

use super::device::Device;
use super::executor::Executor;
use super::model::{Model, Request, needed};
use super::{Image, Known, Outputs, Session, Start};
use crate::error::{Error, Result};
use crate::plan::{Builder, Plan};
use crate::sampling::{self, Order};
use crate::weights::{VAE_FILE, VQ_FILE};

/// What a picture becomes for the networks.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// `[L, C]` by place.
    pub continuous: Vec<f32>,
    /// By place; none where the model has no discrete autoencoder.
    pub discrete: Option<Vec<u32>>,
}

impl Model {
    /// The tokens of a picture of the model's size.
    pub fn encode(&self, device: impl Into<Device>, image: &Image) -> Result<Tokens> {
        let device = device.into();
        self.check_size(image)?;
        let nets = self.networks();
        let vae = needed(&nets.vae, VAE_FILE, "the continuous tokens of a picture")?;
        let pixels = |range| image.to_pixels(range).collect::<Vec<f32>>();
        let places = self.places()?;
        let (size, c) = (self.image_size(), vae.config.z_channels);
        let mut b = Builder::new();
        let view = b.kept(size * size, 3)?.grouped(1);
        let [mean, log_variance, tokens] =
            [b.kept(places, c)?, b.kept(places, c)?, b.kept(places, c)?].map(|v| v.grouped(1));
        vae.plan_encode(&mut b, view, mean, log_variance)?;
        vae.plan_tokens(&mut b, mean, tokens);
        let run = self.run(&device, b.finish(), |executor| executor.write(view, &pixels((-1.0, 1.0))))?;
        let continuous = run.read(tokens)?;
        let discrete = match &nets.vq {
            None => None,
            Some(vq) => {
                let mut b = Builder::new();
                let view = b.kept(size * size, 3)?.grouped(1);
                let codes = b.kept(places, 1)?.grouped(1);
                vq.plan_encode(&mut b, view, codes)?;
                let run = self.run(&device, b.finish(), |executor| executor.write(view, &pixels((0.0, 1.0))))?;
                Some(run.read(codes)?)
            }
        };
        Ok(Tokens { continuous, discrete })
    }

    /// The picture of continuous tokens, `[L, C]` by place.
    pub fn decode(&self, device: impl Into<Device>, tokens: &[f32]) -> Result<Image> {
        let vae = needed(&self.networks().vae, VAE_FILE, "pixels")?;
        let (places, size, c) = (self.places()?, self.image_size(), vae.config.z_channels);
        if tokens.len() != places * c || tokens.iter().any(|x| !x.is_finite()) {
            let expected = format!("{places} tokens of {c} finite numbers");
            return Err(Error::input("tokens", expected, format!("{} numbers", tokens.len())));
        }
        let mut b = Builder::new();
        let [view, latents] = [b.kept(places, c)?, b.kept(places, c)?].map(|v| v.grouped(1));
        let out = b.kept(size * size, 3)?.grouped(1);
        vae.plan_latents(&mut b, view, latents);
        vae.plan_decode(&mut b, latents, out)?;
        let run = self.run(&device.into(), b.finish(), |executor| executor.write(view, tokens))?;
        run.pictures(out, (-1.0, 1.0))?.pop().ok_or_else(|| Error::input("image", "one picture", "none"))
    }

    /// Draws anew what `mask` covers of `image`, one picture for each class and seed of the request. `mask` has a value a
    /// pixel, line by line, true where the picture is to be new; outside of it each pixel stays exactly as it was.
    ///
    /// The model draws whole places (patches of pixels); a patch with one masked pixel is drawn, and only its masked pixels
    /// are taken. What is next to known places is drawn first.
    pub fn inpaint(
        &self,
        device: impl Into<Device>,
        image: &Image,
        mask: &[bool],
        request: &Request,
    ) -> Result<Vec<Image>> {
        let (device, size) = (device.into(), self.image_size());
        self.check_size(image)?;
        if mask.len() != size * size || !mask.contains(&true) {
            let expected = format!("{size} x {size} values, one at least true");
            let found = format!("{} values, {} true", mask.len(), mask.iter().filter(|m| **m).count());
            return Err(Error::input("mask", expected, found));
        }
        let side = self.places()?.isqrt();
        let patch = size / side;
        let mut drawn = vec![false; side * side];
        for (pixel, _) in mask.iter().enumerate().filter(|(_, masked)| **masked) {
            drawn[pixel / size / patch * side + pixel % size / patch] = true;
        }
        let images = self.draw_anew(&device, image, vec![drawn; request.classes.len()], Order::FromKnown, request)?;
        Ok(images.into_iter().map(|new| new.where_masked(mask, image)).collect())
    }

    /// Draws what lies around a smaller picture, whose left upper corner is to be at (`left`, `top`), one picture for each
    /// class and seed of the request. Its pixels stay exactly as they are.
    pub fn outpaint(
        &self,
        device: impl Into<Device>,
        image: &Image,
        (left, top): (usize, usize),
        request: &Request,
    ) -> Result<Vec<Image>> {
        let size = self.image_size();
        let fits = |at: usize, len: usize| at.checked_add(len).is_some_and(|end| end <= size);
        if !fits(left, image.width()) || !fits(top, image.height()) {
            let found = format!("{} x {} at ({left}, {top})", image.width(), image.height());
            return Err(Error::input("image", format!("a picture inside {size} x {size} pixels"), found));
        }
        // What is not known shows the nearest known pixel, so that the patches on the border encode to something near.
        let (mut rgb, mut mask) = (Vec::with_capacity(size * size * 3), Vec::with_capacity(size * size));
        let inside = |at: usize, first: usize, len: usize| at.clamp(first, first + len - 1) - first;
        for (y, x) in (0..size * size).map(|pixel| (pixel / size, pixel % size)) {
            let (line, column) = (inside(y, top, image.height()), inside(x, left, image.width()));
            rgb.extend_from_slice(&image.rgb()[(line * image.width() + column) * 3..][..3]);
            mask.push(line + top != y || column + left != x);
        }
        self.inpaint(device, &Image::new(size, size, rgb)?, &mask, request)
    }

    /// Draws `share` of a picture's places anew, chosen by each seed: pictures like it, one for each class and seed of the
    /// request. All of the pixels come from the decoder.
    pub fn redraw(
        &self,
        device: impl Into<Device>,
        image: &Image,
        share: f64,
        request: &Request,
    ) -> Result<Vec<Image>> {
        self.check_size(image)?;
        let places = self.places()?;
        let count = self.share_of(share, places)?.max(1);
        let chosen = |seed: &u64| {
            let mut drawn = vec![false; places];
            sampling::order(!seed, places).into_iter().take(count).for_each(|place| drawn[place as usize] = true);
            drawn
        };
        let drawn = request.seeds.iter().map(chosen).collect();
        self.draw_anew(&device.into(), image, drawn, Order::Random, request)
    }

    /// Pictures of the same discrete tokens, of which each keeps `share`, chosen by its seed; the rest, and all continuous
    /// tokens, are drawn. With all of them kept the pictures differ only in what discrete tokens do not say.
    pub fn variations(
        &self,
        device: impl Into<Device>,
        codes: &[u32],
        share: f64,
        request: &Request,
    ) -> Result<Vec<Image>> {
        let places = self.places()?;
        if codes.len() != places {
            return Err(Error::input("codes", format!("{places} of them"), codes.len()));
        }
        let kept = self.share_of(share, places)?;
        let given = |seed: &u64| {
            let mut given = vec![None; places];
            sampling::order(!seed, places)
                .into_iter()
                .take(kept)
                .for_each(|p| given[p as usize] = Some(codes[p as usize]));
            given
        };
        let start = Start { codes: request.seeds.iter().map(given).collect(), ..Start::default() };
        let mut session = self.session(device, request.classes.len(), &request.settings, Outputs::IMAGE)?;
        finish(&mut session, request, &start)
    }

    /// Of each image the places that `drawn` says are drawn, as many in each; the others keep the tokens of `image`.
    fn draw_anew(
        &self,
        device: &Device,
        image: &Image,
        drawn: Vec<Vec<bool>>,
        order: Order,
        request: &Request,
    ) -> Result<Vec<Image>> {
        let Tokens { continuous, discrete } = self.encode(device, image)?;
        let uses_codes = self.networks().masked.as_ref().is_some_and(|m| m.config.discrete);
        let codes = match (uses_codes, discrete) {
            (false, _) => None,
            (true, Some(codes)) => Some(codes),
            (true, None) => {
                return Err(Error::MissingPart { part: VQ_FILE, needed_for: "the discrete tokens of a picture" });
            }
        };
        let known_places = drawn.first().map_or(0, |drawn| drawn.iter().filter(|drawn| !**drawn).count());
        let of = |drawn: &Vec<bool>| drawn.iter().map(|drawn| !drawn).collect::<Vec<bool>>();
        let known = |drawn| Known { places: of(drawn), tokens: continuous.clone() };
        let given = |codes: &Vec<u32>, drawn: &Vec<bool>| {
            codes.iter().zip(drawn).map(|(&code, drawn)| (!drawn).then_some(code)).collect::<Vec<_>>()
        };
        let start = Start {
            order,
            codes: codes.map_or_else(Vec::new, |codes| drawn.iter().map(|drawn| given(&codes, drawn)).collect()),
            known: if known_places == 0 { vec![] } else { drawn.iter().map(known).collect() },
        };
        let outputs = Outputs { known_places, ..Outputs::IMAGE };
        let mut session = self.session(device, request.classes.len(), &request.settings, outputs)?;
        finish(&mut session, request, &start)
    }

    /// Runs a plan of this model.
    fn run(&self, device: &Device, plan: Plan, fill: impl FnOnce(&mut Executor) -> Result<()>) -> Result<Executor> {
        let mut executor = Executor::new(device, self.networks(), &plan)?;
        fill(&mut executor)?;
        let mut cursor = executor.start(&plan)?;
        executor.run(&plan, &mut cursor, None, |_| false)?;
        Ok(executor)
    }

    /// L: places of a picture.
    pub fn places(&self) -> Result<usize> {
        self.networks().places()
    }

    fn share_of(&self, share: f64, places: usize) -> Result<usize> {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::input("share", "a number from 0 to 1", share));
        }
        Ok((share * places as f64).round() as usize)
    }
}

fn finish(session: &mut Session, request: &Request, start: &Start) -> Result<Vec<Image>> {
    session.begin_with(&request.classes, &request.seeds, start)?;
    session.run(|_| ())?;
    session.images()
}
