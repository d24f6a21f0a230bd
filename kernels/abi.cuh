// What kernels and the host agree on: the structs that a launch passes by value. The host mirrors them field by field.
//
// Ops run over an arena of 4-byte words. What changes from one turn of a segment to the next is where a view starts, by
// a fixed step; the turn lies in device memory, so that a captured graph can be replayed for every turn.
//
// No kernel writes memory that it also reads through another view, but for what its comment says. Sizes may be anything
// unless a comment says otherwise. Where bytes are wanted in aligned pieces a kernel looks at the addresses itself and
// falls back to single words.
#pragma once

// A strided matrix in the arena, as `View` of the plan: row i of group g starts at
// base + turn * step + g * group_stride + i * row_stride, all in words.
struct View {
    unsigned* base; // first word in turn 0
    int step;       // words a turn
    int groups;
    int rows; // of a group
    int cols; // words of a row
    int group_stride;
    int row_stride;
};
static_assert(sizeof(View) == 32, "the host mirrors this");

// A weight matrix in panels, as `Matrix` packs it: panel p holds outputs 16 p .. 16 p + 15, each of its lines one word of
// each output (two 16-bit numbers along K, or one f32). Starts on 16 bytes. `words` is the panel that holds output 0.
struct Packed {
    const unsigned* words;
    int rows;   // outputs
    int k;      // inputs
    int format;
    int skip;   // outputs of the first panel that are not this matrix's
};
static_assert(sizeof(Packed) == 24, "the host mirrors this");

// Of weights, and with it what is multiplied: f32 by f32; bf16 widened to f32 by f32; bf16 by bf16; f16 by f16.
enum Format { F32 = 0, WIDE = 1, BF16 = 2, F16 = 3 };

// How numbers lie in a row: as f32, or as words of two bf16, the first in the lower half, an odd row's last word filled
// up with a zero.
enum Form { NUMBERS = 0, PAIRS = 1 };

enum Activation { IDENTITY = 0, SILU = 1, GELU = 2 };

// What follows a product: out = (out if add) + gate * activation(sum + bias).
struct Epilogue {
    const float* bias; // [N], or null
    View gate;         // [M, N]; base null: none
    int activation;
    int add;
    int form; // of out; only numbers are added to. Pairs want an even `Packed::skip`.
    int unused;
};
static_assert(sizeof(Epilogue) == 56, "the host mirrors this");

struct LinearParams {
    const int* turn;
    View x; // [M, K]
    View out;
    Packed w;
    Epilogue epilogue;
    float* partial;    // where splits > 1: so many floats a tile of the grid as the kernel's comment says, times splits,
    unsigned* tickets; // and a zero a tile, which is zero again afterwards
    int form;          // of x
    int splits;        // runs of K that are summed apart
};
static_assert(sizeof(LinearParams) == 176, "the host mirrors this");

struct AttentionParams {
    const int* turn;
    View q;   // [G, N, H d]
    View k;   // [G, L, H d]
    View v;   // [G, L, H d]
    View out; // [G, N, H d]
    int heads;
    int head_size;  // at most 128
    int keys_first; // rows of k and v that count in turn 0, at least 1
    int keys_step;  // more each turn
    int form;       // of q, k and v
    int out_form;
};
static_assert(sizeof(AttentionParams) == 160, "the host mirrors this");

struct LayerNormParams {
    const int* turn;
    View x;              // [M, D]
    View out;            // [M, D]
    const float* weight; // [D], or null
    const float* bias;   // [D], or null
    View shift;          // [M, D]; base null: none
    View scale;          // [M, D], where there is a shift
    int form;            // of out
    int unused;
};
static_assert(sizeof(LayerNormParams) == 160, "the host mirrors this");

struct HeadNormParams {
    const int* turn;
    View x;              // [M, H d]
    View out;            // [M, H d]
    const float* weight; // [d]; null: a plain copy, a head whatever part of the row
    const float* bias;   // [d]
    int head_size;
    int unused;
};
static_assert(sizeof(HeadNormParams) == 96, "the host mirrors this");

struct NormLinearParams {
    LinearParams linear; // of the norm of its x
    const float* weight; // [K], or null
    const float* bias;   // [K]
    View shift;          // [M, K]; base null: none
    View scale;          // [M, K]
};
static_assert(sizeof(NormLinearParams) == 256, "the host mirrors this");

enum { MOST_HEAD_NORMS = 3 };

struct HeadNormsParams {
    HeadNormParams each[MOST_HEAD_NORMS];
};
static_assert(sizeof(HeadNormsParams) == 288, "the host mirrors this");

enum SourceKind { ROWS = 0, TABLE_RANGE = 1, TABLE_TURN = 2, TABLE_GROUP = 3, TABLE_FROM = 4, GATHER = 5, MIX = 6 };
enum TableType { TABLE_F32 = 0, TABLE_F16 = 1, TABLE_BF16 = 2 };

// One term of sum_rows. Row r of group g is, by kind: that row of `rows`; of the table row first + r; first + turn *
// step; first + g; ids[g][r] + first; row ids[g][r] of group g of `rows`; or of the table the sum of rows ids[g][r][j], each times
// rows[g][r][j].
struct Source {
    View rows;
    View ids; // [G, N, 1] of i32; of a mix [G, N, J], as `rows`
    const void* table;
    int kind;
    int table_type;
    int first;
    int step;
};
static_assert(sizeof(Source) == 88, "the host mirrors this");

enum { MOST_SOURCES = 8 };

struct SumRowsParams {
    const int* turn;
    View out; // [G, N, D]
    int count;
    int activation;
    Source sources[MOST_SOURCES];
};
static_assert(sizeof(SumRowsParams) == 48 + 8 * 88, "the host mirrors this");

struct NoiseParams {
    const int* turn;
    View seeds;  // [B, 1, 2] of i32: low and high word
    View places; // [B, N, 1] of i32
    View out;    // [T B, N, C]
    int stream;
    int first_step;
};
static_assert(sizeof(NoiseParams) == 112, "the host mirrors this");

struct TokenDrawParams {
    const int* turn;
    View logits;        // [G, B, K]
    View scale;         // [1, 1]
    View uniforms;      // [B, 1], in [0, 1), or 2 + k where the code is k
    View out;           // [B, G] of i32
    double temperature;
};
static_assert(sizeof(TokenDrawParams) == 144, "the host mirrors this");

struct DiffusionStepParams {
    const int* turn;
    View eps;     // [N, 2 C], or with guidance [2 N, 2 C]
    View factors; // [1, 7]
    View noise;   // [N, C]
    View x;       // [N, C], in place
    float guidance;
    float temperature;
    float clip;
    int guided;
    int clipped;
    int unused;
};
static_assert(sizeof(DiffusionStepParams) == 160, "the host mirrors this");

struct GroupStatsParams {
    const int* turn;
    View x;   // [B, P, C]
    View out; // [B, blocks, 2 C]: any number of blocks up to P
};
static_assert(sizeof(GroupStatsParams) == 72, "the host mirrors this");

struct GroupFactorsParams {
    const int* turn;
    View stats; // [B, blocks, 2 C]
    View out;   // [B, 2 C]
    const float* weight; // [C]
    const float* bias;   // [C]
    int pixels;
    int unused;
};
static_assert(sizeof(GroupFactorsParams) == 96, "the host mirrors this");

struct GroupNormParams {
    const int* turn;
    View x;       // [B, P, C]
    View factors; // [B, 2 C]
    View out;     // [B, P, C]
    int activation;
    int form; // of out
};
static_assert(sizeof(GroupNormParams) == 112, "the host mirrors this");

struct ConvParams {
    const int* turn;
    View x;       // [B, H W, Cin]
    View factors; // [B, 2 Cin]: scales, then shifts, done to x first; base null: none
    View out;     // [B, Ho Wo, Cout]
    Packed w;     // [Cout, k k Cin]
    Epilogue epilogue;
    float* partial; // as in LinearParams
    unsigned* tickets;
    int activation; // after the factors
    int form;       // of x: pairs want an even Cin and no factors
    int cin;
    int width; // W
    int kernel;
    int stride;
    int padding;  // above and left
    int upsample; // 1: each pixel of x is read as 2 x 2
    int out_width;
    int splits; // as in LinearParams
};
static_assert(sizeof(ConvParams) == 240, "the host mirrors this");

struct AffineParams {
    const int* turn;
    View x;             // [M, C]
    View out;           // [M, C]
    const float* scale; // [C], or null
    const float* shift; // [C], where there is a scale
    float low;
    float high;
    int bounded;
    int unused;
};
static_assert(sizeof(AffineParams) == 104, "the host mirrors this");

struct AvgPoolParams {
    const int* turn;
    View x;   // [B, 2h 2w, C]
    View out; // [B, h w, C]
    int out_width;
    int unused;
};
static_assert(sizeof(AvgPoolParams) == 80, "the host mirrors this");

struct NearestCodeParams {
    const int* turn;
    View x;                // [M, C]
    View out;              // [M, 1] of i32
    const float* codebook; // [codes, C]
    int codes;
    int unused;
};
static_assert(sizeof(NearestCodeParams) == 88, "the host mirrors this");

struct Rgb8Params {
    const int* turn;
    View x; // [B, P, 3], nominally from low to high
    View out; // [B, P 3 / 4 words]: bytes, P 3 of them a row, the last word filled up with zeros
    float low;
    float high;
};
static_assert(sizeof(Rgb8Params) == 80, "the host mirrors this");

struct AdvanceParams {
    int* turn; // one more after each launch
    int turns; // and 0 again after this many
    int unused;
};
static_assert(sizeof(AdvanceParams) == 16, "the host mirrors this");

struct PeakParams {
    const unsigned* from;
    unsigned* to;
    long long words;
    int turns;
    int unused;
};
static_assert(sizeof(PeakParams) == 32, "the host mirrors this");
