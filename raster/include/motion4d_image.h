/* Work on the pixels of an image that NumPy takes many passes for. Row-major arrays; one thread, one order.
 *
 * The references are in test/geometry/test_geometry.py and test/priors/masks/discovery (NumPy).
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

/* The motion of a rigid body, fitted to n pixels of a frame: `fit_body` of the same file. At most 32 frames. */
typedef struct {
    int32_t frames, height, width, count; /* F, H, W, n */
    int32_t affine_rounds, rounds;        /* of re-weighting, without and with relief */
    int64_t enough;                       /* observations that a fit needs */
    float unit;                           /* px, of x and y */
    float scale, times;                   /* misfit at which a pixel counts a quarter: px over sigma, or times the median */
    float slack, relief;                  /* how many times as much is believed at first; most relief */
    const float *flow;                    /* (F, H, W, 2) px */
    const uint8_t *valid;                 /* (F, H, W) */
    const float *sigma;                   /* (F,) px */
    const int32_t *pixels;                /* (n,) y W + x */
    const float *weight;                  /* (n,) of the pixels; NULL: 1 each */
    float *affine, *parallax;             /* (F, 2, 3), (F, 2) px */
} m4d_body_fit;

/* Returns 0, 1 when memory ran out, 2 when there are too few observations. */
M4D_API int m4d_fit_body(const m4d_body_fit *fit);

#ifdef __cplusplus
}
#endif
#endif
