// Linear of many rows by Hopper's own products of warp groups, beside linear.cu: out = f(x W^T + bias), sums f32. For GPUs of
// compute capability 9.0 and no others; never run on one.
//
//   linear_bf16_pairs_wgmma  grid (ceil(panels / 8) * ceil(M / 256)), panels = ceil((skip + N) / 16), the tiles of the same rows
//                            one after the other; x pairs, `splits` 1
//
// A tile is 128 outputs by 256 rows, computed as its transpose W x^T by two warp groups of 64 outputs each. A word of a
// panel, one output and two neighbours along K, is a register of the product's left side as it is; rows of x are its right side,
// K-major as they lie. Outputs 2 g and 2 g + 1 of a panel are the product's rows g and g + 8, so that two words are read at once.
//
// K goes by in steps of 64, of which four are in shared memory: products read one or two, copies are on their way into the
// others. Threads copy two steps ahead and wait for the products of the step before the one that they have just begun.

#include "product.cuh"
#include "wgmma.cuh"

enum {
    WIDE_OUTPUTS = 128,
    WIDE_ROWS = 256,
    WIDE_THREADS = 256,
    WIDE_STAGES = 4,
    WIDE_LINES = 32, // a step: words of a row of x, and of an output
    WIDE_X = WIDE_ROWS * WIDE_LINES,
    WIDE_STAGE = WIDE_X + WIDE_OUTPUTS * WIDE_LINES,
    WIDE_LINE = WIDE_OUTPUTS + 4, // of sums that are turned round
    WIDE_BYTES = 4 * WIDE_STAGES * WIDE_STAGE + 1024,
};
static_assert(WIDE_STAGE * 4 % 1024 == 0, "every stage starts on 1024 bytes");
static_assert(WIDE_ROWS * WIDE_LINE <= WIDE_STAGES * WIDE_STAGE, "the sums have room where the operands were");

// Pieces of 16 bytes of a step: of a row of x as the 128-byte swizzle has them, a piece's number and its row's last three bits
// made one by XOR; of a line of a panel so that four lines of eight outputs, which are read at once, are in different banks.
DEVICE int x_place(int row, int piece) { return row * WIDE_LINES + ((piece ^ (row & 7)) << 2); }
DEVICE int w_place(int panel, int line, int piece) {
    return (panel * WIDE_LINES + line) * 16 + ((piece ^ (line & 2)) << 2);
}

SHARED_BYTES(linear_bf16_pairs_wgmma, WIDE_BYTES)

KERNEL(linear_bf16_pairs_wgmma, WIDE_THREADS, LinearParams) {
    constexpr int X_PIECES = WIDE_ROWS * 8 / WIDE_THREADS, W_PIECES = WIDE_OUTPUTS * 8 / WIDE_THREADS;
    unsigned* memory = dynamic_on_1024<WIDE_BYTES>();
    const int turn = turn_now(p.turn), thread = threadIdx.x, lane = thread % 32, warp = thread / 32, g = lane / 4, q = lane % 4;
    const int lines = packed_lines(p.w), panels = packed_panels(p.w);
    const TilePlace at(p.w, WIDE_ROWS, WIDE_OUTPUTS);

    // A thread brings the same piece of every 32nd row, and of the same line of every second panel.
    const PairRows x(p.x, turn, p.w.k);
    const int piece = thread % 8, first = thread / 8;
    PairRows::Place places[X_PIECES];
#pragma unroll
    for (int i = 0; i < X_PIECES; i++) places[i] = x.place(at.m0 + first + i * (WIDE_THREADS / 8));
    auto fetch = [&](int step) {
        unsigned *into = memory + step % WIDE_STAGES * WIDE_STAGE, *to = into + WIDE_X;
#pragma unroll
        for (int i = 0; i < X_PIECES; i++)
            x.copy(into + x_place(first + i * (WIDE_THREADS / 8), piece), places[i], step * WIDE_LINES + piece * 4);
#pragma unroll
        for (int i = 0; i < W_PIECES; i++) {
            const int of = thread / 128 + 2 * i, line = thread / 4 % 32, part = thread % 4;
            const int panel = at.c0 / 16 + of, far = step * WIDE_LINES + line;
            const bool there = panel < panels && far < lines;
            const unsigned* from = there ? p.w.words + ((long long)panel * lines + far) * 16 + part * 4 : p.w.words;
            copy_16(to + w_place(of, line, part), from, there ? 16 : 0);
        }
    };

    float sums[128];
#pragma unroll
    for (int i = 0; i < 128; i++) sums[i] = 0.0f;

    // Two at a time, whose registers take turns; where they are odd the last one is of zeros.
    const int steps = pieces(lines, 2 * WIDE_LINES) * 2;
    auto multiply = [&](int step, unsigned (&words)[4][4]) {
        copies_wait<WIDE_STAGES - 3>();
        proxy_fence();
        __syncthreads();
        const unsigned *rows = memory + step % WIDE_STAGES * WIDE_STAGE, *panel = rows + WIDE_X;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint2 low = *(const uint2*)(panel + w_place(warp, i * 8 + q, g / 2) + g % 2 * 2);
            const uint2 high = *(const uint2*)(panel + w_place(warp, i * 8 + q + 4, g / 2) + g % 2 * 2);
            words[i][0] = low.x, words[i][1] = low.y, words[i][2] = high.x, words[i][3] = high.y;
        }
        wgmma_fence();
        const unsigned start = shared_address(rows);
        // 16 numbers along K are 32 bytes of every row.
#pragma unroll
        for (int i = 0; i < 4; i++) wgmma(sums, words[i], wgmma_descriptor(start + 32 * i));
        wgmma_commit();
        // Into what the products of two steps ago read: every thread has waited for them before this step's barrier.
        const int next = step + WIDE_STAGES - 2;
        if (next < steps) fetch(next);
        copies_commit();
        wgmma_wait<1>();
    };
#pragma unroll 1
    for (int step = 0; step < WIDE_STAGES - 2; step++) {
        fetch(step);
        copies_commit();
    }
    unsigned even[4][4], odd[4][4];
#pragma unroll 1
    for (int step = 0; step < steps; step += 2) {
        multiply(step, even);
        multiply(step + 1, odd);
    }
    wgmma_wait<0>();

    // Through shared memory, so that whole lines are written.
    __syncthreads();
    float* turned = (float*)memory;
#pragma unroll
    for (int i = 0; i < 32; i++) {
#pragma unroll
        for (int c = 0; c < 2; c++)
            *(float2*)(turned + (8 * i + 2 * q + c) * WIDE_LINE + warp * 16 + 2 * g) = {sums[4 * i + c], sums[4 * i + 2 + c]};
    }
    __syncthreads();
    const Store store{p.epilogue, p.out, turn, p.w.rows};
    const int n = at.c0 + lane * 4 - p.w.skip, rows = smaller(count(p.x) - at.m0, (int)WIDE_ROWS);
    float bias[4];
    store.bias(bias, n);
#pragma unroll 1
    for (int row = warp; row < rows; row += WIDE_THREADS / 32) {
        const float4 four = *(const float4*)(turned + row * WIDE_LINE + lane * 4);
        float y[4] = {four.x, four.y, four.z, four.w};
        store.four(at.m0 + row, n, y, bias);
    }
}
