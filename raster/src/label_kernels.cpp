// Labels of neighbouring frames carried along chains of flow, compiled once per instruction set. Pixels go through each
// step together, in loops that the compiler turns into vectors.

#include "labels.h"

#include <algorithm>
#include <cmath>
#include <vector>

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

// The entries of some pixels, a row of them for each.
struct Entries {
    int row;  // most of a pixel
    std::vector<uint8_t> rater;
    std::vector<uint16_t> named;
    std::vector<float> weight;
    int32_t many[kBlock];

    explicit Entries(int most) : row(most), rater(kBlock * most), named(kBlock * most), weight(kBlock * most) {}

    void clear(int count) { std::fill_n(many, count, 0); }
    // Adds what a rater names; labels that it has named before, from entry `from` on, become worth more.
    void add(int i, int from, int by, int32_t label, float worth) {
        const int64_t at = static_cast<int64_t>(i) * row;
        for (int e = from; e < many[i]; ++e)
            if (named[at + e] == label) {
                weight[at + e] += worth;
                return;
            }
        if (!(worth > 0)) return;
        const int64_t last = at + many[i]++;
        rater[last] = static_cast<uint8_t>(by), named[last] = static_cast<uint16_t>(label), weight[last] = worth;
    }
};

void say(const int32_t *label, const Corners &corners, const float *worth, int count, int by, Entries &entries) {
    int32_t number[4][kBlock];
    for (int j = 0; j < 4; ++j)
        for (int i = 0; i < count; ++i) number[j][i] = label[corners.at[j][i]];
    for (int i = 0; i < count; ++i) {
        const int32_t a = number[0][i], b = number[1][i], c = number[2][i], d = number[3][i];
        const int from = entries.many[i];
        if (a == b && a == c && a == d) {
            if (a >= 0) entries.add(i, from, by, a, worth[i]);
            continue;
        }
        int32_t share[4];
        corners.shares(i, share);
        for (int j = 0; j < 4; ++j)
            if (number[j][i] >= 0)
                entries.add(i, from, by, number[j][i], worth[i] * (static_cast<float>(share[j]) * (1.0f / 1024)));
    }
}

// What the scene shows at some pixels: the labels with the largest shares.
void show(const m4d_label_question &q, int64_t first, int count, Entries &entries) {
    const m4d_label_scene &s = *q.scene;
    const float across = static_cast<float>(static_cast<double>(s.width) / q.width);
    const float down = static_cast<float>(static_cast<double>(s.height) / q.height);
    float u[kBlock], v[kBlock];
    for (int i = 0; i < count; ++i) {
        const int32_t pixel = q.pixels[first + i], y = pixel / q.width;
        u[i] = (static_cast<float>(pixel - y * q.width) + 0.5f) * across - 0.5f;
        v[i] = (static_cast<float>(y) + 0.5f) * down - 0.5f;
    }
    Corners corners;
    corners.find(u, v, count, s.height, s.width);
    std::vector<float> sum(q.labels);
    for (int i = 0; i < count; ++i) {
        int32_t share[4];
        corners.shares(i, share);
        std::fill(sum.begin(), sum.end(), 0.0f);
        const float *at[4];
        for (int j = 0; j < 4; ++j) at[j] = s.share + static_cast<int64_t>(corners.at[j][i]) * s.channels;
        for (int c = 0; c < s.channels; ++c) {
            float value = 0;
            for (int j = 0; j < 4; ++j) value += static_cast<float>(share[j]) * (1.0f / 1024) * at[j][c];
            sum[s.number[c]] += value;
        }
        for (int n = 0; n < M4D_SCENE_LABELS; ++n) {
            const auto most = std::max_element(sum.begin(), sum.end());
            if (!(*most > 0)) break;
            entries.add(i, entries.many[i], q.links + 1, static_cast<int32_t>(most - sum.begin()), *most);
            *most = 0;
        }
    }
}

void opinions(const m4d_label_question &q, int64_t begin, int64_t end) {
    Walk walk;
    Corners there;
    const int row = 4 * (q.links + 1) + M4D_SCENE_LABELS;
    Entries entries(row);
    int64_t out = begin * row;
    for (int64_t first = begin; first < end; first += kBlock) {
        const int count = static_cast<int>(std::min<int64_t>(kBlock, end - first));
        entries.clear(count);
        for (int i = 0; i < count; ++i) {
            const int32_t number = q.label[q.pixels[first + i]];
            if (number >= 0) entries.add(i, 0, 0, number, 1.0f);
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
            say(link.label, there, worth, count, l + 1, entries);
        }
        if (q.scene) show(q, first, count, entries);
        for (int i = 0; i < count; ++i) {
            const int64_t from = static_cast<int64_t>(i) * row;
            const int32_t many = q.many[first + i] = entries.many[i];
            std::copy_n(&entries.rater[from], many, q.rater + out);
            std::copy_n(&entries.named[from], many, q.named + out);
            std::copy_n(&entries.weight[from], many, q.weight + out);
            out += many;
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

void shares(const m4d_label_said &s, const m4d_label_shares &out, int64_t begin, int64_t end) {
    std::vector<float> sum(s.labels, 0.0f);
    std::vector<uint16_t> found;
    int64_t to = s.start[begin] + begin;
    for (int64_t i = begin; i < end; ++i) {
        found.assign(1, 0);
        for (int64_t e = s.start[i]; e < s.start[i + 1]; ++e) {
            if (std::find(found.begin(), found.end(), s.named[e]) == found.end()) found.push_back(s.named[e]);
            sum[s.named[e]] += out.worth[s.rater[e]] * s.weight[e];
        }
        std::sort(found.begin(), found.end());
        float total = 0.0f;
        for (const uint16_t label : found) total += sum[label];
        if (!(total > 0)) sum[0] = total = 1.0f;  // nobody says anything
        for (const uint16_t label : found) {
            out.possible[to] = label, out.share[to++] = sum[label] / total;
            sum[label] = 0.0f;
        }
        out.many[i] = static_cast<int32_t>(found.size());
    }
}

void judge(const m4d_label_said &s, const m4d_label_values &labels, const float *worth, const float *const *likelihood,
           int32_t unheard, int32_t normalised, int64_t begin, int64_t end) {
    std::vector<int64_t> heard(s.labels, -1);  // the last pixel about which a label was named
    for (int64_t i = begin; i < end; ++i) {
        const int64_t from = labels.first[i];
        const int many = static_cast<int>(labels.first[i + 1] - from);
        const uint16_t *possible = labels.possible + from;
        float *value = labels.value + from;
        std::fill_n(value, many, 0.0f);
        bool silence = true;
        for (int64_t e = s.start[i]; e < s.start[i + 1]; ++e) {
            const int rater = s.rater[e];
            if (rater == unheard) continue;
            silence = false;
            heard[s.named[e]] = i;
            const float word = worth[rater] * s.weight[e];
            const float *of = likelihood[rater] + s.named[e];
            for (int k = 0; k < many; ++k) value[k] += word * of[static_cast<int64_t>(possible[k]) * s.labels];
        }
        if (silence) heard[0] = i;
        if (!normalised) continue;
        float most = -INFINITY, total = 0.0f;
        for (int k = 0; k < many; ++k)
            if (heard[possible[k]] == i) most = std::max(most, value[k]);
        for (int k = 0; k < many; ++k) {
            value[k] = heard[possible[k]] == i ? std::exp(value[k] - most) : 0.0f;
            total += value[k];
        }
        for (int k = 0; k < many; ++k) value[k] /= total;
    }
}

void count(const m4d_label_said &s, const m4d_label_values &labels, double *const *counts) {
    for (int64_t i = 0; i < s.count; ++i) {
        const int64_t from = labels.first[i];
        const int many = static_cast<int>(labels.first[i + 1] - from);
        for (int64_t e = s.start[i]; e < s.start[i + 1]; ++e) {
            double *to = counts[s.rater[e]];
            if (!to) continue;
            to += s.named[e];
            for (int k = 0; k < many; ++k)
                to[static_cast<int64_t>(labels.possible[from + k]) * s.labels] +=
                    static_cast<double>(labels.value[from + k]) * s.weight[e];
        }
    }
}

}  // namespace

const m4d::LabelKernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const LabelKernels kernels = {opinions, seen, shares, judge, count};
    return kernels;
}
