//! Pictures of what stage 2 has drawn so far.

use super::device::Device;
use super::executor::Executor;
use super::model::{Networks, needed};
use super::progress::{Pace, progress};
use super::{Image, Progress, Session};
use crate::error::{Error, Result};
use crate::plan::{Builder, Cursor, Plan, Stage, View};
use crate::tensor::collected;
use crate::weights::VAE_FILE;
use std::time::{Duration, Instant};

/// The decoder in a plan of its own, which shares nothing with the session's that is written.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) plan: Plan,
    /// `[B, L, C]` by place
    tokens: View,
    /// `[B, P, 3]`, in [-1, 1]
    image: View,
}

/// The same with its memory.
#[derive(Debug)]
pub(super) struct Previewer {
    compiled: Compiled,
    executor: Executor,
    cursor: Cursor,
    begun: bool,
}

impl Previewer {
    pub(super) fn compile(nets: &Networks, batch: usize) -> Result<Compiled> {
        let vae = needed(&nets.vae, VAE_FILE, "pixels")?;
        let (places, c) = (nets.places()?, vae.config.z_channels);
        let mut b = Builder::new();
        let tokens = b.kept(batch * places, c)?.grouped(batch);
        let image = b.kept(batch * vae.image_size(places).pow(2), 3)?.grouped(batch);
        b.scope(|b| {
            let latents = b.scratch(batch * places, c)?.grouped(batch);
            vae.plan_latents(b, tokens, latents);
            vae.plan_decode(b, latents, image)
        })?;
        Ok(Compiled { plan: b.finish()?, tokens, image })
    }

    pub(super) fn new(device: &Device, nets: &Networks, compiled: Compiled) -> Result<Self> {
        let executor = Executor::new(device, nets, &compiled.plan)?;
        Ok(Self { compiled, executor, cursor: Cursor::default(), begun: false })
    }

    pub(super) fn own_bytes(&self) -> u64 {
        self.executor.own_bytes()
    }

    /// What was begun is of another request.
    pub(super) fn forget(&mut self) {
        self.begun = false;
    }

    fn is_finished(&self) -> bool {
        self.begun && self.cursor.is_finished(&self.compiled.plan)
    }
}

impl Session {
    /// What [`Session::preview_now`] costs, as a share of the cost of the whole batch; none in a session without
    /// [`Outputs::partial_previews`](super::Outputs::partial_previews). Its memory is a part of [`Session::own_bytes`].
    pub fn preview_cost(&self) -> Option<f64> {
        let of = |previewer: &Previewer| previewer.compiled.plan.weight as f64 / self.program.plan.weight.max(1) as f64;
        self.previewer.as_ref().map(of)
    }

    /// Pictures of the tokens known so far, decoded in one blocking call of [`Session::preview_cost`]: from the first round
    /// of stage 2 on, or where places are known ahead from its beginning, in a session with
    /// [`Outputs::partial_previews`](super::Outputs::partial_previews). Places not drawn yet show the coarse picture in a
    /// session with [`Outputs::preview`](super::Outputs::preview) too, then also before the first round is over; in others
    /// they have the token of the nearest place that is drawn. The run goes on afterwards as if nothing had been.
    pub fn preview_now(&mut self) -> Result<Vec<Image>> {
        self.begin_preview()?;
        self.step_preview(Duration::MAX)?;
        self.partial_previews()
    }

    /// Takes the tokens known so far, for [`Session::step_preview`] to decode. What was begun before is given up.
    pub fn begin_preview(&mut self) -> Result<()> {
        let none = |found: &str| Error::input("previews", "a session with `partial_previews`, after a round", found);
        if self.previewer.is_none() {
            return Err(none("one without"));
        }
        let p = self.progress();
        let stage2 = p.finished || matches!(p.stage, Stage::Condition | Stage::Head | Stage::Decode);
        let first = self.first_known();
        if !self.begun || !stage2 || (first >= self.program.places && self.program.coarse.is_none()) {
            return Err(none("none yet"));
        }
        let coarse = self.program.coarse.map(|view| self.executor.read::<f32>(view)).transpose()?;
        let side = self.program.places.isqrt();
        let slots = self.program.tokens(&self.executor)?;
        let Some(previewer) = &mut self.previewer else { return Ok(()) };
        let width = previewer.compiled.tokens.cols();
        let image = self.program.places * width;
        let is_coarse = coarse.is_some();
        let zeros = || collected("the tokens of a preview", slots.len(), slots.iter().map(|_| 0.0));
        let mut tokens = coarse.map_or_else(zeros, Ok)?;
        for ((tokens, slots), order) in tokens.chunks_mut(image).zip(slots.chunks(image)).zip(&self.orders) {
            let mut put = |place: usize, slot: usize| {
                tokens[place * width..][..width].copy_from_slice(&slots[slot * width..][..width]);
            };
            if is_coarse {
                order.iter().enumerate().skip(first).for_each(|(slot, &place)| put(place as usize, slot));
            } else {
                nearest(order, first, side).into_iter().enumerate().for_each(|(place, slot)| put(place, slot));
            }
        }
        previewer.executor.write(previewer.compiled.tokens, &tokens)?;
        previewer.cursor = previewer.executor.start(&previewer.compiled.plan)?;
        previewer.begun = true;
        Ok(())
    }

    /// Works on what [`Session::begin_preview`] took for about `budget`, and says where that is. Some work is done whatever
    /// the budget; the session's own run may be stepped in between. [`Error::Cancelled`] as for [`Session::step`].
    pub fn step_preview(&mut self, budget: Duration) -> Result<Progress> {
        let Self { previewer, canceller, .. } = self;
        let Some(Previewer { compiled, executor, cursor, begun: begun @ true }) = previewer else {
            return Err(Error::input("previews", "begin_preview before step_preview", "none begun"));
        };
        let end = Instant::now().checked_add(budget);
        let cancelled = || canceller.is_cancelled();
        // As in `Session::walk`: what unwinds leaves nothing to go on from.
        *begun = false;
        if !cancelled() {
            let over = |_: &Cursor| cancelled() || end.is_some_and(|end| Instant::now() >= end);
            executor.run(&compiled.plan, cursor, None, over)?;
        }
        if cancelled() {
            return Err(Error::Cancelled);
        }
        *begun = true;
        Ok(progress(&compiled.plan, cursor, &Pace::default()))
    }

    /// The pictures of the last [`Session::begin_preview`], once [`Session::step_preview`] has finished them.
    pub fn partial_previews(&self) -> Result<Vec<Image>> {
        let none = || Error::input("previews", "finished ones", "none yet");
        let Previewer { compiled, executor, .. } =
            self.previewer.as_ref().filter(|previewer| previewer.is_finished()).ok_or_else(none)?;
        Ok(self.composed(executor.pictures(compiled.image, (-1.0, 1.0))?))
    }

    /// The first slot whose token is there: slots of rounds that are done, and those known before.
    fn first_known(&self) -> usize {
        let left = self.program.plan.segments.iter().skip(self.cursor.segment);
        let round = left.filter(|segment| segment.stage == Stage::Head).map(|segment| segment.index).min();
        round.map_or(0, |round| self.program.rounds[round].end)
    }
}

/// By place the slot of its token, or where that is before slot `first` of the nearest place whose token is there: of
/// several the one that was drawn last.
fn nearest(order: &[i32], first: usize, side: usize) -> Vec<usize> {
    let at = |place: usize| ((place / side) as i64, (place % side) as i64);
    let apart = |a: (i64, i64), b: (i64, i64)| (a.0 - b.0).pow(2) + (a.1 - b.1).pow(2);
    let mut slots = vec![0; order.len()];
    for (slot, &place) in order.iter().enumerate() {
        let near = || (first..order.len()).min_by_key(|&known| apart(at(place as usize), at(order[known] as usize)));
        slots[place as usize] = if slot >= first { slot } else { near().unwrap_or(slot) };
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn places_not_drawn_have_the_nearest_token() {
        // Places of the slots; 4 and 8, in slots 7 and 8, are known.
        let order = [0, 1, 2, 3, 5, 6, 7, 4, 8];
        assert_eq!(nearest(&order, 7, 3), [7, 7, 7, 7, 7, 7, 7, 7, 8]);
        assert_eq!(nearest(&order, 8, 3), [8; 9]);
        assert_eq!(nearest(&order, 0, 3), [0, 1, 2, 3, 7, 4, 5, 6, 8]);
    }
}
