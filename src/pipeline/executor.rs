//! A plan's memory on the device that runs it.

use super::device::{Cpu, Device};
use super::model::Networks;
use super::session::pictures;
use super::{Image, SessionMemory};
use crate::error::{Error, Result};
#[cfg(feature = "cuda")]
use crate::plan::gpu::GpuPlan;
use crate::plan::{Arena, Cursor, Plan, Profile, View, Walker};
use crate::tensor::collected;
use bytemuck::Pod;

/// The memory of one running plan, and what runs it there.
#[derive(Debug)]
pub(crate) enum Executor {
    Cpu(Cpu, Arena),
    #[cfg(feature = "cuda")]
    Gpu(Box<GpuPlan>),
}

impl Executor {
    /// Memory for `plan`, a plan of `nets`: [`Error::Memory`] if it cannot be had.
    pub(crate) fn new(device: &Device, nets: &Networks, plan: &Plan) -> Result<Self> {
        match device {
            Device::Cpu(cpu) => {
                let arena = Arena::sharing(plan, cpu.threads(), &nets.shared, cpu.isa)?;
                Ok(Self::Cpu(cpu.clone(), arena))
            }
            #[cfg(feature = "cuda")]
            Device::Gpu(gpu) => {
                let resident = nets.on_gpus.of(gpu.context());
                Ok(Self::Gpu(Box::new(GpuPlan::new(gpu, resident, plan)?)))
            }
        }
    }

    /// The same outside of a session, if the system has as much left.
    pub(crate) fn alone(device: &Device, nets: &Networks, plan: &Plan) -> Result<Self> {
        SessionMemory::of(device, nets, plan, None)?.within(None, "one run of a network")?;
        Self::new(device, nets, plan)
    }

    /// What [`Executor::new`] would take now, but for the plan.
    pub(super) fn needs(device: &Device, nets: &Networks, plan: &Plan) -> Result<SessionMemory> {
        match device {
            Device::Cpu(cpu) => {
                let [arena, workers, shared] = Arena::needs(plan, cpu.threads(), &nets.shared, cpu.isa);
                Ok(SessionMemory { arena, workers, shared, ..SessionMemory::default() })
            }
            #[cfg(feature = "cuda")]
            Device::Gpu(gpu) => {
                let [arena, shared, weights] = GpuPlan::needs(gpu, &nets.on_gpus.of(gpu.context()), plan)?;
                Ok(SessionMemory { arena, shared, weights, on_gpu: true, ..SessionMemory::default() })
            }
        }
    }

    /// Bytes that nobody else has.
    pub(crate) fn own_bytes(&self) -> u64 {
        match self {
            Self::Cpu(_, arena) => arena.own_bytes(),
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.own_bytes(),
        }
    }

    /// Puts an input in place. Panics if the view is not dense or of another size.
    pub(crate) fn write<T: Pod>(&mut self, view: View, words: &[T]) -> Result<()> {
        match self {
            Self::Cpu(_, arena) => {
                arena.slice_mut::<T>(view).copy_from_slice(words);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.write(view, words),
        }
    }

    /// The rows of a view, one behind the other.
    pub(crate) fn read<T: Pod>(&self, view: View) -> Result<Vec<T>> {
        match self {
            Self::Cpu(_, arena) => {
                let mat = arena.mat::<T>(view);
                let words = (0..view.count()).flat_map(|i| mat.row(i)).copied();
                collected("a result", view.count() * view.cols(), words)
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.read(view),
        }
    }

    /// The pictures of `[B, P, 3]`, nominally from `range.0` to `range.1`.
    pub(crate) fn pictures(&self, view: View, range: (f32, f32)) -> Result<Vec<Image>> {
        match self {
            Self::Cpu(_, arena) => pictures(arena.mat(view), range),
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => {
                let side = view.layout.rows.isqrt();
                gpu.rgb8(view, range)?.into_iter().map(|rgb| Image::new(side, side, rgb)).collect()
            }
        }
    }

    /// The one picture of `[1, P, 3]`.
    pub(crate) fn picture(&self, view: View, range: (f32, f32)) -> Result<Image> {
        let none = || Error::input("image", "one picture", "none");
        self.pictures(view, range)?.pop().ok_or_else(none)
    }

    /// Where a new run starts.
    pub(crate) fn start(&mut self, plan: &Plan) -> Result<Cursor> {
        match self {
            Self::Cpu(_, arena) => {
                arena.adopt();
                Ok(Cursor::start(plan, arena))
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.start(plan),
        }
    }

    /// Runs from the plan's start to its end.
    pub(crate) fn run_whole(&mut self, plan: &Plan) -> Result<()> {
        let mut cursor = self.start(plan)?;
        self.run(plan, &mut cursor, None, |_| false)
    }

    /// Runs from `cursor` on, to the plan's end or until `pause` says so ([`Walker::run`]).
    pub(crate) fn run(
        &mut self,
        plan: &Plan,
        cursor: &mut Cursor,
        profile: Option<&mut Profile>,
        pause: impl FnMut(&Cursor) -> bool,
    ) -> Result<()> {
        match self {
            Self::Cpu(cpu, arena) => {
                Walker { plan, arena, pool: &cpu.pool, isa: cpu.isa, profile }.run(cursor, pause);
                Ok(())
            }
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.run(plan, cursor, profile, pause),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::pipeline::Model;
    use crate::plan::{Builder, Stage};

    #[test]
    fn a_run_outside_of_a_session_asks_what_is_left() {
        let model = Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tiny")).unwrap();
        let mut b = Builder::new();
        b.segment(Stage::Decode, 0, 1);
        b.kept(1 << 42, 1).unwrap();
        let plan = b.finish().unwrap();
        let device = Cpu::new(1).unwrap().into();
        let error = Executor::alone(&device, model.networks(), &plan).unwrap_err();
        let Error::Memory { what, bytes, .. } = &error else { panic!("{error}") };
        assert!(what == "one run of a network" && *bytes == 1 << 44, "{error}");
        // Asked, not tried.
        assert!(!cfg!(target_os = "linux") || error.to_string().ends_with("bytes left"), "{error}");
    }
}
