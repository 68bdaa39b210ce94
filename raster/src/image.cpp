// Filters and sums over the pixels of an image.

#include "motion4d_image.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <new>
#include <vector>

namespace {

// Values of `here` become more like their neighbours' by `share`.
inline void approach(float *here, const float *neighbour, float share, int channels) {
    for (int c = 0; c < channels; ++c) here[c] += share * (neighbour[c] - here[c]);
}

// Differences of the guide between neighbours `apart` values from each other, summed over channels: at most 255 G.
void differences(const uint8_t *guide, int64_t pixels, int channels, int64_t apart, std::vector<uint16_t> &out) {
    for (int64_t i = 0; i < pixels; ++i) {
        int total = 0;
        for (int c = 0; c < channels; ++c) total += std::abs(guide[i * channels + c + apart] - guide[i * channels + c]);
        out[static_cast<size_t>(i)] = static_cast<uint16_t>(total);
    }
}

}  // namespace

extern "C" {

int m4d_domain_transform(float *values, int32_t height, int32_t width, int32_t channels, const uint8_t *guide,
                         int32_t guide_channels, double sigma_space, double sigma_color, int32_t passes) {
    if (height < 1 || width < 1 || channels < 1) return 0;
    const int64_t pixels = int64_t(height) * width, row = int64_t(width) * channels;
    try {
        std::vector<uint16_t> right(static_cast<size_t>(pixels)), below(static_cast<size_t>(pixels));
        differences(guide, pixels - 1, guide_channels, guide_channels, right);  // the last of a row is not used
        differences(guide, pixels - width, guide_channels, int64_t(width) * guide_channels, below);
        std::vector<float> share(static_cast<size_t>(255 * guide_channels + 1));
        for (int pass = 0; pass < passes; ++pass) {
            const double sigma = sigma_space * std::sqrt(3.0) * std::pow(2.0, passes - pass - 1) / std::sqrt(std::pow(4.0, passes) - 1.0);
            const double decay = -std::sqrt(2.0) / std::max(sigma, 1e-3);
            for (size_t k = 0; k < share.size(); ++k)
                share[k] = float(std::exp(decay * (1.0 + sigma_space / sigma_color * double(k))));
            for (int32_t y = 0; y < height; ++y) {
                float *line = values + y * row;
                const uint16_t *step = right.data() + int64_t(y) * width;
                for (int32_t x = 1; x < width; ++x)
                    approach(line + int64_t(x) * channels, line + int64_t(x - 1) * channels, share[step[x - 1]], channels);
                for (int32_t x = width - 2; x >= 0; --x)
                    approach(line + int64_t(x) * channels, line + int64_t(x + 1) * channels, share[step[x]], channels);
            }
            for (int32_t y = 1; y < height; ++y)
                for (int32_t x = 0; x < width; ++x)
                    approach(values + y * row + int64_t(x) * channels, values + (y - 1) * row + int64_t(x) * channels,
                             share[below[static_cast<size_t>(int64_t(y - 1) * width + x)]], channels);
            for (int32_t y = height - 2; y >= 0; --y)
                for (int32_t x = 0; x < width; ++x)
                    approach(values + y * row + int64_t(x) * channels, values + (y + 1) * row + int64_t(x) * channels,
                             share[below[static_cast<size_t>(int64_t(y) * width + x)]], channels);
        }
    } catch (const std::bad_alloc &) {
        return 1;
    }
    return 0;
}

void m4d_body_misfit(const m4d_body_flow *body) {
    const m4d_body_flow &b = *body;
    const int64_t pixels = int64_t(b.height) * b.width;
    for (int64_t i = 0; i < pixels; ++i) {
        b.misfit[i] = b.cap;
        if (!b.where[i]) continue;
        const float x = (float(i % b.width) - 0.5f * float(b.width)) / b.unit;
        const float y = (float(i / b.width) - 0.5f * float(b.height)) / b.unit;
        const auto left = [&](int f, float &u, float &v) {  // what the affine motion has left in frame f
            const float *flow = b.flow + 2 * (f * pixels + i), *a = b.affine + 6 * f;
            u = flow[0] - (a[0] + a[1] * x + a[2] * y), v = flow[1] - (a[3] + a[4] * x + a[5] * y);
        };
        float along = 0, norm = 1, u, v;
        for (int f = 0; f < b.frames; ++f) {
            if (!b.valid[f * pixels + i]) continue;
            left(f, u, v);
            const float *p = b.parallax + 2 * f, weight = 1 / (b.sigma[f] * b.sigma[f]);
            along += weight * (u * p[0] + v * p[1]), norm += weight * (p[0] * p[0] + p[1] * p[1]);
        }
        const float relief = std::min(std::max(along / norm, -b.relief), b.relief);
        float total = b.typical, count = 1;
        for (int f = 0; f < b.frames; ++f) {
            if (!b.valid[f * pixels + i]) continue;
            left(f, u, v);
            u -= relief * b.parallax[2 * f], v -= relief * b.parallax[2 * f + 1];
            total += std::min(std::sqrt(u * u + v * v) / b.sigma[f], b.cap), count += 1;
        }
        b.misfit[i] = total / count;
    }
}
}
