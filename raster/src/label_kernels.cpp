// Labels of neighbouring frames carried along chains of flow, compiled once per instruction set. Pixels go through each
// step together, in loops that the compiler turns into vectors.

#include "labels.h"

#include <algorithm>

#define M4D_JOIN(a, b) a##b
#define M4D_FUNCTION(isa) M4D_JOIN(label_kernels_, isa)

namespace {

using m4d::LabelKernels;

constexpr int kBlock = 256;                  // pixels handled together
constexpr int kParts = 32;                   // of a pixel, to which places are rounded
constexpr float kLow = -1e4f, kHigh = 1e5f;  // px, beyond which a place is as far outside as any

inline int32_t within(int32_t k, int32_t size) { return k < 0 ? 0 : (k < size ? k : size - 1); }

// The whole number nearest to 32 v or to v; NaN counts as far outside.
inline int32_t rounded(float v, float times) {
    v = v > kLow ? v : kLow;
    v = v < kHigh ? v : kHigh;
    const float shifted = v * times + 12582912.0f;  // 1.5 * 2^23: adding it rounds
    int32_t bits;
    __builtin_memcpy(&bits, &shifted, 4);
    return bits - 0x4B400000;
}

// Four pixels about each of some places, and how far in between these are, in 32nds.
struct Corners {
    int32_t at[4][kBlock], fx[kBlock], fy[kBlock];

    void find(const float *u, const float *v, int count, int32_t height, int32_t width) {
        for (int i = 0; i < count; ++i) {
            const int32_t sx = rounded(u[i], kParts), sy = rounded(v[i], kParts);
            const int32_t x = sx >> 5, y = sy >> 5;
            fx[i] = sx & (kParts - 1), fy[i] = sy & (kParts - 1);
            const int32_t left = within(x, width), right = within(x + 1, width);
            const int32_t top = within(y, height) * width, bottom = within(y + 1, height) * width;
            at[0][i] = top + left, at[1][i] = top + right, at[2][i] = bottom + left, at[3][i] = bottom + right;
        }
    }
    // Shares of the corners, in 1024ths.
    void shares(int i, int32_t (&share)[4]) const {
        const int32_t x = fx[i], y = fy[i];
        share[0] = (kParts - y) * (kParts - x), share[1] = (kParts - y) * x;
        share[2] = y * (kParts - x), share[3] = y * x;
    }
};

// Where some pixels have come to along a chain, and what is said there is worth.
struct Walk {
    float u[kBlock], v[kBlock], worth[kBlock];
    Corners corners;

    void begin(const m4d_label_question &q, int64_t first, int count) {
        for (int i = 0; i < count; ++i) {
            const int32_t pixel = q.pixels[first + i], y = pixel / q.width;
            u[i] = static_cast<float>(pixel - y * q.width), v[i] = static_cast<float>(y), worth[i] = 1.0f;
        }
    }

    void go(const m4d_label_question &q, const m4d_label_link &link, int count) {
        const float across = static_cast<float>(static_cast<double>(link.width) / q.width);
        const float down = static_cast<float>(static_cast<double>(link.height) / q.height);
        const bool same = link.width == q.width && link.height == q.height;
        float x[kBlock], y[kBlock];
        for (int i = 0; i < count; ++i) {
            x[i] = same ? u[i] : (u[i] + 0.5f) * across - 0.5f;
            y[i] = same ? v[i] : (v[i] + 0.5f) * down - 0.5f;
        }
        corners.find(x, y, count, link.height, link.width);
        const float *flow = link.flow, *good = link.worth;
        for (int i = 0; i < count; ++i) {
            int32_t share[4];
            corners.shares(i, share);
            float by_u = 0, by_v = 0;
            for (int j = 0; j < 4; ++j) {
                const float part = static_cast<float>(share[j]) * (1.0f / 1024);
                by_u += part * flow[2 * corners.at[j][i]], by_v += part * flow[2 * corners.at[j][i] + 1];
            }
            u[i] += by_u / across, v[i] += by_v / across;
        }
        if (!good) return;
        for (int i = 0; i < count; ++i) {
            int32_t share[4];
            corners.shares(i, share);
            float sum = 0;
            for (int j = 0; j < 4; ++j) sum += static_cast<float>(share[j]) * (1.0f / 1024) * good[corners.at[j][i]];
            worth[i] *= sum;
        }
    }
};

// Sums of the differences of the three grey levels of pixels and of places, the latter rounded to whole levels.
void differences(const m4d_label_question &q, const uint32_t *look, const Corners &corners, int64_t first, int count,
                 int32_t *unlike) {
    for (int i = 0; i < count; ++i) {
        int32_t share[4];
        corners.shares(i, share);
        int32_t level[3] = {512, 512, 512};
        for (int j = 0; j < 4; ++j) {
            const uint32_t there = look[corners.at[j][i]];
            level[0] += share[j] * static_cast<int32_t>(there & 255);
            level[1] += share[j] * static_cast<int32_t>(there >> 8 & 255);
            level[2] += share[j] * static_cast<int32_t>(there >> 16 & 255);
        }
        const uint32_t here = q.look[q.pixels[first + i]];
        const int32_t r = (level[0] >> 10) - static_cast<int32_t>(here & 255);
        const int32_t g = (level[1] >> 10) - static_cast<int32_t>(here >> 8 & 255);
        const int32_t b = (level[2] >> 10) - static_cast<int32_t>(here >> 16 & 255);
        unlike[i] = (r < 0 ? -r : r) + (g < 0 ? -g : g) + (b < 0 ? -b : b);
    }
}

void say(const m4d_label_question &q, const int32_t *label, const Corners &corners, const float *worth, int count,
         float *said) {
    const int labels = q.labels;
    int32_t number[4][kBlock];
    for (int j = 0; j < 4; ++j)
        for (int i = 0; i < count; ++i) number[j][i] = label[corners.at[j][i]];
    for (int64_t k = 0; k < static_cast<int64_t>(count) * labels; ++k) said[k] = 0.0f;
    for (int i = 0; i < count; ++i, said += labels) {
        const int32_t a = number[0][i], b = number[1][i], c = number[2][i], d = number[3][i];
        if (a == b && a == c && a == d) {
            if (a >= 0) said[a] = worth[i];
            continue;
        }
        int32_t share[4];
        corners.shares(i, share);
        for (int j = 0; j < 4; ++j)
            if (number[j][i] >= 0) said[number[j][i]] += worth[i] * (static_cast<float>(share[j]) * (1.0f / 1024));
    }
}

void opinions(const m4d_label_question &q, int64_t begin, int64_t end) {
    Walk walk;
    Corners there;
    for (int64_t first = begin; first < end; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - first));
        float *own = q.said + first * q.labels;
        std::fill_n(own, static_cast<int64_t>(count) * q.labels, 0.0f);
        for (int i = 0; i < count; ++i) {
            const int32_t number = q.label[q.pixels[first + i]];
            if (number >= 0) own[static_cast<int64_t>(i) * q.labels + number] = 1.0f;
        }
        for (int32_t l = 0; l < q.links; ++l) {
            const m4d_label_link &link = q.link[l];
            if (link.begins) walk.begin(q, first, count);
            walk.go(q, link, count);
            there.find(walk.u, walk.v, count, q.height, q.width);
            int32_t unlike[kBlock];
            differences(q, link.look, there, first, count, unlike);
            float worth[kBlock];
            for (int i = 0; i < count; ++i) worth[i] = walk.worth[i] * q.alike[unlike[i]];
            say(q, link.label, there, worth, count, q.said + ((l + int64_t{1}) * q.count + first) * q.labels);
        }
    }
}

void seen(const m4d_label_question &q, uint8_t *out, int64_t begin, int64_t end) {
    Walk walk;
    for (int64_t first = begin; first < end; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - first));
        for (int32_t l = 0; l < q.links; ++l) {
            const m4d_label_link &link = q.link[l];
            if (link.begins) walk.begin(q, first, count);
            walk.go(q, link, count);
            for (int i = 0; i < count; ++i) {
                const int32_t x = within(rounded(walk.u[i], 1), q.width), y = within(rounded(walk.v[i], 1), q.height);
                if (link.label[y * q.width + x] > 0) out[first + i] = 1;
            }
        }
    }
}

void shares(const m4d_label_sums &s, int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kBlock) {
        const int64_t from = first * s.labels, to = std::min<int64_t>(first + kBlock, end) * s.labels;
        float *sum = s.shares;
        for (int64_t j = from; j < to; ++j) sum[j] = 0.0f;
        for (int32_t r = 0; r < s.raters; ++r) {
            const float *said = s.said[r], weight = s.weight[r];
            for (int64_t j = from; j < to; ++j) sum[j] += weight * said[j];
        }
        for (int64_t j = from; s.rendered && j < to; ++j) sum[j] += s.rendered[j];
        for (int64_t i = first; i < to / s.labels; ++i) {
            float *share = sum + i * s.labels, total = 0.0f, most = 0.0f;
            for (int k = 0; k < s.labels; ++k) total += share[k];
            if (!(total > 0)) share[0] = total = 1.0f;  // nobody says anything
            for (int k = 0; k < s.labels; ++k) share[k] /= total, most = std::max(most, share[k]);
            s.largest[i] = most;
        }
    }
}

}  // namespace

const m4d::LabelKernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const LabelKernels kernels = {opinions, seen, shares};
    return kernels;
}
