// Noise, twin of src/ops/noise.rs and src/sampling/philox.rs, to the bit.
//
//   noise  any grid, at best ceil(T B N ceil(C / 4) / 256) blocks

#include "exact.cuh"
#include "rows.cuh"

struct Words {
    unsigned a, b, c, d;
};

// Ten rounds of Philox on a counter and a key.
DEVICE Words philox4x32(Words counter, unsigned key_low, unsigned key_high) {
#pragma unroll
    for (int i = 0; i < 10; i++) {
        const unsigned low = counter.a * 0xd2511f53u, low_carry = __umulhi(counter.a, 0xd2511f53u);
        const unsigned high = counter.c * 0xcd9e8d57u, high_carry = __umulhi(counter.c, 0xcd9e8d57u);
        counter = {high_carry ^ counter.b ^ key_low, high, low_carry ^ counter.d ^ key_high, low};
        key_low += 0x9e3779b9u, key_high += 0xbb67ae85u;
    }
    return counter;
}

// The natural logarithm of a normal positive number.
DEVICE Exact ln(Exact x) {
    const unsigned bits = __float_as_uint(x.x);
    int e = (int)(bits >> 23) - 126;
    Exact m = __uint_as_float((bits & 0x007fffffu) | 0x3f000000u);
    if (m.x < 0.707106781186547524f) e -= 1, m = m + m;
    const Exact z = m - 1.0f, square = z * z;
    Exact p = 7.0376836e-2f;
    p = p * z + -1.151461e-1f;
    p = p * z + 1.1676999e-1f;
    p = p * z + -1.2420141e-1f;
    p = p * z + 1.4249323e-1f;
    p = p * z + -1.6668058e-1f;
    p = p * z + 2.0000715e-1f;
    p = p * z + -2.4999994e-1f;
    p = p * z + 0.3333331f;
    const Exact n = (float)e, tail = p * z * square + n * -2.1219444e-4f - Exact(0.5f) * square;
    return z + tail + n * 0.6933594f;
}

// Two normal numbers of two words.
DEVICE void normal_pair(unsigned radius, unsigned angle, float& first, float& second) {
    const Exact u = Exact((float)((radius >> 8) + 1)) * (1.0f / 16777216.0f);
    const Exact r = __fsqrt_rn((Exact(-2.0f) * ln(u)).x);
    // The nearest quarter turn and what is left of it.
    const unsigned quarter = (angle + (1u << 29)) >> 30;
    const int left = (int)(angle - (quarter << 30));
    const Exact x = Exact((float)(left >> 6)) * (6.28318530717958648f / 67108864.0f), z = x * x;
    const Exact sin = ((Exact(-1.9515296e-4f) * z + 8.332161e-3f) * z - 1.6666655e-1f) * z * x + x;
    const Exact cos = ((Exact(2.4433157e-5f) * z - 1.3887316e-3f) * z + 4.1666646e-2f) * z * z - Exact(0.5f) * z + 1.0f;
    const Exact across = quarter == 0 ? cos : quarter == 1 ? -sin : quarter == 2 ? -cos : sin;
    const Exact up = quarter == 0 ? sin : quarter == 1 ? cos : quarter == 2 ? -sin : -cos;
    first = (r * across).x, second = (r * up).x;
}

KERNEL(noise, PIECE_THREADS, NoiseParams) {
    const int turn = turn_now(p.turn), images = p.seeds.groups, all = count(p.places);
    const bool aligned = rows_on_16(p.out);
    each_piece(count(p.out), p.out.cols, [&](int row, int k) {
        const unsigned* seed = row_of<const unsigned>(p.seeds, turn, row / p.out.rows % images, 0);
        const unsigned place = *row_of<const unsigned>(p.places, turn, row % all);
        const unsigned step = p.first_step + row / all;
        const Words w = philox4x32({(unsigned)k / 4, place, step, (unsigned)p.stream}, seed[0], seed[1]);
        float four[4];
        normal_pair(w.a, w.b, four[0], four[1]);
        normal_pair(w.c, w.d, four[2], four[3]);
        store_four(row_of<float>(p.out, turn, row), NUMBERS, k, p.out.cols, aligned, four);
    });
}
