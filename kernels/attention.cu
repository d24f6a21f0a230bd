// Attention, twin of src/ops/attention: out = softmax(q k^T / sqrt(d)) v, head by head, over the keys that count in a turn.
// The softmax is online: tiles of keys one after the other, with the largest score and the sum of weights so far.
//
//   attention_bf16_D  many queries, any d up to D (32, 48, 64, 80, 96, 128): grid (ceil(N / 64), H, G). q, k, v and the
//                     weights are multiplied as bf16; sums, scores and exponentials are f32; q, k, v and out in either form,
//                     pairs with an even d
//   attention_f32     the same in f32, d up to 128: grid (ceil(N / 32), H, G); numbers only
//   attention_few     few queries, f32: grid (H, N, G); numbers only
//   attention_wide, attention_wide_bf16
//                     f32, or of numbers rounded to bf16, d up to 1024 and at most 1536 keys: grid (ceil(N / 4), H, G); numbers only. For the one head of
//                     the decoder's middle, whose time does not count

#include "common.cuh"

DEVICE float minus_infinity() { return __uint_as_float(0xff800000u); }

DEVICE int keys_now(const AttentionParams& p, int turn) { return p.keys_first + turn * p.keys_step; }

// Where a head's rows of a group lie in a turn. `quick`: in whole pieces of eight numbers on 16 bytes.
struct HeadRows {
    const unsigned* first;
    int stride, d;
    bool pairs, quick;

    DEVICE HeadRows(const View& v, int form, int turn, int group, int head, int d)
        : first(row_of<const unsigned>(v, turn, group, 0) + (form == PAIRS ? head * d / 2 : head * d)),
          stride(v.row_stride), d(d), pairs(form == PAIRS), quick(on_16(first) && v.row_stride % 4 == 0 && d % 8 == 0) {}

    // Numbers at and at + 1 of a row, at even, as a pair; zeros behind the end.
    DEVICE unsigned pair(const unsigned* row, int at) const {
        if (at >= d) return 0;
        if (pairs) return row[at / 2];
        const float* x = (const float*)row + at;
        return bf16_pair(x[0], at + 1 < d ? x[1] : 0.0f);
    }
};

// A tile of 64 rows by D numbers as pairs. Rows are four words longer than their numbers, so that ldmatrix reads eight of
// them from different banks.
template <int D> struct HeadTile {
    static constexpr int ROW = D / 2 + 4, WORDS = 64 * ROW, THREADS = 128;

    // Rows `from` and following, zeros from `end` on.
    static DEVICE void load(unsigned* tile, const HeadRows& rows, int from, int end) {
        const int pieces_of_row = D / 8, count = 64 * pieces_of_row;
        if (!rows.quick) {
#pragma unroll 1
            for (int i = threadIdx.x; i < count; i += THREADS) {
                const int row = from + i / pieces_of_row, at = i % pieces_of_row * 8;
                const unsigned* words = rows.first + (long long)smaller(row, end - 1) * rows.stride;
                uint4 four = {0, 0, 0, 0};
                if (row < end) {
                    four = {rows.pair(words, at), rows.pair(words, at + 2), rows.pair(words, at + 4),
                            rows.pair(words, at + 6)};
                }
                *(uint4*)(tile + i / pieces_of_row * ROW + at / 2) = four;
            }
            return;
        }
#pragma unroll 4
        for (int i = threadIdx.x; i < count; i += THREADS) {
            const int row = from + i / pieces_of_row, at = i % pieces_of_row * 8;
            const unsigned* words = rows.first + (long long)row * rows.stride;
            uint4 four = {0, 0, 0, 0};
            if (row < end && at < rows.d) {
                if (rows.pairs) {
                    four = *(const uint4*)(words + at / 2);
                } else {
                    const float4 x = *(const float4*)(words + at), y = *(const float4*)(words + at + 4);
                    four = {bf16_pair(x.x, x.y), bf16_pair(x.z, x.w), bf16_pair(y.x, y.y), bf16_pair(y.z, y.w)};
                }
            }
            *(uint4*)(tile + i / pieces_of_row * ROW + at / 2) = four;
        }
    }
};

// A warp has 16 queries. Of the scores a thread holds rows g and g + 8, columns 2 q and 2 q + 1 of every eight keys, which
// is also how the product with the values wants its left side.
template <int D> DEVICE void attend_bf16(const AttentionParams& p, unsigned* k_tile, unsigned* v_tile) {
    using Tile = HeadTile<D>;
    const int turn = turn_now(p.turn), lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int d = p.head_size, head = blockIdx.y, group = blockIdx.z, q0 = blockIdx.x * 64, keys = keys_now(p, turn);

    // The queries pass through the keys' memory.
    Tile::load(k_tile, HeadRows(p.q, p.form, turn, group, head, d), q0, p.q.rows);
    __syncthreads();
    unsigned q[D / 16][4];
#pragma unroll
    for (int c = 0; c < D / 16; c++)
        ldmatrix(q[c], k_tile + (warp * 16 + lane % 16) * Tile::ROW + (c * 2 + lane / 16) * 4);

    const HeadRows k(p.k, p.form, turn, group, head, d), v(p.v, p.form, turn, group, head, d);
    float sums[D / 8][4] = {};
    float largest[2] = {minus_infinity(), minus_infinity()}, weights[2] = {0.0f, 0.0f};
    const float scale = 1.44269504088896341f / sqrtf((float)d); // powers of two are quicker than those of e
#pragma unroll 1
    for (int k0 = 0; k0 < keys; k0 += 64) {
        __syncthreads();
        // One loop for both, for the code's size.
#pragma unroll 1
        for (int i = 0; i < 2; i++) {
            // Field by field, lest the two lie in memory.
            HeadRows rows = k;
            if (i) rows.first = v.first, rows.stride = v.stride, rows.quick = v.quick;
            Tile::load(i ? v_tile : k_tile, rows, k0, keys);
        }
        __syncthreads();
        float scores[8][4] = {};
#pragma unroll
        for (int c = 0; c < D / 16; c++) {
#pragma unroll
            for (int n = 0; n < 8; n += 2) {
                unsigned b[4];
                const int row = n * 8 + lane % 8 + lane / 16 * 8, piece = c * 2 + lane / 8 % 2;
                ldmatrix(b, k_tile + row * Tile::ROW + piece * 4);
                mma(scores[n], q[c], b[0], b[1]);
                mma(scores[n + 1], q[c], b[2], b[3]);
            }
        }
        if (k0 + 64 > keys) {
#pragma unroll
            for (int n = 0; n < 8; n++)
#pragma unroll
                for (int r = 0; r < 4; r++)
                    if (k0 + n * 8 + lane % 4 * 2 + r % 2 >= keys) scores[n][r] = minus_infinity();
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float most = largest[h];
#pragma unroll
            for (int n = 0; n < 8; n++) most = fmaxf(most, fmaxf(scores[n][2 * h], scores[n][2 * h + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float shrink = exp2f((largest[h] - most) * scale), offset = -most * scale;
            largest[h] = most;
            weights[h] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; n++) sums[n][2 * h] *= shrink, sums[n][2 * h + 1] *= shrink;
#pragma unroll
            for (int n = 0; n < 8; n++) {
                scores[n][2 * h] = exp2f(fmaf(scores[n][2 * h], scale, offset));
                scores[n][2 * h + 1] = exp2f(fmaf(scores[n][2 * h + 1], scale, offset));
            }
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            unsigned a[4];
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float* two = scores[2 * k + r / 2] + r % 2 * 2;
                a[r] = bf16_pair(two[0], two[1]);
                // What is divided by is the sum of the rounded weights.
                weights[r % 2] += low_number(a[r]) + high_number(a[r]);
            }
#pragma unroll
            for (int n = 0; n < D / 8; n += 2) {
                unsigned b[4];
                ldmatrix_transposed(b, v_tile + (k * 16 + lane % 16) * Tile::ROW + (n + lane / 16) * 4);
                mma(sums[n], a, b[0], b[1]);
                mma(sums[n + 1], a, b[2], b[3]);
            }
        }
    }
#pragma unroll
    for (int h = 0; h < 2; h++) {
        float all = weights[h];
        all += __shfl_xor_sync(0xffffffffu, all, 1);
        all += __shfl_xor_sync(0xffffffffu, all, 2);
        const float inverse = 1.0f / all;
        const int row = q0 + warp * 16 + lane / 4 + h * 8;
        if (row >= p.q.rows) continue;
        unsigned* to = row_of<unsigned>(p.out, turn, group, row);
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
            const int at = n * 8 + lane % 4 * 2;
            if (at >= d) continue;
            const float x = sums[n][2 * h] * inverse, y = sums[n][2 * h + 1] * inverse;
            if (p.out_form == PAIRS) {
                to[(head * d + at) / 2] = bf16_pair(x, y);
            } else {
                float* numbers = (float*)to + head * d + at;
                numbers[0] = x;
                if (at + 1 < d) numbers[1] = y;
            }
        }
    }
}

#define ATTENTION_BF16(D)                                                                                              \
    KERNEL(attention_bf16_##D, 128, AttentionParams) {                                                                 \
        SHARED(unsigned, k_tile, HeadTile<D>::WORDS);                                                                  \
        SHARED(unsigned, v_tile, HeadTile<D>::WORDS);                                                                  \
        attend_bf16<D>(p, k_tile, v_tile);                                                                             \
    }
ATTENTION_BF16(32)
ATTENTION_BF16(48)
ATTENTION_BF16(64)
ATTENTION_BF16(80)
ATTENTION_BF16(96)
ATTENTION_BF16(128)

enum { F32_ROW = 132, F32_TILE = 32 };

// 32 rows of a head, zeros behind its end and from row `end` on.
DEVICE void load_f32(float* tile, const View& v, int turn, int group, int head, int d, int from, int end) {
    const bool aligned = rows_on_16(v) && head * d % 4 == 0;
    for (int i = threadIdx.x; i < F32_TILE * 32; i += 256) {
        const int row = i / 32, at = i % 32 * 4;
        float x[4];
        const float* from_row = row_of<const float>(v, turn, group, smaller(from + row, end - 1)) + head * d;
        load_numbers(x, from_row, at, from + row < end ? d : 0, aligned);
        *(float4*)(tile + row * F32_ROW + at) = {x[0], x[1], x[2], x[3]};
    }
}

DEVICE float dot(const float4& a, const float4& b, float sum) {
    return fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, fmaf(a.x, b.x, sum))));
}

// Eight threads a query: of the scores each has every eighth key, of the result four of every 32 numbers.
KERNEL(attention_f32, 256, AttentionParams) {
    SHARED(float, q_tile, F32_TILE * F32_ROW);
    SHARED(float, tile, F32_TILE * F32_ROW); // keys, then their values
    SHARED(float, shares, F32_TILE * 36);
    const int turn = turn_now(p.turn), row = threadIdx.x / 8, part = threadIdx.x % 8;
    const int d = p.head_size, head = blockIdx.y, group = blockIdx.z, q0 = blockIdx.x * F32_TILE;
    const int keys = keys_now(p, turn);
    const float scale = 1.0f / sqrtf((float)d);
    load_f32(q_tile, p.q, turn, group, head, d, q0, p.q.rows);
    float sums[4][4] = {}, largest = minus_infinity(), weights = 0.0f;
    for (int k0 = 0; k0 < keys; k0 += F32_TILE) {
        __syncthreads();
        load_f32(tile, p.k, turn, group, head, d, k0, keys);
        __syncthreads();
        float scores[4] = {};
#pragma unroll 2
        for (int at = 0; at < d; at += 4) {
            const float4 left = *(const float4*)(q_tile + row * F32_ROW + at);
#pragma unroll
            for (int j = 0; j < 4; j++)
                scores[j] = dot(left, *(const float4*)(tile + (part + 8 * j) * F32_ROW + at), scores[j]);
        }
        float most = largest;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            scores[j] = k0 + part + 8 * j < keys ? scores[j] * scale : minus_infinity();
            most = fmaxf(most, scores[j]);
        }
#pragma unroll
        for (int i = 1; i < 8; i *= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, i));
        const float shrink = expf(largest - most);
        largest = most;
        weights *= shrink;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float share = expf(scores[j] - most);
            weights += share;
            shares[row * 36 + part + 8 * j] = share;
#pragma unroll
            for (int i = 0; i < 4; i++) sums[j][i] *= shrink;
        }
        __syncthreads();
        load_f32(tile, p.v, turn, group, head, d, k0, keys);
        __syncthreads();
#pragma unroll 4
        for (int key = 0; key < F32_TILE; key++) {
            const float share = shares[row * 36 + key];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float4 v = *(const float4*)(tile + key * F32_ROW + part * 4 + 32 * j);
                sums[j][0] = fmaf(share, v.x, sums[j][0]), sums[j][1] = fmaf(share, v.y, sums[j][1]);
                sums[j][2] = fmaf(share, v.z, sums[j][2]), sums[j][3] = fmaf(share, v.w, sums[j][3]);
            }
        }
    }
#pragma unroll
    for (int i = 1; i < 8; i *= 2) weights += __shfl_xor_sync(0xffffffffu, weights, i);
    if (q0 + row >= p.q.rows) return;
    float* to = row_of<float>(p.out, turn, group, q0 + row) + head * d;
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (part * 4 + 32 * j + i < d) to[part * 4 + 32 * j + i] = sums[j][i] / weights;
}

// A part of the keys: its largest score, the sum of its weights, and four numbers of the weighted sum of its values.
struct Part {
    float largest, weights, sums[4];

    DEVICE void join(float other_largest, float other_weights, const float (&other)[4]) {
        const float most = fmaxf(largest, other_largest);
        // A part without keys has no largest score.
        const float here = largest == minus_infinity() ? 0.0f : expf(largest - most);
        const float there = other_largest == minus_infinity() ? 0.0f : expf(other_largest - most);
        largest = most;
        weights = weights * here + other_weights * there;
#pragma unroll
        for (int i = 0; i < 4; i++) sums[i] = sums[i] * here + other[i] * there;
    }
};

// A query a block. As many threads as have four numbers of a head each take a key at a time, four keys on their way.
KERNEL(attention_few, 256, AttentionParams) {
    SHARED(float, parts, 8 * 32 * 6);
    const int turn = turn_now(p.turn), thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int d = p.head_size, head = blockIdx.x, row = blockIdx.y, group = blockIdx.z, keys = keys_now(p, turn);
    int lanes = 4;
    while (lanes * 4 < d) lanes *= 2;
    const int at = thread % lanes * 4, team = thread / lanes, teams = 256 / lanes;
    const bool k_aligned = rows_on_16(p.k) && head * d % 4 == 0, v_aligned = rows_on_16(p.v) && head * d % 4 == 0;
    const float scale = 1.0f / sqrtf((float)d);
    float q[4];
    load_numbers(q, row_of<const float>(p.q, turn, group, row) + head * d, at, d, false);
    Part part = {minus_infinity(), 0.0f, {0.0f, 0.0f, 0.0f, 0.0f}};
    for (int k0 = 0; k0 < keys; k0 += 4 * teams) {
        float k[4][4], v[4][4], scores[4];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int key = k0 + j * teams + team, there = key < keys ? d : 0, i = smaller(key, keys - 1);
            load_numbers(k[j], row_of<const float>(p.k, turn, group, i) + head * d, at, there, k_aligned);
            load_numbers(v[j], row_of<const float>(p.v, turn, group, i) + head * d, at, there, v_aligned);
        }
        float most = part.largest;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float sum = q[0] * k[j][0] + q[1] * k[j][1] + q[2] * k[j][2] + q[3] * k[j][3];
            for (int i = lanes / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
            scores[j] = k0 + j * teams + team < keys ? sum * scale : minus_infinity();
            most = fmaxf(most, scores[j]);
        }
        if (most == minus_infinity()) continue;
        const float shrink = expf(part.largest - most);
        part.largest = most;
        part.weights *= shrink;
#pragma unroll
        for (int i = 0; i < 4; i++) part.sums[i] *= shrink;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float share = expf(scores[j] - most);
            part.weights += share;
#pragma unroll
            for (int i = 0; i < 4; i++) part.sums[i] = fmaf(share, v[j][i], part.sums[i]);
        }
    }
    for (int i = lanes; i < 32; i *= 2) {
        float other[4];
        const float largest = __shfl_xor_sync(0xffffffffu, part.largest, i);
        const float weights = __shfl_xor_sync(0xffffffffu, part.weights, i);
#pragma unroll
        for (int n = 0; n < 4; n++) other[n] = __shfl_xor_sync(0xffffffffu, part.sums[n], i);
        part.join(largest, weights, other);
    }
    float* mine = parts + warp * 192 + lane;
    mine[0] = part.largest, mine[32] = part.weights;
#pragma unroll
    for (int n = 0; n < 4; n++) mine[64 + 32 * n] = part.sums[n];
    __syncthreads();
    if (thread >= lanes) return;
    for (int w = 1; w < 8; w++) {
        const float* other = parts + w * 192 + lane;
        const float sums[4] = {other[64], other[96], other[128], other[160]};
        part.join(other[0], other[32], sums);
    }
    float* to = row_of<float>(p.out, turn, group, row) + head * d;
#pragma unroll
    for (int i = 0; i < 4; i++)
        if (at + i < d) to[at + i] = part.sums[i] / part.weights;
}

enum { WIDE_QUERIES = 4, WIDE_HEAD = 1024, WIDE_KEYS = 1536 };

// Four queries a block: their scores of all keys first, a key a warp, then their results, a column a thread.
template <bool ROUNDS> DEVICE void attend_wide(const AttentionParams& p, float* q, float* scores, float* inverse) {
    auto taken = [](float x) { return ROUNDS ? low_number(bf16_pair(x, 0.0f)) : x; };
    const int turn = turn_now(p.turn), thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int d = p.head_size, head = blockIdx.y, group = blockIdx.z, q0 = blockIdx.x * WIDE_QUERIES;
    const int keys = keys_now(p, turn);
    for (int i = thread; i < WIDE_QUERIES * d; i += 256) {
        const int row = smaller(q0 + i / d, p.q.rows - 1);
        q[i / d * WIDE_HEAD + i % d] = taken(row_of<const float>(p.q, turn, group, row)[head * d + i % d]);
    }
    __syncthreads();
    const float scale = 1.0f / sqrtf((float)d);
    for (int key = warp; key < keys; key += 8) {
        const float* k = row_of<const float>(p.k, turn, group, key) + head * d;
        float sums[WIDE_QUERIES] = {};
        for (int c = lane; c < d; c += 32)
#pragma unroll
            for (int i = 0; i < WIDE_QUERIES; i++) sums[i] = fmaf(q[i * WIDE_HEAD + c], taken(k[c]), sums[i]);
#pragma unroll
        for (int i = 0; i < WIDE_QUERIES; i++) {
            const float sum = warp_sum(sums[i]);
            if (lane == 0) scores[i * WIDE_KEYS + key] = sum * scale;
        }
    }
    __syncthreads();
    if (warp < WIDE_QUERIES) {
        float* mine = scores + warp * WIDE_KEYS;
        float largest = minus_infinity(), sum = 0.0f;
        for (int key = lane; key < keys; key += 32) largest = fmaxf(largest, mine[key]);
#pragma unroll
        for (int i = 16; i > 0; i /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, i));
        for (int key = lane; key < keys; key += 32) sum += mine[key] = taken(expf(mine[key] - largest));
        sum = warp_sum(sum);
        if (lane == 0) inverse[warp] = 1.0f / sum;
    }
    __syncthreads();
    for (int c = thread; c < d; c += 256) {
        float sums[WIDE_QUERIES] = {};
        for (int key = 0; key < keys; key++) {
            const float v = taken(row_of<const float>(p.v, turn, group, key)[head * d + c]);
#pragma unroll
            for (int i = 0; i < WIDE_QUERIES; i++) sums[i] = fmaf(scores[i * WIDE_KEYS + key], v, sums[i]);
        }
#pragma unroll
        for (int i = 0; i < WIDE_QUERIES; i++)
            if (q0 + i < p.q.rows) row_of<float>(p.out, turn, group, q0 + i)[head * d + c] = sums[i] * inverse[i];
    }
}

#define ATTENTION_WIDE(name, ROUNDS)                                                                                   \
    KERNEL(name, 256, AttentionParams) {                                                                               \
        SHARED(float, q, WIDE_QUERIES * WIDE_HEAD);                                                                    \
        SHARED(float, scores, WIDE_QUERIES * WIDE_KEYS);                                                               \
        SHARED(float, inverse, WIDE_QUERIES);                                                                          \
        attend_wide<ROUNDS>(p, q, scores, inverse);                                                                    \
    }
ATTENTION_WIDE(attention_wide, false)
ATTENTION_WIDE(attention_wide_bf16, true)
