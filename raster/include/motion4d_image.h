/* Work on every pixel of an image that NumPy takes many passes for. Row-major arrays; one thread, one order.
 *
 * The references are in test/geometry/test_geometry.py and test/priors/masks/discovery/test_native_misfit.py (NumPy).
 */
#ifndef MOTION4D_IMAGE_H
#define MOTION4D_IMAGE_H

#include "motion4d_raster.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Smooths values (H, W, C), in place, along but not across the edges of a guide (H, W, G): the recursive filter of
 * Gastal and Oliveira, "Domain Transform for Edge-Aware Image and Video Processing" (SIGGRAPH 2011). Returns 0, or 1
 * when memory ran out. */
M4D_API int m4d_domain_transform(float *values, int32_t height, int32_t width, int32_t channels, const uint8_t *guide,
                                 int32_t guide_channels, double sigma_space, double sigma_color, int32_t passes);

/* What a rigid body leaves unexplained of the pixels `where` of a frame, of which F other frames' flow is known: see
 * motion4d_ros/priors/masks/discovery/rigid_motion.py. */
typedef struct {
    int32_t frames, height, width;
    float unit;                  /* px, of x and y in the body's model */
    float cap, typical, relief;  /* standard deviations: most misfit, that of an unseen pixel, most relief */
    const float *flow;           /* (F, H, W, 2) px */
    const uint8_t *valid;        /* (F, H, W) */
    const float *sigma;          /* (F,) px */
    const float *affine;         /* (F, 2, 3) px */
    const float *parallax;       /* (F, 2) px */
    const uint8_t *where;        /* (H, W) */
    float *misfit;               /* (H, W) standard deviations; `cap` elsewhere */
} m4d_body_flow;

M4D_API void m4d_body_misfit(const m4d_body_flow *body);

#ifdef __cplusplus
}
#endif
#endif
