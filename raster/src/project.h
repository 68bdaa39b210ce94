// From Gaussians in the map to splats in the image, and the way back for gradients.
#pragma once

#include "frame.h"

namespace m4d {

struct Tiling {
    int x, y;  // tiles across and down
};

// Fills `splat`; one that cannot be seen (behind the near plane, outside, not finite, too faint) gets depth 0.
void project(const m4d_scene &scene, const Tiling &tiles, int64_t index, Splat &splat);

// `sums` are the kMoments sums of frame.h, then depth. Adds to `T` (12) and writes the gradients of this Gaussian.
void project_backward(const m4d_scene &scene, int64_t index, const double *sums, double depth, float *means, float *quats,
                      float *scales, float *opacity, double *T);

// Whether tile number `k` of the splat's rectangle is touched.
inline bool touches(const Splat &s, int k) { return k >= 64 || (s.tiles >> k & 1); }

}  // namespace m4d
