// Bundle adjustment of one body: residuals, their slopes and sums.

#include "motion4d_bundle.h"

#include <algorithm>
#include <cmath>

namespace {

constexpr int kFrame = M4D_PER_FRAME;
constexpr double kLeastDepth = 1e-3, kLeastInverse = 1e-6, kBehind = 100.0;

// One point in one frame: in standard deviations where it says `residual`; u, v, logarithm of depth.
struct Sight {
    double arm[3], camera[3], z, mended, residual[3];
    bool real[3];
};

Sight look(const m4d_body &b, int64_t n, int64_t t) {
    Sight s;
    const double *R = b.R + 9 * t, *T = b.T_cam_map + 16 * t, *x = b.xyz + 3 * n;
    double map[3];
    for (int r = 0; r < 3; ++r) {
        s.arm[r] = 0;
        for (int k = 0; k < 3; ++k) s.arm[r] += R[3 * r + k] * (x[k] - b.center[k]);
        map[r] = s.arm[r] + b.center[r] + b.t[3 * t + r];
    }
    for (int r = 0; r < 3; ++r) s.camera[r] = T[4 * r] * map[0] + T[4 * r + 1] * map[1] + T[4 * r + 2] * map[2] + T[4 * r + 3];
    s.z = std::max(s.camera[2], kLeastDepth);
    const int64_t at = n * b.frames + t;
    const double q = b.inverse_depth[at], scaled = std::exp(b.depth_scale[t]) * q + b.depth_offset[t];
    s.mended = scaled < kLeastInverse ? kLeastInverse : scaled;  // NaN stays
    s.residual[0] = (b.fx * s.camera[0] / s.z + b.cx - b.uv[2 * at]) / b.sigma[at];
    s.residual[1] = (b.fy * s.camera[1] / s.z + b.cy - b.uv[2 * at + 1]) / b.sigma[at];
    s.residual[2] = std::log(s.z * s.mended) / b.sigma_depth;
    for (int k = 0; k < 3; ++k) {
        s.real[k] = std::isfinite(s.residual[k]);
        if (!s.real[k]) s.residual[k] = 0;
    }
    return s;
}

// Slopes of the residuals by the map point (3, 3), the canonical point (3, 3) and the frame's unknowns (3, 8).
struct Slopes {
    double by_map[3][3], by_point[3][3], by_frame[3][kFrame];
};

Slopes slopes(const m4d_body &b, const Sight &s, int64_t n, int64_t t) {
    Slopes o = {};
    const int64_t at = n * b.frames + t;
    const double *R = b.R + 9 * t, *T = b.T_cam_map + 16 * t;
    const double sigma = std::isfinite(b.sigma[at]) ? b.sigma[at] : 1.0, z = s.z;
    const double by_camera[3][3] = {{b.fx / z / sigma, 0, -b.fx * s.camera[0] / (z * z) / sigma},
                                    {0, b.fy / z / sigma, -b.fy * s.camera[1] / (z * z) / sigma},
                                    {0, 0, 1.0 / z / b.sigma_depth}};
    for (int i = 0; i < 3; ++i) {
        for (int k = 0; k < 3; ++k)
            for (int r = 0; r < 3; ++r) o.by_map[i][k] += by_camera[i][r] * T[4 * r + k];
        for (int k = 0; k < 3; ++k)
            for (int r = 0; r < 3; ++r) o.by_point[i][k] += o.by_map[i][r] * R[3 * r + k];
        if (!b.free_poses) continue;
        const double *g = o.by_map[i], *a = s.arm;  // d(w x arm) . g = w . (arm x g)
        o.by_frame[i][0] = a[1] * g[2] - a[2] * g[1];
        o.by_frame[i][1] = a[2] * g[0] - a[0] * g[2];
        o.by_frame[i][2] = a[0] * g[1] - a[1] * g[0];
        for (int k = 0; k < 3; ++k) o.by_frame[i][3 + k] = g[k];
    }
    if (s.real[2]) {
        o.by_frame[2][6] = std::exp(b.depth_scale[t]) * b.inverse_depth[at] / s.mended / b.sigma_depth;
        if (b.free_offset) o.by_frame[2][7] = 1.0 / s.mended / b.sigma_depth;
    }
    return o;
}

void add(const m4d_body &b, const m4d_normal_equations &out, int64_t n, int64_t t) {
    const Sight s = look(b, n, t);
    const Slopes o = slopes(b, s, n, t);
    const double across = std::hypot(s.residual[0], s.residual[1]) / b.cauchy, along = s.residual[2] / b.cauchy;
    const double by_place = 1.0 / (1.0 + across * across), by_depth = 1.0 / (1.0 + along * along);
    const double weight[3] = {s.real[0] ? by_place : 0.0, s.real[1] ? by_place : 0.0, s.real[2] ? by_depth : 0.0};
    double *H = out.H_frames + t * kFrame * kFrame, *g = out.g_frames + t * kFrame;
    double *Hp = out.H_points + 9 * n, *gp = out.g_points + 3 * n, *W = out.W + (n * b.frames + t) * kFrame * 3;
    for (int i = 0; i < 3; ++i) {
        if (weight[i] == 0) continue;
        for (int j = 0; j < kFrame; ++j) {
            const double weighted = weight[i] * o.by_frame[i][j];
            for (int k = 0; k < kFrame; ++k) H[j * kFrame + k] += weighted * o.by_frame[i][k];
            for (int k = 0; k < 3; ++k) W[3 * j + k] += weighted * o.by_point[i][k];
            g[j] += weighted * s.residual[i];
        }
        for (int j = 0; j < 3; ++j) {
            const double weighted = weight[i] * o.by_point[i][j];
            for (int k = 0; k < 3; ++k) Hp[3 * j + k] += weighted * o.by_point[i][k];
            gp[j] += weighted * s.residual[i];
        }
    }
}

}  // namespace

extern "C" {

double m4d_body_cost(const m4d_body *body, int64_t *observations) {
    const double c2 = body->cauchy * body->cauchy;
    double cost = 0;
    *observations = 0;
    for (int64_t n = 0; n < body->points; ++n)
        for (int64_t t = 0; t < body->frames; ++t) {
            if (!body->visible[n * body->frames + t]) continue;
            const Sight s = look(*body, n, t);
            const double *r = s.residual;
            cost += c2 * (std::log1p((r[0] * r[0] + r[1] * r[1]) / c2) + std::log1p(r[2] * r[2] / c2));
            if (s.camera[2] < kLeastDepth) cost += kBehind;
            *observations += s.real[0];
        }
    return cost;
}

void m4d_body_linearise(const m4d_body *body, const m4d_normal_equations *out) {
    const int64_t N = body->points, T = body->frames;
    std::fill_n(out->H_frames, T * kFrame * kFrame, 0.0);
    std::fill_n(out->g_frames, T * kFrame, 0.0);
    std::fill_n(out->H_points, N * 9, 0.0);
    std::fill_n(out->g_points, N * 3, 0.0);
    std::fill_n(out->W, N * T * kFrame * 3, 0.0);
    for (int64_t n = 0; n < N; ++n)
        for (int64_t t = 0; t < T; ++t)
            if (body->visible[n * T + t]) add(*body, *out, n, t);
}
}
