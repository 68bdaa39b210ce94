// The C interface to labels of neighbouring frames: shares pixels out to threads.

#include "labels.h"

#include <algorithm>
#include <cstdlib>

#include "frame.h"
#include "parallel.h"

namespace m4d {
namespace {

constexpr int64_t kPiece = 4096;  // pixels in one piece of work

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
    parallel_for((count + kPiece - 1) / kPiece, threads > 0 ? threads : usable_cpus(),
                 [&](int64_t piece, int) { job(piece * kPiece, std::min(count, (piece + 1) * kPiece)); });
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

void m4d_label_shares(const m4d_label_sums *sums) {
    const m4d::LabelKernels &kernel = m4d::kernels();
    m4d::in_pieces(sums->count, sums->threads, [&](int64_t begin, int64_t end) { kernel.shares(*sums, begin, end); });
}
}
