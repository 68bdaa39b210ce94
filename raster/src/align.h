// What is compiled once per instruction set to align patches.
#pragma once

#include <cstdint>

#include "motion4d_align.h"

namespace m4d {

struct AlignKernels {
    void (*align)(const m4d_picture *, const m4d_alignments &, int64_t begin, int64_t end);
};

const AlignKernels &align_kernels_baseline();
const AlignKernels &align_kernels_avx2();
const AlignKernels &align_kernels_avx512();

}  // namespace m4d
