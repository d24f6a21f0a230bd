//! A product and a transformer block by the engine alone, for `benches/peers/parts`: plans by hand over the public API.
//!
//! `cargo run --release --example parts -- [f32|bf16|q8] [THREADS]`

#[path = "../benches/peers/part.rs"]
mod part;

use discon::ops::{Activation, Attention, Keys, LayerNorm, Linear};
use discon::peak::Peaks;
use discon::plan::{Arena, Builder, Cursor, Stage, View, Walker};
use discon::pool::Pool;
use discon::simd::Isa;
use discon::tensor::{Matrix, Weight};
use discon::{Cpu, Error, Precision, Result};
use part::{BLOCK, BLOCKS, HEADS, HIDDEN, PLACES, PRODUCTS, ROWS, SEQUENCES, WIDTH, numbers, tensor};

struct Lab {
    precision: Precision,
    pool: Pool,
}

impl Lab {
    /// Tensor `seed` as a matrix in kernel order.
    fn matrix(&self, (rows, cols): (usize, usize), seed: usize) -> Result<Matrix> {
        let weight = Weight::owned("matrix", &[rows, cols], &tensor(rows, cols, seed))?;
        Matrix::pack(&weight, self.precision.format(weight.dtype(), rows, cols))
    }

    /// Tensor `seed` as a vector.
    fn vector(len: usize, seed: usize) -> Result<Weight> {
        Weight::owned("vector", &[len], &tensor(0, len, seed))
    }

    /// Runs the plan over and over and tells what a `count`th of it took. `restart` is copied to where `out` is first:
    /// blocks work in place.
    fn measure(&self, b: Builder, part: &str, count: usize, out: View, restart: Option<&[f32]>) -> Result<()> {
        let plan = b.finish()?;
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
        part::tell(engine, self.precision.name(), part, out.count(), seconds / count as f64, result);
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
            let (w, bias) = (self.matrix((HIDDEN, WIDTH), 2 * i)?, Self::vector(HIDDEN, 2 * i + 1)?);
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
        let narrow = self.precision != Precision::F32;
        b.segment(Stage::Encode, 0, 1);
        for i in 1..=BLOCKS {
            let vector = |at: usize| Self::vector(BLOCK[at].1, 100 * i + at);
            let norm = |at: usize| {
                Ok::<_, Error>(LayerNorm {
                    x,
                    affine: Some((vector(at)?, vector(at + 1)?)),
                    modulation: None,
                    out: h.into(),
                })
            };
            let dense = |at: usize, x, out| {
                let w = self.matrix(BLOCK[at], 100 * i + at)?;
                Ok::<_, Error>(Linear::new(x, &w, Some(&vector(at + 1)?), out))
            };
            b.push(norm(0)?);
            b.push(dense(2, h, qkv)?);
            b.push(Attention { q, k, v, keys: Keys { first: places, step: 0 }, heads: HEADS, narrow, out: attended });
            b.push(dense(4, attended, x)?.added(None));
            b.push(norm(6)?);
            b.push(dense(8, h, hidden)?.then(Activation::Gelu));
            b.push(dense(10, hidden, x)?.added(None));
        }
        self.measure(b, "block", BLOCKS, x, Some(&input))
    }
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let precision = args.next().as_deref().map_or(Ok(Precision::F32), Precision::named)?;
    let threads = args.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let lab = Lab { precision, pool: Pool::new(threads)? };
    ROWS.into_iter().try_for_each(|rows| lab.product(rows))?;
    PLACES.into_iter().try_for_each(|places| lab.block(places))?;
    let peaks = Peaks::measure(&Cpu::new(threads)?)?;
    println!("{}", serde_json::json!({ "peak": peaks }));
    Ok(())
}
