//! Compiles the whole graph for a batch: which segments run, where inputs and results lie.

use super::model::{Networks, needed};
use super::{Executor, Image, Outputs, Settings};
use crate::error::{Error, Result};
use crate::model::{Draws, HeadSettings, MaskedInputs, Mix, RoundSettings, Sequences, Tail};
use crate::ops::{Source, SumRows, TokenDraw};
use crate::plan::{Builder, Plan, Stage, View};
use crate::sampling;
use crate::tensor::{Layout, collected};
use crate::weights::{DISCON_FILE, RAR_FILE, VAE_FILE, VQ_FILE};
use std::ops::Range;

/// Random numbers given from outside, for checks against known answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given {
    /// `[B, L, C]`, by slot
    pub(crate) start: View,
    /// `[steps B, L, C]`, by slot
    pub(crate) noise: View,
}

/// The discrete tokens of a plan.
#[allow(clippy::large_enum_variant, reason = "one a program")]
#[derive(Debug, Clone, Copy)]
enum Discrete {
    /// Stage 1's sequences and its draws `[B, L]`.
    Drawn(Sequences, View),
    /// An input: `[B, L, 1]`.
    Given(View),
}

impl Discrete {
    /// `[B, L, 1]`
    fn codes(&self) -> View {
        match self {
            Self::Drawn(sequences, _) => sequences.codes(),
            Self::Given(codes) => *codes,
        }
    }
}

/// A plan and where its inputs and results lie.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) plan: Plan,
    pub(crate) batch: usize,
    pub(super) places: usize,
    discrete: Option<Discrete>,
    continuous: Option<Continuous>,
    /// `[B, P, 3]`, in `[0, 1]`
    pub(crate) preview: Option<View>,
    /// `[B, P, 3]`, in [-1, 1]
    pub(crate) image: Option<View>,
    pub(crate) given: Option<Given>,
    /// Classes that an image may be mixed of.
    pub(super) mix: usize,
    /// `[B, L, C]` by place: the tokens of the coarse picture, for previews.
    pub(super) coarse: Option<View>,
    /// The slots that each round of stage 2 draws.
    pub(super) rounds: Vec<Range<usize>>,
    picture: Option<Picture>,
}

/// The inputs of a picture that the plan encodes.
#[derive(Debug, Clone, Copy)]
struct Picture {
    /// `[1, P, 3]`, in [-1, 1]
    pixels: View,
    codes: Option<PictureCodes>,
}

/// Where the codes of a picture become draws of stage 1.
#[derive(Debug, Clone, Copy)]
struct PictureCodes {
    /// `[1, P, 3]`, in [0, 1]
    pixels: View,
    /// `[B, 2 L, 1]`: the draws of the seeds, and what gives the picture's codes.
    choices: View,
    /// `[B, L, 1]` of i32: which of the choices the draw of each place is.
    picks: View,
}

#[derive(Debug, Clone, Copy)]
struct Continuous {
    /// `[B, 1, 1]`
    classes: View,
    mix: Option<Mix>,
    /// `[halves B, L, 1]`
    order: View,
    /// `[B, L, 1]`: the slot of each place
    slots: View,
    /// `[B, 1, 2]`
    seeds: View,
    /// `[B, L, C]`, by slot: known ones are the last
    tokens: View,
    known: usize,
}

impl Program {
    /// Compiles `outputs` for a batch. With `given`, starts and noise are inputs instead of drawn from seeds.
    pub(crate) fn new(
        nets: &Networks,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
        given: bool,
    ) -> Result<Self> {
        if batch == 0 || batch > MAX_BATCH {
            return Err(Error::setting("batch", format!("1 to {MAX_BATCH}"), batch));
        }
        let places = nets.places()?;
        settings.check_discrete()?;
        if let (true, Some(masked)) = (outputs.image, &nets.masked) {
            settings.check_continuous(places, masked.config.head.train_steps)?;
        }
        if !(1..=Outputs::MOST_MIXED).contains(&outputs.mix) {
            return Err(Error::setting("mix", format!("1 to {}", Outputs::MOST_MIXED), outputs.mix));
        }
        if outputs.known_places >= places || (outputs.known_places > 0 && !outputs.image) {
            let expected = format!("fewer than {places}, and 0 without an image");
            return Err(Error::setting("known_places", expected, outputs.known_places));
        }
        if outputs.encodes && outputs.known_places == 0 {
            return Err(Error::setting("encodes", "false where no places are known", true));
        }
        if outputs.partial_previews && !outputs.image {
            return Err(Error::setting("partial_previews", "false without an image", true));
        }
        let mut b = Builder::new();
        let prefixed = nets.masked.as_ref().is_some_and(|m| m.config.discrete);
        let wants_codes = outputs.preview || prefixed;
        let made = outputs.discrete_tokens.unwrap_or(places);
        if !(1..=places).contains(&made) {
            return Err(Error::setting("tokens", format!("1 to {places}"), made));
        }
        let discrete = match (wants_codes, outputs.given_codes) {
            (true, false) => Some(Self::discrete(&mut b, nets, batch, settings, outputs.mix)?),
            (true, true) => Some(Discrete::Given(b.kept(batch * places, 1)?.grouped(batch))),
            (false, false) => None,
            (false, true) => {
                let expected = "false, since this model and these outputs have no use for discrete tokens";
                return Err(Error::setting("given_codes", expected, true));
            }
        };
        if let (Some(found), None | Some(Discrete::Given(_))) = (outputs.discrete_tokens, &discrete) {
            return Err(Error::setting("discrete_tokens", "none where no discrete tokens are drawn", found));
        }
        if outputs.given_codes && outputs.encodes {
            let expected = "false where a picture is encoded, whose codes are taken";
            return Err(Error::setting("given_codes", expected, true));
        }
        let mut program = Self {
            plan: Plan::default(),
            batch,
            places,
            discrete,
            continuous: None,
            preview: None,
            image: None,
            given: None,
            mix: outputs.mix,
            rounds: sampling::rounds(places - outputs.known_places, settings.rounds).into_iter().map(|r| r.1).collect(),
            coarse: None,
            picture: None,
        };
        if outputs.image {
            program.continuous = Some(Self::inputs(&mut b, nets, batch, settings, outputs)?);
        }
        if outputs.encodes {
            program.encode(&mut b, nets, prefixed)?;
        }
        if let (Some(Discrete::Drawn(sequences, uniforms)), Some(rar)) = (&program.discrete, &nets.rar) {
            let tail = Tail::Draw {
                uniforms: *uniforms,
                guidance: settings.discrete_guidance,
                guidance_pow: settings.discrete_guidance_pow,
                temperature: settings.discrete_temperature,
            };
            rar.plan(&mut b, sequences, made, tail)?;
        }
        if let (true, Some(discrete)) = (outputs.preview, &program.discrete) {
            let vq = needed(&nets.vq, VQ_FILE, "the coarse picture")?;
            let image = b.kept(batch * vq.image_size(places).pow(2), 3)?.grouped(batch);
            vq.plan_decode(&mut b, discrete.codes(), image)?;
            program.preview = Some(image);
            if outputs.partial_previews {
                let vae = needed(&nets.vae, VAE_FILE, "pixels")?;
                let tokens = b.kept(batch * places, vae.config.z_channels)?.grouped(batch);
                vae.plan_tokens_of(&mut b, image, tokens)?;
                program.coarse = Some(tokens);
            }
        }
        if let Some(inputs) = program.continuous {
            program.continuous(&mut b, nets, settings, inputs, given)?;
        }
        program.plan = b.finish()?;
        Ok(program)
    }

    /// The buffers of stage 1.
    fn discrete(b: &mut Builder, nets: &Networks, batch: usize, settings: &Settings, mix: usize) -> Result<Discrete> {
        let rar = needed(&nets.rar, RAR_FILE, "stage 1, the discrete tokens,")?;
        let places = rar.config.seq_len;
        let halves = if settings.discrete_guidance == 1.0 || settings.discrete_guidance == 0.0 { 1 } else { 2 };
        let sequences = Sequences::new(b, batch, halves, places)?.mixing(b, mix)?;
        Ok(Discrete::Drawn(sequences, b.kept(batch, places)?))
    }

    /// The buffers of stage 2.
    fn inputs(
        b: &mut Builder,
        nets: &Networks,
        batch: usize,
        settings: &Settings,
        outputs: Outputs,
    ) -> Result<Continuous> {
        let masked = needed(&nets.masked, DISCON_FILE, "stage 2, the continuous tokens,")?;
        let (places, c) = (masked.config.seq_len, masked.config.token_dim);
        let halves = if settings.guidance == 1.0 { 1 } else { 2 };
        Ok(Continuous {
            classes: b.kept(batch, 1)?.grouped(batch),
            mix: if outputs.mix > 1 { Some(Mix::new(b, batch, outputs.mix)?) } else { None },
            order: b.kept(halves * batch * places, 1)?.grouped(halves * batch),
            slots: b.kept(batch * places, 1)?.grouped(batch),
            seeds: b.kept(batch, 2)?.grouped(batch),
            tokens: b.kept(batch * places, c)?.grouped(batch),
            known: outputs.known_places,
        })
    }

    /// Encodes one picture for all images: its tokens go into the slots of the known places, its codes among the draws of
    /// stage 1, if `prefixed` says that stage 2 reads them.
    fn encode(&mut self, b: &mut Builder, nets: &Networks, prefixed: bool) -> Result<()> {
        let Some(inputs) = self.continuous else { return Ok(()) };
        let (batch, places) = (self.batch, self.places);
        let vae = needed(&nets.vae, VAE_FILE, "the continuous tokens of a picture")?;
        let pixels = b.kept(vae.image_size(places).pow(2), 3)?;
        b.scope(|b| {
            let mut latents = || b.scratch(places, vae.config.z_channels);
            let [mean, log_variance, tokens] = [latents()?, latents()?, latents()?];
            vae.plan_encode(b, pixels, mean, log_variance)?;
            vae.plan_tokens(b, mean, tokens);
            let known = places - inputs.known..places;
            let ids = inputs.order.groups(0..batch).rows(known.clone());
            let rows = tokens.repeated(batch);
            b.push(SumRows::new([Source::Gather { rows, ids }], inputs.tokens.rows(known)));
            Ok(())
        })?;
        let codes = match self.discrete {
            Some(Discrete::Drawn(_, uniforms)) if prefixed => {
                let vq = needed(&nets.vq, VQ_FILE, "the discrete tokens of a picture")?;
                let pixels = b.kept(vq.image_size(places).pow(2), 3)?;
                let choices = b.kept(batch * 2 * places, 1)?.grouped(batch);
                let picks = b.kept(batch * places, 1)?.grouped(batch);
                let given: Vec<f32> = (0..vq.config.codebook_size as u32).map(TokenDraw::given).collect();
                let given = b.constant(&given, 1)?.repeated(batch);
                b.scope(|b| {
                    let codes = b.scratch(places, 1)?;
                    vq.plan_encode(b, pixels, codes)?;
                    let of_picture = Source::Gather { rows: given, ids: codes.repeated(batch) };
                    b.push(SumRows::new([of_picture], choices.rows(places..2 * places)));
                    let each = Layout { groups: batch, rows: places, cols: 1, group_stride: places, row_stride: 1 };
                    b.push(SumRows::new([Source::Gather { rows: choices, ids: picks }], uniforms.relaid(each)));
                    Ok(())
                })?;
                Some(PictureCodes { pixels, choices, picks })
            }
            _ => None,
        };
        self.picture = Some(Picture { pixels, codes });
        Ok(())
    }

    fn continuous(
        &mut self,
        b: &mut Builder,
        nets: &Networks,
        settings: &Settings,
        inputs: Continuous,
        given: bool,
    ) -> Result<()> {
        let masked = needed(&nets.masked, DISCON_FILE, "stage 2, the continuous tokens,")?;
        let vae = needed(&nets.vae, VAE_FILE, "pixels")?;
        let (batch, places, c) = (self.batch, self.places, masked.config.token_dim);
        let draws = if given {
            let start = b.kept(batch * places, c)?.grouped(batch);
            let noise = b.kept(settings.steps * batch * places, c)?;
            self.given = Some(Given { start, noise });
            let noise = noise.rows(0..batch * places).grouped(batch);
            Draws::Given { start, noise, step_words: batch * places * c }
        } else {
            Draws::Seeded { seeds: inputs.seeds, places: inputs.order.groups(0..batch) }
        };
        let rounds = RoundSettings {
            rounds: settings.rounds,
            known: inputs.known,
            guidance: settings.guidance,
            schedule: settings.guidance_schedule,
            head: HeadSettings {
                steps: settings.steps,
                temperature: settings.temperature as f32,
                clip_x0: settings.clip_x0,
            },
        };
        // Where stage 2 has no discrete prefix its plan never reads the codes: any view of that shape will do.
        let codes = self.discrete.as_ref().map_or(inputs.slots, Discrete::codes);
        let Continuous { classes, mix, order, .. } = inputs;
        let read = MaskedInputs { batch, halves: order.layout.groups / batch, classes, mix, codes, order };
        let tokens = inputs.tokens;
        masked.plan(b, &read, &draws, &rounds, tokens)?;

        let image = b.kept(batch * vae.image_size(places).pow(2), 3)?.grouped(batch);
        b.scope(|b| {
            let raster = b.scratch(batch * places, c)?.grouped(batch);
            let latents = b.scratch(batch * places, c)?.grouped(batch);
            b.segment(Stage::Decode, 0, 1);
            b.push(SumRows::new([Source::Gather { rows: tokens, ids: inputs.slots }], raster));
            vae.plan_latents(b, raster, latents);
            vae.plan_decode(b, latents, image)
        })?;
        self.image = Some(image);
        Ok(())
    }

    /// Puts the classes in place, and what follows from the seeds.
    pub(crate) fn fill(
        &self,
        to: &mut Executor,
        nets: &Networks,
        classes: &[usize],
        seeds: &[u64],
        orders: &[i32],
    ) -> Result<()> {
        let uniforms = seeds.iter().flat_map(|&s| sampling::uniforms(s, self.places));
        let uniforms = collected("the draws of the seeds", seeds.len() * self.places, uniforms)?;
        self.fill_classes(to, nets, classes)?;
        self.fill_uniforms(to, &uniforms)?;
        self.fill_orders(to, orders)?;
        let halves: Vec<u32> = seeds.iter().flat_map(|&s| [s as u32, (s >> 32) as u32]).collect();
        self.continuous.as_ref().map_or(Ok(()), |inputs| to.write(inputs.seeds, &halves))
    }

    /// Puts the classes in place; `num_classes` is "no class".
    pub(crate) fn fill_classes(&self, to: &mut Executor, nets: &Networks, classes: &[usize]) -> Result<()> {
        if let (Some(Discrete::Drawn(sequences, _)), Some(rar)) = (&self.discrete, &nets.rar) {
            let none = rar.class_id(rar.config.num_classes);
            let ids = classes.iter().flat_map(|&class| sequences.start(rar.class_id(class), none));
            let words = sequences.ids.count() * sequences.ids.cols();
            to.write(sequences.ids, &collected("the discrete sequences", words, ids)?)?;
        }
        let classes: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
        self.continuous.as_ref().map_or(Ok(()), |inputs| to.write(inputs.classes, &classes))
    }

    /// Puts the classes of the images and their weights, which add up to 1, in the place of one class each.
    pub(super) fn fill_mixes(&self, to: &mut Executor, nets: &Networks, mixes: &[Vec<(usize, f32)>]) -> Result<()> {
        // Filled up with what does not count.
        let filled = |(class, weight): (i32, f32), row: &mut (Vec<i32>, Vec<f32>)| {
            row.0.push(class);
            row.1.push(weight);
        };
        let rows = |of: &dyn Fn(usize) -> i32| {
            let mut all = (Vec::new(), Vec::new());
            for mix in mixes {
                mix.iter().for_each(|&(class, weight)| filled((of(class), weight), &mut all));
                (mix.len()..self.mix).for_each(|_| filled((of(0), 0.0), &mut all));
            }
            all
        };
        if let (Some(Discrete::Drawn(Sequences { mix: Some(mix), halves, .. }, _)), Some(rar)) =
            (&self.discrete, &nets.rar)
        {
            let mut all = rows(&|class| rar.class_id(class));
            let none = rar.class_id(rar.config.num_classes);
            for _ in mixes.len()..mixes.len() * halves {
                (0..self.mix).for_each(|j| filled((none, if j == 0 { 1.0 } else { 0.0 }), &mut all));
            }
            to.write(mix.ids, &all.0)?;
            to.write(mix.weights, &all.1)?;
        }
        if let Some(Continuous { mix: Some(mix), .. }) = &self.continuous {
            let (ids, weights) = rows(&|class| class as i32);
            to.write(mix.ids, &ids)?;
            to.write(mix.weights, &weights)?;
        }
        Ok(())
    }

    /// Whether a picture is encoded.
    pub(super) fn encodes(&self) -> bool {
        self.picture.is_some()
    }

    /// Puts the picture that is encoded in place, and by image and place whether it is known.
    pub(super) fn fill_picture(
        &self,
        to: &mut Executor,
        picture: &Image,
        known: &[Vec<bool>],
        seeds: &[u64],
    ) -> Result<()> {
        let Some(Picture { pixels, codes }) = self.picture else { return Ok(()) };
        to.write(pixels, &picture.to_pixels((-1.0, 1.0))?)?;
        let Some(PictureCodes { pixels, choices, picks }) = codes else { return Ok(()) };
        to.write(pixels, &picture.to_pixels((0.0, 1.0))?)?;
        let places = self.places;
        let draws = |&seed: &u64| sampling::uniforms(seed, places).into_iter().chain(vec![0.0; places]);
        to.write(choices, &collected("the draws of the seeds", choices.count(), seeds.iter().flat_map(draws))?)?;
        let pick = |(place, &known): (usize, &bool)| (place + if known { places } else { 0 }) as i32;
        let all = known.iter().flat_map(|known| known.iter().enumerate().map(pick));
        to.write(picks, &collected("the known places", picks.count(), all)?)
    }

    /// Puts stage 1's draws in place, `[B, L]`.
    pub(crate) fn fill_uniforms(&self, to: &mut Executor, uniforms: &[f32]) -> Result<()> {
        match &self.discrete {
            Some(Discrete::Drawn(_, view)) => to.write(*view, uniforms),
            _ => Ok(()),
        }
    }

    /// Puts codes that are given, by place, in the place of the draws of `seeds`.
    pub(super) fn fill_given(&self, to: &mut Executor, seeds: &[u64], codes: &[Vec<Option<u32>>]) -> Result<()> {
        let draw = |(draw, code): (f32, &Option<u32>)| code.map_or(draw, TokenDraw::given);
        let each = |(&seed, codes): (&u64, &Vec<Option<u32>>)| {
            sampling::uniforms(seed, self.places).into_iter().zip(codes).map(draw).collect::<Vec<_>>()
        };
        let draws = seeds.iter().zip(codes).flat_map(each);
        self.fill_uniforms(to, &collected("the draws of the seeds", seeds.len() * self.places, draws)?)
    }

    /// Whether there are discrete tokens, given or drawn.
    pub(super) fn has_codes(&self) -> bool {
        self.discrete.is_some()
    }

    /// Whether the codes are an input.
    pub(crate) fn takes_codes(&self) -> bool {
        matches!(self.discrete, Some(Discrete::Given(_)))
    }

    /// Puts given codes in place, `[B, L]`.
    pub(crate) fn fill_codes<'a>(&self, to: &mut Executor, codes: impl Iterator<Item = &'a u32>) -> Result<()> {
        match &self.discrete {
            Some(Discrete::Given(view)) => to.write(*view, &collected("the codes", view.count(), codes.copied())?),
            _ => Ok(()),
        }
    }

    /// Places that are known, and numbers of a token.
    pub(super) fn known(&self) -> Option<(usize, usize)> {
        self.continuous.as_ref().map(|inputs| (inputs.known, inputs.tokens.cols()))
    }

    /// Puts continuous tokens in place, `[B, L, C]` by slot.
    pub(super) fn fill_tokens(&self, to: &mut Executor, tokens: &[f32]) -> Result<()> {
        self.continuous.as_ref().map_or(Ok(()), |inputs| to.write(inputs.tokens, tokens))
    }

    /// The continuous tokens by slot, `[B, L, C]`, after stage 2.
    pub(super) fn tokens(&self, from: &Executor) -> Result<Vec<f32>> {
        let none = || Error::input("tokens", "a session that makes images", "one that does not");
        from.read(self.continuous.as_ref().ok_or_else(none)?.tokens)
    }

    /// Puts the orders in place, `[B, L]`.
    pub(crate) fn fill_orders(&self, to: &mut Executor, orders: &[i32]) -> Result<()> {
        let Some(inputs) = &self.continuous else { return Ok(()) };
        let (count, what) = (inputs.order.count(), "the orders");
        to.write(inputs.order, &collected(what, count, orders.iter().copied().cycle().take(count))?)?;
        let mut slots = collected(what, orders.len(), orders.iter().map(|_| 0i32))?;
        for (slots, order) in slots.chunks_mut(self.places).zip(orders.chunks(self.places)) {
            order.iter().enumerate().for_each(|(slot, &place)| slots[place as usize] = slot as i32);
        }
        to.write(inputs.slots, &slots)
    }

    /// The codes of every image, given or after stage 1.
    pub(crate) fn codes(&self, from: &Executor) -> Result<Vec<Vec<u32>>> {
        let none = || Error::input("codes", "a session with discrete tokens", "one without");
        let codes = from.read::<u32>(self.discrete.as_ref().ok_or_else(none)?.codes())?;
        Ok(codes.chunks(self.places).map(<[u32]>::to_vec).collect())
    }
}

/// More images a batch than any memory holds: a guard against a wrong number.
const MAX_BATCH: usize = 65_536;
