// A LayerNorm and the Linear that alone reads it, of at most 16 rows and 1472 columns: each block makes the norm anew, which
// costs less than a launch. To the bit what layer_norm into pairs and linear_few_bf16 give. out is not x.
//
//   norm_linear_few_bf16  grid, `partial` and `tickets` as linear_few_bf16; linear.x is what the norm reads, numbers

#include "few.cuh"
#include "norm.cuh"

// Words of a row of pairs: eight rows are in different banks.
enum { NORMED_ROW = 1472 / 2 + 4 };

struct NormedRows {
    static constexpr bool SHARED_PARTS = true;
    const NormLinearParams& p;
    unsigned* rows; // shared

    DEVICE NormedRows(const NormLinearParams& p, unsigned* rows) : p(p), rows(rows) {}

    // A row a warp, as layer_norm does it. Of the products' lines a split has 64, then so many for each other split: that
    // is one round of fours, and only these are wanted here.
    DEVICE void prepare() {
        const View& x = p.linear.x;
        const int turn = turn_now(p.linear.turn), cols = x.cols, lane = threadIdx.x % 32;
        const bool modulated = p.shift.base;
#pragma unroll 1
        for (int row = threadIdx.x / 32; row < count(x); row += FEW_WARPS) {
            const NormRow r{
                row_of<const float>(x, turn, row),
                rows + row * NORMED_ROW,
                p.weight,
                p.bias,
                modulated ? row_of<const float>(p.shift, turn, row) : nullptr,
                modulated ? row_of<const float>(p.scale, turn, row) : nullptr,
                cols,
                PAIRS,
                rows_on_16(x),
                true,
                on_16(p.weight) && on_16(p.bias),
                modulated && rows_on_16(p.shift) && rows_on_16(p.scale)
            };
            normalise<32, 6, false>(
                r, lane, [](float x) { return warp_sum(x); },
                [&](int round) { return round % p.linear.splits == (int)blockIdx.y; }
            );
        }
        __syncthreads();
    }

    DEVICE unsigned pair(int lower, int line) const {
        const int row = threadIdx.x % 32 / 4 + 8 * lower;
        return row < count(p.linear.x) && 2 * line < p.linear.w.k ? rows[row * NORMED_ROW + line] : 0;
    }
};

KERNEL(norm_linear_few_bf16, BOUNDS(FEW_WARPS * 32, 2), NormLinearParams) {
    SHARED(unsigned, memory, 16 * NORMED_ROW);
    SHARED(unsigned, last, 1);
    static_assert(16 * NORMED_ROW >= FEW_PARTS, "the sums have room");
    NormedRows rows(p, memory);
    few_bf16(p.linear, rows, (float*)memory, last);
}
