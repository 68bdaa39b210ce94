// What is compiled once per instruction set to fit rigid bodies to flow.
#pragma once

#include <cstdint>
#include <vector>

#include "motion4d_image.h"

namespace m4d {

constexpr int kMostFrames = 32;
constexpr int kBodyLanes = 16;  // pixels handled together

// The pixels that could be followed, padded to whole lanes by some that weigh nothing. Frames are N values apart.
struct BodyPixels {
    int frames = 0;
    int64_t followed = 0, padded = 0;    // pixels; N
    std::vector<float> x, y;             // (N,) in units
    std::vector<float> u, v, base, share;  // (F, N) px; weight; of the mean misfit that a px is
};

struct BodyKernels {
    void (*fit)(const m4d_body_fit &, const BodyPixels &);
};

const BodyKernels &body_kernels_baseline();
const BodyKernels &body_kernels_avx2();
const BodyKernels &body_kernels_avx512();

}  // namespace m4d
