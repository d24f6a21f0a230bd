// Products with packed weights for many rows: a block computes a tile of the result, its input gathered by a source.
//
// A source says where the input's rows lie: `Place place(row)`, then for a place either `copy(shared, place, word)`, four
// words of pairs on their way into shared memory (COPIES), or `load(x, place, k)`, some numbers from k on, zeros behind
// K and for rows that do not exist.
#pragma once

#include "common.cuh"

DEVICE int packed_lines(const Packed& w) { return w.format == F32 ? w.k : (w.k + 1) / 2; }
DEVICE int packed_panels(const Packed& w) { return pieces(w.skip + w.rows, 16); }

// Four numbers from n on, which may be negative, of a row of `cols`; zeros outside of it.
DEVICE void load_four(float (&x)[4], const float* row, int n, int cols) {
    if (n >= 0 && n + 4 <= cols && on_16(row + n)) {
        const float4 four = *(const float4*)(row + n);
        x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) x[i] = n + i >= 0 && n + i < cols ? row[n + i] : 0.0f;
    }
}

// Columns of a tile are columns of the panels: the first `skip` are not the matrix's.
struct Store {
    const Epilogue& e;
    const View& out;
    int turn;
    int cols;

    DEVICE void bias(float (&x)[4], int n) const {
        x[0] = x[1] = x[2] = x[3] = 0.0f;
        if (e.bias) load_four(x, e.bias, n, cols);
    }

    // Columns n .. n + 3 of a row, as far as they are the matrix's; n is even where pairs are stored.
    DEVICE void four(int row, int n, float (&y)[4], const float (&bias)[4]) const {
        if (n <= -4 || n >= cols) return;
#pragma unroll
        for (int i = 0; i < 4; i++) y[i] += bias[i];
        if (e.activation != IDENTITY) {
#pragma unroll
            for (int i = 0; i < 4; i++) y[i] = activate(e.activation, y[i]);
        }
        float other[4];
        if (e.gate.base) {
            load_four(other, row_of<const float>(e.gate, turn, row), n, cols);
#pragma unroll
            for (int i = 0; i < 4; i++) y[i] *= other[i];
        }
        if (e.form == PAIRS) {
            unsigned* to = row_of<unsigned>(out, turn, row);
#pragma unroll
            for (int i = 0; i < 4; i += 2)
                if (n + i >= 0 && n + i < cols) to[(n + i) / 2] = bf16_pair(y[i], n + i + 1 < cols ? y[i + 1] : 0.0f);
            return;
        }
        float* to = row_of<float>(out, turn, row);
        if (e.add) {
            load_four(other, to, n, cols);
#pragma unroll
            for (int i = 0; i < 4; i++) y[i] += other[i];
        }
        if (n >= 0 && n + 4 <= cols && on_16(to + n)) {
            *(float4*)(to + n) = {y[0], y[1], y[2], y[3]};
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (n + i >= 0 && n + i < cols) to[n + i] = y[i];
        }
    }
};

// Adds the sums of a tile's splits, in their order, so that the result does not depend on who was first: true for the
// block that came last and has them all. The first THREADS threads have sums, all must call. `partial` and `tickets` are the tile's, `last` is a shared word.
template <int COUNT, int THREADS>
DEVICE bool join_splits(float4 (&sums)[COUNT], float* partial, unsigned* ticket, int split, int splits, unsigned* last) {
    const bool has = threadIdx.x < THREADS;
    float4* mine = (float4*)partial + threadIdx.x;
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        if (has) mine[(split * COUNT + i) * THREADS] = sums[i];
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *last = atomicAdd(ticket, 1u) == (unsigned)splits - 1;
        if (*last) *ticket = 0;
    }
    __syncthreads();
    if (!*last) return false;
    __threadfence();
    if (!has) return true;
#pragma unroll
    for (int i = 0; i < COUNT; i++) sums[i] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll 1
    for (int s = 0; s < splits; s++) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float4 more = __ldcg(mine + (s * COUNT + i) * THREADS);
            sums[i].x += more.x, sums[i].y += more.y, sums[i].z += more.z, sums[i].w += more.w;
        }
    }
    return true;
}

// Rows of a matrix of numbers.
struct NumberRows {
    static constexpr bool COPIES = false;
    const View& x;
    int turn;
    int k;
    bool aligned;

    using Place = const float*;
    DEVICE NumberRows(const View& x, int turn, int k) : x(x), turn(turn), k(k), aligned(rows_on_16(x)) {}
    DEVICE Place place(int row) const { return row < count(x) ? row_of<const float>(x, turn, row) : nullptr; }
    template <int N> DEVICE void load(float (&to)[N], Place row, int at) const {
        load_numbers(to, row, at, row ? k : 0, aligned);
    }
};

// Four words of a row of `words`, zeros behind its end, into shared memory.
DEVICE void copy_words(unsigned* shared, const unsigned* row, int word, int words, bool aligned) {
    int left = smaller(larger(words - word, 0), 4);
    // Nothing is read where nothing is left, but the address must be one.
    if (aligned) {
        copy_16(shared, left > 0 ? row + word : row, 4 * left);
    } else {
        for (int i = 0; i < 4; i++) copy_4(shared + i, i < left ? row + word + i : row, i < left ? 4 : 0);
    }
}

// Rows of a matrix of pairs.
struct PairRows {
    static constexpr bool COPIES = true;
    const View& x;
    int turn;
    int words;
    bool aligned;

    using Place = const unsigned*;
    DEVICE PairRows(const View& x, int turn, int k) : x(x), turn(turn), words((k + 1) / 2), aligned(rows_on_16(x)) {}
    DEVICE Place place(int row) const { return row < count(x) ? row_of<const unsigned>(x, turn, row) : nullptr; }
    DEVICE void copy(unsigned* shared, Place row, int word) const {
        copy_words(shared, row ? row : row_of<const unsigned>(x, turn, 0), word, row ? words : 0, aligned);
    }
};

// How a block cuts its tile: M x N in all, WM x WN a warp, K 32, so many stages of K on their way at once; and the type of
// both sides.
template <int M_, int N_, int WM_, int WN_, int STAGES_, class Number_ = Bf16> struct Tile {
    using Number = Number_;
    static constexpr int M = M_, N = N_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int THREADS = M / WM * (N / WN) * 32;
    static constexpr int WORDS = 16; // of a row: K / 2
    static constexpr int DOWN = WM / 16, ACROSS = WN / 32;
    static constexpr int A_WORDS = M * WORDS, B_WORDS = N * WORDS, STAGE = A_WORDS + B_WORDS;
    static constexpr int MEMORY = STAGES * STAGE; // words of shared memory
    static_assert(M * 4 % THREADS == 0 && N * 4 % THREADS == 0, "whole rounds of 16-byte pieces");
};

// Pieces of 16 bytes lie in shared memory so that eight rows of a matrix, and four lines of eight outputs, which are what
// is read at once, are in different banks.
DEVICE int a_place(int row, int piece) { return row * 16 + ((piece ^ (row >> 1 & 3)) << 2); }
DEVICE int b_place(int panel, int line, int piece) { return (panel * 16 + line) * 16 + ((piece ^ (line & 2)) << 2); }

// The tile of a block: `across` of them, which read the same rows, follow each other, so that rows have no limit but that
// of a grid's first direction.
struct TilePlace {
    int m0, c0;

    DEVICE TilePlace(const Packed& w, int rows, int cols) {
        const int across = pieces(packed_panels(w) * 16, cols);
        m0 = (int)(blockIdx.x / across) * rows, c0 = (int)(blockIdx.x % across) * cols;
    }
};

// A warp's sums. A thread reads four outputs of a line at once, so of the four products that it then takes part in,
// product j has as its column g output 4 g + j of 32. With g = lane / 4 and q = lane % 4 a thread ends up with
// at[i][c][h]: rows 16 i + g + 8 (h / 2), columns 32 c + 8 q + 4 (h % 2) and the three behind.
template <class T> struct Sums {
    float at[T::DOWN][T::ACROSS][4][4]; // by product, which is the column within the four, then by register, which is h
};

// sums = rows m0.. of the input times columns c0.. of the panels, over the steps of 32 of K that are begin .. end - 1.
template <class T, class Input>
DEVICE void product_narrow(
    const Input& input, const Packed& w, unsigned* memory, int m0, int c0, int begin, int end, Sums<T>& sums
) {
    constexpr int A_PIECES = T::M * 4 / T::THREADS, B_PIECES = T::N * 4 / T::THREADS;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, q = lane % 4;
    const int lines = packed_lines(w), panels = packed_panels(w);
    const int wm = warp / (T::N / T::WN) * T::WM, wn = warp % (T::N / T::WN) * T::WN;

    // A thread brings the same piece of every (THREADS / 4)th row.
    const int piece = thread % 4, first = thread / 4;
    typename Input::Place places[A_PIECES];
#pragma unroll
    for (int i = 0; i < A_PIECES; i++) places[i] = input.place(m0 + first + i * (T::THREADS / 4));
    float held[A_PIECES][8];

    auto fetch = [&](int step) {
        unsigned *into = memory + step % T::STAGES * T::STAGE, *to = into + T::A_WORDS;
#pragma unroll
        for (int i = 0; i < B_PIECES; i++) {
            int row = first + i * (T::THREADS / 4), panel = c0 / 16 + row / 16, line = step * 16 + row % 16;
            bool there = panel < panels && line < lines;
            const unsigned* from = there ? w.words + ((long long)panel * lines + line) * 16 + piece * 4 : w.words;
            copy_16(to + b_place(row / 16, row % 16, piece), from, there ? 16 : 0);
        }
#pragma unroll
        for (int i = 0; i < A_PIECES; i++) {
            if constexpr (Input::COPIES)
                input.copy(into + a_place(first + i * (T::THREADS / 4), piece), places[i], step * 16 + piece * 4);
            else
                input.load(held[i], places[i], step * 32 + piece * 8);
        }
    };
    auto put = [&](int step) {
        if constexpr (!Input::COPIES) {
            unsigned* into = memory + step % T::STAGES * T::STAGE;
#pragma unroll
            for (int i = 0; i < A_PIECES; i++) store_pairs<typename T::Number>(into + a_place(first + i * (T::THREADS / 4), piece), held[i]);
        }
    };

#pragma unroll
    for (int i = 0; i < T::DOWN; i++)
#pragma unroll
        for (int j = 0; j < T::ACROSS * 4; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) sums.at[i][j / 4][j % 4][r] = 0.0f;

#pragma unroll 1
    for (int step = begin; step < begin + T::STAGES - 1; step++) {
        if (step < end) {
            fetch(step);
            put(step);
        }
        copies_commit();
    }
#pragma unroll 1
    for (int step = begin; step < end; step++) {
        copies_wait<T::STAGES - 2>();
        __syncthreads();
        // The stage that is filled now was read in the turn before, which every thread has behind it.
        const int next = step + T::STAGES - 1;
        if (next < end) fetch(next);
        copies_commit();
        const unsigned *at = memory + step % T::STAGES * T::STAGE, *bt = at + T::A_WORDS;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned words[T::DOWN][4];
#pragma unroll
            for (int i = 0; i < T::DOWN; i++)
                ldmatrix(words[i], at + a_place(wm + i * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int c = 0; c < T::ACROSS; c++) {
                const int panel = wn / 16 + c * 2 + g / 4, line = half * 8 + q;
                const uint4 low = *(const uint4*)(bt + b_place(panel, line, g % 4));
                const uint4 high = *(const uint4*)(bt + b_place(panel, line + 4, g % 4));
#pragma unroll
                for (int i = 0; i < T::DOWN; i++) {
                    T::Number::multiply(sums.at[i][c][0], words[i], low.x, high.x);
                    T::Number::multiply(sums.at[i][c][1], words[i], low.y, high.y);
                    T::Number::multiply(sums.at[i][c][2], words[i], low.z, high.z);
                    T::Number::multiply(sums.at[i][c][3], words[i], low.w, high.w);
                }
            }
        }
        if (next < end) put(next);
    }
}

// The same for split `blockIdx.z` of K, and where there are several, the sum of all: false for blocks that have nothing
// to store. A tile of the grid takes M N floats of `partial`.
template <class T, class Input>
DEVICE bool product_narrow_split(
    const Input& input, const Packed& w, unsigned* memory, int m0, int c0, Sums<T>& sums, int splits, float* partial,
    unsigned* tickets
) {
    constexpr int COUNT = T::DOWN * T::ACROSS * 4;
    const int steps = pieces(packed_lines(w), 16), split = blockIdx.z;
    product_narrow<T>(input, w, memory, m0, c0, steps * split / splits, steps * (split + 1) / splits, sums);
    if (splits == 1) return true;
    float4 all[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        const float* four = sums.at[i / 4 / T::ACROSS][i / 4 % T::ACROSS][i % 4];
        all[i] = {four[0], four[1], four[2], four[3]};
    }
    const int tile = blockIdx.x;
    __syncthreads(); // the tiles' memory holds the word
    if (!join_splits<COUNT, T::THREADS>(
            all, partial + (long long)tile * splits * T::M * T::N, tickets + tile, split, splits, memory
        ))
        return false;
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        float* four = sums.at[i / 4 / T::ACROSS][i / 4 % T::ACROSS][i % 4];
        four[0] = all[i].x, four[1] = all[i].y, four[2] = all[i].z, four[3] = all[i].w;
    }
    return true;
}

// Finishes the sums of product_narrow, 32 rows of a warp at a time: they go through the product's shared memory, so that the
// code for four numbers is there once and whole lines are written.
template <class T>
DEVICE void store_narrow(const Store& store, int rows, int skip, int m0, int c0, const Sums<T>& sums, unsigned* memory) {
    constexpr int ROW = T::WN + 4, LANES = T::WN / 4;
    static_assert(T::MEMORY >= T::THREADS / 32 * 32 * ROW && T::DOWN % 2 == 0, "a warp turns 32 rows round");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / (T::N / T::WN) * T::WM, wn = warp % (T::N / T::WN) * T::WN;
    float* mine = (float*)memory + warp * 32 * ROW;
    const int n = c0 + wn + lane % LANES * 4 - skip;
    float bias[4];
    store.bias(bias, n);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < T::DOWN; i += 2) {
#pragma unroll
        for (int c = 0; c < T::ACROSS; c++) {
#pragma unroll
            for (int h = 0; h < 8; h++) {
                const auto& four = sums.at[i + h / 4][c];
                float* to = mine + (lane / 4 + h / 2 * 8) * ROW + c * 32 + lane % 4 * 8 + h % 2 * 4;
                *(float4*)to = {four[0][h % 4], four[1][h % 4], four[2][h % 4], four[3][h % 4]};
            }
        }
        __syncwarp();
#pragma unroll 1
        for (int r = lane / LANES; r < 32; r += 32 / LANES) {
            const int row = m0 + wm + i * 16 + r;
            const float4 four = *(const float4*)(mine + r * ROW + lane % LANES * 4);
            float y[4] = {four.x, four.y, four.z, four.w};
            if (row < rows) store.four(row, n, y, bias);
        }
        __syncwarp();
    }
}

// The f32 product, of f32 or widened bf16 weights: 64 x 64 by 256 threads, 4 x 4 each. a and b are 16 x 68 numbers each of
// shared memory.
template <class Input>
DEVICE void product_f32(
    const Input& input, const Packed& w, float* a, float* b, int m0, int c0, float (&sums)[4][4]
) {
    const int thread = threadIdx.x, lines = packed_lines(w), panels = packed_panels(w);
    const int down = thread / 16 * 4, across = thread % 16 * 4;
    const typename Input::Place place = input.place(m0 + thread / 4);
    // A thread brings one word of each output's line, or with 8 lines a step of every second output's.
    const bool pairs = w.format != F32;
    const int lines_a_step = pairs ? 8 : 16;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) sums[i][j] = 0.0f;
    for (int k = 0, line0 = 0; k < w.k; k += 16, line0 += lines_a_step) {
        float x[4];
        input.load(x, place, k + thread % 4 * 4);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; i++) a[(thread % 4 * 4 + i) * 68 + thread / 4] = x[i];
        for (int i = thread; i < lines_a_step * 64; i += 256) {
            const int column = i % 16 + i / (16 * lines_a_step) * 16, line = i / 16 % lines_a_step;
            const int panel = (c0 + column) / 16;
            const bool there = panel < panels && line0 + line < lines;
            const unsigned word = there ? w.words[((long long)panel * lines + line0 + line) * 16 + column % 16] : 0;
            if (pairs) {
                b[2 * line * 68 + column] = low_number(word);
                b[(2 * line + 1) * 68 + column] = high_number(word);
            } else {
                b[line * 68 + column] = __uint_as_float(word);
            }
        }
        __syncthreads();
#pragma unroll
        for (int l = 0; l < 16; l++) {
            const float4 left = *(const float4*)(a + l * 68 + down), right = *(const float4*)(b + l * 68 + across);
            const float p[4] = {left.x, left.y, left.z, left.w}, q[4] = {right.x, right.y, right.z, right.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) sums[i][j] = fmaf(p[i], q[j], sums[i][j]);
        }
    }
}

// Finishes the sums of product_f32.
DEVICE void store_f32(const Store& store, int rows, int skip, int m0, int c0, const float (&sums)[4][4]) {
    const int n = c0 + threadIdx.x % 16 * 4 - skip;
    float bias[4];
    store.bias(bias, n);
    // Not unrolled, for the code's size.
#pragma unroll 1
    for (int i = 0; i < 4; i++) {
        const int row = m0 + threadIdx.x / 16 * 4 + i;
        float y[4];
#pragma unroll
        for (int j = 0; j < 4; j++) y[j] = i == 0 ? sums[0][j] : i == 1 ? sums[1][j] : i == 2 ? sums[2][j] : sums[3][j];
        if (row < rows) store.four(row, n, y, bias);
    }
}
