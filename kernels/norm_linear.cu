// A LayerNorm and the Linear that alone reads it, of few rows: each block makes the norm anew, which costs less than a
// launch. To the bit what layer_norm into pairs and the Linear's kernel of few rows give. out is not x.
//
//   norm_linear_few_bf16     at most 16 rows, K at most 1408 splits: grid, `partial` and `tickets` as linear_few_bf16
//   norm_linear_few_bf16_32  at most 32 rows, K at most 640 splits: as linear_few_bf16_32
// linear.x is what the norm reads, numbers.

#include "few.cuh"
#include "norm.cuh"

// Lines of a product that follow each other in one of its splits: a round of fours of a warp.
enum { RUN = 64 };

// A block's rows lie in shared memory, RUNS of a split's runs each, so that eight rows are in different banks.
template <int RUNS> struct NormedRows {
    using Number = Bf16;
    static constexpr bool SHARED_PARTS = true;
    static constexpr int ROW = RUNS * RUN + 4;
    const NormLinearParams& p;
    unsigned* rows;

    DEVICE NormedRows(const NormLinearParams& p, unsigned* rows) : p(p), rows(rows) {}

    // A row a warp, as layer_norm does it; of the runs only this split's.
    DEVICE void prepare() {
        const View& x = p.linear.x;
        const int turn = turn_now(p.linear.turn), cols = x.cols, lane = threadIdx.x % 32;
        const bool modulated = p.shift.base;
#pragma unroll 1
        for (int row = threadIdx.x / 32; row < count(x); row += FEW_WARPS) {
            const NormRow r{
                row_of<const float>(x, turn, row),
                rows + row * ROW,
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
                [&](int run) { return run % p.linear.splits == (int)blockIdx.y ? run / p.linear.splits : -1; }
            );
        }
        __syncthreads();
    }

    DEVICE unsigned pair(int i, int line) const {
        const int row = threadIdx.x % 32 / 4 + 8 * i, at = line / RUN / p.linear.splits * RUN + line % RUN;
        return row < count(p.linear.x) && 2 * line < p.linear.w.k ? rows[row * ROW + at] : 0;
    }
};

template <int TILES, int RUNS> DEVICE void norm_linear(const NormLinearParams& p, unsigned* memory, unsigned* last) {
    static_assert(16 * TILES * NormedRows<RUNS>::ROW >= few_parts(TILES), "the sums have room");
    NormedRows<RUNS> rows(p, memory);
    few_narrow<TILES>(p.linear, rows, (float*)memory, last);
}

KERNEL(norm_linear_few_bf16, BOUNDS(FEW_WARPS * 32, 2), NormLinearParams) {
    SHARED(unsigned, memory, 16 * NormedRows<11>::ROW);
    SHARED(unsigned, last, 1);
    norm_linear<1, 11>(p, memory, last);
}

KERNEL(norm_linear_few_bf16_32, BOUNDS(FEW_WARPS * 32, 2), NormLinearParams) {
    SHARED(unsigned, memory, 32 * NormedRows<5>::ROW);
    SHARED(unsigned, last, 1);
    norm_linear<2, 5>(p, memory, last);
}
