//! What a session begins with, and what it refuses.

use super::edit::Given;
use super::program::Program;
use super::{Edit, Session};
use crate::error::{Error, Result};
use crate::sampling::Order;

/// What is given of a batch beside classes and seeds.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The order in which stage 2 draws the places.
    pub order: Order,
    /// Of each image, by place, the discrete token, or none for one that is drawn. Empty: all are drawn.
    pub codes: Vec<Vec<Option<u32>>>,
    /// Of each image, what is known of its continuous tokens; in a session without [`Outputs::known_places`](super::Outputs::known_places) empty.
    pub known: Vec<Known>,
    /// Of each image, the classes that it is mixed of and their weights: finite numbers from 0 on whose sum is more than 0,
    /// and is made 1. It is then of the weighted sum of their embeddings, and its class has to be one of the model's but
    /// counts for nothing; where there are none, its class it is. At most as many as [`Outputs::mix`](super::Outputs::mix).
    /// Empty: each image is of its class.
    pub mixes: Vec<Vec<(usize, f64)>>,
    /// A picture to make these of; `codes` and `known` are then empty. In a session of other outputs than
    /// [`Model::outputs_for`](super::Model::outputs_for) says, none.
    pub edit: Option<Edit>,
}

impl Start {
    /// An edit, in the order that suits it.
    pub fn of(edit: Edit) -> Self {
        Self { order: edit.order(), edit: Some(edit), ..Self::default() }
    }
}

/// What is known of an image's continuous tokens.
#[derive(Debug, Clone)]
pub struct Known {
    /// By place whether its token is known: [`Outputs::known_places`](super::Outputs::known_places) of them.
    pub places: Vec<bool>,
    /// `[L, C]` by place, as of [`Session::tokens`]; those of places that are not known are not looked at.
    pub tokens: Vec<f32>,
}

impl Session {
    /// Refuses a request that does not fit the session.
    pub(super) fn check(&self, classes: &[usize], seeds: &[u64]) -> Result<()> {
        let (batch, known) = (self.program.batch, self.model.config().classes.len());
        if classes.len() != batch || seeds.len() != batch {
            let found = format!("{} classes and {} seeds", classes.len(), seeds.len());
            return Err(Error::input("request", format!("{batch} classes and {batch} seeds"), found));
        }
        // `known` itself is "no class".
        if let Some(class) = classes.iter().find(|&&c| c > known) {
            return Err(Error::input("class", format!("a number below {known}, or {known} for no class"), class));
        }
        Ok(())
    }

    /// Refuses codes that are not of `places` places or not the model's.
    pub(super) fn check_codes_of(
        &self,
        image: usize,
        places: usize,
        n: usize,
        codes: impl Iterator<Item = u32>,
    ) -> Result<()> {
        let (what, limit) = (|| format!("codes of image {image}"), self.model.networks().codes());
        if n != places {
            return Err(Error::input(what(), format!("{places} of them"), n));
        }
        match codes.into_iter().find(|&code| code as usize >= limit) {
            Some(code) => Err(Error::input(what(), format!("numbers below {limit}"), code)),
            None => Ok(()),
        }
    }

    pub(super) fn check_codes(&self, codes: &[Vec<Option<u32>>]) -> Result<()> {
        let Program { batch, places, .. } = self.program;
        if !codes.is_empty() && !self.program.has_codes() {
            let found = format!("those of {} images", codes.len());
            return Err(Error::input("codes", "none: this model and these outputs have no discrete tokens", found));
        }
        if !codes.is_empty() && codes.len() != batch {
            return Err(Error::input("codes", format!("those of {batch} images, or none"), codes.len()));
        }
        for (image, codes) in codes.iter().enumerate() {
            self.check_codes_of(image, places, codes.len(), codes.iter().flatten().copied())?;
            if self.program.takes_codes() && codes.contains(&None) {
                let expected = "those of all places, as `given_codes` says";
                return Err(Error::input(format!("codes of image {image}"), expected, "some to draw"));
            }
        }
        Ok(())
    }

    /// Refuses classes and weights that do not fit the session.
    pub(super) fn check_mixes(&self, mixes: &[Vec<(usize, f64)>]) -> Result<()> {
        let (Program { batch, mix: most, .. }, known) = (&self.program, self.model.config().classes.len());
        if !mixes.is_empty() && mixes.len() != *batch {
            return Err(Error::input("mixes", format!("those of {batch} images, or none"), mixes.len()));
        }
        for (image, mix) in mixes.iter().enumerate() {
            let what = format!("classes of image {image}");
            if mix.len() > *most {
                return Err(Error::input(what, format!("{most} at most, as `mix` says"), mix.len()));
            }
            if let Some((class, _)) = mix.iter().find(|(class, _)| *class > known) {
                return Err(Error::input(what, format!("numbers below {known}, or {known} for no class"), class));
            }
            let sum: f64 = mix.iter().map(|(_, weight)| weight).sum();
            if let Some((_, weight)) = mix.iter().find(|(_, weight)| !(*weight >= 0.0 && weight.is_finite())) {
                let what = format!("weights of image {image}");
                return Err(Error::input(what, "finite numbers, none below 0", weight));
            }
            if !(mix.is_empty() || sum > 0.0 && sum.is_finite()) {
                let what = format!("weights of image {image}");
                return Err(Error::input(what, "a finite sum above 0", sum));
            }
        }
        Ok(())
    }

    /// Refuses an edit in a session that was not made for it, and the other way round.
    pub(super) fn check_encoded(&self, given: &Given) -> Result<()> {
        let says = |encodes| if encodes { "an edit with known places of a picture" } else { "no picture to encode" };
        let (expected, found) = (self.program.encodes(), given.encoded().is_some());
        if expected != found {
            return Err(Error::input("request", format!("{}, as `encodes` says", says(expected)), says(found)));
        }
        Ok(())
    }

    /// Refuses known places that are not as many as the session was made for; those of a picture are `of_picture`.
    pub(super) fn check_known(&self, Start { known, .. }: &Start, of_picture: &[Vec<bool>]) -> Result<()> {
        let Program { batch, places, .. } = self.program;
        let (count, width) = self.program.known().unwrap_or_default();
        let images = if count == 0 { 0 } else { batch };
        let found = if of_picture.is_empty() { known.len() } else { of_picture.len() };
        if found != images {
            let expected = format!("those of {images} images, as `known_places` is {count}");
            return Err(Error::input("known places", expected, found));
        }
        let each = known.iter().map(|known| &known.places).chain(of_picture);
        for (image, each) in each.enumerate() {
            let found = each.iter().filter(|known| **known).count();
            if (each.len(), found) != (places, count) {
                let (what, found) = (format!("known places of image {image}"), format!("{found} of {}", each.len()));
                return Err(Error::input(what, format!("{count} of {places}"), found));
            }
        }
        for (image, known) in known.iter().enumerate() {
            let what = |what: &str| format!("{what} of image {image}");
            if known.tokens.len() != places * width {
                let expected = format!("{places} tokens of {width} numbers");
                return Err(Error::input(what("tokens"), expected, format!("{} numbers", known.tokens.len())));
            }
            if let Some(x) = known.tokens.iter().find(|x| !x.is_finite()) {
                return Err(Error::input(what("tokens"), "finite numbers", x));
            }
        }
        Ok(())
    }
}
