//! A session's run as a row of events.

use super::{Image, Progress, Session};
use crate::error::Result;
use std::iter::FusedIterator;
use std::time::Duration;

/// What happens as a session works.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A step was done: where the session is.
    Progress(Progress),
    /// The coarse pictures are there, in a session that makes them.
    Preview(Vec<Image>),
    /// The images are there, in a session that makes them. The last event.
    Images(Vec<Image>),
}

/// The events of a session from where it is to its end: [`Session::events`].
#[derive(Debug)]
pub struct Events<'a> {
    session: &'a mut Session,
    budget: Duration,
    preview_is_due: bool,
    images_are_due: bool,
    finished: bool,
    over: bool,
}

impl Session {
    /// The run from here to its end, as an iterator that works when it is asked for the next event: a step of about
    /// `budget` for each [`Event::Progress`]. [`Event::Preview`] comes once, as soon as the coarse pictures are there, and
    /// [`Event::Images`] last. After an error, [`Error::Cancelled`](crate::Error::Cancelled) among them, it ends.
    ///
    /// Dropped halfway it leaves the session where it is, to be stepped on.
    ///
    /// ```no_run
    /// # let model = discon::Model::open("weights/avatars-64")?;
    /// # let mut session = model.session(&discon::Cpu::new(0)?, 1, &model.settings(), discon::Outputs::IMAGE_AND_PREVIEW)?;
    /// use discon::Event;
    /// use std::time::Duration;
    ///
    /// session.begin(&[3], &[7])?;
    /// for event in session.events(Duration::from_millis(50)) {
    ///     match event? {
    ///         Event::Progress(p) => println!("{:.0} %, {:?} left", 100.0 * p.fraction, p.left),
    ///         Event::Preview(coarse) => println!("{} coarse pictures", coarse.len()),
    ///         Event::Images(images) => println!("{} images", images.len()),
    ///         _ => (), // more kinds may come
    ///     }
    /// }
    /// # Ok::<(), discon::Error>(())
    /// ```
    pub fn events(&mut self, budget: Duration) -> Events<'_> {
        let (preview_is_due, images_are_due) = self.makes();
        Events { session: self, budget, preview_is_due, images_are_due, finished: false, over: false }
    }
}

impl Events<'_> {
    fn event(&mut self) -> Result<Option<Event>> {
        if self.over {
            return Ok(None);
        }
        if self.preview_is_due && self.session.has_previews() {
            self.preview_is_due = false;
            return self.session.previews().map(Event::Preview).map(Some);
        }
        if !self.finished {
            let progress = self.session.step(self.budget)?;
            self.finished = progress.finished;
            return Ok(Some(Event::Progress(progress)));
        }
        if self.images_are_due {
            self.images_are_due = false;
            return self.session.images().map(Event::Images).map(Some);
        }
        Ok(None)
    }
}

impl Iterator for Events<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = self.event();
        self.over = !matches!(event, Ok(Some(_)));
        event.transpose()
    }
}

impl FusedIterator for Events<'_> {}
