// TokenDraw, twin of src/ops/token_draw.rs: guidance, temperature, softmax, inverse cumulative distribution. Guided logits
// are the CPU's to the bit, exponentials and sums f64. Sums are made in another order: where the uniform lies within some
// 1e-14 of a cumulative probability that is not exact, the code may be the neighbour's.
//
//   token_draw  grid (B)

#include "exact.cuh"
#include "common.cuh"

const int DRAW_WARPS = 16;

struct Guided {
    const float* given;
    const float* null; // or null
    float scale;

    DEVICE float operator()(int k) const {
        if (!null) return given[k];
        const Exact none = null[k];
        return (none + (Exact(given[k]) - none) * scale).x;
    }
};

// The sum of a warp's numbers up to and with this lane's.
DEVICE double scanned(double x) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 1; i < 32; i *= 2) {
        const double before = __shfl_up_sync(0xffffffffu, x, i);
        if (lane >= i) x += before;
    }
    return x;
}

DEVICE double last_of(double x) { return __shfl_sync(0xffffffffu, x, 31); }

// Every warp has a run of codes, a lane every 32nd of them.
KERNEL(token_draw, DRAW_WARPS * 32, TokenDrawParams) {
    SHARED(float, tops, DRAW_WARPS);
    SHARED(double, sums, DRAW_WARPS);
    const int turn = turn_now(p.turn), image = blockIdx.x, codes = p.logits.cols;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, run = pieces(pieces(codes, DRAW_WARPS), 32) * 32;
    const int from = smaller(warp * run, codes), end = smaller(from + run, codes);
    const bool guided = p.logits.groups == 2;
    const Guided logit{
        row_of<const float>(p.logits, turn, 0, image), guided ? row_of<const float>(p.logits, turn, 1, image) : nullptr,
        *row_of<const float>(p.scale, turn, 0)
    };

    // What is not a number is no maximum; if nothing is one, the first code is drawn.
    float top = -infinity();
    for (int k = from + lane; k < end; k += 32) top = fmaxf(top, logit(k));
    for (int i = 16; i > 0; i /= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, i));
    if (lane == 0) tops[warp] = top;
    __syncthreads();
    for (int i = 0; i < DRAW_WARPS; i++) top = fmaxf(top, tops[i]);
    auto weight = [&](int k) { return k < end ? exp(((double)logit(k) - top) / p.temperature) : 0.0; };

    // The sum of 32 codes is made as below, where the code is looked for.
    double sum = 0.0;
    for (int k = from; k < end; k += 32) sum += last_of(scanned(weight(k + lane)));
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    double all = 0.0;
    for (int i = 0; i < DRAW_WARPS; i++) all += sums[i];
    const double aim = *row_of<const float>(p.uniforms, turn, image) * all;

    // The run in which the sum passes the aim. NaN passes it at once.
    int found = 0;
    double before = 0.0;
    for (; found + 1 < DRAW_WARPS && before + sums[found] <= aim; found++) before += sums[found];
    if (warp != found) return;
    int code = end;
    for (int k = from; k < end; k += 32) {
        const double sum = before + scanned(weight(k + lane));
        const unsigned passed = __ballot_sync(0xffffffffu, !(sum <= aim));
        if (passed) {
            code = k + __ffs(passed) - 1;
            break;
        }
        before = last_of(sum);
    }
    // Not drawn, but given.
    const float uniform = *row_of<const float>(p.uniforms, turn, image);
    if (uniform >= 2.0f) code = (int)uniform - 2;
    code = smaller(code, codes - 1);
    int* out = row_of<int>(p.out, turn, image);
    for (int i = lane; i < p.out.cols; i += 32) out[i] = code;
}
