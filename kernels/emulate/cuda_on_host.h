// Runs the kernels' own source on the host: g++ compiles each .cu after this header. A block's threads are fibers, which
// switch at barriers and at what a warp does together; blocks run one after the other. Shared memory and registers start
// as NaN. Copies arrive when they are waited for and not before or, where threads run backwards, when they are issued, as
// early as they may. A barrier that some thread never reaches ends the process.
// Speed, races between blocks and the instructions themselves are the GPU's to show.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <csetjmp>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuda_on_host {

struct Dim {
    unsigned x = 0, y = 0, z = 0;
};

struct Copy {
    void* to;
    const void* from;
    int size, bytes;
};

// Where a fiber, or who runs them, goes on. Once it has begun it is switched to without a system call, of which swapcontext
// makes two; but the sanitizers follow only that.
struct Place {
    ucontext_t context;
    jmp_buf jump;
    bool begun = false;

    void go_to(Place& to) {
        begun = true;
#if defined(__SANITIZE_ADDRESS__)
        swapcontext(&context, &to.context);
#else
        if (_setjmp(jump)) return;
        if (to.begun) _longjmp(to.jump, 1);
        setcontext(&to.context);
#endif
    }
};

struct Fiber {
    Place place;
    std::unique_ptr<char[]> stack;
    void* fake_stack = nullptr;
    unsigned number = 0;
    bool done = false;
    bool fenced = false;                   // since the last group of a warp group's products
    std::vector<std::vector<Copy>> copies; // groups, the newest last and open
    std::vector<size_t> brought;           // 16-byte pieces of the memory below that products may not read yet
};

// Where some threads wait for each other.
struct Meeting {
    unsigned arrived = 0, round = 0;
    const void* what[128];
    unsigned kind = 0;
};

// A thread's share of a warp group's product, and all of it: wgmma_on_host.h.
struct Product {
    float* sums;
    const unsigned* a;
    unsigned long long b;
};
struct GroupProduct {
    Product of[128];
};
using Products = std::vector<std::vector<GroupProduct>>; // groups, the newest last and open

struct Block {
    Dim index, grid;
    std::vector<Fiber> fibers;
    std::vector<Meeting> warps, warp_groups;
    std::vector<Products> products; // by warp group
    Meeting all;
    std::map<int, std::vector<unsigned char>> shared;
    std::vector<unsigned char> dynamic; // shared memory that a launch asks for
    std::vector<bool> unpublished;      // of each 16 bytes of it: whether no fence stands behind a copy
    std::function<void()> body;
    Fiber* now = nullptr;
    Place outside;
    void* outside_fake = nullptr;
    const void* outside_stack = nullptr;
    size_t outside_size = 0;
    bool from_outside = false;
    bool backwards = false;
    unsigned idle = 0; // switches since anybody got on
};

// The block that this thread of the host runs: several launch kernels beside each other. Each thread of a kernel asks for it
// again and again, hence the quicker model, which leaves a library room for a few pointers.
inline thread_local Block* block __attribute__((tls_model("initial-exec")));
const size_t STACK = 256 << 10;

inline void die(const char* why) {
    fprintf(stderr, "emulated kernel, block %u %u %u, thread %u: %s\n", block->index.x, block->index.y, block->index.z,
        block->now->number, why);
    abort();
}

#if defined(__SANITIZE_ADDRESS__)
// A fiber goes on, or begins.
inline void arrived(void* fake_stack) {
    Block& b = *block;
    const void* stack;
    size_t size;
    __sanitizer_finish_switch_fiber(fake_stack, &stack, &size);
    if (b.from_outside) b.outside_stack = stack, b.outside_size = size, b.from_outside = false;
}
#endif

// Goes on with the next thread that is not done, or outside if there is none.
inline void next() {
    Block& b = *block;
    Fiber* from = b.now;
    const unsigned count = b.fibers.size();
    Fiber* to = nullptr;
    for (unsigned i = 1; i <= count && !to; i++) {
        Fiber& f = b.fibers[(from->number + (b.backwards ? count - i : i)) % count];
        if (!f.done) to = &f;
    }
    if (to == from) {
        if (++b.idle > 4) die("waits for threads that have ended");
        return;
    }
    if (++b.idle > 4 * count) die("waits at a barrier that not all threads reach");
    if (to) b.now = to;
#if defined(__SANITIZE_ADDRESS__)
    const void* stack = to ? (const void*)to->stack.get() : b.outside_stack;
    __sanitizer_start_switch_fiber(&from->fake_stack, stack, to ? STACK : b.outside_size);
#endif
    from->place.go_to(to ? to->place : b.outside);
#if defined(__SANITIZE_ADDRESS__)
    arrived(from->fake_stack);
#endif
}

inline void enter() {
    Block& b = *block;
#if defined(__SANITIZE_ADDRESS__)
    arrived(nullptr);
#endif
    // A thread of every block to come.
    for (;;) {
        b.body();
        b.now->done = true;
        b.idle = 0;
        next();
    }
}

// Waits until `count` threads are here; the last runs `act`. `kind` must be the same for all.
template <class Act> void meet(Meeting& m, unsigned count, unsigned place, unsigned kind, const void* what, Act act) {
    if (m.arrived == 0) m.kind = kind;
    if (m.kind != kind) die("threads of a warp do different things together");
    if (place < 128) m.what[place] = what;
    const unsigned round = m.round;
    block->idle = 0;
    if (++m.arrived == count) {
        act(m);
        m.arrived = 0;
        m.round++;
        return;
    }
    while (m.round == round) next();
}

inline unsigned thread() { return block->now->number; }
inline unsigned lane() { return thread() % 32; }

template <class Act> void warp(unsigned kind, const void* what, Act act) {
    meet(block->warps[thread() / 32], 32, lane(), kind, what, act);
}

template <class T> T* shared(int key, size_t count) {
    auto& memory = block->shared[key];
    // An object of its own size on the heap, for the address sanitizer; malloc gives 16 bytes of alignment.
    if (memory.empty()) memory = std::vector<unsigned char>(count * sizeof(T), 0xff);
    if (memory.size() != count * sizeof(T)) die("shared memory of two sizes under one name");
    return (T*)memory.data();
}

// A copy of at most 16 bytes arrives.
inline void land(const Copy& c) {
    if (c.bytes) memcpy(c.to, c.from, c.bytes);
    memset((char*)c.to + c.bytes, 0, c.size - c.bytes);
}

inline void issue(const Copy& c) {
    if (block->backwards) land(c);
    block->now->copies.back().push_back(c);
}

// It has been waited for.
inline void copied(const void* to) {
    Block& b = *block;
    const size_t at = (const unsigned char*)to - b.dynamic.data();
    if (b.dynamic.empty() || at >= b.dynamic.size()) return;
    b.unpublished[at / 16] = true;
    b.now->brought.push_back(at / 16);
}

inline void run_block(unsigned threads) {
    Block& b = *block;
    if (b.fibers.size() != threads) b.fibers = std::vector<Fiber>(threads);
    b.warps.assign((threads + 31) / 32, Meeting());
    b.warp_groups.assign((threads + 127) / 128, Meeting());
    b.products.assign((threads + 127) / 128, Products(1));
    b.all = Meeting();
    b.shared.clear();
    b.dynamic.clear();
    b.idle = 0;
    for (unsigned i = 0; i < threads; i++) {
        Fiber& f = b.fibers[i];
        f.number = i;
        f.done = f.fenced = false;
        f.copies.assign(1, {});
        f.brought.clear();
        if (f.stack) continue;
        f.stack.reset(new char[STACK]);
        ucontext_t& context = f.place.context;
        getcontext(&context);
        context.uc_stack.ss_sp = f.stack.get();
        context.uc_stack.ss_size = STACK;
        context.uc_link = nullptr;
        makecontext(&context, enter, 0);
    }
    b.now = &b.fibers[b.backwards ? threads - 1 : 0];
#if defined(__SANITIZE_ADDRESS__)
    b.from_outside = true;
    __sanitizer_start_switch_fiber(&b.outside_fake, b.now->stack.get(), STACK);
#endif
    b.outside.go_to(b.now->place);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(b.outside_fake, nullptr, nullptr);
#endif
    for (const Products& products : b.products)
        if (products.size() > 1 || !products[0].empty()) die("ends with products that nobody has waited for");
}

// `backwards`: blocks, and threads within them, in the opposite order.
inline void launch(std::function<void()> body, const unsigned* grid, unsigned threads, bool backwards) {
    static thread_local std::unique_ptr<Block> memory;
    if (!memory) memory.reset(new Block);
    block = memory.get();
    block->body = body;
    block->backwards = backwards;
    block->grid = {grid[0], grid[1], grid[2]};
    const unsigned blocks = grid[0] * grid[1] * grid[2];
    for (unsigned n = 0; n < blocks; n++) {
        const unsigned i = backwards ? blocks - 1 - n : n;
        block->index = {i % grid[0], i / grid[0] % grid[1], i / grid[0] / grid[1]};
        run_block(threads);
    }
    block->body = nullptr;
}

} // namespace cuda_on_host

// What a kernel is on the host: a function to launch it, and the size of what it takes.
#define BOUNDS(threads, blocks) threads
#define KERNEL(name, threads, Params)                                                                                  \
    static void name##_body(const Params& p);                                                                          \
    extern "C" int name##_params() { return sizeof(Params); }                                                          \
    extern "C" void name(const void* params, const unsigned* grid, int backwards) {                                    \
        const Params& p = *(const Params*)params;                                                                      \
        cuda_on_host::launch([&p] { name##_body(p); }, grid, threads, backwards);                                      \
    }                                                                                                                  \
    static void name##_body(const Params& p)

#define SHARED(T, name, count) T* name = cuda_on_host::shared<T>(__COUNTER__, count)
#define DEVICE inline

// Aligned as on the device: the undefined-behaviour sanitizer looks.
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};

struct ThreadIndex {
    struct {
        operator unsigned() const { return cuda_on_host::thread(); }
    } x;
};
const ThreadIndex threadIdx;
#define blockIdx (cuda_on_host::block->index)
#define gridDim (cuda_on_host::block->grid)

inline void __syncthreads() {
    using namespace cuda_on_host;
    meet(block->all, block->fibers.size(), 128, 1, nullptr, [](Meeting&) {});
}
inline void __syncwarp() {
    cuda_on_host::warp(2, nullptr, [](cuda_on_host::Meeting&) {});
}
inline void __threadfence() {}
inline unsigned atomicAdd(unsigned* at, unsigned more) { return (*at += more) - more; }
template <class T> T __ldcg(const T* at) { return *at; }

template <class T> T __shfl_sync(unsigned, T x, int from) {
    T got;
    struct Hand {
        T x;
        int from;
        T* got;
    } hand{x, from, &got};
    cuda_on_host::warp(3, &hand, [](cuda_on_host::Meeting& m) {
        for (int i = 0; i < 32; i++) {
            const Hand& h = *(const Hand*)m.what[i];
            *h.got = ((const Hand*)m.what[h.from & 31])->x;
        }
    });
    return got;
}
template <class T> T __shfl_xor_sync(unsigned mask, T x, int with) {
    return __shfl_sync(mask, x, (int)cuda_on_host::lane() ^ with);
}
template <class T> T __shfl_up_sync(unsigned mask, T x, unsigned by) {
    const int lane = cuda_on_host::lane();
    return __shfl_sync(mask, x, lane < (int)by ? lane : lane - (int)by);
}

inline unsigned __ballot_sync(unsigned, bool x) {
    struct Hand {
        bool x;
        unsigned all;
    } hand{x, 0};
    cuda_on_host::warp(7, &hand, [](cuda_on_host::Meeting& m) {
        unsigned all = 0;
        for (int i = 0; i < 32; i++) all |= (unsigned)((const Hand*)m.what[i])->x << i;
        for (int i = 0; i < 32; i++) ((Hand*)m.what[i])->all = all;
    });
    return hand.all;
}
inline int __ffs(int bits) { return __builtin_ffs(bits); }

inline float __uint_as_float(unsigned bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
inline unsigned __float_as_uint(float x) {
    unsigned bits;
    memcpy(&bits, &x, 4);
    return bits;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline float __fdividef(float a, float b) { return a / b; }
// Each is rounded once: the compiler is told not to contract.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fsqrt_rn(float x) { return sqrtf(x); }

inline unsigned bf16_bits(float x) {
    unsigned bits = __float_as_uint(x);
    if (std::isnan(x)) return 0x7fff;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}
inline unsigned bf16_pair(float low, float high) { return bf16_bits(low) | bf16_bits(high) << 16; }
inline float half_number(unsigned short bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent == 31 ? (fraction ? NAN : INFINITY)
        : exponent ? ldexpf(1024 + fraction, exponent - 25) : ldexpf(fraction, -24);
    return bits >> 15 ? -size : size;
}

inline unsigned half_bits(float x) {
    const unsigned sign = __float_as_uint(x) >> 16 & 0x8000u;
    const double size = fabs((double)x);
    if (std::isnan(x)) return 0x7fff;
    if (size >= 65520.0) return sign | 0x7c00u;
    // Whole steps of the numbers around it, ties to even; one that rounds up to the next power of two carries over.
    const int exponent = size < 6.103515625e-05 ? -14 : ilogb(size);
    const unsigned steps = (unsigned)nearbyint(ldexp(size, 10 - exponent));
    return sign | (((unsigned)(exponent + 14) << 10) + steps);
}
inline unsigned half_pair(float low, float high) { return half_bits(low) | half_bits(high) << 16; }

inline void aligned_16(const void* at) {
    if ((size_t)at % 16) cuda_on_host::die("an address is not on 16 bytes");
}

// `widen` makes of the bits of a number the number.
template <class Widen>
void products(unsigned kind, float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Widen widen) {
    struct Hand {
        float* sums;
        const unsigned* a;
        unsigned b[2];
    } hand{sums, a, {b0, b1}};
    cuda_on_host::warp(kind, &hand, [widen](cuda_on_host::Meeting& m) {
        float a[16][16], b[16][8];
        auto both = [widen](unsigned word, float& low, float& high) {
            low = widen(word & 0xffff), high = widen(word >> 16);
        };
        for (int i = 0; i < 32; i++) {
            const Hand& h = *(const Hand*)m.what[i];
            const int g = i / 4, q = i % 4;
            for (int r = 0; r < 4; r++) {
                float* to = &a[g + r % 2 * 8][2 * q + r / 2 * 8];
                both(h.a[r], to[0], to[1]);
            }
            for (int r = 0; r < 2; r++) both(h.b[r], b[2 * q + 8 * r][g], b[2 * q + 8 * r + 1][g]);
        }
        for (int i = 0; i < 32; i++) {
            const Hand& h = *(const Hand*)m.what[i];
            for (int r = 0; r < 4; r++) {
                float sum = h.sums[r];
                for (int k = 0; k < 16; k++) sum += a[i / 4 + r / 2 * 8][k] * b[k][2 * (i % 4) + r % 2];
                h.sums[r] = sum;
            }
        }
    });
}

inline void mma(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    products(4, sums, a, b0, b1, [](unsigned bits) { return __uint_as_float(bits << 16); });
}
inline void mma_half(float (&sums)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    products(8, sums, a, b0, b1, [](unsigned bits) { return half_number(bits); });
}

template <bool TRANSPOSED> void matrices(unsigned (&words)[4], const unsigned* row) {
    aligned_16(row);
    struct Hand {
        unsigned* words;
        const unsigned* row;
    } hand{words, row};
    cuda_on_host::warp(TRANSPOSED ? 6 : 5, &hand, [](cuda_on_host::Meeting& m) {
        for (int j = 0; j < 4; j++) {
            unsigned short at[8][8];
            for (int r = 0; r < 8; r++) memcpy(at[r], ((const Hand*)m.what[8 * j + r])->row, 16);
            for (int i = 0; i < 32; i++) {
                const int g = i / 4, q = i % 4;
                const unsigned low = TRANSPOSED ? at[2 * q][g] : at[g][2 * q];
                const unsigned high = TRANSPOSED ? at[2 * q + 1][g] : at[g][2 * q + 1];
                ((const Hand*)m.what[i])->words[j] = low | high << 16;
            }
        }
    });
}
inline void ldmatrix(unsigned (&words)[4], const unsigned* row) { matrices<false>(words, row); }
inline void ldmatrix_transposed(unsigned (&words)[4], const unsigned* row) { matrices<true>(words, row); }

inline void copy_16(unsigned* shared, const unsigned* from, int bytes) {
    aligned_16(shared), aligned_16(from);
    cuda_on_host::issue({shared, from, 16, bytes});
}
inline void copy_4(unsigned* shared, const unsigned* from, int bytes) { cuda_on_host::issue({shared, from, 4, bytes}); }
inline void copies_commit() { cuda_on_host::block->now->copies.emplace_back(); }
template <int N> void copies_wait() {
    auto& groups = cuda_on_host::block->now->copies;
    while (groups.size() > N + 1) {
        for (const auto& c : groups.front()) {
            if (!cuda_on_host::block->backwards) cuda_on_host::land(c);
            cuda_on_host::copied(c.to);
        }
        groups.erase(groups.begin());
    }
}
inline void load_once(unsigned (&words)[4], const unsigned* from) {
    aligned_16(from);
    memcpy(words, from, 16);
}

#include "wgmma_on_host.h"
