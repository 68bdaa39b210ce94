// Blending of one tile, forward and backward. Compiled once per instruction set (M4D_KERNELS names the result).
//
// Forward: per block of 4x4 pixels, near to far, transmittance and sums stay in registers.
// Backward: the weights are recomputed near to far and kept, then walked far to near with R, the radiance that
// arrives from behind, R <- alpha v + (1 - alpha) R. That gives dL/dalpha = T (v - R) without dividing by 1 - alpha
// and without subtracting large sums.

#include "frame.h"
#include "project.h"
#include "simd.h"

namespace {

using namespace m4d;

struct Tile {
    int x, y;  // px of its first pixel
    int64_t begin, count;
};

M4D_INLINE Tile tile_at(const Frame &f, int index) {
    const int64_t begin = f.tile_begin[index];
    return {index % f.tiles_x * kTile, index / f.tiles_x * kTile, begin, f.tile_begin[index + 1] - begin};
}

// Offsets from the tile's first pixel: of the sixteen pixels of each block, and of each block's first pixel.
struct Grid {
    alignas(64) float x[kBlocks][kLanes], y[kBlocks][kLanes], corner_x[kBlocks], corner_y[kBlocks];
    Grid() {
        for (int b = 0; b < kBlocks; ++b) {
            corner_x[b] = static_cast<float>(b % 4 * kBlock), corner_y[b] = static_cast<float>(b / 4 * kBlock);
            for (int i = 0; i < kLanes; ++i) {
                x[b][i] = static_cast<float>(b % 4 * kBlock + i % kBlock);
                y[b][i] = static_cast<float>(b / 4 * kBlock + i / kBlock);
            }
        }
    }
};

// 1 where the image has a pixel, 0 beyond its border.
M4D_INLINE void inside(const Frame &f, const Tile &t, int b, float *out) {
    for (int i = 0; i < kLanes; ++i) {
        const int x = t.x + b % 4 * kBlock + i % kBlock, y = t.y + b / 4 * kBlock + i / kBlock;
        out[i] = x < f.width && y < f.height ? 1.0f : 0.0f;
    }
}

// Copies what blending needs next to each other: x, y (from the tile's corner), A, B, C, L, reach; and the features.
M4D_INLINE void pack(const Frame &f, const Tile &t, const Scratch &s) {
    const int padded = f.padded, channels = f.channels;
    for (int64_t k = 0; k < t.count; ++k) {
        const uint32_t g = f.entry_splat[t.begin + k];
        const Splat &splat = f.splats[g];
        float *p = s.params + k * 8;
        p[0] = static_cast<float>(splat.x - t.x);
        p[1] = static_cast<float>(splat.y - t.y);
        p[2] = splat.A, p[3] = splat.B, p[4] = splat.C, p[5] = splat.L, p[6] = splat.reach;
        float *to = s.features + k * padded;
        const float *from = f.features + static_cast<int64_t>(g) * channels;
        for (int c = 0; c < channels; ++c) to[c] = from[c];
        to[channels] = splat.depth;
        for (int c = channels + 1; c < padded; ++c) to[c] = 0.0f;
    }
}

// Which blocks of the tile a splat can touch: least_over_rectangle for all sixteen at once, a block per lane.
M4D_INLINE uint32_t touched_blocks(const float *p, const Vec &corner_x, const Vec &corner_y) {
    const Vec zero = fill(0.0f), side = fill(kBlock - 1.0f), A = fill(p[2]), B = fill(p[3]), C = fill(p[4]);
    const Vec x0 = corner_x - fill(p[0]), x1 = x0 + side, y0 = corner_y - fill(p[1]), y1 = y0 + side;
    const Vec nx = smaller(larger(zero, x0), x1), ny = smaller(larger(zero, y0), y1);
    const Vec y_at = smaller(larger(fill(-0.5f * p[3] / p[4]) * nx, y0), y1);
    const Vec x_at = smaller(larger(fill(-0.5f * p[3] / p[2]) * ny, x0), x1);
    const Vec first = (A * nx + B * y_at) * nx + C * y_at * y_at;
    const Vec second = (A * x_at + B * ny) * x_at + C * ny * ny;
    return mask_not_greater(smaller(first, second), fill(p[6]));
}

// Alpha of one splat in one block: clipped above, 0 below 1/255.
M4D_INLINE Vec alpha_of(const float *p, const Vec &dx, const Vec &dy) {
    const Vec slope = fill(p[2]) * dx + fill(p[3]) * dy;
    Vec power = fill(p[5]) - dx * slope;
    power = power - fill(p[4]) * dy * dy;
    const Vec alpha = smaller(exp2_fast(larger(power, fill(-100.0f))), fill(kAlphaMax));
    return where_not_less(alpha, fill(kAlphaMin), alpha);
}

// sums[c] = sum over splats of weight * feature, for K neighbouring channels.
template <int K>
M4D_INLINE void accumulate(const float *weights, const float *features, const uint32_t *list, int64_t count, int padded,
                           float *out) {
    Vec sums[K];
    for (int c = 0; c < K; ++c) sums[c] = fill(0.0f);
    for (int64_t k = 0; k < count; ++k) {
        const Vec w = load(weights + k * kLanes);
        const float *f = features + static_cast<int64_t>(list[k]) * padded;
        for (int c = 0; c < K; ++c) sums[c] = sums[c] + w * fill(f[c]);
    }
    for (int c = 0; c < K; ++c) store(out + c * kLanes, sums[c]);
}

// Calls visit(pixel, lane) for the pixels of a block that the image has: `pixel` counts from the image's first.
template <class Visit>
M4D_INLINE void for_each_pixel(const Frame &f, const Tile &t, int b, const Visit &visit) {
    const int x0 = t.x + b % 4 * kBlock, y0 = t.y + b / 4 * kBlock;
    for (int i = 0; i < kLanes; ++i) {
        const int x = x0 + i % kBlock, y = y0 + i / kBlock;
        if (x < f.width && y < f.height) visit(static_cast<int64_t>(y) * f.width + x, i);
    }
}

M4D_INLINE bool whole(const Frame &f, const Tile &t, int b) {
    return t.x + b % 4 * kBlock + kBlock <= f.width && t.y + b / 4 * kBlock + kBlock <= f.height;
}

// Images are (pixel, channel), blocks (channel, lane): four by four values change places at a time where they can.
M4D_INLINE int64_t first_pixel_of_row(const Frame &f, const Tile &t, int b, int row) {
    return static_cast<int64_t>(t.y + b / 4 * kBlock + row) * f.width + t.x + b % 4 * kBlock;
}

M4D_INLINE void write_block(const Frame &f, const m4d_images &images, const Tile &t, int b, const float *sums,
                            const float *rest) {
    const int quads = whole(f, t, b) ? f.channels / 4 * 4 : 0;
    for (int row = 0; quads && row < kBlock; ++row) {
        float *to = images.features + first_pixel_of_row(f, t, b, row) * f.channels;
        for (int c = 0; c < quads; c += 4) {
            Quad q[4];
            for (int j = 0; j < 4; ++j) q[j] = load_quad(sums + (c + j) * kLanes + row * kBlock);
            transpose(q);
            for (int j = 0; j < 4; ++j) {
                if (f.background) q[j] += rest[row * kBlock + j] * load_quad(f.background + c);
                store_quad(to + j * f.channels + c, q[j]);
            }
        }
    }
    for_each_pixel(f, t, b, [&](int64_t pixel, int i) {
        float *to = images.features + pixel * f.channels;
        for (int c = quads; c < f.channels; ++c)
            to[c] = sums[c * kLanes + i] + (f.background ? rest[i] * f.background[c] : 0.0f);
        images.depth_sum[pixel] = sums[f.channels * kLanes + i];
        images.alpha[pixel] = 1.0f - rest[i];
    });
}

void forward_tile(const Frame &f, const Forward &out, int index, const Scratch &s) {
    static const Grid grid;
    const Tile t = tile_at(f, index);
    const bool counting = s.stats != nullptr;
    int64_t lengths[kBlocks] = {};
    pack(f, t, s);
    const Vec corner_x = load(grid.corner_x), corner_y = load(grid.corner_y);
    for (int64_t k = 0; k < t.count; ++k) {
        uint32_t mask = touched_blocks(s.params + k * 8, corner_x, corner_y);
        f.entry_mask[t.begin + k] = static_cast<uint16_t>(mask);
        for (; mask; mask &= mask - 1) {
            const int b = __builtin_ctz(mask);
            s.lists[b * s.capacity + lengths[b]++] = static_cast<uint32_t>(k);
        }
    }
    if (counting)
        for (int64_t k = 0; k < t.count * 2 * kLanes; ++k) s.stats[k] = 0.0f;
    int64_t pairs = 0;
    const Vec stop = fill(kTransmittanceStop);
    for (int b = 0; b < kBlocks; ++b) {
        const int x0 = t.x + b % 4 * kBlock, y0 = t.y + b / 4 * kBlock;
        if (x0 >= f.width || y0 >= f.height) continue;
        alignas(64) float start[kLanes];
        inside(f, t, b, start);
        const Vec x = load(grid.x[b]), y = load(grid.y[b]);
        const uint32_t *list = s.lists + b * s.capacity;
        Vec T = load(start), rest = fill(1.0f);  // T turns 0 where a ray has ended; rest is what it ended with
        int64_t count = 0;
        for (; count < lengths[b]; ++count) {
            const float *p = s.params + static_cast<int64_t>(list[count]) * 8;
            const Vec w = T * alpha_of(p, x - fill(p[0]), y - fill(p[1]));
            const Vec next = T - w;
            store(s.weights + count * kLanes, where_greater(next, stop, w));
            rest = choose_greater(next, stop, next, rest);
            T = where_greater(next, stop, next);
            if (!any_greater(next, stop)) break;
        }
        float *sums = s.image;
        int c = 0;
        for (; c + 8 <= f.padded; c += 8)
            accumulate<8>(s.weights, s.features + c, list, count, f.padded, sums + c * kLanes);
        for (; c < f.padded; c += 4)
            accumulate<4>(s.weights, s.features + c, list, count, f.padded, sums + c * kLanes);
        store(sums + f.padded * kLanes, rest);
        write_block(f, *out.images, t, b, sums, sums + f.padded * kLanes);
        if (counting)
            for (int64_t k = 0; k < count; ++k) {
                const float *w = s.weights + k * kLanes;
                float *stats = s.stats + static_cast<int64_t>(list[k]) * 2 * kLanes;
                store(stats, load(stats) + load(w));
                store(stats + kLanes, larger(load(stats + kLanes), load(w)));
                for (int i = 0; i < kLanes; ++i) pairs += w[i] > 0.0f;
            }
    }
    if (!counting) return;
    out.tile_pairs[index] = pairs;
    for (int64_t k = 0; k < t.count; ++k) {
        const float *stats = s.stats + k * 2 * kLanes;
        float sum = 0.0f, most = 0.0f;
        for (int i = 0; i < kLanes; ++i) {
            sum += stats[i];
            most = stats[kLanes + i] > most ? stats[kLanes + i] : most;
        }
        out.slot_sum[f.entry_slot[t.begin + k]] = sum;
        out.slot_max[f.entry_slot[t.begin + k]] = most;
    }
}

// Gathers the image gradients of a tile: (block, padded + 1, 16), the last one belonging to alpha.
M4D_INLINE void gather(const Frame &f, const m4d_image_gradients &g, const Tile &t, float *out) {
    const int rows = f.padded + 1;
    const Vec zero = fill(0.0f);
    for (int b = 0; b < kBlocks; ++b, out += rows * kLanes) {
        const int quads = g.features && whole(f, t, b) ? f.channels / 4 * 4 : 0;
        for (int c = quads; c < rows; ++c) store(out + c * kLanes, zero);
        for (int row = 0; quads && row < kBlock; ++row) {
            const float *from = g.features + first_pixel_of_row(f, t, b, row) * f.channels;
            for (int c = 0; c < quads; c += 4) {
                Quad q[4];
                for (int j = 0; j < 4; ++j) q[j] = load_quad(from + j * f.channels + c);
                transpose(q);
                for (int j = 0; j < 4; ++j) store_quad(out + (c + j) * kLanes + row * kBlock, q[j]);
            }
        }
        for_each_pixel(f, t, b, [&](int64_t pixel, int i) {
            for (int c = quads; g.features && c < f.channels; ++c)
                out[c * kLanes + i] = g.features[pixel * f.channels + c];
            if (g.depth_sum) out[f.channels * kLanes + i] = g.depth_sum[pixel];
            if (g.alpha) out[f.padded * kLanes + i] = g.alpha[pixel];
        });
    }
}

template <int K>
struct Count {
    static constexpr int value = K;
};

// Far to near over one tile. K = padded channel count when its sums fit in registers, else 0. Without Geometry only the
// gradients of features are summed.
template <int K, bool Geometry>
M4D_INLINE void walk_back(const Frame &f, const Backward &out, const Tile &t, const Scratch &s, const Grid &grid,
                          int64_t count, const uint16_t *masks, const float *stream, float (*behind)[kLanes]) {
    const int padded = K ? K : f.padded, rows = padded + 1;
    for (int64_t k = count - 1; k >= 0; --k) {
        const float *p = s.params + k * 8, *feature = s.features + k * padded;
        float *slot = out.slots + f.entry_slot[t.begin + k] * (kMoments + padded);
        const Vec zero = fill(0.0f), clip = fill(kAlphaMax);
        Vec s0 = zero, sx = zero, sy = zero, sxx = zero, sxy = zero, syy = zero;
        Vec sums[K ? K : 1];
        for (int c = 0; c < K; ++c) sums[c] = zero;
        alignas(64) float weights[K ? 1 : kBlocks][kLanes];
        uint32_t mask = masks[k];
        while (mask) {
            const int b = 31 - __builtin_clz(mask);
            mask ^= 1u << b;
            stream -= 2 * kLanes;
            const Vec alpha = load(stream), T = load(stream + kLanes), w = alpha * T;
            const float *g = s.image + b * rows * kLanes;
            if (!K) store(weights[K ? 0 : b], w);
            if (!Geometry) {
                for (int c = 0; c < K; ++c) sums[K ? c : 0] = sums[K ? c : 0] + w * load(g + c * kLanes);
                continue;
            }
            Vec part[4] = {load(g + padded * kLanes), zero, zero, zero};  // four chains hide the latency
            for (int c = 0; c < padded; c += 4)
                for (int j = 0; j < 4; ++j) {
                    const Vec by_channel = load(g + (c + j) * kLanes);
                    part[j] = part[j] + fill(feature[c + j]) * by_channel;
                    if (K) sums[K ? c + j : 0] = sums[K ? c + j : 0] + w * by_channel;
                }
            const Vec v = (part[0] + part[1]) + (part[2] + part[3]);
            const Vec R = load(behind[b]), step = v - R;
            store(behind[b], R + alpha * step);
            const Vec by_power = where_greater(clip, alpha, w * step);
            const Vec dx = load(grid.x[b]) - fill(p[0]), dy = load(grid.y[b]) - fill(p[1]);
            const Vec px = by_power * dx, py = by_power * dy;
            s0 = s0 + by_power;
            sx = sx + px;
            sy = sy + py;
            sxx = sxx + px * dx;
            sxy = sxy + px * dy;
            syy = syy + py * dy;
        }
        if (Geometry) {
            *reinterpret_cast<Quad *>(slot) = sum4(s0, sx, sy, sxx);
            *reinterpret_cast<Quad *>(slot + 4) = sum4(sxy, syy, zero, zero);
        }
        if (K) {
            for (int c = 0; c < K; c += 4)
                *reinterpret_cast<Quad *>(slot + kMoments + c) = sum4(sums[c], sums[c + 1], sums[c + 2], sums[c + 3]);
            continue;
        }
        for (int c = 0; c < padded; c += 4) {
            Vec part[4] = {zero, zero, zero, zero};
            for (uint32_t left = masks[k]; left; left &= left - 1) {
                const int b = __builtin_ctz(left);
                const Vec w = load(weights[K ? 0 : b]);
                const float *g = s.image + (b * rows + c) * kLanes;
                for (int j = 0; j < 4; ++j) part[j] = part[j] + w * load(g + j * kLanes);
            }
            *reinterpret_cast<Quad *>(slot + kMoments + c) = sum4(part[0], part[1], part[2], part[3]);
        }
    }
}

void backward_tile(const Frame &f, const Backward &out, int index, const Scratch &s) {
    static const Grid grid;
    const Tile t = tile_at(f, index);
    const int padded = f.padded, rows = padded + 1;
    pack(f, t, s);
    gather(f, *out.given, t, s.image);

    // Per pixel: transmittance (0 once the ray has ended), what it ended with, radiance from behind.
    alignas(64) float T[kBlocks][kLanes], rest[kBlocks][kLanes], behind[kBlocks][kLanes];
    uint32_t live = 0;  // blocks with a ray that has not ended
    for (int b = 0; b < kBlocks; ++b) {
        inside(f, t, b, T[b]);
        if (t.x + b % 4 * kBlock < f.width && t.y + b / 4 * kBlock < f.height) live |= 1u << b;
        for (int i = 0; i < kLanes; ++i) {
            behind[b][i] = 0.0f, rest[b][i] = 1.0f;
            if (f.background)
                for (int c = 0; c < f.channels; ++c)
                    behind[b][i] += f.background[c] * s.image[(b * rows + c) * kLanes + i];
        }
    }

    uint16_t *masks = reinterpret_cast<uint16_t *>(s.lists);
    float *stream = s.stream;
    const Vec stop = fill(kTransmittanceStop);
    int64_t count = 0;
    for (; count < t.count && live; ++count) {
        const float *p = s.params + count * 8;
        uint32_t mask = f.entry_mask[t.begin + count] & live;
        masks[count] = static_cast<uint16_t>(mask);
        for (; mask; mask &= mask - 1) {
            const int b = __builtin_ctz(mask);
            const Vec before = load(T[b]);
            const Vec alpha = alpha_of(p, load(grid.x[b]) - fill(p[0]), load(grid.y[b]) - fill(p[1]));
            const Vec next = before - before * alpha;
            store(stream, where_greater(next, stop, alpha));
            store(stream + kLanes, before);
            store(T[b], where_greater(next, stop, next));
            if (out.tile_background) store(rest[b], choose_greater(next, stop, next, load(rest[b])));
            stream += 2 * kLanes;
            if (!any_greater(next, stop)) live &= ~(1u << b);
        }
    }
    for (int c = 0; out.tile_background && c < padded; c += 4) {
        Vec sums[4] = {fill(0.0f), fill(0.0f), fill(0.0f), fill(0.0f)};
        for (int b = 0; b < kBlocks; ++b)
            for (int j = 0; j < 4; ++j) sums[j] = sums[j] + load(rest[b]) * load(s.image + (b * rows + c + j) * kLanes);
        store_quad(out.tile_background + index * padded + c, sum4(sums[0], sums[1], sums[2], sums[3]));
    }
    for (int64_t k = count; k < t.count; ++k) {
        float *slot = out.slots + f.entry_slot[t.begin + k] * (kMoments + padded);
        for (int c = 0; c < kMoments + padded; ++c) slot[c] = 0.0f;
    }
    const auto walk = [&](auto padded_in_registers) {
        constexpr int K = decltype(padded_in_registers)::value;
        if (out.geometry) return walk_back<K, true>(f, out, t, s, grid, count, masks, stream, behind);
        walk_back<K, false>(f, out, t, s, grid, count, masks, stream, behind);
    };
    // Sums per channel stay in registers where there are enough of them: measured, AVX2 and less do better without.
    if (kWidth == 16) switch (padded) {
            case 4: return walk(Count<4>());
            case 8: return walk(Count<8>());
            case 12: return walk(Count<12>());
            case 16: return walk(Count<16>());
        }
    walk(Count<0>());
}

}  // namespace

#define M4D_TEXT(x) #x
#define M4D_NAME(x) M4D_TEXT(x)
#define M4D_JOIN(a, b) a##b
#define M4D_FUNCTION(isa) M4D_JOIN(kernels_, isa)

const m4d::Kernels &m4d::M4D_FUNCTION(M4D_KERNELS)() {
    static const Kernels kernels = {project, project_backward, forward_tile, backward_tile, M4D_NAME(M4D_KERNELS)};
    return kernels;
}
