// What kernels/wgmma.cuh has, for the host. Descriptors, the swizzle and fragments are read as the PTX ISA has them, "Asynchronous
// Warpgroup Level Matrix Multiply-Accumulate Instructions": "Register Fragments", "Shared Memory Matrix Layout", "Canonical
// Layouts", "Matrix Descriptor Format".
//
// Products happen when they are issued or, where threads run backwards, when they are waited for and not before, as late as they
// may, while copies arrive as early as they may: a kernel whose results are the same in both touches neither registers nor
// memory of products on their way, nor lets copies overtake them. What copies brought must have been published by who copied it; a
// group of products must begin behind a fence, which the ISA asks for where registers of the left side were written, so in every
// group whose left side is in registers.
#pragma once

namespace cuda_on_host {

const unsigned GROUP = 128;
// Where a kernel's own shared memory starts: not on 1024 bytes, as behind other shared memory.
const unsigned SHARED_START = 0x410;

template <class Act> void warp_group(unsigned kind, const void* what, Act act) {
    const unsigned number = thread() / GROUP;
    meet(block->warp_groups[number], GROUP, thread() % GROUP, kind, what,
        [&](Meeting& m) { act(m, block->products[number]); });
}

// The bytes at a shared address, which products read.
inline const unsigned char* read_by_products(unsigned address) {
    Block& b = *block;
    const size_t at = address - SHARED_START;
    if (address < SHARED_START || at + 16 > b.dynamic.size()) die("a product reads outside of the shared memory");
    if (b.unpublished[at / 16]) die("a product reads what no fence has published to it");
    return b.dynamic.data() + at;
}

// sums[64 x 256] += a[64 x 16] b[16 x 256]
inline void multiply(const GroupProduct& all) {
    const unsigned long long descriptor = all.of[0].b;
    const unsigned start = (descriptor & 0x3fff) << 4, eight_rows = (descriptor >> 32 & 0x3fff) << 4;
    if (descriptor >> 62 != 1) die("a descriptor of another swizzle than that of 128 bytes");
    // The pattern repeats every 1024 bytes; a base offset says where it starts otherwise.
    if (descriptor >> 49 & 7 || start % 1024 >= 128) die("a matrix that does not start on 1024 bytes");

    struct Numbers {
        float a[64][16], b[16][256], sums[256];
    };
    static thread_local std::unique_ptr<Numbers> numbers;
    if (!numbers) numbers.reset(new Numbers);
    auto& [a, b, sums] = *numbers;
    auto both = [](unsigned word, float* to) {
        to[0] = __uint_as_float(word << 16), to[1] = __uint_as_float(word & 0xffff0000u);
    };
    for (unsigned t = 0; t < GROUP; t++) {
        const unsigned w = t / 32, g = t % 32 / 4, q = t % 4;
        for (unsigned r = 0; r < 4; r++) both(all.of[t].a[r], &a[16 * w + g + r % 2 * 8][2 * q + r / 2 * 8]);
    }
    // K-major: ((8, n), (T, 2)) : ((8 T, eight_rows), (1, T)) in units of which T are 16 bytes, then bits 4 to 6 of the
    // address by XOR with bits 7 to 9.
    for (unsigned n = 0; n < 256; n++) {
        for (unsigned piece = 0; piece < 2; piece++) {
            const unsigned straight = start + n % 8 * 128 + n / 8 * eight_rows + piece * 16;
            const unsigned char* at = read_by_products(straight ^ (straight >> 7 & 7) << 4);
            for (unsigned k = 0; k < 8; k += 2) {
                unsigned word;
                float two[2];
                memcpy(&word, at + 2 * k, 4);
                both(word, two);
                b[piece * 8 + k][n] = two[0], b[piece * 8 + k + 1][n] = two[1];
            }
        }
    }
    for (unsigned m = 0; m < 64; m++) {
        // Row m is with four threads, in registers that have bit 1 set where it is one of the upper eight.
        const Product* of = &all.of[m / 16 * 32 + m % 8 * 4];
        auto place = [&](unsigned n) -> float& { return of[n % 8 / 2].sums[n / 8 * 4 + m % 16 / 8 * 2 + n % 2]; };
        for (unsigned n = 0; n < 256; n++) sums[n] = place(n);
        for (unsigned k = 0; k < 16; k++)
            for (unsigned n = 0; n < 256; n++) sums[n] += a[m][k] * b[k][n];
        for (unsigned n = 0; n < 256; n++) place(n) = sums[n];
    }
}

} // namespace cuda_on_host

inline unsigned shared_address(const unsigned* at) {
    return cuda_on_host::SHARED_START + (unsigned)((const unsigned char*)at - cuda_on_host::block->dynamic.data());
}

template <int BYTES> unsigned* dynamic_on_1024() {
    cuda_on_host::Block& b = *cuda_on_host::block;
    if (b.dynamic.empty()) {
        b.dynamic.assign(BYTES, 0xff);
        b.unpublished.assign((BYTES + 15) / 16, false);
    }
    return (unsigned*)b.dynamic.data() + (0u - cuda_on_host::SHARED_START) % 1024 / 4;
}

// Of this thread's copies, all that have arrived.
inline void proxy_fence() {
    cuda_on_host::Block& b = *cuda_on_host::block;
    for (const size_t piece : b.now->brought) b.unpublished[piece] = false;
    b.now->brought.clear();
}

inline void wgmma_fence() {
    cuda_on_host::warp(9, nullptr, [](cuda_on_host::Meeting&) {});
    cuda_on_host::block->now->fenced = true;
}

inline void wgmma(float (&sums)[128], const unsigned (&a)[4], unsigned long long b) {
    using namespace cuda_on_host;
    if (!block->now->fenced) die("products without a fence between their registers and what wrote them");
    const Product mine{sums, a, b};
    warp_group(10, &mine, [](Meeting& m, Products& products) {
        GroupProduct all;
        for (unsigned i = 0; i < GROUP; i++) {
            all.of[i] = *(const Product*)m.what[i];
            if (all.of[i].b != all.of[0].b) die("threads of a warp group give different descriptors");
        }
        products.back().push_back(all);
        if (!block->backwards) multiply(all);
    });
}

inline void wgmma_commit() {
    cuda_on_host::block->now->fenced = false;
    cuda_on_host::warp_group(11, nullptr, [](cuda_on_host::Meeting&, cuda_on_host::Products& products) {
        products.emplace_back();
    });
}

template <int N> void wgmma_wait() {
    cuda_on_host::warp_group(12, nullptr, [](cuda_on_host::Meeting&, cuda_on_host::Products& products) {
        while (products.size() > N + 1) {
            if (cuda_on_host::block->backwards)
                for (const auto& all : products.front()) cuda_on_host::multiply(all);
            products.erase(products.begin());
        }
    });
}
