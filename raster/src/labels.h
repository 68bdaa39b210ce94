// What is compiled once per instruction set to ask masks of neighbouring frames about pixels.
#pragma once

#include <cstdint>

#include "motion4d_labels.h"

namespace m4d {

constexpr int64_t kLabelPiece = 4096;  // pixels in one piece of work

// Ranges of pixels are half open.
struct LabelKernels {
    void (*opinions)(const m4d_label_question &, int64_t begin, int64_t end);
    void (*seen)(const m4d_label_question &, uint8_t *, int64_t begin, int64_t end);
    void (*shares)(const m4d_label_said &, const m4d_label_shares &, int64_t begin, int64_t end);
    void (*judge)(const m4d_label_said &, const m4d_label_values &, const float *, const float *const *, int32_t unheard,
                  int32_t normalised, int64_t begin, int64_t end);
    void (*count)(const m4d_label_said &, const m4d_label_values &, double *const *);
};

const LabelKernels &label_kernels_baseline();
const LabelKernels &label_kernels_avx2();
const LabelKernels &label_kernels_avx512();

}  // namespace m4d
