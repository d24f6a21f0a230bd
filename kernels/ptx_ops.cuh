// The instructions that CUDA C++ has no words for, each in a small function. emulate/cuda_on_host.h has a twin of each.
#pragma once

#ifdef __CUDACC__

// A block of a kernel has just the threads of its bounds, which the host reads back (`.maxntid`). `threads` may be
// BOUNDS(threads, blocks): registers are shared out for so many blocks a multiprocessor.
#define BOUNDS(threads, blocks) threads, blocks
#define KERNEL(name, threads, Params)                                                                                  \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ Params p)
// Memory of a block: `count` elements of type T named `name`, on 16 bytes.
#define SHARED(T, name, count) __shared__ __align__(16) T name[count]
#define DEVICE __device__ __forceinline__

// Two numbers rounded to bf16, ties to even, the first in the lower half.
DEVICE unsigned bf16_pair(float low, float high) {
    unsigned word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

// The same rounded to f16; beyond 65504 they become infinite.
DEVICE unsigned half_pair(float low, float high) {
    unsigned word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

DEVICE float half_number(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}

// sums[16 x 8] += a[16 x 16] b[16 x 8] of a warp. With g = lane / 4 and q = lane % 4 a thread holds of the sums row g,
// columns 2q and 2q + 1, then the same of row g + 8; of a the pairs (row g, k 2q), (g + 8, 2q), (g, 2q + 8), (g + 8,
// 2q + 8); of b those of column g, k 2q and 2q + 8.
DEVICE void mma(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same of f16.
DEVICE void mma_half(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit numbers; lane i gives the address of row i % 8 of matrix i / 8 (16 bytes, aligned) and gets of
// each matrix the pair of row lane / 4, columns 2 (lane % 4) and the next.
DEVICE void ldmatrix(unsigned (&words)[4], const unsigned* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
}

// The same, each matrix transposed: the pair of column lane / 4, rows 2 (lane % 4) and the next.
DEVICE void ldmatrix_transposed(unsigned (&words)[4], const unsigned* row) {
    unsigned at = (unsigned)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "r"(at)
                 : "memory");
}

// Copies the first `bytes` of 16 aligned bytes into shared memory, zeros behind them; done after copies_wait.
DEVICE void copy_16(unsigned* shared, const unsigned* from, int bytes) {
    unsigned at = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

// The same of 4 bytes.
DEVICE void copy_4(unsigned* shared, const unsigned* from, int bytes) {
    unsigned at = (unsigned)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(at), "l"(from), "r"(bytes) : "memory");
}

// The copies since the last call are a group.
DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until all but the newest N groups of this thread have arrived.
template <int N> DEVICE void copies_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four aligned words that are read once.
DEVICE void load_once(unsigned (&words)[4], const unsigned* from) {
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
                 : "l"(from));
}

#endif
