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

// Normalises a row by THREADS threads, of which this is number `thread`; `sum` adds a number up over all of them. A thread
// takes every THREADS-th four of the row and keeps the first HELD of them in registers; what lies behind is read again for
// each pass. EARLY: the factors of these fours are on their way while the sums are made.
template <int THREADS, int HELD, bool EARLY, class Sum> DEVICE void normalise(const NormRow& r, int thread, Sum sum) {
    const int first = thread * 4, behind = THREADS * HELD * 4;
    float held[HELD][4];
    NormFactors factors[EARLY ? HELD : 1];
#pragma unroll
    for (int h = 0; h < HELD; h++) load_numbers(held[h], r.x, first + h * THREADS * 4, r.cols, r.x_aligned);
    if constexpr (EARLY) {
#pragma unroll
        for (int h = 0; h < HELD; h++) factors[h].load(r, first + h * THREADS * 4);
    }

    float part = 0.0f;
    auto add = [&](const float(&x)[4]) { part += (x[0] + x[1]) + (x[2] + x[3]); };
#pragma unroll
    for (int h = 0; h < HELD; h++) add(held[h]);
    for (int k = first + behind; k < r.cols; k += THREADS * 4) {
        float x[4];
        load_numbers(x, r.x, k, r.cols, r.x_aligned);
        add(x);
    }
    const float mean = sum(part) / (float)r.cols;

    part = 0.0f;
    auto add_square = [&](const float(&x)[4], int k) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float d = k + i < r.cols ? x[i] - mean : 0.0f;
            part = fmaf(d, d, part);
        }
    };
#pragma unroll
    for (int h = 0; h < HELD; h++) add_square(held[h], first + h * THREADS * 4);
    for (int k = first + behind; k < r.cols; k += THREADS * 4) {
        float x[4];
        load_numbers(x, r.x, k, r.cols, r.x_aligned);
        add_square(x, k);
    }
    const float rstd = 1.0f / sqrtf(sum(part) / (float)r.cols + EPSILON);

    auto finish = [&](float(&x)[4], const NormFactors& f, int k) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float y = fmaf((x[i] - mean) * rstd, f.weight[i], f.bias[i]);
            x[i] = fmaf(y, 1.0f + f.scale[i], f.shift[i]);
        }
        store_four(r.out, r.form, k, r.cols, r.out_aligned, x);
    };
#pragma unroll
    for (int h = 0; h < HELD; h++) {
        const int k = first + h * THREADS * 4;
        if (k >= r.cols) break;
        if constexpr (!EARLY) factors[0].load(r, k);
        finish(held[h], factors[EARLY ? h : 0], k);
    }
    for (int k = first + behind; k < r.cols; k += THREADS * 4) {
        float x[4];
        NormFactors f;
        load_numbers(x, r.x, k, r.cols, r.x_aligned);
        f.load(r, k);
        finish(x, f, k);
    }
}
