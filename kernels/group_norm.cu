// GroupStats, GroupFactors and GroupNorm, twins of src/ops/group_norm.rs, over channels-last images with 32 groups of
// channels. Blocks of pixels are joined in f64, always in the same order.
//
//   group_stats    grid (ceil(C / 32), blocks, B): blocks of pixels, as many as `out` has rows
//   group_factors  grid (4, B)
//   group_norm     any grid, at best ceil(B P ceil(C / 4) / 256) blocks; out may be x where it is numbers

#include "rows.cuh"

const int STATS_WARPS = 8, STATS_HELD = 8, GROUPS = 32;

// Pixels of blocks 0 .. i - 1.
DEVICE int pixels_before(int pixels, int blocks, int i) { return (int)((long long)i * pixels / blocks); }

// Mean and sum of squared deviations of `n` numbers.
struct Moments {
    float n, mean, squares;

    DEVICE void join(const Moments& other) {
        const float all = n + other.n, delta = other.mean - mean;
        if (all == 0.0f) return;
        const float share = other.n / all;
        squares += other.squares + delta * delta * (n * share);
        mean += delta * share;
        n = all;
    }
};

// A lane has a channel, a warp every 8th pixel. All is reckoned from the block's first pixel: a mean far from 0 costs no
// digits of the spread around it.
KERNEL(group_stats, STATS_WARPS * 32, GroupStatsParams) {
    SHARED(Moments, parts, STATS_WARPS * 32);
    const int turn = turn_now(p.turn), pixels = p.x.rows, blocks = p.out.rows, image = blockIdx.z;
    const int first = pixels_before(pixels, blocks, blockIdx.y), end = pixels_before(pixels, blocks, blockIdx.y + 1);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.x * 32 + lane, channels = p.x.cols;
    const float origin = c < channels ? row_of<const float>(p.x, turn, image, first)[c] : 0.0f;
    Moments all{0.0f, 0.0f, 0.0f};
    for (int pixel = first + warp; c < channels && pixel < end; pixel += STATS_WARPS * STATS_HELD) {
        float x[STATS_HELD], sum = 0.0f, squares = 0.0f;
        const int here = smaller(pieces(end - pixel, STATS_WARPS), STATS_HELD);
#pragma unroll
        for (int i = 0; i < STATS_HELD; i++) {
            x[i] = i < here ? row_of<const float>(p.x, turn, image, pixel + i * STATS_WARPS)[c] - origin : 0.0f;
            sum += x[i];
        }
        const float mean = sum / (float)here;
#pragma unroll
        for (int i = 0; i < STATS_HELD; i++) {
            const float d = i < here ? x[i] - mean : 0.0f;
            squares = fmaf(d, d, squares);
        }
        all.join({(float)here, mean, squares});
    }
    parts[threadIdx.x] = all;
    __syncthreads();
    if (warp > 0 || c >= channels) return;
    for (int i = 1; i < STATS_WARPS; i++) all.join(parts[i * 32 + lane]);
    float* out = row_of<float>(p.out, turn, image, blockIdx.y);
    out[c] = origin + all.mean, out[channels + c] = all.squares;
}

// A group a warp.
KERNEL(group_factors, 256, GroupFactorsParams) {
    const int turn = turn_now(p.turn), image = blockIdx.y, group = blockIdx.x * 8 + threadIdx.x / 32;
    const int lane = threadIdx.x % 32, channels = p.out.cols / 2, each = channels / GROUPS, blocks = p.stats.rows;
    auto part = [&](int i, double& n, double& mean, double& squares) {
        const int block = i / each, c = group * each + i % each;
        const float* stats = row_of<const float>(p.stats, turn, image, block);
        n = pixels_before(p.pixels, blocks, block + 1) - pixels_before(p.pixels, blocks, block);
        mean = stats[c], squares = stats[channels + c];
    };
    const double count = (double)p.pixels * each;
    double sum = 0.0, n, m, squares;
    for (int i = lane; i < blocks * each; i += 32) {
        part(i, n, m, squares);
        sum += n * m;
    }
    const double mean = warp_sum(sum) / count;
    sum = 0.0;
    for (int i = lane; i < blocks * each; i += 32) {
        part(i, n, m, squares);
        sum += squares + n * (m - mean) * (m - mean);
    }
    const double rstd = 1.0 / sqrt(warp_sum(sum) / count + (double)1e-6f);
    float* out = row_of<float>(p.out, turn, image);
    for (int c = group * each + lane; c < (group + 1) * each; c += 32) {
        const double w = p.weight[c] * rstd;
        out[c] = (float)w, out[channels + c] = (float)(p.bias[c] - mean * w);
    }
}

KERNEL(group_norm, PIECE_THREADS, GroupNormParams) {
    const int turn = turn_now(p.turn), channels = p.x.cols;
    const bool x_aligned = rows_on_16(p.x), out_aligned = rows_on_16(p.out);
    const bool factors_aligned = rows_on_16(p.factors) && channels % 4 == 0;
    each_piece(count(p.x), channels, [&](int row, int k) {
        float x[4], scale[4], shift[4];
        const float* factors = row_of<const float>(p.factors, turn, row / p.x.rows);
        load_numbers(x, row_of<const float>(p.x, turn, row), k, channels, x_aligned);
        load_numbers(scale, factors, k, channels, factors_aligned);
        load_numbers(shift, factors + channels, k, channels, factors_aligned);
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = activate(p.activation, fmaf(x[i], scale[i], shift[i]));
        store_four(row_of<void>(p.out, turn, row), p.form, k, channels, out_aligned, x);
    });
}
