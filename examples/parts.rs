//! A product and a transformer block by the engine alone, for `benches/peers/parts`: plans by hand over the public API.
//!
//! `cargo run --release --example parts -- [f32|bf16] [THREADS]`

#[path = "../benches/peers/part.rs"]
mod part;

use discon::ops::{Activation, Attention, Keys, LayerNorm, Linear};
use discon::plan::{Arena, Builder, Cursor, Stage, View, Walker};
use discon::pool::Pool;
use discon::simd::Isa;
use discon::tensor::{AlignedBytes, DType, Weight};
use discon::{Cpu, Error, Result, peak};
use half::bf16;
use half::slice::HalfFloatSliceExt;
use part::{BLOCK, BLOCKS, HEADS, HIDDEN, PLACES, PRODUCTS, ROWS, SEQUENCES, WIDTH, numbers, tensor};

struct Lab {
    dtype: DType,
    pool: Pool,
}

impl Lab {
    /// Tensor `seed`: a matrix in the dtype of the measurement, a vector in f32 as the engine loads it.
    fn weight(&self, rows: usize, cols: usize, seed: usize) -> Result<Weight> {
        let data = tensor(rows, cols, seed);
        match (rows, self.dtype) {
            (0, _) => Weight::owned("vector", &[cols], &data),
            (_, DType::BF16) => {
                let mut bytes = AlignedBytes::zeroed(2 * data.len(), "a weight")?;
                bytemuck::cast_slice_mut::<u8, bf16>(bytes.bytes_mut()).convert_from_f32_slice(&data);
                Ok(Weight::from_aligned("matrix", self.dtype, &[rows, cols], bytes))
            }
            _ => Weight::owned("matrix", &[rows, cols], &data),
        }
    }

    /// Runs the plan over and over and tells what a `count`th of it took. `restart` is copied to where `out` is first:
    /// blocks work in place.
    fn measure(&self, b: Builder, part: &str, count: usize, out: View, restart: Option<&[f32]>) -> Result<()> {
        let plan = b.finish();
        let mut arena = Arena::new(&plan, self.pool.threads())?;
        let seconds = part::seconds(|| {
            if let Some(x) = restart {
                arena.slice_mut(out).copy_from_slice(x);
            }
            let (pool, isa) = (&self.pool, Isa::detect());
            Walker { plan: &plan, arena: &mut arena, pool, isa, profile: None }.run(&mut Cursor::default(), |_| false);
            Ok::<_, Error>(())
        })?;
        let engine = concat!("discon ", env!("CARGO_PKG_VERSION"));
        let result = arena.slice_mut(out);
        part::tell(engine, self.dtype.name(), part, out.count(), seconds / count as f64, result);
        Ok(())
    }

    /// `[rows, 768] x [768, 3072] + bias`
    fn product(&self, rows: usize) -> Result<()> {
        let mut b = Builder::new();
        let x = b.constant(&numbers(rows * WIDTH, 0), WIDTH)?;
        b.segment(Stage::Encode, 0, 1);
        let mut out = x;
        for i in 1..=PRODUCTS {
            out = b.kept(rows, HIDDEN)?;
            let (w, bias) = (self.weight(HIDDEN, WIDTH, 2 * i)?, self.weight(0, HIDDEN, 2 * i + 1)?);
            b.push(Linear::new(x, &w, Some(&bias), out));
        }
        self.measure(b, "product", PRODUCTS, out, None)
    }

    /// `x += projection(attention(norm 1(x)))`, `x += mlp(norm 2(x))`, four blocks one after the other.
    fn block(&self, places: usize) -> Result<()> {
        let rows = SEQUENCES * places;
        let mut b = Builder::new();
        let input = numbers(rows * WIDTH, 0);
        let x = b.kept(rows, WIDTH)?.grouped(SEQUENCES);
        let [h, attended] = [b.scratch(rows, WIDTH)?, b.scratch(rows, WIDTH)?].map(|v| v.grouped(SEQUENCES));
        let qkv = b.scratch(rows, 3 * WIDTH)?.grouped(SEQUENCES);
        let hidden = b.scratch(rows, HIDDEN)?.grouped(SEQUENCES);
        let [q, k, v] = [0, 1, 2].map(|i| qkv.columns(i * WIDTH..(i + 1) * WIDTH));
        b.segment(Stage::Encode, 0, 1);
        for i in 1..=BLOCKS {
            let weights = BLOCK.iter().enumerate().map(|(j, &(rows, cols))| self.weight(rows, cols, 100 * i + j));
            let w = weights.collect::<Result<Vec<_>>>()?;
            let norm =
                |at: usize| LayerNorm { x, affine: Some((w[at].clone(), w[at + 1].clone())), modulation: None, out: h };
            let dense = |at: usize, x, out| Linear::new(x, &w[at], Some(&w[at + 1]), out);
            b.push(norm(0));
            b.push(dense(2, h, qkv));
            b.push(Attention { q, k, v, keys: Keys { first: places, step: 0 }, heads: HEADS, out: attended });
            b.push(dense(4, attended, x).added(None));
            b.push(norm(6));
            b.push(dense(8, h, hidden).then(Activation::Gelu));
            b.push(dense(10, hidden, x).added(None));
        }
        self.measure(b, "block", BLOCKS, x, Some(&input))
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let dtype = if args.next().as_deref() == Some("bf16") { DType::BF16 } else { DType::F32 };
    let threads = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let lab = Lab { dtype, pool: Pool::new(threads)? };
    ROWS.into_iter().try_for_each(|rows| lab.product(rows))?;
    PLACES.into_iter().try_for_each(|places| lab.block(places))?;
    let cpu = Cpu::new(threads)?;
    let (flops, read) = (peak::flops(&cpu), peak::read_bandwidth(&cpu)?);
    println!(r#"{{"peak": {{"flops": {flops:.4e}, "read_bytes": {read:.4e}}}}}"#);
    Ok(())
}
