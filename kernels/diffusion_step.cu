// DiffusionStep, twin of src/ops/diffusion_step.rs: guidance, the clean estimate and its clip, the posterior's mean, the
// learned variance, the noise. x in place.
//
//   diffusion_step  any grid, at best ceil(N C / 256) blocks

#include "common.cuh"

KERNEL(diffusion_step, 256, DiffusionStepParams) {
    const int turn = turn_now(p.turn), rows = count(p.x), channels = p.x.cols, all = rows * channels;
    const float* f = row_of<const float>(p.factors, turn, 0);
    const float recip = f[0], recip_minus_one = f[1], mean_clean = f[2], mean_noisy = f[3];
    const float min_log = f[4], max_log = f[5], noisy = f[6];
    for (int i = blockIdx.x * 256 + threadIdx.x; i < all; i += gridDim.x * 256) {
        const int row = i / channels, c = i % channels;
        const float* eps = row_of<const float>(p.eps, turn, row);
        float* to = row_of<float>(p.x, turn, row) + c;
        const float x = *to, share = (eps[channels + c] + 1.0f) * 0.5f;
        float e = eps[c];
        if (p.guided) {
            const float null = row_of<const float>(p.eps, turn, rows + row)[c];
            e = fmaf(p.guidance, e - null, null);
        }
        float clean = recip * x - recip_minus_one * e;
        if (p.clipped) clean = fminf(fmaxf(clean, -p.clip), p.clip);
        const float mean = fmaf(mean_clean, clean, mean_noisy * x);
        const float log_variance = fmaf(share, max_log - min_log, min_log);
        const float factor = noisy * (expf(log_variance * 0.5f) * p.temperature);
        *to = fmaf(factor, row_of<const float>(p.noise, turn, row)[c], mean);
    }
}
