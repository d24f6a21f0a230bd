// LayerNorm, twin of src/ops/layer_norm.rs. Mean and variance in two passes in f32. out may be x.
//
//   layer_norm        grid (ceil(M / 8)), a row a warp: up to 32 rows, as in norm_linear; many rows, at best of up to 1024 columns
//   layer_norm_block  grid (M), a row a block: more rows than 32, or long ones; at best up to 2048 columns

#include "norm.cuh"

const int NORM_WARPS = 8;

DEVICE NormRow row_to_norm(const LayerNormParams& p, int row) {
    const int turn = turn_now(p.turn);
    const bool modulated = p.shift.base;
    return {
        row_of<const float>(p.x, turn, row),
        row_of<void>(p.out, turn, row),
        p.weight,
        p.bias,
        modulated ? row_of<const float>(p.shift, turn, row) : nullptr,
        modulated ? row_of<const float>(p.scale, turn, row) : nullptr,
        p.x.cols,
        p.form,
        rows_on_16(p.x),
        rows_on_16(p.out),
        on_16(p.weight) && on_16(p.bias),
        modulated && rows_on_16(p.shift) && rows_on_16(p.scale)
    };
}

KERNEL(layer_norm, NORM_WARPS * 32, LayerNormParams) {
    const int row = blockIdx.x * NORM_WARPS + threadIdx.x / 32;
    if (row < count(p.x))
        normalise<32, 8, false>(row_to_norm(p, row), threadIdx.x % 32, [](float x) { return warp_sum(x); });
}

KERNEL(layer_norm_block, NORM_WARPS * 32, LayerNormParams) {
    SHARED(float, sums, NORM_WARPS);
    normalise<NORM_WARPS * 32, 2, true>(
        row_to_norm(p, blockIdx.x), threadIdx.x, [&](float x) { return block_sum<NORM_WARPS>(x, sums); }
    );
}
