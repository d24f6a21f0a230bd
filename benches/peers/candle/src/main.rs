//! A product and a transformer block by candle, for `parts`. f32 only: candle's CPU backend has no bf16 product.
//!
//! `cargo run --release`; RAYON_NUM_THREADS says how many threads.

#[path = "../../part.rs"]
mod part;

use candle_core::{D, Device, Module, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{LayerNorm, Linear};
use part::{BLOCK, BLOCKS, HEADS, HIDDEN, PLACES, PRODUCTS, ROWS, SEQUENCES, WIDTH, numbers, tensor};

const ENGINE: &str = "candle 0.11.1";

fn weight(rows: usize, cols: usize, seed: usize) -> Result<Tensor> {
    let data = tensor(rows, cols, seed);
    if rows == 0 {
        Tensor::from_vec(data, cols, &Device::Cpu)
    } else {
        Tensor::from_vec(data, (rows, cols), &Device::Cpu)
    }
}

fn measure(part: &str, rows: usize, count: usize, mut run: impl FnMut() -> Result<Tensor>) -> Result<()> {
    let mut last = run()?;
    let seconds = part::seconds(|| {
        last = run()?;
        Ok::<_, candle_core::Error>(())
    })?;
    part::tell(ENGINE, "f32", part, rows, seconds / count as f64, &last.flatten_all()?.to_vec1::<f32>()?);
    Ok(())
}

fn product(rows: usize) -> Result<()> {
    let x = Tensor::from_vec(numbers(rows * WIDTH, 0), (rows, WIDTH), &Device::Cpu)?;
    let layer = |i| Ok(Linear::new(weight(HIDDEN, WIDTH, 2 * i)?, Some(weight(0, HIDDEN, 2 * i + 1)?)));
    let layers = (1..=PRODUCTS).map(layer).collect::<Result<Vec<_>>>()?;
    measure("product", rows, PRODUCTS, || {
        let results = layers.iter().map(|l| l.forward(&x)).collect::<Result<Vec<_>>>()?;
        Ok(results[PRODUCTS - 1].clone())
    })
}

struct Block {
    norms: [LayerNorm; 2],
    qkv: Linear,
    proj: Linear,
    mlp: [Linear; 2],
}

impl Block {
    fn new(i: usize) -> Result<Self> {
        let weights = BLOCK.iter().enumerate().map(|(j, &(rows, cols))| weight(rows, cols, 100 * i + j));
        let w = weights.collect::<Result<Vec<_>>>()?;
        let norm = |at: usize| LayerNorm::new(w[at].clone(), w[at + 1].clone(), 1e-6);
        let dense = |at: usize| Linear::new(w[at].clone(), Some(w[at + 1].clone()));
        Ok(Self { norms: [norm(0), norm(6)], qkv: dense(2), proj: dense(4), mlp: [dense(8), dense(10)] })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, places, width) = x.dims3()?;
        let qkv = self.qkv.forward(&self.norms[0].forward(x)?)?;
        let qkv = qkv.reshape((batch, places, 3, HEADS, width / HEADS))?.permute((2, 0, 3, 1, 4))?.contiguous()?;
        // Its `flash_attn` for the CPU took longer than these products.
        let scale = 1.0 / (width as f64 / HEADS as f64).sqrt();
        let scores = ((qkv.get(0)? * scale)?).matmul(&qkv.get(1)?.transpose(D::Minus1, D::Minus2)?)?;
        let attended = softmax_last_dim(&scores)?.matmul(&qkv.get(2)?)?;
        let x = (x + self.proj.forward(&attended.transpose(1, 2)?.reshape((batch, places, width))?)?)?;
        let hidden = self.mlp[0].forward(&self.norms[1].forward(&x)?)?.gelu_erf()?;
        &x + self.mlp[1].forward(&hidden)?
    }
}

fn block(places: usize) -> Result<()> {
    let input = numbers(SEQUENCES * places * WIDTH, 0);
    let x = Tensor::from_vec(input, (SEQUENCES, places, WIDTH), &Device::Cpu)?;
    let blocks = (1..=BLOCKS).map(Block::new).collect::<Result<Vec<_>>>()?;
    measure("block", SEQUENCES * places, BLOCKS, || blocks.iter().try_fold(x.clone(), |x, b| b.forward(&x)))
}

fn main() -> Result<()> {
    ROWS.into_iter().try_for_each(product)?;
    PLACES.into_iter().try_for_each(block)
}
