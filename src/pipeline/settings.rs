//! What a request can set, and what a session makes.

use crate::error::{Error, Result};
use crate::weights::{CLIP, GuidanceSchedule, SETTING, SamplingConfig};

/// What a request can set; the model's config has the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Stage 1 guidance; 1 is none.
    pub discrete_guidance: f64,
    /// How late stage 1's guidance rises.
    pub discrete_guidance_pow: f64,
    /// Stage 1 temperature.
    pub discrete_temperature: f64,
    /// Rounds of stage 2.
    pub rounds: usize,
    /// Diffusion steps of the head.
    pub steps: usize,
    /// Stage 2 guidance; 1 is none.
    pub guidance: f64,
    /// Whether stage 2's guidance rises with the share of known places.
    pub guidance_schedule: GuidanceSchedule,
    /// Factor of the diffusion's noise.
    pub temperature: f64,
    /// Bound of the head's estimate of the clean token.
    pub clip_x0: Option<f32>,
}

impl From<&SamplingConfig> for Settings {
    fn from(c: &SamplingConfig) -> Self {
        Self {
            discrete_guidance: c.rar.guidance,
            discrete_guidance_pow: c.rar.guidance_pow,
            discrete_temperature: c.rar.temperature,
            rounds: c.discon.ar_steps,
            steps: c.discon.diffusion_steps,
            guidance: c.discon.guidance,
            guidance_schedule: c.discon.guidance_schedule,
            temperature: c.discon.temperature,
            clip_x0: c.discon.clip_x0,
        }
    }
}

impl Settings {
    /// [`Error::Setting`] for the first setting out of range: for an image that `places` tokens make, with a head that was
    /// trained for `train_steps`.
    pub fn check(&self, places: usize, train_steps: usize) -> Result<()> {
        self.check_discrete()?;
        self.check_continuous(places, train_steps)
    }

    /// Those of stage 1.
    pub(super) fn check_discrete(&self) -> Result<()> {
        range("discrete_guidance", self.discrete_guidance, SETTING, false)?;
        range("discrete_guidance_pow", self.discrete_guidance_pow, SETTING, true)?;
        range("discrete_temperature", self.discrete_temperature, SETTING, true)
    }

    /// Those of stage 2.
    pub(super) fn check_continuous(&self, places: usize, train_steps: usize) -> Result<()> {
        let count = |name, n: usize, most: usize| {
            if (1..=most).contains(&n) { Ok(()) } else { Err(Error::setting(name, format!("1 to {most}"), n)) }
        };
        count("rounds", self.rounds, places)?;
        count("steps", self.steps, train_steps)?;
        range("guidance", self.guidance, SETTING, false)?;
        range("temperature", self.temperature, SETTING, false)?;
        self.clip_x0.map_or(Ok(()), |c| range("clip_x0", f64::from(c), f64::from(CLIP), true))
    }
}

/// Refuses what is not from 0 to `high`, or where `open` is true what is not above 0.
fn range(name: &'static str, x: f64, high: f64, open: bool) -> Result<()> {
    let inside = x.is_finite() && x <= high && if open { x > 0.0 } else { x >= 0.0 };
    let expected = || format!("a number {} 0 and at most {high}", if open { "above" } else { "from" });
    if inside { Ok(()) } else { Err(Error::setting(name, expected(), x)) }
}

/// What a session is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outputs {
    /// The image.
    pub image: bool,
    /// The coarse picture that the discrete tokens' own decoder makes after stage 1.
    pub preview: bool,
    /// Makes only so many discrete tokens of each image, and takes 0 for all others: a measurement of speed that does
    /// not wait for the whole of stage 1. The images are worth nothing. `None` is all, and what there must be where none
    /// are drawn.
    pub discrete_tokens: Option<usize>,
    /// The caller gives the discrete tokens, by [`Session::begin_with_codes`](super::Session::begin_with_codes): stage 1
    /// does not run, and its weights are not needed. Not with `encodes`.
    pub given_codes: bool,
    /// So many places of each image are not drawn: [`Session::begin_with`](super::Session::begin_with) says which, and
    /// gives their tokens. Fewer than all.
    pub known_places: usize,
    /// Tokens and codes of the known places are those of a picture, which the session encodes as its first stage: it begins
    /// with an [`Edit`](super::Edit) that needs that, and with nothing else.
    pub encodes: bool,
    /// Each image may be of so many classes with weights, [`Start::mixes`](super::Start::mixes): at least 1, at most
    /// [`Outputs::MOST_MIXED`].
    pub mix: usize,
    /// Pictures of what is drawn so far, while stage 2 runs: [`Session::preview_now`](super::Session::preview_now). They
    /// take memory of their own. With `preview` too, what is not drawn yet shows the coarse picture, which the session
    /// encodes for that.
    pub partial_previews: bool,
}

impl Outputs {
    /// The image.
    pub const IMAGE: Self = Self {
        image: true,
        preview: false,
        discrete_tokens: None,
        given_codes: false,
        known_places: 0,
        encodes: false,
        mix: 1,
        partial_previews: false,
    };
    /// The image, and the coarse picture before it.
    pub const IMAGE_AND_PREVIEW: Self = Self { preview: true, ..Self::IMAGE };
    /// The coarse picture only: the lossy way that DisCon replaces.
    pub const DISCRETE_ONLY: Self = Self { image: false, ..Self::IMAGE_AND_PREVIEW };
    /// Classes that one image may be mixed of.
    pub const MOST_MIXED: usize = 64;
}
