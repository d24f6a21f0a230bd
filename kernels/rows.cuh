// Going over the rows of matrices four numbers at a time.
#pragma once

#include "common.cuh"

const int PIECE_THREADS = 256;

// Calls each(row, column) for every fourth column of every row, a thread one after the other: any grid does. At most 2^31
// such pieces.
template <class Each> DEVICE void each_piece(int rows, int cols, Each each) {
    const unsigned across = pieces(cols, 4), all = rows * across, step = gridDim.x * PIECE_THREADS;
    for (unsigned i = blockIdx.x * PIECE_THREADS + threadIdx.x; i < all; i += step) each(int(i / across), int(i % across * 4));
}

// Numbers k .. k + 3 of a row of `cols` numbers in `form`, as many as there are. `aligned`: the row starts on 16 bytes; k is
// a multiple of 4.
DEVICE void store_four(void* row, int form, int k, int cols, bool aligned, const float (&x)[4]) {
    const int left = cols - k;
    if (form == PAIRS) {
        unsigned* to = (unsigned*)row + k / 2;
        const unsigned low = bf16_pair(x[0], left > 1 ? x[1] : 0.0f);
        const unsigned high = bf16_pair(left > 2 ? x[2] : 0.0f, left > 3 ? x[3] : 0.0f);
        if (aligned && left > 2) {
            *(uint2*)to = {low, high};
        } else {
            to[0] = low;
            if (left > 2) to[1] = high;
        }
    } else {
        float* to = (float*)row + k;
        if (aligned && left >= 4) {
            *(float4*)to = {x[0], x[1], x[2], x[3]};
        } else {
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (i < left) to[i] = x[i];
        }
    }
}
