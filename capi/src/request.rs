//! Settings, requests, and what is given of a batch beside them.

use crate::model::ModelHandle;
use crate::sized::{self, size_first};
use crate::status::{Failure, Result, Status, collected, guard, slice};
use discon::weights::GuidanceSchedule as Schedule;
use discon::{Error, Known, Model, Order as Drawn, Start as Given};

/// How to generate.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Settings {
    /// Bytes of this struct: what `discon_settings_init` puts here.
    pub size: usize,
    /// Stage 1 guidance; 1 is none.
    pub discrete_guidance: f64,
    /// How late stage 1's guidance rises.
    pub discrete_guidance_pow: f64,
    /// Stage 1 temperature.
    pub discrete_temperature: f64,
    /// Stage 2 guidance; 1 is none.
    pub guidance: f64,
    /// Factor of the diffusion's noise.
    pub temperature: f64,
    /// Bound of the head's estimate of the clean token; 0 is none.
    pub clip_x0: f64,
    /// Rounds of stage 2.
    pub rounds: u32,
    /// Diffusion steps of the head.
    pub steps: u32,
    /// A discon_guidance_schedule.
    pub guidance_schedule: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Settings, "settings", {
    discrete_guidance: 1.0, discrete_guidance_pow: 1.0, discrete_temperature: 1.0, guidance: 1.0, temperature: 1.0, clip_x0: 0.0, rounds: 1,
    steps: 1, guidance_schedule: 0, reserved: 0,
});

/// How stage 2's guidance goes through the rounds.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum GuidanceSchedule {
    /// Grows with the share of places that are known.
    Linear = 0,
    /// The same in every round.
    Constant = 1,
}

/// In which order stage 2 draws the places.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum Order {
    /// By the seed: what models are trained for.
    Random = 0,
    /// Line by line from the top left.
    Raster = 1,
    /// From the centre out.
    CentreOut = 2,
    /// From the known places on; without known places as random.
    FromKnown = 3,
}

/// The class of an image of no class.
pub const NO_CLASS: u32 = u32::MAX;
/// The code of a discrete token that is drawn.
pub const NO_CODE: u32 = u32::MAX;

/// What to generate.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    /// Bytes of this struct: what `discon_request_init` puts here.
    pub size: usize,
    /// Images.
    pub count: usize,
    /// The class of each, or DISCON_NO_CLASS.
    pub classes: *const u32,
    /// The seed of each.
    pub seeds: *const u64,
    /// How; null is as the model asks for.
    pub settings: *const Settings,
}

size_first!(Request, "request", {
    count: 0, classes: std::ptr::null(), seeds: std::ptr::null(), settings: std::ptr::null(),
});

/// What is given of a batch beside classes and seeds. What is null, with a count of 0, is not given.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// Bytes of this struct: what `discon_start_init` puts here.
    pub size: usize,
    /// Discrete tokens: images * places, image by image; DISCON_NO_CODE for those that are drawn.
    pub codes: *const u32,
    /// How many.
    pub codes_count: usize,
    /// Whether the continuous token of a place is known (not 0): images * places, image by image, of each image as many known ones as
    /// the session's `known_places`.
    pub known: *const u8,
    /// How many.
    pub known_count: usize,
    /// Continuous tokens: images * places * channels, image by image, place by place. Those not known are not looked at.
    pub tokens: *const f32,
    /// How many numbers.
    pub tokens_count: usize,
    /// Classes that images are mixed of: images * as many as each is mixed of, the session's `mix` at most.
    pub mix_classes: *const u32,
    /// The weight of each, from 0 on; only their ratios count. An image whose weights are all 0 is of its class.
    pub mix_weights: *const f64,
    /// How many.
    pub mix_count: usize,
    /// The order in which stage 2 draws places: a discon_order.
    pub order: u32,
    /// Zero.
    pub reserved: u32,
}

size_first!(Start, "start", {
    codes: std::ptr::null(), codes_count: 0, known: std::ptr::null(), known_count: 0, tokens: std::ptr::null(), tokens_count: 0, mix_classes: std::ptr::null(), mix_weights: std::ptr::null(), mix_count: 0,
    order: 0,
    reserved: 0,
});

impl Settings {
    pub(crate) fn of(settings: &discon::Settings) -> Self {
        Self {
            size: size_of::<Self>(),
            discrete_guidance: settings.discrete_guidance,
            discrete_guidance_pow: settings.discrete_guidance_pow,
            discrete_temperature: settings.discrete_temperature,
            guidance: settings.guidance,
            temperature: settings.temperature,
            clip_x0: settings.clip_x0.map_or(0.0, f64::from),
            rounds: count(settings.rounds),
            steps: count(settings.steps),
            guidance_schedule: match settings.guidance_schedule {
                Schedule::Linear => GuidanceSchedule::Linear,
                Schedule::Constant => GuidanceSchedule::Constant,
            } as u32,
            reserved: 0,
        }
    }

    /// The caller's settings; null is the model's.
    ///
    /// # Safety
    /// As of [`sized::read`].
    pub(crate) unsafe fn read(from: *const Self, model: &Model) -> Result<discon::Settings> {
        let default = model.settings();
        if from.is_null() {
            return Ok(default);
        }
        // SAFETY: as the caller says.
        let given = unsafe { sized::read_or(from, Self::of(&default))? };
        sized::reserved(&given, given.reserved)?;
        Ok(discon::Settings {
            discrete_guidance: given.discrete_guidance,
            discrete_guidance_pow: given.discrete_guidance_pow,
            discrete_temperature: given.discrete_temperature,
            rounds: given.rounds as usize,
            steps: given.steps as usize,
            guidance: given.guidance,
            guidance_schedule: match given.guidance_schedule {
                0 => Schedule::Linear,
                1 => Schedule::Constant,
                other => return Err(Error::setting("guidance_schedule", "a discon_guidance_schedule", other).into()),
            },
            temperature: given.temperature,
            clip_x0: (given.clip_x0 != 0.0).then_some(given.clip_x0 as f32),
        })
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Classes and seeds as the engine takes them.
///
/// # Safety
/// Both are null or valid for reads of `count` values.
pub(crate) unsafe fn classes_and_seeds<'a>(
    model: &Model,
    (classes, seeds): (*const u32, *const u64),
    count: usize,
) -> Result<(Vec<usize>, &'a [u64])> {
    // SAFETY: as the caller says.
    let (classes, seeds) = unsafe { (slice(classes, count, "classes")?, slice(seeds, count, "seeds")?) };
    let none = model.config().classes.len();
    let class = |&class: &u32| Ok(if class == NO_CLASS { none } else { class as usize });
    Ok((collected(classes.iter().map(class), "classes")?, seeds))
}

impl Request {
    /// # Safety
    /// As of [`sized::read`], and its pointers are null or valid for reads of what it says.
    pub(crate) unsafe fn read(from: *const Self, model: &Model) -> Result<discon::Request> {
        // SAFETY: as the caller says.
        unsafe {
            let given = sized::read(from)?;
            let (classes, seeds) = classes_and_seeds(model, (given.classes, given.seeds), given.count)?;
            let seeds = collected(seeds.iter().copied().map(Ok), "seeds")?;
            Ok(discon::Request { classes, seeds, settings: Settings::read(given.settings, model)? })
        }
    }
}

impl Start {
    /// What is given to `images` images of `places` places. Null is nothing.
    ///
    /// # Safety
    /// As of [`sized::read`], and its pointers are null or valid for reads of what it says.
    pub(crate) unsafe fn read(from: *const Self, images: usize, places: usize) -> Result<Given> {
        if from.is_null() {
            return Ok(Given::default());
        }
        // SAFETY: as the caller says.
        let (given, codes, known, tokens, mixes) = unsafe {
            let given = sized::read(from)?;
            sized::reserved(&given, given.reserved)?;
            let codes = slice(given.codes, given.codes_count, "codes")?;
            let known = slice(given.known, given.known_count, "known places")?;
            let tokens = slice(given.tokens, given.tokens_count, "tokens")?;
            let classes = slice(given.mix_classes, given.mix_count, "classes of mixes")?;
            (given, codes, known, tokens, (classes, slice(given.mix_weights, given.mix_count, "weights of mixes")?))
        };
        if images == 0 {
            return Err(Error::input("count", "one image at least", 0).into());
        }
        let fits = |what: &str, n: usize| -> Result<()> {
            let all = images.checked_mul(places);
            if n == 0 || Some(n) == all {
                return Ok(());
            }
            Err(Error::input(what, format!("{images} images of {places} places, or none"), n).into())
        };
        fits("codes", codes.len())?;
        fits("known places", known.len())?;
        if (known.is_empty() && !tokens.is_empty()) || (!known.is_empty() && !tokens.len().is_multiple_of(images)) {
            let expected = format!("those of {images} images, with their known places");
            return Err(Failure::Engine(Error::input("tokens", expected, format!("{} numbers", tokens.len()))));
        }
        if !mixes.0.len().is_multiple_of(images) {
            let expected = format!("as many for each of {images} images");
            return Err(Error::input("classes of mixes", expected, mixes.0.len()).into());
        }
        let mix = |image: usize| {
            let of = image * mixes.0.len() / images..(image + 1) * mixes.0.len() / images;
            let all = mixes.0[of.clone()].iter().zip(&mixes.1[of]);
            // What is not 0 is the engine's to refuse.
            let all = all.filter(|(_, weight)| **weight != 0.0).map(|(&class, &weight)| Ok((class as usize, weight)));
            collected(all, "classes of mixes")
        };
        let code = |&code: &u32| Ok((code != NO_CODE).then_some(code));
        let codes = codes.chunks(places.max(1)).map(|codes| collected(codes.iter().map(code), "codes"));
        let known = known.chunks(places.max(1)).enumerate().map(|(image, known)| {
            let width = tokens.len() / images;
            let tokens = tokens[image * width..][..width].iter().copied().map(Ok);
            Ok(Known {
                places: collected(known.iter().map(|&known| Ok(known != 0)), "known places")?,
                tokens: collected(tokens, "tokens")?,
            })
        });
        Ok(Given {
            order: match given.order {
                0 => Drawn::Random,
                1 => Drawn::Raster,
                2 => Drawn::CentreOut,
                3 => Drawn::FromKnown,
                other => return Err(Error::input("order", "a discon_order", other).into()),
            },
            codes: collected(codes, "codes")?,
            known: collected(known, "known places")?,
            mixes: if mixes.0.is_empty() { Vec::new() } else { collected((0..images).map(mix), "classes of mixes")? },
            edit: None,
        })
    }
}

/// Makes a request of `size` bytes (`sizeof`) for no images.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_request_init(request: *mut Request, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(request, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a start of `size` bytes (`sizeof`) that gives nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_start_init(start: *mut Start, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(start, size, &sized::SizeFirst::DEFAULT) })
}

/// The model of a handle.
///
/// # Safety
/// As of [`get`](crate::status::get).
pub(crate) unsafe fn model<'a>(handle: *const ModelHandle) -> Result<&'a Model> {
    // SAFETY: as the caller says.
    Ok(&unsafe { crate::status::get(handle, "model")? }.model)
}
