// Conv, twin of src/ops/conv: a convolution over channels-last images as a product, whose input is gathered pixel by pixel,
// normalised and activated on the way. Sums are f32. panels = ceil(Cout / 16), pixels = B Ho Wo.
//
//   conv_bf16        tiles of 128 x 128: grid (ceil(panels / 8) * ceil(pixels / 128)), those of the same pixels one after
//                    the other
//   conv_bf16_small  tiles of 64 x 64, where those above would be too few: grid (ceil(panels / 4) * ceil(pixels / 64), 1,
//                    splits); a tile takes 4096 floats of `partial` times splits
//   conv_f32         tiles of 64 x 64: grid (ceil(panels / 4) * ceil(pixels / 64))
// x is numbers: `form` is NUMBERS.

#include "product.cuh"

using Large = Tile<128, 128, 64, 64, 3>;
using Small = Tile<64, 64, 32, 32, 4>;

// The neighbourhoods of pixels. K runs over the taps, line by line, and of each tap over the channels.
struct Pixels {
    static constexpr bool COPIES = false;
    const ConvParams& p;
    int turn, height, k;
    bool fours; // four numbers from a multiple of four on are of one tap, and on 16 bytes

    // Of an output pixel: the first channel of its image, its first line and column; no image for rows behind the last.
    struct Place {
        int image, top, left;
    };

    DEVICE Pixels(const ConvParams& p, int turn)
        : p(p), turn(turn), height(p.x.rows / p.width), k(p.w.k),
          fours(p.cin % 4 == 0 && rows_on_16(p.x) && (!p.factors.base || rows_on_16(p.factors))) {}

    DEVICE Place place(int row) const {
        if (row >= count(p.out)) return {-1, 0, 0};
        const int image = row / p.out.rows, pixel = row % p.out.rows;
        return {image, pixel / p.out_width * p.stride - p.padding, pixel % p.out_width * p.stride - p.padding};
    }

    // The pixel that a tap of a place reads; null outside of the image.
    DEVICE const float* pixel(const Place& place, int tap) const {
        const int line = place.top + tap / p.kernel, column = place.left + tap % p.kernel, shift = p.upsample;
        if (place.image < 0 || line < 0 || column < 0 || line >> shift >= height || column >> shift >= p.width) return nullptr;
        return row_of<const float>(p.x, turn, place.image, (line >> shift) * p.width + (column >> shift));
    }

    DEVICE float done(const float* factors, int channel, float x) const {
        return factors ? activate(p.activation, fmaf(x, factors[channel], factors[p.cin + channel])) : x;
    }

    template <int N> DEVICE void load(float (&to)[N], const Place& place, int at) const {
        const float* factors =
            p.factors.base && place.image >= 0 ? row_of<const float>(p.factors, turn, place.image) : nullptr;
        if (fours) {
#pragma unroll
            for (int i = 0; i < N; i += 4) {
                const int tap = (at + i) / p.cin, channel = (at + i) % p.cin;
                const float* from = at + i < k ? pixel(place, tap) : nullptr;
                float4 x = {0.0f, 0.0f, 0.0f, 0.0f};
                if (from) {
                    x = *(const float4*)(from + channel);
                    if (factors) {
                        const float4 scale = *(const float4*)(factors + channel);
                        const float4 shift = *(const float4*)(factors + p.cin + channel);
                        x.x = activate(p.activation, fmaf(x.x, scale.x, shift.x));
                        x.y = activate(p.activation, fmaf(x.y, scale.y, shift.y));
                        x.z = activate(p.activation, fmaf(x.z, scale.z, shift.z));
                        x.w = activate(p.activation, fmaf(x.w, scale.w, shift.w));
                    }
                }
                to[i] = x.x, to[i + 1] = x.y, to[i + 2] = x.z, to[i + 3] = x.w;
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < N; i++) {
            const int tap = (at + i) / p.cin, channel = (at + i) % p.cin;
            const float* from = at + i < k ? pixel(place, tap) : nullptr;
            to[i] = from ? done(factors, channel, from[channel]) : 0.0f;
        }
    }
};

template <class T> DEVICE void store(const ConvParams& p, int turn, int m0, int c0, Sums<T>& sums, unsigned* memory) {
    store_narrow<T>(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.out), p.w.skip, m0, c0, sums, memory);
}

KERNEL(conv_bf16, Large::THREADS, ConvParams) {
    SHARED(unsigned, memory, Large::MEMORY);
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, Large::M, Large::N);
    Sums<Large> sums;
    product_narrow<Large>(Pixels(p, turn), p.w, memory, at.m0, at.c0, 0, pieces(packed_lines(p.w), 16), sums);
    store<Large>(p, turn, at.m0, at.c0, sums, memory);
}

KERNEL(conv_bf16_small, Small::THREADS, ConvParams) {
    SHARED(unsigned, memory, Small::MEMORY);
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, Small::M, Small::N);
    Sums<Small> sums;
    if (product_narrow_split<Small>(Pixels(p, turn), p.w, memory, at.m0, at.c0, sums, p.splits, p.partial, p.tickets))
        store<Small>(p, turn, at.m0, at.c0, sums, memory);
}

KERNEL(conv_f32, 256, ConvParams) {
    SHARED(float, a, 16 * 68);
    SHARED(float, b, 16 * 68);
    const int turn = turn_now(p.turn);
    const TilePlace at(p.w, 64, 64);
    float sums[4][4];
    product_f32(Pixels(p, turn), p.w, a, b, at.m0, at.c0, sums);
    store_f32(Store{p.epilogue, p.out, turn, p.w.rows}, count(p.out), p.w.skip, at.m0, at.c0, sums);
}
