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

// Sum of `count` floats in an order that vectors can follow: sixteen running sums, added up at the end.
inline double sum_of(const float *values, int count) {
    constexpr int kSums = 16;
    double sums[kSums] = {};
    int i = 0;
    for (; i + kSums <= count; i += kSums)
        for (int k = 0; k < kSums; ++k) sums[k] += values[i + k];
    for (int k = 0; i < count; ++i, ++k) sums[k] += values[i];
    for (int half = kSums / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k) sums[k] += sums[k + half];
    return sums[0];
}

// Colours side by side, and what the losses are divided by.
void gather(const m4d_frame &f, double (*sums)[kRowSums], int begin, int end) {
    for (int y = begin; y < end; ++y) {
        const int64_t row = static_cast<int64_t>(y) * f.width;
        float *colors = colors_of(f) + 3 * row;
        double weight = 0;
        for (int x0 = 0; f.appearance && x0 < f.width; x0 += kPixels) {
            const int count = f.width - x0 < kPixels ? f.width - x0 : kPixels;
            float weights[kPixels];
            for (int i = 0; i < count; ++i) {
                const int64_t pixel = row + x0 + i;
                for (int k = 0; k < 3; ++k) colors[3 * (x0 + i) + k] = f.rendered[pixel * f.features + k];
                weights[i] = depth_weight_of(f, pixel);
            }
            weight += sum_of(weights, count);
        }
        sums[y][kKnown] = sum_of(f.known + row, f.width), sums[y][kDepthWeight] = weight;
    }
}

// Loops over arrays that do not overlap are functions of their own: only so does the compiler know it.

// Sums over the columns of a row of windows: of the rendered colours, their squares, their products with the image.
inline void column_sums(const float *__restrict a, const float *__restrict b, int row, float *__restrict va,
                        float *__restrict vaa, float *__restrict vab) {
    for (int j = 0; j < row; ++j) {
        float sum = 0, squares = 0, products = 0;
        for (int k = 0; k < kWindow; ++k) {
            const float value = a[k * row + j];
            sum += value, squares += value * value, products += value * b[k * row + j];
        }
        va[j] = sum, vaa[j] = squares, vab[j] = products;
    }
}

inline float window_sum(const float *v) {
    float sum = 0;
    for (int k = 0; k < 3 * kWindow; k += 3) sum += v[k];
    return sum;
}

inline float window_column(const float *v, int width) {
    float sum = 0;
    for (int k = 0; k < kWindow; ++k) sum += v[static_cast<int64_t>(k) * width];
    return sum;
}

// Similarity of `count` windows and its slopes, from sums over columns and what is known of the image.
inline void compare_windows(int count, const float *__restrict va, const float *__restrict vaa,
                            const float *__restrict vab, const float *__restrict mean_b, const float *__restrict bb,
                            float *__restrict by_mean, float *__restrict by_aa, float *__restrict by_ab,
                            float *__restrict values) {
    const float area = 1.0f / (kWindow * kWindow);
    for (int j = 0; j < count; ++j) {
        const float mean = area * window_sum(va + j), aa = area * window_sum(vaa + j), ab = area * window_sum(vab + j);
        const float product = mean * mean_b[j], squares = mean * mean + mean_b[j] * mean_b[j];
        const float light = 2.0f * product + kC1, contrast = 2.0f * (ab - product) + kC2;
        const float light_norm = squares + kC1, contrast_norm = aa + bb[j] - squares + kC2;
        const float share = 1.0f / (light_norm * contrast_norm);  // the one division
        const float value = light * contrast * share;
        const float slope_aa = -value * light_norm * share, slope_ab = 2.0f * light * share;
        by_aa[j] = slope_aa;
        by_ab[j] = slope_ab;
        by_mean[j] = 2.0f * share * (mean_b[j] * contrast - value * mean * contrast_norm) - mean_b[j] * slope_ab -
                     2.0f * mean * slope_aa;
        values[j] = value;
    }
}

// Rows of windows: similarity, and its slopes by the mean, the mean square and the mean product of the rendered
// colours (Wang et al. 2004, uniform windows).
void similarity(const m4d_frame &f, double (*sums)[kRowSums], int begin, int end, float *line) {
    const int row = 3 * f.width, windows = 3 * (f.width - kWindow + 1);
    for (int y = begin; y < end; ++y) {
        const int64_t from = static_cast<int64_t>(y) * row;
        column_sums(colors_of(f) + from, f.image + from, row, line, line + row, line + 2 * row);
        double similar = 0;
        for (int j = 0; j < windows; j += kPixels) {
            const int count = windows - j < kPixels ? windows - j : kPixels;
            const int64_t to = static_cast<int64_t>(y) * windows + j;
            float values[kPixels];
            compare_windows(count, line + j, line + row + j, line + 2 * row + j, f.window_mean + to,
                            f.window_square + to, map_of(f, 0) + to, map_of(f, 1) + to, map_of(f, 2) + to, values);
            similar += sum_of(values, count);
        }
        sums[y][kSimilarity] = similar;
    }
}

// Adds `rows` rows of `width` floats to `sum`.
inline void add_rows(const float *__restrict from, int rows, int width, float *__restrict sum) {
    if (rows == kWindow)  // as nearly always: a loop of known length
        for (int j = 0; j < width; ++j) sum[j] += window_column(from + j, width);
    else
        for (int k = 0; k < rows; ++k)
            for (int j = 0; j < width; ++j) sum[j] += from[static_cast<int64_t>(k) * width + j];
}

inline void absolute_backward(int count, const float *__restrict a, const float *__restrict b, float by_l1,
                              float *__restrict size, float *__restrict out) {
    for (int i = 0; i < count; ++i) {
        const float off = a[i] - b[i];
        size[i] = off < 0 ? -off : off;
        out[i] = off > 0 ? by_l1 : (off < 0 ? -by_l1 : 0.0f);
    }
}

inline void windows_backward(int count, const float *__restrict a, const float *__restrict b,
                             const float *__restrict mean, const float *__restrict aa, const float *__restrict ab,
                             float by_window, float *__restrict out) {
    for (int i = 0; i < count; ++i)
        out[i] += by_window * (window_sum(mean + i) + 2.0f * a[i] * window_sum(aa + i) + b[i] * window_sum(ab + i));
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
            __builtin_memset(v[m], 0, sizeof(float) * padded);
            add_rows(map_of(f, m) + static_cast<int64_t>(low) * windows, high - low + 1, windows,
                     v[m] + 3 * (kWindow - 1));
        }
    }
    // Windows behind a pixel are read before its place is written: `line` is overwritten from the left.
    for (int j = 0; j < row; j += kPixels) {
        const int count = row - j < kPixels ? row - j : kPixels;
        float size[kPixels], out[kPixels];
        absolute_backward(count, a + j, b + j, by_l1, size, out);
        if (structure) windows_backward(count, a + j, b + j, v[0] + j, v[1] + j, v[2] + j, by_window, out);
        absolute += sum_of(size, count);
        __builtin_memcpy(line + j, out, sizeof(float) * count);
    }
    return absolute;
}

// Gradients of labels and depth over up to kPixels pixels from `pixel` on.
struct Block {
    float chosen[kPixels], label[kPixels];           // gradient by the probability of the target's label
    float alpha[kPixels], depth_sum[kPixels];        // gradients
    float semantic[kPixels], depth_error[kPixels];   // weighted losses
    float nothing[kPixels], weight[kPixels];         // 1 where the label is background; weight of the depth
};

inline void chosen_backward(int count, const float *__restrict known, float factor, Block &__restrict o) {
    for (int i = 0; i < count; ++i) {
        const float raw = o.chosen[i];
        float c = raw < kLeastChosen ? kLeastChosen : raw;
        c = c > 1.0f ? 1.0f : c;
        const float slope = exponential((kRobust - 1.0f) * logarithm(c));  // c^(q - 1)
        o.semantic[i] = known[i] * (1.0f - c * slope) * (1.0f / kRobust);
        o.label[i] = raw == c ? -factor * known[i] * slope : 0.0f;
        o.alpha[i] = -o.label[i] * o.nothing[i];
    }
}

inline void labels_backward(const m4d_frame &f, double known, int64_t pixel, int count, Block &o) {
    const int first = f.appearance ? 3 : 0;
    for (int i = 0; i < count; ++i) {
        const int64_t label = f.label[pixel + i];
        o.nothing[i] = label == 0 ? 1.0f : 0.0f;
        o.chosen[i] = f.rendered[(pixel + i) * f.features + first + label] + o.nothing[i] * (1.0f - f.alpha[pixel + i]);
    }
    chosen_backward(count, f.known + pixel, static_cast<float>(f.mask / known), o);
}

inline void depths_backward(int count, const float *__restrict alphas, const float *__restrict sums,
                            const float *__restrict priors, float factor, Block &__restrict o) {
    for (int i = 0; i < count; ++i) {
        const float alpha = alphas[i], inverse = 1.0f / (alpha > kDrawn ? alpha : 1.0f), prior = priors[i];
        const float depth = alpha > kDrawn ? sums[i] * inverse : 0.0f;
        const float near = 1.0f / (depth > kLeastDepth ? depth : kLeastDepth);
        const float error = prior * near - 1.0f, size = error < 0 ? -error : error;
        const float weight = o.weight[i];
        o.depth_error[i] = weight * (size < kMostDepthError ? size : kMostDepthError);
        float by_depth = error > 0 ? -prior : prior;
        by_depth *= factor * weight * near * near * inverse;
        by_depth = alpha > kDrawn ? by_depth : 0.0f;
        by_depth = depth >= kLeastDepth ? by_depth : 0.0f;
        by_depth = size <= kMostDepthError ? by_depth : 0.0f;
        by_depth = size > 0 ? by_depth : 0.0f;
        o.depth_sum[i] = by_depth;
        o.alpha[i] -= by_depth * depth;
    }
}

inline void depth_backward(const m4d_frame &f, double weights, int64_t pixel, int count, Block &o) {
    for (int i = 0; i < count; ++i) o.weight[i] = depth_weight_of(f, pixel + i);
    depths_backward(count, f.alpha + pixel, f.depth_sum + pixel, f.depth_m + pixel,
                    static_cast<float>(f.depth / weights), o);
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
                if (!f.appearance) continue;
                for (int k = 0; k < 3; ++k) to[k] = line[3 * (x0 + i) + k];
                g.alpha[pixel] = o.alpha[i];
                g.depth_sum[pixel] = o.depth_sum[i];
            }
            semantic += sum_of(o.semantic, count);
            if (f.appearance) depth += sum_of(o.depth_error, count);
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
        surprise -= logarithm(same ? value : 1.0f - value);
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
