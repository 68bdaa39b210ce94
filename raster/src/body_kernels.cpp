// The motion of a rigid body by alternating least squares, compiled once per instruction set: see
// motion4d_ros/priors/masks/discovery/rigid_motion.py. Sums are made lane by lane, so that they do not depend on the
// compiler.

#include "body.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#define M4D_JOIN(a, b) a##b
#define M4D_FUNCTION(isa) M4D_JOIN(body_kernels_, isa)

namespace {

using m4d::BodyKernels;
using m4d::BodyPixels;
using m4d::kBodyLanes;
using m4d::kMostFrames;

#pragma GCC diagnostic ignored "-Wpsabi"  // nothing here is called from elsewhere
typedef float Lanes __attribute__((vector_size(kBodyLanes * 4)));

constexpr double kRidge = 1e-3;       // of normal equations
constexpr float kReliefPrior = 1e-3f;
constexpr float kMostOff = 1e18f;     // of what a motion leaves; its square is a number
constexpr int kMostSweeps = 30;       // of Jacobi's method; less than ten are usual

inline Lanes load(const float *from) {
    Lanes r;
    __builtin_memcpy(&r, from, sizeof(r));
    return r;
}

inline void store(float *to, const Lanes &v) { __builtin_memcpy(to, &v, sizeof(v)); }

inline double total(const Lanes &v) {
    double sum = 0;
    for (int i = 0; i < kBodyLanes; ++i) sum += v[i];
    return sum;
}

// Solves A x = b for two right sides, A symmetric and positive definite.
template <int P>
void solve(double (&A)[P][P], double (&b)[2][P]) {
    for (int k = 0; k < P; ++k) {
        for (int j = 0; j < k; ++j) A[k][k] -= A[k][j] * A[k][j];
        A[k][k] = std::sqrt(A[k][k]);
        for (int i = k + 1; i < P; ++i) {
            for (int j = 0; j < k; ++j) A[i][k] -= A[i][j] * A[k][j];
            A[i][k] /= A[k][k];
        }
    }
    for (double(&side)[P] : b) {
        for (int k = 0; k < P; ++k) {
            for (int j = 0; j < k; ++j) side[k] -= A[k][j] * side[j];
            side[k] /= A[k][k];
        }
        for (int k = P - 1; k >= 0; --k) {
            for (int i = k + 1; i < P; ++i) side[k] -= A[i][k] * side[i];
            side[k] /= A[k][k];
        }
    }
}

// Eigenvector of the largest eigenvalue of a symmetric matrix (n, n), by Jacobi's method; the matrix is used up.
void first_eigenvector(double *A, int n, double *out) {
    double V[4 * kMostFrames * kMostFrames];
    for (int i = 0; i < n * n; ++i) V[i] = i % (n + 1) == 0;
    for (int sweep = 0; sweep < kMostSweeps; ++sweep) {
        double off = 0, all = 0;
        for (int i = 0; i < n; ++i)
            for (int j = 0; j < n; ++j) (i == j ? all : off) += A[i * n + j] * A[i * n + j];
        if (!(off > 1e-24 * all)) break;
        for (int p = 0; p < n; ++p)
            for (int q = p + 1; q < n; ++q) {
                if (A[p * n + q] == 0) continue;
                const double theta = (A[q * n + q] - A[p * n + p]) / (2 * A[p * n + q]);
                const double t = (theta < 0 ? -1.0 : 1.0) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
                const double c = 1 / std::sqrt(t * t + 1), s = t * c;
                for (int k = 0; k < n; ++k) {
                    const double a = A[k * n + p], b = A[k * n + q];
                    A[k * n + p] = c * a - s * b, A[k * n + q] = s * a + c * b;
                }
                for (int k = 0; k < n; ++k) {
                    const double a = A[p * n + k], b = A[q * n + k];
                    A[p * n + k] = c * a - s * b, A[q * n + k] = s * a + c * b;
                    const double v = V[k * n + p], w = V[k * n + q];
                    V[k * n + p] = c * v - s * w, V[k * n + q] = s * v + c * w;
                }
            }
    }
    int best = 0;
    for (int i = 1; i < n; ++i) best = A[i * n + i] > A[best * n + best] ? i : best;
    for (int k = 0; k < n; ++k) out[k] = V[k * n + best];
}

// One fit: per frame the coefficients of 1, x, y and the relief for u and for v.
struct Fit {
    const m4d_body_fit &asked;
    const BodyPixels &p;
    std::vector<float> trust, relief, off, sorted;
    float motion[kMostFrames][2][4] = {};

    Fit(const m4d_body_fit &fit, const BodyPixels &pixels)
        : asked(fit), p(pixels), trust(size_t(pixels.padded), 1.0f), relief(size_t(pixels.padded), 0.0f),
          off(size_t(pixels.padded)), sorted(size_t(pixels.followed)) {}

    // Least squares of the motion for P = 3 (without relief) or 4 columns.
    template <int P>
    void solve_motion() {
        for (int f = 0; f < p.frames; ++f) {
            Lanes normal[P][P] = {}, right[2][P] = {};
            for (int64_t i = 0; i < p.padded; i += kBodyLanes) {
                const size_t k = size_t(f * p.padded + i);
                const Lanes w = load(&p.base[k]) * load(&trust[size_t(i)]), u = load(&p.u[k]), v = load(&p.v[k]);
                Lanes column[P];
                column[0] = w, column[1] = w * load(&p.x[size_t(i)]), column[2] = w * load(&p.y[size_t(i)]);
                Lanes plain[P];
                plain[1] = load(&p.x[size_t(i)]), plain[2] = load(&p.y[size_t(i)]);
                if (P == 4) plain[P - 1] = load(&relief[size_t(i)]), column[P - 1] = w * plain[P - 1];
                for (int a = 0; a < P; ++a) {
                    normal[a][0] += column[a];
                    for (int b = 1; b <= a; ++b) normal[a][b] += column[a] * plain[b];
                    right[0][a] += column[a] * u, right[1][a] += column[a] * v;
                }
            }
            double A[P][P], b[2][P];
            for (int a = 0; a < P; ++a) {
                for (int c = 0; c <= a; ++c) A[a][c] = total(normal[a][c]) + (a == c ? kRidge : 0.0);
                b[0][a] = total(right[0][a]), b[1][a] = total(right[1][a]);
            }
            solve<P>(A, b);
            for (int side = 0; side < 2; ++side)
                for (int a = 0; a < P; ++a) motion[f][side][a] = static_cast<float>(b[side][a]);
        }
    }

    // What the motion leaves of u and v in a frame, with or without its part that goes with the relief.
    void left(int f, int64_t i, bool whole, Lanes &u, Lanes &v) const {
        const size_t k = size_t(f * p.padded + i);
        const Lanes x = load(&p.x[size_t(i)]), y = load(&p.y[size_t(i)]);
        const float *a = motion[f][0], *b = motion[f][1];
        u = load(&p.u[k]) - (a[0] + a[1] * x + a[2] * y), v = load(&p.v[k]) - (b[0] + b[1] * x + b[2] * y);
        if (!whole) return;
        const Lanes z = load(&relief[size_t(i)]);
        u -= a[3] * z, v -= b[3] * z;
    }

    // Weights of pixels by what the motion leaves of them: Geman and McClure, with a scale of their own.
    void weigh(float slack) {
        for (int64_t i = 0; i < p.padded; i += kBodyLanes) {
            Lanes sum = {};
            for (int f = 0; f < p.frames; ++f) {
                Lanes u, v;
                left(f, i, true, u, v);
                Lanes size = u * u + v * v;
                for (int l = 0; l < kBodyLanes; ++l) size[l] = __builtin_sqrtf(size[l]);
                sum += size * load(&p.share[size_t(f * p.padded + i)]);
            }
            for (int l = 0; l < kBodyLanes; ++l) sum[l] = sum[l] < kMostOff ? sum[l] : kMostOff;  // NaN, too
            store(&off[size_t(i)], sum);
        }
        const float scale = slack * std::max(asked.scale, asked.times * median());
        for (int64_t i = 0; i < p.padded; ++i) {
            const float share = off[size_t(i)] / scale, below = 1.0f + share * share;
            trust[size_t(i)] = 1.0f / (below * below);
        }
    }

    float median() {
        std::copy_n(off.begin(), p.followed, sorted.begin());
        const auto middle = sorted.begin() + p.followed / 2;
        std::nth_element(sorted.begin(), middle, sorted.end());
        if (p.followed % 2) return *middle;
        return 0.5f * (*middle + *std::max_element(sorted.begin(), middle));
    }

    // The direction in which the affine motion leaves most.
    void start_parallax() {
        const int n = 2 * p.frames;
        std::vector<float> scaled(size_t(n * p.padded));
        for (int f = 0; f < p.frames; ++f)
            for (int64_t i = 0; i < p.padded; i += kBodyLanes) {
                Lanes u, v, w = load(&p.base[size_t(f * p.padded + i)]) * load(&trust[size_t(i)]);
                left(f, i, false, u, v);
                for (int l = 0; l < kBodyLanes; ++l) w[l] = __builtin_sqrtf(w[l]);
                store(&scaled[size_t(2 * f * p.padded + i)], u * w);
                store(&scaled[size_t((2 * f + 1) * p.padded + i)], v * w);
            }
        double gram[4 * kMostFrames * kMostFrames], direction[2 * kMostFrames];
        for (int a = 0; a < n; ++a)
            for (int b = 0; b <= a; ++b) {
                Lanes sum = {};
                for (int64_t i = 0; i < p.padded; i += kBodyLanes)
                    sum += load(&scaled[size_t(a * p.padded + i)]) * load(&scaled[size_t(b * p.padded + i)]);
                gram[a * n + b] = gram[b * n + a] = total(sum);
            }
        first_eigenvector(gram, n, direction);
        for (int f = 0; f < p.frames; ++f)
            for (int side = 0; side < 2; ++side) motion[f][side][3] = static_cast<float>(direction[2 * f + side]);
    }

    // The relief that explains best what the affine motion leaves, in its own standard deviations.
    void find_relief() {
        Lanes squares = {}, weights = {};
        for (int64_t i = 0; i < p.padded; i += kBodyLanes) {
            Lanes along = {}, norm = {}, all = {};
            for (int f = 0; f < p.frames; ++f) {
                const float a = motion[f][0][3], b = motion[f][1][3];
                const Lanes w = load(&p.base[size_t(f * p.padded + i)]) * load(&trust[size_t(i)]);
                Lanes u, v;
                left(f, i, false, u, v);
                along += w * (u * a + v * b), norm += w * (a * a + b * b), all += w;
            }
            const Lanes z = along / (norm + kReliefPrior);
            store(&relief[size_t(i)], z);
            squares += z * z * all, weights += all;
        }
        const float spread = static_cast<float>(std::sqrt(total(squares) / total(weights) + 1e-9));
        for (float &z : relief) z = std::min(std::max(z / spread, -asked.relief), asked.relief);
    }
};

void fit_body(const m4d_body_fit &asked, const BodyPixels &pixels) {
    Fit fit(asked, pixels);
    fit.solve_motion<3>();
    for (int k = 0; k < asked.affine_rounds; ++k) fit.weigh(asked.slack), fit.solve_motion<3>();
    fit.weigh(asked.slack);
    fit.start_parallax();
    for (int k = 0; k < asked.rounds; ++k) {
        fit.find_relief();
        fit.solve_motion<4>();
        const double slack = asked.slack * (1.0 - 2.0 * k / asked.rounds);
        if (k + 1 < asked.rounds) fit.weigh(static_cast<float>(std::max(1.0, slack)));
    }
    for (int f = 0; f < pixels.frames; ++f)
        for (int side = 0; side < 2; ++side) {
            std::copy_n(fit.motion[f][side], 3, asked.affine + (2 * f + side) * 3);
            asked.parallax[2 * f + side] = fit.motion[f][side][3];
        }
}

}  // namespace

const m4d::BodyKernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const BodyKernels kernels = {fit_body};
    return kernels;
}
