//! The work on many images, as the user sees it.

use crate::interrupt::Interrupt;
use crate::output::bar;
use discon::plan::Stage;
use discon::{Error, Progress, Result, Session};
use indicatif::ProgressBar;
use std::time::Duration;

/// How long a session works between two looks at the user.
const STEP: Duration = Duration::from_millis(50);

/// One image to make.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job {
    pub(crate) class: usize,
    pub(crate) seed: u64,
}

/// Images done of all, a bar that shows it, and Ctrl-C.
pub(crate) struct Work {
    interrupt: Interrupt,
    bar: ProgressBar,
    done: usize,
    all: usize,
    rounds: usize,
}

impl Work {
    /// Of `all` images in so many rounds of stage 2.
    pub(crate) fn new(quiet: bool, all: usize, rounds: usize) -> Result<Self> {
        Ok(Self { interrupt: Interrupt::install()?, bar: bar(quiet), done: 0, all, rounds })
    }

    /// Makes one batch; `look` sees the session after each step.
    pub(crate) fn make(
        &mut self,
        session: &mut Session,
        jobs: &[Job],
        mut look: impl FnMut(&Session) -> Result<()>,
    ) -> Result<()> {
        let (classes, seeds): (Vec<usize>, Vec<u64>) = jobs.iter().map(|job| (job.class, job.seed)).unzip();
        session.begin(&classes, &seeds)?;
        let canceller = session.canceller();
        loop {
            if self.interrupt.pressed() {
                canceller.cancel();
            }
            let progress = session.step(STEP).inspect_err(|_| self.clear())?;
            self.show(&progress, jobs.len());
            look(session)?;
            if progress.finished {
                self.done += jobs.len();
                return Ok(());
            }
        }
    }

    /// Begins with other work on `all` images, which bears that name.
    pub(crate) fn begin(&mut self, all: usize, name: &'static str) {
        (self.done, self.all) = (0, all);
        self.bar.reset();
        self.bar.set_message(name);
    }

    /// One image more is done; the end of the work if the user wants that.
    pub(crate) fn advance(&mut self) -> Result<()> {
        self.done += 1;
        self.at(self.done as f64);
        if self.interrupt.pressed() {
            self.clear();
            return Err(Error::Cancelled);
        }
        Ok(())
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn at(&self, images: f64) {
        self.bar.set_position((images / self.all.max(1) as f64 * 1000.0) as u64);
    }

    fn show(&self, progress: &Progress, batch: usize) {
        self.at(self.done as f64 + progress.fraction * batch as f64);
        self.bar.set_message(match progress.stage {
            Stage::Prepare => "preparing".to_owned(),
            Stage::Encode => "encoding".to_owned(),
            Stage::Discrete => format!("stage 1, code {}", progress.index),
            Stage::Preview => "coarse picture".to_owned(),
            Stage::Condition | Stage::Head => format!("stage 2, round {}/{}", progress.index + 1, self.rounds),
            Stage::Decode => "stage 3, pixels".to_owned(),
        });
    }
}
