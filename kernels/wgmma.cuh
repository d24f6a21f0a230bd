// The instructions that only Hopper has (sm_90a), each in a small function. emulate/wgmma_on_host.h has a twin of each.
//
// A warp group is four warps from a multiple of four on. Its products run by themselves, behind the back of its threads, and read
// shared memory through another way than theirs (the async proxy). So: what threads, or their copies, put into shared memory
// is published by each with proxy_fence() before the barrier; registers that products read or add to are not touched from
// the product until a wgmma_wait() has its group behind it; before products that read registers which were written since stands
// a wgmma_fence(). PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate Instructions".
#pragma once

// Says, for the host that launches the kernel, how many bytes of shared memory its blocks want: it reads this in the PTX.
#define SHARED_BYTES(name, bytes)                                                                                      \
    extern "C" {                                                                                                       \
    DEVICE_VARIABLE int name##_shared = bytes;                                                                         \
    }

// Bits of a descriptor of a matrix in shared memory with the 128-byte swizzle (PTX ISA, "Matrix Descriptor Format"): the
// address in units of 16 bytes, the distance of eight rows from the next eight in the same, the swizzle. Rows are 128 bytes,
// on 1024 bytes; the leading offset is not used then and counts as 1.
DEVICE unsigned long long wgmma_descriptor(unsigned address) {
    return (unsigned long long)((address & 0x3ffff) >> 4) | 1ull << 16 | (unsigned long long)(1024 >> 4) << 32 | 1ull << 62;
}

#ifdef __CUDACC__

#define DEVICE_VARIABLE __device__

extern __shared__ __align__(16) unsigned dynamic_shared[];

DEVICE unsigned shared_address(const unsigned* at) { return (unsigned)__cvta_generic_to_shared(at); }

// The memory that SHARED_BYTES asks for, on 1024 bytes, of which up to 1008 are lost.
template <int BYTES> DEVICE unsigned* dynamic_on_1024() {
    return dynamic_shared + (0u - shared_address(dynamic_shared)) % 1024 / 4;
}

DEVICE void proxy_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The products since the last call are a group.
DEVICE void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until all but the newest N groups are done.
template <int N> DEVICE void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

#define SUMS_OF_4(i) "+f"(sums[i]), "+f"(sums[i + 1]), "+f"(sums[i + 2]), "+f"(sums[i + 3])
#define SUMS_OF_16(i) SUMS_OF_4(i), SUMS_OF_4(i + 4), SUMS_OF_4(i + 8), SUMS_OF_4(i + 12)
#define SUMS_OF_64(i) SUMS_OF_16(i), SUMS_OF_16(i + 16), SUMS_OF_16(i + 32), SUMS_OF_16(i + 48)

// sums[64 x 256] += a[64 x 16] b[16 x 256] of a warp group. Warp w holds rows 16 w and on. With g = lane / 4 and q = lane % 4
// a thread holds of a the pairs (row g, k 2q), (g + 8, 2q), (g, 2q + 8), (g + 8, 2q + 8); of the sums, for each eight
// columns i, in 4 i .. 4 i + 3: row g, columns 8 i + 2q and the next, then the same of row g + 8 (PTX ISA, "Register
// Fragments", m64nNk16). b is what its descriptor says, a row of it in memory one of its columns.
DEVICE void wgmma(float (&sums)[128], const unsigned (&a)[4], unsigned long long b) {
    asm volatile(
        "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
        "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
        "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
        "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
        "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
        "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
        "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
        "{%128, %129, %130, %131}, %132, 1, 1, 1, 0;"
        : SUMS_OF_64(0), SUMS_OF_64(64)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)
        : "memory"
    );
}

#else

#define DEVICE_VARIABLE

#endif
