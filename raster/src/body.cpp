// Fits of rigid bodies: gathers the pixels that could be followed.

#include "body.h"

#include <cstdlib>
#include <new>

#include "frame.h"

namespace m4d {
namespace {

const BodyKernels &kernels() {
    switch (instruction_set()) {
#ifdef M4D_HAVE_AVX512
        case 2: return body_kernels_avx512();
#endif
#ifdef M4D_HAVE_AVX2
        case 1: return body_kernels_avx2();
#endif
        default: return body_kernels_baseline();
    }
}

// Returns how many observations there are.
int64_t gather(const m4d_body_fit &fit, BodyPixels &to) {
    const int64_t image = int64_t(fit.height) * fit.width, n = fit.count;
    std::vector<int32_t> seen(size_t(n), 0);
    int64_t observations = 0;
    for (int f = 0; f < fit.frames; ++f)
        for (int64_t i = 0; i < n; ++i) seen[size_t(i)] += fit.valid[f * image + fit.pixels[i]] != 0;
    for (int64_t i = 0; i < n; ++i) observations += seen[size_t(i)], to.followed += seen[size_t(i)] > 0;
    to.frames = fit.frames, to.padded = (to.followed + kBodyLanes - 1) / kBodyLanes * kBodyLanes;
    to.x.assign(size_t(to.padded), 0.0f), to.y = to.x;
    to.u.assign(size_t(to.padded * fit.frames), 0.0f), to.v = to.base = to.share = to.u;
    int64_t at = 0;
    for (int64_t i = 0; i < n; ++i) {
        if (!seen[size_t(i)]) continue;
        const int32_t pixel = fit.pixels[i];
        to.x[size_t(at)] = (float(pixel % fit.width) - 0.5f * float(fit.width)) / fit.unit;
        to.y[size_t(at)] = (float(pixel / fit.width) - 0.5f * float(fit.height)) / fit.unit;
        for (int f = 0; f < fit.frames; ++f) {
            const size_t k = size_t(f * to.padded + at);
            const float *flow = fit.flow + 2 * (f * image + pixel), sigma = fit.sigma[f];
            to.u[k] = flow[0], to.v[k] = flow[1];
            if (!fit.valid[f * image + pixel]) continue;
            to.base[k] = (fit.weight ? fit.weight[i] : 1.0f) / (sigma * sigma);
            to.share[k] = 1.0f / sigma / float(seen[size_t(i)]);
        }
        ++at;
    }
    return observations;
}

}  // namespace
}  // namespace m4d

extern "C" int m4d_fit_body(const m4d_body_fit *fit) try {
    m4d::BodyPixels pixels;
    if (fit->frames < 1 || fit->frames > m4d::kMostFrames) return 2;
    if (m4d::gather(*fit, pixels) < fit->enough || pixels.followed == 0) return 2;
    m4d::kernels().fit(*fit, pixels);
    return 0;
} catch (const std::bad_alloc &) {
    return 1;
}
