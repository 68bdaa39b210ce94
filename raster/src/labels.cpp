// The C interface to labels of neighbouring frames: shares pixels out to threads.

#include "labels.h"

#include <algorithm>
#include <cstdlib>

#include "frame.h"
#include "parallel.h"

namespace m4d {
namespace {

const LabelKernels &kernels() {
    switch (instruction_set()) {
#ifdef M4D_HAVE_AVX512
        case 2: return label_kernels_avx512();
#endif
#ifdef M4D_HAVE_AVX2
        case 1: return label_kernels_avx2();
#endif
        default: return label_kernels_baseline();
    }
}

template <class Job>
void in_pieces(int64_t count, int32_t threads, const Job &job) {
    parallel_for((count + kLabelPiece - 1) / kLabelPiece, threads > 0 ? threads : usable_cpus(),
                 [&](int64_t piece, int) { job(piece * kLabelPiece, std::min(count, (piece + 1) * kLabelPiece)); });
}

}  // namespace
}  // namespace m4d

extern "C" {

void m4d_label_opinions(const m4d_label_question *question) {
    const m4d::LabelKernels &kernel = m4d::kernels();
    m4d::in_pieces(question->count, question->threads,
                   [&](int64_t begin, int64_t end) { kernel.opinions(*question, begin, end); });
}

void m4d_label_seen(const m4d_label_question *question, uint8_t *seen) {
    const m4d::LabelKernels &kernel = m4d::kernels();
    m4d::in_pieces(question->count, question->threads,
                   [&](int64_t begin, int64_t end) { kernel.seen(*question, seen, begin, end); });
}

void m4d_label_share(const m4d_label_said *said, const m4d_label_shares *shares) {
    const m4d::LabelKernels &kernel = m4d::kernels();
    m4d::in_pieces(said->count, said->threads,
                   [&](int64_t begin, int64_t end) { kernel.shares(*said, *shares, begin, end); });
}

void m4d_label_judge(const m4d_label_said *said, const m4d_label_values *labels, const float *worth,
                     const float *const *likelihood, int32_t unheard, int32_t normalised) {
    const m4d::LabelKernels &kernel = m4d::kernels();
    m4d::in_pieces(said->count, said->threads, [&](int64_t begin, int64_t end) {
        kernel.judge(*said, *labels, worth, likelihood, unheard, normalised, begin, end);
    });
}

void m4d_label_count(const m4d_label_said *said, const m4d_label_values *labels, double *const *counts) {
    m4d::kernels().count(*said, *labels, counts);
}
}
