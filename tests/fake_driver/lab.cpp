// The kernels of lab.ptx, for the host: as kernels/emulate has those of kernels/ called.

#include <cstdint>

struct Add {
    float* values;
    uint32_t count;
    float amount;
};

extern "C" int add_params() { return sizeof(Add); }
extern "C" void add(const void* params, const unsigned grid[3], int) {
    const Add& p = *(const Add*)params;
    for (uint32_t i = 0; i < grid[0] * 32 && i < p.count; i++) p.values[i] += p.amount;
}

extern "C" int nothing_params() { return 0; }
extern "C" void nothing(const void*, const unsigned*, int) {}

// Writes one value too many.
extern "C" int stray_params() { return sizeof(Add); }
extern "C" void stray(const void* params, const unsigned*, int) {
    const Add& p = *(const Add*)params;
    p.values[p.count] = p.amount;
}
