// The losses of one rendered frame and their gradients by its images. Internal linkage and builtins only: compiled once
// per instruction set (see step_kernels.cpp).
#pragma once

#include "math.h"
#include "step.h"

namespace {

using namespace m4d;

constexpr int kPixels = 256;  // of a row, handled together
constexpr float kDrawn = 1e-4f, kLeastAlpha = 1e-3f, kLeastDepth = 1e-3f, kMostDepthError = 0.2f;
constexpr float kSolid = 0.5f;  // alpha above which depth and tracks are compared
constexpr float kLeastChosen = 1e-4f, kRobust = 0.7f;  // of the generalised cross-entropy
constexpr float kC1 = 0.01f * 0.01f, kC2 = 0.03f * 0.03f;  // of SSIM
constexpr float kMostTrack = 16.0f;  // px
constexpr float kLeastConfidence = 1e-4f;

inline float larger_of(float a, float b) { return a > b ? a : b; }
inline float smaller_of(float a, float b) { return a < b ? a : b; }

inline float *colors_of(const m4d_frame &f) { return f.scratch; }
inline float *map_of(const m4d_frame &f, int k) {
    return f.scratch + 3 * static_cast<int64_t>(f.width) * f.height * (k + 1);
}

inline float trust_of(const m4d_frame &f, int64_t pixel) {
    if (!f.trusting) return 1.0f;
    return f.rendered[pixel * f.features + 3 + f.channels] / larger_of(f.alpha[pixel], kLeastAlpha);
}

inline float depth_weight_of(const m4d_frame &f, int64_t pixel) {
    return f.alpha[pixel] > kSolid ? f.depth_weight[pixel] * trust_of(f, pixel) : 0.0f;
}

// Colours side by side, and what the losses are divided by.
void gather(const m4d_frame &f, double (*sums)[kRowSums], int begin, int end) {
    for (int y = begin; y < end; ++y) {
        const int64_t row = static_cast<int64_t>(y) * f.width;
        float *colors = colors_of(f) + 3 * row;
        double known = 0, weight = 0;
        for (int x = 0; x < f.width; ++x) {
            known += f.known[row + x];
            if (!f.appearance) continue;
            for (int k = 0; k < 3; ++k) colors[3 * x + k] = f.rendered[(row + x) * f.features + k];
            weight += depth_weight_of(f, row + x);
        }
        sums[y][kKnown] = known, sums[y][kDepthWeight] = weight;
    }
}

// Rows of windows: similarity, and its slopes by the mean, the mean square and the mean product of the rendered
// colours (Wang et al. 2004, uniform windows).
void similarity(const m4d_frame &f, double (*sums)[kRowSums], int begin, int end, float *line) {
    const int row = 3 * f.width, windows = 3 * (f.width - kWindow + 1);
    float *__restrict va = line, *__restrict vaa = line + row, *__restrict vab = line + 2 * row;
    const float area = 1.0f / (kWindow * kWindow);
    for (int y = begin; y < end; ++y) {
        for (int j = 0; j < 3 * row; ++j) line[j] = 0.0f;
        for (int k = 0; k < kWindow; ++k) {
            const float *a = colors_of(f) + static_cast<int64_t>(y + k) * row;
            const float *b = f.image + static_cast<int64_t>(y + k) * row;
            for (int j = 0; j < row; ++j) va[j] += a[j], vaa[j] += a[j] * a[j], vab[j] += a[j] * b[j];
        }
        const int64_t first = static_cast<int64_t>(y) * windows;
        const float *__restrict mean_b = f.window_mean + first, *__restrict bb = f.window_square + first;
        float *__restrict by_mean = map_of(f, 0) + first, *__restrict by_aa = map_of(f, 1) + first;
        float *__restrict by_ab = map_of(f, 2) + first;
        double similar = 0;
        for (int j0 = 0; j0 < windows; j0 += kPixels) {
            const int count = windows - j0 < kPixels ? windows - j0 : kPixels;
            float values[kPixels];
            for (int i = 0; i < count; ++i) {
                const int j = j0 + i;
                float mean = 0, aa = 0, ab = 0;
                for (int k = 0; k < 3 * kWindow; k += 3) mean += va[j + k], aa += vaa[j + k], ab += vab[j + k];
                mean *= area, aa *= area, ab *= area;
                const float product = mean * mean_b[j], squares = mean * mean + mean_b[j] * mean_b[j];
                const float light = 2.0f * product + kC1, contrast = 2.0f * (ab - product) + kC2;
                const float light_norm = squares + kC1, contrast_norm = aa + bb[j] - squares + kC2;
                const float value = light * contrast / (light_norm * contrast_norm);
                const float slope_aa = -value / contrast_norm, slope_ab = 2.0f * light / (light_norm * contrast_norm);
                by_aa[j] = slope_aa;
                by_ab[j] = slope_ab;
                by_mean[j] = 2.0f * mean_b[j] * contrast / (light_norm * contrast_norm) -
                             2.0f * value * mean / light_norm - mean_b[j] * slope_ab - 2.0f * mean * slope_aa;
                values[i] = value;
            }
            for (int i = 0; i < count; ++i) similar += values[i];
        }
        sums[y][kSimilarity] = similar;
    }
}

// Gradient of the colours' loss over row `y` (3 W floats), in `line`; adds up the absolute differences.
inline double colors_backward(const m4d_frame &f, int y, float *line) {
    const int row = 3 * f.width, windows = 3 * (f.width - kWindow + 1), padded = row + 3 * (kWindow - 1);
    const float *a = colors_of(f) + static_cast<int64_t>(y) * row, *b = f.image + static_cast<int64_t>(y) * row;
    const bool structure = f.window_mean != nullptr;
    const double share = structure ? f.ssim : 0.0;
    const float by_l1 = static_cast<float>(f.rgb * (1.0 - share) / (static_cast<double>(row) * f.height));
    double absolute = 0;
    float *v[3] = {line, line + padded, line + 2 * padded};
    float by_window = 0;
    if (structure) {
        by_window = static_cast<float>(-f.rgb * share / (static_cast<double>(windows) * (f.height - kWindow + 1)) /
                                       (kWindow * kWindow));
        const int low = y - kWindow + 1 > 0 ? y - kWindow + 1 : 0;
        const int high = y < f.height - kWindow ? y : f.height - kWindow;
        for (int m = 0; m < 3; ++m) {
            float *__restrict sum = v[m] + 3 * (kWindow - 1);
            for (int j = 0; j < padded; ++j) v[m][j] = 0.0f;
            for (int k = low; k <= high; ++k) {
                const float *__restrict from = map_of(f, m) + static_cast<int64_t>(k) * windows;
                for (int j = 0; j < windows; ++j) sum[j] += from[j];
            }
        }
    }
    // Windows behind a pixel are read before its place is written: `line` is overwritten from the left.
    for (int j0 = 0; j0 < row; j0 += kPixels) {
        const int count = row - j0 < kPixels ? row - j0 : kPixels;
        float size[kPixels], out[kPixels];
        for (int i = 0; i < count; ++i) {
            const int j = j0 + i;
            const float off = a[j] - b[j];
            size[i] = off < 0 ? -off : off;
            out[i] = off > 0 ? by_l1 : (off < 0 ? -by_l1 : 0.0f);
        }
        for (int i = 0; structure && i < count; ++i) {
            const int j = j0 + i;
            float by_mean = 0, by_aa = 0, by_ab = 0;
            for (int k = 0; k < 3 * kWindow; k += 3) by_mean += v[0][j + k], by_aa += v[1][j + k], by_ab += v[2][j + k];
            out[i] += by_window * (by_mean + 2.0f * a[j] * by_aa + b[j] * by_ab);
        }
        for (int i = 0; i < count; ++i) absolute += size[i];
        for (int i = 0; i < count; ++i) line[j0 + i] = out[i];
    }
    return absolute;
}

// Gradients of labels and depth over up to kPixels pixels from `pixel` on.
struct Block {
    float chosen[kPixels], label[kPixels];           // gradient by the probability of the target's label
    float alpha[kPixels], depth_sum[kPixels];        // gradients
    float semantic[kPixels], depth_error[kPixels];   // weighted losses
};

inline void labels_backward(const m4d_frame &f, double known, int64_t pixel, int count, Block &o) {
    const float factor = static_cast<float>(f.mask / known);
    const int first = f.appearance ? 3 : 0;
    for (int i = 0; i < count; ++i) {
        const int64_t label = f.label[pixel + i];
        const float nothing = label == 0 ? 1.0f - f.alpha[pixel + i] : 0.0f;
        o.chosen[i] = f.rendered[(pixel + i) * f.features + first + label] + nothing;
    }
    for (int i = 0; i < count; ++i) {
        const float raw = o.chosen[i];
        float c = raw < kLeastChosen ? kLeastChosen : raw;
        c = c > 1.0f ? 1.0f : c;
        const float slope = exponential((kRobust - 1.0f) * logarithm(c));  // c^(q - 1)
        const float weight = f.known[pixel + i];
        o.semantic[i] = weight * (1.0f - c * slope) / kRobust;
        o.label[i] = raw >= kLeastChosen && raw <= 1.0f ? -factor * weight * slope : 0.0f;
    }
    for (int i = 0; i < count; ++i) o.alpha[i] = f.label[pixel + i] == 0 ? -o.label[i] : 0.0f;
}

inline void depth_backward(const m4d_frame &f, double weights, int64_t pixel, int count, Block &o) {
    const float factor = static_cast<float>(f.depth / weights);
    for (int i = 0; i < count; ++i) {
        const float alpha = f.alpha[pixel + i], sum = f.depth_sum[pixel + i], prior = f.depth_m[pixel + i];
        const bool drawn = alpha > kDrawn;
        const float depth = drawn ? sum / alpha : 0.0f, limited = larger_of(depth, kLeastDepth);
        const float error = prior / limited - 1.0f, size = error < 0 ? -error : error;
        const float weight = depth_weight_of(f, pixel + i);
        o.depth_error[i] = weight * smaller_of(size, kMostDepthError);
        const bool counts = drawn && depth >= kLeastDepth && size <= kMostDepthError && size > 0;
        const float by_depth = counts ? factor * weight * (error > 0 ? -prior : prior) / (limited * limited) : 0.0f;
        o.depth_sum[i] = counts ? by_depth / alpha : 0.0f;
        o.alpha[i] -= counts ? by_depth * depth / alpha : 0.0f;
    }
}

// All gradients of rows but those of tracks, which are added later.
void losses(const m4d_frame &f, const m4d_frame_gradients &g, const Totals &totals, double (*sums)[kRowSums], int begin,
            int end, float *line) {
    const int first = f.appearance ? 3 : 0;
    Block o;
    for (int y = begin; y < end; ++y) {
        const int64_t row = static_cast<int64_t>(y) * f.width;
        if (f.appearance) sums[y][kL1] = colors_backward(f, y, line);
        float *features = g.features + row * f.features;
        for (int64_t k = 0; k < static_cast<int64_t>(f.width) * f.features; ++k) features[k] = 0.0f;
        double semantic = 0, depth = 0;
        for (int x0 = 0; x0 < f.width; x0 += kPixels) {
            const int count = f.width - x0 < kPixels ? f.width - x0 : kPixels;
            labels_backward(f, totals.known, row + x0, count, o);
            if (f.appearance) depth_backward(f, totals.depth_weight, row + x0, count, o);
            for (int i = 0; i < count; ++i) {
                const int64_t pixel = row + x0 + i;
                float *to = features + (x0 + i) * static_cast<int64_t>(f.features);
                to[first + f.label[pixel]] = o.label[i];
                semantic += o.semantic[i];
                if (!f.appearance) continue;
                for (int k = 0; k < 3; ++k) to[k] = line[3 * (x0 + i) + k];
                g.alpha[pixel] = o.alpha[i];
                g.depth_sum[pixel] = o.depth_sum[i];
                depth += o.depth_error[i];
            }
        }
        sums[y][kSemantic] = semantic, sums[y][kDepthError] = depth;
    }
}

// Four pixels around a point and their shares; outside the image the border is repeated.
struct Corners {
    int64_t pixel[4];
    float share[4];
};

inline Corners corners(int width, int height, float x, float y) {
    x = x > 0 ? smaller_of(x, width - 1.0f) : 0.0f;  // 0 for NaN, too
    y = y > 0 ? smaller_of(y, height - 1.0f) : 0.0f;
    const int x0 = static_cast<int>(x), y0 = static_cast<int>(y);
    const int x1 = x0 + 1 < width ? x0 + 1 : x0, y1 = y0 + 1 < height ? y0 + 1 : y0;
    const float fx = x - static_cast<float>(x0), fy = y - static_cast<float>(y0);
    const int64_t top = static_cast<int64_t>(y0) * width, bottom = static_cast<int64_t>(y1) * width;
    return {{top + x0, top + x1, bottom + x0, bottom + x1},
            {(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy}};
}

inline void read(const Corners &c, const float *image, int64_t stride, int count, float *out) {
    for (int k = 0; k < count; ++k) {
        out[k] = 0;
        for (int j = 0; j < 4; ++j) out[k] += c.share[j] * image[c.pixel[j] * stride + k];
    }
}

inline int64_t nearest(float value, int size) {  // limited to the image
    const float whole = __builtin_rintf(value);
    return whole > 0 ? static_cast<int64_t>(smaller_of(whole, size - 1.0f)) : 0;
}

// Whether a point keeps its colour and its label where the scene says it goes (Motion4D, eq. 8).
inline bool consistent(const m4d_frame &f, const float *here, const float *there) {
    float a[3], b[3], difference = 0;
    read(corners(f.width, f.height, here[0], here[1]), f.image, 3, 3, a);
    read(corners(f.width, f.height, there[0], there[1]), f.image_there, 3, 3, b);
    for (int k = 0; k < 3; ++k) difference += a[k] > b[k] ? a[k] - b[k] : b[k] - a[k];
    if (!(difference / 3.0f < static_cast<float>(f.confidence_color))) return false;
    const float x = __builtin_rintf(there[0]), y = __builtin_rintf(there[1]);
    if (!(x >= 0 && y >= 0 && x < f.width && y < f.height)) return false;
    const int64_t from = nearest(here[1], f.height) * f.width + nearest(here[0], f.width);
    return f.label[from] == f.label_there[static_cast<int64_t>(y) * f.width + static_cast<int64_t>(x)];
}

// What the rendering says of one track target.
struct Track {
    Corners at;
    float alpha, trust, xyz[3], camera[3], z, uv[2];
};

// Its place and alpha there, and the rendered confidence where it counts.
inline Track track_at(const m4d_frame &f, int p) {
    Track t;
    t.at = corners(f.width, f.height, f.uv_source[2 * p], f.uv_source[2 * p + 1]);
    read(t.at, f.alpha, 1, 1, &t.alpha);
    t.trust = 0;
    for (int j = 0; j < 4 && f.trusting; ++j) {
        const int64_t pixel = t.at.pixel[j];
        t.trust += t.at.share[j] * f.rendered[pixel * f.features + 3 + f.channels] /
                   larger_of(f.alpha[pixel], kLeastAlpha);
    }
    return t;
}

// Where it is rendered at the other time.
inline void follow(const m4d_frame &f, Track &t) {
    float sums[3];
    read(t.at, f.rendered + 4 + f.channels, f.features, 3, sums);
    for (int k = 0; k < 3; ++k) t.xyz[k] = sums[k] / larger_of(t.alpha, kLeastAlpha);
    for (int r = 0; r < 3; ++r) {
        const double *T = f.T_other + 4 * r;
        t.camera[r] = static_cast<float>(T[0] * t.xyz[0] + T[1] * t.xyz[1] + T[2] * t.xyz[2] + T[3]);
    }
    t.z = larger_of(t.camera[2], 1e-2f);
    t.uv[0] = static_cast<float>(f.fx * t.camera[0] / t.z + f.cx);
    t.uv[1] = static_cast<float>(f.fy * t.camera[1] / t.z + f.cy);
}

inline float track_weight(const m4d_frame &f, int p, const Track &t) {
    const float trust = f.trusting ? (t.trust > 0 ? smaller_of(t.trust, 1.0f) : 0.0f) : 1.0f;
    return t.alpha > kSolid ? f.track_weight[p] * trust : 0.0f;
}

// Adds gradients by the positions at the other time (3) and by alpha at the corners of a track.
inline void track_backward(const m4d_frame &f, const m4d_frame_gradients &g, const Track &t, const float by_uv[2]) {
    const double along_x = by_uv[0] * f.fx / t.z, along_y = by_uv[1] * f.fy / t.z;
    const double away = t.camera[2] >= 1e-2f ? -(along_x * t.camera[0] + along_y * t.camera[1]) / t.z : 0.0;
    const float divisor = larger_of(t.alpha, kLeastAlpha);
    float by_sum[3], by_alpha = 0;
    for (int k = 0; k < 3; ++k) {
        by_sum[k] = static_cast<float>((f.T_other[k] * along_x + f.T_other[4 + k] * along_y + f.T_other[8 + k] * away) /
                                       divisor);
        by_alpha -= by_sum[k] * t.xyz[k];
    }
    if (t.alpha < kLeastAlpha) by_alpha = 0;
    for (int j = 0; j < 4; ++j) {
        const int64_t pixel = t.at.pixel[j];
        for (int k = 0; k < 3; ++k) g.features[pixel * f.features + 4 + f.channels + k] += t.at.share[j] * by_sum[k];
        g.alpha[pixel] += t.at.share[j] * by_alpha;
    }
}

// L_track, weighted by the rendered confidence, and L_w, which teaches it (Motion4D, eq. 6-8).
void tracks(const m4d_frame &f, m4d_frame_gradients &g) {
    double weights = 0;
    for (int p = 0; p < f.points; ++p) weights += track_weight(f, p, track_at(f, p));
    const double size = f.width > f.height ? f.width : f.height, norm = (weights > 1e-6 ? weights : 1e-6) * size;
    double distances = 0, surprise = 0;
    for (int p = 0; p < f.points; ++p) {
        Track t = track_at(f, p);
        follow(f, t);
        const float weight = track_weight(f, p, t);
        const float off[2] = {t.uv[0] - f.uv_target[2 * p], t.uv[1] - f.uv_target[2 * p + 1]};
        const float distance = __builtin_sqrtf(off[0] * off[0] + off[1] * off[1] + 1e-8f);
        distances += weight * smaller_of(distance, kMostTrack);
        if (weight != 0 && distance <= kMostTrack) {
            const double factor = f.track * weight / norm / distance;
            const float by_uv[2] = {static_cast<float>(factor * off[0]), static_cast<float>(factor * off[1])};
            track_backward(f, g, t, by_uv);
        }
        if (!f.trusting) continue;
        const float most = 1.0f - kLeastConfidence;
        const float value = larger_of(kLeastConfidence, smaller_of(t.trust, most));
        const bool same = consistent(f, f.uv_source + 2 * p, t.uv);
        surprise -= __builtin_log(same ? value : 1.0f - value);
        if (!(t.trust >= kLeastConfidence && t.trust <= most)) continue;
        const double slope = (same ? -1.0 / value : 1.0 / (1.0 - value)) * f.confidence / f.points;
        for (int j = 0; j < 4; ++j) {
            const int64_t pixel = t.at.pixel[j];
            g.features[pixel * f.features + 3 + f.channels] +=
                static_cast<float>(slope * t.at.share[j] / larger_of(f.alpha[pixel], kLeastAlpha));
        }
    }
    g.losses[M4D_TRACK] = distances / norm;
    g.losses[M4D_CONFIDENCE] = f.trusting ? surprise / f.points : 0.0;
}

}  // namespace
