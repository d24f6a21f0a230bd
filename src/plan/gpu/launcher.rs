//! From ops to launches: where their operands lie on the GPU.

use super::weights::{Missing, Resident, Used};
use crate::cuda::abi::{self, Address};
use crate::cuda::{Gpu, Kernel, Launch, Stream};
use crate::error::{DeviceProblem, Error, Result};
use crate::plan::{Space, View};
use crate::tensor::{Filter, Form, Format, Matrix, SharedBytes, Weight};
use bytemuck::Pod;
use std::cell::RefCell;
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

/// Puts a launch into a stream.
type Start = dyn Fn(&Stream) -> Result<()> + Send + Sync;

/// A launch, ready to be put into a stream.
#[derive(Clone)]
pub(super) struct Call {
    name: &'static str,
    launch: Arc<Start>,
}

impl Call {
    /// The kernel.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Puts the launch into `stream`.
    ///
    /// # Safety
    /// The memory that the launcher was told of is still there, and nothing else that the GPU does meanwhile writes what
    /// the kernel uses.
    pub(super) unsafe fn launch(&self, stream: &Stream) -> Result<()> {
        (self.launch)(stream)
    }
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Call").field(&self.name).finish()
    }
}

/// Words of a memory, in all turns together.
pub(super) type Words = (Space, Range<usize>);

/// The memory that an op uses.
#[derive(Debug, Clone)]
pub(super) struct Touched {
    pub(super) written: Words,
    /// Whether that has no gaps.
    pub(super) dense: bool,
    /// Of all its operands, what it writes among them.
    pub(super) operands: Vec<Words>,
}

impl Touched {
    /// Whether any operand shares a word with `words`.
    pub(super) fn uses(&self, words: &Words) -> bool {
        self.operands.iter().any(|operand| overlap(operand, words))
    }

    /// Whether it writes all of `words` and uses none of them otherwise.
    pub(super) fn writes_over(&self, words: &Words) -> bool {
        let (space, all) = &self.written;
        let covers = self.dense && *space == words.0 && all.start <= words.1.start && words.1.end <= all.end;
        covers && self.operands.iter().filter(|operand| overlap(operand, words)).count() == 1
    }
}

fn overlap(a: &Words, b: &Words) -> bool {
    a.0 == b.0 && a.1.start < b.1.end && b.1.start < a.1.end
}

/// Memory of the GPU: where it starts and its words.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Place {
    pub(super) start: Address,
    pub(super) words: usize,
}

/// Memory that kernels which add up in several runs of K share, one after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Splits {
    /// Numbers of partial sums.
    pub(crate) partial: usize,
    /// Counters, zero between kernels.
    pub(crate) tickets: usize,
}

impl Splits {
    /// Enough for either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self { partial: self.partial.max(other.partial), tickets: self.tickets.max(other.tickets) }
    }
}

/// Where all memory of a plan lies.
#[derive(Debug)]
pub(super) struct Places {
    pub(super) kept: Place,
    pub(super) scratch: Place,
    pub(super) shared: Vec<Place>,
    pub(super) turn: Address,
    pub(super) partial: Place,
    pub(super) tickets: Place,
}

/// What a launcher does about weights.
#[derive(Debug, Clone, Copy)]
pub(super) enum Weights<'a> {
    /// Brings those that are not on the GPU yet.
    Bring(&'a Used),
    /// Only counts those that `Resident` does not have, and launches nothing.
    Count(&'a Resident, &'a RefCell<Missing>),
}

/// Turns the ops of one segment into launches.
pub(crate) struct Launcher<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) stream: &'a Stream,
    pub(super) weights: Weights<'a>,
    pub(super) places: &'a Places,
    /// Turns of the segment.
    pub(super) repeat: usize,
    pub(super) calls: Vec<Call>,
    /// Operands so far.
    pub(super) operands: RefCell<Vec<Words>>,
}

impl Launcher<'_> {
    /// Whether large products go to kernels for Hopper alone.
    pub(crate) fn has_wgmma(&self) -> bool {
        self.gpu.has_wgmma()
    }

    /// Where the turn of the segment lies.
    pub(crate) fn turn(&self) -> Address {
        self.places.turn
    }

    /// The words of a view.
    pub(super) fn words(&self, view: &View) -> Words {
        (view.space, view.span(0).start..view.span(self.repeat.max(1) - 1).end)
    }

    /// A view as kernels take it. Panics if it is not inside its memory in every turn, which no plan does.
    pub(crate) fn view(&self, view: &View) -> Result<abi::View> {
        let place = match view.space {
            Space::Kept => self.places.kept,
            Space::Scratch => self.places.scratch,
            Space::Shared(block) => self.places.shared[block],
        };
        let words = self.words(view);
        assert!(words.1.end <= place.words, "{view:?} in {} words", place.words);
        self.operands.borrow_mut().push(words);
        let l = view.layout;
        Ok(abi::View {
            base: place.start + 4 * view.at as u64,
            step: small("a view's step", view.step)?,
            groups: small("a view's groups", l.groups)?,
            rows: small("a view's rows", l.rows)?,
            cols: small("a view's columns", l.cols)?,
            group_stride: small("a view's stride", if l.groups > 1 { l.group_stride } else { 0 })?,
            row_stride: small("a view's stride", l.row_stride)?,
        })
    }

    /// A view as kernels take it, or none.
    pub(crate) fn maybe(&self, view: Option<&View>) -> Result<abi::View> {
        view.map_or(Ok(abi::View::NONE), |view| self.view(view))
    }

    /// Where a vector or table lies.
    pub(crate) fn weight(&self, w: &Weight) -> Result<Address> {
        self.resident(w.name(), w.stored(), w.held())
    }

    /// Where `bytes` lie on the GPU, which `held` keeps on the host.
    fn resident(&self, name: &str, bytes: &[u8], held: &SharedBytes) -> Result<Address> {
        match self.weights {
            Weights::Bring(used) => used.weight(self.stream, name, bytes, held),
            Weights::Count(resident, missing) => {
                resident.count(bytes, None, &mut missing.borrow_mut());
                Ok(0)
            }
        }
    }

    /// Where a vector lies, or null.
    pub(crate) fn maybe_weight(&self, w: Option<&Weight>) -> Result<Address> {
        w.map_or(Ok(0), |w| self.weight(w))
    }

    /// A packed matrix as kernels take it: the same bytes as on the CPU.
    pub(crate) fn packed(&self, w: &Matrix) -> Result<abi::Packed> {
        let format = match w.format() {
            Format::F32 => 0,
            Format::Wide => 1,
            Format::Bf16 => 2,
            Format::F16 => 3,
            Format::Q8 => return Err(self.unsupported(&format!("`{}`", w.name()), "f32 or bf16", "q8")),
        };
        let start = self.resident(w.name(), w.stored(), w.held())?;
        let first = w.panels(0..w.rows()).start * w.panel_words();
        Ok(abi::Packed {
            words: start + 4 * first as u64,
            rows: small("rows of a matrix", w.rows())?,
            k: small("columns of a matrix", w.cols())?,
            format,
            skip: w.skip(0) as i32,
        })
    }

    /// A convolution's filters as kernels take them, `[cout, k k cin]`: those for Winograd's way are turned back, once a
    /// GPU.
    pub(crate) fn taps(&self, filter: &Filter, cout: usize) -> Result<abi::Packed> {
        let w = match filter {
            Filter::Taps(w) => return self.packed(w),
            Filter::Winograd(w) => w,
        };
        let taps = || filter.taps(cout);
        let words = match self.weights {
            Weights::Bring(used) => used.changed(self.stream, w.name(), w.stored(), w.held(), &taps)?,
            Weights::Count(resident, missing) => {
                let bytes = Format::F32.bytes(cout, 9 * w.cols());
                resident.count(w.stored(), Some(bytes), &mut missing.borrow_mut());
                0
            }
        };
        let k = small("columns of a matrix", 9 * w.cols())?;
        Ok(abi::Packed { words, rows: small("rows of a matrix", cout)?, k, format: 0, skip: 0 })
    }

    /// The form of rows, by its number.
    pub(crate) fn form(&self, form: Form) -> Result<i32> {
        match form {
            Form::Numbers => Ok(0),
            Form::Pairs => Ok(1),
            Form::Blocks => Err(self.unsupported("rows of blocks", "f32 or bf16", "q8")),
        }
    }

    /// The error of what the kernels do not do.
    pub(crate) fn unsupported(&self, what: &str, expected: &str, found: impl Display) -> Error {
        Error::Device {
            problem: DeviceProblem::Unsupported,
            what: format!("{what} on {}", self.gpu.device().name()),
            expected: expected.to_owned(),
            found: format!("{found}, which only the processor computes"),
        }
    }

    /// Memory for sums in several runs of K: partial sums, then tickets. Panics if the plan reserved less.
    pub(crate) fn splits(&self, needed: Splits) -> [Address; 2] {
        let Places { partial, tickets, .. } = self.places;
        assert!(needed.partial <= partial.words && needed.tickets <= tickets.words, "{needed:?}");
        [partial.start, tickets.start]
    }

    /// Adds a launch of kernel `name` of `file` in a grid of blocks.
    pub(crate) fn call<P: Pod + Send + Sync>(
        &mut self,
        file: &'static str,
        name: &'static str,
        grid: [usize; 3],
        p: P,
    ) -> Result<()> {
        if let Weights::Count(..) = self.weights {
            return Ok(());
        }
        let Kernel { function, threads, shared_bytes } = self.gpu.kernels().get::<P>(file, name)?;
        let [x, y, z] = grid;
        if x * y * z == 0 {
            return Ok(());
        }
        // What a GPU takes: 2^31 - 1 blocks across, 65535 in the other directions.
        let fits = x < 1 << 31 && y < 1 << 16 && z < 1 << 16;
        if !fits {
            let what = format!("kernel `{name}`");
            return Err(Error::Device {
                problem: DeviceProblem::Launch,
                what,
                expected: "a grid of at most 2147483647 x 65535 x 65535 blocks".to_owned(),
                found: format!("{x} x {y} x {z}; make fewer images at a time"),
            });
        }
        let launch = Launch { grid: [x as u32, y as u32, z as u32], block: [threads, 1, 1], shared_bytes };
        // SAFETY: the parameters are the kernel's, by their size (`Module::function`) and by the care of the op that made
        // them; they point into memory of the plan, within it by `view`, and into weights. That this is there, and that
        // nothing races, is the duty of who calls `Call::launch`.
        let launch = move |stream: &Stream| unsafe { function.launch(stream, launch, &p) };
        self.calls.push(Call { name, launch: Arc::new(launch) });
        Ok(())
    }
}

/// A number as kernels take it.
pub(crate) fn small(what: &str, n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::Device {
        problem: DeviceProblem::Launch,
        what: what.to_owned(),
        expected: "less than 2^31 words on a GPU".to_owned(),
        found: format!("{n}; make fewer images at a time"),
    })
}
