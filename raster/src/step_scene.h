// The scene's parameters to posed Gaussians, the way back for gradients, and Adam. Internal linkage and builtins only:
// compiled once per instruction set (see step_kernels.cpp).
#pragma once

#include "math.h"
#include "step.h"

namespace {

using namespace m4d;

inline int64_t feature_width(const m4d_model &m) { return m.appearance ? 4 + m.channels + (m.other >= 0 ? 3 : 0) : m.channels; }

inline void softmax(const float *logits, int count, float *out) {
    float most = logits[0], sum = 0;
    for (int c = 1; c < count; ++c) most = logits[c] > most ? logits[c] : most;
    for (int c = 0; c < count; ++c) out[c] = exponential(logits[c] - most), sum += out[c];
    for (int c = 0; c < count; ++c) out[c] /= sum;
}

void pose_still(const m4d_model &m, const m4d_posed &p, int64_t begin, int64_t end) {
    const int64_t width = feature_width(m);
    __builtin_memcpy(p.means + 3 * begin, m.means + 3 * begin, sizeof(float) * 3 * (end - begin));
    __builtin_memcpy(p.quats + 4 * begin, m.quats + 4 * begin, sizeof(float) * 4 * (end - begin));
    for (int64_t i = 3 * begin; i < 3 * end; ++i) p.scales[i] = exponential(m.log_scales[i]);
    for (int64_t i = begin; i < end; ++i) p.opacities[i] = logistic(m.opacity_logits[i]);
    for (int64_t i = begin; i < end; ++i) {
        float *feature = p.features + i * width;
        if (m.appearance) {
            for (int k = 0; k < 3; ++k) *feature++ = m.colors[3 * i + k];
            feature[m.channels] = logistic(m.confidence_logits[i]);
            for (int k = 0; k < 3 && m.other >= 0; ++k) feature[m.channels + 1 + k] = m.means[3 * i + k];
        }
        softmax(m.semantics + i * m.channels, m.channels, feature);
    }
}

// Shares (B) of the bases in moving Gaussian number `k`.
inline void shares(const m4d_model &m, int64_t k, float *out) {
    const float *logits = m.motion_logits + m.rows[k] * m.bases;
    const uint8_t *forbidden = m.forbidden + k * m.bases;
    float most = -3.4e38f, sum = 0;
    for (int b = 0; b < m.bases; ++b)
        if (!forbidden[b] && logits[b] > most) most = logits[b];
    for (int b = 0; b < m.bases; ++b) {
        out[b] = forbidden[b] ? 0.0f : exponential(logits[b] - most);
        sum += out[b];
    }
    for (int b = 0; b < m.bases; ++b) out[b] /= sum;
}

// T (12) and q (4): what carries a Gaussian; `other` is left alone where it is not wanted.
struct Carried {
    double T[12] = {}, other[12] = {}, q[4] = {};
};

inline Carried carried(const m4d_model &m, const BasePose *poses, const float *weights) {
    Carried c;
    for (int b = 0; b < m.bases; ++b) {
        const double w = weights[b];
        if (w == 0) continue;
        for (int k = 0; k < 12; ++k) c.T[k] += w * poses[b].T[k];
        for (int k = 0; k < 4; ++k) c.q[k] += w * poses[b].q[k];
        for (int k = 0; k < 12 && m.other >= 0; ++k) c.other[k] += w * poses[b].other[k];
    }
    return c;
}

inline void apply(const double T[12], const float *x, float *out) {
    for (int r = 0; r < 3; ++r)
        out[r] = static_cast<float>(T[4 * r] * x[0] + T[4 * r + 1] * x[1] + T[4 * r + 2] * x[2] + T[4 * r + 3]);
}

template <class A, class B, class C>
inline void multiply(const A *a, const B *b, C *out) {  // Hamilton product
    const double w = a[0], x = a[1], y = a[2], z = a[3];
    const double v0 = w * b[0] - x * b[1] - y * b[2] - z * b[3], v1 = w * b[1] + x * b[0] + y * b[3] - z * b[2];
    const double v2 = w * b[2] - x * b[3] + y * b[0] + z * b[1], v3 = w * b[3] + x * b[2] - y * b[1] + z * b[0];
    out[0] = static_cast<C>(v0), out[1] = static_cast<C>(v1), out[2] = static_cast<C>(v2), out[3] = static_cast<C>(v3);
}

void pose_moving(const m4d_model &m, const BasePose *poses, const m4d_posed &p, int64_t begin, int64_t end) {
    const int64_t width = feature_width(m);
    for (int64_t k = begin; k < end; ++k) {
        const int64_t i = m.rows[k];
        float *weights = p.weights + k * m.bases;
        shares(m, k, weights);
        const Carried c = carried(m, poses, weights);
        apply(c.T, m.means + 3 * i, p.means + 3 * i);
        multiply(c.q, m.quats + 4 * i, p.quats + 4 * i);
        if (m.appearance && m.other >= 0) apply(c.other, m.means + 3 * i, p.features + i * width + 4 + m.channels);
    }
}

inline void softmax_backward(const float *value, const float *given, int count, float *out) {
    float along = 0;
    for (int c = 0; c < count; ++c) along += value[c] * given[c];
    for (int c = 0; c < count; ++c) out[c] = value[c] * (given[c] - along);
}

// (log-scale - mean)^2 summed over the axes and averaged over the Gaussians, halved: a variance each.
inline void spread_backward(const m4d_model &m, double weight, const m4d_model_gradients &w, int64_t begin, int64_t end) {
    const float factor = static_cast<float>(weight / static_cast<double>(m.count));
    for (int64_t i = begin; i < end; ++i) {
        const float *s = m.log_scales + 3 * i;
        const float mean = (s[0] + s[1] + s[2]) / 3.0f;
        for (int k = 0; k < 3; ++k) w.log_scales[3 * i + k] += factor * (s[k] - mean);
    }
}

void back_still(const m4d_model &m, const m4d_posed &p, const m4d_posed &g, const m4d_model_gradients &w, int64_t begin,
                int64_t end) {
    const int64_t width = feature_width(m), labels = m.appearance ? 3 : 0;
    if (w.means)
        for (int64_t i = begin; i < end; ++i)
            for (int k = 0; k < 3; ++k)
                w.means[3 * i + k] =
                    g.means[3 * i + k] + (m.other >= 0 ? g.features[i * width + 4 + m.channels + k] : 0.0f);
    if (w.quats) __builtin_memcpy(w.quats + 4 * begin, g.quats + 4 * begin, sizeof(float) * 4 * (end - begin));
    if (w.log_scales) {
        for (int64_t i = 3 * begin; i < 3 * end; ++i) w.log_scales[i] = g.scales[i] * p.scales[i];
        if (w.scale_spread != 0) spread_backward(m, w.scale_spread, w, begin, end);
    }
    if (w.opacity_logits)
        for (int64_t i = begin; i < end; ++i)
            w.opacity_logits[i] = g.opacities[i] * p.opacities[i] * (1.0f - p.opacities[i]);
    if (w.colors)
        for (int64_t i = begin; i < end; ++i)
            for (int k = 0; k < 3; ++k) w.colors[3 * i + k] = g.features[i * width + k];
    if (w.semantics)
        for (int64_t i = begin; i < end; ++i)
            softmax_backward(p.features + i * width + labels, g.features + i * width + labels, m.channels,
                             w.semantics + i * m.channels);
    if (w.confidence_logits)
        for (int64_t i = begin; i < end; ++i) {
            const float value = p.features[i * width + 3 + m.channels];
            w.confidence_logits[i] = g.features[i * width + 3 + m.channels] * value * (1.0f - value);
        }
    if (w.motion_logits)
        __builtin_memset(w.motion_logits + begin * m.bases, 0, sizeof(float) * m.bases * (end - begin));
}

inline double image_of(const double T[12], const float *x, const float *by) {
    double sum = 0;
    for (int r = 0; r < 3; ++r)
        sum += by[r] * (T[4 * r] * x[0] + T[4 * r + 1] * x[1] + T[4 * r + 2] * x[2] + T[4 * r + 3]);
    return sum;
}

inline void add_outer(double scale, const float *by, const float *x, double T[12]) {
    for (int r = 0; r < 3; ++r) {
        for (int k = 0; k < 3; ++k) T[4 * r + k] += scale * by[r] * x[k];
        T[4 * r + 3] += scale * by[r];
    }
}

// Adds to `sums` (B); means, quaternions and motion logits of the moving Gaussians are written.
void back_moving(const m4d_model &m, const BasePose *poses, const m4d_posed &p, const m4d_posed &g,
                 const m4d_model_gradients &w, BaseGradient *sums, int64_t begin, int64_t end) {
    const int64_t width = feature_width(m);
    const bool bases = w.base_quats || w.base_trans;
    const float nothing[3] = {};
    for (int64_t k = begin; k < end; ++k) {
        const int64_t i = m.rows[k];
        const float *weights = p.weights + k * m.bases, *x = m.means + 3 * i, *by = g.means + 3 * i;
        const float *later = m.other >= 0 ? g.features + i * width + 4 + m.channels : nothing;
        const Carried c = carried(m, poses, weights);
        for (int j = 0; j < 3; ++j) {
            double sum = 0;
            for (int r = 0; r < 3; ++r) sum += c.T[4 * r + j] * by[r] + c.other[4 * r + j] * later[r];
            w.means[3 * i + j] = static_cast<float>(sum);
        }
        // <a b, g> has the gradients g b* and a* g.
        const float *q = m.quats + 4 * i, *by_q = g.quats + 4 * i;
        const double back[4] = {q[0], -q[1], -q[2], -q[3]}, carried_back[4] = {c.q[0], -c.q[1], -c.q[2], -c.q[3]};
        double by_turn[4];
        multiply(by_q, back, by_turn);
        if (w.quats) multiply(carried_back, by_q, w.quats + 4 * i);
        double along = 0;
        for (int b = 0; b < m.bases; ++b) {
            if (weights[b] == 0) continue;
            if (bases) add_outer(weights[b], by, x, sums[b].T);
            if (bases && m.other >= 0) add_outer(weights[b], later, x, sums[b].other);
            double by_weight = image_of(poses[b].T, x, by) + (m.other >= 0 ? image_of(poses[b].other, x, later) : 0.0);
            for (int j = 0; j < 4; ++j) {
                sums[b].q[j] += weights[b] * by_turn[j];
                by_weight += by_turn[j] * poses[b].q[j];
            }
            const float rounded = static_cast<float>(by_weight);  // both times: with one base their difference is 0
            along += weights[b] * rounded;
            if (w.motion_logits) w.motion_logits[i * m.bases + b] = rounded;
        }
        for (int b = 0; w.motion_logits && b < m.bases; ++b)
            if (weights[b] != 0) {
                float &value = w.motion_logits[i * m.bases + b];
                value = static_cast<float>(weights[b] * (value - along));
            }
    }
}

// `count` values that lie one behind the other, each with its shares of the newest gradient.
inline void adam_values(const m4d_adam_state &s, int64_t begin, int64_t count, const float *__restrict first,
                        const float *__restrict second) {
    const float *__restrict gradient = s.gradient + begin;
    float *__restrict mean = s.mean + begin, *__restrict square = s.square + begin, *__restrict value = s.value + begin;
    const float rate = static_cast<float>(s.rate), least = static_cast<float>(s.epsilon * s.epsilon);
    for (int64_t j = 0; j < count; ++j) {
        const float g = (as_bits(gradient[j]) & 0x7f800000) == 0x7f800000 ? 0.0f : gradient[j];
        const float m = mean[j] + first[j] * (g - mean[j]), v = square[j] + second[j] * (g * g - square[j]);
        mean[j] = m;
        square[j] = v;
        value[j] -= rate * m / __builtin_sqrtf(v + least);
    }
}

void adam(const m4d_adam_state &s, int64_t begin, int64_t end) {
    constexpr int64_t kBlock = 512;
    float first[kBlock], second[kBlock];
    const int64_t columns = s.width < kBlock ? s.width : kBlock, size = kBlock / columns;  // slots at a time
    for (int64_t slot = begin; slot < end; slot += size) {
        const int64_t stop = slot + size < end ? slot + size : end;
        for (int64_t i = slot; i < stop; ++i) {
            const float step = s.steps[i] += 1.0f;
            const int64_t k = step < static_cast<float>(s.shares) ? static_cast<int64_t>(step) : s.shares - 1;
            for (int64_t j = 0; j < columns; ++j) {
                first[(i - slot) * columns + j] = s.first_share[k];
                second[(i - slot) * columns + j] = s.second_share[k];
            }
        }
        const int64_t total = (stop - slot) * s.width;  // at most a block, or one wide slot
        for (int64_t done = 0; done < total; done += kBlock)
            adam_values(s, slot * s.width + done, total - done < kBlock ? total - done : kBlock, first, second);
    }
}

}  // namespace
