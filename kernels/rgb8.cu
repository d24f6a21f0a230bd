// Pixels to bytes, twin of Image::from_pixels in src/pipeline/image.rs, to the bit: rounded half up, clamped.
//
//   rgb8  any grid, at best ceil(words of out / 256) blocks

#include "exact.cuh"
#include "rows.cuh"

KERNEL(rgb8, 256, Rgb8Params) {
    const int turn = turn_now(p.turn), words = p.out.cols, bytes = p.x.rows * 3;
    const Exact low = p.low, scale = 255.0f / (Exact(p.high) - low).x;
    const unsigned all = (unsigned)count(p.out) * words;
    for (unsigned i = blockIdx.x * 256 + threadIdx.x; i < all; i += gridDim.x * 256) {
        const int image = i / words, word = i % words;
        unsigned four = 0;
#pragma unroll
        for (int b = 0; b < 4; b++) {
            const int at = word * 4 + b;
            if (at >= bytes) break;
            const float x = row_of<const float>(p.x, turn, image, at / 3)[at % 3];
            const Exact bounded = x > p.high ? p.high : x;
            const float y = floorf(((bounded - low) * scale + 0.5f).x);
            // Below `low` it is negative; and what is not a number is black too.
            four |= (y >= 0.0f ? (unsigned)y : 0u) << 8 * b;
        }
        row_of<unsigned>(p.out, turn, image)[word] = four;
    }
}
