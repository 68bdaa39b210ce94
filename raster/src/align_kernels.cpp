// Patches aligned one after the other, compiled once per instruction set.
//
// With T a patch of the source, d a step from its middle and A the warp, the target is I(q + A d) = g T(d) + b + c.d
// where q is right: g is a gain, b + c.d light that does not move along. Off by A e it is, to first order,
// g T(d + e) + b + c.d: all of these follow from one linear least squares problem in the slopes of T, T, 1 and d. Its
// matrix belongs to the source and is inverted once; T itself says nothing about e then, so a step is three weighted
// sums over the target's patch.

#include "align.h"

#include <algorithm>
#include <cmath>
#include <limits>

#define M4D_JOIN(a, b) a##b
#define M4D_FUNCTION(isa) M4D_JOIN(align_kernels_, isa)

namespace {

using m4d::AlignKernels;

constexpr int kSide = M4D_ALIGN_SIDE, kHalf = kSide / 2, kPixels = kSide * kSide;
constexpr int kLanes = 16, kPadded = (kPixels + kLanes - 1) / kLanes * kLanes;
constexpr int kWider = kSide + 2;  // with the neighbours that slopes need
constexpr int kIterations = 10;
constexpr float kSmallStep = 0.01f, kLargestStep = 2.0f;  // px
constexpr float kFewest = 0.3f * kPixels;                 // pixels that must be the object's on both sides
constexpr float kGreyNoise = 1.0f;                        // grey levels, standard deviation, at least
constexpr float kSureReturn = 0.5f, kSureLikeness = 0.7f;  // px; of an alignment that needs no second try
constexpr float kLeastGain = 0.2f, kMostGain = 5.0f;
constexpr float kSmallest = 0.04f, kLargest = 25.0f;  // areas of a pixel in the other picture
constexpr float kMostSigma = 2.0f;  // px; what is less certain at some level is not used there

struct Place {
    float x, y;
};

// Where a step in one picture goes in the other: coefficients of x, y, x^2, x y, y^2.
struct Warp {
    float x[5], y[5];

    Place operator()(Place d) const {
        const float xx = d.x * d.x, xy = d.x * d.y, yy = d.y * d.y;
        return {x[0] * d.x + x[1] * d.y + x[2] * xx + x[3] * xy + x[4] * yy,
                y[0] * d.x + y[1] * d.y + y[2] * xx + y[3] * xy + y[4] * yy};
    }
    Place first_order(Place d) const { return {x[0] * d.x + x[1] * d.y, y[0] * d.x + y[1] * d.y}; }
    Warp scaled(float scale) const {  // for pixels that many times as wide
        Warp r = *this;
        for (int i = 2; i < 5; ++i) r.x[i] *= scale, r.y[i] *= scale;
        return r;
    }
    float determinant() const { return x[0] * y[1] - x[1] * y[0]; }
    Warp inverse() const;
};

// x^2, x y, y^2 after x and y are replaced by m[0] x + m[1] y, m[2] x + m[3] y.
void substitute(const float *form, const float *m, float *out) {
    const float a = form[0], b = form[1], c = form[2];
    out[0] = a * m[0] * m[0] + b * m[0] * m[2] + c * m[2] * m[2];
    out[1] = 2 * a * m[0] * m[1] + b * (m[0] * m[3] + m[1] * m[2]) + 2 * c * m[2] * m[3];
    out[2] = a * m[1] * m[1] + b * m[1] * m[3] + c * m[3] * m[3];
}

// To second order.
Warp Warp::inverse() const {
    const float n = 1 / determinant(), m[4] = {n * y[1], -n * x[1], -n * y[0], n * x[0]};
    float fx[3], fy[3];
    substitute(x + 2, m, fx), substitute(y + 2, m, fy);
    Warp r = {{m[0], m[1], 0, 0, 0}, {m[2], m[3], 0, 0, 0}};
    for (int i = 0; i < 3; ++i) r.x[2 + i] = -m[0] * fx[i] - m[1] * fy[i], r.y[2 + i] = -m[2] * fx[i] - m[3] * fy[i];
    return r;
}

struct Level {
    const float *gray;
    int width, height;
    float scale;  // px of level 0 a pixel

    bool shows(Place p) const { return p.x >= 0 && p.y >= 0 && p.x <= float(width - 1) && p.y <= float(height - 1); }
};

// Of each of the pixels, in rows; what is beyond the last one is 0.
struct Lane {
    alignas(64) float v[kPadded];
};

struct Steps {
    Lane x, y;
    Steps() : x(), y() {
        for (int i = 0; i < kPixels; ++i) x.v[i] = float(i % kSide - kHalf), y.v[i] = float(i / kSide - kHalf);
    }
};

const Steps &steps() {
    static const Steps made;
    return made;
}

Level level_of(const m4d_picture &picture, int level) {
    return {picture.gray[level], picture.width[level], picture.height[level], float(1 << level)};
}

float sum(const Lane &a, const Lane &b) {
    float part[kLanes] = {};
    for (int i = 0; i < kPadded; i += kLanes)
        for (int k = 0; k < kLanes; ++k) part[k] += a.v[i + k] * b.v[i + k];
    for (int width = kLanes / 2; width > 0; width /= 2)
        for (int k = 0; k < width; ++k) part[k] += part[k + width];
    return part[0];
}

// Grey values about `middle`, every pixel `warp` away from the next, bilinear, the border repeated.
void read(const Level &level, Place middle, const Warp &warp, Lane &out) {
    const Steps &step = steps();
    const float last_x = float(level.width - 1) - 1e-3f, last_y = float(level.height - 1) - 1e-3f;
    const float *gray = level.gray;
    const int width = level.width;
    for (int i = 0; i < kPadded; ++i) {
        const Place d = warp({step.x.v[i], step.y.v[i]});
        float x = middle.x + d.x, y = middle.y + d.y;
        x = x > 0 ? x : 0, y = y > 0 ? y : 0;  // NaN, too
        x = x < last_x ? x : last_x, y = y < last_y ? y : last_y;
        const int column = int(x), row = int(y), at = row * width + column;
        const float right = x - float(column), down = y - float(row);
        const float above = gray[at] + right * (gray[at + 1] - gray[at]);
        const float below = gray[at + width] + right * (gray[at + width + 1] - gray[at + width]);
        out.v[i] = above + down * (below - above);
    }
}

// A patch of the source with its slopes: (kWider)^2 grey values on the pixel grid shifted by a fraction.
void read_with_slopes(const Level &level, Place middle, Lane &value, Lane &by_x, Lane &by_y) {
    float wide[kWider * kWider];
    const int column = int(std::floor(middle.x)), row = int(std::floor(middle.y));
    const float right = middle.x - float(column), down = middle.y - float(row);
    const int w = level.width, h = level.height;
    const auto inside = [](int k, int size) { return k < 0 ? 0 : k >= size ? size - 1 : k; };
    int at[kWider + 1];
    for (int i = 0; i <= kWider; ++i) at[i] = inside(column + i - kHalf - 1, w);
    for (int j = 0; j < kWider; ++j) {
        const float *above = level.gray + int64_t(inside(row + j - kHalf - 1, h)) * w;
        const float *below = level.gray + int64_t(inside(row + j - kHalf, h)) * w;
        float line[kWider + 1];
        for (int i = 0; i <= kWider; ++i) line[i] = above[at[i]] + down * (below[at[i]] - above[at[i]]);
        for (int i = 0; i < kWider; ++i) wide[j * kWider + i] = line[i] + right * (line[i + 1] - line[i]);
    }
    for (int j = 0; j < kSide; ++j)
        for (int i = 0; i < kSide; ++i) {
            const float *here = wide + (j + 1) * kWider + i + 1;
            value.v[j * kSide + i] = *here;
            by_x.v[j * kSide + i] = 0.5f * (here[1] - here[-1]);
            by_y.v[j * kSide + i] = 0.5f * (here[kWider] - here[-kWider]);
        }
    for (int i = kPixels; i < kPadded; ++i) value.v[i] = by_x.v[i] = by_y.v[i] = 0;
}

// Whether each pixel about `middle` is inside the picture and has the label; multiplied into `weight`.
void only_label(const m4d_picture &picture, const Level &level, Place middle, const Warp &warp, int32_t label, Lane &weight) {
    const Steps &step = steps();
    const int width = picture.width[0], height = picture.height[0];
    for (int i = 0; i < kPixels; ++i) {
        const Place d = warp({step.x.v[i], step.y.v[i]}), p = {middle.x + d.x, middle.y + d.y};
        if (!level.shows(p)) {
            weight.v[i] = 0;
            continue;
        }
        const int x = int(p.x * level.scale + 0.5f), y = int(p.y * level.scale + 0.5f);
        const int column = x < width ? x : width - 1, row = y < height ? y : height - 1;
        if (picture.labels[int64_t(row) * width + column] != label) weight.v[i] = 0;
    }
}

// What of a patch is no light that falls on it: grey values less the plane through them, by weighted least squares.
struct Shade {
    Lane weight, x, y;  // the weights, and they times the steps
    double inverse[6];  // of the matrix of sums: upper triangle, in rows
    float total;

    bool make();
    void remove(Lane &values) const;
};

bool Shade::make() {
    const Steps &step = steps();
    for (int i = 0; i < kPadded; ++i) x.v[i] = weight.v[i] * step.x.v[i], y.v[i] = weight.v[i] * step.y.v[i];
    total = 0;
    for (int i = 0; i < kPixels; ++i) total += weight.v[i];
    if (total < kFewest) return false;
    const double n = total, a = sum(weight, step.x), b = sum(weight, step.y);
    const double d = sum(x, step.x), e = sum(x, step.y), f = sum(y, step.y);
    const double c00 = d * f - e * e, c01 = b * e - a * f, c02 = a * e - b * d;
    const double determinant = n * c00 + a * c01 + b * c02;
    if (!(determinant > n)) return false;  // all pixels in a line
    const double k = 1 / determinant;
    inverse[0] = k * c00, inverse[1] = k * c01, inverse[2] = k * c02;
    inverse[3] = k * (n * f - b * b), inverse[4] = k * (a * b - n * e), inverse[5] = k * (n * d - a * a);
    return true;
}

void Shade::remove(Lane &values) const {
    const Steps &step = steps();
    const double s = sum(weight, values), sx = sum(x, values), sy = sum(y, values);
    const float level = float(inverse[0] * s + inverse[1] * sx + inverse[2] * sy);
    const float across = float(inverse[1] * s + inverse[3] * sx + inverse[4] * sy);
    const float down = float(inverse[2] * s + inverse[4] * sx + inverse[5] * sy);
    for (int i = 0; i < kPadded; ++i) values.v[i] -= level + across * step.x.v[i] + down * step.y.v[i];
}

// A patch of the source, ready: what to sum a patch of the target with to get step and gain.
struct Template {
    Shade shade;
    Lane value, step_x, step_y, gain;
    float covariance[3];  // of the step, of grey values of unit noise: xx, xy, yy
    float contrast;       // weighted sum of squares of `value`, which has no shade

    bool make(const Level &level, Place middle);
};

bool Template::make(const Level &level, Place middle) {
    Lane x, y;
    read_with_slopes(level, middle, value, x, y);
    if (!shade.make()) return false;
    shade.remove(value), shade.remove(x), shade.remove(y);
    const Lane &weight = shade.weight;
    for (int i = 0; i < kPadded; ++i) {
        step_x.v[i] = weight.v[i] * x.v[i], step_y.v[i] = weight.v[i] * y.v[i], gain.v[i] = weight.v[i] * value.v[i];
    }
    const double xx = sum(step_x, x), xy = sum(step_x, y), yy = sum(step_y, y);
    const double xt = sum(step_x, value), yt = sum(step_y, value), tt = sum(gain, value);
    const double c00 = yy * tt - yt * yt, c01 = xt * yt - xy * tt, c02 = xy * yt - yy * xt;
    const double c11 = xx * tt - xt * xt, c12 = xy * xt - xx * yt, c22 = xx * yy - xy * xy;
    const double determinant = xx * c00 + xy * c01 + xt * c02;
    if (!(determinant > 1e-9 * xx * yy * tt) || !(tt > 0)) return false;
    const double n = 1 / determinant;
    for (int i = 0; i < kPadded; ++i) {
        const double a = step_x.v[i], b = step_y.v[i], c = gain.v[i];
        step_x.v[i] = float(n * (c00 * a + c01 * b + c02 * c));
        step_y.v[i] = float(n * (c01 * a + c11 * b + c12 * c));
        gain.v[i] = float(n * (c02 * a + c12 * b + c22 * c));
    }
    covariance[0] = float(n * c00), covariance[1] = float(n * c01), covariance[2] = float(n * c11);
    contrast = float(tt);
    return true;
}

// The larger eigenvalue of A C A^T.
float largest_variance(const float (&c)[3], const Warp &w) {
    const float p = w.x[0] * c[0] + w.x[1] * c[1], q = w.x[0] * c[1] + w.x[1] * c[2];
    const float r = w.y[0] * c[0] + w.y[1] * c[1], s = w.y[0] * c[1] + w.y[1] * c[2];
    const float xx = p * w.x[0] + q * w.x[1], xy = p * w.y[0] + q * w.y[1], yy = r * w.y[0] + s * w.y[1];
    return 0.5f * (xx + yy + std::sqrt((xx - yy) * (xx - yy) + 4 * xy * xy));
}

struct Found {
    Place at;
    float likeness, sigma;
    bool ok;
};

// Correlation of the patches and the noise of the place, where the target shows `seen`.
void judge(const Template &patch, const Warp &warp, float gain, Lane &seen, Found &found) {
    patch.shade.remove(seen);
    Lane weighted;
    for (int i = 0; i < kPadded; ++i) weighted.v[i] = patch.shade.weight.v[i] * seen.v[i];
    const float square = sum(weighted, seen), both = sum(weighted, patch.value);
    found.likeness = both / std::sqrt(square * patch.contrast + 1e-12f);
    float left = square - both * both / patch.contrast;
    left = std::sqrt((left > 0 ? left : 0) / patch.shade.total);
    const float noise = left > kGreyNoise ? left : kGreyNoise;
    found.sigma = noise / gain * std::sqrt(largest_variance(patch.covariance, warp));
}

// Where the patch about `from` is in `target`, from coarse to fine.
Found align(const m4d_picture &source, const m4d_picture &target, int32_t label, Place from, Place guess,
            const Warp &finest, int levels) {
    static const Warp same = {{1, 0, 0, 0, 0}, {0, 1, 0, 0, 0}};
    Found found = {guess, 0, 0, false};
    Template patch;
    Lane seen;
    for (int k = levels - 1; k >= 0; --k) {
        const Level here = level_of(source, k), there = level_of(target, k);
        const Warp warp = finest.scaled(here.scale);
        const Place middle = {from.x / here.scale, from.y / here.scale};
        Place at = {found.at.x / here.scale, found.at.y / here.scale};
        if (!here.shows(middle) || !there.shows(at)) return found;
        for (int i = 0; i < kPadded; ++i) patch.shade.weight.v[i] = i < kPixels;
        only_label(source, here, middle, same, label, patch.shade.weight);
        only_label(target, there, at, warp, label, patch.shade.weight);
        bool fine = patch.make(here, middle);
        fine = fine && kGreyNoise * std::sqrt(largest_variance(patch.covariance, warp)) < kMostSigma;
        if (!fine && k > 0) continue;
        if (!fine) return found;
        float gain = 0;
        for (int turn = 0; turn < kIterations; ++turn) {
            read(there, at, warp, seen);
            gain = sum(patch.gain, seen);
            if (!(gain > kLeastGain && gain < kMostGain)) break;
            Place step = {sum(patch.step_x, seen) / gain, sum(patch.step_y, seen) / gain};
            const float size = std::sqrt(step.x * step.x + step.y * step.y);
            if (size > kLargestStep) step.x *= kLargestStep / size, step.y *= kLargestStep / size;
            const Place moved = warp.first_order(step);
            at.x -= moved.x, at.y -= moved.y;
            if (size < kSmallStep || !there.shows(at)) break;
        }
        const bool good = gain > kLeastGain && gain < kMostGain && there.shows(at);
        if (k > 0) {
            if (good) found.at = {at.x * here.scale, at.y * here.scale};
            continue;
        }
        if (!good) return found;
        judge(patch, warp, gain, seen, found);
        found.at = at, found.ok = true;
    }
    return found;
}

bool finite(Place p) { return std::isfinite(p.x) && std::isfinite(p.y); }

// A point found, and how far from its start it lands on the way back; infinity if it does not.
struct Round {
    Found there;
    float returned;

    bool sure() const { return there.ok && returned < kSureReturn && there.likeness > kSureLikeness; }
};

Round there_and_back(const m4d_picture &source, const m4d_picture &target, int32_t label, Place from, Place guess,
                     const Warp &warp, int levels) {
    const float nowhere = std::numeric_limits<float>::infinity();
    const Found there = align(source, target, label, from, guess, warp, levels);
    if (!there.ok) return {there, nowhere};
    const Warp back = warp.inverse();
    const Place off = back.first_order({there.at.x - guess.x, there.at.y - guess.y});
    const Found home = align(target, source, label, there.at, {from.x + off.x, from.y + off.y}, back, levels);
    if (!home.ok) return {there, nowhere};
    const Place miss = warp.first_order({home.at.x - from.x, home.at.y - from.y});
    return {there, std::sqrt(miss.x * miss.x + miss.y * miss.y)};
}

// Most guesses are good: coarse levels, on which small things are smeared, are only asked where the finest is not sure.
void align_points(const m4d_picture *pictures, const m4d_alignments &points, int64_t begin, int64_t end) {
    const float nothing = std::numeric_limits<float>::quiet_NaN();
    for (int64_t n = begin; n < end; ++n) {
        float *uv = points.uv + 2 * n;
        uv[0] = uv[1] = points.returned[n] = points.likeness[n] = points.sigma[n] = nothing;
        const Place from = {points.uv_source[2 * n], points.uv_source[2 * n + 1]};
        const Place guess = {points.uv_guess[2 * n], points.uv_guess[2 * n + 1]};
        Warp warp;
        std::copy_n(points.warp + 10 * n, 5, warp.x), std::copy_n(points.warp + 10 * n + 5, 5, warp.y);
        const float size = std::fabs(warp.determinant());
        if (!finite(from) || !finite(guess) || !finite(warp({1, 1})) || !(size > kSmallest && size < kLargest)) continue;
        const m4d_picture &source = pictures[points.source[n]], &target = pictures[points.target[n]];
        Round best = there_and_back(source, target, points.label[n], from, guess, warp, 1);
        if (!best.sure() && points.levels > 1) {
            const Round other = there_and_back(source, target, points.label[n], from, guess, warp, points.levels);
            if (!best.there.ok || other.returned < best.returned) best = other;
        }
        if (!best.there.ok) continue;
        uv[0] = best.there.at.x, uv[1] = best.there.at.y, points.returned[n] = best.returned;
        points.likeness[n] = best.there.likeness, points.sigma[n] = best.there.sigma;
    }
}

}  // namespace

const m4d::AlignKernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const AlignKernels kernels = {align_points};
    return kernels;
}
