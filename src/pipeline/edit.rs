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
use crate::tensor::collected;
use crate::weights::VAE_FILE;
use std::borrow::Cow;

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
        let (size, c) = (self.image_size(), vae.config.z_channels);
        let places = self.latent_places(vae.config.ch_mult.len());
        let mut b = Builder::new();
        let view = b.kept(size * size, 3)?.grouped(1);
        let [mean, log_variance, tokens] =
            [b.kept(places, c)?, b.kept(places, c)?, b.kept(places, c)?].map(|v| v.grouped(1));
        vae.plan_encode(&mut b, view, mean, log_variance)?;
        vae.plan_tokens(&mut b, mean, tokens);
        let run = self.run(&device, b.finish()?, |executor| executor.write(view, &image.to_pixels((-1.0, 1.0))?))?;
        let continuous = run.read(tokens)?;
        let discrete = match &nets.vq {
            None => None,
            Some(vq) => {
                let mut b = Builder::new();
                let view = b.kept(size * size, 3)?.grouped(1);
                let codes = b.kept(self.latent_places(vq.config.channel_mult.len()), 1)?.grouped(1);
                vq.plan_encode(&mut b, view, codes)?;
                let run =
                    self.run(&device, b.finish()?, |executor| executor.write(view, &image.to_pixels((0.0, 1.0))?))?;
                Some(run.read(codes)?)
            }
        };
        Ok(Tokens { continuous, discrete })
    }

    /// The picture of continuous tokens, `[L, C]` by place.
    pub fn decode(&self, device: impl Into<Device>, tokens: &[f32]) -> Result<Image> {
        let vae = needed(&self.networks().vae, VAE_FILE, "pixels")?;
        let (size, c) = (self.image_size(), vae.config.z_channels);
        let places = self.latent_places(vae.config.ch_mult.len());
        if tokens.len() != places * c {
            let expected = format!("{places} tokens of {c} numbers");
            return Err(Error::input("tokens", expected, format!("{} numbers", tokens.len())));
        }
        if let Some(i) = tokens.iter().position(|x| !x.is_finite()) {
            let what = format!("number {} of the token of place {}", i % c, i / c);
            return Err(Error::input(what, "a finite number", tokens[i]));
        }
        let mut b = Builder::new();
        let [view, latents] = [b.kept(places, c)?, b.kept(places, c)?].map(|v| v.grouped(1));
        let out = b.kept(size * size, 3)?.grouped(1);
        vae.plan_latents(&mut b, view, latents);
        vae.plan_decode(&mut b, latents, out)?;
        let run = self.run(&device.into(), b.finish()?, |executor| executor.write(view, tokens))?;
        run.picture(out, (-1.0, 1.0))
    }

    /// Makes a session for an edit and begins it, one picture for each class and seed of the request. What is left is
    /// [`Session::step`] or [`Session::run`]; then [`Session::images`] has the pictures, put together already.
    pub fn edit(&self, device: impl Into<Device>, edit: &Edit, request: &Request) -> Result<Session> {
        self.begun(device, request, &Start { order: edit.order(), ..Start::default() }, Some(edit))
    }

    /// [`Edit::Inpaint`] from one call.
    pub fn inpaint(
        &self,
        device: impl Into<Device>,
        image: &Image,
        mask: &[bool],
        request: &Request,
    ) -> Result<Vec<Image>> {
        let edit = Edit::Inpaint { image: image.copied()?, mask: copied(mask)? };
        finish(self.edit(device, &edit, request)?)
    }

    /// [`Edit::Outpaint`] from one call.
    pub fn outpaint(
        &self,
        device: impl Into<Device>,
        image: &Image,
        (left, top): (usize, usize),
        request: &Request,
    ) -> Result<Vec<Image>> {
        finish(self.edit(device, &Edit::Outpaint { image: image.copied()?, left, top }, request)?)
    }

    /// [`Edit::Redraw`] from one call.
    pub fn redraw(
        &self,
        device: impl Into<Device>,
        image: &Image,
        share: f64,
        request: &Request,
    ) -> Result<Vec<Image>> {
        finish(self.edit(device, &Edit::Redraw { image: image.copied()?, share }, request)?)
    }

    /// [`Edit::Variations`] from one call.
    pub fn variations(
        &self,
        device: impl Into<Device>,
        codes: &[u32],
        share: f64,
        request: &Request,
    ) -> Result<Vec<Image>> {
        finish(self.edit(device, &Edit::Variations { codes: codes.to_vec(), share }, request)?)
    }

    /// The images of a request of which more is given than classes and seeds, from one call.
    pub fn generate_with(&self, device: impl Into<Device>, request: &Request, start: &Start) -> Result<Vec<Image>> {
        finish(self.begun(device, request, start, start.edit.as_ref())?)
    }

    /// What a session must be made for to begin with `start`: [`Outputs::IMAGE`], and the known places, the encoding and
    /// the classes of a mix that it asks for.
    pub fn outputs_for(&self, start: &Start) -> Result<Outputs> {
        self.outputs_with(start, start.edit.as_ref())
    }

    fn outputs_with(&self, start: &Start, edit: Option<&Edit>) -> Result<Outputs> {
        let mix = start.mixes.iter().map(Vec::len).max().unwrap_or(1).max(1);
        let known = |known: &Known| known.places.iter().filter(|known| **known).count();
        let (known_places, encodes) = match edit {
            None => (start.known.first().map_or(0, known), false),
            Some(edit) => {
                let known = edit.known_places(self)?;
                (known, known > 0)
            }
        };
        Ok(Outputs { known_places, encodes, mix, ..Outputs::IMAGE })
    }

    /// A session for `start`, begun with it; `edit` counts for its own.
    fn begun(
        &self,
        device: impl Into<Device>,
        request: &Request,
        start: &Start,
        edit: Option<&Edit>,
    ) -> Result<Session> {
        let outputs = self.outputs_with(start, edit)?;
        let mut session = self.session(device, request.classes.len(), &request.settings, outputs)?;
        session.begin_edit(&request.classes, &request.seeds, start, edit)?;
        Ok(session)
    }

    /// Runs a plan of this model.
    pub(super) fn run(
        &self,
        device: &Device,
        plan: Plan,
        fill: impl FnOnce(&mut Executor) -> Result<()>,
    ) -> Result<Executor> {
        let mut executor = Executor::alone(device, self.networks(), &plan)?;
        fill(&mut executor)?;
        executor.run_whole(&plan)?;
        Ok(executor)
    }

    /// L: places of a picture. A model of autoencoders only has those of the continuous tokens, if there are any, else of
    /// the discrete ones.
    pub fn places(&self) -> Result<usize> {
        let nets = self.networks();
        let levels = || {
            let vae = nets.vae.as_ref().map(|vae| vae.config.ch_mult.len());
            vae.or(nets.vq.as_ref().map(|vq| vq.config.channel_mult.len()))
        };
        nets.places().or_else(|none| levels().map(|levels| self.latent_places(levels)).ok_or(none))
    }
}

fn finish(mut session: Session) -> Result<Vec<Image>> {
    session.run(|_| ())?;
    session.images()
}

/// A picture made of a picture, or of its discrete tokens: [`Model::edit`], or in a session of the right
/// [`Outputs`](Model::outputs_for) [`Session::begin_with`] and [`Start::of`].
///
/// The picture is the model's size, but for [`Edit::Outpaint`]. Encoding it is the session's first stage,
/// [`Stage::Encode`](crate::plan::Stage::Encode).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Edit {
    /// Draws anew what `mask` covers. Outside of it each pixel stays exactly as it was.
    ///
    /// The model draws whole places (patches of pixels); a patch with one masked pixel is drawn, and only its masked pixels
    /// are taken. What is next to known places is drawn first ([`Order::FromKnown`]).
    Inpaint {
        /// The picture.
        image: Image,
        /// A value a pixel, line by line, true where the picture is to be new.
        mask: Vec<bool>,
    },
    /// Draws what lies around a smaller picture. Its pixels stay exactly as they are.
    Outpaint {
        /// The smaller picture.
        image: Image,
        /// Where its left edge is to be, in pixels.
        left: usize,
        /// Where its upper edge is to be.
        top: usize,
    },
    /// Draws a share of the places anew, chosen by each seed: pictures like it. All of the pixels come from the decoder.
    Redraw {
        /// The picture.
        image: Image,
        /// From 0 to 1; one place at least is drawn.
        share: f64,
    },
    /// Keeps a share of discrete tokens, chosen by each seed; the rest, and all continuous tokens, are drawn. With all of
    /// them kept the pictures differ only in what discrete tokens do not say.
    Variations {
        /// By place, as of [`Session::codes`] or [`Model::encode`].
        codes: Vec<u32>,
        /// From 0 to 1.
        share: f64,
    },
}

/// What is given of a batch, taken apart.
#[derive(Debug, Clone, Default)]
pub(super) struct Given<'a> {
    /// The picture of an edit, of the model's size. It is encoded if any of its tokens are `known`.
    picture: Option<Cow<'a, Image>>,
    /// Where the picture's pixels do not stay.
    mask: Option<Cow<'a, [bool]>>,
    /// By image and place whether the token is the picture's; none where all are drawn.
    pub(super) known: Vec<Vec<bool>>,
    /// By image and place.
    pub(super) codes: Cow<'a, [Vec<Option<u32>>]>,
}

impl Edit {
    /// The order that suits it.
    pub fn order(&self) -> Order {
        match self {
            Self::Inpaint { .. } | Self::Outpaint { .. } => Order::FromKnown,
            Self::Redraw { .. } | Self::Variations { .. } => Order::Random,
        }
    }

    /// Places that keep the tokens of the picture: the same count in each image.
    fn known_places(&self, model: &Model) -> Result<usize> {
        Ok(self.given(model, &[0])?.known.first().map_or(0, |known| known.iter().filter(|known| **known).count()))
    }

    /// What it gives of images with these seeds.
    pub(super) fn given(&self, model: &Model, seeds: &[u64]) -> Result<Given<'_>> {
        let places = model.places()?;
        match self {
            Self::Inpaint { image, mask } => {
                model.check_size(image)?;
                Given::masked(model, Cow::Borrowed(image), Cow::Borrowed(mask), seeds)
            }
            Self::Outpaint { image, left, top } => {
                let (image, mask) = around(model.image_size(), image, *left, *top)?;
                Given::masked(model, Cow::Owned(image), Cow::Owned(mask), seeds)
            }
            Self::Redraw { image, share } => {
                model.check_size(image)?;
                let count = share_of(*share, places)?.max(1);
                let known = |&seed: &u64| {
                    let mut known = vec![true; places];
                    chosen(seed, places, count).for_each(|place| known[place] = false);
                    known
                };
                Ok(Given::of(Cow::Borrowed(image), seeds.iter().map(known).collect()))
            }
            Self::Variations { codes, share } => {
                if codes.len() != places {
                    return Err(Error::input("codes", format!("{places} of them"), codes.len()));
                }
                let kept = share_of(*share, places)?;
                let given = |&seed: &u64| {
                    let mut given = vec![None; places];
                    chosen(seed, places, kept).for_each(|place| given[place] = Some(codes[place]));
                    given
                };
                Ok(Given { codes: seeds.iter().map(given).collect(), ..Given::default() })
            }
        }
    }
}

impl<'a> Given<'a> {
    /// Codes and no picture.
    pub(super) fn codes(codes: &'a [Vec<Option<u32>>]) -> Self {
        Self { codes: Cow::Borrowed(codes), ..Self::default() }
    }

    /// Tokens of `image` in the places that are known, if there are any.
    fn of(image: Cow<'a, Image>, mut known: Vec<Vec<bool>>) -> Self {
        if !known.iter().flatten().any(|known| *known) {
            known.clear();
        }
        Self { picture: Some(image), known, ..Self::default() }
    }

    /// Tokens of `image` in the places that no masked pixel touches, and its pixels outside of the mask.
    fn masked(model: &Model, image: Cow<'a, Image>, mask: Cow<'a, [bool]>, seeds: &[u64]) -> Result<Self> {
        let known = vec![unmasked(model, &mask)?; seeds.len()];
        Ok(Self { mask: Some(mask), ..Self::of(image, known) })
    }

    /// The picture to encode.
    pub(super) fn encoded(&self) -> Option<&Image> {
        self.picture.as_deref().filter(|_| !self.known.is_empty())
    }

    /// The picture whose pixels stay where the mask is false, to be kept.
    pub(super) fn kept(self) -> Result<Option<(Image, Vec<bool>)>> {
        let (Some(picture), Some(mask)) = (self.picture, self.mask) else { return Ok(None) };
        let picture = match picture {
            Cow::Borrowed(picture) => picture.copied()?,
            Cow::Owned(picture) => picture,
        };
        let mask = match mask {
            Cow::Borrowed(mask) => copied(mask)?,
            Cow::Owned(mask) => mask,
        };
        Ok(Some((picture, mask)))
    }
}

fn copied(mask: &[bool]) -> Result<Vec<bool>> {
    collected("a mask", mask.len(), mask.iter().copied())
}

/// The places that no masked pixel touches.
fn unmasked(model: &Model, mask: &[bool]) -> Result<Vec<bool>> {
    let (size, side) = (model.image_size(), model.places()?.isqrt());
    if mask.len() != size * size || !mask.contains(&true) {
        let expected = format!("{size} x {size} values, one at least true");
        let found = format!("{} values, {} true", mask.len(), mask.iter().filter(|m| **m).count());
        return Err(Error::input("mask", expected, found));
    }
    let patch = size / side;
    let mut known = vec![true; side * side];
    for (pixel, _) in mask.iter().enumerate().filter(|(_, masked)| **masked) {
        known[pixel / size / patch * side + pixel % size / patch] = false;
    }
    Ok(known)
}

/// A picture of `size` x `size` pixels with `image` in it, and the mask of what is around.
fn around(size: usize, image: &Image, left: usize, top: usize) -> Result<(Image, Vec<bool>)> {
    let fits = |at: usize, len: usize| at.checked_add(len).is_some_and(|end| end <= size);
    if !fits(left, image.width()) || !fits(top, image.height()) {
        let found = format!("{} x {} at ({left}, {top})", image.width(), image.height());
        return Err(Error::input("image", format!("a picture inside {size} x {size} pixels"), found));
    }
    if (image.width(), image.height()) == (size, size) {
        let expected = format!("a picture smaller than {size} x {size} pixels, with something around it to draw");
        return Err(Error::input("image", expected, "one of that size"));
    }
    // What is not known shows the nearest known pixel, so that the patches on the border encode to something near.
    let inside = |at: usize, first: usize, len: usize| at.clamp(first, first + len - 1) - first;
    let nearest = |pixel: usize| (inside(pixel / size, top, image.height()), inside(pixel % size, left, image.width()));
    let colour = |pixel: usize| {
        let (line, column) = nearest(pixel);
        image.rgb()[(line * image.width() + column) * 3..][..3].iter().copied()
    };
    let masked = |pixel: usize| {
        let (line, column) = nearest(pixel);
        (line + top, column + left) != (pixel / size, pixel % size)
    };
    let rgb = collected("a picture", size * size * 3, (0..size * size).flat_map(colour))?;
    Ok((Image::new(size, size, rgb)?, collected("a mask", size * size, (0..size * size).map(masked))?))
}

/// So many of the places, chosen by the seed.
fn chosen(seed: u64, places: usize, count: usize) -> impl Iterator<Item = usize> {
    sampling::order(!seed, places).into_iter().take(count).map(|place| place as usize)
}

fn share_of(share: f64, places: usize) -> Result<usize> {
    if !(0.0..=1.0).contains(&share) {
        return Err(Error::input("share", "a number from 0 to 1", share));
    }
    Ok((share * places as f64).round() as usize)
}
