//! The diffusion schedule of the head: a cosine schedule respaced to fewer steps, with learned variance between two
//! bounds.
//!
//! Nichol and Dhariwal, "Improved denoising diffusion probabilistic models" (2102.09672), sections 3.1, 3.2 and 4.

/// Factors of every step, in f64; index 0 is the cleanest step, the last one made.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Step of the training schedule.
    pub t: Vec<usize>,
    /// sqrt(1 / alpha-bar): the noisy token's factor in the estimate of the clean one.
    pub recip: Vec<f64>,
    /// sqrt(1 / alpha-bar - 1): the noise's.
    pub recip_minus_one: Vec<f64>,
    /// ln of the smallest variance: the posterior's.
    pub min_log: Vec<f64>,
    /// ln of the largest variance: beta.
    pub max_log: Vec<f64>,
    /// The clean token's factor in the posterior mean.
    pub mean_clean: Vec<f64>,
    /// The noisy token's.
    pub mean_noisy: Vec<f64>,
}

impl Schedule {
    /// The schedule of `train_steps` respaced to `steps`, both at least 1.
    pub fn new(train_steps: usize, steps: usize) -> Self {
        let bar = |t: f64| ((t + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2);
        let n = train_steps as f64;
        let mut product = 1.0;
        let cumulative: Vec<f64> = (0..train_steps)
            .map(|i| {
                let beta = (1.0 - bar((i as f64 + 1.0) / n) / bar(i as f64 / n)).min(0.999);
                product *= 1.0 - beta;
                product
            })
            .collect();
        let stride = if steps > 1 { (train_steps - 1) as f64 / (steps - 1) as f64 } else { 1.0 };
        let mut t: Vec<usize> = (0..steps).map(|i| (i as f64 * stride).round_ties_even() as usize).collect();
        t.dedup();
        t.retain(|&t| t < train_steps);

        let a: Vec<f64> = t.iter().map(|&t| cumulative[t]).collect();
        let previous = |i: usize| if i == 0 { 1.0 } else { a[i - 1] };
        let each = |f: &dyn Fn(usize) -> f64| (0..a.len()).map(f).collect::<Vec<_>>();
        let beta = |i: usize| 1.0 - a[i] / previous(i);
        let posterior = |i: usize| beta(i) * (1.0 - previous(i)) / (1.0 - a[i]);
        // The posterior variance of step 0 is 0: the next one's stands in, as published.
        let min_log = |i: usize| if a.len() > 1 { posterior(i.max(1)).ln() } else { beta(i).ln() };
        Self {
            recip: each(&|i| (1.0 / a[i]).sqrt()),
            recip_minus_one: each(&|i| (1.0 / a[i] - 1.0).sqrt()),
            min_log: each(&min_log),
            max_log: each(&|i| beta(i).ln()),
            mean_clean: each(&|i| beta(i) * previous(i).sqrt() / (1.0 - a[i])),
            mean_noisy: each(&|i| (1.0 - previous(i)) * (1.0 - beta(i)).sqrt() / (1.0 - a[i])),
            t,
        }
    }

    /// Number of steps.
    pub fn len(&self) -> usize {
        self.t.len()
    }

    /// Never: there is at least one step.
    pub fn is_empty(&self) -> bool {
        self.t.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread_over_the_training_schedule() {
        let s = Schedule::new(1000, 25);
        assert_eq!((s.len(), s.t[0], s.t[1], s.t[24]), (25, 0, 42, 999));
        assert_eq!(Schedule::new(1000, 1).t, [0]);
        assert_eq!(Schedule::new(10, 10).t, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn the_posterior_mean_of_a_clean_token_is_that_token() {
        // With no noise left, x = clean * sqrt(a): the mean must be clean * sqrt(previous a).
        let s = Schedule::new(1000, 50);
        for i in 1..s.len() {
            let a = 1.0 / (s.recip[i] * s.recip[i]);
            let previous = 1.0 / (s.recip[i - 1] * s.recip[i - 1]);
            let mean = s.mean_clean[i] + s.mean_noisy[i] * a.sqrt();
            assert!((mean - previous.sqrt()).abs() < 1e-9, "step {i}");
            assert!(s.min_log[i] <= s.max_log[i] + 1e-12);
        }
        // The posterior variance of the cleanest step is 0; its logarithm is no number to compute with.
        assert_eq!(s.min_log[0], s.min_log[1]);
    }
}
