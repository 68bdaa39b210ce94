// The evidence of one frame for poses of an object.

#include "motion4d_appearance.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>
#include <vector>

#include "parallel.h"

namespace {

constexpr double kLeastDepth = 1e-9;      // m, of what is projected
constexpr double kLeastSpread = 1e-6;     // of grey values, below which nothing is alike
constexpr int kParts = 32;                // of a pixel, to which places are rounded where images are read
constexpr int kFactors = 8;               // ratios of depths whose logarithms are taken together

// A point that faces the camera at some pose.
struct Seen {
    double u, v, z, gray;
};

inline int within(int k, int size) { return k < 0 ? 0 : (k < size ? k : size - 1); }

// Between pixels, bilinear as OpenCV does it; the border is repeated.
float read(const m4d_appearance &a, float u, float v) {
    const int sx = int(__builtin_lrintf(u * kParts)), sy = int(__builtin_lrintf(v * kParts));
    const int x = sx >> 5, y = sy >> 5;
    const float fx = float(sx & (kParts - 1)) / kParts, fy = float(sy & (kParts - 1)) / kParts;
    const float *top = a.image + int64_t(within(y, a.height)) * a.width;
    const float *bottom = a.image + int64_t(within(y + 1, a.height)) * a.width;
    const int left = within(x, a.width), right = within(x + 1, a.width);
    return (1 - fy) * ((1 - fx) * top[left] + fx * top[right]) + fy * ((1 - fx) * bottom[left] + fx * bottom[right]);
}

void project(const m4d_appearance &a, const double *T, std::vector<Seen> &out) {
    out.clear();
    for (int n = 0; n < a.points; ++n) {
        const double *p = a.xyz + 3 * n, *s = a.side + 3 * n;
        double xyz[3], along = 0, square = 0;
        for (int r = 0; r < 3; ++r) {
            const double *row = T + 4 * r;
            xyz[r] = row[0] * p[0] + row[1] * p[1] + row[2] * p[2] + row[3];
            along += (row[0] * s[0] + row[1] * s[1] + row[2] * s[2]) * xyz[r], square += xyz[r] * xyz[r];
        }
        if (!(-along > a.facing * std::sqrt(square)) || !(xyz[2] > kLeastDepth)) continue;
        out.push_back({a.fx * xyz[0] / xyz[2] + a.cx, a.fy * xyz[1] / xyz[2] + a.cy, xyz[2], a.gray[n]});
    }
}

// Sums over the points that are seen on the mask: their number, and moments of what is there and what was expected.
struct Moments {
    double count = 0, a = 0, b = 0, aa = 0, bb = 0, ab = 0;

    void add(double x, double y) { count += 1, a += x, b += y, aa += x * x, bb += y * y, ab += x * y; }
    double correlation() const {
        if (count == 0) return 0;
        const double spread = std::max(aa - a * a / count, 0.0) * std::max(bb - b * b / count, 0.0);
        return (ab - a * b / count) / std::max(std::sqrt(spread), kLeastSpread);
    }
};

double evidence(const m4d_appearance &a, const std::vector<Seen> &points, const double *shift) {
    Moments on;
    double visible = 0, known = 0, farther = 0, ratio = 1;
    int factors = 0;
    for (const Seen &p : points) {
        const float u = float(p.u + shift[0]), v = float(p.v + shift[1]);
        if (!(u >= -1 && v >= -1 && u <= float(a.width) && v <= float(a.height))) continue;
        const int column = int(__builtin_lrintf(u)), row = int(__builtin_lrintf(v));
        if (column < 0 || row < 0 || column >= a.width || row >= a.height) continue;
        const int64_t pixel = int64_t(row) * a.width + column;
        if (!(a.cover[pixel] > a.behind * p.z)) continue;
        visible += 1;
        if (!a.mask[pixel]) continue;
        on.add(read(a, u, v), p.gray);
        const double surface = a.surface[pixel];
        if (!(surface > 0 && surface < HUGE_VAL)) continue;
        known += 1, ratio *= p.z / surface;
        if (++factors % kFactors == 0) farther += std::log(ratio), ratio = 1;
    }
    farther = (farther + std::log(ratio)) / std::max(known, 1.0);
    const double rho = on.correlation();
    const double alike = -0.5 * std::min(on.count, a.most) * a.values * std::log(1 - (1 - a.noise) * rho * std::fabs(rho));
    const double beside = std::min(visible - on.count, a.most) * a.values * a.off_mask;
    return alike + beside - 0.5 * (farther / a.sigma) * (farther / a.sigma);
}

}  // namespace

extern "C" int m4d_evidence(const m4d_appearance *appearance) {
    const m4d_appearance &a = *appearance;
    std::atomic<bool> failed{false};
    m4d::parallel_for(a.poses, a.threads > 0 ? a.threads : m4d::usable_cpus(), [&](int64_t k, int) {
        try {
            std::vector<Seen> points;
            project(a, a.pose + 16 * k, points);
            for (int s = 0; s < a.shifts; ++s) a.evidence[k * a.shifts + s] = evidence(a, points, a.shift + 2 * s);
        } catch (const std::bad_alloc &) {
            failed = true;
        }
    });
    return failed ? 1 : 0;
}
