// Alignment of patches: checks what is asked for and shares it out.

#include "align.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <new>

#include "frame.h"
#include "parallel.h"

namespace m4d {
namespace {

constexpr int64_t kPoints = 64;  // in one piece of work

const AlignKernels &kernels() {
    switch (instruction_set()) {
#ifdef M4D_HAVE_AVX512
        case 2: return align_kernels_avx512();
#endif
#ifdef M4D_HAVE_AVX2
        case 1: return align_kernels_avx2();
#endif
        default: return align_kernels_baseline();
    }
}

bool sane(const m4d_picture *pictures, int32_t count, const m4d_alignments &points) {
    if (points.levels < 1 || points.levels > M4D_ALIGN_LEVELS) return false;
    for (int32_t i = 0; i < count; ++i)
        for (int level = 0; level < points.levels; ++level)
            if (pictures[i].width[level] < 2 || pictures[i].height[level] < 2) return false;
    for (int64_t n = 0; n < points.count; ++n)
        if (points.source[n] < 0 || points.source[n] >= count || points.target[n] < 0 || points.target[n] >= count)
            return false;
    return true;
}

constexpr int kTerms = 6, kFewestForPlane = 12, kFewestForCurve = 30;
constexpr double kPivot = 1e-6;  // least share of an entry that is left of it: less is no new information

// Solves A x = b in place, A symmetric, for its first `size` unknowns; false where they are not all known.
bool solve(double (&A)[kTerms][kTerms], double (&b)[kTerms], int size) {
    for (int k = 0; k < size; ++k) {
        const double before = A[k][k];
        double left = before;
        for (int j = 0; j < k; ++j) left -= A[k][j] * A[k][j];
        if (!(left > kPivot * before)) return false;
        A[k][k] = std::sqrt(left);
        for (int i = k + 1; i < size; ++i) {
            for (int j = 0; j < k; ++j) A[i][k] -= A[i][j] * A[k][j];
            A[i][k] /= A[k][k];
        }
        for (int j = 0; j < k; ++j) b[k] -= A[k][j] * b[j];
        b[k] /= A[k][k];
    }
    for (int k = size - 1; k >= 0; --k) {
        for (int i = k + 1; i < size; ++i) b[k] -= A[i][k] * b[i];
        b[k] /= A[k][k];
    }
    return true;
}

void fit_surface(const m4d_surfaces &s, int64_t n) {
    float *out = s.inverse_depth + kTerms * n;
    const int column = s.column[n], row = s.row[n];
    for (int i = 0; i < kTerms; ++i) out[i] = std::numeric_limits<float>::quiet_NaN();
    if (column < 0 || column >= s.width || row < 0 || row >= s.height) return;
    const int64_t middle = int64_t(row) * s.width + column;
    const double mean = s.depth_m[middle];
    if (!(mean > 0)) return;
    const int left = std::max(column - s.reach, 0), right = std::min(column + s.reach, s.width - 1);
    const int top = std::max(row - s.reach, 0), bottom = std::min(row + s.reach, s.height - 1);
    double A[kTerms][kTerms] = {}, b[kTerms] = {};
    int used = 0;
    for (int y = top; y <= bottom; ++y)
        for (int x = left; x <= right; ++x) {
            const int64_t at = int64_t(y) * s.width + x;
            const double depth = s.depth_m[at];
            if (s.labels[at] != s.labels[middle] || !(std::fabs(depth - mean) < s.tolerance * mean)) continue;
            const double dx = x - column, dy = y - row, term[kTerms] = {1, dx, dy, dx * dx, dx * dy, dy * dy};
            for (int i = 0; i < kTerms; ++i) {
                for (int j = 0; j <= i; ++j) A[i][j] += term[i] * term[j];
                b[i] += term[i] * (mean / depth);
            }
            ++used;
        }
    double value[kTerms] = {1, 0, 0, 0, 0, 0};
    for (const int size : {kTerms, 3}) {
        if (used < (size == 3 ? kFewestForPlane : kFewestForCurve)) continue;
        double left_side[kTerms][kTerms], right_side[kTerms];
        std::copy_n(&A[0][0], kTerms * kTerms, &left_side[0][0]), std::copy_n(b, kTerms, right_side);
        if (!solve(left_side, right_side, size)) continue;
        std::copy_n(right_side, size, value);
        break;
    }
    for (int i = 0; i < kTerms; ++i) out[i] = float(value[i] / mean);
}

}  // namespace
}  // namespace m4d

extern "C" void m4d_fit_surfaces(const m4d_surfaces *points) {
    for (int64_t n = 0; n < points->count; ++n) m4d::fit_surface(*points, n);
}

extern "C" int m4d_align(const m4d_picture *pictures, int32_t count, const m4d_alignments *points) {
    using namespace m4d;
    if (!sane(pictures, count, *points)) return 2;
    const AlignKernels &kernel = kernels();
    const int threads = points->threads > 0 ? points->threads : usable_cpus();
    try {
        parallel_for((points->count + kPoints - 1) / kPoints, threads, [&](int64_t piece, int) {
            const int64_t begin = piece * kPoints;
            kernel.align(pictures, *points, begin, begin + kPoints < points->count ? begin + kPoints : points->count);
        });
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}
