// From Gaussians in the map to splats in the image, and the way back for gradients. In double: it costs little and
// keeps gradients clean. Internal linkage and builtins only: compiled once per instruction set (see blend.cpp).
#pragma once

#include "frame.h"
#include "rotations.h"

namespace {

using namespace m4d;

constexpr double kLog2e = 1.4426950408889634;
constexpr double kLog2Of255 = 7.994353436858858;

inline double minimum(double a, double b) { return a < b ? a : b; }
inline double maximum(double a, double b) { return a > b ? a : b; }

// A Gaussian on its way through the camera.
struct Projection {
    double camera[3];       // m
    double q[4], q_length;  // unit quaternion and the length it had
    double R[3][3];         // Gaussian to map
    double U[3][3];         // Gaussian to camera
    double u[2];            // x/z and y/z, limited to a little beyond the image
    bool limited[2];
    double P[2][3];         // px: image of the Gaussian's three axes; covariance = P P^T + dilation
    double a, b, c;         // px^-2: inverse covariance [a b; b c]
    double var_x, var_y, cov_xy, det;
};

// The perspective's slope explodes far outside the image, so x/z is limited there, as in gsplat: 0.3 half widths
// beyond the border. Borders are pixel edges, half a pixel from the outermost centres.
double limit(double slope, double focal, double centre, int size, bool &limited) {
    const double margin = 0.3 * 0.5 * size / focal;
    const double high = (size - centre - 0.5) / focal + margin, low = -((centre + 0.5) / focal + margin);
    limited = slope > high || slope < low;
    return minimum(maximum(slope, low), high);
}

bool look(const m4d_scene &scene, int64_t index, Projection &p) {
    const float *mean = scene.means + 3 * index, *quat = scene.quats + 4 * index, *scale = scene.scales + 3 * index;
    const double *T = scene.T_cam_map;
    for (int r = 0; r < 3; ++r)
        p.camera[r] = T[4 * r] * mean[0] + T[4 * r + 1] * mean[1] + T[4 * r + 2] * mean[2] + T[4 * r + 3];
    const double z = p.camera[2];
    if (!(z > scene.near_plane) || !__builtin_isfinite(p.camera[0] + p.camera[1] + z)) return false;

    double square = 0;
    for (int k = 0; k < 4; ++k) square += static_cast<double>(quat[k]) * quat[k];
    if (!(square > 1e-24) || !__builtin_isfinite(square)) return false;
    if (!(scale[0] >= 0 && scale[1] >= 0 && scale[2] >= 0)) return false;
    p.q_length = __builtin_sqrt(square);
    for (int k = 0; k < 4; ++k) p.q[k] = quat[k] / p.q_length;
    rotation(p.q, p.R);
    for (int r = 0; r < 3; ++r)
        for (int k = 0; k < 3; ++k)
            p.U[r][k] = T[4 * r] * p.R[0][k] + T[4 * r + 1] * p.R[1][k] + T[4 * r + 2] * p.R[2][k];

    p.u[0] = limit(p.camera[0] / z, scene.fx, scene.cx, scene.width, p.limited[0]);
    p.u[1] = limit(p.camera[1] / z, scene.fy, scene.cy, scene.height, p.limited[1]);
    for (int k = 0; k < 3; ++k) {
        p.P[0][k] = scene.fx / z * (p.U[0][k] - p.u[0] * p.U[2][k]) * scale[k];
        p.P[1][k] = scene.fy / z * (p.U[1][k] - p.u[1] * p.U[2][k]) * scale[k];
    }
    const double *x = p.P[0], *y = p.P[1];
    const double xx = x[0] * x[0] + x[1] * x[1] + x[2] * x[2], yy = y[0] * y[0] + y[1] * y[1] + y[2] * y[2];
    const double n0 = x[1] * y[2] - x[2] * y[1], n1 = x[2] * y[0] - x[0] * y[2], n2 = x[0] * y[1] - x[1] * y[0];
    p.cov_xy = x[0] * y[0] + x[1] * y[1] + x[2] * y[2];
    p.var_x = xx + kDilation;
    p.var_y = yy + kDilation;
    // |x cross y|^2 instead of xx yy - xy^2 (Lagrange): long thin splats keep a positive determinant.
    p.det = n0 * n0 + n1 * n1 + n2 * n2 + kDilation * (xx + yy) + kDilation * kDilation;
    p.a = p.var_y / p.det;
    p.b = -p.cov_xy / p.det;
    p.c = p.var_x / p.det;
    return __builtin_isfinite(p.det) && p.a > 0 && p.c > 0;
}

bool finite(const float *values, int count) {
    float sum = 0;
    for (int i = 0; i < count; ++i) sum += values[i] * 0.0f;
    return sum == 0.0f;
}

// Fills `splat`; one that cannot be seen (behind the near plane, outside, not finite, too faint) gets depth 0.
inline void project_one(const m4d_scene &scene, int64_t index, Splat &splat) {
    splat.depth = 0.0f, splat.radius = 0.0f, splat.entries = 0;
    const double opacity = scene.opacities[index];
    Projection p;
    if (!(opacity >= kAlphaMin) || !__builtin_isfinite(opacity) || !look(scene, index, p)) return;
    const double z = p.camera[2], x = scene.fx * p.camera[0] / z + scene.cx, y = scene.fy * p.camera[1] / z + scene.cy;
    const double log_opacity = __builtin_log2(opacity), reach = log_opacity + kLog2Of255;  // base 2
    const double spread = __builtin_sqrt(2.0 * reach / kLog2e);
    const double half_x = spread * __builtin_sqrt(p.var_x), half_y = spread * __builtin_sqrt(p.var_y);
    const double left = __builtin_ceil(x - half_x), right = __builtin_floor(x + half_x);
    const double top = __builtin_ceil(y - half_y), bottom = __builtin_floor(y + half_y);
    const bool across_image = right >= 0 && left <= scene.width - 1 && left <= right;  // false for NaN
    const bool down_image = bottom >= 0 && top <= scene.height - 1 && top <= bottom;
    const float depth = static_cast<float>(z);
    if (!across_image || !down_image || !__builtin_isfinite(depth) || !(depth > 0)) return;
    if (!finite(scene.features + index * scene.channels, scene.channels)) return;

    splat.x = x, splat.y = y;
    splat.A = static_cast<float>(0.5 * kLog2e * p.a);
    splat.B = static_cast<float>(kLog2e * p.b);
    splat.C = static_cast<float>(0.5 * kLog2e * p.c);
    splat.L = static_cast<float>(log_opacity);
    splat.reach = static_cast<float>(reach * 1.0001 + 1e-4);  // rounding must not cut what blending would keep
    splat.radius = static_cast<float>(maximum(half_x, half_y));
    splat.tx0 = static_cast<int>(maximum(left, 0.0)) / kTile;
    splat.ty0 = static_cast<int>(maximum(top, 0.0)) / kTile;
    splat.tx1 = static_cast<int>(minimum(right, scene.width - 1.0)) / kTile + 1;
    splat.ty1 = static_cast<int>(minimum(bottom, scene.height - 1.0)) / kTile + 1;
    splat.tiles = ~uint64_t{0};
    const int across = splat.tx1 - splat.tx0, total = across * (splat.ty1 - splat.ty0);
    splat.entries = total;
    if (total <= 64 && total > 1) {
        splat.tiles = 0, splat.entries = 0;
        for (int k = 0; k < total; ++k) {
            const float x0 = static_cast<float>((splat.tx0 + k % across) * kTile - x);
            const float y0 = static_cast<float>((splat.ty0 + k / across) * kTile - y);
            const float least =
                least_over_rectangle(splat.A, splat.B, splat.C, x0, y0, x0 + (kTile - 1), y0 + (kTile - 1));
            if (!(least <= splat.reach)) continue;
            splat.tiles |= uint64_t{1} << k;
            ++splat.entries;
        }
    }
    if (splat.entries) splat.depth = depth;
    else splat.radius = 0.0f;
}

void project(const m4d_scene &scene, int64_t begin, int64_t end, Splat *splats) {
    for (int64_t i = begin; i < end; ++i) project_one(scene, i, splats[i]);
}

// `s` are the kMoments sums of frame.h, `depth` is dL/d depth. Adds to `T_out` (12), writes this Gaussian's gradients.
void project_backward(const m4d_scene &scene, int64_t index, const double *s, double depth, float *means, float *quats,
                      float *scales, float *opacity, double *T_out) {
    Projection p;
    if (!look(scene, index, p)) return;
    const double *T = scene.T_cam_map;
    const float *mean = scene.means + 3 * index, *scale = scene.scales + 3 * index;
    const double z = p.camera[2], fx = scene.fx, fy = scene.fy;

    *opacity = static_cast<float>(s[kP] / scene.opacities[index]);
    const double d_x = p.a * s[kPx] + p.b * s[kPy], d_y = p.b * s[kPx] + p.c * s[kPy];  // by the centre, px

    // Covariance S: power = -1/2 d^T S^-1 d, so dL/dS = 1/2 S^-1 M S^-1 with M the second moments.
    const double m00 = s[kPxx], m01 = s[kPxy], m11 = s[kPyy];
    const double k00 = p.a * m00 + p.b * m01, k01 = p.a * m01 + p.b * m11;
    const double k10 = p.b * m00 + p.c * m01, k11 = p.b * m01 + p.c * m11;
    const double g00 = 0.5 * (k00 * p.a + k01 * p.b), g01 = 0.5 * (k00 * p.b + k01 * p.c);
    const double g11 = 0.5 * (k10 * p.b + k11 * p.c);

    // S = P P^T + dilation, P = J U diag(scale), J the perspective's slope at the limited x/z, y/z.
    double dP[2][3], dJ[2][3] = {}, dV[3][3], dU[3][3];
    const double J[2][3] = {{fx / z, 0, -fx * p.u[0] / z}, {0, fy / z, -fy * p.u[1] / z}};
    for (int k = 0; k < 3; ++k) {
        dP[0][k] = 2 * (g00 * p.P[0][k] + g01 * p.P[1][k]);
        dP[1][k] = 2 * (g01 * p.P[0][k] + g11 * p.P[1][k]);
    }
    for (int k = 0; k < 3; ++k) {
        double by_scale = 0;
        for (int r = 0; r < 3; ++r) {
            const double V = p.U[r][k] * scale[k];
            dJ[0][r] += dP[0][k] * V;
            dJ[1][r] += dP[1][k] * V;
            dV[r][k] = J[0][r] * dP[0][k] + J[1][r] * dP[1][k];
            by_scale += dV[r][k] * p.U[r][k];
            dU[r][k] = dV[r][k] * scale[k];
        }
        scales[k] = static_cast<float>(by_scale);
    }

    const double x_z = p.camera[0] / z, y_z = p.camera[1] / z;
    const double du0 = -fx / z * dJ[0][2], du1 = -fy / z * dJ[1][2];  // by the limited slopes
    double d[3];                                                    // by the camera point
    d[0] = d_x * fx / z + (p.limited[0] ? 0 : du0 / z);
    d[1] = d_y * fy / z + (p.limited[1] ? 0 : du1 / z);
    d[2] = depth - (d_x * fx * x_z + d_y * fy * y_z) / z;
    d[2] -= (dJ[0][0] * J[0][0] + dJ[0][2] * J[0][2] + dJ[1][1] * J[1][1] + dJ[1][2] * J[1][2]) / z;
    d[2] -= (p.limited[0] ? 0 : du0 * x_z / z) + (p.limited[1] ? 0 : du1 * y_z / z);

    double G[3][3];  // by the rotation matrix R
    for (int r = 0; r < 3; ++r) {
        means[r] = static_cast<float>(T[r] * d[0] + T[4 + r] * d[1] + T[8 + r] * d[2]);
        for (int k = 0; k < 3; ++k) {
            G[r][k] = T[r] * dU[0][k] + T[4 + r] * dU[1][k] + T[8 + r] * dU[2][k];
            T_out[4 * r + k] += d[r] * mean[k] + dU[r][0] * p.R[k][0] + dU[r][1] * p.R[k][1] + dU[r][2] * p.R[k][2];
        }
        T_out[4 * r + 3] += d[r];
    }
    double dq[4], by_quat[4];
    rotation_backward(p.q, G, dq);
    normalise_backward(p.q, p.q_length, dq, by_quat);
    for (int k = 0; k < 4; ++k) quats[k] = static_cast<float>(by_quat[k]);
}

}  // namespace
