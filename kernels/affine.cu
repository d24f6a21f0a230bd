// Affine, twin of src/ops/affine.rs: out = clamp(x * scale + shift). out may be x.
//
//   affine  any grid, at best ceil(M ceil(C / 4) / 256) blocks

#include "rows.cuh"

KERNEL(affine, PIECE_THREADS, AffineParams) {
    const int turn = turn_now(p.turn), cols = p.x.cols;
    const bool x_aligned = rows_on_16(p.x), out_aligned = rows_on_16(p.out);
    const bool factors_aligned = on_16(p.scale) && on_16(p.shift);
    each_piece(count(p.x), cols, [&](int row, int k) {
        float x[4];
        load_numbers(x, row_of<const float>(p.x, turn, row), k, cols, x_aligned);
        if (p.scale) {
            float scale[4], shift[4];
            load_numbers(scale, p.scale, k, cols, factors_aligned);
            load_numbers(shift, p.shift, k, cols, factors_aligned);
#pragma unroll
            for (int i = 0; i < 4; i++) x[i] = fmaf(x[i], scale[i], shift[i]);
        }
        // NaN stays NaN.
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (p.bounded) x[i] = x[i] < p.low ? p.low : x[i] > p.high ? p.high : x[i];
        store_four(row_of<float>(p.out, turn, row), NUMBERS, k, cols, out_aligned, x);
    });
}
