// AvgPool, twin of src/ops/avg_pool.rs: means over 2 x 2 pixels, to the bit.
//
//   avg_pool  any grid, at best ceil(B h w ceil(C / 4) / 256) blocks

#include "exact.cuh"
#include "rows.cuh"

KERNEL(avg_pool, PIECE_THREADS, AvgPoolParams) {
    const int turn = turn_now(p.turn), cols = p.x.cols, width = 2 * p.out_width;
    const bool x_aligned = rows_on_16(p.x), out_aligned = rows_on_16(p.out);
    each_piece(count(p.out), cols, [&](int row, int k) {
        const int image = row / p.out.rows, pixel = row % p.out.rows;
        const int first = pixel / p.out_width * 2 * width + pixel % p.out_width * 2;
        float x[4][4], y[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float* from = row_of<const float>(p.x, turn, image, first + i / 2 * width + i % 2);
            load_numbers(x[i], from, k, cols, x_aligned);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            y[i] = (((Exact(x[0][i]) + x[1][i]) + (Exact(x[2][i]) + x[3][i])) * 0.25f).x;
        store_four(row_of<float>(p.out, turn, row), NUMBERS, k, cols, out_aligned, y);
    });
}
