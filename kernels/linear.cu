// Linear, twin of src/ops/linear.rs: out = f(x W^T + bias). Sums are f32. panels = ceil((skip + N) / 16).
//
// Many rows: grid (ceil(panels * 16 / tile columns), ceil(M / tile rows)).
//   linear_bf16_numbers, linear_bf16_pairs              tiles of 128 x 128, by form of x
//   linear_bf16_numbers_small, linear_bf16_pairs_small  tiles of 64 x 64, where those above would be too few; grid z is
//                                                       `splits`, a tile takes 4096 floats of `partial` times splits
//   linear_f32                                          tiles of 64 x 64; x numbers, weights f32 or widened bf16
// At most 16 rows, every weight read once:
//   linear_few_bf16  grid (ceil(panels / 2), splits); a tile takes 512 floats of `partial` times splits
//   linear_few_f32   grid (panels); x numbers
// `partial` lies on 16 bytes. Several splits are for products whose tiles do not fill the device.

#include "product.cuh"

using Large = Tile<128, 128, 64, 64, 3>;
using Small = Tile<64, 64, 32, 32, 4>;

template <class T, class Input> DEVICE void tall(const LinearParams& p, unsigned* memory) {
    const int turn = turn_now(p.turn), m0 = blockIdx.y * T::M, c0 = blockIdx.x * T::N;
    Sums<T> sums;
    product_bf16<T>(Input(p.x, turn, p.w.k), p.w, memory, m0, c0, 0, pieces(packed_lines(p.w), 16), sums);
    store_bf16<T>(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, m0, c0, sums, memory);
}

template <class T, class Input> DEVICE void tall_split(const LinearParams& p, unsigned* memory) {
    const int turn = turn_now(p.turn), m0 = blockIdx.y * T::M, c0 = blockIdx.x * T::N;
    Sums<T> sums;
    if (!product_bf16_split<T>(
            Input(p.x, turn, p.w.k), p.w, memory, m0, c0, sums, p.splits, p.partial, p.tickets
        ))
        return;
    store_bf16<T>(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, m0, c0, sums, memory);
}

KERNEL(linear_bf16_numbers, Large::THREADS, LinearParams) {
    SHARED(unsigned, memory, Large::MEMORY);
    tall<Large, NumberRows>(p, memory);
}

KERNEL(linear_bf16_pairs, Large::THREADS, LinearParams) {
    SHARED(unsigned, memory, Large::MEMORY);
    tall<Large, PairRows>(p, memory);
}

KERNEL(linear_bf16_numbers_small, Small::THREADS, LinearParams) {
    SHARED(unsigned, memory, Small::MEMORY);
    tall_split<Small, NumberRows>(p, memory);
}

KERNEL(linear_bf16_pairs_small, Small::THREADS, LinearParams) {
    SHARED(unsigned, memory, Small::MEMORY);
    tall_split<Small, PairRows>(p, memory);
}

KERNEL(linear_f32, 256, LinearParams) {
    SHARED(float, a, 16 * 68);
    SHARED(float, b, 16 * 68);
    const int turn = turn_now(p.turn), m0 = blockIdx.y * 64, c0 = blockIdx.x * 64;
    float sums[4][4];
    product_f32(NumberRows(p.x, turn, p.w.k), p.w, a, b, m0, c0, sums);
    store_f32(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, m0, c0, sums);
}

// Line `line` of a row, which may be absent, as a word of pairs.
DEVICE unsigned pair_of_row(const unsigned* row, int form, int line, int k) {
    if (!row || 2 * line >= k) return 0;
    if (form == PAIRS) return row[line];
    const float* x = (const float*)row;
    return bf16_pair(x[2 * line], 2 * line + 1 < k ? x[2 * line + 1] : 0.0f);
}

enum { FEW_WARPS = 8, FEW_STEPS = 4, FEW_ROW = 36 };

// Two panels a block. The warps share out the lines, 8 at a time. A thread loads four outputs of a line at once, so of the
// four products that it takes part in, product j has as its column g output 4 g + j of the 32.
KERNEL(linear_few_bf16, BOUNDS(FEW_WARPS * 32, 2), LinearParams) {
    SHARED(float, parts, FEW_WARPS * 16 * FEW_ROW);
    SHARED(unsigned, last, 1);
    const int turn = turn_now(p.turn), thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int g = lane / 4, q = lane % 4, rows = count(p.x), k = p.w.k;
    const int lines = packed_lines(p.w), panel = blockIdx.x * 2 + g / 4;
    const bool there = panel < packed_panels(p.w);
    const unsigned* panel_at = p.w.words + (there ? (long long)panel * lines * 16 + g % 4 * 4 : 0);
    const unsigned* upper = g < rows ? row_of<const unsigned>(p.x, turn, g) : nullptr;
    const unsigned* lower = g + 8 < rows ? row_of<const unsigned>(p.x, turn, g + 8) : nullptr;

    float sums[4][4] = {};
    const int steps = pieces(lines, 8), stride = FEW_WARPS * p.splits;
    for (int step = blockIdx.y * FEW_WARPS + warp; step < steps; step += stride * FEW_STEPS) {
        unsigned b[FEW_STEPS][2][4];
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
#pragma unroll
        for (int s = 0; s < FEW_STEPS; s++) {
            const int line = (step + s * stride) * 8 + q;
            const unsigned a[4] = {
                pair_of_row(upper, p.form, line, k), pair_of_row(lower, p.form, line, k),
                pair_of_row(upper, p.form, line + 4, k), pair_of_row(lower, p.form, line + 4, k)
            };
#pragma unroll
            for (int j = 0; j < 4; j++) mma(sums[j], a, b[s][0][j], b[s][1][j]);
        }
    }
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float* to = parts + (warp * 16 + g + r / 2 * 8) * FEW_ROW + (2 * q + r % 2) * 4;
        *(float4*)to = {sums[0][r], sums[1][r], sums[2][r], sums[3][r]};
    }
    __syncthreads();
    // The warps' sums, then the splits', are added in their order: the result does not depend on who was first.
    const int row = thread / 8, column = thread % 8 * 4;
    float4 all[1] = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (int i = 0; i < FEW_WARPS && row < 16; i++) {
        const float4 more = *(const float4*)(parts + (i * 16 + row) * FEW_ROW + column);
        all[0].x += more.x, all[0].y += more.y, all[0].z += more.z, all[0].w += more.w;
    }
    if (p.splits > 1) {
        float* partial = p.partial + (long long)blockIdx.x * p.splits * 512;
        if (!join_splits<1, 128>(all, partial, p.tickets + blockIdx.x, blockIdx.y, p.splits, last)) return;
    }
    if (row >= rows) return;
    const Store store{p.epilogue, p.out, turn, p.w.rows};
    const int n = blockIdx.x * 32 + column - p.w.skip;
    float y[4] = {all[0].x, all[0].y, all[0].z, all[0].w}, bias[4];
    store.bias(bias, n);
    store.four(row, n, y, bias);
}

// A panel a block: 16 outputs by 16 runs of lines.
template <int ROWS> DEVICE void few_f32(const LinearParams& p, float* parts) {
    const int turn = turn_now(p.turn), thread = threadIdx.x, output = thread % 16, run = thread / 16;
    const int rows = count(p.x), lines = packed_lines(p.w), k = p.w.k;
    const bool pairs = p.w.format != F32;
    const unsigned* panel = p.w.words + (long long)blockIdx.x * lines * 16 + output;
    const float* x[ROWS];
#pragma unroll
    for (int m = 0; m < ROWS; m++) x[m] = row_of<const float>(p.x, turn, smaller(m, rows - 1));
    float sums[ROWS] = {};
    for (int first = run; first < lines; first += 16 * 4) {
        unsigned words[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int line = first + i * 16;
            words[i] = line < lines ? panel[(long long)line * 16] : 0;
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int line = first + i * 16, at = pairs ? 2 * line : line;
            if (line >= lines) break;
            const float w = pairs ? low_number(words[i]) : __uint_as_float(words[i]);
#pragma unroll
            for (int m = 0; m < ROWS; m++) sums[m] = fmaf(x[m][at], w, sums[m]);
            if (pairs && at + 1 < k) {
#pragma unroll
                for (int m = 0; m < ROWS; m++) sums[m] = fmaf(x[m][at + 1], high_number(words[i]), sums[m]);
            }
        }
    }
#pragma unroll
    for (int m = 0; m < ROWS; m++) parts[(run * ROWS + m) * 16 + output] = sums[m];
    __syncthreads();
    const Store store{p.epilogue, p.out, turn, p.w.rows};
    for (int i = thread; i < rows * 4; i += 256) {
        const int row = i / 4, column = i % 4 * 4, n = blockIdx.x * 16 + column - p.w.skip;
        float y[4] = {0.0f, 0.0f, 0.0f, 0.0f}, bias[4];
        for (int r = 0; r < 16; r++) {
#pragma unroll
            for (int j = 0; j < 4; j++) y[j] += parts[(r * ROWS + row) * 16 + column + j];
        }
        store.bias(bias, n);
        store.four(row, n, y, bias);
    }
}

KERNEL(linear_few_f32, 256, LinearParams) {
    SHARED(float, parts, 16 * 16 * 16);
    const int rows = count(p.x);
    if (rows <= 2)
        few_f32<2>(p, parts);
    else
        few_f32<16>(p, parts);
}
