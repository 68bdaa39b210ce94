// The C interface of a gradient step: what is shared out to threads, and in which order partial sums are added.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <system_error>
#include <vector>

#include "frame.h"
#include "parallel.h"
#include "rotations.h"
#include "step.h"

namespace m4d {
namespace {

constexpr int64_t kChunk = 512;  // Gaussians or slots handled together; fixed, so that sums do not depend on threads
constexpr int kBand = 8;         // rows of pixels handled together

const StepKernels &kernels() {
    switch (instruction_set()) {
#ifdef M4D_HAVE_AVX512
        case 2: return step_kernels_avx512();
#endif
#ifdef M4D_HAVE_AVX2
        case 1: return step_kernels_avx2();
#endif
        default: return step_kernels_baseline();
    }
}

int threads_of(int32_t wanted) { return wanted > 0 ? wanted : usable_cpus(); }

int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }

// Calls job(begin, end, piece, worker) for pieces of `size`.
template <class Job>
void in_pieces(int64_t count, int64_t size, int threads, const Job &job) {
    parallel_for(pieces(count, size), threads, [&](int64_t piece, int worker) {
        job(piece * size, std::min(count, (piece + 1) * size), piece, worker);
    });
}

double unit(const float *from, double to[4]) {
    double square = 0;
    for (int k = 0; k < 4; ++k) square += static_cast<double>(from[k]) * from[k];
    const double length = std::max(std::sqrt(square), 1e-12);
    for (int k = 0; k < 4; ++k) to[k] = from[k] / length;
    return length;
}

void transform(const double q[4], const float *center, const float *trans, double T[12]) {
    double R[3][3];
    rotation(q, R);
    for (int r = 0; r < 3; ++r) {
        T[4 * r + 3] = static_cast<double>(center[r]) + trans[r];
        for (int k = 0; k < 3; ++k) {
            T[4 * r + k] = R[r][k];
            T[4 * r + 3] -= R[r][k] * center[k];
        }
    }
}

double sign_of(const m4d_model &m, int base) {
    double own[4], first[4], along = 0;
    unit(m.base_quats + (static_cast<int64_t>(base) * m.times + m.column) * 4, own);
    unit(m.base_quats + (m.first[base] * m.times + m.column) * 4, first);
    for (int k = 0; k < 4; ++k) along += own[k] * first[k];
    return along >= 0 ? 1.0 : -1.0;
}

std::vector<BasePose> base_poses(const m4d_model &m) {
    std::vector<BasePose> poses(m.moving ? m.bases : 0);
    for (size_t b = 0; b < poses.size(); ++b) {
        const auto at = [&](int column, double T[12], double q[4]) {
            const int64_t slot = static_cast<int64_t>(b) * m.times + column;
            unit(m.base_quats + slot * 4, q);
            transform(q, m.centers + 3 * b, m.base_trans + slot * 3, T);
        };
        double unused[4];
        at(m.column, poses[b].T, poses[b].q);
        if (m.other >= 0) at(m.other, poses[b].other, unused);
        const double sign = sign_of(m, static_cast<int>(b));
        for (double &value : poses[b].q) value *= sign;
    }
    return poses;
}

// Adds the gradients by the pose of base `b` at `column`: `by_T` (12) by its matrix, `by_q` (4) by its unit quaternion.
void base_backward(const m4d_model &m, const m4d_model_gradients &wanted, int b, int column, const double by_T[12],
                   const double by_q[4]) {
    const int64_t slot = static_cast<int64_t>(b) * m.times + column;
    double q[4], G[3][3], dq[4], out[4];
    const double length = unit(m.base_quats + slot * 4, q);
    for (int r = 0; r < 3; ++r)
        for (int k = 0; k < 3; ++k) G[r][k] = by_T[4 * r + k] - by_T[4 * r + 3] * m.centers[3 * b + k];
    rotation_backward(q, G, dq);
    for (int k = 0; k < 4; ++k) dq[k] += by_q[k];
    normalise_backward(q, length, dq, out);
    if (wanted.base_quats)
        for (int k = 0; k < 4; ++k) wanted.base_quats[slot * 4 + k] += static_cast<float>(out[k]);
    if (wanted.base_trans)
        for (int r = 0; r < 3; ++r) wanted.base_trans[slot * 3 + r] += static_cast<float>(by_T[4 * r + 3]);
}

void add(BaseGradient &to, const BaseGradient &from) {
    for (int k = 0; k < 12; ++k) to.T[k] += from.T[k], to.other[k] += from.other[k];
    for (int k = 0; k < 4; ++k) to.q[k] += from.q[k];
}

void pose_backward(const m4d_model &m, const m4d_posed &posed, const m4d_posed &given,
                   const m4d_model_gradients &wanted) {
    const StepKernels &kernel = kernels();
    const int threads = threads_of(m.threads);
    in_pieces(m.count, kChunk, threads, [&](int64_t begin, int64_t end, int64_t, int) {
        kernel.back_still(m, posed, given, wanted, begin, end);
    });
    const int64_t slots = static_cast<int64_t>(m.bases) * m.times;
    if (wanted.base_quats) std::fill_n(wanted.base_quats, slots * 4, 0.0f);
    if (wanted.base_trans) std::fill_n(wanted.base_trans, slots * 3, 0.0f);
    if (!wanted.means || !m.moving) return;
    const std::vector<BasePose> poses = base_poses(m);
    std::vector<BaseGradient> partial(pieces(m.moving, kChunk) * m.bases, BaseGradient{});
    in_pieces(m.moving, kChunk, threads, [&](int64_t begin, int64_t end, int64_t piece, int) {
        kernel.back_moving(m, poses.data(), posed, given, wanted, partial.data() + piece * m.bases, begin, end);
    });
    if (!wanted.base_quats && !wanted.base_trans) return;
    const double nothing[4] = {};
    for (int b = 0; b < m.bases; ++b) {
        BaseGradient sum{};
        for (int64_t piece = 0; piece < pieces(m.moving, kChunk); ++piece) add(sum, partial[piece * m.bases + b]);
        const double sign = sign_of(m, b);
        for (double &value : sum.q) value *= sign;
        base_backward(m, wanted, b, m.column, sum.T, sum.q);
        if (m.other >= 0) base_backward(m, wanted, b, m.other, sum.other, nothing);
    }
}

using Rows = std::vector<std::array<double, kRowSums>>;

double total(const Rows &rows, int which) {
    double sum = 0;
    for (const auto &row : rows) sum += row[which];
    return sum;
}

void frame_losses(const m4d_frame &f, m4d_frame_gradients &out) {
    const StepKernels &kernel = kernels();
    const int threads = threads_of(f.threads);
    Rows rows(f.height, std::array<double, kRowSums>{});
    auto *sums = reinterpret_cast<double (*)[kRowSums]>(rows.data());
    const int64_t line = 9 * (static_cast<int64_t>(f.width) + 6);
    std::vector<float> lines(line * std::min<int64_t>(threads, pieces(f.height, kBand)));
    in_pieces(f.height, kBand, threads, [&](int64_t begin, int64_t end, int64_t, int) {
        kernel.gather(f, sums, static_cast<int>(begin), static_cast<int>(end));
    });
    if (f.appearance && f.window_mean)
        in_pieces(f.height - kWindow + 1, kBand, threads, [&](int64_t begin, int64_t end, int64_t, int worker) {
            kernel.similarity(f, sums, static_cast<int>(begin), static_cast<int>(end), lines.data() + worker * line);
        });
    const Totals totals{std::max(total(rows, kKnown), 1.0), std::max(total(rows, kDepthWeight), 1.0)};
    in_pieces(f.height, kBand, threads, [&](int64_t begin, int64_t end, int64_t, int worker) {
        kernel.losses(f, out, totals, sums, static_cast<int>(begin), static_cast<int>(end),
                      lines.data() + worker * line);
    });
    std::fill_n(out.losses, static_cast<int>(M4D_LOSSES), 0.0);
    const double windows = static_cast<double>(f.width - kWindow + 1) * (f.height - kWindow + 1) * 3;
    out.losses[M4D_L1] = total(rows, kL1) / (3.0 * f.width * f.height);
    out.losses[M4D_SSIM] = f.appearance && f.window_mean ? total(rows, kSimilarity) / windows : 0.0;
    out.losses[M4D_SEMANTIC] = total(rows, kSemantic) / totals.known;
    out.losses[M4D_DEPTH] = total(rows, kDepthError) / totals.depth_weight;
    if (f.points > 0) kernel.tracks(f, out);
}

bool finite(const float *values, int64_t count) {
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        __builtin_memcpy(&bits, values + i, 4);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

}  // namespace
}  // namespace m4d

extern "C" {

int m4d_pose(const m4d_model *model, const m4d_posed *posed) try {
    const m4d::StepKernels &kernel = m4d::kernels();
    const int threads = m4d::threads_of(model->threads);
    const std::vector<m4d::BasePose> poses = m4d::base_poses(*model);
    m4d::in_pieces(model->count, m4d::kChunk, threads, [&](int64_t begin, int64_t end, int64_t, int) {
        kernel.pose_still(*model, *posed, begin, end);
    });
    m4d::in_pieces(model->moving, m4d::kChunk, threads, [&](int64_t begin, int64_t end, int64_t, int) {
        kernel.pose_moving(*model, poses.data(), *posed, begin, end);
    });
    return 0;
} catch (const std::exception &) {
    return 1;
}

int m4d_pose_backward(const m4d_model *model, const m4d_posed *posed, const m4d_posed *gradients,
                      const m4d_model_gradients *wanted) try {
    m4d::pose_backward(*model, *posed, *gradients, *wanted);
    return 0;
} catch (const std::exception &) {
    return 1;
}

int m4d_frame_losses(const m4d_frame *frame, m4d_frame_gradients *gradients) try {
    m4d::frame_losses(*frame, *gradients);
    return 0;
} catch (const std::exception &) {
    return 1;
}

int m4d_adam(const m4d_adam_state *state, int32_t *bad) try {
    const m4d::StepKernels &kernel = m4d::kernels();
    *bad = !m4d::finite(state->gradient, state->slots * state->width);
    m4d::in_pieces(state->slots, 4 * m4d::kChunk, m4d::threads_of(state->threads),
                   [&](int64_t begin, int64_t end, int64_t, int) { kernel.adam(*state, begin, end); });
    return 0;
} catch (const std::exception &) {
    return 1;
}
}
