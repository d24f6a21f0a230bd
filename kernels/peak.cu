// What a GPU can do at most, for src/cuda/peak.rs: multiply-adds in registers alone, and a large copy.
//
//   peak_f32, peak_bf16  any grid: each thread (f32) or warp (bf16) does `turns` of its chains
//   peak_copy            any grid, at best a few blocks a multiprocessor

#include "common.cuh"

const int PEAK_CHAINS = 16, PEAK_TILES = 8;

KERNEL(peak_f32, 256, PeakParams) {
    float x[PEAK_CHAINS];
    const float a = 1.0f - 1e-7f * threadIdx.x, b = 1e-7f * blockIdx.x;
#pragma unroll
    for (int i = 0; i < PEAK_CHAINS; i++) x[i] = (float)i;
#pragma unroll 1
    for (int turn = 0; turn < p.turns; turn++)
#pragma unroll
        for (int i = 0; i < PEAK_CHAINS; i++) x[i] = fmaf(x[i], a, b);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PEAK_CHAINS; i++) sum += x[i];
    // Never so, but the compiler cannot know.
    if (sum == -1.0f) p.to[0] = __float_as_uint(sum);
}

KERNEL(peak_bf16, 256, PeakParams) {
    float sums[PEAK_TILES][4];
    const unsigned one = bf16_pair(1.0f, 1.0f - 1e-2f * threadIdx.x), words[4] = {one, one ^ 1, one ^ 2, one ^ 3};
#pragma unroll
    for (int i = 0; i < PEAK_TILES; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = (float)i;
#pragma unroll 1
    for (int turn = 0; turn < p.turns; turn++)
#pragma unroll
        for (int i = 0; i < PEAK_TILES; i++) mma(sums[i], words, one, one ^ 1);
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < PEAK_TILES; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sum += sums[i][j];
    if (sum == -1.0f) p.to[0] = __float_as_uint(sum);
}

// In pieces of 16 bytes; `words` is a multiple of four.
KERNEL(peak_copy, 256, PeakParams) {
    const long long all = p.words / 4, step = (long long)gridDim.x * 256;
    const uint4* from = (const uint4*)p.from;
    uint4* to = (uint4*)p.to;
    long long i = (long long)blockIdx.x * 256 + threadIdx.x;
    for (; i + 3 * step < all; i += 4 * step) {
        const uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        to[i] = a, to[i + step] = b, to[i + 2 * step] = c, to[i + 3 * step] = d;
    }
    for (; i < all; i += step) to[i] = from[i];
}
