//! Draws codes from logits: guidance, temperature, softmax, inverse cumulative distribution.
//!
//! logits `[G, B, K]`, G = 2 with guidance (conditional first); uniforms `[B, 1]`; out `[B, G]` of i32, the code G
//! times. The code is the number of cumulative probabilities that are at most the uniform, at most K - 1;
//! exponentials and sums in f64. A uniform of 2 + k is no draw: the code is k, whatever the logits. FLOPs: some 20 B K.

#[cfg(feature = "cuda")]
use super::on_gpu::{Launcher, Result, abi};
use super::{Kernel, Out, words};
use crate::plan::{Cost, Cx, View};
use crate::tensor::TileMut;

/// The op.
#[derive(Debug, Clone)]
pub struct TokenDraw {
    /// `[G, B, K]`
    pub logits: View,
    /// `[1, 1]`: guidance scale of the turn.
    pub scale: View,
    /// Divides the logits.
    pub temperature: f64,
    /// `[B, 1]`, in [0, 1), or [`TokenDraw::given`]
    pub uniforms: View,
    /// `[B, G]`, i32
    pub out: View,
}

impl TokenDraw {
    /// What stands in the place of a uniform where the code is not drawn but `code`; exact below 2^24.
    pub fn given(code: u32) -> f32 {
        2.0 + code as f32
    }
}

impl Kernel for TokenDraw {
    const NAME: &'static str = "token_draw";

    fn out(&self) -> Out {
        Out::new(self.out, 1, self.out.cols())
    }

    fn cost(&self, _: usize) -> Cost {
        let n = self.logits.count() * self.logits.cols();
        Cost { bytes: words(n), flops: 20 * n as u64 }
    }

    fn tile(&self, cx: &Cx<'_>, out: TileMut<'_, f32>) {
        let mut out = out.cast::<i32>();
        let (logits, uniforms) = (cx.mat::<f32>(&self.logits), cx.mat::<f32>(&self.uniforms));
        let scale = cx.mat::<f32>(&self.scale).row(0)[0];
        let batch = self.logits.layout.rows;
        for i in out.rows() {
            let (cond, uniform) = (logits.row(i), uniforms.row(i)[0]);
            if uniform >= 2.0 {
                out.row(i).fill((uniform as usize - 2).min(cond.len() - 1) as i32);
                continue;
            }
            let guided = |k: usize| match self.logits.layout.groups {
                2 => {
                    let null = logits.row(batch + i)[k];
                    (null + (cond[k] - null) * scale) as f64
                }
                _ => cond[k] as f64,
            };
            let top = (0..cond.len()).map(guided).fold(f64::NEG_INFINITY, f64::max);
            let weight = |k: usize| ((guided(k) - top) / self.temperature).exp();
            let aim = uniform as f64 * (0..cond.len()).map(weight).sum::<f64>();
            let mut sum = 0.0;
            let passed = (0..cond.len()).map(weight).take_while(|w| {
                sum += w;
                sum <= aim
            });
            let code = passed.count().min(cond.len() - 1);
            out.row(i).fill(code as i32);
        }
    }
}

#[cfg(feature = "cuda")]
impl super::Launch for TokenDraw {
    fn launch(&self, to: &mut Launcher<'_>) -> Result<()> {
        let p = abi::TokenDraw {
            turn: to.turn(),
            logits: to.view(&self.logits)?,
            scale: to.view(&self.scale)?,
            uniforms: to.view(&self.uniforms)?,
            out: to.view(&self.out)?,
            temperature: self.temperature,
        };
        to.call("token_draw", "token_draw", [self.out.count(), 1, 1], p)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{Lab, numbers};

    #[test]
    fn counts_the_cumulative_probabilities_up_to_the_uniform() {
        for groups in [1, 2] {
            let (b, k) = (4, 33);
            let mut lab = Lab::new();
            let logits: Vec<f32> = numbers(groups * b * k, 1).iter().map(|x| 3.0 * x).collect();
            let u = [0.0, 0.3, 0.999_999_9, 0.77];
            let mut expected = Vec::new();
            for i in 0..b {
                let guided = |c: usize| {
                    let (cond, null) = (logits[i * k + c] as f64, logits[((groups - 1) * b + i) * k + c] as f64);
                    if groups == 2 { null + (cond - null) * 2.5 } else { cond }
                };
                let e: Vec<f64> = (0..k).map(|c| (guided(c) / 1.1).exp()).collect();
                let norm: f64 = e.iter().sum();
                let mut cdf = 0.0;
                let mut code = 0;
                for p in e {
                    cdf += p / norm;
                    code += i32::from(cdf <= u[i] as f64);
                }
                expected.extend(vec![code.min(k as i32 - 1) as f32; groups]);
            }
            let logits = lab.input(groups * b, k, &logits).grouped(groups);
            let (scale, uniforms) = (lab.input(1, 1, &[2.5]), lab.input(b, 1, &u));
            let out = lab.output(b, groups);
            for (isa, y) in lab.run(TokenDraw { logits, scale, temperature: 1.1, uniforms, out }) {
                let codes: Vec<f32> = y.iter().map(|y| y.to_bits() as f32).collect();
                assert_eq!(codes, expected, "{isa}");
            }
        }
    }

    #[test]
    fn a_cumulative_probability_equal_to_the_uniform_is_passed() {
        let mut lab = Lab::new();
        let (logits, scale) = (lab.input(5, 4, &[0.5; 20]), lab.input(1, 1, &[1.0]));
        let (uniforms, out) = (lab.input(5, 1, &[0.0, 0.25, 0.5, 0.75, 1.0]), lab.output(5, 1));
        for (_, y) in lab.run(TokenDraw { logits, scale, temperature: 1.0, uniforms, out }) {
            assert_eq!(y.iter().map(|y| y.to_bits()).collect::<Vec<_>>(), [0, 1, 2, 3, 3]);
        }
    }

    #[test]
    fn logits_that_are_not_numbers_still_give_a_code() {
        let mut lab = Lab::new();
        let (logits, scale, uniforms) =
            (lab.input(1, 3, &[f32::NAN; 3]), lab.input(1, 1, &[1.0]), lab.input(1, 1, &[0.5]));
        let out = lab.output(1, 1);
        for (_, y) in lab.run(TokenDraw { logits, scale, temperature: 1.0, uniforms, out }) {
            assert!(y[0].to_bits() < 3);
        }
    }
}
