// Arithmetic whose every operation is rounded once, as the host's: nothing is contracted.
#pragma once

#include "ptx_ops.cuh"

struct Exact {
    float x;
    DEVICE Exact(float x) : x(x) {}
    DEVICE Exact operator-() const { return -x; }
};
DEVICE Exact operator+(Exact a, Exact b) { return __fadd_rn(a.x, b.x); }
DEVICE Exact operator-(Exact a, Exact b) { return __fsub_rn(a.x, b.x); }
DEVICE Exact operator*(Exact a, Exact b) { return __fmul_rn(a.x, b.x); }
