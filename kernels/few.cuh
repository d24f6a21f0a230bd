// Products of 16 TILES rows at most with packed weights of 16 bits, every weight read once.
//
// A source gives the input: all threads call `prepare()` while the first weights are on their way, then `pair(i, line)` is
// line `line` of row lane / 4 + 8 i as a word of pairs; zeros where there is no such row or line.
// Number: their type. SHARED_PARTS: it reads the memory into which the sums go at last.
#pragma once

#include "product.cuh"

enum { FEW_WARPS = 8, FEW_STEPS = 4, FEW_ROW = 36 };

// Numbers of shared memory for the sums.
DEVICE constexpr int few_parts(int tiles) { return FEW_WARPS * 16 * tiles * FEW_ROW; }

// Rows as they are, in either form.
template <int TILES, class Number_> struct FewRows {
    using Number = Number_;
    static constexpr bool SHARED_PARTS = false;
    const unsigned* rows[2 * TILES];
    int form;
    int k;

    DEVICE FewRows(const LinearParams& p) : form(p.form), k(p.w.k) {
        const int g = threadIdx.x % 32 / 4, turn = turn_now(p.turn);
#pragma unroll
        for (int i = 0; i < 2 * TILES; i++)
            rows[i] = g + 8 * i < count(p.x) ? row_of<const unsigned>(p.x, turn, g + 8 * i) : nullptr;
    }
    DEVICE void prepare() {}
    DEVICE unsigned pair(int i, int line) const {
        if (!rows[i] || 2 * line >= k) return 0;
        if (form == PAIRS) return rows[i][line];
        const float* x = (const float*)rows[i];
        return Number::pair(x[2 * line], 2 * line + 1 < k ? x[2 * line + 1] : 0.0f);
    }
};

// Two panels a block. The warps share out the lines, 8 at a time. A thread loads four outputs of a line at once, so of the
// four products that it takes part in, product j has as its column g output 4 g + j of the 32.
template <int TILES, class Source>
DEVICE void few_narrow(const LinearParams& p, Source& source, float* parts, unsigned* last) {
    static_assert(TILES == 1 || TILES == 2, "a thread has four sums at last");
    const int turn = turn_now(p.turn), thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, q = lane % 4, rows = count(p.x);
    const int lines = packed_lines(p.w), panel = blockIdx.x * 2 + g / 4;
    const bool there = panel < packed_panels(p.w);
    const unsigned* panel_at = p.w.words + (there ? (long long)panel * lines * 16 + g % 4 * 4 : 0);

    float sums[TILES][4][4] = {};
    unsigned b[FEW_STEPS][2][4];
    const int steps = pieces(lines, 8), stride = FEW_WARPS * p.splits;
    auto fetch = [&](int step) {
#pragma unroll
        for (int s = 0; s < FEW_STEPS; s++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const int line = (step + s * stride) * 8 + h * 4 + q;
                if (there && line < lines)
                    load_once(b[s][h], panel_at + (long long)line * 16);
                else
                    b[s][h][0] = b[s][h][1] = b[s][h][2] = b[s][h][3] = 0;
            }
        }
    };
    int step = blockIdx.y * FEW_WARPS + warp;
    fetch(step);
    source.prepare();
    while (step < steps) {
#pragma unroll
        for (int s = 0; s < FEW_STEPS; s++) {
            const int line = (step + s * stride) * 8 + q;
#pragma unroll
            for (int t = 0; t < TILES; t++) {
                const unsigned a[4] = {
                    source.pair(2 * t, line), source.pair(2 * t + 1, line), source.pair(2 * t, line + 4),
                    source.pair(2 * t + 1, line + 4)
                };
#pragma unroll
                for (int j = 0; j < 4; j++) Source::Number::multiply(sums[t][j], a, b[s][0][j], b[s][1][j]);
            }
        }
        step += stride * FEW_STEPS;
        if (step < steps) fetch(step);
    }
    if constexpr (Source::SHARED_PARTS) __syncthreads();
#pragma unroll
    for (int t = 0; t < TILES; t++) {
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int row = t * 16 + g + r / 2 * 8;
            float* to = parts + (warp * 16 * TILES + row) * FEW_ROW + (2 * q + r % 2) * 4;
            *(float4*)to = {sums[t][0][r], sums[t][1][r], sums[t][2][r], sums[t][3][r]};
        }
    }
    __syncthreads();
    // The warps' sums, then the splits', are added in their order: the result does not depend on who was first.
    const int row = thread / 8, column = thread % 8 * 4;
    float4 all[1] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int i = 0; i < FEW_WARPS && row < 16 * TILES; i++) {
        const float4 more = *(const float4*)(parts + (i * 16 * TILES + row) * FEW_ROW + column);
        all[0].x += more.x, all[0].y += more.y, all[0].z += more.z, all[0].w += more.w;
    }
    if (p.splits > 1) {
        float* partial = p.partial + (long long)blockIdx.x * p.splits * 512 * TILES;
        if (!join_splits<1, 128 * TILES>(all, partial, p.tickets + blockIdx.x, blockIdx.y, p.splits, last)) return;
    }
    if (row >= rows) return;
    const Store store{p.epilogue, p.out, turn, p.w.rows};
    const int n = blockIdx.x * 32 + column - p.w.skip;
    float y[4] = {all[0].x, all[0].y, all[0].z, all[0].w}, bias[4];
    store.bias(bias, n);
    store.four(row, n, y, bias);
}
