// HeadNorm, twin of src/ops/head_norm.rs: each head of a row normalised by itself, or rows copied, into a cache for one. A
// head a warp.
//
//   head_norm   grid (ceil(M H / 8))
//   head_norms  grid (the most that one of them wants, number of them): queries, keys and values of a place at once

#include "norm.cuh"

const int HEAD_WARPS = 8;

DEVICE void norm_head(const HeadNormParams& p) {
    const int turn = turn_now(p.turn), d = p.head_size, heads = p.x.cols / d, lane = threadIdx.x % 32;
    const int i = blockIdx.x * HEAD_WARPS + threadIdx.x / 32;
    if (i >= count(p.x) * heads) return;
    const int row = i / heads, column = i % heads * d;
    const float* x = row_of<const float>(p.x, turn, row) + column;
    float* out = row_of<float>(p.out, turn, row) + column;
    const bool x_aligned = rows_on_16(p.x) && d % 4 == 0, out_aligned = rows_on_16(p.out) && d % 4 == 0;
    if (p.weight) {
        const bool affine_aligned = on_16(p.weight) && on_16(p.bias);
        const NormRow r{
            x, out, p.weight, p.bias, nullptr, nullptr, d, NUMBERS, x_aligned, out_aligned, affine_aligned, false
        };
        normalise<32, 1, true>(r, lane, [](float x) { return warp_sum(x); });
        return;
    }
    for (int k = lane * 4; k < d; k += 32 * 4) {
        float four[4];
        load_numbers(four, x, k, d, x_aligned);
        store_four(out, NUMBERS, k, d, out_aligned, four);
    }
}

KERNEL(head_norm, HEAD_WARPS * 32, HeadNormParams) { norm_head(p); }

KERNEL(head_norms, HEAD_WARPS * 32, HeadNormsParams) { norm_head(p.each[blockIdx.y]); }
