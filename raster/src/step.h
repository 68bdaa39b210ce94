// What the stages of a gradient step hand to each other: plain arrays, as in frame.h.
#pragma once

#include <cstdint>

#include "motion4d_step.h"

namespace m4d {

constexpr int kWindow = 7;  // px, side of the windows of SSIM

// A base at the time that is posed and at the other one: x -> T (x, 1).
struct BasePose {
    double T[12], other[12];
    double q[4];  // unit, of the sign of the owner's first base
};

// Gradients by the same.
struct BaseGradient {
    double T[12], other[12], q[4];
};

// Sums over one row of pixels.
enum RowSums { kKnown, kDepthWeight, kL1, kSimilarity, kSemantic, kDepthError, kRowSums };

// What the losses are divided by.
struct Totals {
    double known, depth_weight;
};

// Everything that is compiled once per instruction set. Ranges are half open: of Gaussians, of moving Gaussians, of
// rows of pixels, of slots. `line` is 9 (W + 6) floats of one worker.
struct StepKernels {
    void (*pose_still)(const m4d_model &, const m4d_posed &, int64_t begin, int64_t end);
    void (*pose_moving)(const m4d_model &, const BasePose *, const m4d_posed &, int64_t begin, int64_t end);
    void (*back_still)(const m4d_model &, const m4d_posed &, const m4d_posed &given, const m4d_model_gradients &,
                       int64_t begin, int64_t end);
    void (*back_moving)(const m4d_model &, const BasePose *, const m4d_posed &, const m4d_posed &given,
                        const m4d_model_gradients &, BaseGradient *, int64_t begin, int64_t end);
    void (*gather)(const m4d_frame &, double (*sums)[kRowSums], int begin, int end);
    void (*similarity)(const m4d_frame &, double (*sums)[kRowSums], int begin, int end, float *line);
    void (*losses)(const m4d_frame &, const m4d_frame_gradients &, const Totals &, double (*sums)[kRowSums], int begin,
                   int end, float *line);
    void (*tracks)(const m4d_frame &, m4d_frame_gradients &);
    void (*adam)(const m4d_adam_state &, int64_t begin, int64_t end);
};

const StepKernels &step_kernels_baseline();
const StepKernels &step_kernels_avx2();
const StepKernels &step_kernels_avx512();

}  // namespace m4d
