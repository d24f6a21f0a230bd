// Layer norms: out = (x - mean) / sqrt(var + 1e-6) * weight + bias, then * (1 + scale) + shift.
#pragma once

#include "rows.cuh"

const float EPSILON = 1e-6f;

// A row; the last four vectors may be null, by twos.
struct NormRow {
    const float* x;
    void* out;
    const float *weight, *bias, *shift, *scale;
    int cols;
    int form; // of out
    bool x_aligned, out_aligned, affine_aligned, modulation_aligned;
};

struct NormFactors {
    float weight[4], bias[4], shift[4], scale[4];

    DEVICE void load(const NormRow& r, int k) {
#pragma unroll
        for (int i = 0; i < 4; i++) weight[i] = 1.0f, bias[i] = shift[i] = scale[i] = 0.0f;
        if (r.weight) {
            load_numbers(weight, r.weight, k, r.cols, r.affine_aligned);
            load_numbers(bias, r.bias, k, r.cols, r.affine_aligned);
        }
        if (r.shift) {
            load_numbers(shift, r.shift, k, r.cols, r.modulation_aligned);
            load_numbers(scale, r.scale, k, r.cols, r.modulation_aligned);
        }
    }
};

// A thread takes every THREADS-th four of a row and keeps the first HELD of them in registers; what lies behind is read
// again for each pass.
template <int THREADS, int HELD> DEVICE void hold(float (&held)[HELD][4], const float* x, int cols, bool aligned, int thread) {
#pragma unroll
    for (int h = 0; h < HELD; h++) load_numbers(held[h], x, (thread + h * THREADS) * 4, cols, aligned);
}

// Mean of a row, and the reciprocal of its deviation, in two passes; `sum` adds a number up over all threads.
template <int THREADS, int HELD, class Sum>
DEVICE void moments(
    const float (&held)[HELD][4], const float* row, int cols, bool aligned, int thread, Sum sum, float& mean, float& rstd
) {
    const int first = thread * 4, behind = THREADS * HELD * 4;
    float part = 0.0f;
    auto add = [&](const float(&x)[4]) { part += (x[0] + x[1]) + (x[2] + x[3]); };
#pragma unroll
    for (int h = 0; h < HELD; h++) add(held[h]);
    for (int k = first + behind; k < cols; k += THREADS * 4) {
        float x[4];
        load_numbers(x, row, k, cols, aligned);
        add(x);
    }
    mean = sum(part) / (float)cols;

    part = 0.0f;
    auto add_square = [&](const float(&x)[4], int k) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float d = k + i < cols ? x[i] - mean : 0.0f;
            part = fmaf(d, d, part);
        }
    };
#pragma unroll
    for (int h = 0; h < HELD; h++) add_square(held[h], first + h * THREADS * 4);
    for (int k = first + behind; k < cols; k += THREADS * 4) {
        float x[4];
        load_numbers(x, row, k, cols, aligned);
        add_square(x, k);
    }
    rstd = 1.0f / sqrtf(sum(part) / (float)cols + EPSILON);
}

// Normalises a row by THREADS threads, of which this is number `thread`. EARLY: the factors of the fours that are held are
// on their way while the sums are made. Round i of the fours
// is written where round to(i) would lie, or not at all where that is negative.
template <int THREADS, int HELD, bool EARLY, class Sum, class To>
DEVICE void normalise(const NormRow& r, int thread, Sum sum, To to) {
    const int first = thread * 4, behind = THREADS * HELD * 4;
    float held[HELD][4], mean, rstd;
    NormFactors factors[EARLY ? HELD : 1];
    hold<THREADS>(held, r.x, r.cols, r.x_aligned, thread);
    if constexpr (EARLY) {
#pragma unroll
        for (int h = 0; h < HELD; h++) factors[h].load(r, first + h * THREADS * 4);
    }
    moments<THREADS>(held, r.x, r.cols, r.x_aligned, thread, sum, mean, rstd);

    auto finish = [&](float(&x)[4], const NormFactors& f, int k) {
#pragma unroll
        for (int i = 0; i < 4; i++)
            x[i] = fmaf(fmaf((x[i] - mean) * rstd, f.weight[i], f.bias[i]), 1.0f + f.scale[i], f.shift[i]);
        const int round = k / (THREADS * 4), bytes = THREADS * (r.form == PAIRS ? 8 : 16);
        store_four((char*)r.out + (to(round) - round) * bytes, r.form, k, r.cols, r.out_aligned, x);
    };
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int k = first + h * THREADS * 4;
        if (k >= r.cols || to(h) < 0) continue;
        if constexpr (!EARLY) factors[0].load(r, k);
        finish(held[h], factors[EARLY ? h : 0], k);
    }
    for (int k = first + behind; k < r.cols; k += THREADS * 4) {
        if (to(k / (THREADS * 4)) < 0) continue;
        float x[4];
        NormFactors f;
        load_numbers(x, r.x, k, r.cols, r.x_aligned);
        f.load(r, k);
        finish(x, f, k);
    }
}

template <int THREADS, int HELD, bool EARLY, class Sum> DEVICE void normalise(const NormRow& r, int thread, Sum sum) {
    normalise<THREADS, HELD, EARLY>(r, thread, sum, [](int round) { return round; });
}
