// What most kernels need: views, bf16 words, elementary functions, sums over a warp and a block.
#pragma once

#include "abi.cuh"
#include "ptx_ops.cuh"

template <class T> DEVICE T smaller(T a, T b) { return b < a ? b : a; }
template <class T> DEVICE T larger(T a, T b) { return a < b ? b : a; }
DEVICE int pieces(int all, int each) { return (all + each - 1) / each; }

DEVICE int turn_now(const int* turn) { return turn ? *turn : 0; }

// Rows of a view in a turn.
DEVICE int count(const View& v) { return v.groups * v.rows; }

// Row i, counted through all groups.
template <class T> DEVICE T* row_of(const View& v, int turn, int i) {
    long long at = (long long)turn * v.step;
    if (v.groups == 1)
        at += (long long)i * v.row_stride;
    else
        at += (long long)(i / v.rows) * v.group_stride + (long long)(i % v.rows) * v.row_stride;
    return (T*)(v.base + at);
}

// Row i of group g.
template <class T> DEVICE T* row_of(const View& v, int turn, int g, int i) {
    return (T*)(v.base + ((long long)turn * v.step + (long long)g * v.group_stride + (long long)i * v.row_stride));
}

DEVICE bool on_16(const void* at) { return (unsigned long long)at % 16 == 0; }

// Whether all rows start on 16 bytes.
DEVICE bool rows_on_16(const View& v) {
    bool groups = v.groups == 1 || v.group_stride % 4 == 0;
    return on_16(v.base) && v.step % 4 == 0 && v.row_stride % 4 == 0 && groups;
}

DEVICE float infinity() { return __uint_as_float(0x7f800000u); }
DEVICE float low_number(unsigned word) { return __uint_as_float(word << 16); }
DEVICE float high_number(unsigned word) { return __uint_as_float(word & 0xffff0000u); }

DEVICE float activate(int activation, float x) {
    if (activation == SILU) return __fdividef(x, 1.0f + expf(-x));
    if (activation == GELU) return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    return x;
}

// Numbers k .. k + N - 1 of a row of `cols`, zeros behind its end. `aligned`: the row starts on 16 bytes, N and k are
// multiples of 4.
template <int N> DEVICE void load_numbers(float (&x)[N], const float* row, int k, int cols, bool aligned) {
    if (aligned && k + N <= cols) {
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 four = *(const float4*)(row + k + i);
            x[i] = four.x, x[i + 1] = four.y, x[i + 2] = four.z, x[i + 3] = four.w;
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) x[i] = k + i < cols ? row[k + i] : 0.0f;
    }
}

// The types of 16 bits that tensor cores multiply.
struct Bf16 {
    static DEVICE unsigned pair(float low, float high) { return bf16_pair(low, high); }
    static DEVICE void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) { mma(sums, a, b0, b1); }
};

struct Half {
    static DEVICE unsigned pair(float low, float high) { return half_pair(low, high); }
    static DEVICE void multiply(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
        mma_half(sums, a, b0, b1);
    }
};

// Eight numbers as four words of pairs of that type, on 16 bytes.
template <class Number> DEVICE void store_pairs(unsigned* to, const float (&x)[8]) {
    uint4 words = {
        Number::pair(x[0], x[1]), Number::pair(x[2], x[3]), Number::pair(x[4], x[5]), Number::pair(x[6], x[7])
    };
    *(uint4*)to = words;
}

// Sums and largest over a warp; every lane gets the same bits.
DEVICE float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

DEVICE double warp_sum(double x) {
#pragma unroll
    for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

// The same for a block of WARPS warps; `shared` has a place for each.
template <int WARPS> DEVICE float block_sum(float x, float* shared) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < WARPS; i++) sum += shared[i];
    return sum;
}
