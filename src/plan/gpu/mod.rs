//! Runs a plan on a GPU: its memory there, and its segments recorded as CUDA graphs.
//!
//! A segment's ops become launches whose parameters hold addresses; what moves from turn to turn is found from a number in
//! the GPU's memory, the turn, which the segment's last launch advances. So a segment is one graph however often it
//! repeats, and the host only says "again".

mod fuse;
mod launcher;
mod weights;

pub(crate) use launcher::{Launcher, Splits, small};
pub use weights::Resident;
pub(crate) use weights::Residents;

use super::shared::{Block, Maker};
use super::{Cursor, Plan, Profile, Segment, SharedBlock, Space, View};
use crate::cuda::{DeviceBuffer, Event, Gpu, Graph, Stream, abi};
use crate::error::Result;
use crate::tensor::collected;
use bytemuck::Pod;
use launcher::{Call, Place, Places, Touched, Weights};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::iter::repeat_n;
use std::sync::Arc;
use std::time::Duration;
use weights::{Missing, Used};

/// Turns that are on their way to the GPU at once: one runs while the next one waits. A pause waits for them.
const IN_FLIGHT: usize = 2;

/// A plan's memory on a GPU, and its launches.
#[derive(Debug)]
pub struct GpuPlan {
    gpu: Gpu,
    stream: Stream,
    segments: Vec<Recorded>,
    kept: DeviceBuffer<u32>,
    scratch: DeviceBuffer<u32>,
    blocks: Vec<Block<DeviceBuffer<u32>>>,
    /// The turn of the segment at work.
    turn: DeviceBuffer<i32>,
    partial: DeviceBuffer<f32>,
    tickets: DeviceBuffer<u32>,
    weights: Used,
}

/// A segment's launches, op by op and the one that advances the turn, and as a graph, where some ops share a launch.
#[derive(Debug)]
struct Recorded {
    graph: Graph,
    single: Vec<Vec<Call>>,
    advance: Vec<Call>,
    /// Those of the graph.
    _fused: Vec<Call>,
}

impl Drop for GpuPlan {
    fn drop(&mut self) {
        // Whatever became of a run, its memory is not given back before the GPU is through.
        let _ = self.stream.synchronize();
    }
}

/// Memory for partial sums that the ops of a plan share.
fn splits(plan: &Plan) -> Splits {
    let steps = plan.segments.iter().flat_map(|segment| &segment.steps);
    steps.map(|step| step.op.splits()).fold(Splits::default(), Splits::or)
}

/// What computes the shared blocks of plans on `gpu`.
fn maker(gpu: &Gpu) -> Maker {
    Maker::Gpu { wgmma: gpu.has_wgmma() }
}

/// The address and words of a buffer.
fn place<T: Pod>(buffer: &DeviceBuffer<T>) -> Place {
    Place { start: buffer.ptr().0, words: buffer.len() }
}

impl GpuPlan {
    /// Memory for `plan` on `gpu`, with the plan's constants in place, and its launches. Weights that `resident` has not
    /// yet are brought there, and stay from the first [`GpuPlan::start`] on; so are shared blocks, by the first plan that runs.
    pub fn new(gpu: &Gpu, resident: Arc<Resident>, plan: &Plan) -> Result<Self> {
        let (stream, context) = (gpu.stream()?, gpu.context());
        let mut kept = DeviceBuffer::zeroed(&stream, "the arena", plan.kept_words)?;
        for (at, words) in &plan.constants {
            kept.write(&stream, *at, words)?;
        }
        let block = |&SharedBlock { key, words }: &SharedBlock| {
            let what = Block::<DeviceBuffer<u32>>::WHAT;
            let block = Block::new(&resident.blocks, maker(gpu), key, || DeviceBuffer::zeroed(&stream, what, words))?;
            assert_eq!(block.memory().len(), words, "{key:?} in two sizes");
            Ok(block)
        };
        let splits = splits(plan);
        let mut new = Self {
            segments: Vec::new(),
            scratch: DeviceBuffer::new(context, "the arena", plan.scratch_words)?,
            blocks: plan.shared.iter().map(block).collect::<Result<_>>()?,
            turn: DeviceBuffer::zeroed(&stream, "the turn", 1)?,
            partial: DeviceBuffer::new(context, "partial sums", splits.partial)?,
            tickets: DeviceBuffer::zeroed(&stream, "tickets of partial sums", splits.tickets)?,
            kept,
            gpu: gpu.clone(),
            stream,
            weights: Used::new(resident),
        };
        new.segments = new.record_all(plan, &new.blocks)?;
        Ok(new)
    }

    /// Bytes that a plan would take on `gpu` now, in this order: for its ops, for shared blocks that it would have to make, for
    /// weights that are not there yet.
    pub fn needs(gpu: &Gpu, resident: &Resident, plan: &Plan) -> Result<[u64; 3]> {
        let splits = splits(plan);
        let words = plan.kept_words + plan.scratch_words + 1 + splits.partial + splits.tickets;
        let anywhere = |words| Place { start: 0, words };
        let places = Places {
            kept: anywhere(plan.kept_words),
            scratch: anywhere(plan.scratch_words),
            shared: plan.shared.iter().map(|block| anywhere(block.words)).collect(),
            turn: 0,
            partial: anywhere(splits.partial),
            tickets: anywhere(splits.tickets),
        };
        let (stream, missing) = (gpu.stream()?, RefCell::new(Missing::default()));
        for segment in &plan.segments {
            let mut launcher = Launcher {
                gpu,
                stream: &stream,
                weights: Weights::Count(resident, &missing),
                places: &places,
                repeat: segment.repeat,
                calls: Vec::new(),
                operands: RefCell::default(),
            };
            segment.steps.iter().try_for_each(|step| step.op.launch(&mut launcher))?;
        }
        let shared = 4 * resident.blocks.missing(maker(gpu), &plan.shared);
        Ok([4 * words as u64, shared, missing.into_inner().bytes()])
    }

    /// Where this plan's memory lies, with these shared blocks.
    fn places(&self, blocks: &[Block<DeviceBuffer<u32>>]) -> Places {
        Places {
            kept: place(&self.kept),
            scratch: place(&self.scratch),
            shared: blocks.iter().map(|block| place(block.memory())).collect(),
            turn: self.turn.ptr().0,
            partial: place(&self.partial),
            tickets: place(&self.tickets),
        }
    }

    /// What turns the ops of a segment of `repeat` turns into launches.
    fn launcher<'a>(&'a self, places: &'a Places, repeat: usize) -> Launcher<'a> {
        let (calls, operands) = (Vec::new(), RefCell::default());
        let Self { gpu, stream, weights, .. } = self;
        Launcher { gpu, stream, weights: Weights::Bring(weights), places, repeat, calls, operands }
    }

    /// The launches of all segments, with these shared blocks.
    fn record_all(&self, plan: &Plan, blocks: &[Block<DeviceBuffer<u32>>]) -> Result<Vec<Recorded>> {
        let places = self.places(blocks);
        // A host's stream may be one that waits for the context's default stream. While such a one records, any other thread
        // that uses that stream gets an error, and so does the recording.
        let recorder = Stream::new(self.gpu.context())?;
        plan.segments.iter().map(|segment| self.record(segment, &places, &recorder)).collect()
    }

    fn record(&self, segment: &Segment, places: &Places, recorder: &Stream) -> Result<Recorded> {
        let mut launcher = self.launcher(places, segment.repeat);
        let (mut single, mut touched) = (Vec::new(), Vec::new());
        for step in &segment.steps {
            step.op.launch(&mut launcher)?;
            single.push(std::mem::take(&mut launcher.calls));
            let (out, operands) = (&step.out.view, launcher.operands.take());
            let dense = out.is_dense() && (out.step == 0 || segment.repeat == 1);
            touched.push(Touched { written: launcher.words(out), dense, operands });
        }
        let mut calls = fuse::fused(segment, &single, &touched, &mut launcher)?;
        let mut advance = Vec::new();
        if segment.repeat > 1 {
            let turns = small("turns of a segment", segment.repeat)?;
            launcher.call(
                "advance",
                "advance",
                [1, 1, 1],
                abi::Advance { turn: self.turn.ptr().0, turns, unused: 0 },
            )?;
            advance = launcher.calls;
        }
        calls.extend(advance.iter().cloned());
        // SAFETY: all memory that the launches use is this plan's or the resident's, which it holds; of the former nothing
        // else makes use, the latter is only read but for a shared block that is still this plan's alone. The functions
        // that the launches use live as long as the calls, which are kept beside the graph.
        let work = |stream: &Stream| calls.iter().try_for_each(|call| unsafe { call.launch(stream) });
        let graph = Graph::record(recorder, work)?;
        Ok(Recorded { graph, single, advance, _fused: calls })
    }

    /// Bytes on the GPU that nobody else has.
    pub fn own_bytes(&self) -> u64 {
        let blocks = self.blocks.iter().filter(|b| b.is_own()).map(|b| b.memory().bytes());
        let turn = self.turn.bytes();
        let rest = [self.kept.bytes(), self.scratch.bytes(), turn, self.partial.bytes(), self.tickets.bytes()];
        blocks.chain(rest).sum::<usize>() as u64
    }

    fn buffer(&self, space: Space) -> &DeviceBuffer<u32> {
        match space {
            Space::Kept => &self.kept,
            Space::Scratch => &self.scratch,
            Space::Shared(block) => self.blocks[block].memory(),
        }
    }

    /// Puts an input in place. Panics if the view is not dense, of another size, or shared.
    pub fn write<T: Pod>(&mut self, view: View, data: &[T]) -> Result<()> {
        let words: &[u32] = bytemuck::cast_slice(data);
        assert!(view.is_dense() && view.span(0).len() == words.len(), "{view:?}");
        let buffer = match view.space {
            Space::Kept => &mut self.kept,
            Space::Scratch => &mut self.scratch,
            Space::Shared(_) => panic!("inputs are never shared"),
        };
        buffer.write(&self.stream, view.at, words)
    }

    /// The rows of a view, one behind the other.
    pub fn read<T: Pod>(&self, view: View) -> Result<Vec<T>> {
        let span = view.span(0);
        let mut words = collected("a result", span.len(), repeat_n(T::zeroed(), span.len()))?;
        self.buffer(view.space).read(&self.stream, span.start, bytemuck::cast_slice_mut::<T, u32>(&mut words))?;
        let l = view.layout;
        let start = |i: usize| i / l.rows * l.group_stride + i % l.rows * l.row_stride;
        let rows = (0..view.count()).flat_map(|i| &words[start(i)..start(i) + l.cols]);
        collected("a result", view.count() * l.cols, rows.copied())
    }

    /// The bytes of pictures `[B, P, 3]`, nominally from `low` to `high`; `P * 3` of them a picture.
    pub fn rgb8(&self, view: View, (low, high): (f32, f32)) -> Result<Vec<Vec<u8>>> {
        let l = view.layout;
        let (bytes, row) = (l.rows * 3, (l.rows * 3).div_ceil(4));
        let buffer = DeviceBuffer::<u32>::new(self.gpu.context(), "pictures", l.groups * row)?;
        let places = Places { scratch: place(&buffer), ..self.places(&self.blocks) };
        let mut launcher = self.launcher(&places, 1);
        let out = View { space: Space::Scratch, at: 0, step: 0, layout: crate::tensor::Layout::dense(l.groups, row) };
        let (x, out) = (launcher.view(&view)?, launcher.view(&out)?);
        let grid = [(l.groups * row).div_ceil(256), 1, 1];
        launcher.call("rgb8", "rgb8", grid, abi::Rgb8 { turn: 0, x, out, low, high })?;
        let mut words = collected("the pictures", l.groups * row, repeat_n(0u32, l.groups * row))?;
        for call in &launcher.calls {
            // SAFETY: the picture and the buffer are this plan's, and `read` waits for the launch.
            unsafe { call.launch(&self.stream) }?;
        }
        buffer.read(&self.stream, 0, &mut words)?;
        let picture = |row| collected("an image", bytes, bytemuck::cast_slice(row)[..bytes].iter().copied());
        words.chunks(row).map(picture).collect()
    }

    /// Where a new run starts: at the first segment whose shared block is not there. Shared blocks that others have made
    /// since take the place of its own.
    pub fn start(&mut self, plan: &Plan) -> Result<Cursor> {
        let blocks: Vec<_> = self.blocks.iter().map(Block::adopted).collect();
        if !blocks.iter().zip(&self.blocks).all(|(new, old)| std::ptr::eq(new.memory(), old.memory())) {
            // Launches hold addresses.
            let segments = self.record_all(plan, &blocks)?;
            self.stream.synchronize()?;
            (self.blocks, self.segments) = (blocks, segments);
        }
        self.weights.keep();
        self.turn.fill_zeros(&self.stream)?;
        let mut cursor = Cursor::default();
        cursor.pass_made(plan, |block| self.blocks[block].is_ready());
        Ok(cursor)
    }

    /// Runs from `cursor` on, until the plan's end or until `pause` says so, asked after each turn of a segment is on its
    /// way; the GPU is through with what was asked for when this returns.
    pub fn run(
        &mut self,
        plan: &Plan,
        cursor: &mut Cursor,
        mut profile: Option<&mut Profile>,
        mut pause: impl FnMut(&Cursor) -> bool,
    ) -> Result<()> {
        let mut flight = Flight::default();
        cursor.pass_made(plan, |block| self.blocks[block].is_ready());
        while let Some(segment) = plan.segments.get(cursor.segment) {
            let recorded = &self.segments[cursor.segment];
            match profile.as_deref_mut() {
                None => recorded.graph.launch(&self.stream)?,
                Some(profile) => self.time(segment, recorded, profile)?,
            }
            let at = cursor.segment;
            cursor.next_turn(segment);
            let (ended, next) = (cursor.segment > at, plan.segments.get(cursor.segment));
            // Who waits for a block on another stream must find it finished; who reads the clock at a change of stage, the
            // stage.
            if ended && (segment.makes.is_some() || next.is_none_or(|next| next.stage != segment.stage)) {
                flight.land(&self.stream)?;
            } else {
                flight.add(&self.stream)?;
            }
            if let Some(block) = segment.makes.filter(|_| ended) {
                self.blocks[block].finish();
                cursor.pass_made(plan, |block| self.blocks[block].is_ready());
            }
            if pause(cursor) {
                break;
            }
        }
        flight.land(&self.stream)
    }

    /// Runs one turn launch by launch, each by itself, none shared by several ops.
    fn time(&self, segment: &Segment, recorded: &Recorded, profile: &mut Profile) -> Result<()> {
        let [start, end] = [Event::new(self.gpu.context())?, Event::new(self.gpu.context())?];
        for (calls, step) in recorded.single.iter().zip(&segment.steps) {
            let mut all = Duration::ZERO;
            for (i, call) in calls.iter().enumerate() {
                start.record(&self.stream)?;
                // SAFETY: as in `record`; the stream runs one plan's work at a time, in order.
                unsafe { call.launch(&self.stream) }?;
                end.record(&self.stream)?;
                end.synchronize()?;
                let time = end.since(&start)?;
                let is_last = i + 1 == calls.len();
                profile.add_kernel(call.name(), time, is_last.then_some(step.cost));
                all += time;
            }
            profile.add(segment.stage, step, all, true);
        }
        for call in &recorded.advance {
            // SAFETY: as above.
            unsafe { call.launch(&self.stream) }?;
        }
        Ok(())
    }
}

/// Turns on their way.
#[derive(Default)]
struct Flight(VecDeque<Event>);

impl Flight {
    /// One more, behind all that is in the stream; waits until no more than [`IN_FLIGHT`] are left.
    fn add(&mut self, stream: &Stream) -> Result<()> {
        let event = if self.0.len() < IN_FLIGHT { None } else { self.0.pop_front() };
        let event = match event {
            None => Event::new(stream.context())?,
            Some(event) => {
                event.synchronize()?;
                event
            }
        };
        event.record(stream)?;
        self.0.push_back(event);
        Ok(())
    }

    /// Waits for all.
    fn land(&mut self, stream: &Stream) -> Result<()> {
        self.0.clear();
        stream.synchronize()
    }
}

#[cfg(test)]
mod tests;
