// Products with packed weights for many rows: a block computes a tile of the result, its input gathered by a source.
//
// A source says where the input's rows lie: `Place place(row)`, then for a place either `copy(shared, place, word)`, four
// words of pairs on their way into shared memory (COPIES), or `load(x, place, k)`, some numbers from k on, zeros behind
// K and for rows that do not exist.
#pragma once

#include "common.cuh"

DEVICE int packed_lines(const Packed& w) { return w.format == F32 ? w.k : (w.k + 1) / 2; }
DEVICE int packed_panels(const Packed& w) { return pieces(w.skip + w.rows, 16); }

// Columns of a tile are columns of the panels: the first `skip` are not the matrix's.
struct Store {
    const Epilogue& e;
    const View& out;
    int turn;
    int cols;

    // Columns n, which is even where pairs are stored, and n + 1.
    DEVICE void two(int row, int n, float sum, float next) const {
        const bool first = n >= 0 && n < cols, second = n + 1 >= 0 && n + 1 < cols;
        if (!first && !second) return;
        float y[2] = {sum, next};
        const float* gate = e.gate.base ? row_of<const float>(e.gate, turn, row) : nullptr;
#pragma unroll 1
        for (int i = 0; i < 2; i++) {
            float z = i == 0 ? y[0] : y[1];
            const bool there = i == 0 ? first : second;
            if (there && e.bias) z += e.bias[n + i];
            z = activate(e.activation, z);
            if (there && gate) z *= gate[n + i];
            if (i == 0)
                y[0] = z;
            else
                y[1] = z;
        }
        if (e.form == PAIRS) {
            row_of<unsigned>(out, turn, row)[n / 2] = bf16_pair(y[0], second ? y[1] : 0.0f);
            return;
        }
        float* to = row_of<float>(out, turn, row) + n;
        if (first) to[0] = e.add ? to[0] + y[0] : y[0];
        if (second) to[1] = e.add ? to[1] + y[1] : y[1];
    }
};

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

// How a block cuts its tile: M x N in all, WM x WN a warp, K 32, so many stages of K on their way at once.
template <int M_, int N_, int WM_, int WN_, int STAGES_> struct Tile {
    static constexpr int M = M_, N = N_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int THREADS = M / WM * (N / WN) * 32;
    static constexpr int WORDS = 16; // of a row: K / 2
    static constexpr int DOWN = WM / 16, ACROSS = WN / 8;
    static constexpr int A_WORDS = M * WORDS, B_WORDS = N * WORDS;
    static_assert(M * 4 % THREADS == 0 && N * 4 % THREADS == 0, "whole rounds of 16-byte pieces");
};

// Pieces of 16 bytes lie in shared memory so that eight rows of a matrix, and the four lines by eight outputs that a warp
// reads as b, are in different banks.
DEVICE int a_place(int row, int piece) { return row * 16 + ((piece ^ (row >> 1 & 3)) << 2); }
DEVICE int b_place(int panel, int line, int piece) { return (panel * 16 + line) * 16 + ((piece ^ (line & 2)) << 2); }

// sums = rows m0.. of the input times columns c0.. of the panels. a and b are STAGES tiles each of shared memory.
template <class T, class Input>
DEVICE void product_bf16(
    const Input& input, const Packed& w, unsigned* a, unsigned* b, int m0, int c0, float (&sums)[T::DOWN][T::ACROSS][4]
) {
    constexpr int A_PIECES = T::M * 4 / T::THREADS, B_PIECES = T::N * 4 / T::THREADS;
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int lines = packed_lines(w), panels = packed_panels(w), steps = pieces(lines, 16);
    const int wm = warp / (T::N / T::WN) * T::WM, wn = warp % (T::N / T::WN) * T::WN;

    // A thread brings the same piece of every (THREADS / 4)th row.
    const int piece = thread % 4, first = thread / 4;
    typename Input::Place places[A_PIECES];
#pragma unroll
    for (int i = 0; i < A_PIECES; i++) places[i] = input.place(m0 + first + i * (T::THREADS / 4));
    float held[A_PIECES][8];

    auto fetch = [&](int step) {
        unsigned* to = b + step % T::STAGES * T::B_WORDS;
#pragma unroll
        for (int i = 0; i < B_PIECES; i++) {
            int row = first + i * (T::THREADS / 4), panel = c0 / 16 + row / 16, line = step * 16 + row % 16;
            bool there = panel < panels && line < lines;
            const unsigned* from = there ? w.words + ((long long)panel * lines + line) * 16 + piece * 4 : w.words;
            copy_16(to + b_place(row / 16, row % 16, piece), from, there ? 16 : 0);
        }
        unsigned* into = a + step % T::STAGES * T::A_WORDS;
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
            unsigned* into = a + step % T::STAGES * T::A_WORDS;
#pragma unroll
            for (int i = 0; i < A_PIECES; i++) store_pairs(into + a_place(first + i * (T::THREADS / 4), piece), held[i]);
        }
    };

#pragma unroll
    for (int i = 0; i < T::DOWN; i++)
#pragma unroll
        for (int j = 0; j < T::ACROSS; j++)
#pragma unroll
            for (int r = 0; r < 4; r++) sums[i][j][r] = 0.0f;

#pragma unroll 1
    for (int step = 0; step < T::STAGES - 1; step++) {
        if (step < steps) {
            fetch(step);
            put(step);
        }
        copies_commit();
    }
#pragma unroll 1
    for (int step = 0; step < steps; step++) {
        copies_wait<T::STAGES - 2>();
        __syncthreads();
        // The stage that is filled now was read in the turn before, which every thread has behind it.
        const int next = step + T::STAGES - 1;
        if (next < steps) fetch(next);
        copies_commit();
        const unsigned *at = a + step % T::STAGES * T::A_WORDS, *bt = b + step % T::STAGES * T::B_WORDS;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            unsigned words[T::DOWN][4];
#pragma unroll
            for (int i = 0; i < T::DOWN; i++)
                ldmatrix(words[i], at + a_place(wm + i * 16 + lane % 16, half * 2 + lane / 16));
#pragma unroll
            for (int j = 0; j < T::ACROSS; j++) {
                const int column = wn + j * 8 + lane / 4, line = half * 8 + lane % 4;
                const unsigned* line_at = bt + b_place(column / 16, line, column % 16 / 4) + column % 4;
                unsigned b0 = line_at[0], b1 = line_at[4 * 16];
#pragma unroll
                for (int i = 0; i < T::DOWN; i++) mma(sums[i][j], words[i], b0, b1);
            }
        }
        if (next < steps) put(next);
    }
}

// Words of shared memory a warp in which store_bf16 turns sums round, 16 rows at a time, so that whole lines are written.
const int TURN_ROW = 40;

// Finishes the sums of product_bf16; `shared` may be its memory.
template <class T>
DEVICE void store_bf16(
    const Store& store, int rows, int skip, int m0, int c0, const float (&sums)[T::DOWN][T::ACROSS][4], unsigned* shared
) {
    static_assert(T::WN == 32 && T::STAGES * T::A_WORDS >= T::THREADS / 32 * 16 * TURN_ROW, "a row is 16 lanes by two");
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / (T::N / T::WN) * T::WM, wn = warp % (T::N / T::WN) * T::WN;
    float* mine = (float*)shared + warp * 16 * TURN_ROW;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < T::DOWN; i++) {
#pragma unroll
        for (int j = 0; j < T::ACROSS; j++) {
            float* to = mine + lane / 4 * TURN_ROW + j * 8 + lane % 4 * 2;
            to[0] = sums[i][j][0], to[1] = sums[i][j][1];
            to[8 * TURN_ROW] = sums[i][j][2], to[8 * TURN_ROW + 1] = sums[i][j][3];
        }
        __syncwarp();
#pragma unroll 1
        for (int r = lane / 16; r < 16; r += 2) {
            const int row = m0 + wm + i * 16 + r;
            const float* from = mine + r * TURN_ROW + lane % 16 * 2;
            if (row < rows) store.two(row, c0 + wn + lane % 16 * 2 - skip, from[0], from[1]);
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

// Finishes the sums of product_f32; `shared` is its a.
DEVICE void store_f32(
    const Store& store, int rows, int skip, int m0, int c0, const float (&sums)[4][4], float* shared
) {
    const int across = threadIdx.x % 16;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        __syncthreads();
#pragma unroll
        for (int j = 0; j < 4; j++) shared[threadIdx.x / 16 * 68 + across * 4 + j] = sums[i][j];
        __syncthreads();
#pragma unroll 1
        for (int at = threadIdx.x; at < 16 * 32; at += 256) {
            const float* from = shared + at / 32 * 68 + at % 32 * 2;
            const int row = m0 + at / 32 * 4 + i;
            if (row < rows) store.two(row, c0 + at % 32 * 2 - skip, from[0], from[1]);
        }
    }
}
