// Linear, twin of src/ops/linear.rs: out = f(x W^T + bias). Sums are f32. panels = ceil((skip + N) / 16).
//
// Many rows: grid (ceil(panels * 16 / tile columns) * ceil(M / tile rows)), the tiles of the same rows one after the other.
//   linear_bf16_numbers, linear_bf16_pairs              tiles of 128 x 128, by form of x
//   linear_bf16_numbers_small, linear_bf16_pairs_small  tiles of 64 x 64, where those above would be too few; grid z is
//                                                       `splits`, a tile takes 4096 floats of `partial` times splits
//   linear_f16, linear_f16_small                        the same of f16; x numbers, which are rounded to f16
//   linear_f32                                          tiles of 64 x 64; x numbers, weights f32 or widened bf16
// At most 16 rows, every weight read once:
//   linear_few_bf16, linear_few_f16        grid (ceil(panels / 2), splits); a tile takes 512 floats of `partial` times splits
//   linear_few_bf16_32, linear_few_f16_32  the same for at most 32 rows; a tile takes 1024
//   linear_few_f32                         grid (panels); x numbers
// `partial` lies on 16 bytes. Several splits are for products whose tiles do not fill the device. Kernels of f16 leave
// numbers.

#include "few.cuh"

template <class Number> using Large = Tile<128, 128, 64, 64, 3, Number>;
template <class Number> using Small = Tile<64, 64, 32, 32, 4, Number>;

template <class T, class Input> DEVICE void tall(const LinearParams& p, unsigned* memory) {
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, T::M, T::N);
    Sums<T> sums;
    product_narrow<T>(Input(p.x, turn, p.w.k), p.w, memory, at.m0, at.c0, 0, pieces(packed_lines(p.w), 16), sums);
    store_narrow<T>(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, at.m0, at.c0, sums, memory);
}

template <class T, class Input> DEVICE void tall_split(const LinearParams& p, unsigned* memory) {
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, T::M, T::N);
    Sums<T> sums;
    if (!product_narrow_split<T>(
            Input(p.x, turn, p.w.k), p.w, memory, at.m0, at.c0, sums, p.splits, p.partial, p.tickets
        ))
        return;
    store_narrow<T>(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, at.m0, at.c0, sums, memory);
}

#define TALL(name, Number, Rows)                                                                                       \
    KERNEL(name, Large<Number>::THREADS, LinearParams) {                                                               \
        SHARED(unsigned, memory, Large<Number>::MEMORY);                                                               \
        tall<Large<Number>, Rows>(p, memory);                                                                          \
    }                                                                                                                  \
    KERNEL(name##_small, Small<Number>::THREADS, LinearParams) {                                                       \
        SHARED(unsigned, memory, Small<Number>::MEMORY);                                                               \
        tall_split<Small<Number>, Rows>(p, memory);                                                                    \
    }
TALL(linear_bf16_numbers, Bf16, NumberRows)
TALL(linear_bf16_pairs, Bf16, PairRows)
TALL(linear_f16, Half, NumberRows)

KERNEL(linear_f32, 256, LinearParams) {
    SHARED(float, a, 16 * 68);
    SHARED(float, b, 16 * 68);
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, 64, 64);
    float sums[4][4];
    product_f32(NumberRows(p.x, turn, p.w.k), p.w, a, b, at.m0, at.c0, sums);
    store_f32(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.x), p.w.skip, at.m0, at.c0, sums);
}

template <int TILES, class Number> DEVICE void few_rows(const LinearParams& p, float* parts, unsigned* last) {
    FewRows<TILES, Number> rows(p);
    few_narrow<TILES>(p, rows, parts, last);
}

#define FEW(name, Number)                                                                                              \
    KERNEL(name, BOUNDS(FEW_WARPS * 32, 2), LinearParams) {                                                            \
        SHARED(float, parts, few_parts(1));                                                                            \
        SHARED(unsigned, last, 1);                                                                                     \
        few_rows<1, Number>(p, parts, last);                                                                           \
    }                                                                                                                  \
    KERNEL(name##_32, BOUNDS(FEW_WARPS * 32, 2), LinearParams) {                                                       \
        SHARED(float, parts, few_parts(2));                                                                            \
        SHARED(unsigned, last, 1);                                                                                     \
        few_rows<2, Number>(p, parts, last);                                                                           \
    }
FEW(linear_few_bf16, Bf16)
FEW(linear_few_f16, Half)

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
