// What the stages of a pass hand to each other: plain arrays, so that the kernels compiled for
// other instruction sets share no inline library code with the rest.
#pragma once

#include <cstdint>

#include "motion4d_raster.h"

namespace m4d {

constexpr int kTile = 16;            // px, side of a tile: the unit of sorting and of work
constexpr int kBlock = 4;            // px, side of a block: 16 pixels that are blended together
constexpr int kBlocks = 16;          // blocks in a tile
constexpr int kLanes = 16;           // pixels in a block
constexpr int kMoments = 8;          // sums of the backward pass per splat and tile, see Sums
constexpr float kAlphaMax = 0.999f;
constexpr float kAlphaMin = 1.0f / 255.0f;
constexpr float kTransmittanceStop = 1e-4f;
constexpr double kDilation = 0.3;    // px^2

// A Gaussian as the image sees it. Alpha at offset (dx, dy) px is 2^(L - A dx^2 - B dx dy - C dy^2).
struct Splat {
    double x, y;               // px
    float A, B, C, L;
    float reach;               // largest value of the quadratic form that still gives an alpha of 1/255
    float depth;               // m; 0 = not drawn
    float radius;              // px
    int32_t tx0, ty0, tx1, ty1;  // tiles it may touch, half open
    uint64_t tiles;            // which of them it does touch (row-major), when they are at most 64
    int64_t slot;              // index of its first (splat, tile) entry in the order of Gaussians
    int32_t entries;           // how many of them
};

// Order of the sums over pixels in a slot, with p = dL/d(log alpha): p, p dx, p dy, p dx^2, p dx dy, p dy^2.
enum Sums { kP, kPx, kPy, kPxx, kPxy, kPyy };

struct Frame {
    int width, height, channels;
    int padded;                // channels + 1 (depth), rounded up to a multiple of 4
    int tiles_x, tiles_y;
    const Splat *splats;       // (N,)
    const int64_t *tile_begin; // (tiles + 1,) into the entries
    const uint32_t *entry_splat;  // by tile, near to far
    const int64_t *entry_slot;
    uint16_t *entry_mask;      // blocks of the tile it touches
    const float *features, *background;
};

// Working memory of one thread, sized for the longest list of a tile.
struct Scratch {
    float *params;     // (n, 8)
    float *features;   // (n, padded)
    uint32_t *lists;   // (16, n)
    float *weights;    // (n, 16)
    float *stats;      // (n, 2, 16) or null
    float *stream;     // (16 n, 2, 16): alpha and transmittance of the backward pass
    float *image;      // (16 blocks, padded + 1, 16)
    int64_t capacity;  // n
};

struct Forward {
    const m4d_images *images;
    float *slot_sum, *slot_max;  // per slot, or null
    int64_t *tile_pairs;         // per tile, or null
};

struct Backward {
    const m4d_image_gradients *given;
    float *slots;            // (slots, kMoments + padded)
    float *tile_background;  // (tiles, padded) gradient of the background, or null
    bool geometry;           // whether more than the gradients of features and background is wanted
};

// Everything that is compiled once per instruction set.
struct Kernels {
    void (*project)(const m4d_scene &, int64_t begin, int64_t end, Splat *);
    void (*project_backward)(const m4d_scene &, int64_t index, const double *sums, double depth, float *means,
                             float *quats, float *scales, float *opacity, double *T);
    void (*forward)(const Frame &, const Forward &, int tile, const Scratch &);
    void (*backward)(const Frame &, const Backward &, int tile, const Scratch &);
    const char *name;
};

int instruction_set();  // that kernels are to be of: 0 baseline, 1 AVX2, 2 AVX-512

const Kernels &kernels_baseline();
const Kernels &kernels_avx2();
const Kernels &kernels_avx512();

// Smallest value of A x^2 + B x y + C y^2 (C, A > 0, convex) over a rectangle.
// The minimum lies on an edge that faces the origin, so two candidates are enough.
static inline float least_over_rectangle(float A, float B, float C, float x0, float y0, float x1, float y1) {
    const auto clamp = [](float v, float low, float high) {  // NaN, from 0/0 of a very flat form, becomes `low`
        v = v > low ? v : low;
        return v < high ? v : high;
    };
    const float nx = clamp(0.0f, x0, x1), ny = clamp(0.0f, y0, y1);
    const float y_at = clamp(-0.5f * B * nx / C, y0, y1), x_at = clamp(-0.5f * B * ny / A, x0, x1);
    const float first = A * nx * nx + B * nx * y_at + C * y_at * y_at;
    const float second = A * x_at * x_at + B * x_at * ny + C * ny * ny;
    return first < second ? first : second;
}

}  // namespace m4d
